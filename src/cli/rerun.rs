//! One step of a pass alone, with the inputs that it had then: a run of one cycle, as a manifest.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::{Map, Value, json};

use crate::{
    api::{SoakRun, status::Section},
    report::RunRecords,
    results::{CycleRecord, StepRecord},
};

/// Parts of a spec that are about more than one step, or about how often.
const LEFT_OUT: [&str; 17] = [
    "cycles",
    "duration",
    "cooldown",
    "failurePolicy",
    "setup",
    "cleanup",
    "phases",
    "injections",
    "monitors",
    "criteria",
    "baseline",
    "notifications",
    "snapshot",
    "templateRef",
    "suspend",
    "abort",
    "rerun",
];
/// Fields that are expressions as a whole.
const BARE: [&str; 5] = ["until", "failWhen", "successCondition", "failureCondition", "when"];

/// With what is written `$${` and is none.
static EMBEDDED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\$\$\{|\$\{[^}]*\}").ok());
static LEFT: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r"\b(steps|phases)\s*[.\[]").ok());

/// The manifest of a run that does nothing but that step.
///
/// What it took from earlier steps, the cycle's number, the parameters and the roles are those of the record.
///
/// Errors: there is no such step, or it needs what the record does not tell.
pub fn manifest(run: &SoakRun, records: &RunRecords, record: &CycleRecord, step: &str) -> Result<Value, String> {
    let manifest = records.summary.as_ref().and_then(|summary| summary.manifest.as_ref()?.spec.clone());
    let spec = manifest.unwrap_or_else(|| json!(run.spec));
    let no_step = || format!("there is no step {step}: name it as PHASE/STEP, or PHASE/GROUP/MEMBER");
    let (phase, path) = step.split_once('/').ok_or_else(no_step)?;
    let (steps, timeout) = match record.section {
        Section::Setup => (&spec["setup"], Value::Null),
        Section::Cleanup => (&spec["cleanup"], Value::Null),
        Section::Cycle => {
            let phase = named(&spec["phases"], phase).ok_or_else(no_step)?;
            (&phase["steps"], phase["timeout"].clone())
        }
    };
    let found = match path.split_once('/') {
        None => named(steps, path),
        Some((group, member)) => named(steps, group).and_then(|group| named(&group["parallel"], member)),
    };
    let mut wanted = found.cloned().ok_or_else(no_step)?;
    if let Some(fields) = wanted.as_object_mut() {
        fields.retain(|field, _| field != "retry" && field != "background");
    }
    Inputs::of(record, step).put_in(&mut wanted, false)?;
    let mut alone = json!({"name": phase, "steps": [wanted]});
    if !timeout.is_null() {
        alone["timeout"] = timeout;
    }
    let mut fields: Map<String, Value> = spec.as_object().cloned().unwrap_or_default();
    fields.retain(|field, _| !LEFT_OUT.contains(&field.as_str()));
    fields.insert("cycles".into(), json!(1));
    fields.insert("phases".into(), json!([alone]));
    let parameters: Vec<Value> =
        record.environment.parameters.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    if !parameters.is_empty() {
        fields.insert("parameters".into(), json!(parameters));
    }
    if !record.environment.roles.is_empty() {
        fields.insert("roles".into(), json!(record.environment.roles));
    }
    let name = path.rsplit('/').next().unwrap_or(path);
    let of = &record.run;
    Ok(json!({
        "apiVersion": "soak.dev/v1alpha1",
        "kind": "SoakRun",
        "metadata": {"generateName": format!("{}-{name}-", of.name.get(..40).unwrap_or(&of.name)), "namespace": of.namespace},
        "spec": fields,
    }))
}

fn named<'a>(list: &'a Value, name: &str) -> Option<&'a Value> {
    list.as_array()?.iter().find(|item| item["name"] == name)
}

/// What is put where an expression asks for it.
struct Inputs(Vec<(Regex, String)>);

impl Inputs {
    /// What a record tells of the steps before one.
    fn of(record: &CycleRecord, step: &str) -> Self {
        let all = record.phases.iter().flat_map(|phase| phase.steps.iter().map(move |it| (&phase.name, it)));
        let earlier = all.take_while(|(phase, it)| format!("{phase}/{}", it.name) != step);
        let mut inputs: Vec<(Regex, String)> = earlier.flat_map(|(_, it)| outputs(it)).collect();
        inputs.extend(Regex::new(r"\bcycle\.number\b").ok().map(|number| (number, record.cycle.to_string())));
        Self(inputs)
    }

    fn put_in(&self, value: &mut Value, bare: bool) -> Result<(), String> {
        match value {
            Value::Object(fields) => {
                for (name, field) in fields {
                    let outputs = name == "outputs";
                    self.put_in(field, outputs || (BARE.contains(&name.as_str()) || (bare && name == "value")))?;
                }
                Ok(())
            }
            Value::Array(items) => items.iter_mut().try_for_each(|item| self.put_in(item, bare)),
            Value::String(text) if bare && !text.contains("${") => {
                *text = self.expression(text)?;
                Ok(())
            }
            Value::String(text) => {
                let mut problem = None;
                if let Some(embedded) = &*EMBEDDED {
                    let replaced = embedded.replace_all(text, |found: &Captures<'_>| {
                        if &found[0] == "$${" {
                            return found[0].to_owned();
                        }
                        self.expression(&found[0]).unwrap_or_else(|error| {
                            problem = Some(error);
                            String::new()
                        })
                    });
                    *text = replaced.into_owned();
                }
                problem.map_or(Ok(()), Err)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        }
    }

    fn expression(&self, text: &str) -> Result<String, String> {
        let mut text = text.to_owned();
        for (pattern, literal) in &self.0 {
            text = pattern.replace_all(&text, regex::NoExpand(literal)).into_owned();
        }
        match &*LEFT {
            Some(left) if left.is_match(&text) => {
                Err(format!("the step needs what its record does not tell: {text}: rerun the whole run instead"))
            }
            _ => Ok(text),
        }
    }
}

/// The outputs of a step, each with the ways to write it.
fn outputs(step: &StepRecord) -> impl Iterator<Item = (Regex, String)> {
    let key = |name: &str| {
        let name = regex::escape(name);
        format!(r#"(?:\.{name}\b|\.`{name}`|\["{name}"\]|\['{name}'\])"#)
    };
    // Members of groups are known by their own names.
    let of = key(step.name.rsplit('/').next().unwrap_or(&step.name));
    let pairs =
        step.outputs.iter().map(move |(name, value)| (format!(r"\bsteps{of}\.outputs{}", key(name)), json!(value)));
    let made: Vec<_> =
        pairs.filter_map(|(pattern, value)| Some((Regex::new(&pattern).ok()?, value.to_string()))).collect();
    made.into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::RunRef;

    #[expect(clippy::needless_pass_by_value, reason = "it is always a literal")]
    fn step(name: &str, state: &str, outputs: Value) -> Value {
        json!({"name": name, "state": state, "attempts": 1, "outputs": outputs})
    }

    fn record() -> CycleRecord {
        let steps = [
            step("load-test", "Succeeded", json!({"rows": 41, "id": "a\"b"})),
            step("checks/rpo", "Failed", json!({})),
        ];
        serde_json::from_value(json!({
            "schema": "soak.dev/cycle-record/v1", "section": "Cycle", "cycle": 7, "outcome": "Failed", "truncated": false,
            "run": {"name": "nightly", "namespace": "team", "uid": "u", "attempt": 1}, "startedAt": "2026-01-01T00:00:00Z",
            "environment": {"kubernetesVersion": "", "operatorVersion": "", "specDigest": "", "specGeneration": 1,
                "parameters": {"image": "x:1"}, "roles": {"primary": "hub-b", "secondary": "hub-a"}},
            "phases": [{"name": "work", "attempts": 1, "startedAt": "2026-01-01T00:00:00Z", "outcome": "Failed", "steps": steps}],
        }))
        .unwrap()
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is always a literal")]
    fn alone(member: Value) -> Result<Value, String> {
        let run: SoakRun = serde_json::from_value(json!({
            "apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": "nightly"},
            "spec": {
                "serviceAccountName": "soak", "cycles": 20, "cooldown": "1m", "parameters": [{"name": "image", "value": "x:0"}],
                "phases": [{"name": "work", "timeout": "5m", "steps": [
                    {"name": "load-test", "sleep": {"duration": "1s"}}, {"name": "checks", "parallel": [member]},
                ]}],
            },
        }))
        .unwrap();
        let records = RunRecords {
            run: RunRef::default(),
            setup: None,
            cycles: Vec::new(),
            cleanup: None,
            summary: None,
            damaged: Vec::new(),
        };
        manifest(&run, &records, &record(), "work/checks/rpo")
    }

    #[test]
    fn a_step_alone_has_the_inputs_of_its_cycle_and_nothing_else() {
        let rpo = json!({"name": "rpo", "retry": {"limit": 3}, "wait": {
            "resource": {"apiVersion": "v1", "kind": "ConfigMap", "name": "x-${cycle.number}-${steps['load-test'].outputs.id}"},
            "until": "object.data.rows == steps[\"load-test\"].outputs.rows && steps.`load-test`.outputs.rows > 1",
        }});
        let made = alone(rpo).unwrap();
        let spec = &made["spec"];
        let _: crate::api::SoakRunSpec = serde_json::from_value(spec.clone()).unwrap();
        let step = &spec["phases"][0]["steps"][0];
        assert_eq!(step["wait"]["until"], "object.data.rows == 41 && 41 > 1", "{made:#}");
        assert_eq!(step["wait"]["resource"]["name"], "x-${7}-${\"a\\\"b\"}");
        assert_eq!((&spec["cycles"], &spec["cooldown"], &step["retry"]), (&json!(1), &Value::Null, &Value::Null));
        assert_eq!(spec["roles"], json!({"primary": "hub-b", "secondary": "hub-a"}));
        assert_eq!(spec["parameters"][0]["value"], "x:1");
        assert_eq!(made["metadata"], json!({"generateName": "nightly-rpo-", "namespace": "team"}));
    }

    #[test]
    fn what_a_record_does_not_tell_is_not_made_up() {
        let error = alone(json!({"name": "rpo", "pod": {"image": "x:${phases.before.millis}"}})).unwrap_err();
        assert!(error.contains("phases.before.millis") && error.contains("rerun the whole run"), "{error}");
        let error = alone(json!({"name": "other", "sleep": {"duration": "1s"}})).unwrap_err();
        assert!(error.contains("PHASE/STEP"), "{error}");
    }
}
