//! One object in a cluster, as somebody reaches it.

use std::time::Duration;

use http::{Method, Request};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, Preconditions},
};
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{
    error::{ApiFailure, Class, DENIED_PATIENCE},
    kinds::Kind,
};
use crate::api::{names::RUN_FIELD_MANAGER, step::PatchType};

/// When the server gives up a write of [`WriteMode::Brief`].
pub const BRIEF_SECONDS: u32 = 5;

/// The pause before a call that was refused is made again.
const DENIED_PAUSE: Duration = Duration::from_secs(1);

/// An object in the cluster, as the account of its client reaches it.
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; ignored for cluster-scoped kinds.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Acts as the account.
    pub client: Client,
}

impl Target {
    /// The API of its kind and namespace.
    pub fn api(&self) -> Api<DynamicObject> {
        self.kind.api(self.client.clone(), &self.namespace)
    }

    /// Reads it; none when there is none. A refusal is believed after [`DENIED_PATIENCE`].
    pub async fn get(&self) -> Result<Option<DynamicObject>, ApiFailure> {
        patiently(async || Ok(self.api().get_opt(&self.name).await?)).await
    }

    /// `StatefulSet db/etcd`, for messages.
    pub fn title(&self) -> String {
        let kind = &self.kind.resource.kind;
        if self.kind.namespaced {
            format!("{kind} {}/{}", self.namespace, self.name)
        } else {
            format!("{kind} {}", self.name)
        }
    }

    /// Creates it. Unknown fields are refused, so that a misspelt one is not silently dropped.
    pub async fn create(&self, manifest: &Value, mode: WriteMode) -> Result<DynamicObject, ApiFailure> {
        self.send(Method::POST, self.api().resource_url(), "application/json", manifest, "", mode).await
    }

    /// Patches it, or a subresource of it.
    pub async fn patch(
        &self,
        how: PatchKind,
        subresource: Option<&str>,
        patch: &Value,
        mode: WriteMode,
    ) -> Result<DynamicObject, ApiFailure> {
        let api = self.api();
        let mut url = format!("{}/{}", api.resource_url(), self.name);
        if let Some(subresource) = subresource {
            url.push('/');
            url.push_str(subresource);
        }
        let force = if how == (PatchKind::Apply { force: true }) { "&force=true" } else { "" };
        self.send(Method::PATCH, &url, how.content_type(), patch, force, mode).await
    }

    /// Deletes exactly the object with that uid, its dependents in the background. Done as well when it is gone, or when another
    /// object has its name by now. `grace_seconds` replaces the object's own grace period.
    pub async fn delete_exactly(&self, uid: &str, grace_seconds: Option<u32>) -> Result<(), ApiFailure> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None }),
            grace_period_seconds: grace_seconds,
            ..DeleteParams::background()
        };
        let api = self.api();
        match patiently(|| async { api.delete(&self.name, &params).await.map_err(ApiFailure::from) }).await {
            Ok(_) => Ok(()),
            Err(failure) if matches!(failure.class, Class::NotFound | Class::Conflict) => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn send(
        &self,
        method: Method,
        url: &str,
        content_type: &str,
        body: &Value,
        parameters: &str,
        how: WriteMode,
    ) -> Result<DynamicObject, ApiFailure> {
        let body = serde_json::to_vec(body).map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
        let parameters = format!("{parameters}{}", how.parameters());
        let call = || async {
            let request = Request::builder()
                .method(&method)
                .uri(format!("{url}?fieldManager={RUN_FIELD_MANAGER}&fieldValidation=Strict{parameters}"))
                .header(http::header::CONTENT_TYPE, content_type)
                .body(body.clone())
                .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
            Ok(self.client.request(request).await?)
        };
        // Whoever only tries asks again later anyway.
        if how == WriteMode::DryRun { call().await } else { patiently(call).await }
    }
}

/// Makes a call again that was refused for want of a right, until [`DENIED_PATIENCE`] is over. A refused call did nothing.
async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, ApiFailure>
where
    F: Future<Output = Result<T, ApiFailure>>,
{
    let began = Instant::now();
    loop {
        match call().await {
            Err(failure) if failure.class == Class::Forbidden && began.elapsed() < DENIED_PATIENCE => {
                sleep(DENIED_PAUSE).await;
            }
            answer => return answer,
        }
    }
}

/// How a write is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteMode {
    /// As it is.
    Plain,
    /// Tried without being stored.
    DryRun,
    /// The server gives it up after [`BRIEF_SECONDS`]: a write whose answer was lost has no effect after that.
    Brief,
}

impl WriteMode {
    fn parameters(self) -> String {
        match self {
            Self::Plain => String::new(),
            Self::DryRun => "&dryRun=All".into(),
            Self::Brief => format!("&timeout={BRIEF_SECONDS}s"),
        }
    }
}

/// How a patch is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PatchKind {
    /// Server-side apply.
    Apply {
        /// Takes over fields of other managers.
        force: bool,
    },
    /// JSON merge patch (RFC 7386).
    Merge,
    /// JSON patch (RFC 6902).
    Json,
    /// Strategic merge patch.
    Strategic,
}

impl PatchKind {
    const fn content_type(self) -> &'static str {
        match self {
            Self::Apply { .. } => "application/apply-patch+yaml",
            Self::Merge => "application/merge-patch+json",
            Self::Json => "application/json-patch+json",
            Self::Strategic => "application/strategic-merge-patch+json",
        }
    }
}

impl From<PatchType> for PatchKind {
    fn from(type_: PatchType) -> Self {
        match type_ {
            PatchType::Merge => Self::Merge,
            PatchType::Json => Self::Json,
            PatchType::Strategic => Self::Strategic,
        }
    }
}

/// Whether a text that came out of an expression can stand in a URL as one segment, so that it names what it says.
pub fn is_path_segment(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 253
        && !matches!(text, "." | "..")
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_' | ':' | '~'))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_refusal_is_believed_when_it_lasts() {
        for (refusals, expected) in [(3, Ok(())), (u32::MAX, Err(Class::Forbidden))] {
            let calls = AtomicU32::new(0);
            let began = Instant::now();
            let answer = patiently(|| async {
                let refused = calls.fetch_add(1, Ordering::Relaxed) < refusals;
                if refused { Err(ApiFailure::definite(Class::Forbidden, "may not")) } else { Ok(()) }
            })
            .await;
            assert_eq!(answer.map_err(|failure| failure.class), expected);
            assert!(began.elapsed() < DENIED_PATIENCE + 2 * DENIED_PAUSE);
        }
        let calls = AtomicU32::new(0);
        let answer: Result<(), _> = patiently(|| async {
            calls.fetch_add(1, Ordering::Relaxed);
            Err(ApiFailure { class: Class::Transient, message: String::new(), ambiguous: true })
        })
        .await;
        assert!(answer.is_err());
        assert_eq!(calls.into_inner(), 1, "a call that may have been carried out is not made again");
    }

    #[test]
    fn only_one_segment_of_a_url_names_an_object() {
        for good in ["web", "system:node", "a.b-c"] {
            assert!(is_path_segment(good), "{good}");
        }
        for bad in ["", ".", "..", "a/b", "a?b", "a%2fb", "a b", "ä"] {
            assert!(!is_path_segment(bad), "{bad}");
        }
    }
}
