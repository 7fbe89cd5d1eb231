//! A run drives real pods to a verdict and leaves its records.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::json;
use soak_operator::api::status::RunPhase;
use support::{Namespace, Operator, script};

#[tokio::test]
async fn a_run_of_two_cycles_hands_outputs_on_and_stores_every_record() {
    let namespace = Namespace::create("soak").await;
    let _operator = Operator::start(&namespace);
    namespace
        .run("two", json!({
            "cycles": 2,
            "parameters": [{"name": "word", "value": "hello"}],
            "setup": [{"name": "prepare", "sleep": {"duration": "10ms"}}],
            "phases": [
                {"name": "work", "steps": [
                    {"name": "load", "background": true, "pod": script("trap 'echo {\\\"seen\\\": 3} > /dev/termination-log; exit 0' TERM; while true; do sleep 0.1; done")},
                    {"name": "say", "pod": script("echo ${params.word} ${cycle.number}; echo '{\"answer\": 42}' > /dev/termination-log")},
                ]},
                {"name": "check", "steps": [
                    {"name": "both", "parallel": [
                        {"name": "pause", "sleep": {"duration": "10ms"}},
                        {"name": "compare", "pod": script("test ${steps.say.outputs.answer} = 42")},
                    ]},
                ]},
            ],
            "cleanup": [{"name": "tidy", "sleep": {"duration": "10ms"}}],
        }))
        .await;
    let run = namespace.ended("two").await;
    let status = run.status.as_ref().unwrap();
    assert_eq!((status.phase, status.reason.as_str()), (RunPhase::Succeeded, "Passed"), "{status:#?}");
    assert_eq!((status.cycles.completed, status.cycles.passed), (2, 2));

    let cycles = namespace.records(&run, "cycle").await;
    assert_eq!(cycles.len(), 2);
    let steps = &cycles[1]["phases"][0]["steps"];
    assert_eq!(steps[0]["outputs"]["seen"], 3, "a background step is stopped and still reports: {steps:#}");
    assert_eq!(steps[1]["log"]["text"], "hello 2\n");
    assert_eq!(steps[1]["exitCode"], 0);
    for kind in ["setup", "cleanup", "summary"] {
        assert_eq!(namespace.records(&run, kind).await.len(), 1, "{kind}");
    }
    let summary = &namespace.records(&run, "summary").await[0];
    let names: Vec<&str> =
        summary["metrics"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
    assert!(names.contains(&"phases.work") && names.contains(&"steps.say.outputs.answer"), "{names:?}");
    namespace.delete().await;
}
