//! Compares the ledger with what etcd has.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::{
    etcd::{Etcd, Failure, Found, Hash},
    key::{Coordinates, range_from},
    ledger::{Content, Entry, Known, Ledger, Stream, at},
};

const PAGE: usize = 1000;
const NAMED: usize = 10;

/// What was found wrong, and how much was looked at.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Findings {
    /// Acknowledged keys that are there, with their value, at the revision that was acknowledged.
    pub verified: u64,
    /// Acknowledged keys that are not there, or not with their value.
    pub lost: u64,
    /// Keys that nobody has attempted, or whose request never left.
    pub invented: u64,
    /// Acknowledged keys whose revision is another one, or not later than that of the key before in their stream.
    pub reordered: u64,
    /// Unacknowledged writes that turned out to be there.
    pub unknown_present: u64,
    /// The first ten defects, in words.
    pub named: Vec<String>,
}

impl Findings {
    /// Whether nothing is wrong.
    pub fn good(&self) -> bool {
        self.lost + self.invented + self.reordered == 0
    }

    /// As the outputs of the step.
    pub fn outputs(&self) -> Value {
        json!({
            "keysVerified": self.verified, "lostWrites": self.lost, "inventedWrites": self.invented,
            "reorderedWrites": self.reordered, "unknownWritesPresent": self.unknown_present,
        })
    }

    fn name(&mut self, defect: String) {
        if self.named.len() < NAMED {
            self.named.push(defect);
        }
    }
}

/// The comparison, fed with the keys in etcd's order.
struct Comparison<'a> {
    prefix: &'a str,
    since: u32,
    content: &'a Content,
    seen: BTreeMap<(u32, u16), BTreeSet<u64>>,
    last: Option<(Coordinates, i64)>,
    findings: Findings,
}

impl<'a> Comparison<'a> {
    fn new(prefix: &'a str, since: u32, content: &'a Content) -> Self {
        Self { prefix, since, content, seen: BTreeMap::new(), last: None, findings: Findings::default() }
    }

    fn key(&mut self, found: &Found) {
        let Some(at) = Coordinates::parse(self.prefix, &found.key) else {
            self.findings.invented += 1;
            self.findings.name(format!("invented: {} is no key of the ledger's", found.key));
            return;
        };
        let stream = self.content.get(&(at.cycle, at.stream));
        if stream.is_some_and(|stream| at.n < stream.base) {
            // Left of a deletion that was cut short, or a write that arrived after it.
            return;
        }
        let known = stream.and_then(|stream| stream.keys.get(&at.n).copied());
        let writer = stream.and_then(|stream| stream.writer_of(at.n));
        let whole = writer.is_some_and(|writer| at.is_value(&found.value, writer));
        match known {
            Some(Known::Acknowledged(rev)) => self.acknowledged(at, found, rev, whole),
            Some(Known::Unknown) | None if whole => self.findings.unknown_present += 1,
            known => {
                let why = match (known, writer) {
                    (Some(Known::NeverSent), _) => "its request never left",
                    (_, None) => "nobody has attempted it",
                    _ => "its value is not what was attempted",
                };
                self.findings.invented += 1;
                self.findings.name(format!("invented: {} at revision {}: {why}", found.key, found.mod_revision));
            }
        }
    }

    fn acknowledged(&mut self, at: Coordinates, found: &Found, rev: i64, whole: bool) {
        self.seen.entry((at.cycle, at.stream)).or_default().insert(at.n);
        let as_acknowledged = found.mod_revision == rev;
        let in_order = self.last.is_none_or(|(before, revision)| {
            (before.cycle, before.stream) != (at.cycle, at.stream) || revision < found.mod_revision
        });
        if as_acknowledged {
            // A key that was changed later must not make those behind it look too early.
            self.last = Some((at, found.mod_revision));
        }
        if !whole {
            self.findings.lost += 1;
            self.findings.name(format!("lost: {} has another value, of {} bytes", found.key, found.value.len()));
        } else if !as_acknowledged || !in_order {
            self.findings.reordered += 1;
            let why = if as_acknowledged { "not after the key before it" } else { "changed since" };
            let has = found.mod_revision;
            self.findings.name(format!("reordered: {} was acknowledged at {rev} and is at {has}: {why}", found.key));
        } else {
            self.findings.verified += 1;
        }
    }

    fn end(mut self) -> Findings {
        for (place, stream) in self.content.range((self.since, 0)..) {
            let seen = self.seen.remove(place).unwrap_or_default();
            for (&n, known) in &stream.keys {
                if let (Known::Acknowledged(rev), false) = (known, seen.contains(&n)) {
                    self.findings.lost += 1;
                    let key = at(*place, n).key(self.prefix);
                    self.findings.name(format!("lost: {key} was acknowledged at revision {rev} and is not there"));
                }
            }
        }
        self.findings
    }
}

/// Reads everything from cycle `since` on and compares. All pages are of one revision, so a write that arrives meanwhile
/// changes nothing.
///
/// # Errors
/// When etcd can't be read until the time is up: then nothing is known, which is not the same as nothing wrong.
pub fn verify(etcd: &Etcd, content: &Content, prefix: &str, since: u32, until: Instant) -> Result<Findings, Failure> {
    let mut comparison = Comparison::new(prefix, since, content);
    let (mut begin, end) = range_from(prefix, since);
    let mut revision = 0;
    loop {
        let page = etcd.range(&begin, &end, PAGE, revision, until)?;
        revision = page.revision.min(if revision == 0 { i64::MAX } else { revision });
        for found in &page.keys {
            comparison.key(found);
        }
        match page.keys.last() {
            Some(last) if page.more => begin = after(&last.key),
            _ => return Ok(comparison.end()),
        }
    }
}

/// Compares the members' data: all keys and their history up to the newest revision, as hashed by each member.
///
/// Errors: two members differ, or one could not be asked until the time is up.
pub fn compare_members(etcd: &Etcd, until: Instant) -> Result<(), String> {
    // A hash only covers what a member has applied, so each is first made to apply all that is acknowledged by now.
    let newest = etcd.range("\0", "\0", 1, 0, until).map_err(|failure| failure.to_string())?.revision;
    loop {
        let hashes = (0..etcd.endpoints.len()).map(|endpoint| {
            etcd.linearizable_read(endpoint)?;
            etcd.hash(endpoint, newest)
        });
        let why = match hashes.collect::<Result<Vec<_>, _>>() {
            Ok(hashes) => match differ(&hashes) {
                Some(why) => why,
                None => return Ok(()),
            },
            Err(failure) => format!("a member could not be asked: {failure}"),
        };
        // Members forget their history one after the other, and for so long their hashes can't be compared.
        if Instant::now() >= until {
            return Err(why);
        }
        std::thread::sleep(Duration::from_millis(500));
    }
}

/// How the members' data differs, or why it can't be compared.
fn differ(hashes: &[Hash]) -> Option<String> {
    let first = hashes.first()?;
    let other = hashes.iter().position(|hash| (hash.hash, hash.compacted) != (first.hash, first.compacted))?;
    let at = |hash: &Hash| format!("{:x} from revision {} on", hash.hash, hash.compacted);
    Some(format!("members 0 and {other} hold different data: {}, and {}", at(first), at(&hashes[other])))
}

/// Forgets everything from cycle `since` on: to be called only when all of it was verified and the ledger has been locked
/// since. First the ledger says that the numbers are forgotten, then the keys go, then the ledger is made short: after a
/// crash in between nothing looks lost or invented, and the next call deletes what is left.
pub fn forget(etcd: &Etcd, ledger: &mut Ledger, prefix: &str, since: u32, until: Instant) -> Result<u64, String> {
    let places: Vec<_> = ledger.content.range((since, 0)..).map(|(place, stream)| (*place, stream.next())).collect();
    let bases: Vec<_> = places.iter().map(|&((cycle, stream), next)| Entry::Base { cycle, stream, next }).collect();
    ledger.append(&bases).map_err(|error| format!("the ledger can't be written: {error}"))?;

    let (mut begin, end) = range_from(prefix, since);
    let mut deleted = 0;
    loop {
        // In pages: one deletion of a million keys would hold up every write that the next cycle measures.
        let page = etcd.range(&begin, &end, PAGE, 0, until).map_err(|failure| failure.to_string())?;
        let Some(last) = page.keys.last() else { break };
        let next = after(&last.key);
        etcd.delete(&begin, &next, until).map_err(|failure| failure.to_string())?;
        deleted += page.keys.len() as u64;
        if !page.more {
            etcd.compact(page.revision, until).map_err(|failure| failure.to_string())?;
            break;
        }
        begin = next;
    }

    for (place, next) in places {
        ledger.content.insert(place, Stream { base: next, ..Stream::default() });
    }
    ledger.rewrite().map_err(|error| format!("the ledger can't be rewritten: {error}"))?;
    Ok(deleted)
}

/// The first key that could follow.
fn after(key: &str) -> String {
    format!("{key}\0")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "/soak";

    fn place(cycle: u32, n: u64) -> Coordinates {
        Coordinates { cycle, stream: 0, n }
    }

    fn found(cycle: u32, n: u64, rev: i64) -> Found {
        let at = place(cycle, n);
        Found { key: at.key(PREFIX), value: at.value("w", 80), mod_revision: rev }
    }

    fn content(keys: &[(u64, Known)]) -> Content {
        let stream = Stream {
            base: 0,
            reserved: BTreeMap::from([(1, (100, "w".to_owned()))]),
            keys: keys.iter().copied().collect(),
        };
        Content::from([((1, 0), stream)])
    }

    fn compare(content: &Content, since: u32, keys: &[Found]) -> Findings {
        let mut comparison = Comparison::new(PREFIX, since, content);
        for key in keys {
            comparison.key(key);
        }
        comparison.end()
    }

    fn acknowledged() -> Content {
        content(&[(1, Known::Acknowledged(5)), (2, Known::Acknowledged(6)), (3, Known::Acknowledged(9))])
    }

    #[test]
    fn all_there_is_good() {
        let findings = compare(&acknowledged(), 0, &[found(1, 1, 5), found(1, 2, 6), found(1, 3, 9)]);
        assert_eq!(findings, Findings { verified: 3, ..Findings::default() });
        assert!(findings.good());
    }

    #[test]
    fn an_acknowledged_key_that_is_not_there_is_lost_and_named() {
        let findings = compare(&acknowledged(), 0, &[found(1, 1, 5), found(1, 3, 9)]);
        assert_eq!((findings.verified, findings.lost), (2, 1));
        assert!(findings.named[0].contains("/soak/00000001/000/0000000002"), "{:?}", findings.named);
        let findings = compare(&acknowledged(), 0, &[]);
        assert_eq!((findings.verified, findings.lost, findings.good()), (0, 3, false));
    }

    #[test]
    fn another_value_is_a_lost_write() {
        let mut changed = found(1, 2, 6);
        changed.value = place(1, 2).value("somebody-else", 80);
        let findings = compare(&acknowledged(), 0, &[found(1, 1, 5), changed, found(1, 3, 9)]);
        assert_eq!((findings.verified, findings.lost, findings.invented), (2, 1, 0));
    }

    #[test]
    fn revisions_out_of_order_are_told_apart() {
        let swapped = content(&[(1, Known::Acknowledged(6)), (2, Known::Acknowledged(5))]);
        let findings = compare(&swapped, 0, &[found(1, 1, 6), found(1, 2, 5)]);
        assert_eq!((findings.verified, findings.reordered), (1, 1));
        let findings = compare(&acknowledged(), 0, &[found(1, 1, 5), found(1, 2, 7), found(1, 3, 9)]);
        assert_eq!((findings.reordered, findings.good()), (1, false), "not the acknowledged revision");
        let findings = compare(&acknowledged(), 0, &[found(1, 1, 5), found(1, 2, 99), found(1, 3, 9)]);
        assert_eq!((findings.reordered, findings.verified), (1, 2), "only the changed key is named");
    }

    #[test]
    fn an_unknown_write_may_be_there_or_not() {
        let content = content(&[(1, Known::Unknown), (2, Known::Unknown)]);
        // 3 has no line: its writer was killed between the request and the ledger.
        let findings = compare(&content, 0, &[found(1, 1, 5), found(1, 3, 9)]);
        assert_eq!((findings.unknown_present, findings.good()), (2, true));
    }

    #[test]
    fn what_nobody_attempted_is_invented() {
        let content = content(&[(1, Known::NeverSent)]);
        let mut foreign = found(1, 1, 5);
        foreign.key = "/soak/hello".into();
        let mut damaged = found(1, 50, 8);
        damaged.value.push('x');
        let keys = [found(1, 1, 5), damaged, found(1, 101, 6), found(2, 1, 7), foreign];
        let findings = compare(&content, 0, &keys);
        assert_eq!((findings.invented, findings.good()), (5, false));
        assert!(findings.named[0].contains("never left"), "{:?}", findings.named);
    }

    #[test]
    fn forgotten_numbers_and_earlier_cycles_are_not_looked_at() {
        let mut content = acknowledged();
        content.get_mut(&(1, 0)).expect("there").base = 3;
        content.get_mut(&(1, 0)).expect("there").keys.retain(|n, _| *n >= 3);
        let findings = compare(&content, 0, &[found(1, 2, 6), found(1, 3, 9)]);
        assert_eq!((findings.verified, findings.good()), (1, true));
        assert!(compare(&acknowledged(), 2, &[]).good(), "cycle 1 is before the bound");
    }

    #[test]
    fn members_with_other_data_are_told_apart() {
        let hash = |hash, compacted| Hash { hash, compacted };
        assert_eq!(differ(&[hash(7, 3), hash(7, 3), hash(7, 3)]), None);
        assert_eq!(differ(&[]), None);
        let why = differ(&[hash(7, 3), hash(7, 3), hash(8, 3)]).expect("they differ");
        assert!(why.contains("0 and 2"), "{why}");
        assert!(differ(&[hash(7, 3), hash(7, 4)]).is_some(), "not of the same history");
    }

    #[test]
    fn at_most_ten_are_named() {
        let keys: Vec<_> = (1..=50).map(|n| (n, Known::Acknowledged(1))).collect();
        let findings = compare(&content(&keys), 0, &[]);
        assert_eq!((findings.lost, findings.named.len()), (50, 10));
    }
}
