//! Waits until a cluster is whole.

use std::{
    thread::sleep,
    time::{Duration, Instant},
};

use crate::etcd::{Etcd, Failure, Status};

const PAUSE: Duration = Duration::from_millis(250);

/// A healthy cluster.
#[derive(Debug, PartialEq, Eq)]
pub struct Healthy {
    /// How many members answered.
    pub members: usize,
    /// The term that they agree on.
    pub term: u64,
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
    Ok(Healthy { members, term: first.term })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(member: u64, leader: u64, term: u64) -> Status {
        Status { leader, term, member }
    }

    #[test]
    fn whole_when_all_members_agree_on_a_leader() {
        let all = [status(1, 2, 7), status(2, 2, 7), status(3, 2, 7)];
        assert_eq!(agree(&all, 3, 3), Ok(Healthy { members: 3, term: 7 }));
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
