//! What holds whatever happens, in whatever order.

use chrono::TimeDelta;
use proptest::prelude::*;
use serde_json::json;

use super::world::{Act, World};
use crate::api::failureinjection::InjectionPhase;

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => Just(Act::Visit),
        4 => (0usize..4, any::<bool>()).prop_map(|(write, after)| Act::Crash { write, after }),
        4 => (1i64..40).prop_map(Act::Pass),
        1 => Just(Act::Foreign),
        1 => Just(Act::Remove),
        1 => Just(Act::Replace),
        2 => any::<bool>().prop_map(Act::Deny),
        1 => any::<bool>().prop_map(Act::Halt),
        1 => Just(Act::Abort),
        1 => Just(Act::Delete),
        1 => Just(Act::Heal),
    ]
}

/// Everything becomes quiet: crashes stop, the server takes writes, time goes on.
fn come_to_rest(world: &mut World) {
    world.act(Act::Deny(false));
    world.act(Act::Halt(false));
    for _ in 0..40 {
        world.settle();
        world.pass(TimeDelta::minutes(10));
    }
    world.settle();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_fault_is_never_left_behind(acts in proptest::collection::vec(act(), 0..30), with_recovery in any::<bool>()) {
        let mut spec = json!({"duration": "20s"});
        if with_recovery {
            spec["recovery"] = json!({"resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x"}, "until": "object != null", "timeout": "1m"});
        }
        let mut world = World::new(&spec);
        for act in acts {
            let finished = world.status().phase.is_final().then(|| world.status());
            world.act(act);
            if let Some(finished) = finished {
                prop_assert_eq!(world.status(), finished, "an ended injection never changes (S2)");
            }
            // S5: finalizer, uid, undo record and deadline are durable before the first effect.
            prop_assert!(!world.touched_without_journal);
            // S7: what somebody else changed since is not overwritten.
            prop_assert!(!world.foreign_overwritten);
            // S9: nothing begins after its deadline.
            prop_assert!(!world.began_late);
            // S6: the finalizer goes only after the fault.
            prop_assert!(world.has_finalizer || !world.is_broken());
        }
        come_to_rest(&mut world);
        // L2 and L3: it ends, and nothing of it is left.
        prop_assert!(!world.is_broken(), "{:#?}", world.status());
        prop_assert!(world.deleted || world.status().phase.is_final(), "{:#?}", world.status());
        prop_assert!(world.all_undone());
        prop_assert!(!world.has_finalizer);
    }

    #[test]
    fn an_outage_of_any_length_delays_the_undoing_by_no_more_than_itself(outage in 0i64..100_000) {
        let mut world = World::new(&json!({"duration": "20s"}));
        world.until(InjectionPhase::Injected);
        let deadline = world.status().deadline.unwrap();
        world.pass(TimeDelta::seconds(outage));
        world.settle();
        prop_assert_eq!(world.is_broken(), world.now < deadline);
    }
}
