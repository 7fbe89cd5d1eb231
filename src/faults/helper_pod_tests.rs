use super::*;
use crate::{api::failureinjection::ObjectRef, helper};

fn identity() -> InjectionIdentity {
    InjectionIdentity {
        name: "pause".into(),
        namespace: "team".into(),
        uid: "u-1".into(),
        service_account: "soak".into(),
    }
}

fn work(arguments: &[&str], at_once: bool) -> HelperWork {
    HelperWork {
        pod: ObjectRef { namespace: "helpers".into(), name: "soak-helper-u-0".into(), ..ObjectRef::default() },
        node: "node-1".into(),
        container_id: "containerd://abc".into(),
        arguments: arguments.iter().map(|it| (*it).to_owned()).collect(),
        at_once,
    }
}

fn made(work: &HelperWork, act: Act) -> Value {
    let settings = HelperSettings {
        namespace: "helpers".into(),
        service_account: "helper".into(),
        image: "localhost/soak-operator:dev".into(),
    };
    let now = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let (injection, duration) = (identity(), Some(TimeDelta::seconds(20)));
    let (not_after, until) = (now + TimeDelta::seconds(45), now + TimeDelta::seconds(80));
    manifest(&settings, &Order { work, act, pod_uid: "p-1", injection: &injection, now, not_after, until, duration })
}

fn parsed(words: &Value) -> helper::NodeHelper {
    match helper::parsed(words).unwrap() {
        helper::Command::NodeHelper(helper) => helper,
        helper::Command::Stress(_) | helper::Command::Artifacts(_) => panic!("not a helper"),
    }
}

#[test]
fn the_helper_understands_what_its_pod_tells_it() {
    for arguments in [
        &["pause"][..],
        &["signal", "kill"],
        &["cut", "--address", "10.0.0.7", "--address", "fd00::/64"],
        &["cut", "--all", "--except", "10.88.0.1"],
        &["dns", "--server", "10.96.0.10"],
        &["dns"],
    ] {
        let at_once = arguments[0] == "signal";
        let work = work(arguments, at_once);
        let pod = made(&work, Act::Make);
        let container = &pod["spec"]["containers"][0];
        let make = parsed(&container["command"]);
        assert_eq!((make.act, make.pod.as_str()), (helper::Act::Make, "p-1"));
        assert_eq!(make.until.unwrap().timestamp(), 1_700_000_080);
        assert_eq!(make.for_ms, (!at_once).then_some(20_000));
        if at_once {
            assert!(container["readinessProbe"].is_null());
        } else {
            let check = parsed(&container["readinessProbe"]["exec"]["command"]);
            assert_eq!((check.act, &check.work, &check.key), (helper::Act::Check, &make.work, &make.key));
        }
        let undo = parsed(&made(&work, Act::Undo)["spec"]["containers"][0]["command"]);
        assert_eq!((undo.act, &undo.work, &undo.key), (helper::Act::Undo, &make.work, &make.key));
    }
}

#[test]
fn words_of_a_journal_can_not_name_another_place() {
    let work = work(&["pause", "--container", "other"], false);
    let words = made(&work, Act::Make)["spec"]["containers"][0]["command"].clone();
    assert!(helper::parsed(&words).is_err());
}

#[test]
fn a_helper_ends_by_itself_whatever_becomes_of_the_operator() {
    let make = made(&work(&["pause"], false), Act::Make);
    assert_eq!(make["spec"]["activeDeadlineSeconds"], 110);
    assert_eq!(make["spec"]["restartPolicy"], "Never");
    let undo = made(&work(&["pause"], false), Act::Undo);
    assert_eq!(
        (&undo["metadata"]["name"], &undo["spec"]["activeDeadlineSeconds"]),
        (&json!("soak-helper-u-0-undo"), &json!(60))
    );
}

fn pod(status: &Value) -> Pod {
    serde_json::from_value(json!({"metadata": {"name": "h"}, "status": status})).unwrap()
}

fn terminated(code: i32) -> Pod {
    pod(&json!({"phase": "Failed", "containerStatuses": [{
        "name": "helper", "ready": false, "image": "", "imageID": "", "restartCount": 0,
        "state": {"terminated": {"exitCode": code, "message": "x\n"}},
    }]}))
}

#[test]
fn how_a_helper_ended_is_read_from_its_exit_code() {
    assert_eq!(look(&terminated(0)), Look::Ended(Ended::Good));
    assert_eq!(look(&terminated(3)), Look::Ended(Ended::Gone));
    assert_eq!(look(&terminated(4)), Look::Ended(Ended::NeverBegan("the helper did not begin: x".into())));
    for code in [1, 137, 101] {
        assert!(matches!(look(&terminated(code)), Look::Ended(Ended::Lost(_))), "{code}");
    }
    let evicted = pod(&json!({"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"}));
    assert!(matches!(look(&evicted), Look::Ended(Ended::Lost(message)) if message.contains("low on memory")));
}

#[test]
fn the_effect_is_there_while_the_pod_is_ready() {
    let with = |ready: bool, state: Value| {
        pod(&json!({
            "phase": "Running", "conditions": [{"type": "Ready", "status": if ready { "True" } else { "False" }}],
            "containerStatuses": [{"name": "helper", "ready": ready, "image": "", "imageID": "", "restartCount": 0, "state": state}],
        }))
    };
    assert_eq!(look(&with(true, json!({"running": {}}))), Look::There);
    assert!(matches!(look(&with(false, json!({"running": {}}))), Look::Coming { .. }));
    let pulling = with(false, json!({"waiting": {"reason": "ErrImagePull", "message": "no such image"}}));
    assert_eq!(look(&pulling), Look::Coming { message: "helper pod h: ErrImagePull: no such image".into() });
    assert!(matches!(look(&pod(&json!({"phase": "Pending"}))), Look::Coming { .. }));
}
