//! The ledger: one JSON object a line, only ever appended to, but for the rewrite after a verification.
//!
//! A block of numbers is *reserved* before the first of its keys is sent. A key that is reserved and has no line of its own
//! was attempted or is about to be, so a writer that is killed at any moment leaves nothing behind that would look invented.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, BufWriter, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::key::Coordinates;

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "t", rename_all = "camelCase")]
#[allow(missing_docs)]
pub enum Entry {
    /// These numbers may be written from now on, by this writer.
    Reserve { cycle: u32, stream: u16, from: u64, to: u64, writer: String },
    /// etcd acknowledged this key, at this revision. `at` is when that was noted, in milliseconds since 1970, `micros` is how
    /// long the write took; both are for people and get lost when the ledger is shortened.
    Ack {
        cycle: u32,
        stream: u16,
        n: u64,
        rev: i64,
        #[serde(default, skip_serializing_if = "is_zero")]
        at: u64,
        #[serde(default, skip_serializing_if = "is_zero")]
        micros: u64,
    },
    /// The answer did not come or was an error: the key may be there.
    Unknown { cycle: u32, stream: u16, n: u64, why: String },
    /// The request never left: the key can't be there.
    Failed { cycle: u32, stream: u16, n: u64 },
    /// Numbers below `next` were verified and are forgotten; whether their keys are still there does not matter.
    Base { cycle: u32, stream: u16, next: u64 },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// What is known of a key that has a line of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Known {
    /// Acknowledged at this revision.
    Acknowledged(i64),
    /// May be there.
    Unknown,
    /// Can't be there.
    NeverSent,
}

/// A stream of a cycle.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// Numbers below are forgotten.
    pub base: u64,
    /// Reserved blocks: first number to last number and writer.
    pub reserved: BTreeMap<u64, (u64, String)>,
    /// What is known, by number.
    pub keys: BTreeMap<u64, Known>,
}

impl Stream {
    /// Who may have written this number; `None` when nobody may.
    pub fn writer_of(&self, n: u64) -> Option<&str> {
        let (_, (last, writer)) = self.reserved.range(..=n).next_back()?;
        (n <= *last).then_some(writer)
    }

    /// The first number that nobody has used.
    pub fn next(&self) -> u64 {
        self.reserved.values().map(|(last, _)| last + 1).max().unwrap_or(1).max(self.base).max(1)
    }
}

/// What a ledger says, by (cycle, stream).
pub type Content = BTreeMap<(u32, u16), Stream>;

/// Reads lines into `content`. A last line without its end is what a crash left of a write that was not acknowledged to
/// anybody; it is skipped, and the number of bytes before it is returned.
pub fn read(lines: impl io::Read, content: &mut Content) -> io::Result<u64> {
    let mut lines = BufReader::new(lines);
    let (mut text, mut whole, mut number) = (String::new(), 0, 0);
    loop {
        text.clear();
        let length = lines.read_line(&mut text)?;
        if length == 0 || !text.ends_with('\n') {
            return Ok(whole);
        }
        number += 1;
        let entry = serde_json::from_str(&text)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, format!("line {number}: {error}")))?;
        apply(content, entry);
        whole += length as u64;
    }
}

fn apply(content: &mut Content, entry: Entry) {
    match entry {
        Entry::Reserve { cycle, stream, from, to, writer } => {
            content.entry((cycle, stream)).or_default().reserved.insert(from, (to, writer));
        }
        Entry::Ack { cycle, stream, n, rev, .. } => {
            content.entry((cycle, stream)).or_default().keys.insert(n, Known::Acknowledged(rev));
        }
        Entry::Unknown { cycle, stream, n, .. } => {
            content.entry((cycle, stream)).or_default().keys.insert(n, Known::Unknown);
        }
        Entry::Failed { cycle, stream, n } => {
            content.entry((cycle, stream)).or_default().keys.insert(n, Known::NeverSent);
        }
        Entry::Base { cycle, stream, next } => {
            let found = content.entry((cycle, stream)).or_default();
            found.base = found.base.max(next);
            found.keys = found.keys.split_off(&next);
            found.reserved.retain(|_, (last, _)| *last >= next);
        }
    }
}

/// A ledger file that this process alone may use, as long as this lives.
#[derive(Debug)]
pub struct Ledger {
    file: File,
    // Held for its lock. The ledger itself is replaced by a rename, which a lock on it would not survive.
    _lock: File,
    path: PathBuf,
    /// What it says.
    pub content: Content,
}

impl Ledger {
    /// Opens and locks the ledger, and creates it if `create`; another process that has it is waited for up to `patience`.
    pub fn open(path: &Path, create: bool, patience: Duration) -> io::Result<Self> {
        let lock = lock(path, patience)?;
        let mut file = OpenOptions::new().read(true).write(true).create(create).truncate(false).open(path)?;
        let mut content = Content::new();
        let whole = read(&file, &mut content)?;
        file.set_len(whole)?;
        file.seek(SeekFrom::End(0))?;
        if create {
            sync_directory(path)?;
        }
        Ok(Self { file, _lock: lock, path: path.to_owned(), content })
    }

    /// Appends the entries; when it returns they are on disk. Does not update [`Self::content`].
    pub fn append(&mut self, entries: &[Entry]) -> io::Result<()> {
        let mut text = Vec::with_capacity(entries.len() * 80);
        for entry in entries {
            serde_json::to_writer(&mut text, entry)?;
            text.push(b'\n');
        }
        self.file.write_all(&text)?;
        self.file.sync_data()
    }

    /// Replaces the file by one that says the same of the content as it is now, at once or not at all.
    pub fn rewrite(&mut self) -> io::Result<()> {
        let beside = self.path.with_extension("rewrite");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&beside)?;
        let mut writer = BufWriter::new(&file);
        for entry in entries(&self.content) {
            serde_json::to_writer(&mut writer, &entry)?;
            writer.write_all(b"\n")?;
        }
        writer.flush()?;
        drop(writer);
        file.sync_all()?;
        std::fs::rename(&beside, &self.path)?;
        self.file = file;
        sync_directory(&self.path)
    }
}

/// The shortest list of entries that says the same.
pub fn entries(content: &Content) -> impl Iterator<Item = Entry> + '_ {
    content.iter().flat_map(|(&(cycle, stream), found)| {
        let base = (found.base > 0).then_some(Entry::Base { cycle, stream, next: found.base });
        let reserved = found.reserved.iter().map(move |(from, (to, writer))| Entry::Reserve {
            cycle,
            stream,
            from: *from,
            to: *to,
            writer: writer.clone(),
        });
        let keys = found.keys.iter().map(move |(&n, known)| match *known {
            Known::Acknowledged(rev) => Entry::Ack { cycle, stream, n, rev, at: 0, micros: 0 },
            Known::Unknown => Entry::Unknown { cycle, stream, n, why: String::new() },
            Known::NeverSent => Entry::Failed { cycle, stream, n },
        });
        base.into_iter().chain(reserved).chain(keys)
    })
}

fn lock(path: &Path, patience: Duration) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path.with_extension("lock"))?;
    let begun = Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if begun.elapsed() >= patience => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process has the ledger"));
            }
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn sync_directory(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(parent)?.sync_all()
}

/// The coordinates of a number in a stream.
pub fn at((cycle, stream): (u32, u16), n: u64) -> Coordinates {
    Coordinates { cycle, stream, n }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<Entry> {
        vec![
            Entry::Reserve { cycle: 1, stream: 0, from: 1, to: 100, writer: "a".into() },
            Entry::Ack { cycle: 1, stream: 0, n: 1, rev: 7, at: 0, micros: 0 },
            Entry::Unknown { cycle: 1, stream: 0, n: 2, why: "timed out".into() },
            Entry::Failed { cycle: 1, stream: 0, n: 3 },
            Entry::Reserve { cycle: 1, stream: 0, from: 101, to: 200, writer: "b".into() },
        ]
    }

    fn text(entries: &[Entry]) -> String {
        entries.iter().map(|entry| serde_json::to_string(entry).expect("JSON") + "\n").collect()
    }

    fn content(entries: &[Entry]) -> Content {
        let mut content = Content::new();
        read(text(entries).as_bytes(), &mut content).expect("reads");
        content
    }

    #[test]
    fn what_is_written_is_read_back() {
        let content = content(&sample());
        let stream = &content[&(1, 0)];
        assert_eq!(stream.keys[&1], Known::Acknowledged(7));
        assert_eq!((stream.keys[&2], stream.keys[&3]), (Known::Unknown, Known::NeverSent));
        assert_eq!((stream.writer_of(100), stream.writer_of(101)), (Some("a"), Some("b")));
        assert_eq!((stream.writer_of(0), stream.writer_of(201)), (None, None));
        assert_eq!(stream.next(), 201, "a second attempt of the cycle uses no number twice");
    }

    #[test]
    fn a_torn_last_line_is_skipped_and_a_bad_one_elsewhere_is_an_error() {
        let whole = text(&sample());
        for cut in 1..60 {
            let torn = &whole[..whole.len() - cut];
            let mut found = Content::new();
            let length = read(torn.as_bytes(), &mut found).expect("reads");
            assert_eq!(found, content(&sample()[..4]), "{cut} bytes cut off");
            assert_eq!(length, text(&sample()[..4]).len() as u64);
        }
        let error = read(whole.replacen("\"t\"", "t", 1).as_bytes(), &mut Content::new()).expect_err("damaged");
        assert!(error.to_string().contains("line 1"), "{error}");
    }

    #[test]
    fn a_base_forgets_what_is_below_and_keeps_the_numbering() {
        let mut all = sample();
        all.push(Entry::Base { cycle: 1, stream: 0, next: 150 });
        let content = content(&all);
        let stream = &content[&(1, 0)];
        assert!(stream.keys.is_empty());
        assert_eq!((stream.base, stream.next(), stream.reserved.len()), (150, 201, 1));
        all.push(Entry::Base { cycle: 1, stream: 0, next: 201 });
        let content = self::content(&all);
        assert_eq!(content[&(1, 0)].next(), 201, "also when nothing else is left of the stream");
    }

    #[test]
    fn the_short_list_says_the_same() {
        let mut all = sample();
        all.push(Entry::Base { cycle: 1, stream: 0, next: 2 });
        all.push(Entry::Base { cycle: 3, stream: 1, next: 9 });
        let before = content(&all);
        let short: Vec<_> = entries(&before).collect();
        assert_eq!(content(&short), before);
    }

    #[test]
    fn a_file_is_locked_repaired_and_rewritten() {
        let folder = std::env::temp_dir().join(format!("etcd-ledger-test-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("ledger.jsonl");
        assert!(Ledger::open(&path, false, Duration::ZERO).is_err(), "a verification creates nothing");
        let mut ledger = Ledger::open(&path, true, Duration::ZERO).expect("opens");
        ledger.append(&sample()).expect("appends");
        let second = Ledger::open(&path, true, Duration::ZERO).expect_err("locked");
        assert_eq!(second.kind(), io::ErrorKind::ResourceBusy);
        drop(ledger);
        OpenOptions::new().append(true).open(&path).expect("opens").write_all(b"{\"t\":\"ack\",").expect("tears");
        let mut ledger = Ledger::open(&path, true, Duration::ZERO).expect("opens");
        ledger.append(&[Entry::Base { cycle: 1, stream: 0, next: 201 }]).expect("appends");
        drop(ledger);
        let mut ledger = Ledger::open(&path, true, Duration::ZERO).expect("the torn line is gone");
        ledger.rewrite().expect("rewrites");
        ledger.append(&[Entry::Base { cycle: 2, stream: 0, next: 5 }]).expect("appends to the new file");
        drop(ledger);
        let written = std::fs::read_to_string(&path).expect("reads");
        assert_eq!(written.lines().count(), 2, "{written}");
        std::fs::remove_dir_all(&folder).expect("removes");
    }
}
