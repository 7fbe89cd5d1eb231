//! One hub: its objects, moved on as its controllers would.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams, ObjectMeta, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};

use crate::timing::Timing;

const GROUP: &str = "cluster.open-cluster-management.io";
const BACKUP: &str = "open-cluster-management-backup";
const OBSERVABILITY: &str = "open-cluster-management-observability";

/// What lies between the hubs: the stored backup, and the hub that each cluster's agent talks to.
#[derive(Default)]
pub struct Agents {
    /// Number of the newest backup, and the clusters in it.
    pub backup: Option<(i64, BTreeSet<String>)>,
    /// The hub that a cluster is attached to.
    attached: BTreeMap<String, usize>,
    /// Since when a hub has been waiting for its next cluster.
    next: [Option<Instant>; 2],
}

/// A hub as its controllers see it.
pub struct Hub {
    client: Client,
    /// When something began that takes time, by uid of its object.
    since: BTreeMap<String, Instant>,
}

impl Hub {
    /// Connects to a hub.
    pub async fn connect(kubeconfig: &Path) -> Result<Self> {
        let kubeconfig = Kubeconfig::read_from(kubeconfig)?;
        let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
        Ok(Self { client: Client::try_from(config)?, since: BTreeMap::new() })
    }

    fn api(&self, group: &str, version: &str, kind: &str, plural: &str, namespace: Option<&str>) -> Api<DynamicObject> {
        let kind = ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural);
        match namespace {
            Some(namespace) => Api::namespaced_with(self.client.clone(), namespace, &kind),
            None => Api::all_with(self.client.clone(), &kind),
        }
    }

    fn schedules(&self) -> Api<DynamicObject> {
        self.api(GROUP, "v1beta1", "BackupSchedule", "backupschedules", Some(BACKUP))
    }

    fn restores(&self) -> Api<DynamicObject> {
        self.api(GROUP, "v1beta1", "Restore", "restores", Some(BACKUP))
    }

    fn clusters(&self) -> Api<DynamicObject> {
        self.api(GROUP, "v1", "ManagedCluster", "managedclusters", None)
    }

    fn pods(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("", "v1", "Pod", "pods", Some(namespace))
    }

    fn deployments(&self, namespace: &str) -> Api<DynamicObject> {
        self.api("apps", "v1", "Deployment", "deployments", Some(namespace))
    }

    /// Whether this hub may write backups, so that what is stored may change under a restore.
    pub async fn writes_backups(&self) -> Result<bool> {
        let schedules = self.schedules().list(&ListParams::default()).await?;
        Ok(schedules.iter().any(|schedule| schedule.data["spec"]["paused"] != true))
    }

    /// The newest backup that this hub knows of, and its clusters. What is stored outlives the controllers.
    pub async fn newest_backup(&self) -> Result<Option<(i64, BTreeSet<String>)>> {
        let schedules = self.schedules().list(&ListParams::default()).await?;
        let newest = schedules.iter().filter_map(|schedule| schedule.data["status"]["lastBackup"].as_i64()).max();
        let Some(newest) = newest.filter(|number| *number > 0) else { return Ok(None) };
        let clusters = self.clusters().list(&ListParams::default()).await?;
        Ok(Some((newest, clusters.iter().map(ResourceExt::name_any).collect())))
    }

    /// Backup schedules: a paused one rests, another one makes a backup after the other.
    pub async fn back_up(&mut self, agents: &mut Agents, timing: &Timing) -> Result<()> {
        let schedules = self.schedules();
        for schedule in schedules.list(&ListParams::default()).await? {
            let uid = schedule.uid().unwrap_or_default();
            let status = &schedule.data["status"];
            if schedule.data["spec"]["paused"] == true {
                self.since.remove(&uid);
                tell(&schedules, &schedule, json!({"phase": "Paused", "backups": 0})).await?;
                continue;
            }
            let mut told = json!({"phase": "Enabled", "backups": status["backups"].as_i64().unwrap_or(0)});
            if self.took(&uid, timing.backup()) {
                let clusters: BTreeSet<String> =
                    self.clusters().list(&ListParams::default()).await?.iter().map(ResourceExt::name_any).collect();
                let number = agents.backup.as_ref().map_or(0, |(number, _)| *number) + 1;
                agents.backup = Some((number, clusters));
                told["backups"] = json!(told["backups"].as_i64().unwrap_or(0) + 1);
            }
            told["lastBackup"] = json!(agents.backup.as_ref().map_or(0, |(number, _)| *number));
            tell(&schedules, &schedule, told).await?;
        }
        Ok(())
    }

    /// Restores: started, running, and finished with the newest backup's clusters; or with errors.
    pub async fn restore(
        &mut self,
        agents: &Agents,
        other_writes: bool,
        timing: &Timing,
        random: &mut fastrand::Rng,
    ) -> Result<()> {
        if self.restore_operator_is_down().await? {
            return Ok(());
        }
        let restores = self.restores();
        for restore in restores.list(&ListParams::default()).await? {
            let phase = restore.data["status"]["phase"].as_str().unwrap_or_default();
            if phase.starts_with("Finished") || phase == "Error" {
                continue;
            }
            let uid = restore.uid().unwrap_or_default();
            if other_writes {
                let message = "the other hub still writes backups: what is restored would not be the newest";
                tell(&restores, &restore, json!({"phase": "Error", "lastMessage": message})).await?;
                continue;
            }
            let passive = restore.data["spec"]["syncRestoreWithNewBackups"] == true;
            if !self.took(&uid, timing.restore(passive)) {
                tell(&restores, &restore, json!({"phase": "Running", "lastMessage": "restoring"})).await?;
                continue;
            }
            if random.f64() < timing.flaky {
                let message = "a part of the restore was still Running when its time was up";
                tell(&restores, &restore, json!({"phase": "FinishedWithErrors", "lastMessage": message})).await?;
                continue;
            }
            let (number, clusters) = agents.backup.clone().unwrap_or_default();
            for name in clusters {
                self.accept_later(&name).await?;
            }
            let told = json!({"phase": "Finished", "lastMessage": "all of it", "restoredBackup": number});
            tell(&restores, &restore, told).await?;
        }
        Ok(())
    }

    /// Whether nobody is there to make restores.
    async fn restore_operator_is_down(&self) -> Result<bool> {
        let operator = self.deployments(BACKUP).get_opt("velero").await?;
        Ok(operator.is_none_or(|it| {
            it.data["spec"]["replicas"] == 0 || it.data["status"]["readyReplicas"].as_i64().unwrap_or(0) == 0
        }))
    }

    /// A restored cluster is known, and not yet accepted.
    async fn accept_later(&self, name: &str) -> Result<()> {
        let clusters = self.clusters();
        if clusters.get_opt(name).await?.is_some() {
            return Ok(());
        }
        let mut cluster = DynamicObject::new(
            name,
            &ApiResource::from_gvk_with_plural(
                &GroupVersionKind::gvk(GROUP, "v1", "ManagedCluster"),
                "managedclusters",
            ),
        );
        cluster.data = json!({"spec": {"hubAcceptsClient": false}});
        clusters.create(&PostParams::default(), &cluster).await.map(|_| ()).context("a managed cluster")
    }

    /// Agents: a cluster that this hub accepts and the other one does not talks to this one, one after the other.
    pub async fn attach(&mut self, index: usize, other: &Self, agents: &mut Agents, timing: &Timing) -> Result<()> {
        let (clusters, others) = (self.clusters(), other.clusters());
        let mut waiting = false;
        for cluster in clusters.list(&ListParams::default()).await? {
            let name = cluster.name_any();
            if cluster.data["spec"]["hubAcceptsClient"] != true {
                tell(&clusters, &cluster, available("Unknown", "its agent does not talk to this hub")).await?;
                continue;
            }
            let accepted_there =
                others.get_opt(&name).await?.is_some_and(|cluster| cluster.data["spec"]["hubAcceptsClient"] == true);
            match agents.attached.get(&name) {
                Some(hub) if *hub == index => {
                    tell(&clusters, &cluster, available("True", "its agent talks to this hub")).await?;
                }
                Some(_) if accepted_there => {
                    tell(&clusters, &cluster, available("Unknown", "its agent still talks to the other hub")).await?;
                }
                _ => {
                    waiting = true;
                    let since = *agents.next[index].get_or_insert_with(Instant::now);
                    if since.elapsed() >= timing.attach() {
                        agents.attached.insert(name, index);
                        agents.next[index] = Some(Instant::now());
                    }
                }
            }
        }
        if !waiting {
            agents.next[index] = None;
        }
        Ok(())
    }

    /// The kubelet's part: pods start.
    pub async fn start_pods(&mut self, timing: &Timing) -> Result<()> {
        for namespace in [OBSERVABILITY, BACKUP] {
            self.start_pods_in(namespace, timing).await?;
        }
        Ok(())
    }

    async fn start_pods_in(&mut self, namespace: &str, timing: &Timing) -> Result<()> {
        let pods = self.pods(namespace);
        for pod in pods.list(&ListParams::default()).await? {
            if pod.data["status"]["phase"] == "Running" || pod.metadata.deletion_timestamp.is_some() {
                continue;
            }
            if self.took(&pod.uid().unwrap_or_default(), timing.pod()) {
                let ready = |type_: &str| json!({"type": type_, "status": "True"});
                let conditions = ["PodScheduled", "Initialized", "ContainersReady", "Ready"].map(ready);
                tell(&pods, &pod, json!({"phase": "Running", "conditions": conditions})).await?;
            }
        }
        Ok(())
    }

    /// Observability is ready while its API has all replicas that it should have, and should have some.
    pub async fn observe(&self) -> Result<()> {
        let observabilities = self.api(
            "observability.open-cluster-management.io",
            "v1beta2",
            "MultiClusterObservability",
            "multiclusterobservabilities",
            None,
        );
        let Some(api) = self.deployments(OBSERVABILITY).get_opt("observatorium-api").await? else { return Ok(()) };
        let count = |path: &str| api.data.pointer(path).and_then(Value::as_i64).unwrap_or(0);
        let (wanted, ready) = (count("/spec/replicas"), count("/status/readyReplicas"));
        let status = if wanted > 0 && ready >= wanted { "True" } else { "False" };
        for observability in observabilities.list(&ListParams::default()).await? {
            let condition = json!({"type": "Ready", "status": status, "message": format!("{ready} of {wanted} replicas are ready")});
            tell(&observabilities, &observability, json!({"conditions": [condition]})).await?;
        }
        Ok(())
    }

    /// Whether something has gone on for so long; it begins when it is asked for first, and anew after it was over.
    fn took(&mut self, uid: &str, time: Duration) -> bool {
        let since = *self.since.entry(uid.to_owned()).or_insert_with(Instant::now);
        let over = since.elapsed() >= time;
        if over {
            self.since.remove(uid);
        }
        over
    }
}

fn available(status: &str, message: &str) -> Value {
    json!({"conditions": [{"type": "ManagedClusterConditionAvailable", "status": status, "message": message}]})
}

/// Writes a status, if it says something new.
async fn tell(api: &Api<DynamicObject>, object: &DynamicObject, status: Value) -> Result<()> {
    let old = &object.data["status"];
    let same = status.as_object().is_some_and(|fields| fields.iter().all(|(field, value)| old[field] == *value));
    if same {
        return Ok(());
    }
    let ObjectMeta { uid, .. } = &object.metadata;
    let patch = Patch::Merge(json!({"metadata": {"uid": uid}, "status": status}));
    match api.patch_status(&object.name_any(), &PatchParams::default(), &patch).await {
        // It went in between.
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        other => other.map(|_| ()).with_context(|| format!("the status of {}", object.name_any())),
    }
}
