//! Kubernetes Events on runs and injections: what a person would want to know, written beside the work and never in its way.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    api::names,
    engine::{Note, NoteType},
};

/// Events that may wait to be written; further ones are dropped and counted in the log.
const QUEUE: usize = 1_024;

/// Events after which kube's recorder is made anew: it keeps each for six minutes, in case one like it comes, and goes through all of
/// them for each that it writes. A series does not go on in the next recorder.
const SERIES: usize = 256;

/// Longest action that the API server accepts, in bytes.
const MAX_ACTION: usize = 128;

/// Where notes go.
#[derive(Clone)]
pub struct Notes(mpsc::Sender<(ObjectReference, Note)>);

impl Notes {
    /// Starts the writer. It ends when the last clone is dropped.
    pub fn start(client: Client, instance: String) -> Self {
        let reporter = Reporter { controller: names::OPERATOR_FIELD_MANAGER.into(), instance: Some(instance) };
        let make = move || Recorder::new(client.clone(), reporter.clone());
        let (sender, mut receiver) = mpsc::channel::<(ObjectReference, Note)>(QUEUE);
        tokio::spawn(async move {
            let (mut recorder, mut written) = (make(), 0);
            while let Some((regarding, note)) = receiver.recv().await {
                if written == SERIES {
                    (recorder, written) = (make(), 0);
                }
                written += 1;
                // Events of equal action become a series that keeps the first one's text: two failures are two events.
                let action = match note.type_ {
                    NoteType::Normal => note.reason.clone(),
                    NoteType::Warning => note.message[..note.message.floor_char_boundary(MAX_ACTION)].to_owned(),
                };
                let event = Event {
                    type_: match note.type_ {
                        NoteType::Normal => EventType::Normal,
                        NoteType::Warning => EventType::Warning,
                    },
                    action,
                    reason: note.reason,
                    note: Some(note.message),
                    secondary: None,
                };
                // An event is a courtesy: in a namespace that is going away it can't be written, and need not be.
                if let Err(error) = recorder.publish(&event, &regarding).await {
                    warn!(reason = event.reason, %error, "an event could not be written");
                }
            }
        });
        Self(sender)
    }

    /// Hands a note to the writer.
    pub fn tell(&self, regarding: ObjectReference, note: Note) {
        if self.0.try_send((regarding, note)).is_err() {
            warn!("too many events wait to be written; one was dropped");
        }
    }
}
