//! What the members' own words, put in order of time, say about the cluster: who led, and who was behind. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Map, Value, json};

use crate::etcd::Status;

/// A member that is so many entries behind has fallen back; less than that is on its way.
const FALLEN_BACK: u64 = 50;

/// One look at one member. Times count from the observation's start.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// Which member, by its place in the list of endpoints.
    pub member: usize,
    /// When the look began.
    pub began: Duration,
    /// When it ended.
    pub ended: Duration,
    /// What the member said; nothing, when it did not answer.
    pub status: Option<Status>,
    /// Whether a linearizable read through it was answered, which only a leader that a majority follows makes possible. It
    /// is asked only where the member takes itself for the leader.
    pub proved: bool,
}

/// A leader that was proved.
#[derive(Clone, Copy, Debug)]
struct Led {
    leader: u64,
    term: u64,
    /// The latest time at which it is known to have led.
    until: Duration,
}

#[derive(Clone, Copy, Debug, Default)]
struct Member {
    /// The newest entry that it was seen to have applied.
    applied: u64,
    /// When it was looked at last.
    looked: Duration,
    /// It did not answer in its look before.
    silent: bool,
    /// It went away or fell back, and has not caught up since.
    fallen: bool,
    /// It comes on again: since when, and up to which entry it has to.
    coming: Option<(Duration, u64)>,
    /// The claim to lead in its look before: a single one may mix an old leader with a new term.
    claim: Option<(u64, u64)>,
}

/// What was seen.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    /// How often another leader, or the same in another term, took over.
    pub leader_changes: u64,
    /// Longest time from the last proof of a leader to the first of its successor.
    pub reelection: Option<Duration>,
    /// Longest time without a proof of any leader.
    pub leaderless: Duration,
    /// Longest time from when a member came on again to when it had all that the cluster had then.
    pub catch_up: Option<Duration>,
    /// Most entries that a member had missed when it came on again.
    pub missed: u64,
    /// Proofs of an earlier term's leader that began after a later one had been proved: stale reads.
    pub stale_proofs: u64,
    /// Terms in which two members led: there must be none.
    pub split_terms: usize,
}

impl Seen {
    /// As the outputs of the step. What was not seen to happen has no number. Where the quorum was lost on purpose, the time
    /// without a leader says how long, and nothing about elections.
    pub fn outputs(&self, quorum_lost: bool) -> Map<String, Value> {
        let mut outputs = Map::from_iter([
            ("leaderChanges".into(), json!(self.leader_changes)),
            (if quorum_lost { "outageSeconds" } else { "leaderlessSeconds" }.into(), seconds(self.leaderless)),
            ("termsWithTwoLeaders".into(), json!(self.split_terms)),
            ("staleReads".into(), json!(self.stale_proofs)),
        ]);
        if let Some(found) = self.reelection.filter(|_| !quorum_lost) {
            outputs.insert("reelectionSeconds".into(), seconds(found));
        }
        if let Some(found) = self.catch_up {
            outputs.insert("catchUpSeconds".into(), seconds(found));
            outputs.insert("entriesMissed".into(), json!(self.missed));
        }
        outputs
    }
}

/// All looks so far.
#[derive(Debug, Default)]
pub struct Timeline {
    members: BTreeMap<usize, Member>,
    newest: u64,
    led: Option<Led>,
    leaders: BTreeMap<u64, BTreeSet<u64>>,
    seen: Seen,
}

impl Timeline {
    /// Takes one look in. Looks of one member come in order; those of several may overtake each other.
    pub fn add(&mut self, look: &Look) {
        let newest = self.newest.max(look.status.map_or(0, |status| status.applied));
        let member = self.members.entry(look.member).or_default();
        if let Some(found) = caught_up(member, look, newest, &mut self.seen.missed) {
            self.seen.catch_up = self.seen.catch_up.max(Some(found));
        }
        self.newest = newest;
        let claim = look.status.filter(Status::leads).map(|status| (status.term, status.member));
        if let Some((term, leader)) = claim.filter(|_| claim == member.claim) {
            self.leaders.entry(term).or_default().insert(leader);
            self.seen.split_terms = self.leaders.values().filter(|leaders| leaders.len() > 1).count();
        }
        member.claim = claim;
        if let (Some((term, leader)), true) = (claim, look.proved) {
            self.prove(Led { leader, term, until: look.began }, look.ended);
        }
    }

    fn prove(&mut self, now: Led, ended: Duration) {
        let Some(before) = self.led else {
            self.seen.leaderless = self.seen.leaderless.max(ended);
            self.led = Some(now);
            return;
        };
        if now.term < before.term {
            self.seen.stale_proofs += u64::from(now.until > before.until);
            return;
        }
        let gap = ended.saturating_sub(before.until);
        self.seen.leaderless = self.seen.leaderless.max(gap);
        if (now.leader, now.term) != (before.leader, before.term) {
            self.seen.leader_changes += 1;
            self.seen.reelection = self.seen.reelection.max(Some(gap));
        }
        self.led = Some(Led { until: now.until.max(before.until), ..now });
    }

    /// What was seen until now, when the observation ends: a time without a leader counts up to here.
    pub fn end(&self, at: Duration) -> Seen {
        let without = at.saturating_sub(self.led.map_or(Duration::ZERO, |led| led.until));
        Seen { leaderless: self.seen.leaderless.max(without), ..self.seen }
    }
}

/// Follows a member that falls back and comes on again; the answer is how long it took, once it has caught up.
fn caught_up(member: &mut Member, look: &Look, newest: u64, missed: &mut u64) -> Option<Duration> {
    let looked = std::mem::replace(&mut member.looked, look.ended);
    let Some(status) = look.status else {
        // One that was never seen has nothing to come back to.
        member.fallen = member.applied > 0;
        (member.silent, member.coming) = (true, None);
        return None;
    };
    let back = std::mem::replace(&mut member.silent, false);
    let before = member.applied;
    member.applied = before.max(status.applied);
    if !member.fallen {
        member.fallen = newest - status.applied >= FALLEN_BACK;
        return None;
    }
    if member.coming.is_none() && (back || status.applied > before || status.applied == newest) {
        // It did between this look and the one before, so the time counts from that.
        member.coming = Some((looked, newest));
        *missed = (*missed).max(newest - before);
    }
    let (since, target) = member.coming?;
    if status.applied < target {
        return None;
    }
    (member.fallen, member.coming) = (false, None);
    Some(look.ended.saturating_sub(since))
}

/// A time as a number of seconds, to the millisecond.
pub fn seconds(time: Duration) -> Value {
    json!((time.as_secs_f64() * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A look of 10 ms at a member whose id is its place and 1.
    fn look(member: usize, at: u64, leader: u64, term: u64, applied: u64) -> Look {
        let id = member as u64 + 1;
        Look {
            member,
            began: millis(at),
            ended: millis(at + 10),
            status: Some(Status { leader, term, member: id, applied }),
            proved: leader == id,
        }
    }

    fn silent(member: usize, at: u64) -> Look {
        Look { status: None, proved: false, ..look(member, at, 0, 0, 0) }
    }

    fn timeline(looks: &[Look]) -> Seen {
        let mut timeline = Timeline::default();
        for look in looks {
            timeline.add(look);
        }
        timeline.seen
    }

    #[test]
    fn a_re_election_lasts_from_the_last_proof_to_the_first_of_the_next() {
        let found = timeline(&[look(0, 0, 1, 5, 9), look(0, 100, 1, 5, 9), silent(0, 200), look(1, 1700, 2, 6, 9)]);
        assert_eq!((found.leader_changes, found.reelection), (1, Some(millis(1610))));
        assert_eq!(found.outputs(false)["reelectionSeconds"], 1.61);
        assert!(!found.outputs(true).contains_key("reelectionSeconds"), "it waited for a quorum");
        assert_eq!(found.outputs(true)["outageSeconds"], 1.61);
        let calm = timeline(&[look(0, 0, 1, 5, 9), look(0, 100, 1, 5, 9)]);
        assert_eq!((calm.leader_changes, calm.reelection), (0, None), "nothing is made up");
        assert!(!calm.outputs(false).contains_key("reelectionSeconds"));
    }

    #[test]
    fn a_leader_that_can_not_prove_it_is_none() {
        let unproved = Look { proved: false, ..look(0, 200, 1, 5, 9) };
        let mut found = Timeline::default();
        for look in [look(0, 0, 1, 5, 9), unproved, look(0, 900, 1, 5, 9)] {
            found.add(&look);
        }
        assert_eq!((found.seen.leaderless, found.seen.leader_changes), (millis(910), 0), "the same leader came back");
        assert_eq!(found.end(millis(3000)).leaderless, millis(2100), "up to the end");
        assert_eq!(Timeline::default().end(millis(700)).leaderless, millis(700), "from the start");
    }

    #[test]
    fn two_leaders_are_wrong_in_one_term_only() {
        let next_term = [look(0, 0, 1, 5, 9), look(0, 100, 1, 5, 9), look(1, 50, 2, 6, 9), look(1, 150, 2, 6, 9)];
        assert_eq!(timeline(&next_term).split_terms, 0, "an isolated leader may not know yet");
        let same_term = [look(0, 0, 1, 5, 9), look(0, 100, 1, 5, 9), look(1, 50, 2, 5, 9), look(1, 150, 2, 5, 9)];
        assert_eq!(timeline(&same_term).split_terms, 1);
        assert_eq!(timeline(&same_term[..3]).split_terms, 0, "one look may mix an old leader with a new term");
    }

    #[test]
    fn a_deposed_leader_that_still_answers_reads_is_noticed() {
        let stale = timeline(&[look(0, 0, 1, 5, 9), look(1, 100, 2, 6, 9), look(0, 200, 1, 5, 9)]);
        assert_eq!(stale.stale_proofs, 1);
        let late = timeline(&[look(0, 0, 1, 5, 9), look(1, 100, 2, 6, 9), look(0, 90, 1, 5, 9)]);
        assert_eq!(late.stale_proofs, 0, "its read began before the successor was proved");
    }

    #[test]
    fn a_member_that_was_away_has_caught_up_when_it_has_what_there_was_at_its_return() {
        let found = timeline(&[
            look(2, 0, 1, 5, 100),
            silent(2, 100),
            look(0, 150, 1, 5, 500),
            silent(2, 200),
            look(2, 300, 1, 5, 120),
            look(0, 350, 1, 5, 600),
            look(2, 400, 1, 5, 499),
            look(2, 500, 1, 5, 500),
        ]);
        assert_eq!(found.missed, 400);
        assert_eq!(found.catch_up, Some(millis(300)), "from the last look without an answer");
    }

    #[test]
    fn a_member_that_is_cut_off_has_fallen_back_until_it_moves_again() {
        let mut looks = vec![look(2, 0, 1, 5, 100)];
        for step in 1..=5 {
            looks.push(look(0, 100 * step, 1, 5, 100 + 80 * step));
            looks.push(look(2, 100 * step + 20, 0, 5, 100));
        }
        let cut_off = timeline(&looks);
        assert_eq!((cut_off.catch_up, cut_off.missed), (None, 0), "it has not come on yet");
        looks.push(look(2, 600, 1, 6, 500));
        let found = timeline(&looks);
        assert_eq!((found.catch_up, found.missed), (Some(millis(80)), 400));
    }

    #[test]
    fn a_member_that_goes_again_on_its_way_begins_anew() {
        let found = timeline(&[
            look(2, 0, 1, 5, 100),
            silent(2, 100),
            look(0, 150, 1, 5, 500),
            look(2, 200, 1, 5, 200),
            silent(2, 300),
            look(2, 900, 1, 5, 500),
        ]);
        assert_eq!((found.catch_up, found.missed), (Some(millis(600)), 400));
    }

    #[test]
    fn a_member_that_starts_with_the_observation_has_missed_nothing() {
        let found = timeline(&[silent(2, 0), look(0, 50, 1, 5, 500), look(2, 100, 1, 5, 500)]);
        assert_eq!((found.catch_up, found.missed), (None, 0));
    }
}
