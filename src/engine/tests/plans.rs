//! What parsing a spec finds, by the path of the field.

use serde_json::{Value, json};

use crate::{api::SoakRunSpec, engine::Plan};

fn spec(over: &Value) -> SoakRunSpec {
    let mut spec = json!({"serviceAccountName": "soak", "cycles": 1, "phases": [{"name": "work", "steps": [{"name": "say", "pod": {"image": "x"}}]}]});
    spec.as_object_mut().unwrap().extend(over.as_object().unwrap().clone());
    serde_json::from_value(spec).unwrap()
}

fn steps(steps: &Value) -> Value {
    json!({"phases": [{"name": "work", "steps": steps}]})
}

#[test]
fn each_mistake_is_named_by_its_path_before_anything_begins() {
    let until = |text: &str| {
        steps(
            &json!([{"name": "w", "wait": {"resource": {"apiVersion": "v1", "kind": "Pod", "name": "x"}, "until": text}}]),
        )
    };
    for (over, path, problem) in [
        (until("object.status.phase =="), "spec.phases[0].steps[0].wait.until", ""),
        (until("1 + 1"), "spec.phases[0].steps[0].wait.until", "bool"),
        (until("objekt.status == 'x'"), "spec.phases[0].steps[0].wait.until", "objekt"),
        (
            steps(&json!([{"name": "s", "pod": {"image": "${params.nowhere}"}}])),
            "spec.phases[0].steps[0].pod.image",
            "params.nowhere: no parameter of that name in spec.parameters (known here: none)",
        ),
        (
            json!({"parameters": [{"name": "a", "value": "1"}], "setup": [{"name": "s", "pod": {"image": "${params.b}"}}]}),
            "spec.setup[0].pod.image",
            "(known here: a)",
        ),
        (json!({"cycles": null}), "spec.cycles", "set cycles, duration or both"),
        (json!({"phases": []}), "spec.phases", "needs one at least"),
        (
            steps(&json!([{"name": "s", "pod": {"image": "x"}}, {"name": "s", "pod": {"image": "x"}}])),
            "spec.phases[0].steps",
            "the name s comes twice",
        ),
        (
            steps(
                &json!([{"name": "a", "pod": {"image": "${steps.b.outputs.x}"}}, {"name": "b", "pod": {"image": "x"}}]),
            ),
            "spec.phases[0].steps[0].pod.image",
            "no step of that name has run before",
        ),
        (
            steps(&json!([{"name": "s", "pod": {"image": "x"}, "outputs": [{"name": "o", "value": "1"}]}])),
            "spec.phases[0].steps[0].outputs[0].value",
            "a pod reports its outputs itself",
        ),
        (
            steps(&json!([
                {"name": "b", "pod": {"image": "x"}},
                {"name": "a", "pod": {"image": "x", "args": ["${steps.b.state}", "${steps.c.state}"]}},
            ])),
            "spec.phases[0].steps[1].pod.args[1]",
            "steps.c: no step of that name has run before this one (known here: b)",
        ),
        (
            json!({"phases": [
                {"name": "one", "steps": [{"name": "s", "pod": {"image": "x"}}]},
                {"name": "two", "steps": [{"name": "s", "pod": {"image": "${phases.one.outcome}${phases.two.outcome}"}}]},
            ]}),
            "spec.phases[1].steps[0].pod.image",
            "phases.two: no phase of that name has ended before this one (known here: one)",
        ),
        (steps(&json!([{"name": "s"}])), "spec.phases[0].steps[0]", "exactly one thing"),
        (
            steps(&json!([{"name": "g", "parallel": [{"name": "s", "pod": {"image": "x", "artifacts": {}}}]}])),
            "spec.phases[0].steps[0].parallel[0].pod.artifacts",
            "set spec.results.objectStore",
        ),
        (
            json!({"parameters": [{"name": "a", "value": "${params.b}"}, {"name": "b", "value": "${params.a}"}]}),
            "spec.parameters[0].value",
            "a -> b -> a",
        ),
        (json!({"parameters": [{"name": "a", "value": "${params.c}"}]}), "spec.parameters", "not declared"),
        (
            json!({"phases": [{"name": "setup", "steps": [{"name": "s", "pod": {"image": "x"}}]}]}),
            "spec.phases[0].name",
            "choose another name",
        ),
        (
            json!({"phases": [{"name": "p", "retry": {"limit": 1, "when": "failure"}, "steps": [{"name": "s", "pod": {"image": "x"}}]}]}),
            "",
            "",
        ),
    ] {
        match Plan::parse(&spec(&over)) {
            Ok(_) => assert!(path.is_empty(), "{over} was accepted"),
            Err(error) => {
                assert_eq!(error.path, path, "{error}");
                assert!(error.problem.contains(problem), "{error}");
            }
        }
    }
}

#[test]
fn parameters_refer_to_parameters() {
    let plan = Plan::parse(&spec(&json!({"parameters": [
        {"name": "image", "value": "${params.registry}/soak:1"},
        {"name": "registry", "value": "localhost"},
    ]})))
    .unwrap();
    assert_eq!(plan.parameters["image"], "localhost/soak:1");
}

#[test]
fn the_digest_follows_what_an_attempt_is_bound_to_and_nothing_else() {
    let base = Plan::parse(&spec(&json!({}))).unwrap().digest;
    for free in
        [json!({"suspend": true}), json!({"abort": true}), json!({"rerun": "2"}), json!({"ttlAfterFinished": "1h"})]
    {
        assert_eq!(Plan::parse(&spec(&free)).unwrap().digest, base, "{free}");
    }
    for bound in
        [json!({"cycles": 2}), json!({"cooldown": "1s"}), steps(&json!([{"name": "say", "pod": {"image": "y"}}]))]
    {
        assert_ne!(Plan::parse(&spec(&bound)).unwrap().digest, base, "{bound}");
    }
    let http = |headers: Value| steps(&json!([{"name": "h", "http": {"url": "http://x", "headers": headers}}]));
    let (one, two) = (json!({"name": "a", "value": "1"}), json!({"name": "b", "value": "2"}));
    let digest = |headers: Value| Plan::parse(&spec(&http(headers))).unwrap().digest;
    assert_eq!(digest(json!([one, two])), digest(json!([two, one])), "the server takes this for no change");
}

#[test]
fn a_spec_has_as_many_steps_as_fit_into_the_status() {
    let phase = |index: usize, count: usize| {
        let steps: Vec<Value> =
            (0..count).map(|step| json!({"name": format!("s{step}"), "sleep": {"duration": "1s"}})).collect();
        json!({"name": format!("p{index}"), "steps": steps})
    };
    let injection = json!({"name": "fault", "atPhase": "p0", "template": {}});
    let pair = json!({"name": "pair", "parallel": [
        {"name": "a", "sleep": {"duration": "1s"}}, {"name": "b", "sleep": {"duration": "1s"}},
    ]});
    for (over, count) in [
        (json!({}), 255),
        (json!({"injections": [injection]}), 256),
        (json!({"cleanup": [pair]}), 257),
        (json!({"setup": [pair]}), 257),
        (json!({"setup": [pair], "injections": [injection]}), 258),
    ] {
        let mut over = over;
        let mut phases: Vec<Value> = (0..7).map(|index| phase(index, 32)).collect();
        phases.push(phase(7, 31));
        over["phases"] = json!(phases);
        match Plan::parse(&spec(&over)) {
            Ok(_) => assert!(count <= 256, "{count} steps were accepted"),
            Err(error) => {
                assert_eq!(error.path, "spec.phases");
                assert!(error.problem.starts_with(&format!("{count} steps in all")), "{error}");
            }
        }
    }
}
