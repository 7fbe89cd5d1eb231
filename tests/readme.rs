//! What the README shows is accepted by the server and by the operator.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use serde_json::Value;
use soak_operator::{api::SoakRun, engine::plan::Plan};
use support::Namespace;

#[tokio::test]
async fn the_run_in_the_readme_is_accepted() {
    let text = include_str!("../README.md");
    let example = text.split("```yaml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut run: Value = serde_yaml_ng::from_str(example).unwrap();
    let parsed: SoakRun = serde_json::from_value(run.clone()).unwrap();
    Plan::parse(&parsed.spec).unwrap();

    let namespace = Namespace::create("readme").await;
    run["metadata"]["namespace"] = namespace.name.clone().into();
    let uri = format!("/apis/soak.dev/v1alpha1/namespaces/{}/soakruns?fieldValidation=Strict", namespace.name);
    let request = http::Request::post(uri).body(serde_json::to_vec(&run).unwrap()).unwrap();
    namespace.client.request::<Value>(request).await.unwrap();
    namespace.delete().await;
}
