//! What holds whatever happens.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

#[derive(Clone, Debug)]
enum Move {
    /// Time goes on by so many seconds, and the schedule is visited.
    Pass(i64),
    /// The status is stored, and the operator dies before or after its effects.
    Crash {
        after: bool,
    },
    /// The oldest active run ends.
    End(RunPhase),
    /// The newest run is deleted by somebody.
    Lose,
    Suspend(bool),
    Policy(ConcurrencyPolicy),
}

fn moves() -> impl Strategy<Value = Move> {
    prop_oneof![
        4 => (-5_i64..900).prop_map(Move::Pass),
        2 => any::<bool>().prop_map(|after| Move::Crash { after }),
        2 => prop::sample::select(vec![RunPhase::Succeeded, RunPhase::Failed, RunPhase::Aborted]).prop_map(Move::End),
        1 => Just(Move::Lose),
        1 => any::<bool>().prop_map(Move::Suspend),
        1 => prop::sample::select(vec![ConcurrencyPolicy::Allow, ConcurrencyPolicy::Forbid, ConcurrencyPolicy::Replace])
            .prop_map(Move::Policy),
    ]
}

proptest! {
    /// Whatever happens: a tick has one run at most, and under Forbid and Replace none is made beside another.
    #[test]
    fn a_tick_has_one_run_at_most(moves in prop::collection::vec(moves(), 1..60)) {
        let mut world = World::new(&json!({"schedule": "*/5 * * * *", "successfulRunsHistoryLimit": 1, "failedRunsHistoryLimit": 1}));
        let mut made = BTreeSet::new();
        for step in moves {
            let before: BTreeSet<String> = world.names().into_iter().map(str::to_owned).collect();
            let active: Vec<String> = world.seen.runs.iter().filter(|run| !run.phase.is_final()).map(|run| run.name.clone()).collect();
            match step {
                Move::Pass(seconds) => {
                    world.now += TimeDelta::seconds(seconds);
                    world.visit();
                }
                Move::Crash { after } => {
                    world.now += TimeDelta::seconds(60);
                    let effects = world.decide();
                    if after {
                        world.perform(effects);
                    }
                }
                Move::End(phase) => {
                    if let Some(name) = active.first() {
                        world.ends(name, phase);
                    }
                }
                // Whoever deletes a run that no status tells of yet gets it once more, under the same name.
                Move::Lose => {
                    let handled = world.status().handled_until;
                    world.seen.runs.pop_if(|run| run.tick <= handled);
                }
                Move::Suspend(suspend) => world.change(|spec| spec.suspend = suspend),
                Move::Policy(policy) => world.change(|spec| spec.concurrency_policy = policy),
            }
            let new: Vec<String> = world.names().into_iter().filter(|name| !before.contains(*name)).map(str::to_owned).collect();
            for name in &new {
                prop_assert!(made.insert(name.clone()), "{name} was made twice");
            }
            prop_assert!(new.len() <= 1, "one visit makes one run");
            if world.schedule.spec.concurrency_policy != ConcurrencyPolicy::Allow && !new.is_empty() {
                let beside = active.iter().filter(|name| world.names().contains(&name.as_str()) && !world.run_is_final(name)).count();
                prop_assert_eq!(beside, 0, "made beside another");
            }
        }
    }
}
