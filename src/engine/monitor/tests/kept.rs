//! What the status keeps of the past: samples and alerts that have ended.

use super::*;

fn alert(name: &str, state: AlertState, policy: &str) -> Alert {
    serde_json::from_value(json!({
        "monitor": "m", "alert": name, "severity": "Warning", "policy": policy, "state": state, "since": at(0),
    }))
    .unwrap()
}

fn retire_at(world: &mut World, seconds: i64) {
    let run = world.run.clone();
    let seen = Seen { monitors: world.looks.clone(), ..Seen::default() };
    let context = Context { run: &run, seen: &seen, now: at(seconds), effects: Vec::new(), wake_at: None };
    retire(&world.plan, at(seconds), world.run.status.as_mut().unwrap(), &context);
}

fn samples(world: &World) -> Vec<f32> {
    let kept = &world.status().alerts.as_ref().unwrap().monitors[0];
    assert_eq!(kept.name, "m");
    whole(kept, &world.plan.monitors[0]).buckets().iter().map(|bucket| bucket.mean).collect()
}

#[test]
fn samples_become_part_of_the_runs_series_once_each() {
    let mut world = world(json!({}));
    retire_at(&mut world, 1);
    assert!(world.status().alerts.as_ref().unwrap().monitors.is_empty(), "nothing was seen");
    for (seconds, value) in [(1, 1.0), (2, 2.0), (3, 3.0)] {
        world.look(seconds, Some(value));
    }
    retire_at(&mut world, 3);
    assert_eq!(samples(&world), [1.0, 2.0], "the third second has not ended");
    world.look(4, Some(4.0));
    retire_at(&mut world, 9);
    retire_at(&mut world, 9);
    assert_eq!(samples(&world), [1.0, 2.0, 3.0, 4.0]);
    let kept = &mut world.run.status.as_mut().unwrap().alerts.as_mut().unwrap().monitors[0];
    assert_eq!(kept.until, Some(at(9)));
    kept.series = "damaged!".into();
    assert!(samples(&world).is_empty());
    world.look(10, Some(5.0));
    retire_at(&mut world, 12);
    assert_eq!(samples(&world), [5.0]);
}

#[test]
fn after_a_cycle_only_the_newest_of_the_ended_alerts_stay_and_all_that_fire() {
    for ended in [RECENT_ALERTS, RECENT_ALERTS + 2] {
        let mut world = world(json!({}));
        let mut list = vec![alert("F", Firing, "record")];
        list.extend((0..ended).map(|number| alert(&format!("R{number}"), Resolved, "record")));
        list.insert(2, alert("P", Pending, "record"));
        world.run.status.as_mut().unwrap().alerts.as_mut().unwrap().list = list;
        retire_at(&mut world, 9);
        let left: Vec<&str> = world.alerts().into_iter().map(|(name, _)| name).collect();
        let gone = ended - RECENT_ALERTS;
        assert_eq!(left.len(), RECENT_ALERTS + 2);
        assert_eq!(left[0], "F");
        assert!(left.contains(&"P"));
        for number in 0..ended {
            assert_eq!(left.contains(&format!("R{number}").as_str()), number >= gone, "{left:?}");
        }
    }
}

#[test]
fn an_ended_alert_that_may_fail_a_cycle_goes_after_those_that_are_only_recorded() {
    let mut list = vec![alert("P", Pending, "record"), alert("A", Resolved, "failCycle")];
    list.push(alert("B", Resolved, "record"));
    assert!(make_room(&mut list));
    assert_eq!(list.len(), 3, "there is room");
    while list.len() < MAX_ALERTS {
        list.push(alert("F", Firing, "record"));
    }
    for left in [&["P", "A", "F"][..], &["P", "F", "F"]] {
        assert!(make_room(&mut list));
        let names: Vec<&str> = list.iter().take(3).map(|alert| alert.alert.as_str()).collect();
        assert_eq!((names, list.len()), (left.to_vec(), MAX_ALERTS - 1));
        list.push(alert("F", Firing, "record"));
    }
    assert!(!make_room(&mut list), "what fires or is pending stays");
    assert_eq!(list.len(), MAX_ALERTS);
}
