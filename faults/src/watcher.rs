//! An independent watch of one namespace and one node: each version of each run, injection and object that they touch, past
//! no proxy.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::{
    api::{Lines, Server},
    history::Version,
    names,
    shared::Shared,
    stream,
};

/// What is watched: resource and path before the namespace.
const WATCHED: [(&str, &str); 6] = [
    ("soakruns", "/apis/soak.dev/v1alpha1"),
    ("failureinjections", "/apis/soak.dev/v1alpha1"),
    ("pods", "/api/v1"),
    ("configmaps", "/api/v1"),
    ("deployments", "/apis/apps/v1"),
    ("networkpolicies", "/apis/networking.k8s.io/v1"),
];

const FIRST_TRIES: u32 = 100;
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// Begins to watch; everything from here on is recorded until the set is dropped.
pub async fn watch(server: &Server, namespace: &str, node: &str, shared: &Arc<Shared>) -> Result<JoinSet<()>> {
    let mut tasks = JoinSet::new();
    let inside = WATCHED.map(|(resource, root)| (resource, format!("{root}/namespaces/{namespace}/{resource}")));
    let outside = ("nodes", format!("/api/v1/nodes?fieldSelector=metadata.name={node}"));
    for (resource, path) in inside.into_iter().chain([outside]) {
        let version = first_list(server, &path, resource, shared).await?;
        let (server, shared) = (server.clone(), shared.clone());
        tasks.spawn(async move { follow(&server, &path, resource, version, &shared).await });
    }
    Ok(tasks)
}

/// The list that a session begins with: a kind that has just been installed is not served at once.
async fn first_list(server: &Server, path: &str, resource: &'static str, shared: &Shared) -> Result<String> {
    for _ in 0..FIRST_TRIES {
        if let Ok(version) = list(server, path, resource, shared).await {
            return Ok(version);
        }
        tokio::time::sleep(AGAIN_AFTER).await;
    }
    list(server, path, resource, shared).await
}

/// Notes what is there, and that of what was there before the rest is gone.
async fn list(server: &Server, path: &str, resource: &'static str, shared: &Shared) -> Result<String> {
    let list = server.get(path).await?.with_context(|| format!("{path} is not served"))?;
    let mut present = BTreeSet::new();
    for item in list["items"].as_array().into_iter().flatten() {
        present.insert(names::text(&item["metadata"]["uid"]).to_owned());
        note(resource, "ADDED", item.clone(), shared);
    }
    for known in shared.recorder.with(|history| history.newest(resource)) {
        if !known.gone && !present.contains(known.uid()) {
            note(resource, "DELETED", known.object, shared);
        }
    }
    Ok(names::text(&list["metadata"]["resourceVersion"]).to_owned())
}

async fn follow(server: &Server, path: &str, resource: &'static str, mut version: String, shared: &Shared) {
    loop {
        let mut lines = Lines::default();
        let mut expired = false;
        if let Ok(mut body) = server.watch(path, &version).await {
            expired = body.status() == 410;
            while let Ok(Some(piece)) = body.chunk().await {
                for line in lines.feed(&piece) {
                    let Some((type_, object)) = stream::event(&line) else { continue };
                    if type_ == "ERROR" {
                        expired |= object["code"] == 410;
                        continue;
                    }
                    names::text(&object["metadata"]["resourceVersion"]).clone_into(&mut version);
                    note(resource, &type_, object, shared);
                }
            }
        }
        tokio::time::sleep(AGAIN_AFTER).await;
        if expired {
            // Before the list, since what it finds gone may lack the versions before.
            shared.recorder.gap();
            if let Ok(now) = list(server, path, resource, shared).await {
                version = now;
            }
        }
    }
}

fn note(resource: &'static str, type_: &str, object: Value, shared: &Shared) {
    if matches!(type_, "ADDED" | "MODIFIED" | "DELETED") {
        let at = shared.recorder.now();
        shared.recorder.version(Version { at, resource, gone: type_ == "DELETED", object });
    }
}
