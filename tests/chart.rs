//! The chart installs an operator that works under its own rights, and leaves nothing behind.
#![allow(clippy::unwrap_used, clippy::panic)]

mod support;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use k8s_openapi::{
    api::{apps::v1::Deployment, coordination::v1::Lease, core::v1::Pod},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, Discovery, ResourceExt,
    api::{DynamicObject, ListParams},
    discovery::{Scope, verbs},
};
use serde_json::json;
use soak_operator::api::status::RunPhase;
use support::{Namespace, kubeconfig, operator_image, script, wait_for};

/// A file or folder of the checkout.
fn of_checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn helm_program() -> PathBuf {
    let helm = env::var_os("SOAK_TEST_HELM").map_or_else(|| PathBuf::from("/tmp/bin/helm"), PathBuf::from);
    assert!(helm.exists(), "{} is not there: set SOAK_TEST_HELM to helm 3 or newer", helm.display());
    helm
}

/// Runs helm; panics with what it says when it fails.
async fn helm(arguments: &[&str]) -> String {
    let mut command = Command::new(helm_program());
    command.args(arguments).env("KUBECONFIG", kubeconfig());
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    good(&format!("helm {}", arguments.join(" ")), &output)
}

fn good(what: &str, output: &Output) -> String {
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what} ended with {}:\n{out}{err}", output.status);
    out.into_owned()
}

/// Every object of the cluster that carries the release's label, as `Kind namespace/name`.
async fn objects_of_release(client: &Client, release: &str) -> Vec<String> {
    let discovery = Discovery::new(client.clone()).run().await.unwrap();
    let selector = ListParams::default().labels(&format!("app.kubernetes.io/instance={release}"));
    let mut found = Vec::new();
    for (resource, capabilities) in discovery.groups().flat_map(kube::discovery::ApiGroup::recommended_resources) {
        // What nobody deletes: events and metrics are no objects of a release.
        if !capabilities.supports_operation(verbs::LIST) || !capabilities.supports_operation(verbs::DELETE) {
            continue;
        }
        let api: Api<DynamicObject> = Api::all_with(client.clone(), &resource);
        let namespaced = capabilities.scope == Scope::Namespaced;
        // A kind may go while it is listed: another test's CRD.
        for object in api.list(&selector).await.map(|list| list.items).unwrap_or_default() {
            let namespace = if namespaced { object.namespace().unwrap_or_default() } else { String::new() };
            found.push(format!("{} {namespace}/{}", resource.kind, object.name_any()));
        }
    }
    found
}

/// The values of the tests: the image that is loaded, one tenant, names that no other release has.
fn values(image: &str, tenant: &str) -> Vec<String> {
    let (repository, tag) = image.rsplit_once(':').expect("SOAK_TEST_IMAGE has a tag");
    [
        &format!("image.repository={repository}"),
        &format!("image.tag={tag}"),
        "image.pullPolicy=Never",
        // Other tests share the cluster: their runs, their CRD and the roles for people are not this release's.
        &format!("watchNamespace={tenant}"),
        &format!("rbac.tenantNamespaces={{{tenant}}}"),
        "rbac.aggregate=false",
        "crds.install=false",
    ]
    .into_iter()
    .flat_map(|value| ["--set".to_owned(), value.to_owned()])
    .collect()
}

#[tokio::test]
async fn the_chart_installs_an_operator_that_drives_a_run_and_leaves_nothing_behind() {
    let image = operator_image();
    let system = Namespace::create("chart").await;
    let tenant = Namespace::create("chart-tenant").await;
    let release = system.name.as_str();
    let values = values(&image, &tenant.name);
    let mut arguments = vec!["install", release, "", "--namespace", release, "--wait", "--timeout", "90s"];
    let chart = of_checkout("charts/soak-operator").display().to_string();
    arguments[2] = &chart;
    arguments.extend(values.iter().map(String::as_str));
    helm(&arguments).await;

    let deployments: Api<Deployment> = Api::namespaced(system.client.clone(), release);
    let deployment = deployments.list(&ListParams::default()).await.unwrap().items.remove(0);
    assert_eq!(deployment.status.unwrap().ready_replicas, Some(1));
    let pods: Api<Pod> = Api::namespaced(system.client.clone(), release);
    let pod = pods.list(&ListParams::default()).await.unwrap().items.remove(0);
    let pod_name = pod.name_any();
    let spec = pod.spec.unwrap();
    assert_eq!(spec.security_context.unwrap().run_as_non_root, Some(true));
    assert_eq!(spec.containers[0].security_context.as_ref().unwrap().read_only_root_filesystem, Some(true));
    let leases: Api<Lease> = Api::namespaced(system.client.clone(), release);
    let holder = leases.get("soak-operator").await.unwrap().spec.unwrap().holder_identity;
    assert_eq!(holder.as_deref(), Some(pod_name.as_str()));

    let step = |text: &str| json!([{"name": "one", "pod": script(text)}]);
    tenant
        .run("good", json!({
            "cycles": 2,
            "setup": step("true"),
            "phases": [{"name": "work", "steps": [
                {"name": "load", "background": true, "pod": script("trap 'exit 0' TERM; while true; do sleep 0.1; done")},
                {"name": "say", "pod": script("echo '{\"answer\": 42}' > /dev/termination-log")},
            ]}],
            "cleanup": step("true"),
        }))
        .await;
    tenant.run("bad", json!({"phases": [{"name": "work", "steps": step("exit 3")}]})).await;
    // A run elsewhere is none of this operator's.
    system.run("elsewhere", json!({"phases": [{"name": "work", "steps": step("true")}]})).await;
    let good = tenant.ended("good").await;
    let status = good.status.as_ref().unwrap();
    assert_eq!((status.phase, status.cycles.passed), (RunPhase::Succeeded, 2), "{status:#?}");
    let record = &tenant.records(&good, "cycle").await[0];
    assert_eq!(record["phases"][0]["steps"][1]["outputs"]["answer"], 42, "{record:#}");
    assert_eq!(tenant.ended("bad").await.status.unwrap().phase, RunPhase::Failed);
    assert!(system.runs().get("elsewhere").await.unwrap().status.is_none());

    // Its rights were enough: nothing was refused.
    let log = pods.logs(&pod_name, &kube::api::LogParams::default()).await.unwrap();
    assert!(!log.to_lowercase().contains("forbidden"), "{log}");
    tenant.runs().delete("good", &kube::api::DeleteParams::background()).await.unwrap();
    wait_for("the run's end", || async { tenant.runs().get_opt("good").await.ok()?.is_none().then_some(()) }).await;

    assert!(objects_of_release(&system.client, release).await.len() > 8);
    helm(&["uninstall", release, "--namespace", release, "--wait", "--timeout", "90s"]).await;
    wait_for("the end of everything of the release", || async {
        objects_of_release(&system.client, release).await.is_empty().then_some(())
    })
    .await;
    let crds: Api<CustomResourceDefinition> = Api::all(system.client.clone());
    assert!(crds.get_opt("soakruns.soak.dev").await.unwrap().is_some(), "the release did not own it");
    tenant.delete().await;
    system.delete().await;
}

/// What the chart renders, one object after the other.
async fn rendered(arguments: &[&str]) -> String {
    let chart = of_checkout("charts/soak-operator").display().to_string();
    let mut all = vec!["template", "soak-operator", &chart, "--namespace", "soak-system"];
    all.extend(arguments);
    helm(&all).await
}

#[tokio::test]
async fn the_crds_and_the_policy_are_kept_removed_or_left_out_as_the_values_say() {
    // Told by what is rendered: the cluster's CRD is shared with the other tests, and removing it would remove their runs.
    let keep = "helm.sh/resource-policy: keep";
    let (crd, policy) = ("\nkind: CustomResourceDefinition\n", "\nkind: ValidatingAdmissionPolicy");
    let all = soak_operator::api::crds().len();
    let policies = soak_operator::api::admission().len();
    let kept = rendered(&[]).await;
    let found = |text: &str| (text.matches(crd).count(), text.matches(policy).count(), text.matches(keep).count());
    assert_eq!(found(&kept), (all, policies, all + policies));
    let removed = rendered(&["--set", "crds.keep=false"]).await;
    assert_eq!(found(&removed), (all, policies, 0));
    let none = rendered(&["--set", "crds.install=false"]).await;
    assert_eq!(found(&none), (0, 0, 0));
}

#[tokio::test]
async fn the_server_accepts_everything_that_the_chart_can_render() {
    let namespace = Namespace::create("chart").await;
    let chart = of_checkout("charts/soak-operator").display().to_string();
    let all = [
        "--set=replicas=2",
        "--set=crds.install=false",
        "--set=rbac.aggregate=false",
        "--set=metrics.service.annotations.a=b",
        "--set=podAnnotations.a=b",
        "--set=nodeSelector.a=b",
        "--set=priorityClassName=x",
    ];
    let mut arguments = vec!["install", &namespace.name, &chart, "--namespace", &namespace.name, "--dry-run=server"];
    arguments.extend(all);
    let text = helm(&arguments).await;
    assert!(text.contains("kind: PodDisruptionBudget"), "{text}");
    namespace.delete().await;
}

#[tokio::test]
async fn the_watched_namespace_is_given_only_when_there_is_one() {
    assert!(!rendered(&[]).await.contains("SOAK_WATCH_NAMESPACE"));
    let one = rendered(&["--set", "watchNamespace=team-a"]).await;
    assert!(one.contains("- name: SOAK_WATCH_NAMESPACE\n              value: \"team-a\"\n"), "{one}");
}

#[tokio::test]
async fn stores_get_the_identity_and_the_volume_that_are_allowed() {
    let none = rendered(&[]).await;
    assert!(!none.contains("SOAK_STORE_") && !none.contains("volumes:") && !none.contains("fsGroup"), "{none}");
    let both = rendered(&[
        "--set=results.identity={s3://soak/nightly,gs://other}",
        "--set=results.volume.persistentVolumeClaim.claimName=soak-results",
        "--set=extraEnvFrom[0].secretRef.name=proxy",
    ])
    .await;
    for part in [
        "- name: SOAK_STORE_IDENTITY\n              value: \"s3://soak/nightly,gs://other\"\n",
        "- name: SOAK_STORE_VOLUME\n              value: /var/lib/soak-results\n",
        "mountPath: /var/lib/soak-results\n",
        "- name: results\n          persistentVolumeClaim:\n            claimName: soak-results\n",
        "fsGroup: 65532\n",
        "envFrom:\n            - secretRef:\n                name: proxy\n",
    ] {
        assert!(both.contains(part), "{part}: {both}");
    }
}

#[test]
fn the_manifests_in_deploy_are_what_the_chart_renders() {
    let output = Command::new("sh")
        .arg(of_checkout("deploy/generate.sh"))
        .arg("--check")
        .env("HELM", helm_program())
        .output()
        .unwrap();
    good("deploy/generate.sh --check", &output);
}

#[test]
fn kustomize_builds_deploy_with_its_crds() {
    let kubectl = env::var("SOAK_TEST_KUBECTL").unwrap_or_else(|_| "kubectl".into());
    let output = Command::new(&kubectl).arg("kustomize").arg(of_checkout("deploy")).output();
    let output = output.unwrap_or_else(|error| panic!("{kubectl} can't be started ({error}): set SOAK_TEST_KUBECTL"));
    let text = good("kubectl kustomize deploy", &output);
    let crds = soak_operator::api::crds();
    let crds = crds.iter().map(|crd| format!("name: {}\n", crd["metadata"]["name"].as_str().unwrap()));
    let kinds = ["Namespace", "Deployment", "Service", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"];
    for object in crds.chain(kinds.map(|kind| format!("kind: {kind}\n"))) {
        assert!(text.contains(&object), "{object} is missing");
    }
}
