//! Kinds that the server serves, remembered so that no discovery happens in steady state.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use kube::{
    Api, Client, Resource,
    api::{ApiResource, DynamicObject, GroupVersionKind},
    discovery::{Scope, pinned_kind},
};
use lru::LruCache;

use super::error::{ApiFailure, Class};

/// A kind is looked up again after this: a CRD may have been replaced by one of another scope.
const KNOWN_FOR: Duration = Duration::from_mins(10);
/// A kind that is missing is looked up again after this: its CRD may just be on the way.
const MISSING_FOR: Duration = Duration::from_secs(5);
/// Kinds that are remembered.
const MAX_KINDS: NonZeroUsize = NonZeroUsize::new(512).expect("not zero");

/// A kind that the server serves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Kind {
    /// Group, version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether its objects can be watched.
    pub watchable: bool,
    /// Subresources such as `status` and `scale`.
    pub subresources: Vec<String>,
}

impl Kind {
    /// The API of the kind's objects in `namespace`, which is ignored for cluster-scoped kinds.
    pub fn api(&self, client: Client, namespace: &str) -> Api<DynamicObject> {
        if self.namespaced {
            Api::namespaced_with(client, namespace, &self.resource)
        } else {
            Api::all_with(client, &self.resource)
        }
    }

    /// The namespace that an object of this kind is in: none for cluster-scoped kinds.
    pub fn place<'a>(&self, namespace: &'a str) -> Option<&'a str> {
        self.namespaced.then_some(namespace)
    }

    /// `deployments.apps`, as `kubectl` and RBAC messages write it.
    pub fn plural_and_group(&self) -> String {
        let ApiResource { plural, group, .. } = &self.resource;
        if group.is_empty() { plural.clone() } else { format!("{plural}.{group}") }
    }
}

/// Splits `apps/v1` and a kind.
pub fn group_version_kind(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::gvk(group, version, kind)
}

struct Entry {
    answer: Result<Kind, ApiFailure>,
    until: Instant,
}

/// The cache of kinds.
pub struct Kinds {
    client: Client,
    entries: Mutex<LruCache<GroupVersionKind, Entry>>,
}

impl Kinds {
    /// Kinds of the cluster that `client` talks to. Discovery is read as the operator: it is open to every account.
    pub fn new(client: Client) -> Self {
        Self { client, entries: Mutex::new(LruCache::new(MAX_KINDS)) }
    }

    /// What is remembered of a kind, without asking the server.
    pub fn known(&self, gvk: &GroupVersionKind) -> Option<Kind> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(gvk).and_then(|entry| entry.answer.as_ref().ok().cloned())
    }

    /// Looks a kind up, by the server only if it is not remembered.
    ///
    /// Errors: [`Class::NotFound`] when the server does not serve it (remembered for some seconds), or the call's failure.
    pub async fn get(&self, gvk: &GroupVersionKind) -> Result<Kind, ApiFailure> {
        if let Some(answer) = self.fresh(gvk) {
            return answer;
        }
        let answer = self.ask(gvk).await;
        // A server that stumbles does not make a known kind unknown.
        if answer.as_ref().is_err_and(|failure| failure.class == Class::Transient)
            && let Some(kind) = self.known(gvk)
        {
            return Ok(kind);
        }
        let keep = if answer.is_ok() { KNOWN_FOR } else { MISSING_FOR };
        let entry = Entry { answer: answer.clone(), until: Instant::now() + keep };
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).put(gvk.clone(), entry);
        answer
    }

    /// Forgets a kind, because the server answered that there is no such resource.
    pub fn forget(&self, gvk: &GroupVersionKind) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).pop(gvk);
    }

    fn fresh(&self, gvk: &GroupVersionKind) -> Option<Result<Kind, ApiFailure>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.get(gvk).filter(|entry| entry.until > Instant::now()).map(|entry| entry.answer.clone())
    }

    async fn ask(&self, gvk: &GroupVersionKind) -> Result<Kind, ApiFailure> {
        if gvk.version.is_empty() || gvk.kind.is_empty() || gvk.version.contains('/') {
            return Err(ApiFailure::definite(
                Class::Invalid,
                format!("apiVersion `{}` with kind `{}` names no kind", gvk.api_version(), gvk.kind),
            ));
        }
        match pinned_kind(&self.client, gvk).await {
            Ok((resource, capabilities)) => Ok(Kind {
                resource,
                namespaced: capabilities.scope == Scope::Namespaced,
                watchable: capabilities.supports_operation("watch"),
                subresources: capabilities.subresources.into_iter().map(|(resource, _)| resource.plural).collect(),
            }),
            Err(error) => {
                let failure = ApiFailure::from(error);
                Err(if failure.is_not_found() {
                    ApiFailure::definite(
                        Class::NotFound,
                        format!(
                            "the server has no kind {} in {}: install its CRD, or mind the spelling",
                            gvk.kind,
                            gvk.api_version()
                        ),
                    )
                } else {
                    failure
                })
            }
        }
    }
}

/// The uid of an object; the server sets it on each.
pub fn uid<K: Resource>(object: &K) -> &str {
    object.meta().uid.as_deref().unwrap_or_default()
}
