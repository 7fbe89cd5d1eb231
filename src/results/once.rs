//! ConfigMaps that are made once for a run and never change: its records, and what is written down before its first step.
//!
//! Their names follow from the run's uid and attempt, so that whoever comes first decides, a crash in between included, and
//! making one again meets the first. Each has a digest of its text, and the run's uid, by which it is known when it is read back.
//! These are the operator's own writes (S12). The client's retry of POST must be off: what an ambiguous answer left behind is
//! found out by reading.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::ConfigMap,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Api, Client, ResourceExt, api::PostParams};

use super::{
    configmap::record_name,
    kube_error::{Failed, StoreError, call},
    record::RunRef,
    text::digest,
};
use crate::api::names::{GROUP, OPERATOR_FIELD_MANAGER, VERSION, label};

/// Longest value of a label.
const LABEL: usize = 63;
/// Labels by which one is told from others of its run.
const TELLING: [&str; 3] = [label::RUN_ATTEMPT, label::RECORD, label::CYCLE];

/// Which ConfigMap it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Once<'a> {
    /// Whose it is, and with whom it is collected.
    pub run: &'a RunRef,
    /// Its name.
    pub name: String,
    /// What it is, as its label [`RECORD`](label::RECORD) tells.
    pub part: &'static str,
    /// The cycle that it is of.
    pub cycle: Option<u32>,
    /// The key of its text.
    pub key: &'static str,
    /// What it is, for people: `the record`.
    pub what: &'static str,
}

/// One that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// The text that it holds; not that which was to be made if one was there before.
    pub text: String,
    /// The digest of that text.
    pub digest: String,
    /// Its uid.
    pub uid: String,
    /// Whether it was there before: made by this operator before it crashed, or by a call whose answer was lost.
    pub adopted: bool,
}

impl<'a> Once<'a> {
    /// What is written down about an attempt of a run beside its records. `part` is the end of its name, too.
    pub fn new(run: &'a RunRef, part: &'static str, key: &'static str, what: &'static str) -> Self {
        Self { run, name: record_name(run, part), part, cycle: None, key, what }
    }

    /// The ConfigMap. It is immutable, and collected with the run.
    ///
    /// The owner reference does not block the run's deletion: what was written down is lost with the run, never in its way.
    pub fn manifest(&self, text: String, digest: String) -> ConfigMap {
        let RunRef { name: run, namespace, uid, attempt } = self.run;
        let mut labels = BTreeMap::from([
            (label::RUN_UID.to_owned(), uid.clone()),
            (label::RUN_ATTEMPT.to_owned(), attempt.to_string()),
            (label::RECORD.to_owned(), self.part.to_owned()),
            (label::MANAGED_BY.to_owned(), OPERATOR_FIELD_MANAGER.to_owned()),
        ]);
        if run.len() <= LABEL {
            labels.insert(label::RUN.to_owned(), run.clone());
        }
        if let Some(number) = self.cycle {
            labels.insert(label::CYCLE.to_owned(), number.to_string());
        }
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(self.name.clone()),
                namespace: Some(namespace.clone()),
                labels: Some(labels),
                annotations: Some(BTreeMap::from([(label::DIGEST.to_owned(), digest)])),
                owner_references: Some(vec![OwnerReference {
                    api_version: format!("{GROUP}/{VERSION}"),
                    kind: "SoakRun".to_owned(),
                    name: run.clone(),
                    uid: uid.clone(),
                    controller: Some(true),
                    block_owner_deletion: None,
                }]),
                ..ObjectMeta::default()
            },
            immutable: Some(true),
            data: Some(BTreeMap::from([(self.key.to_owned(), text)])),
            binary_data: None,
        }
    }

    /// Makes it, as [`manifest`](Self::manifest) has given it.
    ///
    /// Guarantees: on success the server has shown the text that is returned, under this name, owned by the run. One that was
    /// made before is adopted as it is. Nothing is ever overwritten.
    ///
    /// Errors: transient ones may be tried again at once or later, any number of times; others say what has to be changed.
    pub async fn make(&self, client: Client, manifest: &ConfigMap) -> Result<Made, StoreError> {
        let namespace = &self.run.namespace;
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let doing = format!("storing {} {namespace}/{}", self.what, self.name);
        let parameters = PostParams { field_manager: Some(OPERATOR_FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match call(api.create(&parameters, manifest), &doing, namespace).await {
            Ok(created) => self.intact(created).ok_or_else(|| {
                StoreError::Terminal(format!(
                    "{doing}: the server stored other content than it was given: exempt ConfigMaps labelled {} from the admission webhook that changes them, then delete this one",
                    label::RECORD
                ))
            }),
            Err(Failed::Exists) => match call(api.get(&self.name), &doing, namespace).await {
                Ok(found) => self.adopt(found, &doing),
                Err(failure) => Err(failure.into_error(&doing)),
            },
            // A second POST would be harmless because of the name, but it would not tell whether the first one is still on its way.
            Err(Failed::Ambiguous(message)) => match call(api.get(&self.name), &doing, namespace).await {
                Ok(found) => self.adopt(found, &doing),
                Err(Failed::Missing) => {
                    Err(StoreError::Transient(format!("{doing}: {message}; it is not there: it is tried again")))
                }
                Err(failure) => Err(failure.into_error(&doing)),
            },
            // Only a namespace can be missing for a POST.
            Err(Failed::Missing) => Err(StoreError::Terminal(format!(
                "{doing}: there is no such namespace: create it again, or delete the run"
            ))),
            Err(Failed::Refused(error)) => Err(error),
        }
    }

    /// Reads it back; none if it is not there.
    ///
    /// Errors: [`StoreError::Taken`] when the ConfigMap of that name is not this one or was changed, or the call's failure.
    pub async fn get(&self, client: Client) -> Result<Option<Made>, StoreError> {
        let namespace = &self.run.namespace;
        let api: Api<ConfigMap> = Api::namespaced(client, namespace);
        let doing = format!("reading {} {namespace}/{}", self.what, self.name);
        match call(api.get(&self.name), &doing, namespace).await {
            Ok(found) => self.adopt(found, &doing).map(Some),
            Err(Failed::Missing) => Ok(None),
            Err(failure) => Err(failure.into_error(&doing)),
        }
    }

    /// Accepts what is there already, if it is this one and whole.
    fn adopt(&self, found: ConfigMap, doing: &str) -> Result<Made, StoreError> {
        let refuse = |problem: &str| {
            Err(StoreError::Taken(format!(
                "{doing}: there is a ConfigMap of that name that {problem}: look at it, and delete it if it is not needed"
            )))
        };
        let labels = found.labels();
        let owned = found.owner_references().iter().any(|owner| owner.uid == self.run.uid);
        let ours = owned && labels.get(label::RUN_UID) == Some(&self.run.uid);
        if !ours && !crate::switches::without("uid-check") {
            return refuse("belongs to somebody else");
        }
        let wanted =
            [Some(self.run.attempt.to_string()), Some(self.part.to_owned()), self.cycle.map(|it| it.to_string())];
        if TELLING.iter().zip(&wanted).any(|(label, wanted)| labels.get(*label) != wanted.as_ref()) {
            return refuse("is labelled as another record");
        }
        match self.intact(found) {
            Some(made) => Ok(Made { adopted: true, ..made }),
            None => refuse("does not match its digest: it was changed"),
        }
    }

    /// What it holds, if that has the digest that was noted.
    fn intact(&self, mut map: ConfigMap) -> Option<Made> {
        let text = map.data.as_mut()?.remove(self.key)?;
        let digest = digest(&text);
        let uid = map.uid().unwrap_or_default();
        (map.annotations().get(label::DIGEST) == Some(&digest)).then_some(Made { text, digest, uid, adopted: false })
    }
}
