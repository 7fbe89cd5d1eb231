//! Fetching what a monitor judges, by kind.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use kube::api::DynamicObject;
use serde_json::{Value, json};
use tokio::sync::watch;

use super::{Place, Surroundings, pods, promql};
use crate::{
    api::{
        monitor::{HttpMonitor, PodHealthMonitor, PromqlMonitor, ResourceMonitor},
        step::Header,
    },
    cluster::{kinds::group_version_kind, watches::Listing},
    engine::{
        expr::{Scope, render_json},
        monitor::{MonitorPlan, Source, Subject},
    },
    request::{Request, send},
};

/// Longest time that a look takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long a look of this monitor may take: it must not reach into the next.
pub(super) fn patience(plan: &MonitorPlan) -> Duration {
    plan.interval.as_std().clamp(Duration::from_secs(1), PATIENCE)
}

/// Fetches, and keeps what a watch tells.
pub(super) struct Fetcher {
    source: Result<Source, String>,
    around: Surroundings,
    place: watch::Receiver<Place>,
    patience: Duration,
    listing: Option<Listing>,
}

impl Fetcher {
    pub(super) fn new(plan: &MonitorPlan, around: &Surroundings, place: watch::Receiver<Place>) -> Self {
        let source = render(&plan.source, &around.scope);
        Self { source, around: around.clone(), place, patience: patience(plan), listing: None }
    }

    /// Waits until a watched object has changed, or others are to be watched.
    pub(super) async fn changed(&mut self) {
        let object = async {
            match &mut self.listing {
                Some(listing) => listing.changed().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = object => {}
            Ok(()) = self.place.changed() => {}
        }
    }

    /// What is to be judged now; none while a list is being read.
    ///
    /// Errors: why nothing can be seen.
    pub(super) async fn fetch(&mut self) -> Result<Option<Vec<Subject>>, String> {
        match self.source.clone()? {
            Source::Resource(it) => {
                let objects = self.objects(&it.api_version, &it.kind, it.namespace.as_deref()).await?;
                Ok(objects.map(|(target, objects)| on(&target, resources(&it, &objects))))
            }
            Source::PodHealth(PodHealthMonitor { namespace, labels, policy: _ }) => {
                let objects = self.objects("v1", "Pod", namespace.as_deref()).await?;
                let (now, since) = (Utc::now(), self.around.started_at);
                Ok(objects.map(|(target, objects)| {
                    let chosen = objects.iter().filter(|object| has(object, &labels));
                    on(&target, chosen.map(|pod| pods::subject(pod, since, now)).collect())
                }))
            }
            Source::Promql(it) => self.promql(&it).await.map(Some),
            Source::Http(it) => self.http(&it).await.map(|subject| Some(vec![subject])),
        }
    }

    /// The objects of a kind where the monitor looks now, with the target's name.
    async fn objects(
        &mut self,
        api_version: &str,
        kind: &str,
        namespace: Option<&str>,
    ) -> Result<Option<(String, Vec<Arc<DynamicObject>>)>, String> {
        let Place { target, cluster } = self.place.borrow_and_update().clone();
        let Some(mut cluster) = cluster? else { return Ok(None) };
        if !self.listing.as_ref().is_some_and(|listing| listing.is_of(&cluster.watches)) {
            self.listing = None;
            // A cluster that is held counts as used, which one with old credentials must not be: it is let go for the time of the call.
            let kinds = cluster.kinds.clone();
            drop(cluster);
            let kind = kinds.get(&group_version_kind(api_version, kind)).await.map_err(|it| it.message)?;
            cluster = match &self.place.borrow().cluster {
                Ok(Some(cluster)) if Arc::ptr_eq(&cluster.kinds, &kinds) => cluster.clone(),
                // It has moved on, and is about to look there.
                _ => return Ok(None),
            };
            let namespace = namespace.filter(|namespace| !namespace.is_empty()).unwrap_or(&self.around.namespace);
            let listing = cluster.watches.list(&self.around.account, &kind, namespace);
            self.listing = Some(listing.map_err(|failure| failure.message)?);
        }
        let objects = self.listing.as_ref().map_or(Ok(None), Listing::objects)?;
        Ok(objects.map(|objects| (target, objects)))
    }

    async fn promql(&self, it: &PromqlMonitor) -> Result<Vec<Subject>, String> {
        let url = promql::url(&it.url, &it.query)?;
        let request = request(&url, &it.headers, it.ca_bundle.as_deref())?;
        let answer = send(&request, self.around.local_addresses).await.map_err(|failure| failure.to_string())?;
        promql::subjects(&answer)
    }

    async fn http(&self, it: &HttpMonitor) -> Result<Subject, String> {
        let request = request(&it.url, &it.headers, it.ca_bundle.as_deref())?;
        let began = Instant::now();
        let answer =
            tokio::time::timeout(self.patience.mul_f64(0.9), send(&request, self.around.local_addresses)).await;
        let millis = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        // No answer is what this monitor is there to see; only a request that may not be made is a defect of the monitor.
        let mut response = match answer {
            Ok(Ok(response)) => response,
            Ok(Err(failure)) if failure.transient => nothing(&failure.message),
            Ok(Err(failure)) => return Err(failure.message),
            Err(_) => nothing("no whole answer in time"),
        };
        response["millis"] = json!(millis);
        let sample = (response["status"] != json!(0)).then(|| f64::from(millis));
        Ok(Subject { name: String::new(), sample, value: response })
    }
}

/// The response where there was none.
fn nothing(error: &str) -> Value {
    json!({"status": 0, "headers": {}, "body": "", "json": null, "error": error})
}

fn request(url: &str, headers: &[Header], authority: Option<&str>) -> Result<Request, String> {
    let headers = headers.iter().map(|Header { name, value }| (name.as_str(), value.as_str()));
    Request::new(url, None, headers, None, authority.map(str::to_owned))
}

/// The named object (null when it is missing), or all with the labels.
fn resources(it: &ResourceMonitor, objects: &[Arc<DynamicObject>]) -> Vec<Subject> {
    let tree = |object: &DynamicObject| serde_json::to_value(object).unwrap_or_default();
    if let Some(name) = it.name.as_deref().filter(|name| !name.is_empty()) {
        let found = objects.iter().find(|object| object.metadata.name.as_deref() == Some(name));
        let value = found.map_or(Value::Null, |object| tree(object));
        return vec![Subject { name: name.to_owned(), sample: Some(f64::from(u8::from(found.is_some()))), value }];
    }
    let mut chosen: Vec<Subject> = objects
        .iter()
        .filter(|object| has(object, &it.labels))
        .map(|object| Subject {
            name: object.metadata.name.clone().unwrap_or_default(),
            sample: Some(1.0),
            value: tree(object),
        })
        .collect();
    chosen.sort_by(|a, b| a.name.cmp(&b.name));
    chosen
}

fn on(target: &str, subjects: Vec<Subject>) -> Vec<Subject> {
    subjects.into_iter().map(|subject| subject.on(target)).collect()
}

fn has(object: &DynamicObject, wanted: &BTreeMap<String, String>) -> bool {
    let labels = object.metadata.labels.as_ref();
    wanted.iter().all(|(name, value)| labels.and_then(|labels| labels.get(name)) == Some(value))
}

/// The source with the expressions in its texts replaced by their values.
pub(super) fn render(source: &Source, scope: &Scope) -> Result<Source, String> {
    let fields = render_json(&source.fields(), scope).map_err(|error| error.to_string())?;
    let read = |error: serde_json::Error| format!("an expression gives what the field can't hold: {error}");
    Ok(match source {
        Source::Resource(_) => Source::Resource(serde_json::from_value(fields).map_err(read)?),
        Source::PodHealth(_) => Source::PodHealth(serde_json::from_value(fields).map_err(read)?),
        Source::Promql(_) => Source::Promql(serde_json::from_value(fields).map_err(read)?),
        Source::Http(_) => Source::Http(serde_json::from_value(fields).map_err(read)?),
    })
}
