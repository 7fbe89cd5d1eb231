//! What an error of the API server means: the one place that reads its words.

use std::time::Duration;

use kube::core::Status;

/// A refusal for want of a right has to last for so long: kube-apiserver refuses everybody for a moment when it starts, until it has read the roles.
pub const DENIED_PATIENCE: Duration = Duration::from_secs(5);

/// The kind of a failed call, as far as somebody has to act differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// The server, the network or a webhook's endpoint had a bad moment: the same call may work later.
    Transient,
    /// Somebody else wrote in between: look again, then decide again.
    Conflict,
    /// An object of that name is there already.
    AlreadyExists,
    /// The object, its namespace or its kind is not there.
    NotFound,
    /// The account lacks a right.
    Forbidden,
    /// The operator may not act as the account.
    ImpersonationDenied,
    /// The service account that a pod needs is not there (yet).
    AccountMissing,
    /// A quota is used up; it may become free.
    QuotaExceeded,
    /// The namespace is being deleted: nothing can be created in it any more.
    NamespaceTerminating,
    /// Pod Security admission refused; the message names the level.
    PodSecurity,
    /// A webhook or an admission policy refused.
    AdmissionDenied,
    /// A webhook that has to be asked did not answer.
    WebhookUnavailable,
    /// The server does not accept the object as it is written.
    Invalid,
    /// Anything else.
    Other,
}

impl Class {
    /// The stable word for conditions, failures and metrics.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Transient => "ServerUnavailable",
            Self::Conflict => "Conflict",
            Self::AlreadyExists => "AlreadyExists",
            Self::NotFound => "NotFound",
            Self::Forbidden => "PermissionDenied",
            Self::ImpersonationDenied => "ImpersonationDenied",
            Self::AccountMissing => "ServiceAccountNotFound",
            Self::QuotaExceeded => "QuotaExceeded",
            Self::NamespaceTerminating => "NamespaceTerminating",
            Self::PodSecurity => "PodSecurity",
            Self::AdmissionDenied => "AdmissionDenied",
            Self::WebhookUnavailable => "WebhookUnavailable",
            Self::Invalid => "Invalid",
            Self::Other => "ServerError",
        }
    }

    /// Whether the same call may work later without anybody changing the spec or the rights.
    pub const fn is_transient(self) -> bool {
        matches!(self, Self::Transient | Self::Conflict | Self::QuotaExceeded | Self::WebhookUnavailable)
    }
}

/// A failed call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct ApiFailure {
    /// What kind of failure it is.
    pub class: Class,
    /// One sentence that says what was refused and by whom.
    pub message: String,
    /// The server may have done what was asked although the call failed.
    pub ambiguous: bool,
}

impl ApiFailure {
    /// A failure of which it is certain that nothing was done.
    pub fn definite(class: Class, message: impl Into<String>) -> Self {
        Self { class, message: message.into(), ambiguous: false }
    }

    /// Whether the thing asked for is not there.
    pub fn is_not_found(&self) -> bool {
        self.class == Class::NotFound
    }
}

impl From<kube::Error> for ApiFailure {
    fn from(error: kube::Error) -> Self {
        classify(&error)
    }
}

/// No answer came within the call's deadline.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the API server did not answer within {0} s")]
pub struct DeadlineExceeded(pub u64);

/// Reads an error of the client.
pub fn classify(error: &kube::Error) -> ApiFailure {
    use kube::error::DiscoveryError;
    match error {
        kube::Error::Api(status) => classify_status(status),
        kube::Error::Discovery(
            DiscoveryError::MissingKind(_) | DiscoveryError::MissingApiGroup(_) | DiscoveryError::EmptyApiGroup(_),
        ) => ApiFailure::definite(Class::NotFound, error.to_string()),
        kube::Error::Discovery(_) | kube::Error::BuildRequest(_) | kube::Error::HttpError(_) => {
            ApiFailure::definite(Class::Invalid, error.to_string())
        }
        // Without a connection nothing was asked; all else may have reached the server.
        _ => ApiFailure { class: Class::Transient, message: chain(error), ambiguous: !is_connect(error) },
    }
}

/// Reads a status that the server answered with, in a response or in a watch.
pub fn classify_status(status: &Status) -> ApiFailure {
    let text = &without_object(&status.message);
    let definite = |class| ApiFailure::definite(class, text.clone());
    // A webhook that can't be asked is reported as the server's own error, before anything was stored.
    if text.contains("failed calling webhook") || text.contains("failed to call webhook") {
        return definite(Class::WebhookUnavailable);
    }
    if text.contains("admission webhook") && text.contains("denied the request")
        || text.contains("ValidatingAdmissionPolicy")
    {
        return definite(Class::AdmissionDenied);
    }
    if status.is_already_exists() {
        return definite(Class::AlreadyExists);
    }
    if status.is_forbidden() {
        return forbidden(status);
    }
    if status.is_not_found() {
        return definite(Class::NotFound);
    }
    if status.is_conflict() {
        return definite(Class::Conflict);
    }
    // An answer that is no status object (of a proxy, or for a group that is not served) has only its code; kube's own
    // fall-back to the code does not work in 5.0.
    match status.code {
        403 => forbidden(status),
        404 => definite(Class::NotFound),
        409 | 410 => definite(Class::Conflict),
        400 | 405 | 413 | 415 | 422 => definite(Class::Invalid),
        // Flow control, or the operator's own credentials: they are rotated, or the server starts. Refused before it was looked at.
        401 | 429 => definite(Class::Transient),
        // Server-side apply answers so to a field that the kind's schema does not have.
        500 if text.contains("failed to create typed patch object") => definite(Class::Invalid),
        500..=599 => ApiFailure { class: Class::Transient, message: text.clone(), ambiguous: true },
        _ => definite(Class::Other),
    }
}

/// A refused patch is answered with the whole patched object, a Secret's content included: that is nobody's business.
fn without_object(message: &str) -> String {
    const OBJECT: &str = "patch: Invalid value: \"";
    let Some(start) = message.find(OBJECT) else { return message.to_owned() };
    let end = message.rfind("\": ").map_or(message.len(), |end| end + "\": ".len());
    let start = start + "patch: ".len();
    format!("{}{}", &message[..start], message.get(end.max(start)..).unwrap_or_default())
}

fn forbidden(status: &Status) -> ApiFailure {
    let text = &status.message;
    let cause = |word: &str| {
        status.details.as_ref().is_some_and(|details| details.causes.iter().any(|cause| cause.reason == word))
    };
    let class = if cause("NamespaceTerminating") || text.contains("because it is being terminated") {
        Class::NamespaceTerminating
    } else if text.contains("exceeded quota") {
        Class::QuotaExceeded
    } else if text.contains("violates PodSecurity") {
        Class::PodSecurity
    } else if text.contains("error looking up service account") {
        Class::AccountMissing
    } else if text.contains("cannot impersonate") {
        Class::ImpersonationDenied
    } else if text.contains("\" cannot ") || text.contains("attempting to grant") || text.contains("cannot set ") {
        Class::Forbidden
    } else if text.contains("failed quota")
        || text.contains("is forbidden: [")
        || text.contains("minimum ")
        || text.contains("maximum ")
    {
        // A LimitRange, or a quota that wants limits to be written down.
        Class::Invalid
    } else {
        Class::AdmissionDenied
    };
    let message = match class {
        Class::Forbidden => denied(text).unwrap_or_else(|| text.clone()),
        _ => text.clone(),
    };
    ApiFailure::definite(class, message)
}

/// Turns RBAC's sentence into one that says what to do: which account lacks which verb on what and where.
fn denied(text: &str) -> Option<String> {
    let user = between(text, "User \"", "\"")?;
    let verb = between(text, " cannot ", " ")?;
    let resource = between(text, "resource \"", "\"")?;
    let group = between(text, "API group \"", "\"").unwrap_or_default();
    let place = between(text, "in the namespace \"", "\"")
        .map_or_else(|| "in the whole cluster".to_owned(), |namespace| format!("in namespace {namespace}"));
    let account = user
        .strip_prefix("system:serviceaccount:")
        .map_or_else(|| format!("user {user}"), |rest| format!("service account {}", rest.replacen(':', "/", 1)));
    let resource = if group.is_empty() { resource.to_owned() } else { format!("{resource}.{group}") };
    Some(format!("{account} may not {verb} {resource} {place}: grant it by a Role"))
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = &text[text.find(before)? + before.len()..];
    Some(&rest[..rest.find(after)?])
}

fn is_connect(error: &kube::Error) -> bool {
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(current) = source {
        if current.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused)
            || current.to_string().contains("client error (Connect)")
        {
            return true;
        }
        source = current.source();
    }
    false
}

/// The innermost cause says more than the layers around it.
fn chain(error: &kube::Error) -> String {
    let mut innermost: &(dyn std::error::Error + 'static) = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    format!("no usable answer from the API server: {innermost}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: u16, reason: &str, message: &str) -> ApiFailure {
        classify_status(&Status::failure(message, reason).with_code(code))
    }

    #[test]
    fn refusals_of_one_code_are_told_apart() {
        for (message, class) in [
            (
                r#"pods "x" is forbidden: exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1"#,
                Class::QuotaExceeded,
            ),
            (
                r#"pods "x" is forbidden: unable to create new content in namespace n because it is being terminated"#,
                Class::NamespaceTerminating,
            ),
            (
                r#"pods "x" is forbidden: violates PodSecurity "restricted:latest": runAsNonRoot != true"#,
                Class::PodSecurity,
            ),
            (
                r#"pods "x" is forbidden: error looking up service account n/sa: serviceaccount "sa" not found"#,
                Class::AccountMissing,
            ),
            (r#"pods "x" is forbidden: failed quota: q: must specify limits.cpu"#, Class::Invalid),
            (
                r#"serviceaccounts "sa" is forbidden: User "op" cannot impersonate resource "serviceaccounts" in API group "" in the namespace "n""#,
                Class::ImpersonationDenied,
            ),
            (r#"admission webhook "w" denied the request: no"#, Class::AdmissionDenied),
        ] {
            let failure = status(403, "Forbidden", message);
            assert_eq!((failure.class, failure.ambiguous), (class, false), "{message}");
        }
    }

    #[test]
    fn a_missing_right_is_said_with_verb_resource_and_place() {
        let text = r#"pods is forbidden: User "system:serviceaccount:team:soak" cannot create resource "deployments" in API group "apps" in the namespace "other""#;
        let failure = status(403, "Forbidden", text);
        assert_eq!(failure.class, Class::Forbidden);
        assert_eq!(
            failure.message,
            "service account team/soak may not create deployments.apps in namespace other: grant it by a Role"
        );
    }

    #[test]
    fn a_refused_patch_does_not_tell_what_the_object_holds() {
        let object = r#"{\"apiVersion\":\"v1\",\"data\":{\"password\":\"aHVudGVyMg==\",\"a\":5}}"#;
        let text = format!(
            "\"\" is invalid: patch: Invalid value: \"{object}\": json: cannot unmarshal number into Secret.data"
        );
        let failure = status(422, "Invalid", &text);
        assert_eq!(failure.message, "\"\" is invalid: patch: json: cannot unmarshal number into Secret.data");
        let other = "spec.replicas: Invalid value: -1: must be greater than or equal to 0";
        assert_eq!(status(422, "Invalid", other).message, other);
    }

    #[test]
    fn only_what_the_server_may_have_done_is_ambiguous() {
        assert!(status(500, "InternalError", "etcdserver: request timed out").ambiguous);
        assert!(status(504, "Timeout", "request did not complete within requested timeout").ambiguous);
        assert_eq!(status(404, "Failed to parse error data", "404 page not found").class, Class::NotFound);
        assert!(!status(429, "TooManyRequests", "slow down").ambiguous);
        let unknown_field = status(
            500,
            "",
            "failed to create typed patch object (x/m; /v1, Kind=ConfigMap): .dta: field not declared in schema",
        );
        assert_eq!((unknown_field.class, unknown_field.ambiguous), (Class::Invalid, false));
        let webhook = status(
            500,
            "InternalError",
            r#"Internal error occurred: failed calling webhook "w": context deadline exceeded"#,
        );
        assert_eq!((webhook.class, webhook.ambiguous), (Class::WebhookUnavailable, false));
    }
}
