//! The values that an expression is evaluated with.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    sync::{Arc, OnceLock},
};

use cel::{
    common::{
        types::{CelBool, CelDouble, CelInt, CelList, CelMap, CelMapKey, CelNull, CelString, CelUInt},
        value::{CowVal, Val},
    },
    context::VariableResolver,
};
use serde_json::Value as Json;

use super::{MAX_VALUE_DEPTH, Roots, roots::list};

/// Named values. A clone shares them, and a value is converted for the interpreter at most once, when an expression
/// first uses it, however many clones of the scope are evaluated.
#[derive(Clone, Default)]
pub struct Scope(BTreeMap<String, Variable>);

#[derive(Clone)]
struct Variable {
    json: Arc<Json>,
    /// None: the value is nested too deeply to convert.
    converted: Arc<OnceLock<Option<Box<dyn Val>>>>,
}

impl Scope {
    /// A scope without variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Gives a variable a value, in place of one that it had.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Arc<Json>>) {
        self.0.insert(name.into(), Variable { json: value.into(), converted: Arc::default() });
    }

    /// This scope with one more variable.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Arc<Json>>) -> Self {
        self.set(name, value);
        self
    }

    /// The value of a variable.
    pub fn get(&self, name: &str) -> Option<&Json> {
        self.0.get(name).map(|variable| variable.json.as_ref())
    }

    /// The variables that have a value.
    pub fn roots(&self) -> Roots {
        Roots::new(self.0.keys())
    }

    pub(super) fn names(&self) -> String {
        list(self.0.keys().map(String::as_str))
    }

    /// The value as the interpreter reads it. None: there is no such variable, or it is nested too deeply.
    pub(super) fn value(&self, name: &str) -> Option<&dyn Val> {
        let variable = self.0.get(name)?;
        variable.converted.get_or_init(|| convert(&variable.json, MAX_VALUE_DEPTH)).as_deref()
    }
}

impl fmt::Debug for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(name, variable)| (name, &variable.json))).finish()
    }
}

impl VariableResolver for Scope {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        self.value(variable).map(CowVal::Borrowed)
    }
}

/// Whole numbers become ints (beyond the range of an int: uints), others doubles.
fn convert(value: &Json, depth: usize) -> Option<Box<dyn Val>> {
    Some(match value {
        Json::Null => Box::new(CelNull),
        Json::Bool(value) => Box::new(CelBool::from(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => Box::new(CelInt::from(int)),
            (None, Some(uint)) => Box::new(CelUInt::from(uint)),
            (None, None) => Box::new(CelDouble::from(number.as_f64().unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.clone())),
        Json::Array(items) => {
            let depth = depth.checked_sub(1)?;
            let items = items.iter().map(|item| convert(item, depth)).collect::<Option<Vec<_>>>()?;
            Box::new(CelList::from(items))
        }
        Json::Object(fields) => {
            let depth = depth.checked_sub(1)?;
            let fields = fields
                .iter()
                .map(|(name, field)| Some((CelMapKey::from(name.clone()), convert(field, depth)?)))
                .collect::<Option<HashMap<_, _>>>()?;
            Box::new(CelMap::from(fields))
        }
    })
}
