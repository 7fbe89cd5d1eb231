//! Which parts of the world an injection holds, so that no two share one (S8).

use crate::api::{
    FailureInjection,
    failureinjection::{JournalEntry, ToxicRef, Undo},
};

/// A part of the world that one injection holds while it is active.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Claim {
    /// An object's uid, or the address of what has none.
    pub subject: String,
    /// A field, as a JSON pointer; empty for all of it. What is below a field is held with it.
    pub part: String,
}

impl Claim {
    /// Whether two claims are about a common part.
    pub fn meets(&self, other: &Self) -> bool {
        self.subject == other.subject && (is_within(&self.part, &other.part) || is_within(&other.part, &self.part))
    }
}

/// Whether `inner` is `outer` or below it.
fn is_within(inner: &str, outer: &str) -> bool {
    inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// What a journal holds. Deleting without restoring holds nothing: it is over at once.
pub fn claims(journal: &[JournalEntry]) -> Vec<Claim> {
    let held = journal.iter().filter(|entry| !entry.state.is_final());
    held.flat_map(|JournalEntry { target, undo, .. }| {
        let on_target = |part: &str| Claim { subject: target.uid.clone(), part: part.to_owned() };
        match undo {
            Undo::Nothing | Undo::Made(_) => Vec::new(),
            Undo::Fields { fields, .. } => fields.iter().map(|field| on_target(&field.path)).collect(),
            Undo::Restore { .. } => vec![on_target("")],
            Undo::Helper(work) => {
                let what = work.arguments.first().map_or("", String::as_str);
                vec![on_target(&format!("/helper/{what}"))]
            }
            Undo::Toxic(ToxicRef { url, proxy, toxic }) => {
                let part = match toxic {
                    None => "/enabled".to_owned(),
                    Some(toxic) => format!(
                        "/toxics/{}/{}",
                        toxic["stream"].as_str().unwrap_or_default(),
                        toxic["type"].as_str().unwrap_or_default()
                    ),
                };
                vec![Claim { subject: format!("{} {proxy}", url.trim_end_matches('/')), part }]
            }
        }
    })
    .collect()
}

/// Somebody who holds parts of the world.
#[derive(Debug)]
pub struct Holder {
    /// As people are told.
    pub name: String,
    /// What is held.
    pub claims: Vec<Claim>,
}

impl Holder {
    /// An injection that is active; any other holds nothing.
    pub fn of(injection: &FailureInjection) -> Option<Self> {
        let status = injection.status.as_ref().filter(|status| status.phase.is_active())?;
        let metadata = &injection.metadata;
        let namespace = metadata.namespace.as_deref().unwrap_or_default();
        let name = metadata.name.as_deref().unwrap_or_default();
        Some(Self { name: format!("injection {namespace}/{name}"), claims: claims(&status.journal) })
    }
}

/// The first of the holders that has something of what is wanted, with what it is.
pub fn conflict<'a>(
    wanted: &'a [Claim],
    holders: impl IntoIterator<Item = &'a Holder>,
) -> Option<(&'a Holder, &'a Claim)> {
    holders.into_iter().find_map(|holder| {
        let met = wanted.iter().find(|wanted| holder.claims.iter().any(|held| held.meets(wanted)))?;
        Some((holder, met))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_meet_on_a_common_field_of_one_object() {
        let claim = |subject: &str, part: &str| Claim { subject: subject.into(), part: part.into() };
        for (a, b, meet, why) in [
            (claim("u", "/spec/replicas"), claim("u", "/spec/replicas"), true, "the same field"),
            (claim("u", "/spec"), claim("u", "/spec/replicas"), true, "one is below the other"),
            (claim("u", ""), claim("u", "/spec/replicas"), true, "the whole object"),
            (claim("u", "/spec/replica"), claim("u", "/spec/replicas"), false, "a common beginning is no common field"),
            (claim("u", "/spec/paused"), claim("u", "/spec/replicas"), false, "two fields"),
            (claim("u", "/spec"), claim("v", "/spec"), false, "two objects"),
        ] {
            assert_eq!((a.meets(&b), b.meets(&a)), (meet, meet), "{why}");
        }
    }
}
