//! `http`: a request from the operator.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Beginning, Conditions, MAX_EXPRESSION_BYTES, StepSpec};

/// What a response must satisfy where the spec says nothing.
const DEFAULT_EXPECT: &str = "response.status < 400";

/// One header of a request.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
pub struct Header {
    /// The header's name.
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    /// The header's value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// A request over HTTP from the operator.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HttpStep {
    /// Where to; `http` or `https`.
    #[schemars(length(min = 1, max = 2048))]
    pub url: String,
    /// The method (default GET).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(GET|HEAD|POST|PUT|PATCH|DELETE)$"))]
    pub method: Option<String>,
    /// Headers of the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub headers: Vec<Header>,
    /// Body of the request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub body: Option<String>,
    /// CEL over `response` (`status`, `headers`, `body`, `json`, `millis`); default `response.status < 400`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = MAX_EXPRESSION_BYTES))]
    pub expect: Option<String>,
    /// PEM certificates of the authorities that the server's certificate is checked against, beside the public ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub ca_bundle: Option<String>,
}

impl StepSpec for HttpStep {
    const BEGINNING: Beginning = Beginning::Once;

    fn templates(&self) -> Value {
        let Self { url, method: _, headers, body, expect: _, ca_bundle } = self;
        json!({ "url": url, "headers": headers, "body": body, "caBundle": ca_bundle })
    }

    fn conditions(&self) -> Conditions<'_> {
        Conditions {
            success: Some(("expect", self.expect.as_deref().unwrap_or(DEFAULT_EXPECT))),
            failure: None,
            subject: Some("response"),
        }
    }

    fn sort_lists(&mut self) {
        self.headers.sort_by(|a, b| a.name.cmp(&b.name));
    }
}
