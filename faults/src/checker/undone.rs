//! Undoing: read back before the finalizer goes (S6), and in time whatever crashed (L2).

use std::collections::BTreeMap;

use crate::{
    history::{History, Version},
    names::text,
};

use super::{
    Facts, Violation,
    effects::{self, Effect, What, is_going, objects},
    journal::{Entry, Injection, has_finalizer, has_journal, is_deleting, time},
    violated,
};

/// How long after its end a fault may last while nothing keeps it from being undone.
const LIMIT_MILLIS: u128 = 10_000;

pub(super) fn check(history: &History, facts: &Facts<'_>, found: &mut Vec<Violation>) {
    let injections = Injection::all(history);
    let objects = objects(history);
    let effects = effects::all(history);
    for injection in &injections {
        released(history, injection, &objects, facts, found);
    }
    for effect in &effects {
        let owner = effect.owner.and_then(|(index, place)| Some((injections.get(index)?, place)));
        if let Some((injection, place)) = owner {
            in_time(history, facts, effect, injection, place, &objects, found);
        }
    }
}

/// S6: when the finalizer goes, nothing of the fault is there.
fn released(
    history: &History,
    injection: &Injection<'_>,
    objects: &BTreeMap<&str, Vec<&Version>>,
    facts: &Facts<'_>,
    found: &mut Vec<Violation>,
) {
    let Some(had) = injection.first(has_finalizer) else { return };
    let freed = injection.first(|it| it.revision() > had.revision() && (it.gone || !has_finalizer(it)));
    let Some(freed) = freed else { return };
    let at = |versions: &Vec<&Version>| {
        versions.iter().rev().find(|version| version.revision() < freed.revision()).is_some_and(|it| !it.gone)
    };
    for entry in injection.journal() {
        let undo = &entry.0["undo"];
        let left = match entry.undo() {
            "Fields" => {
                let versions = objects.get(entry.uid()).map(Vec::as_slice).unwrap_or_default();
                let now = versions.iter().rev().find(|version| version.revision() < freed.revision());
                now.filter(|version| !version.gone).is_some_and(|version| {
                    entry.changes().any(|(path, _, after)| version.object.pointer(path) == after)
                })
            }
            "Made" => objects.values().any(|versions| {
                let ours = versions
                    .first()
                    .is_some_and(|it| it.object["metadata"]["labels"]["soak.dev/injection-uid"] == injection.uid());
                ours && at(versions)
            }),
            // Where the whole namespace goes, nothing can be made in it any more.
            "Restore" if facts.scenario != "namespace-deleted" => !objects.values().any(|versions| {
                versions.first().is_some_and(|it| entry.0["target"]["name"] == it.name()) && at(versions)
            }),
            "Toxic" => is_toxic(history, entry, freed.at),
            _ => false,
        };
        // A field that another injection has made look the same since is that one's affair.
        if left {
            let what = format!("{} of {}", entry.undo(), entry.0["target"]["name"]);
            violated(
                found,
                "S6",
                format!(
                    "injection {} was let go while its fault was there: {what}: {}",
                    injection.name(),
                    undo["type"]
                ),
            );
        }
    }
}

/// Whether the last word to Toxiproxy before a time made the fault.
fn is_toxic(history: &History, entry: Entry<'_>, before: u128) -> bool {
    let undo = &entry.0["undo"];
    let toxic = text(&undo["toxic"]["name"]);
    let proxy = format!("/proxies/{}", text(&undo["proxy"]));
    let words = history.requests.iter().filter(|it| it.is_committed() && it.at < before && it.path.starts_with(&proxy));
    let words = words.filter(|it| {
        if toxic.is_empty() {
            it.body["enabled"].is_boolean()
        } else {
            it.body["name"] == toxic || it.path.ends_with(&format!("/{toxic}"))
        }
    });
    words.max_by_key(|it| it.at).is_some_and(|it| it.method == "POST" && it.body["enabled"] != true)
}

/// L2.
fn in_time(
    history: &History,
    facts: &Facts<'_>,
    effect: &Effect<'_>,
    injection: &Injection<'_>,
    place: usize,
    objects: &BTreeMap<&str, Vec<&Version>>,
    found: &mut Vec<Violation>,
) {
    let journal = injection.journal();
    let Some(entry) = journal.get(place) else { return };
    if entry.undo() == "Nothing" {
        return;
    }
    let revision = effect.revision.unwrap_or(0);
    let after = |uid: &str| objects.get(uid).into_iter().flatten().filter(move |version| version.revision() > revision);
    let ended = match &effect.what {
        What::Field(uid, path) => {
            let value = effect.request.answer.pointer(path);
            after(uid).find(|it| it.gone || it.object.pointer(path) != value).map(|it| it.at)
        }
        // Somebody else's finalizer may hold it for longer; that it goes before the injection's own does, S6 tells.
        What::Made(uid) => after(uid).find(|it| is_going(it)).map(|it| it.at),
        What::Deleted(uid) => {
            let back = objects.values().filter_map(|versions| versions.first()).find(|it| {
                it.uid() != uid && entry.0["target"]["name"] == it.name() && it.revision() > revision && !is_going(it)
            });
            back.map(|it| it.at)
        }
        What::Toxic(..) => {
            let later = history.requests.iter().filter(|it| it.is_committed() && it.at > effect.request.at);
            let undoing = later.filter(|it| it.path.starts_with("/proxies"));
            undoing.filter(|it| !is_toxic(history, *entry, it.at + 1)).map(|it| it.at).min()
        }
    };
    let what = format!("{:?} of injection {}", effect.what, injection.name());
    let Some(ended) = ended else {
        if facts.scenario != "namespace-deleted" {
            violated(found, "L2", format!("{what} was never undone"));
        }
        return;
    };
    let Some(due) = due(history, facts, injection) else { return };
    let limit = limit(&history.outages, due);
    if ended > limit {
        violated(
            found,
            "L2",
            format!("{what} was to end at {due} ms and was there until {ended} ms; {limit} was the limit"),
        );
    }
}

/// When the fault was to end: at its deadline, or when somebody ended it. None: that can't be told.
fn due(history: &History, facts: &Facts<'_>, injection: &Injection<'_>) -> Option<u128> {
    let last = injection.0.iter().rev().find(|version| has_journal(version))?;
    let status = &last.object["status"];
    let deadline = time(history, &status["deadline"])?;
    let ended = injection.first(|it| is_deleting(it) || it.object["spec"]["abort"] == true).map(|it| it.at);
    match ended {
        Some(ended) if ended < deadline => (!facts.loses_events).then_some(ended),
        _ => Some(deadline),
    }
}

/// The end of the first time long enough, from `due` on, in which nothing kept the operator from undoing.
fn limit(outages: &[(u128, u128)], due: u128) -> u128 {
    let mut outages = outages.to_vec();
    outages.sort_unstable();
    let mut limit = due + LIMIT_MILLIS;
    for (from, to) in outages {
        if from < limit {
            limit = limit.max(to + LIMIT_MILLIS);
        }
    }
    limit
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    fn object(revision: u64, mode: &str) -> Version {
        sample::version(
            "configmaps",
            revision,
            json!({"metadata": {"name": "t-x", "uid": "t"}, "data": {"mode": mode}}),
        )
    }

    fn judge(versions: Vec<Version>, outages: Vec<(u128, u128)>) -> Vec<&'static str> {
        let made = versions.iter().find(|it| it.object["data"]["mode"] == "bad").map(|it| it.object.clone());
        let requests = made.map(|answer| crate::history::Request {
            at: 5,
            answer,
            ..sample::request("PATCH", "/api/v1/namespaces/n/configmaps/t-x", json!([]))
        });
        let history = History {
            versions,
            outages,
            requests: requests.into_iter().collect(),
            began: "2026-01-01T00:00:00Z".parse().ok(),
            ..History::default()
        };
        let mut found = Vec::new();
        check(&history, &sample::facts(), &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    /// From its journal to its end; the finalizer goes at that revision.
    fn life(freed: u64) -> Vec<Version> {
        let mut ended = sample::injection(freed, "i", "Recovered", "Reverted");
        ended.object["metadata"]["finalizers"] = json!([]);
        vec![object(1, "good"), sample::injection(3, "i", "Injecting", "Planned"), object(5, "bad"), ended]
    }

    #[test]
    fn a_finalizer_goes_after_the_fault() {
        assert!(judge([life(9), vec![object(7, "good")]].concat(), vec![]).is_empty());
        assert!(judge([life(9), vec![object(7, "theirs")]].concat(), vec![]).is_empty());
        assert_eq!(judge([life(9), vec![object(11, "good")]].concat(), vec![]), ["S6"]);
        assert_eq!(judge(life(9), vec![]), ["S6", "L2"]);
    }

    #[test]
    fn a_fault_is_undone_in_time_but_for_outages() {
        // Revisions are milliseconds here, and 30 s is the deadline.
        let undone = |at: u64| [life(60_000), vec![object(at, "good")]].concat();
        assert!(judge(undone(39_000), vec![]).is_empty());
        assert_eq!(judge(undone(41_000), vec![]), ["L2"]);
        assert!(judge(undone(41_000), vec![(29_000, 32_000)]).is_empty());
        assert_eq!(judge(undone(41_000), vec![(1_000, 9_000)]), ["L2"], "that was long before");
        assert!(judge(undone(55_000), vec![(31_000, 39_000), (48_000, 49_000)]).is_empty());
    }
}
