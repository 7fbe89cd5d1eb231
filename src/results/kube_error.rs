//! What can go wrong with the store, and what to do about it.

use std::time::Duration;

use kube::core::Status;

/// Longest time that one call may take.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why a record could not be stored, read or deleted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// It may work when it is tried again.
    #[error("{0}")]
    Transient(String),
    /// It will not work until somebody changes something; the text says what.
    #[error("{0}")]
    Terminal(String),
    /// Its name is taken by something else, or it was changed after it had been stored.
    #[error("{0}")]
    Taken(String),
}

impl StoreError {
    /// Whether trying again may help without anybody's doing.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }
}

/// What a failed call tells.
#[derive(Debug)]
pub(super) enum Failed {
    /// An object of that name is there already.
    Exists,
    /// There is no such object.
    Missing,
    /// The server may or may not have done it.
    Ambiguous(String),
    /// The server has not done it.
    Refused(StoreError),
}

impl Failed {
    /// As an error, for calls whose answer does not depend on what was found.
    pub(super) fn into_error(self, doing: &str) -> StoreError {
        match self {
            Self::Exists => StoreError::Transient(format!(
                "{doing}: there is an object of that name already; it is looked at again"
            )),
            Self::Missing => StoreError::Transient(format!("{doing}: it is gone; it is looked at again")),
            Self::Ambiguous(message) => StoreError::Transient(format!(
                "{doing}: no clear answer from the API server ({message}); it is tried again"
            )),
            Self::Refused(error) => error,
        }
    }
}

/// Makes a call within the deadline. What became of a call that took longer is not known.
pub(super) async fn call<T>(
    call: impl Future<Output = kube::Result<T>>,
    doing: &str,
    namespace: &str,
) -> Result<T, Failed> {
    match tokio::time::timeout(DEADLINE, call).await {
        Ok(answer) => answer.map_err(|error| failed(&error, doing, namespace)),
        Err(_) => Err(Failed::Ambiguous(format!("no answer within {} s", DEADLINE.as_secs()))),
    }
}

/// Sorts an error of the client. `doing` begins the message, such as `storing the record x`.
fn failed(error: &kube::Error, doing: &str, namespace: &str) -> Failed {
    let status = match error {
        kube::Error::Api(status) => status,
        // The request was never sent.
        kube::Error::BuildRequest(error) => {
            return Failed::Refused(StoreError::Terminal(format!(
                "{doing}: {error}: this is a defect of the operator"
            )));
        }
        kube::Error::Auth(error) => {
            return Failed::Refused(StoreError::Transient(format!(
                "{doing}: the operator's credentials don't work: {error}: check its service account token"
            )));
        }
        // A connection that broke may have broken before or after the server did it.
        other => return Failed::Ambiguous(other.to_string()),
    };
    let message = &status.message;
    let transient = |step: &str| Failed::Refused(StoreError::Transient(format!("{doing}: {message}: {step}")));
    let terminal = |step: &str| Failed::Refused(StoreError::Terminal(format!("{doing}: {message}: {step}")));
    match status.code {
        409 if status.reason == "AlreadyExists" => Failed::Exists,
        409 => transient("it changed meanwhile; it is tried again"),
        404 if names_namespace(status) => {
            terminal(&format!("create the namespace {namespace} again, or delete the run"))
        }
        404 => Failed::Missing,
        403 if is_terminating(status) => {
            terminal("the namespace is being deleted, and the run with it; nothing more can be stored there")
        }
        403 if message.contains("exceeded quota") => transient(&format!(
            "raise the quota of ConfigMaps in {namespace}, or keep fewer records (spec.results.retention)"
        )),
        403 => terminal(&format!(
            "allow the operator's service account to get, list, create and delete configmaps in {namespace}"
        )),
        400 | 413 | 422 => {
            terminal("the server does not take the record: look for admission policies on ConfigMaps in the namespace")
        }
        401 => transient("the operator's credentials are not accepted: check its service account token"),
        429 => transient("the API server is busy; it is tried again"),
        500.. => {
            Failed::Ambiguous(if message.is_empty() { format!("status {}", status.code) } else { message.clone() })
        }
        _ => terminal("look at the API server's audit log"),
    }
}

fn is_terminating(status: &Status) -> bool {
    status
        .details
        .as_ref()
        .is_some_and(|details| details.causes.iter().any(|cause| cause.reason == "NamespaceTerminating"))
        || status.message.contains("is being terminated")
}

fn names_namespace(status: &Status) -> bool {
    status.details.as_ref().is_some_and(|details| details.kind == "namespaces")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: u16, reason: &str, message: &str) -> Failed {
        let mut status = Status::failure(message, reason);
        status.code = code;
        failed(&kube::Error::Api(Box::new(status)), "storing the record x", "soak")
    }

    #[test]
    fn errors_are_sorted_by_what_helps() {
        assert!(matches!(of(409, "AlreadyExists", ""), Failed::Exists));
        assert!(matches!(of(404, "NotFound", ""), Failed::Missing));
        for code in [500, 503, 504] {
            assert!(matches!(of(code, "", ""), Failed::Ambiguous(_)), "{code} may have happened all the same");
        }
        for (code, reason, message, transient, step) in [
            (403, "Forbidden", "configmaps is forbidden", false, "allow the operator's service account"),
            (
                403,
                "Forbidden",
                "unable to create new content in namespace soak because it is being terminated",
                false,
                "is being deleted",
            ),
            (403, "Forbidden", "exceeded quota: records", true, "raise the quota"),
            (422, "Invalid", "too long", false, "admission policies"),
            (409, "Conflict", "changed", true, "tried again"),
            (429, "TooManyRequests", "busy", true, "tried again"),
        ] {
            let Failed::Refused(error) = of(code, reason, message) else { panic!("{code} is a clear answer") };
            assert_eq!(error.is_transient(), transient, "{code} {message}");
            assert!(error.to_string().contains(step) && error.to_string().contains(message), "{error}");
        }
    }
}
