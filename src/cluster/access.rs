//! What an account may do, asked as the account itself.

use std::{collections::BTreeMap, fmt};

use futures::{FutureExt, StreamExt, TryStreamExt, future::BoxFuture, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, Client, api::PostParams};

use super::{
    Cluster,
    client::Account,
    error::{ApiFailure, Class},
};

/// Questions asked at the same time.
const CONCURRENCY: usize = 8;
/// Missing rights that a message names.
const NAMED_RIGHTS: usize = 5;

/// One right in the sense of RBAC.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Right {
    /// `get`, `create`, …
    pub verb: String,
    /// API group; empty for the core group.
    pub group: String,
    /// Plural of the kind.
    pub resource: String,
    /// `log`, `scale`, …; empty for the object itself.
    pub subresource: String,
    /// The namespace; none for cluster-scoped kinds.
    pub namespace: Option<String>,
    /// The object's name; empty for any.
    pub name: String,
}

impl Right {
    /// A right on any object of a resource in a namespace.
    pub fn new(verb: &str, group: &str, resource: &str, namespace: Option<&str>) -> Self {
        Self {
            verb: verb.into(),
            group: group.into(),
            resource: resource.into(),
            namespace: namespace.map(Into::into),
            ..Self::default()
        }
    }

    /// The same right on a subresource.
    #[must_use]
    pub fn on(mut self, subresource: &str) -> Self {
        self.subresource = subresource.into();
        self
    }

    /// The same right on one object only.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        self.name = name.into();
        self
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, "/{}", self.subresource)?;
        }
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if !self.name.is_empty() {
            write!(f, " named {}", self.name)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " in namespace {namespace}"),
            None => f.write_str(" in the whole cluster"),
        }
    }
}

/// Which of `rights` the one who acts for `account` on the cluster of a target lacks, in one sentence; none if none. Each right
/// comes with the field of the spec that needs it. One that was there a few seconds ago is not asked for again.
///
/// Errors: the account's name is none, or the server did not answer.
pub async fn lack(
    cluster: &Cluster,
    target: &str,
    account: &Account,
    rights: &BTreeMap<Right, String>,
) -> Result<Option<String>, ApiFailure> {
    let client = cluster
        .tenants
        .client(account)
        .map_err(|error| ApiFailure::definite(Class::Invalid, format!("spec.serviceAccountName: {error}")))?;
    let known = |right: &Right| cluster.granted.holds(&(account.clone(), right.clone()));
    let asked: Vec<Right> = rights.keys().filter(|right| !known(right)).cloned().collect();
    let missing = missing_rights(&client, &asked).await?;
    for right in asked.into_iter().filter(|right| !missing.contains(right)) {
        cluster.granted.note((account.clone(), right));
    }
    let who = if cluster.remote {
        format!("the user of target {target}'s kubeconfig")
    } else {
        format!("service account {account}")
    };
    Ok(missing.first().map(|first| {
        let named: Vec<String> = missing.iter().take(NAMED_RIGHTS).map(Right::to_string).collect();
        let more = missing.len().saturating_sub(NAMED_RIGHTS);
        let more = if more == 0 { String::new() } else { format!(" and {more} more") };
        let field = rights.get(first).map_or("", String::as_str);
        format!("{who} may not {}{more}; first needed by {field}", named.join(", "))
    }))
}

/// Those of `rights` that the account behind `client` lacks, in the given order.
///
/// Every authenticated account may ask this about itself (`system:basic-user`), impersonated ones too.
pub async fn missing_rights(client: &Client, rights: &[Right]) -> Result<Vec<Right>, ApiFailure> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    // Boxed, because the compiler can't prove a stream of borrowing closures to be Send.
    let answers: Vec<BoxFuture<'_, Result<bool, ApiFailure>>> =
        rights.iter().map(|right| allowed(&reviews, right).boxed()).collect();
    let allowed: Vec<bool> = stream::iter(answers).buffered(CONCURRENCY).try_collect().await?;
    Ok(rights.iter().zip(allowed).filter(|(_, allowed)| !allowed).map(|(right, _)| right.clone()).collect())
}

async fn allowed(reviews: &Api<SelfSubjectAccessReview>, right: &Right) -> Result<bool, ApiFailure> {
    let text = |text: &String| (!text.is_empty()).then(|| text.clone());
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                verb: Some(right.verb.clone()),
                group: Some(right.group.clone()),
                resource: Some(right.resource.clone()),
                subresource: text(&right.subresource),
                namespace: right.namespace.clone(),
                name: text(&right.name),
                ..ResourceAttributes::default()
            }),
            ..SelfSubjectAccessReviewSpec::default()
        },
        ..SelfSubjectAccessReview::default()
    };
    // The review is a question in the shape of a POST: nothing is stored, so repeating it is harmless.
    let answer = reviews.create(&PostParams::default(), &review).await?;
    Ok(answer.status.is_some_and(|status| status.allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_right_reads_like_a_sentence() {
        assert_eq!(Right::new("create", "", "pods", Some("x")).to_string(), "create pods in namespace x");
        assert_eq!(Right::new("get", "", "pods", Some("x")).on("log").to_string(), "get pods/log in namespace x");
        assert_eq!(
            Right::new("patch", "apps", "deployments", Some("x")).on("scale").named("web").to_string(),
            "patch deployments/scale.apps named web in namespace x"
        );
        assert_eq!(Right::new("get", "", "nodes", None).to_string(), "get nodes in the whole cluster");
    }
}
