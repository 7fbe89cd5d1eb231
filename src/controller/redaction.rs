//! Keeps the values of Secrets out of everything that a run leaves behind: statuses, events, records, logs, reports.
//!
//! What a step hands on goes through here once, where it is observed, and so does each log where it is read; all else is made
//! of these two. Only values that the run's account may read can be known: that is also all that its steps can print, but for
//! Secrets that a pod mounts without the account's right to read them.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Api;
use memchr::memmem;
use serde_json::{Value, json};
use tracing::warn;

use crate::{
    api::{SoakRun, SoakRunSpec, status::OutputValue},
    engine::StepSeen,
};

use super::{Shell, observe::identity};

/// What stands where a value was.
const REDACTED: &str = "[redacted]";
/// Shorter values are words that occur anyway, such as `true` or a port.
const SHORTEST: usize = 6;
/// After so long Secrets are read anew.
const TRUSTED: Duration = Duration::from_mins(1);

/// Values that must not be shown.
#[derive(Clone, Default)]
pub struct Redactor {
    /// Longest first, so that one that holds another is replaced whole.
    values: Arc<Vec<String>>,
}

impl Redactor {
    /// Of these values, each also in base64, by which Kubernetes shows it.
    pub(super) fn of(values: impl IntoIterator<Item = ByteString>) -> Self {
        let mut all = BTreeSet::new();
        for value in values {
            let encoded = json!(value).as_str().unwrap_or_default().to_owned();
            // Whatever follows the value, a newline for example, begins to show in the last characters only.
            let stem = encoded.get(..value.0.len() / 3 * 4).unwrap_or_default().to_owned();
            let text = String::from_utf8(value.0).unwrap_or_default();
            let lines = text.lines().map(str::trim).map(str::to_owned).collect::<Vec<_>>();
            all.extend(
                [text.trim().to_owned(), encoded, stem].into_iter().chain(lines).filter(|it| it.len() >= SHORTEST),
            );
        }
        let mut values: Vec<String> = all.into_iter().collect();
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self { values: Arc::new(values) }
    }

    /// Whether there is nothing to look for.
    pub fn is_idle(&self) -> bool {
        self.values.is_empty()
    }

    /// A text without the values.
    pub fn text(&self, text: String) -> String {
        self.values.iter().fold(text, |text, value| {
            if text.contains(value.as_str()) { text.replace(value.as_str(), REDACTED) } else { text }
        })
    }

    /// The name of a file without the values.
    pub fn name(&self, name: String) -> String {
        let clean = self.text(name);
        // Brackets have to be written otherwise in the path of an object.
        if clean.contains(REDACTED) { clean.replace(REDACTED, REDACTED.trim_matches(['[', ']'])) } else { clean }
    }

    /// The content of a file without the values, as far as they stand there plainly.
    pub fn bytes(&self, content: Vec<u8>) -> Vec<u8> {
        self.values.iter().fold(content, |content, value| {
            let places: Vec<usize> = memmem::find_iter(&content, value.as_bytes()).collect();
            if places.is_empty() {
                return content;
            }
            let (mut kept, mut from) = (Vec::with_capacity(content.len()), 0);
            for place in places {
                kept.extend_from_slice(&content[from..place]);
                kept.extend_from_slice(REDACTED.as_bytes());
                from = place + value.len();
            }
            kept.extend_from_slice(&content[from..]);
            kept
        })
    }

    /// A tree without the values.
    pub fn json(&self, value: &mut Value) {
        match value {
            Value::String(text) => *text = self.text(std::mem::take(text)),
            Value::Array(items) => items.iter_mut().for_each(|item| self.json(item)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.json(field)),
            Value::Null | Value::Bool(_) | Value::Number(_) => {}
        }
    }

    /// What was seen of a step, without the values.
    pub fn seen(&self, seen: StepSeen) -> StepSeen {
        if self.is_idle() {
            return seen;
        }
        match seen {
            StepSeen::Unknown | StepSeen::Absent => seen,
            StepSeen::Pending { reason, message } => StepSeen::Pending { reason, message: self.text(message) },
            StepSeen::Running { since, message } => StepSeen::Running { since, message: self.text(message) },
            StepSeen::Ended(mut end) => {
                if let Some(failure) = &mut end.failure {
                    failure.message = self.text(std::mem::take(&mut failure.message));
                }
                for value in end.outputs.values_mut() {
                    if let OutputValue::Text(text) = value {
                        *text = self.text(std::mem::take(text));
                    }
                }
                StepSeen::Ended(end)
            }
        }
    }
}

/// What is to be kept out of what a run leaves behind; its Secrets are read if that was not done lately.
pub async fn load(shell: &Shell, run: &SoakRun) -> Redactor {
    let identity = identity(run);
    let memory = shell.memories.of(&identity.uid);
    if let Some(redactor) = memory.redactor(TRUSTED) {
        return redactor;
    }
    let names = secrets(&run.spec);
    let (mut values, mut complete) = (Vec::new(), true);
    if !names.is_empty()
        && let Ok(client) = shell.clusters.own().tenants.client(&identity.account())
    {
        let secrets: Api<Secret> = Api::namespaced(client, &identity.namespace);
        for name in &names {
            match secrets.get_opt(name).await {
                Ok(found) => values.extend(found.and_then(|secret| secret.data).unwrap_or_default().into_values()),
                Err(error) => {
                    warn!(secret = name, %error, "the values of a Secret can't be kept out of logs: the run's account can't read it");
                    complete = false;
                }
            }
        }
    }
    let redactor = Redactor::of(values);
    memory.redact(redactor.clone(), complete);
    redactor
}

/// The Secrets that a spec names: by key, as a whole environment, as a volume, or for its store.
fn secrets(spec: &SoakRunSpec) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    collect(&serde_json::to_value(spec).unwrap_or_default(), &mut found);
    found.retain(|name| !name.contains("${"));
    found
}

fn collect(value: &Value, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (key, inner) in fields {
                let name = match key.as_str() {
                    "secretKeyRef" | "secretRef" => inner["name"].as_str(),
                    "secret" => inner["secretName"].as_str().or(inner["name"].as_str()),
                    "secretName" => inner.as_str(),
                    _ => None,
                };
                found.extend(name.map(str::to_owned));
                collect(inner, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::StepEnd;

    #[test]
    fn values_go_whole_in_every_form() {
        let values = [&b"canary"[..], b"canary-longer\n", b"no"].map(|value| ByteString(value.to_vec()));
        let redactor = Redactor::of(values);
        assert_eq!(redactor.text("a canary-longer canary no".into()), "a [redacted] [redacted] no");
        assert_eq!(redactor.text("x Y2FuYXJ5 y".into()), "x [redacted] y");
        assert_eq!(redactor.text("Y2FuYXJ5LWxvbmdlciBhbmQgbW9yZQ==".into()), "[redacted]ciBhbmQgbW9yZQ==");
        let binary = redactor.bytes(b"\xff\0canarycanary-longer\0Y2FuYXJ5canar".to_vec());
        assert_eq!(binary, b"\xff\0[redacted][redacted]\0[redacted]canar");
        let mut end = StepEnd::failed("Exit", "said canary");
        end.outputs.insert("token".into(), OutputValue::Text("canary".into()));
        let StepSeen::Ended(end) = redactor.seen(StepSeen::Ended(end)) else { unreachable!("it has ended") };
        assert!(!format!("{end:?}").contains("canary"), "{end:?}");
    }

    #[test]
    fn every_way_to_name_a_secret_is_found() {
        let spec: SoakRunSpec = serde_json::from_value(json!({
            "serviceAccountName": "soak",
            "results": {"objectStore": {"url": "s3://b", "secretName": "store"}},
            "phases": [{"name": "p", "steps": [{"name": "s", "pod": {
                "image": "i", "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "key", "key": "k"}}}],
                "template": {"spec": {
                    "volumes": [{"name": "v", "secret": {"secretName": "volume"}}],
                    "containers": [{"name": "main", "envFrom": [{"secretRef": {"name": "whole"}}, {"secretRef": {"name": "${params.x}"}}]}],
                }},
            }}]}],
        }))
        .unwrap();
        assert_eq!(secrets(&spec).into_iter().collect::<Vec<_>>(), ["key", "store", "volume", "whole"]);
    }
}
