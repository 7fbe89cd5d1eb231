//! Waits until a cluster is whole.

use std::{
    net::ToSocketAddrs,
    thread::sleep,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};

use crate::etcd::{Etcd, Failure, Status};

const PAUSE: Duration = Duration::from_millis(250);

/// A healthy cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Healthy {
    /// How many members answered.
    pub members: usize,
    /// The term that they agree on.
    pub term: u64,
    /// The endpoint that leads, by its place.
    pub leader: usize,
}

/// Outputs that name the leader and the first two others: their hosts, and the addresses that these have now. With a
/// `beside`, also the address of the host whose name ends in it, such as that of a service for the member's proxy.
pub fn roles(etcd: &Etcd, leader: usize, beside: Option<&str>) -> Map<String, Value> {
    let others = (0..etcd.endpoints.len()).filter(|endpoint| *endpoint != leader);
    let mut outputs = Map::new();
    for (role, endpoint) in ["leader", "follower", "secondFollower"].iter().zip([leader].into_iter().chain(others)) {
        let host = host_and_port(&etcd.endpoints[endpoint]);
        let name = host.split(['.', ':']).next().unwrap_or_default();
        outputs.insert((*role).to_owned(), json!(name));
        let mut resolve = |what: &str, host: &str| {
            if let Some(address) = host.to_socket_addrs().ok().and_then(|mut all| all.next()) {
                outputs.insert(format!("{role}{what}"), json!(address.ip().to_string()));
            }
        };
        resolve("Address", host);
        if let Some(ending) = beside {
            resolve("Beside", &format!("{name}{ending}:80"));
        }
    }
    outputs
}

fn host_and_port(base: &str) -> &str {
    base.split_once("://").map_or(base, |(_, rest)| rest)
}

/// Waits until every member answers a linearizable read, they agree on leader and term, and the cluster has as many voters
/// as are asked for. At the end of the time: what was missing at the last look.
pub fn wait(etcd: &Etcd, members: usize, until: Instant) -> Result<Healthy, String> {
    loop {
        match look(etcd, members) {
            Err(missing) if Instant::now() >= until => return Err(missing),
            Err(_) => sleep(PAUSE),
            healthy => return healthy,
        }
    }
}

fn look(etcd: &Etcd, members: usize) -> Result<Healthy, String> {
    let name = |endpoint: usize, failure: &Failure| format!("{}: {failure}", etcd.endpoints[endpoint]);
    let mut statuses = Vec::new();
    for endpoint in 0..etcd.endpoints.len() {
        statuses.push(etcd.status(endpoint).map_err(|failure| name(endpoint, &failure))?);
        etcd.linearizable_read(endpoint).map_err(|failure| name(endpoint, &failure))?;
    }
    let voters = etcd.voters(0).map_err(|failure| name(0, &failure))?;
    agree(&statuses, voters, members)
}

fn agree(statuses: &[Status], voters: usize, members: usize) -> Result<Healthy, String> {
    let mut ids: Vec<_> = statuses.iter().map(|status| status.member).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != members {
        return Err(format!("{} different members answered, {members} are asked for", ids.len()));
    }
    if voters != members {
        return Err(format!("the cluster has {voters} voting members, {members} are asked for"));
    }
    let Some(first) = statuses.first() else { return Err("no endpoint".into()) };
    if first.leader == 0 {
        return Err("there is no leader".into());
    }
    if let Some(other) = statuses.iter().find(|other| (other.leader, other.term) != (first.leader, first.term)) {
        let (leader, term) = (first.leader, first.term);
        return Err(format!(
            "the members disagree: leader {leader:x} in term {term}, and {:x} in term {}",
            other.leader, other.term
        ));
    }
    let Some(leader) = statuses.iter().position(Status::leads) else { return Err("the leader did not answer".into()) };
    Ok(Healthy { members, term: first.term, leader })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member: u64, leader: u64, term: u64) -> Status {
        Status { leader, term, member, applied: 9 }
    }

    #[test]
    fn whole_when_all_members_agree_on_a_leader() {
        let all = [status(1, 2, 7), status(2, 2, 7), status(3, 2, 7)];
        assert_eq!(agree(&all, 3, 3), Ok(Healthy { members: 3, term: 7, leader: 1 }));
    }

    #[test]
    fn roles_are_named_by_host_and_have_addresses() {
        let endpoints = ["127.0.0.1:1", "127.0.0.2:2", "127.0.0.3:3"].map(str::to_owned);
        let found = roles(&Etcd::new(&endpoints, Duration::from_secs(1)), 1, None);
        assert_eq!((&found["leaderAddress"], &found["followerAddress"]), (&json!("127.0.0.2"), &json!("127.0.0.1")));
        assert_eq!(found["secondFollowerAddress"], "127.0.0.3");
        let named = Etcd::new(&["etcd-1.no-such-host.invalid".to_owned()], Duration::from_secs(1));
        assert_eq!(
            roles(&named, 0, Some(".invalid")),
            Map::from_iter([("leader".to_owned(), json!("etcd-1"))]),
            "no address is made up"
        );
    }

    #[test]
    fn what_is_missing_is_said() {
        let whole = [status(1, 2, 7), status(2, 2, 7), status(3, 2, 7)];
        let cases = [
            (vec![status(1, 0, 7); 1], 1, 1, "no leader"),
            (vec![status(1, 2, 7), status(2, 2, 8), status(3, 2, 7)], 3, 3, "disagree"),
            (vec![status(1, 2, 7), status(1, 2, 7), status(3, 2, 7)], 3, 3, "2 different members"),
            (whole.to_vec(), 4, 3, "4 voting members"),
            (vec![], 0, 0, "no endpoint"),
        ];
        for (statuses, voters, members, why) in cases {
            let error = agree(&statuses, voters, members).expect_err(why);
            assert!(error.contains(why), "{error}");
        }
    }
}
