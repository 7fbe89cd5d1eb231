//! Which variables exist, and which of them an expression uses.

use std::collections::BTreeSet;

/// The names of the variables that an expression may use.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots(BTreeSet<String>);

impl Roots {
    /// Exactly these names.
    pub fn new<I>(names: I) -> Self
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        Self(names.into_iter().map(|name| name.as_ref().to_owned()).collect())
    }

    /// These and one more.
    #[must_use]
    pub fn with(mut self, name: impl AsRef<str>) -> Self {
        self.0.insert(name.as_ref().to_owned());
        self
    }

    /// Whether there is a variable of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// The names, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }
}

/// Something outside of the expression that it reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Reference<'a> {
    /// The variable, such as `steps`.
    pub root: &'a str,
    /// The field or literal key right after it: `load` in `steps.load.outputs` and `steps["load"]`. None where the
    /// variable is used as a whole, or with a key that is computed.
    pub field: Option<&'a str>,
    /// The expression only asks whether the field is there: `has(params.image)`, `params.?image`.
    pub optional: bool,
}

/// The owned form of [`Reference`], in the order in which references are told.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct OwnedReference {
    pub(super) root: String,
    pub(super) field: Option<String>,
    pub(super) optional: bool,
}

impl OwnedReference {
    pub(super) fn borrow(&self) -> Reference<'_> {
        Reference { root: &self.root, field: self.field.as_deref(), optional: self.optional }
    }
}

pub(super) fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// The known name that is closest to what was written, if any is close enough to be a slip of the pen.
pub(super) fn closest<'a>(written: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (written.chars().count() / 3).clamp(1, 3);
    known
        .map(|name| (distance(&written.to_lowercase(), &name.to_lowercase()), name))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) that turn one text into the other: the optimal string alignment
/// distance.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().take(64).collect(), b.chars().take(64).collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_is_recognized() {
        let known = ["cycle", "params", "run", "steps"];
        for (written, meant, why) in [
            ("parms", Some("params"), "a letter is missing"),
            ("Params", Some("params"), "the case is wrong"),
            ("step", Some("steps"), "the singular was written"),
            ("cylce", Some("cycle"), "two letters are swapped"),
            ("tseps", Some("steps"), "the first two are swapped"),
            ("paarmss", Some("params"), "two slips in a longer name"),
            ("rn", Some("run"), "one slip in a short name"),
            ("stopp", None, "two slips in a short name are another name"),
            ("object", None, "nothing is close to it"),
        ] {
            assert_eq!(closest(written, known.into_iter()), meant, "{written}: {why}");
        }
    }

    #[test]
    fn slips_are_counted() {
        for (a, b, expected, why) in [
            ("steps", "steps", 0, "the same text"),
            ("", "run", 3, "letters that are added"),
            ("abcd", "bacd", 1, "neighbours swapped at the start"),
            ("abcdef", "abcdfe", 1, "at the end"),
            ("abcdefgh", "badcfehg", 4, "again and again"),
            ("ca", "abc", 3, "a swapped pair stays together"),
            ("kitten", "sitting", 3, "letters replaced and added"),
        ] {
            assert_eq!((distance(a, b), distance(b, a)), (expected, expected), "{a} {b}: {why}");
        }
    }
}
