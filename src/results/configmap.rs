//! A record as a ConfigMap: its name and what its labels tell.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use sha2::{Digest, Sha256};

use crate::api::{names::label, status::Section};

use super::{
    once::Once,
    record::{CycleRecord, RunRef},
    summary::SummaryRecord,
    text::RecordText,
};

/// The key under which a ConfigMap holds the record.
pub const KEY: &str = "record.json";

/// Longest part of a record's name that is taken from the run's.
const READABLE: usize = 63;

/// What a record tells of, within one attempt of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordPart {
    /// The setup.
    Setup,
    /// The cycle of that number.
    Cycle(u32),
    /// The cleanup.
    Cleanup,
    /// The whole attempt.
    Summary,
}

impl RecordPart {
    /// The value of the label [`RECORD`](label::RECORD).
    pub const fn label(self) -> &'static str {
        match self {
            Self::Setup => "setup",
            Self::Cycle(_) => "cycle",
            Self::Cleanup => "cleanup",
            Self::Summary => "summary",
        }
    }

    /// Reads the labels of a ConfigMap.
    pub(super) fn from_labels(labels: &BTreeMap<String, String>) -> Option<Self> {
        match labels.get(label::RECORD)?.as_str() {
            "setup" => Some(Self::Setup),
            "cleanup" => Some(Self::Cleanup),
            "summary" => Some(Self::Summary),
            "cycle" => labels.get(label::CYCLE)?.parse().ok().map(Self::Cycle),
            _ => None,
        }
    }
}

impl From<(Section, u32)> for RecordPart {
    fn from((section, cycle): (Section, u32)) -> Self {
        match section {
            Section::Setup => Self::Setup,
            Section::Cycle => Self::Cycle(cycle),
            Section::Cleanup => Self::Cleanup,
        }
    }
}

impl fmt::Display for RecordPart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cycle(number) => write!(f, "c{number:06}"),
            other => f.write_str(other.label()),
        }
    }
}

/// The name of the ConfigMap that holds a record or another part of what a run writes down, such as
/// `switchover-3f2a1b9c-a1-c000012`.
///
/// It follows from the run's uid, attempt and part alone, so that storing the same record again meets itself. It is a DNS subdomain.
pub fn record_name(run: &RunRef, part: impl fmt::Display) -> String {
    let readable: String = run.name.chars().take(READABLE).collect();
    let hash = Sha256::digest(run.uid.as_bytes());
    let hash = u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]]);
    format!("{}-{hash:08x}-a{}-{part}", readable.trim_end_matches(['-', '.']), run.attempt)
}

/// A record that is ready to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigMapRecord {
    pub(super) run: RunRef,
    pub(super) part: RecordPart,
    pub(super) outcome: &'static str,
    pub(super) text: RecordText,
}

impl From<&CycleRecord> for ConfigMapRecord {
    fn from(record: &CycleRecord) -> Self {
        Self {
            run: record.run.clone(),
            part: (record.section, record.cycle).into(),
            outcome: record.outcome.as_str(),
            text: record.into(),
        }
    }
}

impl From<&SummaryRecord> for ConfigMapRecord {
    fn from(record: &SummaryRecord) -> Self {
        Self {
            run: record.run.clone(),
            part: RecordPart::Summary,
            outcome: record.verdict.phase.as_str(),
            text: record.into(),
        }
    }
}

impl ConfigMapRecord {
    /// The name of the ConfigMap.
    pub fn name(&self) -> String {
        record_name(&self.run, self.part)
    }

    /// The record's text and digest.
    pub const fn text(&self) -> &RecordText {
        &self.text
    }

    pub(super) fn once(&self) -> Once<'_> {
        let cycle = match self.part {
            RecordPart::Cycle(number) => Some(number),
            RecordPart::Setup | RecordPart::Cleanup | RecordPart::Summary => None,
        };
        Once { run: &self.run, name: self.name(), part: self.part.label(), cycle, key: KEY, what: "the record" }
    }

    /// The ConfigMap, see [`Once::manifest`].
    pub fn manifest(&self) -> ConfigMap {
        let mut map = self.once().manifest(self.text.text().to_owned(), self.text.digest().to_owned());
        map.labels_mut().insert(label::OUTCOME.to_owned(), self.outcome.to_owned());
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::samples::{record, run, summary};

    #[test]
    fn names_are_readable_unique_and_valid() {
        assert_eq!(record_name(&run(), RecordPart::Cycle(12)), "switchover-2c6127f4-a1-c000012");
        let long = RunRef { name: format!("{}.{}", "a".repeat(62), "b".repeat(190)), ..run() };
        let names: Vec<String> = [
            (run(), RecordPart::Setup),
            (run(), RecordPart::Cycle(1)),
            (run(), RecordPart::Cycle(1_000_000)),
            (run(), RecordPart::Cleanup),
            (run(), RecordPart::Summary),
            (RunRef { attempt: 2, ..run() }, RecordPart::Summary),
            (RunRef { uid: "other".into(), ..run() }, RecordPart::Summary),
            (long, RecordPart::Summary),
        ]
        .iter()
        .map(|(run, part)| record_name(run, *part))
        .collect();
        for (index, name) in names.iter().enumerate() {
            assert!(!names[..index].contains(name), "{name} twice");
            assert!(name.len() <= 100 && !name.contains(".-"), "{name}");
        }
    }

    #[test]
    fn the_labels_tell_what_the_record_is_and_can_be_read_back() {
        let map = ConfigMapRecord::from(&record()).manifest();
        let labels = map.metadata.labels.unwrap();
        assert_eq!(labels[label::RUN], "switchover");
        assert_eq!(labels[label::OUTCOME], "Failed");
        assert_eq!(RecordPart::from_labels(&labels), Some(RecordPart::Cycle(12)));
        let owner = &map.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.uid.as_str(), owner.block_owner_deletion), (run().uid.as_str(), None));
        assert_eq!(map.immutable, Some(true));

        let mut summary = summary();
        summary.run.name = "x".repeat(64);
        let map = ConfigMapRecord::from(&summary).manifest();
        let labels = map.metadata.labels.unwrap();
        assert!(!labels.contains_key(label::RUN), "a name that is too long for a label is left out");
        assert_eq!(RecordPart::from_labels(&labels), Some(RecordPart::Summary));
    }
}
