//! Records as text: deterministic, digested, bounded.

use std::fmt::Write;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::{
    bound::{self, Shorten},
    record::CycleRecord,
    summary::SummaryRecord,
};

/// The longest text of a record. A ConfigMap may hold 1 MiB; half of that leaves room for its metadata and for escaping.
pub const MAX_RECORD_BYTES: usize = 512 * 1024;

/// A record as it is stored.
///
/// The same record always gives the same text: fields in the order of the schema, maps by key, no spaces. Text and digest can't be
/// changed apart, so a digest always is that of its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordText {
    text: String,
    digest: String,
    truncated: bool,
}

impl RecordText {
    /// The JSON text, at most [`MAX_RECORD_BYTES`] long.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// `sha256:…` of the text.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// Whether something was left out; the text then holds the digest of the whole.
    pub const fn is_truncated(&self) -> bool {
        self.truncated
    }

    fn new<R: Shorten>(record: &R) -> Self {
        let (text, truncated) = bound::bounded(record, MAX_RECORD_BYTES);
        Self { digest: digest(&text), text, truncated }
    }
}

impl From<&CycleRecord> for RecordText {
    fn from(record: &CycleRecord) -> Self {
        Self::new(record)
    }
}

impl From<&SummaryRecord> for RecordText {
    fn from(record: &SummaryRecord) -> Self {
        Self::new(record)
    }
}

/// The digest of a text, as it is written into statuses, annotations and records.
pub fn digest(text: &str) -> String {
    let mut digest = String::from("sha256:");
    for byte in Sha256::digest(text.as_bytes()) {
        let _ = write!(digest, "{byte:02x}");
    }
    digest
}

/// JSON in a deterministic form. Records hold nothing that can't be written as JSON: no keys but strings.
pub(super) fn json<T: Serialize>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// The first bytes of a text, ending at a whole character, with a mark if something is missing.
pub(super) fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= bytes {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(bytes.saturating_sub('…'.len_utf8()));
    format!("{}…", &text[..end])
}

/// The last bytes of a text, beginning at a whole character and, where it has one, at a whole line.
pub(super) fn tail(text: &str, bytes: usize) -> &str {
    if text.len() <= bytes {
        return text;
    }
    let tail = &text[text.ceil_char_boundary(text.len() - bytes)..];
    match tail.split_once('\n') {
        Some((_, lines)) if !lines.is_empty() => lines,
        _ => tail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_digest_is_that_of_the_published_test_vector() {
        // FIPS 180-2, appendix B.1.
        assert_eq!(digest("abc"), "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äöüß", 6), "ä…");
        assert_eq!(tail("äöü", 3), "ü");
        assert_eq!(tail("first\nsecond\nthird\n", 10), "third\n");
        assert_eq!(tail("one line", 4), "line");
    }
}
