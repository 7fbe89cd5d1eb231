//! The language as a whole, as tables with a sentence for each case.

mod bounds;
mod budget;
mod evaluate;
mod guide;
mod parse;
mod properties;
mod templates;

use serde_json::{Value as Json, json};

use super::{Condition, ExprError, Expression, Quoted, Roots, Scope};

/// The variables of a run, with values.
fn scope() -> Scope {
    Scope::new()
        .with("params", json!({ "image": "registry.example/soak:1", "count": 3, "with-dash": "d" }))
        .with("cycle", json!({ "number": 7, "startedAt": "2026-11-23T10:00:00Z" }))
        .with(
            "steps",
            json!({ "load": { "outputs": { "p95": 87.5, "requests": 1200 } }, "backups-enabled": { "outputs": {} } }),
        )
        .with("phases", json!({ "activation": { "p95": "80s" } }))
        .with(
            "object",
            json!({
                "metadata": { "name": "schedule", "labels": { "app": "backup" } },
                "spec": { "replicas": 3, "memory": "512Mi", "nothing": null, "big": 18_446_744_073_709_551_615_u64 },
                "status": { "phase": "Enabled", "ratio": 0.5, "conditions": [
                    { "type": "Ready", "status": "True" },
                    { "type": "Stalled", "status": "False" },
                ] },
            }),
        )
}

fn evaluate(source: &str) -> Result<Json, ExprError> {
    let scope = scope();
    Expression::parse(source, &scope.roots())?.evaluate(&scope)
}

fn holds(source: &str) -> Result<bool, ExprError> {
    let scope = scope();
    Condition::parse(source, &scope.roots())?.evaluate(&scope)
}

fn refusal(source: &str) -> String {
    match Condition::parse(source, &scope().roots()) {
        Ok(_) => "it was parsed".to_owned(),
        Err(error) => error.to_string(),
    }
}

fn roots() -> Roots {
    scope().roots()
}
