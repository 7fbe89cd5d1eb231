//! `toxiproxy`: a toxic in a proxy of Toxiproxy.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};
use crate::api::step::is_false;

/// Which way the data flows that a toxic works on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ToxicDirection {
    /// From the server to the client (Toxiproxy's `downstream`).
    #[default]
    ToClient,
    /// From the client to the server (`upstream`).
    ToServer,
}

/// Adds a toxic to proxies of a Toxiproxy server, or switches the proxies off.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = (
    "has(self.type) != (has(self.disabled) && self.disabled)",
    "set the toxic's type, or disabled: true to switch the proxies off"
))]
pub struct ToxiproxyFault {
    /// Where the server's API is, such as `http://toxiproxy.team-a.svc:8474`.
    #[schemars(length(min = 1, max = 2048), regex(pattern = "^https?://"))]
    pub url: String,
    /// Names of the proxies; a `*` at the end stands for any rest.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 253)))]
    pub proxies: Vec<String>,
    /// `latency`, `bandwidth`, `slow_close`, `timeout`, `reset_peer`, `slicer` or `limit_data`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^(latency|bandwidth|slow_close|timeout|reset_peer|slicer|limit_data)$"))]
    pub type_: Option<String>,
    /// `ToClient` (default) or `ToServer`.
    #[serde(default)]
    pub direction: ToxicDirection,
    /// Share of connections that it works on, in percent (default 100).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub toxicity_percent: Option<u32>,
    /// What the toxic takes, in its own units: `latency` and `jitter` in ms, `rate` in KB/s, `timeout` in ms, `delay`, `bytes`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 8))]
    pub attributes: BTreeMap<String, i64>,
    /// Switches the proxies off: connections end, and none is accepted.
    #[serde(default, skip_serializing_if = "is_false")]
    pub disabled: bool,
}

impl FaultSpec for ToxiproxyFault {
    const HITS: Option<(&'static str, &'static str)> = None;

    fn lasting(&self) -> Lasting {
        Lasting::UntilUndone
    }

    fn selects(&self) -> bool {
        false
    }
}
