//! `process`: signals to the processes of a container.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FaultSpec, Lasting};

/// What the processes are sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Signal {
    /// They stand still until the fault ends (SIGSTOP, then SIGCONT).
    #[default]
    Pause,
    /// They end at once (SIGKILL).
    Kill,
    /// They are asked to end (SIGTERM).
    Term,
    /// SIGINT.
    Int,
    /// SIGHUP.
    Hup,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    Usr1,
    /// SIGUSR2.
    Usr2,
}

/// Sends a signal to all processes of a container. It comes from the node: a container's first process takes no SIGKILL and
/// no SIGSTOP from inside.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProcessFault {
    /// The container (default: the pod's first).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
    /// `Pause` (default), `Kill`, `Term`, `Int`, `Hup`, `Quit`, `Usr1` or `Usr2`.
    #[serde(default)]
    pub signal: Signal,
}

impl FaultSpec for ProcessFault {
    const HITS: Option<(&'static str, &'static str)> = Some(("v1", "Pod"));

    fn lasting(&self) -> Lasting {
        if self.signal == Signal::Pause { Lasting::UntilUndone } else { Lasting::AtOnce }
    }
}
