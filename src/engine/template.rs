//! What a run that refers to a template resolves to.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::api::{
    Duration, SoakRunSpec,
    soaktemplate::{ParameterType, SoakTemplateSpec, TemplateParameter},
};

use super::{
    PlanError,
    expr::{Condition, Roots, Scope},
};

/// Fields that always are the run's own: they may change while it runs, or say who it is.
const OWN: [&str; 8] =
    ["serviceAccountName", "templateRef", "parameters", "suspend", "abort", "rerun", "ttlAfterFinished", "dryRun"];

/// Names of the lists that a spec, as it was written, says to be empty. Reading the spec loses the difference to a list that is
/// not there.
pub fn emptied(written: &Value) -> BTreeSet<String> {
    let fields = written.as_object().into_iter().flatten();
    fields.filter(|(_, value)| value.as_array().is_some_and(Vec::is_empty)).map(|(name, _)| name.clone()).collect()
}

/// The spec of a run: the template's with the fields that the run sets in their place, and the parameters checked. `emptied` are
/// the lists that the run sets to be empty.
///
/// Errors: a parameter that is missing, unknown or of another kind, a field that no run has, or a spec that is none.
pub fn resolve(
    template: &SoakTemplateSpec,
    run: &SoakRunSpec,
    emptied: &BTreeSet<String>,
) -> Result<SoakRunSpec, PlanError> {
    let Value::Object(mut merged) = template.run.clone() else {
        return Err(PlanError::new("the template's spec.run", "an object with fields of a SoakRun's spec is wanted"));
    };
    if let Some(own) = OWN.iter().find(|own| **own != "parameters" && merged.contains_key(**own)) {
        return Err(PlanError::new(format!("the template's spec.run.{own}"), "this is for each run to say: remove it"));
    }
    let (ours, unset) = (fields(run), fields(&SoakRunSpec::default()));
    for (name, value) in ours {
        if OWN.contains(&name.as_str()) || unset.get(&name) != Some(&value) {
            merged.insert(name, value);
        }
    }
    for name in emptied {
        merged.remove(name);
    }
    let mut parameters = parameters(&template.parameters, run)?;
    // What the template works out of its parameters is nobody's to choose.
    let further = template.run.get("parameters").and_then(Value::as_array).cloned().unwrap_or_default();
    parameters.extend(further);
    merged.insert("parameters".into(), Value::Array(parameters));
    let merged = Value::Object(merged);
    let spec: SoakRunSpec = serde_json::from_value(merged.clone())
        .map_err(|error| PlanError::new("the template's spec.run", format!("it makes no spec of a run: {error}")))?;
    let read = serde_json::to_value(&spec).unwrap_or_default();
    match lost(&merged, &read, "spec.run") {
        Some(path) => {
            Err(PlanError::new(format!("the template's {path}"), "no run has such a field: mind the spelling"))
        }
        None => Ok(spec),
    }
}

fn fields(spec: &SoakRunSpec) -> Map<String, Value> {
    match serde_json::to_value(spec) {
        Ok(Value::Object(fields)) => fields,
        _ => Map::new(),
    }
}

fn parameters(declared: &[TemplateParameter], run: &SoakRunSpec) -> Result<Vec<Value>, PlanError> {
    let known: BTreeSet<&str> = declared.iter().map(|it| it.name.as_str()).collect();
    if let Some(unknown) = run.parameters.iter().find(|it| !known.contains(it.name.as_str())) {
        let known = if known.is_empty() { "none".to_owned() } else { Vec::from_iter(known).join(", ") };
        let problem = format!("the template has no parameter {} (it has: {known})", unknown.name);
        return Err(PlanError::new("spec.parameters", problem));
    }
    declared
        .iter()
        .map(|parameter| {
            let given = run.parameters.iter().find(|it| it.name == parameter.name).map(|it| &it.value);
            let Some(value) = given.or(parameter.default.as_ref()) else {
                let problem = format!("parameter {} has no default: give it a value", parameter.name);
                return Err(PlanError::new("spec.parameters", problem));
            };
            check(parameter, value)
                .map_err(|problem| PlanError::new("spec.parameters", format!("{}: {problem}", parameter.name)))?;
            Ok(serde_json::json!({"name": parameter.name, "value": value}))
        })
        .collect()
}

/// Errors: what the value should have been.
fn check(parameter: &TemplateParameter, value: &str) -> Result<(), String> {
    let TemplateParameter { name: _, description: _, type_, default: _, values, minimum, maximum, rule } = parameter;
    let shown: String = value.chars().take(40).collect();
    if !values.is_empty() && !values.iter().any(|it| it == value) {
        return Err(format!("`{shown}` is none of {}", values.join(", ")));
    }
    let size = measure(*type_, value).map_err(|wanted| format!("`{shown}` is not {wanted}"))?;
    for (bound, below) in [(minimum, true), (maximum, false)] {
        let (Some(bound), Some(size)) = (bound, size) else { continue };
        let Ok(Some(limit)) = measure(*type_, bound) else {
            return Err(format!("the template's bound `{bound}` is not of the parameter's type"));
        };
        if (below && size < limit) || (!below && size > limit) {
            return Err(format!("`{shown}` is {} than {bound}", if below { "less" } else { "more" }));
        }
    }
    let Some(rule) = rule else { return Ok(()) };
    let scope = Scope::new().with(
        "value",
        match type_ {
            ParameterType::Integer => value.parse::<i64>().map_or(Value::Null, Value::from),
            ParameterType::Number => size.map_or(Value::Null, Value::from),
            _ => Value::from(value),
        },
    );
    let holds = Condition::parse(rule, &Roots::new(["value"])).and_then(|rule| rule.evaluate(&scope));
    match holds {
        Ok(true) => Ok(()),
        Ok(false) => Err(format!("`{shown}` is refused by the template's rule `{rule}`")),
        Err(error) => Err(format!("the template's rule fails: {error}")),
    }
}

/// A value as a number to be compared, if its type has an order.
///
/// Errors: what the type wants.
fn measure(type_: ParameterType, value: &str) -> Result<Option<f64>, &'static str> {
    match type_ {
        ParameterType::String => Ok(None),
        ParameterType::Boolean if ["true", "false"].contains(&value) => Ok(None),
        ParameterType::Boolean => Err("true or false"),
        #[expect(clippy::cast_precision_loss, reason = "bounds of parameters are far smaller")]
        ParameterType::Integer => value.parse::<i64>().map(|it| Some(it as f64)).map_err(|_| "a whole number"),
        ParameterType::Number => value.parse::<f64>().ok().filter(|it| it.is_finite()).map(Some).ok_or("a number"),
        ParameterType::Duration => value
            .parse::<Duration>()
            .map(|it| Some(it.as_std().as_secs_f64()))
            .map_err(|_| "a duration such as 1h30m, 90s or 250ms"),
    }
}

/// The path of something that is not in what was read, because no field is called so.
fn lost(written: &Value, read: &Value, path: &str) -> Option<String> {
    match (written, read) {
        (Value::Object(written), Value::Object(read)) => written.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match read.get(name) {
                Some(read) => lost(value, read, &path),
                // What is left unset is not written either.
                None => (!is_nothing(value)).then_some(path),
            }
        }),
        (Value::Array(written), Value::Array(read)) => written
            .iter()
            .zip(read)
            .enumerate()
            .find_map(|(index, (written, read))| lost(written, read, &format!("{path}[{index}]"))),
        _ => None,
    }
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn template() -> SoakTemplateSpec {
        serde_json::from_value(json!({
            "parameters": [
                {"name": "image"},
                {"name": "size", "type": "Integer", "default": "3", "minimum": "1", "maximum": "9", "rule": "value % 2 == 1"},
                {"name": "pause", "type": "Duration", "default": "1s", "maximum": "1m"},
                {"name": "mode", "default": "fast", "values": ["fast", "slow"]},
                {"name": "rate", "type": "Number", "default": "0.5", "rule": "value < 1.5"},
                {"name": "loud", "type": "Boolean", "default": "false"},
            ],
            "run": {
                "cycles": 5, "cooldown": "${params.pause}", "parameters": [{"name": "all", "value": "${params.image}-${params.mode}"}],
                "failurePolicy": {"stopOnFailure": true},
                "phases": [{"name": "p", "steps": [{"name": "s", "sleep": {"duration": "1s"}}]}],
            },
        }))
        .unwrap()
    }

    fn run(spec: &Value) -> SoakRunSpec {
        let mut base = json!({"serviceAccountName": "soak", "templateRef": {"name": "t"}, "parameters": [{"name": "image", "value": "x"}]});
        base.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(base).unwrap()
    }

    fn good() -> SoakTemplateSpec {
        let mut template = template();
        template.run["cooldown"] = json!("2s");
        template
    }

    #[test]
    fn a_run_takes_what_it_does_not_say_from_the_template() {
        let spec = resolve(&good(), &run(&json!({"cycles": 2})), &BTreeSet::new()).unwrap();
        assert_eq!((spec.cycles, spec.cooldown, spec.phases.len()), (Some(2), Some(Duration::from_secs(2)), 1));
        assert!(spec.failure_policy.stop_on_failure, "an unset field is no field");
        let values: Vec<(&str, &str)> =
            spec.parameters.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
        assert_eq!(values[..3], [("image", "x"), ("size", "3"), ("pause", "1s")]);
        let plan = super::super::Plan::parse(&spec).unwrap();
        assert_eq!(plan.parameters["all"], "x-fast");
    }

    #[test]
    fn a_list_that_a_run_sets_to_be_empty_takes_the_place_of_the_templates() {
        let mut template = good();
        template.run["snapshot"] = json!([{"apiVersion": "v1", "kind": "Node"}]);
        template.run["monitors"] = json!([{"name": "pods", "podHealth": {}}]);
        template.run["cleanup"] = json!([{"name": "c", "sleep": {"duration": "1s"}}]);
        let written = json!({"monitors": [], "cleanup": [], "failurePolicy": {}});
        let spec = resolve(&template, &run(&written), &emptied(&written)).unwrap();
        assert_eq!((spec.snapshot.len(), spec.monitors.len(), spec.cleanup.len()), (1, 0, 0));
        assert!(
            spec.failure_policy.stop_on_failure,
            "the server fills in objects by itself, so an empty one says nothing"
        );
    }

    #[test]
    fn bounds_belong_to_what_is_accepted_and_an_unset_field_may_be_written() {
        let mut template = good();
        template.run["abort"] = Value::Null;
        template.run.as_object_mut().unwrap().remove("abort");
        template.run["cleanup"] = json!([]);
        template.run["exclusive"] = Value::Null;
        template.run["failurePolicy"] = json!({"stopOnFailure": false});
        template.run["phases"][0]["steps"][0]["background"] = json!(false);
        for size in ["1", "9"] {
            let written = json!({"parameters": [{"name": "image", "value": "x"}, {"name": "size", "value": size}]});
            resolve(&template, &run(&written), &BTreeSet::new()).unwrap();
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let refuse = |template: &SoakTemplateSpec, spec: Value, told: &str| {
            let error = resolve(template, &run(&spec), &emptied(&spec)).unwrap_err().to_string();
            assert!(error.contains(told), "{told}: {error}");
        };
        let with = |name: &str, value: &str| json!({"parameters": [{"name": "image", "value": "x"}, {"name": name, "value": value}]});
        refuse(&good(), json!({"parameters": []}), "parameter image has no default");
        refuse(&good(), with("sise", "3"), "no parameter sise (it has: image, loud, mode, pause, rate, size)");
        refuse(&good(), with("size", "three"), "size: `three` is not a whole number");
        refuse(&good(), with("size", "11"), "size: `11` is more than 9");
        refuse(&good(), with("size", "0"), "size: `0` is less than 1");
        refuse(&good(), with("size", "4"), "refused by the template's rule");
        refuse(&good(), with("pause", "2m"), "pause: `2m` is more than 1m");
        refuse(&good(), with("rate", "2"), "rate: `2` is refused by the template's rule");
        refuse(&good(), with("rate", "fast"), "rate: `fast` is not a number");
        refuse(&good(), with("loud", "yes"), "loud: `yes` is not true or false");
        refuse(&good(), with("mode", "odd"), "`odd` is none of fast, slow");
        refuse(&template(), json!({}), "the template's spec.run");
        let mut misspelt = good();
        misspelt.run["phases"][0]["steps"][0]["slep"] = json!({"duration": "1s"});
        refuse(&misspelt, json!({}), "spec.run.phases[0].steps[0].slep: no run has such a field");
        let mut greedy = good();
        greedy.run["serviceAccountName"] = json!("admin");
        refuse(&greedy, json!({}), "this is for each run to say");
    }
}
