//! One object in a cluster, as somebody reaches it.

use http::{Method, Request};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions},
};
use serde_json::Value;

use super::{
    error::{ApiFailure, Class},
    kinds::Kind,
};
use crate::api::{names::RUN_FIELD_MANAGER, step::PatchType};

/// When the server gives up a write of [`WriteMode::Brief`].
pub const BRIEF_SECONDS: u32 = 5;

/// An object in the cluster, as the account of its client reaches it.
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; ignored for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Acts as the account.
    pub client: Client,
}

impl Target {
    /// The API of its kind and namespace.
    pub fn api(&self) -> Api<DynamicObject> {
        self.kind.api(self.client.clone(), &self.namespace)
    }

    /// Reads it; none when there is none.
    pub async fn get(&self) -> Result<Option<DynamicObject>, ApiFailure> {
        Ok(self.api().get_opt(&self.name).await?)
    }

    /// `StatefulSet db/etcd`, for messages.
    pub fn title(&self) -> String {
        let kind = &self.kind.resource.kind;
        if self.kind.namespaced {
            format!("{kind} {}/{}", self.namespace, self.name)
        } else {
            format!("{kind} {}", self.name)
        }
    }

    /// Creates it. Unknown fields are refused, so that a misspelt one is not silently dropped.
    pub async fn create(&self, manifest: &Value, mode: WriteMode) -> Result<DynamicObject, ApiFailure> {
        self.send(Method::POST, self.api().resource_url(), "application/json", manifest, "", mode).await
    }

    /// Patches it, or a subresource of it.
    pub async fn patch(
        &self,
        how: PatchKind,
        subresource: Option<&str>,
        patch: &Value,
        mode: WriteMode,
    ) -> Result<DynamicObject, ApiFailure> {
        let api = self.api();
        let mut url = format!("{}/{}", api.resource_url(), self.name);
        if let Some(subresource) = subresource {
            url.push('/');
            url.push_str(subresource);
        }
        let force = if how == (PatchKind::Apply { force: true }) { "&force=true" } else { "" };
        self.send(Method::PATCH, &url, how.content_type(), patch, force, mode).await
    }

    /// Deletes exactly the object with that uid, its dependents in the background. Done as well when it is gone, or when another
    /// object has its name by now. `grace_seconds` replaces the object's own grace period.
    pub async fn delete_exactly(&self, uid: &str, grace_seconds: Option<u32>) -> Result<(), ApiFailure> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            grace_period_seconds: grace_seconds,
            ..DeleteParams::background()
        };
        match self.api().delete(&self.name, &params).await.map_err(ApiFailure::from) {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: &Value,
        parameters: &str,
        how: WriteMode,
    ) -> Result<DynamicObject, ApiFailure> {
        let how = how.parameters();
        let body = serde_json::to_vec(body).map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
        let request = Request::builder()
            .method(method)
            .uri(format!("{url}?fieldManager={RUN_FIELD_MANAGER}&fieldValidation=Strict{parameters}{how}"))
            .header(http::header::CONTENT_TYPE, content_type)
            .body(body)
            .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
        Ok(self.client.request(request).await?)
    }
}

/// How a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// As it is.
    Plain,
    /// Tried without being stored.
    DryRun,
    /// The server gives it up after [`BRIEF_SECONDS`]: a write whose answer was lost has no effect after that.
    Brief,
}

impl WriteMode {
    fn parameters(self) -> String {
        match self {
            Self::Plain => String::new(),
            Self::DryRun => "&dryRun=All".into(),
            Self::Brief => format!("&timeout={BRIEF_SECONDS}s"),
        }
    }
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// Server-side apply.
    Apply {
        /// Takes over fields of other managers.
        force: bool,
    },
    /// JSON merge patch (RFC 7386).
    Merge,
    /// JSON patch (RFC 6902).
    Json,
    /// Strategic merge patch.
    Strategic,
}

impl PatchKind {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Apply { .. } => "application/apply-patch+yaml",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

impl From<PatchType> for PatchKind {
    fn from(type_: PatchType) -> Self {
        match type_ {
            PatchType::Merge => Self::Merge,
            PatchType::Json => Self::Json,
            PatchType::Strategic => Self::Strategic,
        }
    }
}

/// Whether a text that came out of an expression can stand in a URL as one segment, so that it names what it says.
pub fn is_path_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !matches!(text, "." | "..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '~'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_segment_of_a_url_names_an_object() {
        for good in ["web", "system:node", "a.b-c"] {
            assert!(is_path_segment(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", "ä"] {
            assert!(!is_path_segment(bad), "{bad}");
        }
    }
}
