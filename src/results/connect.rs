//! How an object store is reached: its kind, its credentials, and what an operator lets a spec reach.

use std::{collections::BTreeMap, fs, net::IpAddr, path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;

use object_store::{
    BackoffConfig, ClientOptions, RetryConfig,
    aws::{AmazonS3Builder, AmazonS3ConfigKey},
    azure::{AzureConfigKey, MicrosoftAzureBuilder},
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
    gcp::{GoogleCloudStorageBuilder, GoogleConfigKey},
    local::LocalFileSystem,
    path::Path,
};

use crate::api::ObjectStore;

use super::{kube_error::StoreError, objects::Objects};

/// Longest time that one try may take; a record is at most 512 KiB long.
const TRY_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// What whoever runs this program lets it reach.
#[derive(Clone, Debug, Default)]
pub struct StoreSettings {
    /// The folder that `file:` urls are below; none: there are no such stores.
    pub volume: Option<PathBuf>,
    /// Urls that may be used with this program's own identity, with everything below them.
    pub identity: Vec<String>,
    /// Makes the connections to servers that a spec names; none: such a spec may reach all that this program can.
    pub guard: Option<StoreGuard>,
}

/// A client that refuses names of addresses that must not be reached, and what tells such addresses where they are written out.
#[derive(Clone, Debug)]
pub struct StoreGuard {
    /// The client. It ends each call by itself.
    pub client: reqwest::Client,
    /// Whether an address must not be reached.
    pub refuses: fn(IpAddr) -> bool,
}

/// Connects to a store, with the entries of its Secret if the spec names one. No call is made yet.
///
/// Errors: what is missing in the Secret or in the settings.
pub fn connect(
    spec: &ObjectStore,
    secret: Option<&BTreeMap<String, String>>,
    settings: &StoreSettings,
) -> Result<Objects, StoreError> {
    // An error means that there is a provider already, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let (scheme, rest) = spec.url.split_once("://").unwrap_or_default();
    let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
    if scheme != "file" && secret.is_none() && !settings.identity.iter().any(|allowed| is_below(&spec.url, allowed)) {
        return Err(StoreError::Terminal(format!(
            "results.objectStore: {} may not be used with the operator's own identity: name a Secret in secretName, or let the administrator allow it (--store-identity)",
            spec.url
        )));
    }
    let how = How { spec, secret, guard: secret.and(settings.guard.clone()).map(Guarded) };
    let (store, prefix) = match scheme {
        "s3" => (how.s3(bucket)?, prefix),
        "gs" => (how.gs(bucket)?, prefix),
        "az" => {
            let (container, prefix) = prefix.split_once('/').unwrap_or((prefix, ""));
            (how.az(bucket, container)?, prefix)
        }
        "file" => (file(settings)?, prefix),
        _ => return Err(StoreError::Terminal(format!("results.objectStore: {} is no url of a store", spec.url))),
    };
    let prefix = Path::parse(prefix.trim_matches('/'))
        .map_err(|error| StoreError::Terminal(format!("results.objectStore: {}: {error}", spec.url)))?;
    Ok(Objects::new(store, prefix, spec.url.clone()))
}

type Store = Arc<dyn object_store::ObjectStore>;

/// A folder below the volume.
fn file(settings: &StoreSettings) -> Result<Store, StoreError> {
    let Some(volume) = &settings.volume else {
        return Err(StoreError::Terminal(
            "results.objectStore: this operator has no volume for results: choose another url, or let the administrator mount one (--store-volume)".into(),
        ));
    };
    let cant = |error: &dyn std::fmt::Display| {
        StoreError::Transient(format!("results.objectStore: the volume {} can't be used: {error}", volume.display()))
    };
    fs::create_dir_all(volume).map_err(|error| cant(&error))?;
    let store = LocalFileSystem::new_with_prefix(volume).map_err(|error| cant(&error))?;
    Ok(Arc::new(store.with_automatic_cleanup(true)))
}

/// How a server is reached.
struct How<'a> {
    spec: &'a ObjectStore,
    /// What the Secret holds. Other entries than those named here are not looked at: they could lead to the identity of the
    /// operator or to its files.
    secret: Option<&'a BTreeMap<String, String>>,
    guard: Option<Guarded>,
}

impl How<'_> {
    fn s3(&self, bucket: &str) -> Result<Store, StoreError> {
        let mut builder = if self.secret.is_some() { AmazonS3Builder::new() } else { AmazonS3Builder::from_env() }
            .with_bucket_name(bucket)
            .with_client_options(self.options())
            .with_retry(retry());
        if let Some(region) = self.spec.region.as_deref().or(self.secret.map(|_| "us-east-1")) {
            builder = builder.with_region(region);
        }
        if let Some(endpoint) = &self.spec.endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(self.is_plain());
        }
        if self.secret.is_some() {
            builder = builder
                .with_access_key_id(self.needed("AWS_ACCESS_KEY_ID")?)
                .with_secret_access_key(self.needed("AWS_SECRET_ACCESS_KEY")?);
            if let Some(token) = self.get("AWS_SESSION_TOKEN") {
                builder = builder.with_config(AmazonS3ConfigKey::Token, token);
            }
        }
        if let Some(guard) = &self.guard {
            builder = builder.with_http_connector(guard.clone());
        }
        Ok(Arc::new(builder.build().map_err(|error| self.invalid(&error))?))
    }

    fn gs(&self, bucket: &str) -> Result<Store, StoreError> {
        let mut builder = if self.secret.is_some() {
            GoogleCloudStorageBuilder::new()
        } else {
            GoogleCloudStorageBuilder::from_env()
        }
        .with_bucket_name(bucket)
        .with_client_options(self.options())
        .with_retry(retry());
        if self.secret.is_some() {
            let key = self.needed("GOOGLE_SERVICE_ACCOUNT_KEY")?;
            builder = builder.with_config(GoogleConfigKey::ServiceAccountKey, key);
        }
        if let Some(guard) = &self.guard {
            builder = builder.with_http_connector(guard.clone());
        }
        Ok(Arc::new(builder.build().map_err(|error| self.invalid(&error))?))
    }

    fn az(&self, account: &str, container: &str) -> Result<Store, StoreError> {
        let mut builder =
            if self.secret.is_some() { MicrosoftAzureBuilder::new() } else { MicrosoftAzureBuilder::from_env() }
                .with_account(account)
                .with_container_name(container)
                .with_client_options(self.options())
                .with_retry(retry());
        if let Some(endpoint) = &self.spec.endpoint {
            builder = builder.with_endpoint(endpoint.clone()).with_allow_http(self.is_plain());
        }
        if self.secret.is_some() {
            for (key, value) in self.azure()? {
                builder = builder.with_config(key, value);
            }
        }
        if let Some(guard) = &self.guard {
            builder = builder.with_http_connector(guard.clone());
        }
        Ok(Arc::new(builder.build().map_err(|error| self.invalid(&error))?))
    }

    fn options(&self) -> ClientOptions {
        let options = ClientOptions::new().with_timeout(TRY_TIMEOUT).with_connect_timeout(CONNECT_TIMEOUT);
        options.with_allow_http(self.is_plain())
    }

    fn is_plain(&self) -> bool {
        self.spec.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"))
    }

    /// The builders' errors can quote what they were given.
    fn invalid(&self, error: &object_store::Error) -> StoreError {
        let what = if self.secret.is_some() { "the Secret's entries can't be used".into() } else { error.to_string() };
        StoreError::Terminal(format!("results.objectStore: {}: {what}", self.spec.url))
    }

    fn get(&self, key: &str) -> Option<String> {
        self.secret?.get(key).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn needed(&self, key: &str) -> Result<String, StoreError> {
        self.get(key).ok_or_else(|| self.missing(key))
    }

    fn missing(&self, what: &str) -> StoreError {
        let name = self.spec.secret_name.as_deref().unwrap_or_default();
        StoreError::Terminal(format!("results.objectStore: the Secret {name} has no {what}: add it"))
    }

    fn azure(&self) -> Result<Vec<(AzureConfigKey, String)>, StoreError> {
        if let Some(key) = self.get("AZURE_STORAGE_ACCOUNT_KEY") {
            return Ok(vec![(AzureConfigKey::AccessKey, key)]);
        }
        if let Some(token) = self.get("AZURE_STORAGE_SAS_TOKEN") {
            return Ok(vec![(AzureConfigKey::SasKey, token)]);
        }
        if self.get("AZURE_CLIENT_ID").is_none() {
            return Err(self.missing("AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN or AZURE_CLIENT_ID"));
        }
        Ok(vec![
            (AzureConfigKey::ClientId, self.needed("AZURE_CLIENT_ID")?),
            (AzureConfigKey::ClientSecret, self.needed("AZURE_CLIENT_SECRET")?),
            (AzureConfigKey::AuthorityId, self.needed("AZURE_TENANT_ID")?),
        ])
    }
}

/// Whether a url is an allowed one or below it.
fn is_below(url: &str, allowed: &str) -> bool {
    let allowed = allowed.trim_end_matches('/');
    !url.split('/').any(|part| part == "..")
        && url.strip_prefix(allowed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn retry() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig { init_backoff: Duration::from_millis(100), ..BackoffConfig::default() },
        max_retries: 2,
        retry_timeout: Duration::from_secs(10),
    }
}

/// Connects through a client that refuses addresses.
#[derive(Clone, Debug)]
struct Guarded(StoreGuard);

impl HttpConnector for Guarded {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

#[async_trait]
impl HttpService for Guarded {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(address) if (self.0.refuses)(address) => Err(HttpError::new(HttpErrorKind::Request, Refused(address))),
            _ => HttpService::call(&self.0.client, request).await,
        }
    }
}

/// An address that a tenant must not reach through the operator.
#[derive(Debug, thiserror::Error)]
#[error("{0} is an address of the operator's own host or link: no object store is there")]
struct Refused(IpAddr);

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(url: &str) -> ObjectStore {
        ObjectStore { url: url.into(), secret_name: Some("s".into()), ..ObjectStore::default() }
    }

    #[test]
    fn a_secret_must_be_whole_or_the_operators_identity_would_take_its_place() {
        let settings = StoreSettings::default();
        let half = BTreeMap::from([("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned())]);
        for url in ["s3://b/p", "gs://b", "az://account/container"] {
            let error = connect(&spec(url), Some(&half), &settings).unwrap_err().to_string();
            assert!(error.contains("the Secret s has no "), "{error}");
        }
        let whole = BTreeMap::from([
            ("AWS_ACCESS_KEY_ID".to_owned(), "id".to_owned()),
            ("AWS_SECRET_ACCESS_KEY".to_owned(), "canary".to_owned()),
        ]);
        let store = connect(&spec("s3://b/p"), Some(&whole), &settings).unwrap();
        assert!(!format!("{store:?}").contains("canary"));
    }

    #[test]
    fn the_operators_identity_and_volume_are_for_what_the_administrator_allows() {
        let mut settings = StoreSettings { identity: vec!["s3://soak/team".into()], ..StoreSettings::default() };
        for (url, allowed) in [
            ("s3://soak/team", true),
            ("s3://soak/team/nightly", true),
            ("s3://soak/team-b", false),
            ("s3://soak/team/../x", false),
            ("s3://other/team", false),
            ("file:///x", false),
        ] {
            assert_eq!(connect(&spec(url), None, &settings).is_ok(), allowed, "{url}");
        }
        let folder = std::env::temp_dir().join(format!("soak-volume-{}", std::process::id()));
        settings.volume = Some(folder.clone());
        assert!(connect(&spec("file:///x/y"), None, &settings).is_ok());
        assert!(connect(&spec("file:///../x"), None, &settings).is_err());
        let _ = fs::remove_dir_all(folder);
    }
}
