//! `process`: signals to the processes of a container.

use kube::api::DynamicObject;

use super::{FaultContext, FaultKind, Refusal, helper};
use crate::api::{
    failureinjection::JournalEntry,
    fault::{ProcessFault, Signal},
};

/// The helper's word for a signal; none for a pause.
const fn word(signal: Signal) -> Option<&'static str> {
    match signal {
        Signal::Pause => None,
        Signal::Kill => Some("kill"),
        Signal::Term => Some("term"),
        Signal::Int => Some("int"),
        Signal::Hup => Some("hup"),
        Signal::Quit => Some("quit"),
        Signal::Usr1 => Some("usr1"),
        Signal::Usr2 => Some("usr2"),
    }
}

impl FaultKind for ProcessFault {
    async fn entries(&self, ctx: &FaultContext<'_>, targets: &[DynamicObject]) -> Result<Vec<JournalEntry>, Refusal> {
        let mut entries = Vec::new();
        for (index, pod) in targets.iter().enumerate() {
            let arguments = match word(self.signal) {
                None => vec!["pause".to_owned()],
                Some(word) => vec!["signal".to_owned(), word.to_owned()],
            };
            let wanted = helper::Wanted {
                container: self.container.as_deref(),
                arguments,
                at_once: self.signal != Signal::Pause,
                network: false,
            };
            entries.push(helper::entry(ctx, pod, wanted, index).await?);
        }
        Ok(entries)
    }
}
