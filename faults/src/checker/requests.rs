//! What each request must have: a precondition on status writes (S3), the tenant's name (S12), no blind repetition of a
//! POST, and pauses between failures (L5).

use std::collections::BTreeMap;

use crate::{
    history::{History, Request},
    names::text,
};

use super::{Violation, violated};

/// Failures of one call within ten seconds that are no sign of a missing pause.
const FAILURES_IN_WINDOW: usize = 12;
const WINDOW_MILLIS: u128 = 10_000;
/// Conflicts of one version that a cache which is some seconds late explains, with growing pauses.
const CONFLICTS_OF_ONE_VERSION: usize = 10;

pub(super) fn check(history: &History, found: &mut Vec<Violation>) {
    for request in &history.requests {
        precondition(request, found);
        tenant(request, found);
    }
    repetition(history, found);
    pauses(history, found);
    conflicts(history, found);
}

fn precondition(request: &Request, found: &mut Vec<Violation>) {
    let is_own = request.is_status() || request.is_injection_status();
    let finalizer = request.method == "PATCH"
        && (request.path.contains("/soakruns/") || !request.body["metadata"]["finalizers"].is_null());
    if !(is_own || finalizer) {
        return;
    }
    if text(&request.body["metadata"]["resourceVersion"]).is_empty() {
        let text = format!("{} {} at {} ms has no resourceVersion", request.method, request.path, request.at);
        violated(found, "S3", text);
    }
    if !is_own {
        return;
    }
    // The precondition held, so the generation of the answer is the one that was acted on. A server that is killed may have sent no more than the answer's head.
    let told = request.body["status"]["observedGeneration"].as_i64();
    let acted_on = request.answer["metadata"]["generation"].as_i64();
    if request.is_committed() && !request.answer.is_null() && told != acted_on {
        violated(
            found,
            "S3",
            format!("{} at {} ms tells generation {told:?}, the run has {acted_on:?}", request.path, request.at),
        );
    }
}

fn tenant(request: &Request, found: &mut Vec<Violation>) {
    let Some(key) = &request.key else { return };
    if request.path.starts_with("/proxies") {
        // A server of its own, with no accounts.
        return;
    }
    let own = request.is_status()
        || request.is_injection_status()
        || request.path.contains("/soakruns/")
        || is_bookkeeping(request)
        || ["/events", "/leases"].iter().any(|part| request.path.contains(part))
        || (request.path.contains("/configmaps") && is_record(request));
    match &request.user {
        None if !own => violated(found, "S12", format!("the operator itself made the write {key} ({})", request.path)),
        Some(user) if !user.starts_with("system:serviceaccount:") || own && !request.path.contains("/configmaps") => {
            violated(found, "S12", format!("the write {key} was made as {user}"));
        }
        Some(user) => {
            let namespace = request.path.split("/namespaces/").nth(1).and_then(|rest| rest.split('/').next());
            // A node is in no namespace.
            if namespace.is_some() && user.split(':').nth(2) != namespace {
                violated(found, "S12", format!("the write {key} in {namespace:?} was made as {user}"));
            }
        }
        None => {}
    }
}

/// The operator's own finalizer on an injection, and the end of one whose time to live is over. An injection that a run makes is
/// the run's business.
fn is_bookkeeping(request: &Request) -> bool {
    let finalizer = request.method == "PATCH" && !request.body["metadata"]["finalizers"].is_null();
    request.path.contains("/failureinjections/") && (finalizer || request.method == "DELETE" && request.user.is_none())
}

fn is_record(request: &Request) -> bool {
    let name = request.path.rsplit('/').next().unwrap_or_default();
    let by_name = ["-setup", "-cleanup", "-summary"].iter().any(|end| name.ends_with(end))
        || name.rsplit('-').next().is_some_and(|end| end.len() == 7 && end.starts_with('c'));
    !request.body["metadata"]["labels"]["soak.dev/record"].is_null() || (request.method == "DELETE" && by_name)
}

/// A POST without an answer is followed by a look, never by the same POST.
fn repetition(history: &History, found: &mut Vec<Violation>) {
    let mut open: BTreeMap<(String, String), u128> = BTreeMap::new();
    let mut requests: Vec<&Request> = history.requests.iter().collect();
    requests.sort_by_key(|request| request.at);
    for request in requests {
        let name = text(&request.body["metadata"]["name"]);
        let target = if request.method == "POST" { format!("{}/{name}", request.path) } else { request.path.clone() };
        let place = (request.process.clone(), target);
        if request.method != "POST" {
            open.remove(&place);
        } else if !name.is_empty() && request.key.is_some() && !is_harmless(request) {
            if let Some(before) = open.remove(&place) {
                let text = format!(
                    "POST {} at {before} ms had no clear answer and was repeated at {} ms",
                    place.1, request.at
                );
                violated(found, "no blind POST", text);
            }
            if matches!(request.told, 0 | 500..=599) {
                open.insert(place, request.at);
            }
        }
    }
}

/// Whether a repetition can do no harm: an eviction is one of a uid.
fn is_harmless(request: &Request) -> bool {
    let eviction =
        request.path.ends_with("/eviction") && request.body["deleteOptions"]["preconditions"]["uid"].is_string();
    eviction || request.path.ends_with("/events")
}

fn pauses(history: &History, found: &mut Vec<Violation>) {
    let mut failures: BTreeMap<(&str, &str, &str, &str), Vec<u128>> = BTreeMap::new();
    for request in history.requests.iter().filter(|request| request.told >= 400 && request.told != 409) {
        // A POST's path does not tell which object it makes.
        let made = text(&request.body["metadata"]["name"]);
        failures.entry((&request.process, &request.method, &request.path, made)).or_default().push(request.at);
    }
    for ((_, method, path, _), mut times) in failures {
        times.sort_unstable();
        if let Some(window) = times.windows(FAILURES_IN_WINDOW).find(|it| it[it.len() - 1] - it[0] < WINDOW_MILLIS)
            && let [first, ..] = window
        {
            violated(
                found,
                "L5",
                format!("{method} {path} failed {FAILURES_IN_WINDOW} times within 10 s of {first} ms: no pause grows"),
            );
        }
    }
}

/// After a conflict the operator looks at what is there: it does not try the same version again and again.
fn conflicts(history: &History, found: &mut Vec<Violation>) {
    let mut refused: BTreeMap<(&str, &str, &str), usize> = BTreeMap::new();
    for request in history.requests.iter().filter(|request| request.told == 409) {
        let version = text(&request.body["metadata"]["resourceVersion"]);
        if version.is_empty() {
            continue;
        }
        let count = refused.entry((&request.process, &request.path, version)).or_default();
        *count += 1;
        if *count == CONFLICTS_OF_ONE_VERSION {
            let Request { method, path, at, .. } = request;
            let text = format!("{method} {path} was tried {count} times at version {version}, until {at} ms");
            violated(found, "L5", text);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::{super::sample, *};

    fn judge(requests: Vec<Request>) -> Vec<&'static str> {
        let mut found = Vec::new();
        check(&History { requests, ..History::default() }, &mut found);
        found.into_iter().map(|violation| violation.rule).collect()
    }

    fn post(at: u128, told: u16) -> Request {
        let body = json!({"metadata": {"name": "p"}});
        Request {
            at,
            told,
            user: Some("system:serviceaccount:n:soak".into()),
            ..sample::request("POST", "/api/v1/namespaces/n/pods", body)
        }
    }

    #[test]
    fn a_status_write_needs_a_precondition_and_the_generation() {
        let path = "/apis/soak.dev/v1alpha1/namespaces/n/soakruns/r/status";
        let good = json!({"metadata": {"resourceVersion": "5"}, "status": {"observedGeneration": 1}});
        let mut write = sample::request("PUT", path, good.clone());
        write.answer = json!({"metadata": {"generation": 1}});
        assert!(judge(vec![write.clone()]).is_empty());
        write.answer = json!({"metadata": {"generation": 2}});
        assert_eq!(judge(vec![write.clone()]), ["S3"]);
        write.answer = json!({"metadata": {"generation": 1}});
        write.body["metadata"] = json!({});
        assert_eq!(judge(vec![write]), ["S3"]);
    }

    #[test]
    fn what_a_spec_asks_for_is_written_as_its_account() {
        assert!(judge(vec![post(1, 201)]).is_empty());
        assert_eq!(judge(vec![Request { user: None, ..post(1, 201) }]), ["S12"]);
        assert_eq!(
            judge(vec![Request { user: Some("system:serviceaccount:other:soak".into()), ..post(1, 201) }]),
            ["S12"]
        );
        let record = json!({"metadata": {"name": "r-summary", "labels": {"soak.dev/record": "summary"}}});
        assert!(judge(vec![sample::request("POST", "/api/v1/namespaces/n/configmaps", record)]).is_empty());
    }

    #[test]
    fn a_post_without_an_answer_is_not_repeated_before_a_look() {
        let look = Request { key: None, ..sample::request("GET", "/api/v1/namespaces/n/pods/p", json!(null)) };
        assert_eq!(judge(vec![post(1, 504), post(3, 201)]), ["no blind POST"]);
        assert!(judge(vec![post(1, 504), Request { at: 2, ..look }, post(3, 201)]).is_empty());
        assert!(judge(vec![post(1, 429), post(3, 201)]).is_empty(), "429 is a clear answer");
    }

    #[test]
    fn a_version_that_met_a_conflict_is_not_tried_again_and_again() {
        let path = "/apis/soak.dev/v1alpha1/namespaces/n/soakruns/r/status";
        let write = |at: u128, version: u128| {
            let body = json!({"metadata": {"resourceVersion": version.to_string()}, "status": {}});
            Request { at, told: 409, ..sample::request("PUT", path, body) }
        };
        assert_eq!(judge((0..20).map(|at| write(at, 5)).collect()), ["L5"]);
        assert!(judge((0..20).map(|at| write(at, at)).collect()).is_empty(), "somebody else was faster each time");
    }

    #[test]
    fn failures_need_pauses() {
        let fails = |gap: u128| {
            (0..20).map(move |turn| Request { at: turn * gap, told: 403, ..sample::request("PUT", "/x", json!({})) })
        };
        assert!(judge(fails(100).map(|it| Request { key: None, ..it }).collect()).contains(&"L5"));
        assert!(judge(fails(2_000).map(|it| Request { key: None, ..it }).collect()).is_empty());
    }
}
