//! The user's cluster.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, Client, Config,
    api::{ApiResource, DynamicObject, ListParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::{
    api::{ObjectStore, SoakRun, SoakSchedule},
    cluster::client,
    results::{self, ConfigMaps, Objects, Records, RunRef, StoreError, StoreSettings, StoredRecord},
};

/// The cluster could not be asked, or does not know.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The kubeconfig.
    #[error("the kubeconfig can't be used: {0}")]
    Kubeconfig(#[from] kube::config::KubeconfigError),
    /// No kubeconfig, and not in a pod.
    #[error("no cluster is configured: set KUBECONFIG or give --kubeconfig: {0}")]
    NoCluster(#[from] kube::config::InferConfigError),
    /// The server.
    #[error("the API server can't be used: {0}")]
    Api(#[from] kube::Error),
    /// There is no such run, or schedule.
    #[error("{plural}.soak.dev \"{name}\" not found in namespace {namespace}")]
    NotFound {
        /// The kind that was asked for, in the plural.
        plural: &'static str,
        /// The name that was asked for.
        name: String,
        /// Where it was looked for.
        namespace: String,
    },
    /// The records.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A cluster as its user sees it.
pub struct Cluster {
    client: Client,
    namespace: String,
}

impl Cluster {
    /// Connects as kubectl would: by the file, or by `KUBECONFIG` and `~/.kube/config`.
    pub async fn connect(
        kubeconfig: Option<PathBuf>,
        context: Option<String>,
        namespace: Option<String>,
    ) -> Result<Self, ClusterError> {
        let options = KubeConfigOptions { context, ..KubeConfigOptions::default() };
        let config = match kubeconfig {
            Some(path) => Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &options).await?,
            None if options.context.is_some() => Config::from_kubeconfig(&options).await?,
            None => Config::infer().await?,
        };
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok(Self { client: client::connect(config)?, namespace })
    }

    /// The namespace that runs are looked for in.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The runs of these labels.
    pub async fn select(&self, selector: &str) -> Result<Vec<SoakRun>, ClusterError> {
        let runs: Api<SoakRun> = Api::namespaced(self.client.clone(), &self.namespace);
        Ok(runs.list(&ListParams::default().labels(selector)).await?.items)
    }

    /// Creates a run of a schedule, as the user. The answer is its name.
    pub async fn trigger(&self, schedule: &str, name: Option<String>) -> Result<String, ClusterError> {
        let schedules: Api<SoakSchedule> = Api::namespaced(self.client.clone(), &self.namespace);
        let found = schedules.get_opt(schedule).await?.ok_or_else(|| self.not_found("soakschedules", schedule))?;
        let name = name.unwrap_or_else(|| format!("{schedule}-manual-{:04x}", fastrand::u16(..)));
        // As it is written, and not by the typed client: that would leave out lists that are empty on purpose.
        let resource = ApiResource::erase::<SoakRun>(&());
        let runs: Api<DynamicObject> = Api::namespaced_with(self.client.clone(), &self.namespace, &resource);
        let run = serde_json::from_value(found.run(&name, None)).map_err(kube::Error::SerdeError)?;
        runs.create(&PostParams::default(), &run).await?;
        Ok(name)
    }

    fn not_found(&self, plural: &'static str, name: &str) -> ClusterError {
        ClusterError::NotFound { plural, name: name.to_owned(), namespace: self.namespace.clone() }
    }

    /// A run and all its records.
    pub async fn read(&self, name: &str) -> Result<(SoakRun, Vec<StoredRecord>), ClusterError> {
        let runs: Api<SoakRun> = Api::namespaced(self.client.clone(), &self.namespace);
        let run = runs.get_opt(name).await?.ok_or_else(|| self.not_found("soakruns", name))?;
        let uid = run.metadata.uid.clone().unwrap_or_default();
        let of = RunRef { name: name.to_owned(), namespace: self.namespace.clone(), uid, attempt: 0 };
        let mut records = ConfigMaps::new(self.client.clone()).read(&of).await?;
        if let Some(spec) = &run.spec.results.object_store {
            // What waits in a ConfigMap is what was counted.
            for record in self.objects(spec).await?.read(&of).await? {
                if !records.iter().any(|kept| (kept.attempt, kept.part) == (record.attempt, record.part)) {
                    records.push(record);
                }
            }
            records.sort_by_key(|record| (record.attempt, record.part));
        }
        Ok((run, records))
    }

    /// The object store of a run, with its Secret as far as the user may read it, or else with the user's own environment.
    async fn objects(&self, spec: &ObjectStore) -> Result<Objects, ClusterError> {
        let secret = match &spec.secret_name {
            Some(name) => {
                let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
                let data = secrets.get(name).await?.data.unwrap_or_default();
                let texts = data.into_iter().filter_map(|(key, value)| Some((key, String::from_utf8(value.0).ok()?)));
                Some(texts.collect())
            }
            None => None,
        };
        let volume = std::env::var_os("SOAK_STORE_VOLUME").map(PathBuf::from);
        let settings = StoreSettings { volume, identity: vec![spec.url.clone()], guard: None };
        Ok(results::connect(spec, secret.as_ref(), &settings)?)
    }
}
