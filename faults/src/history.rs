//! What happened: each request of the operator as the proxy saw it, each version of an object as a watch saw it.

use std::{collections::BTreeMap, time::Instant};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::names;

/// One request of an operator.
#[derive(Clone, Debug)]
pub struct Request {
    /// Milliseconds since the session began.
    pub at: u128,
    /// Which life of which operator made it: `0.1` is the first operator's second.
    pub process: String,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The query.
    pub query: String,
    /// Who it was made as; none is the operator itself.
    pub user: Option<String>,
    /// The body of a write, if it was JSON.
    pub body: Value,
    /// What kind of write it is (see [`names::write_key`]); none for what changes nothing.
    pub key: Option<String>,
    /// What the proxy did to it.
    pub fault: Option<String>,
    /// What the API server answered; 0 if it was never asked or did not answer.
    pub code: u16,
    /// The object in the API server's answer to a write.
    pub answer: Value,
    /// What the operator was told; 0 is a connection that ended.
    pub told: u16,
}

impl Request {
    /// Whether it changed something.
    pub fn is_committed(&self) -> bool {
        self.key.is_some() && (200..300).contains(&self.code)
    }

    /// Whether it is a write of a status.
    pub fn is_status(&self) -> bool {
        self.path.contains("/soakruns/") && self.path.ends_with("/status") && self.method != "GET"
    }

    /// Whether it is a write of an injection's status.
    pub fn is_injection_status(&self) -> bool {
        self.path.contains("/failureinjections/") && self.path.ends_with("/status") && self.method != "GET"
    }

    fn to_json(&self) -> Value {
        json!({
            "at": self.at, "process": self.process, "method": self.method, "path": self.path, "query": self.query,
            "user": self.user, "key": self.key, "fault": self.fault, "code": self.code, "told": self.told,
            "version": names::version(&self.answer), "body": self.body,
        })
    }
}

/// One version of an object.
#[derive(Clone, Debug)]
pub struct Version {
    /// Milliseconds since the session began.
    pub at: u128,
    /// The resource in the plural: `soakruns`, `pods`, …
    pub resource: &'static str,
    /// Whether this is the last version, of an object that is gone.
    pub gone: bool,
    /// The object.
    pub object: Value,
}

impl Version {
    /// Its revision in etcd, which orders it among all objects.
    pub fn revision(&self) -> u64 {
        names::version(&self.object)
    }

    /// The object's uid.
    pub fn uid(&self) -> &str {
        names::text(&self.object["metadata"]["uid"])
    }

    /// The object's name.
    pub fn name(&self) -> &str {
        names::text(&self.object["metadata"]["name"])
    }
}

/// Both histories of one session.
#[derive(Default)]
pub struct History {
    /// Requests in the order of their ends.
    pub requests: Vec<Request>,
    /// Versions in the order of the watches.
    pub versions: Vec<Version>,
    /// A watch was interrupted so that versions may be missing.
    pub gaps: bool,
    /// When the session began; none in the checker's own tests.
    pub began: Option<DateTime<Utc>>,
    /// From when until when no operator could work, or was kept from undoing something.
    pub outages: Vec<(u128, u128)>,
}

/// Where both histories are written.
pub struct Recorder {
    began: Instant,
    history: Mutex<History>,
}

impl Default for Recorder {
    fn default() -> Self {
        let history = History { began: Some(Utc::now()), ..History::default() };
        Self { began: Instant::now(), history: Mutex::new(history) }
    }
}

impl Recorder {
    /// Milliseconds since the session began.
    pub fn now(&self) -> u128 {
        self.began.elapsed().as_millis()
    }

    /// Notes a request.
    pub fn request(&self, request: Request) {
        self.history.lock().requests.push(request);
    }

    /// Notes a version of an object.
    pub fn version(&self, version: Version) {
        self.history.lock().versions.push(version);
    }

    /// Notes that versions may be missing.
    pub fn gap(&self) {
        self.history.lock().gaps = true;
    }

    /// Notes that for a while no operator can work as it should.
    pub fn outage(&self, from: u128, to: u128) {
        self.history.lock().outages.push((from, to));
    }

    /// Looks at what is there so far.
    pub fn with<T>(&self, look: impl FnOnce(&History) -> T) -> T {
        look(&self.history.lock())
    }
}

impl History {
    /// Both histories as JSON lines, for a person who looks for a cause.
    pub fn dump(&self) -> String {
        let requests = self.requests.iter().map(|request| (request.at, request.to_json()));
        let versions = self.versions.iter().map(|version| {
            let line =
                json!({"at": version.at, "saw": version.resource, "gone": version.gone, "object": version.object});
            (version.at, line)
        });
        let mut lines: Vec<(u128, Value)> = requests.chain(versions).collect();
        lines.sort_by_key(|(at, _)| *at);
        lines.into_iter().fold(String::new(), |text, (_, line)| text + &line.to_string() + "\n")
    }

    /// The versions of one run, by uid, in order; the last may be the one that it went with.
    pub fn runs(&self) -> Vec<Vec<&Version>> {
        self.objects("soakruns")
    }

    /// The versions of each object of a resource, by uid, in order; the last may be the one that it went with.
    pub fn objects(&self, resource: &str) -> Vec<Vec<&Version>> {
        let mut objects: Vec<Vec<&Version>> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for version in self.versions.iter().filter(|version| version.resource == resource) {
            let place = *places.entry(version.uid()).or_insert(objects.len());
            match objects.get_mut(place) {
                Some(object) => object.push(version),
                None => objects.push(vec![version]),
            }
        }
        for object in &mut objects {
            object.sort_by_key(|version| version.revision());
        }
        objects
    }

    /// The newest version of each object of a resource.
    pub fn newest(&self, resource: &str) -> Vec<Version> {
        self.objects(resource).into_iter().filter_map(|object| object.last().map(|it| (*it).clone())).collect()
    }

    /// The first version of each object of a resource.
    pub fn births<'a>(&'a self, resource: &'a str) -> impl Iterator<Item = &'a Version> {
        let mut seen = std::collections::BTreeSet::new();
        self.versions
            .iter()
            .filter(move |version| version.resource == resource)
            .filter(move |version| seen.insert(version.uid().to_owned()))
    }
}
