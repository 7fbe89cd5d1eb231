//! Names that expressions may refer to, known in the order in which the run reaches them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::api::soakrun::Parameter;

use super::{
    super::{
        Rules,
        expr::{Condition, Expression, Reference, Roots, Scope, Template},
    },
    PlanError, TargetsPlan, base_roots,
};

/// The parameters, and the steps and phases that have come so far.
pub(super) struct Names<'a> {
    parameters: &'a BTreeMap<String, String>,
    targets: &'a TargetsPlan,
    pub(super) rules: &'a Rules,
    steps: BTreeSet<String>,
    phases: BTreeSet<String>,
}

impl<'a> Names<'a> {
    pub(super) fn new(parameters: &'a BTreeMap<String, String>, targets: &'a TargetsPlan, rules: &'a Rules) -> Self {
        Self { parameters, targets, rules, steps: BTreeSet::new(), phases: BTreeSet::new() }
    }

    /// From here on `steps.NAME` may be used; a member of a group as `steps["GROUP/MEMBER"]`.
    pub(super) fn end_step(&mut self, path: &str) {
        self.steps.insert(path.to_owned());
    }

    /// From here on `phases.NAME` may be used.
    pub(super) fn end_phase(&mut self, name: &str) {
        self.phases.insert(name.to_owned());
    }

    pub(super) fn condition(&self, source: &str, roots: &Roots, path: &str) -> Result<Condition, PlanError> {
        let condition = Condition::parse(source, roots).map_err(|error| PlanError::expression(path, &error))?;
        self.check(condition.references(), path)?;
        Ok(condition)
    }

    pub(super) fn expression(&self, source: &str, roots: &Roots, path: &str) -> Result<Expression, PlanError> {
        let expression = Expression::parse(source, roots).map_err(|error| PlanError::expression(path, &error))?;
        self.check(expression.references(), path)?;
        Ok(expression)
    }

    /// Checks what the templates in a JSON tree refer to. The templates themselves were checked before.
    pub(super) fn check_json_references(&self, value: &Value, path: &str) -> Result<(), PlanError> {
        match value {
            Value::String(text) if text.contains("${") => {
                let template =
                    Template::parse(text, &roots(&[])).map_err(|error| PlanError::expression(path, &error))?;
                self.check(template.references(), path)
            }
            Value::Array(items) => items
                .iter()
                .enumerate()
                .try_for_each(|(index, item)| self.check_json_references(item, &format!("{path}[{index}]"))),
            Value::Object(fields) => {
                fields.iter().try_for_each(|(name, field)| self.check_json_references(field, &format!("{path}.{name}")))
            }
            _ => Ok(()),
        }
    }

    fn is_target(&self, name: &str) -> bool {
        self.targets.targets.iter().any(|target| target.name == name)
    }

    fn check<'r>(&self, references: impl Iterator<Item = Reference<'r>>, path: &str) -> Result<(), PlanError> {
        for Reference { root, field, optional } in references {
            // What is asked for by has() or `.?` may be missing.
            let Some(field) = field.filter(|_| !optional) else { continue };
            let (known, what) = match root {
                "params" => (self.parameters.contains_key(field), "no parameter of that name in spec.parameters"),
                "roles" => (self.targets.roles.contains_key(field), "no role of that name in spec.roles"),
                "targets" => (self.is_target(field), "no target of that name in spec.targets"),
                "steps" => (self.steps.contains(field), "no step of that name has run before this one"),
                "phases" => (self.phases.contains(field), "no phase of that name has ended before this one"),
                _ => continue,
            };
            if !known {
                let known: Vec<&str> = match root {
                    "params" => self.parameters.keys().map(String::as_str).collect(),
                    "roles" => self.targets.roles.keys().map(String::as_str).collect(),
                    "targets" => self.targets.targets.iter().map(|target| target.name.as_str()).collect(),
                    "steps" => self.steps.iter().map(String::as_str).collect(),
                    _ => self.phases.iter().map(String::as_str).collect(),
                };
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                return Err(PlanError::new(path, format!("{root}.{field}: {what} (known here: {known})")));
            }
        }
        Ok(())
    }
}

/// The variables of an expression that sees `extra` beside the common ones.
pub(super) fn roots(extra: &[&str]) -> Roots {
    extra.iter().fold(base_roots(), Roots::with)
}

/// Resolves parameters that refer to parameters.
///
/// Errors: a cycle of references (all of its members named), an unknown name, an expression that fails.
pub(super) fn resolve_parameters(parameters: &[Parameter]) -> Result<BTreeMap<String, String>, PlanError> {
    unique("spec.parameters", parameters.iter().map(|parameter| parameter.name.as_str()))?;
    let declared: BTreeMap<&str, (usize, &str)> =
        parameters.iter().enumerate().map(|(index, it)| (it.name.as_str(), (index, it.value.as_str()))).collect();
    let mut resolved = BTreeMap::new();
    for parameter in parameters {
        resolve(&parameter.name, &declared, &mut resolved, &mut Vec::new())?;
    }
    Ok(resolved)
}

fn resolve(
    name: &str,
    declared: &BTreeMap<&str, (usize, &str)>,
    resolved: &mut BTreeMap<String, String>,
    trail: &mut Vec<String>,
) -> Result<(), PlanError> {
    if resolved.contains_key(name) {
        return Ok(());
    }
    let Some((index, text)) = declared.get(name) else {
        let from = trail.last().map_or_else(String::new, |last| format!("parameter {last} refers to "));
        return Err(PlanError::new("spec.parameters", format!("{from}params.{name}, which is not declared")));
    };
    let path = format!("spec.parameters[{index}].value");
    if let Some(start) = trail.iter().position(|seen| seen == name) {
        let mut circle = trail[start..].to_vec();
        circle.push(name.to_owned());
        return Err(PlanError::new(
            path,
            format!("parameters refer to each other in a circle: {}", circle.join(" -> ")),
        ));
    }
    let value = if text.contains("${") {
        let template =
            Template::parse(text, &Roots::new(["params"])).map_err(|error| PlanError::expression(&path, &error))?;
        let needed: BTreeSet<String> = template.references().filter_map(|it| it.field.map(str::to_owned)).collect();
        trail.push(name.to_owned());
        for needed in &needed {
            resolve(needed, declared, resolved, trail)?;
        }
        trail.pop();
        let mut scope = Scope::new();
        scope.set("params", serde_json::to_value(&*resolved).unwrap_or_default());
        template.render(&scope).map_err(|error| PlanError::expression(&path, &error))?
    } else {
        (*text).to_owned()
    };
    resolved.insert(name.to_owned(), value);
    Ok(())
}

/// Errors when a name comes twice. The schema refuses that too; a plan does not rely on it.
pub(super) fn unique<'n>(path: &str, names: impl Iterator<Item = &'n str>) -> Result<(), PlanError> {
    let mut seen = BTreeSet::new();
    for name in names {
        if !seen.insert(name) {
            return Err(PlanError::new(path, format!("the name {name} comes twice")));
        }
    }
    Ok(())
}
