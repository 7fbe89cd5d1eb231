//! Fields of an object: changed by a patch that holds only for the state that was looked at, and changed back.

use kube::api::DynamicObject;
use serde_json::{Value, json};

use super::{FaultContext, Refusal, injected, not_injected, not_reverted, object_ref, of};
use crate::{
    api::{
        failureinjection::{FieldChange, JournalEntry, Undo},
        names::reason,
    },
    cluster::{
        error::{ApiFailure, Class},
        kinds::uid,
        object::{PatchKind, Target, WriteMode},
    },
    engine::injection::{
        EntrySeen,
        fields::{
            FieldState, back, forward, is_agreement, noted, state, touched_by_merge, touched_by_operations, unchanged,
        },
    },
};

/// Tries within one call when others write to the object at the same time.
const TRIES: usize = 5;
/// So many tries to undo hold for the version that was looked at only. Those that follow test the fields: whoever writes beside
/// them all the time, a status for instance, can't put the undoing off. Without an answer they lose their effect as
/// [`WriteMode::Brief`] says.
const BY_VERSION: usize = 2;

/// The journal entries of a patch: what the server would make of each object, found out by a dry run.
pub(super) async fn entries(
    ctx: &FaultContext<'_>,
    targets: &[DynamicObject],
    how: PatchKind,
    patch: &Value,
) -> Result<Vec<JournalEntry>, Refusal> {
    let mut entries = Vec::new();
    for object in targets {
        let target = of(ctx, object).await?;
        let after = target.patch(how, None, patch, WriteMode::DryRun).await?;
        if uid(&after) != uid(object) {
            return Err(Refusal::NotYet {
                reason: reason::SUPERSEDED.into(),
                message: format!("{} was replaced meanwhile", target.title()),
            });
        }
        let touched = if how == PatchKind::Json { touched_by_operations(patch) } else { touched_by_merge(patch) };
        let fields = noted(&value(object), &value(&after), &touched);
        let undo = Undo::Fields { subresource: String::new(), fields };
        entries.push(JournalEntry { target: object_ref(&target, object), undo, ..JournalEntry::default() });
    }
    Ok(entries)
}

fn value(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// What is there of the target of an entry.
enum Found {
    /// The recorded object.
    Object(Box<Target>, Value),
    /// It is gone, or another one has its name.
    Gone(String),
}

async fn look(ctx: &FaultContext<'_>, entry: &JournalEntry) -> Result<Found, ApiFailure> {
    let title = entry.target.title();
    let target = match ctx.target(&entry.target).await {
        Ok(target) => target,
        Err(failure) if failure.class == Class::NotFound => {
            return Ok(Found::Gone(format!("{title}: its kind is not served any more")));
        }
        Err(failure) => return Err(failure),
    };
    Ok(match target.get().await? {
        None => Found::Gone(format!("{title} is gone")),
        Some(object) if uid(&object) != entry.target.uid && !crate::switches::without("target-uid") => {
            Found::Gone(format!("{title} is another object by now"))
        }
        Some(object) => Found::Object(Box::new(target), value(&object)),
    })
}

/// A patch that the server takes only while the object is the one that was looked at and `tests` hold.
async fn write(
    target: &Target,
    object: &Value,
    subresource: &str,
    tests: Vec<Value>,
    operations: Vec<Value>,
) -> Result<(), ApiFailure> {
    let mut patch = vec![json!({"op": "test", "path": "/metadata/uid", "value": object["metadata"]["uid"]})];
    patch.extend(tests);
    patch.extend(operations);
    let subresource = (!subresource.is_empty()).then_some(subresource);
    target.patch(PatchKind::Json, subresource, &Value::Array(patch), WriteMode::Brief).await.map(drop)
}

/// A test that nothing was written to the object since it was looked at.
fn of_version(object: &Value) -> Vec<Value> {
    vec![json!({"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]})]
}

/// A refusal of the tests of [`write`]: the server tells it as one of a patch that can't be applied.
fn is_outdated(failure: &ApiFailure) -> bool {
    matches!(failure.class, Class::Conflict | Class::Invalid)
}

pub(super) async fn inject(
    ctx: &FaultContext<'_>,
    entry: &JournalEntry,
    subresource: &str,
    fields: &[FieldChange],
) -> EntrySeen {
    let never = |reason: &str, message: String| EntrySeen::NeverBegan { reason: reason.into(), message };
    let mut refused = None;
    for _ in 0..TRIES {
        let (target, object) = match look(ctx, entry).await {
            Ok(Found::Object(target, object)) => (target, object),
            Ok(Found::Gone(message)) => return never(reason::SUPERSEDED, message),
            Err(failure) => return not_injected(&failure),
        };
        let states: Vec<FieldState> = fields.iter().map(|field| state(field, &object)).collect();
        if fields.iter().zip(&states).any(|(field, state)| !is_agreement(field) && *state == FieldState::After) {
            return injected(String::new());
        }
        if let Some(changed) = states.iter().position(|state| *state == FieldState::Other) {
            let message = format!("{} of {} was changed by somebody else", fields[changed].path, entry.target.title());
            return never(reason::SUPERSEDED, message);
        }
        if !object["metadata"]["deletionTimestamp"].is_null() {
            return never(reason::SUPERSEDED, format!("{} is being deleted", entry.target.title()));
        }
        // Nothing has changed since, so it was the patch itself that the server refused.
        if let Some((version, failure)) = &refused
            && *version == object["metadata"]["resourceVersion"]
        {
            return not_injected(failure);
        }
        if ctx.is_stale() {
            return EntrySeen::Failing { message: "the decision is too old to act on".into() };
        }
        match write(&target, &object, subresource, of_version(&object), forward(fields, &object)).await {
            Ok(()) => return injected(String::new()),
            Err(failure) if is_outdated(&failure) => {
                refused = Some((object["metadata"]["resourceVersion"].clone(), failure));
            }
            Err(failure) => return not_injected(&failure),
        }
    }
    EntrySeen::Failing { message: format!("{} changes all the time", entry.target.title()) }
}

pub(super) async fn revert(
    ctx: &FaultContext<'_>,
    entry: &JournalEntry,
    subresource: &str,
    fields: &[FieldChange],
) -> EntrySeen {
    let mut last = String::from("it changes all the time");
    for attempt in 0..TRIES {
        let (target, object) = match look(ctx, entry).await {
            Ok(Found::Object(target, object)) => (target, object),
            Ok(Found::Gone(message)) => return EntrySeen::Gone { message },
            Err(failure) => return not_reverted(ctx, &entry.target, &failure).await,
        };
        let operations = back(fields, &object);
        if operations.is_empty() {
            if ctx.is_open() {
                return EntrySeen::Failing {
                    message: "a call that would make the fault may still be under way".into(),
                };
            }
            let changed =
                fields.iter().find(|field| !is_agreement(field) && state(field, &object) == FieldState::Other);
            return match changed {
                Some(field) => {
                    EntrySeen::Superseded { message: format!("{} was changed by somebody else", field.path) }
                }
                None => EntrySeen::Reverted { message: String::new() },
            };
        }
        let by_fields = if attempt < BY_VERSION { None } else { unchanged(fields, &operations, &object) };
        let tests = by_fields.unwrap_or_else(|| of_version(&object));
        // Only what the next look shows counts as undone.
        match write(&target, &object, subresource, tests, operations).await {
            Ok(()) if crate::switches::without("read-back") => return EntrySeen::Reverted { message: String::new() },
            Ok(()) => {}
            Err(failure) if is_outdated(&failure) => last = failure.message,
            Err(failure) => return not_reverted(ctx, &entry.target, &failure).await,
        }
    }
    EntrySeen::Failing { message: format!("{}: {last}", entry.target.title()) }
}
