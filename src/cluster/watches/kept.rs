//! An object of a shared watch as it is kept. Most are looked at seldom: by the run that waits for it, when it changes.

use std::sync::Arc;

use kube::api::{DynamicObject, TypeMeta};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object without managed fields.
pub(super) enum Kept {
    /// As text: a tree of it is several times as large.
    Text {
        /// The object in JSON.
        text: Box<str>,
        /// Its resourceVersion.
        version: Option<Box<str>>,
    },
    /// For those who look at the whole list at each change.
    Tree(Arc<DynamicObject>),
}

impl Kept {
    /// Without what nobody asks for, and with its own kind: items of a list come without one.
    pub(super) fn new(mut object: DynamicObject, types: &TypeMeta, as_tree: bool) -> Self {
        object.metadata.managed_fields = None;
        if let Some(annotations) = &mut object.metadata.annotations {
            annotations.remove(LAST_APPLIED);
        }
        object.types.get_or_insert_with(|| types.clone());
        if as_tree {
            return Self::Tree(Arc::new(object));
        }
        match serde_json::to_string(&object) {
            Ok(text) => Self::Text { text: text.into(), version: object.metadata.resource_version.map(Into::into) },
            Err(_) => Self::Tree(Arc::new(object)),
        }
    }

    /// The object.
    pub(super) fn get(&self) -> Arc<DynamicObject> {
        match self {
            Self::Text { text, .. } => {
                Arc::new(serde_json::from_str(text).expect("the text was written from such an object"))
            }
            Self::Tree(object) => object.clone(),
        }
    }

    /// Its resourceVersion.
    pub(super) fn version(&self) -> Option<&str> {
        match self {
            Self::Text { version, .. } => version.as_deref(),
            Self::Tree(object) => object.metadata.resource_version.as_deref(),
        }
    }

    /// Keeps it as a tree from now on.
    pub(super) fn unfold(&mut self) {
        if matches!(self, Self::Text { .. }) {
            *self = Self::Tree(self.get());
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_object_is_the_same_in_both_forms_but_for_what_nobody_asks_for() {
        let told: DynamicObject = serde_json::from_value(json!({
            "metadata": {
                "name": "a", "resourceVersion": "7", "managedFields": [{"manager": "m"}],
                "annotations": {LAST_APPLIED: "{}", "mine": "stays"},
            },
            "status": {"ratio": 0.1, "large": 18_446_744_073_709_551_615_u64, "none": null},
        }))
        .unwrap();
        let types = TypeMeta { api_version: "v1".into(), kind: "Thing".into() };
        let mut kept = Kept::new(told.clone(), &types, false);
        assert!(matches!(kept, Kept::Text { .. }));
        let (text, tree) = (kept.get(), Kept::new(told, &types, true).get());
        assert_eq!(*text, *tree);
        assert_eq!(tree.types, Some(types));
        assert_eq!(tree.metadata.annotations.as_ref().unwrap().keys().collect::<Vec<_>>(), ["mine"]);
        assert!(tree.metadata.managed_fields.is_none());
        kept.unfold();
        assert!(matches!(kept, Kept::Tree(_)));
        assert_eq!((kept.version(), &*kept.get()), (Some("7"), &*tree));
    }
}
