//! etcd's JSON gateway (`/v3/...`), as far as it is needed here.

use std::{
    fmt, io,
    thread::sleep,
    time::{Duration, Instant},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use ureq::{Agent, Error, Timeout};

const PAUSE: Duration = Duration::from_millis(200);

/// Why a request has no good answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It never left, so it had no effect.
    NeverSent(String),
    /// It may have had its effect.
    Unknown(String),
    /// etcd understood and refused; asking again is of no use.
    Refused(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverSent(why) | Self::Unknown(why) | Self::Refused(why) => f.write_str(why),
        }
    }
}

/// A key as etcd has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name.
    pub key: String,
    /// Its value.
    pub value: String,
    /// The revision of its last change.
    pub mod_revision: i64,
}

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The member that it takes for the leader; 0 is none.
    pub leader: u64,
    /// Its Raft term.
    pub term: u64,
    /// The member's own id.
    pub member: u64,
    /// The newest entry of the log that it has applied.
    pub applied: u64,
}

impl Status {
    /// Whether it takes itself for the leader.
    pub fn leads(&self) -> bool {
        self.leader != 0 && self.leader == self.member
    }
}

/// What a member's data comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hash {
    /// The hash.
    pub hash: i64,
    /// Up to where the history was forgotten; hashes with different bounds can't be compared.
    pub compacted: i64,
}

/// A page of a range.
#[derive(Debug)]
pub struct Page {
    /// The keys, in order.
    pub keys: Vec<Found>,
    /// The revision that was read.
    pub revision: i64,
    /// Whether there are more after the last.
    pub more: bool,
}

/// A client of several members. Clones share the connections.
#[derive(Clone, Debug)]
pub struct Etcd {
    /// The members' base addresses.
    pub endpoints: Vec<String>,
    agent: Agent,
}

impl Etcd {
    /// A client whose every request ends within `timeout`.
    pub fn new(endpoints: &[String], timeout: Duration) -> Self {
        Self::with_idle_connections(endpoints, timeout, 3)
    }

    /// A client that makes a new connection for every request, as one behind a balancer does.
    pub fn without_reuse(endpoints: &[String], timeout: Duration) -> Self {
        Self::with_idle_connections(endpoints, timeout, 0)
    }

    fn with_idle_connections(endpoints: &[String], timeout: Duration, idle: usize) -> Self {
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .max_idle_connections_per_host(idle)
            .http_status_as_error(false)
            // Members are addressed as they are, whatever HTTP_PROXY says.
            .proxy(None)
            .max_redirects(0)
            .build();
        Self { endpoints: endpoints.iter().map(|endpoint| base_address(endpoint)).collect(), agent: config.into() }
    }

    /// One request to one member.
    pub fn call(&self, endpoint: usize, path: &str, body: &Value) -> Result<Value, Failure> {
        let url = format!("{}{path}", self.endpoints[endpoint % self.endpoints.len()]);
        let sent = self.agent.post(&url).content_type("application/json").send(body.to_string());
        let mut answer = sent.map_err(|error| failure(&error))?;
        let status = answer.status();
        let text = answer.body_mut().read_to_string().map_err(|error| Failure::Unknown(error.to_string()))?;
        let parsed: Result<Value, _> = serde_json::from_str(&text);
        match parsed {
            Ok(value) if status.is_success() => Ok(value),
            // 408, 429 and 499 are 4xx too, but say that it was not the request's fault or not finished.
            Ok(value) if status.is_client_error() && ![408, 429, 499].contains(&status.as_u16()) => {
                Err(Failure::Refused(message(&value, &text)))
            }
            Ok(value) => Err(Failure::Unknown(message(&value, &text))),
            Err(error) => Err(Failure::Unknown(format!("HTTP {status}, and no JSON: {error}"))),
        }
    }

    /// Asks member after member until one answers, one refuses, or the time is up.
    pub fn call_any(&self, path: &str, body: &Value, until: Instant) -> Result<Value, Failure> {
        for endpoint in 0.. {
            match self.call(endpoint, path, body) {
                Err(Failure::Unknown(_) | Failure::NeverSent(_)) if Instant::now() < until => {}
                result => return result,
            }
            if (endpoint + 1) % self.endpoints.len() == 0 {
                sleep(PAUSE);
            }
        }
        Err(Failure::NeverSent("no endpoint".into()))
    }

    /// Writes a key and returns the revision that it got.
    pub fn put(&self, endpoint: usize, key: &str, value: &str) -> Result<i64, Failure> {
        let body = json!({"key": STANDARD.encode(key), "value": STANDARD.encode(value)});
        let answer = self.call(endpoint, "/v3/kv/put", &body)?;
        integer(&answer["header"]["revision"]).ok_or_else(|| Failure::Unknown(format!("no revision in {answer}")))
    }

    /// Reads a page of a range, linearizably, at a revision or (0) at the newest.
    pub fn range(&self, begin: &str, end: &str, limit: usize, revision: i64, until: Instant) -> Result<Page, Failure> {
        let body = json!({
            "key": STANDARD.encode(begin), "range_end": STANDARD.encode(end), "limit": limit.to_string(),
            "revision": revision.to_string(),
        });
        page(&self.call_any("/v3/kv/range", &body, until)?)
    }

    /// Deletes a range.
    pub fn delete(&self, begin: &str, end: &str, until: Instant) -> Result<(), Failure> {
        let body = json!({"key": STANDARD.encode(begin), "range_end": STANDARD.encode(end)});
        self.call_any("/v3/kv/deleterange", &body, until).map(drop)
    }

    /// Lets etcd forget the history before a revision.
    pub fn compact(&self, revision: i64, until: Instant) -> Result<(), Failure> {
        match self.call_any("/v3/kv/compaction", &json!({"revision": revision.to_string()}), until) {
            // Somebody else, or our own request before a lost answer, has done it.
            Err(Failure::Refused(why)) if why.contains("compacted") => Ok(()),
            result => result.map(drop),
        }
    }

    /// What a member says of itself.
    pub fn status(&self, endpoint: usize) -> Result<Status, Failure> {
        let answer = self.call(endpoint, "/v3/maintenance/status", &json!({}))?;
        let number = |value: &Value| integer(value).map_or(0, i64::cast_unsigned);
        let unsigned =
            |value: &Value| value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| number(value));
        Ok(Status {
            leader: unsigned(&answer["leader"]),
            term: unsigned(&answer["raftTerm"]),
            member: unsigned(&answer["header"]["member_id"]),
            applied: unsigned(&answer["raftAppliedIndex"]),
        })
    }

    /// How many voting members the cluster has, as one member knows by a linearizable read.
    pub fn voters(&self, endpoint: usize) -> Result<usize, Failure> {
        let answer = self.call(endpoint, "/v3/cluster/member/list", &json!({"linearizable": true}))?;
        let members = answer["members"].as_array().map(Vec::as_slice).unwrap_or_default();
        Ok(members.iter().filter(|member| member["isLearner"] != json!(true)).count())
    }

    /// A hash over all keys and their history, as one member has them up to a revision.
    pub fn hash(&self, endpoint: usize, revision: i64) -> Result<Hash, Failure> {
        let answer = self.call(endpoint, "/v3/maintenance/hashkv", &json!({"revision": revision.to_string()}))?;
        let hash = integer(&answer["hash"]).ok_or_else(|| Failure::Unknown(format!("no hash in {answer}")))?;
        Ok(Hash { hash, compacted: integer(&answer["compact_revision"]).unwrap_or(0) })
    }

    /// A linearizable read through one member, of a key that need not be there.
    pub fn linearizable_read(&self, endpoint: usize) -> Result<(), Failure> {
        let body = json!({"key": STANDARD.encode("/health"), "keys_only": true});
        self.call(endpoint, "/v3/kv/range", &body).map(drop)
    }
}

/// A whole base address from `host`, `host:port` or `http://host:port`.
pub fn base_address(endpoint: &str) -> String {
    let endpoint = endpoint.trim().trim_end_matches('/');
    let (scheme, host) = endpoint.split_once("://").unwrap_or(("http", endpoint));
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    let port = if has_port { "" } else { ":2379" };
    format!("{scheme}://{host}{port}")
}

fn failure(error: &Error) -> Failure {
    let why = error.to_string();
    match error {
        Error::HostNotFound
        | Error::ConnectionFailed
        | Error::BadUri(_)
        | Error::Timeout(Timeout::Resolve | Timeout::Connect) => Failure::NeverSent(why),
        // Only a connect can be refused; resets and closed connections may come after the request was read.
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => Failure::NeverSent(why),
        // A failed look-up has no kind of its own in the standard library, only this text.
        Error::Io(error) if error.to_string().starts_with("failed to lookup address") => Failure::NeverSent(why),
        _ => Failure::Unknown(why),
    }
}

fn message(answer: &Value, text: &str) -> String {
    answer["message"].as_str().unwrap_or(text).to_owned()
}

/// The gateway writes 64-bit integers as strings, and leaves zeros out.
fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

fn page(answer: &Value) -> Result<Page, Failure> {
    let broken = |what: &str| Failure::Unknown(format!("a range answer has a bad {what}"));
    let text = |value: &Value, what: &str| {
        let bytes = STANDARD.decode(value.as_str().unwrap_or_default()).map_err(|_| broken(what))?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    };
    let found = answer["kvs"].as_array().map(Vec::as_slice).unwrap_or_default();
    let keys = found.iter().map(|kv| {
        Ok(Found {
            key: text(&kv["key"], "key")?,
            value: text(&kv["value"], "value")?,
            mod_revision: integer(&kv["mod_revision"]).ok_or_else(|| broken("mod_revision"))?,
        })
    });
    Ok(Page {
        keys: keys.collect::<Result<_, Failure>>()?,
        revision: integer(&answer["header"]["revision"]).ok_or_else(|| broken("revision"))?,
        more: answer["more"] == json!(true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_get_scheme_and_port() {
        for (given, whole) in [
            ("etcd-0.etcd", "http://etcd-0.etcd:2379"),
            ("etcd-0.etcd:12379", "http://etcd-0.etcd:12379"),
            ("http://10.0.0.1:2379/", "http://10.0.0.1:2379"),
            (" [::1]:2379", "http://[::1]:2379"),
            ("[::1]", "http://[::1]:2379"),
        ] {
            assert_eq!(base_address(given), whole);
        }
    }

    #[test]
    fn a_page_is_read_as_the_gateway_writes_it() {
        let answer = json!({
            "header": {"revision": "9"}, "more": true, "count": "2",
            "kvs": [{"key": "L2E=", "value": "Yg==", "mod_revision": "7", "version": "1"}],
        });
        let page = page(&answer).expect("a page");
        assert_eq!(page.keys, [Found { key: "/a".into(), value: "b".into(), mod_revision: 7 }]);
        assert_eq!((page.revision, page.more), (9, true));
        let empty = self::page(&json!({"header": {"revision": "9"}})).expect("an empty page");
        assert!(empty.keys.is_empty() && !empty.more);
        assert!(self::page(&json!({})).is_err(), "an answer without a header is none");
    }

    #[test]
    fn a_refused_connection_is_known_to_have_had_no_effect() {
        // Port 1 of this machine: nothing listens there.
        let etcd = Etcd::new(&["127.0.0.1:1".to_owned()], Duration::from_secs(1));
        assert!(matches!(etcd.put(0, "k", "v"), Err(Failure::NeverSent(_))));
    }

    #[test]
    fn a_name_that_can_not_be_resolved_is_known_to_have_had_no_effect() {
        let etcd = Etcd::new(&["no-such-host.invalid".to_owned()], Duration::from_secs(5));
        let failure = etcd.put(0, "k", "v").expect_err("there is no such host");
        assert!(matches!(failure, Failure::NeverSent(_)), "{failure:?}");
    }

    #[test]
    fn a_connection_that_ends_without_an_answer_is_unknown() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("binds");
        let address = listener.local_addr().expect("address").to_string();
        let server = std::thread::spawn(move || drop(listener.accept()));
        let etcd = Etcd::new(&[address], Duration::from_secs(5));
        assert!(matches!(etcd.put(0, "k", "v"), Err(Failure::Unknown(_))));
        server.join().expect("joins");
    }
}
