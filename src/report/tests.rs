//! Reports of made-up runs.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    api::status::{Outcome, OutputValue, RunPhase, StepState},
    results::{RecordPart, RecordText, StoredRecord},
};

use super::{
    ChangeVerdict, DriftDirection, Report, RunRecords, files,
    records::culprit,
    report,
    samples::{Shape, run},
    schema, series,
};

fn made(shape: Shape, baseline: Option<Shape>) -> (Report, RunRecords, Vec<(&'static str, String)>) {
    let records = run("tonight", shape);
    let before = baseline.map(|shape| run("last-week", shape));
    let report = report(&records, before.as_ref());
    let files = files(&report, &records, before.as_ref()).unwrap();
    (report, records, files)
}

fn file<'a>(files: &'a [(&'static str, String)], name: &str) -> &'a str {
    &files.iter().find(|(other, _)| *other == name).unwrap().1
}

const BAD: Shape = Shape { cycles: 60, outputs: 4, slower: 1.5, leak: true, fail_every: 7, seed: 2 };

#[test]
fn what_changed_is_said_and_what_did_not_is_not() {
    let (report, _, _) = made(BAD, Some(Shape::default()));
    let baseline = report.baseline.as_ref().unwrap();
    let verdict = |name: &str| baseline.metrics.iter().find(|row| row.name == name).unwrap().verdict;
    assert_eq!(verdict("phases.switch"), ChangeVerdict::Higher);
    assert_eq!(verdict("cycle"), ChangeVerdict::Higher);
    assert!(matches!(verdict("phases.verify"), ChangeVerdict::Same | ChangeVerdict::Unclear));
    assert_eq!(verdict("steps.load.outputs.requestsPerSecond"), ChangeVerdict::Same);
    // What changed most comes first: the switch, and the injection that lasts as long as it.
    let largest: Vec<f64> = baseline.metrics[..2].iter().map(|row| row.relative.unwrap()).collect();
    assert!(largest.iter().all(|relative| (0.4..0.6).contains(relative)), "{:?}", &baseline.metrics[..2]);
    let switch = baseline.metrics.iter().find(|row| row.name == "phases.switch").unwrap();
    assert!((0.4..0.6).contains(&switch.relative.unwrap()), "{switch:?}");
    let drift = |name: &str| report.metrics.iter().find(|metric| metric.name == name).unwrap().drift;
    assert_eq!(drift("steps.load.outputs.memoryMiB").direction, DriftDirection::Rising);
    assert_eq!(drift("phases.verify").direction, DriftDirection::Steady);
}

#[test]
fn runs_too_short_to_be_compared_are_not_called_alike() {
    let short = Shape { cycles: 2, outputs: 1, ..Shape::default() };
    let (report, ..) = made(short, Some(Shape { seed: 3, ..short }));
    assert_eq!(
        super::words::findings(&report),
        ["No metric was shown to differ from last-week: 5 had too few values."]
    );
}

#[test]
fn failures_of_one_kind_are_one() {
    let (report, records, _) = made(BAD, None);
    let kinds: Vec<(&str, usize)> = report.failures.iter().map(|it| (it.reason.as_str(), it.count)).collect();
    assert_eq!(kinds, [("ExitCode", 4), ("Timeout", 4)]);
    let group = &report.failures[1];
    assert_eq!((group.phase.as_str(), group.step.as_str()), ("verify", "check"));
    assert_eq!(group.cycles, [14, 28, 42, 56]);
    assert!(group.log.contains("expected 41") && group.pod.as_deref() == Some("tonight-check-c56"), "{group:?}");
    assert_eq!(group.artifacts, ["artifacts/c000056/verify/check-2/missing<b>.json"]);
    let share = group.share.unwrap();
    assert!(share.low.unwrap() < 4.0 / 60.0 && 4.0 / 60.0 < share.high.unwrap());
    assert_eq!(report.steps.len(), 1);
    assert_eq!((report.steps[0].failed, report.steps[0].ended), (8, 60));
    let cycle = records.cycles.iter().find(|cycle| cycle.outcome == Outcome::Failed).unwrap();
    assert_eq!(culprit(cycle).unwrap().0, "verify");
}

#[test]
fn shares_are_not_told_where_records_are_missing() {
    let mut records = run("tonight", BAD);
    records.cycles.remove(0);
    let report = report(&records, None);
    assert!(report.failures.iter().all(|group| group.share.is_none()));
    assert_eq!((report.cycles.completed, report.stored), (60, 59));
    let files = files(&report, &records, None).unwrap();
    assert!(file(&files, "report.html").contains("59 records that are stored of 60"));
    assert!(file(&files, "report.md").contains("59 records that are stored of 60"));
}

#[test]
fn failures_with_injections_are_told_apart() {
    let shape = Shape { cycles: 60, fail_every: 3, ..Shape::default() };
    let (report, _, files) = made(shape, None);
    let found = report.dependences.iter().find(|it| it.on == "injection").unwrap();
    assert_eq!((found.failed, found.trials, found.failed_else, found.trials_else), (20, 20, 0, 40));
    let html = file(&files, "report.html");
    assert!(html.contains("Failures depend on the injection") && html.contains("pause-primary (pod-kill)"));
}

#[test]
fn failures_of_one_assignment_of_roles_are_told_once_and_by_the_worse_one() {
    let mut records = run("tonight", Shape { cycles: 60, fail_every: 4, ..Shape::default() });
    for cycle in &mut records.cycles {
        let (primary, secondary) = if cycle.cycle % 2 == 0 { ("hub-b", "hub-a") } else { ("hub-a", "hub-b") };
        cycle.environment.roles =
            [("primary", primary), ("secondary", secondary)].map(|(role, hub)| (role.into(), hub.into())).into();
    }
    let report = report(&records, None);
    let found: Vec<_> = report.dependences.iter().filter(|it| it.on == "roles").collect();
    assert_eq!((found.len(), found[0].group.as_str()), (1, "primary hub-b, secondary hub-a"));
    assert_eq!((found[0].failed, found[0].trials, found[0].failed_else, found[0].trials_else), (15, 30, 0, 30));
    let told = "Failures depend on the roles: 15 of 30 with primary hub-b, secondary hub-a, 0 of 30 else.";
    let files = files(&report, &records, None).unwrap();
    assert!(file(&files, "report.html").contains(told) && file(&files, "report.md").contains(told));
    assert!(file(&files, "summary.json").contains("primary hub-b, secondary hub-a"));
}

#[test]
fn the_summary_follows_its_schema() {
    let (report, _, files) = made(BAD, Some(Shape::default()));
    let schema: Value = serde_json::from_str(&schema().1).unwrap();
    let document: Value = serde_json::from_str(file(&files, "summary.json")).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let errors: Vec<String> = validator.iter_errors(&document).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?}");
    let read: Report = serde_json::from_value(document).unwrap();
    assert_eq!(read.cycles, report.cycles);
    assert_eq!(read.failures, report.failures);
}

#[test]
fn test_results_have_unique_names_and_right_counts() {
    let (_, records, files) = made(BAD, None);
    let junit = file(&files, "junit.xml");
    let names = |what: &str| -> Vec<String> {
        let cut = |rest: &str| rest.split('"').next().unwrap().to_owned();
        junit.split(what).skip(1).map(cut).collect()
    };
    let suites = names("<testsuite name=\"");
    assert_eq!(suites.len(), records.passes().count());
    assert_eq!(suites.iter().collect::<BTreeSet<_>>().len(), suites.len());
    for suite in junit.split("<testsuite name").skip(1) {
        let cases: Vec<&str> =
            suite.split("<testcase name=\"").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(cases.iter().collect::<BTreeSet<_>>().len(), cases.len(), "{cases:?}");
    }
    assert!(junit.contains("failures=\"8\"") && junit.contains("lost &amp; found"), "{}", &junit[..300]);

    let ctrf: Value = serde_json::from_str(file(&files, "ctrf.json")).unwrap();
    let summary = &ctrf["results"]["summary"];
    let tests = ctrf["results"]["tests"].as_array().unwrap();
    assert_eq!((summary["failed"].as_u64(), summary["tests"].as_u64()), (Some(8), Some(tests.len() as u64)));
    let names: BTreeSet<&str> = tests.iter().map(|test| test["name"].as_str().unwrap()).collect();
    assert_eq!(names.len(), tests.len());
}

#[test]
fn nothing_from_a_record_becomes_markup() {
    let mut records = run("tonight", BAD);
    let evil = "</title></style></svg><script>alert(1)</script>\"'`|\u{7}";
    records.run.name = evil.into();
    let summary = records.summary.as_mut().unwrap();
    summary.run.name = evil.into();
    summary.verdict.reason = evil.into();
    summary.verdict.message = evil.into();
    summary.environment.parameters.insert(evil.into(), evil.into());
    for cycle in &mut records.cycles {
        for phase in &mut cycle.phases {
            phase.name.push_str(evil);
            for step in &mut phase.steps {
                step.name.push_str(evil);
                step.message.push_str(evil);
                step.pod = Some(evil.into());
                step.outputs = std::mem::take(&mut step.outputs).into_iter().map(|(k, v)| (k + evil, v)).collect();
            }
        }
    }
    let mut before = records.clone();
    before.summary.as_mut().unwrap().environment.kubernetes_version = evil.into();
    let report = report(&records, Some(&before));
    let files = files(&report, &records, Some(&before)).unwrap();
    let html = file(&files, "report.html");
    assert!(!html.contains("<script"), "{:?}", html.find("<script").map(|at| &html[at.saturating_sub(200)..at]));
    assert_eq!(html.matches("</style>").count(), 1);
    assert!(!file(&files, "report.md").contains("<script"));
    assert!(!file(&files, "junit.xml").contains("<script"));
}

#[test]
fn the_page_needs_nothing_from_elsewhere() {
    let (_, _, files) = made(BAD, Some(Shape::default()));
    let html = file(&files, "report.html");
    for forbidden in ["http://", "https://", "<link", "<script", "url(", "@import", "src="] {
        assert!(!html.contains(forbidden), "{forbidden}");
    }
    assert_eq!(html.matches("<svg").count(), html.matches("role=\"img\"").count(), "each drawing has a name");
    assert!(html.contains("Failed") && html.contains("With 95 % confidence, between"));
}

#[test]
fn alerts_monitors_and_the_manifest_are_shown() {
    let (_, records, files) = made(Shape::default(), None);
    let html = file(&files, "report.html");
    for shown in
        ["PodsRestarted", "BackupPaused", "not over", "observability-0", "argocd", "0f3c9a1", "restores.example.com"]
    {
        assert!(html.contains(shown), "{shown}");
    }
    assert!(html.contains("resident-mb: 300 samples"), "the series is drawn");
    assert!(html.contains("rises by "), "its drift is told");
    let mut quiet = records;
    quiet.summary.as_mut().unwrap().alerts.clear();
    let page = super::files(&report(&quiet, None), &quiet, None).unwrap();
    assert!(!file(&page, "report.html").contains("<h2>Alerts</h2>"));
}

#[test]
fn a_legend_names_what_is_there_and_nothing_is_drawn_that_would_show_nothing() {
    let legend = |html: &str, name: &str| html.contains(&format!("</i>{name}</span>"));
    let (_, mut records, files_of_bad) = made(BAD, None);
    let html = file(&files_of_bad, "report.html");
    for name in ["passed", "failed", "setup and cleanup", "injected fault", "alert", "did not succeed"] {
        assert!(legend(html, name), "{name}");
    }
    assert!(!legend(html, "inconclusive") && !html.contains("The same in all cycles"));
    for cycle in &mut records.cycles {
        (cycle.outcome, cycle.failure) = (Outcome::Succeeded, None);
        for phase in &mut cycle.phases {
            phase.outcome = Outcome::Succeeded;
            phase.steps.retain(|step| step.kind.as_deref() != Some("inject"));
            for step in &mut phase.steps {
                (step.state, step.outcome) = (StepState::Succeeded, Some(Outcome::Succeeded));
                if let Some(errors) = step.outputs.get_mut("errors") {
                    *errors = OutputValue::Number(0.0);
                }
            }
        }
    }
    records.summary.as_mut().unwrap().alerts.clear();
    let files = files(&report(&records, None), &records, None).unwrap();
    let html = file(&files, "report.html");
    for name in ["failed", "injected fault", "alert", "did not succeed"] {
        assert!(!legend(html, name), "{name}");
    }
    assert!(html.contains("The same in all cycles, and not drawn: steps.load.outputs.errors 0."));
    assert!(
        html.contains(r#"<th scope="row">steps.<wbr>load.<wbr>outputs.<wbr>errors</th>"#),
        "it has a row in the table"
    );
}

#[test]
fn a_thousand_cycles_make_a_page_that_opens() {
    let shape = Shape { cycles: 1_000, outputs: 8, ..BAD };
    let (report, _, files) = made(shape, None);
    assert_eq!(report.metrics.len(), 13);
    let size = file(&files, "report.html").len();
    assert!(size < 5_000_000, "{size} bytes");
    assert!(file(&files, "report.md").len() < 65_536);
}

#[test]
fn a_run_that_runs_and_one_without_cycles_have_reports() {
    let mut records = run("tonight", Shape::default());
    records.summary = None;
    let early = report(&records, None);
    assert_eq!((early.verdict.phase, early.cycles.passed), (RunPhase::Running, 40));
    assert!(early.success_rate.is_some());
    files(&early, &records, None).unwrap();

    records.cycles.clear();
    records.cleanup = None;
    let empty = report(&records, None);
    assert!(empty.metrics.is_empty() && empty.words.contains("nothing was shown"));
    let files = files(&empty, &records, None).unwrap();
    assert!(!file(&files, "report.html").contains("NaN"));
}

#[test]
fn changed_records_are_left_out_and_named() {
    let records = run("tonight", Shape::default());
    let stored = |attempt: u32, intact: bool, index: usize| {
        let text = RecordText::from(&records.cycles[index]);
        StoredRecord {
            name: format!("record-{index}"),
            attempt,
            part: RecordPart::Cycle(records.cycles[index].cycle),
            outcome: "Succeeded".into(),
            digest: text.digest().into(),
            intact,
            text: text.text().into(),
        }
    };
    let all = [stored(1, true, 0), stored(2, true, 2), stored(2, true, 1), stored(2, false, 3)];
    let newest = RunRecords::of(&all, None).unwrap();
    assert_eq!(newest.cycles.iter().map(|cycle| cycle.cycle).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(newest.damaged, ["record-3"]);
    assert_eq!(RunRecords::of(&all, Some(1)).unwrap().cycles.len(), 1);
    assert_eq!(RunRecords::of(&all, Some(3)), None);
    assert_eq!(RunRecords::of(&[], None), None);
}

/// The status counts with sketches by the same rules (`engine/count.rs`), so names and counts agree.
#[test]
fn series_hold_what_the_status_counts() {
    let records = run("tonight", BAD);
    let found = series(&records.cycles);
    let count = |name: &str| found.iter().find(|series| series.name == name).map_or(0, |series| series.values.len());
    assert_eq!(count("cycle"), 52, "only cycles that succeeded have a duration");
    assert_eq!((count("phases.switch"), count("phases.verify")), (60, 52));
    assert_eq!(count("steps.load.outputs.errors"), 60);
    let names: Vec<&str> = found.iter().map(|series| series.name.as_str()).collect();
    assert_eq!(names[..4], ["cycle", "phases.preflight", "phases.switch", "phases.verify"]);
}
