//! What the API server asks at writes of a run's spec only.
//!
//! A schema's own rules are evaluated at each write of a status as well, though a status changes nothing about them, and the
//! server copies an object's whole schema for each field that a rule names. So the rule that looks at all of a spec is here.

use kube::{CustomResourceExt, Resource};
use serde_json::{Value, json};

use super::{SoakRun, names::GROUP};

/// Fields of a spec that may be changed at any time. `rerun` is one of them: a new one lets all others change.
const CHANGEABLE: [&str; 4] = ["abort", "rerun", "suspend", "ttlAfterFinished"];

/// The admission policy for runs and its binding, ready to be applied. Both are called as the CRD is.
///
/// What the engine's digest of a spec covers stays as it is until `rerun` changes. An edit that passes here would end the run.
pub fn admission() -> [Value; 2] {
    let name = SoakRun::crd_name();
    let value = |object: &str, field: &str| format!("{object}.spec[?{field}].orValue(dyn(null))");
    let (new, old) = (value("object", "field"), value("oldObject", "field"));
    // An empty list and false say the same as nothing.
    let empty = |value: &str| format!("[dyn(null), dyn(false), dyn([])].exists(empty, empty == {value})");
    let changed = format!(
        "{fields}.filter(field, {new} != {old} && !({new_empty} && {old_empty}))",
        fields = json!(fixed_fields()),
        new_empty = empty(&new),
        old_empty = empty(&old),
    );
    let rerun = |object: &str| value(object, "'rerun'");
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": name},
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [GROUP],
                "apiVersions": ["*"],
                "resources": [SoakRun::plural(&())],
                "operations": ["UPDATE"],
            }]},
            "variables": [{"name": "changed", "expression": changed}],
            "validations": [{
                "expression": format!("{} != {} || variables.changed.size() == 0", rerun("object"), rerun("oldObject")),
                "messageExpression": concat!(
                    "'spec.' + variables.changed.join(', spec.') + ': ",
                    "a run\\'s spec is fixed but for suspend, abort and ttlAfterFinished: ",
                    "change rerun as well to begin a new attempt with the new spec'",
                ),
                "reason": "Invalid",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": name},
        "spec": {"policyName": name, "validationActions": ["Deny"]},
    });
    [policy, binding]
}

/// All fields of a spec that a run can't change while it runs, as its schema has them.
fn fixed_fields() -> Vec<String> {
    let crd = SoakRun::crd();
    let schema = crd.spec.versions.first().and_then(|version| version.schema.as_ref()?.open_api_v3_schema.as_ref());
    let spec = schema.and_then(|schema| schema.properties.as_ref()?.get("spec")?.properties.as_ref());
    let fields = spec.into_iter().flatten().map(|(field, _)| field.clone());
    fields.filter(|field| !CHANGEABLE.contains(&field.as_str())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_of_a_spec_is_fixed_but_those_that_steer_a_run() {
        let fields = fixed_fields();
        assert!(fields.len() > 20, "{fields:?}");
        for field in ["phases", "cycles", "serviceAccountName", "templateRef"] {
            assert!(fields.iter().any(|fixed| fixed == field), "{field} is not fixed");
        }
        assert!(!fields.iter().any(|field| CHANGEABLE.contains(&field.as_str())));
    }
}
