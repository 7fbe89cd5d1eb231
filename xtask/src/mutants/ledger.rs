//! What is known of each change, kept in a file: a run that was broken off goes on where it was.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    path::Path,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{list::Mutant, run::End};

/// How a change was judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// In the one program that holds all changes.
    Schema,
    /// No test reaches it.
    Unreached,
    /// The compiler refused it, in the place of what it replaces.
    Compiler,
    /// In a program of its own.
    Alone,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Schema, Self::Unreached, Self::Compiler, Self::Alone];

    pub const fn name(self) -> &'static str {
        match self {
            Self::Schema => "schema",
            Self::Unreached => "unreached",
            Self::Compiler => "compiler",
            Self::Alone => "alone",
        }
    }
}

/// What came of a change. `end` is none when it does not compile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub way: Way,
    pub end: Option<End>,
}

impl Verdict {
    pub const fn list(&self) -> &'static str {
        match self.end {
            None => "unviable",
            Some(End::Caught(_)) => "caught",
            Some(End::Timeout) => "timeout",
            Some(End::Missed) => "missed",
        }
    }
}

/// All verdicts so far.
pub struct Ledger {
    file: File,
    digests: BTreeMap<String, String>,
    all: String,
    known: BTreeMap<u32, Verdict>,
}

impl Ledger {
    /// Reads what an earlier run has found out about these changes. It holds as long as the changed file is the same (its
    /// digest is in `digests`), and that a change is missed as long as nothing is changed, tests included (`all`).
    pub fn open(path: &Path, mutants: &[Mutant], digests: BTreeMap<String, String>, all: String) -> Result<Self> {
        let numbers: BTreeMap<&str, &Mutant> = mutants.iter().map(|mutant| (mutant.name.as_str(), mutant)).collect();
        let mut known = BTreeMap::new();
        for line in fs::read_to_string(path).unwrap_or_default().lines() {
            let entry: Value = serde_json::from_str(line).unwrap_or_default();
            let Some(mutant) = entry["name"].as_str().and_then(|name| numbers.get(name)) else { continue };
            let same = entry["digest"].as_str() == digests.get(&mutant.file).map(String::as_str);
            let missed = entry["end"] == "missed";
            if let Some(verdict) = verdict(&entry)
                && same
                && (!missed || entry["all"] == all.as_str())
            {
                known.insert(mutant.number, verdict);
            }
        }
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.with_context(|| format!("{} can't be written", path.display()))?;
        Ok(Self { file, digests, all, known })
    }

    pub fn get(&self, number: u32) -> Option<&Verdict> {
        self.known.get(&number)
    }

    pub fn put(&mut self, mutant: &Mutant, verdict: Verdict) -> Result<()> {
        let by = if let Some(End::Caught(by)) = &verdict.end { by } else { "" };
        let entry = json!({
            "name": mutant.name, "digest": self.digests.get(&mutant.file), "all": self.all,
            "end": verdict.list(), "way": verdict.way.name(), "by": by,
        });
        writeln!(self.file, "{entry}")?;
        self.known.insert(mutant.number, verdict);
        Ok(())
    }
}

fn verdict(entry: &Value) -> Option<Verdict> {
    let way = Way::ALL.into_iter().find(|way| entry["way"] == way.name())?;
    let end = match entry["end"].as_str()? {
        "unviable" => None,
        "caught" => Some(End::Caught(entry["by"].as_str()?.to_owned())),
        "timeout" => Some(End::Timeout),
        "missed" => Some(End::Missed),
        _ => return None,
    };
    Some(Verdict { way, end })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::list::Genre;

    #[test]
    fn what_was_caught_stays_so_and_what_was_missed_is_tried_again_when_tests_change() {
        let mutant = |number: u32| Mutant {
            number,
            name: format!("m{number}"),
            file: "f".into(),
            genre: Genre::Unary,
            span: 0..1,
            replacement: String::new(),
            function: None,
            return_type: String::new(),
        };
        let mutants = [mutant(1), mutant(2)];
        let path = std::env::temp_dir().join(format!("mutants-ledger-{}", std::process::id()));
        let open = |digest: &str, all: &str| {
            Ledger::open(&path, &mutants, [("f".into(), digest.into())].into(), all.into()).unwrap()
        };
        let caught = Verdict { way: Way::Schema, end: Some(End::Caught("t".into())) };
        let mut ledger = open("d", "a");
        ledger.put(&mutants[0], caught.clone()).unwrap();
        ledger.put(&mutants[1], Verdict { way: Way::Unreached, end: Some(End::Missed) }).unwrap();
        assert!(open("d", "a").get(2).is_some());
        let later = open("d", "b");
        assert_eq!(later.get(1), Some(&caught));
        assert!(later.get(2).is_none());
        assert!(open("e", "a").get(1).is_none());
        fs::remove_file(&path).unwrap();
    }
}
