//! The pod of an attempt: the short form, the template merged over it, and what is ours in any case.

use serde_json::{Map, Value, json};

use super::{
    manifest::{as_object, coerce_texts, merge},
    pod_artifacts,
};
use crate::api::{names::label, step::PodStep};

/// Where short-form files are mounted.
const FILES_PATH: &str = "/soak/files";
const FILES_VOLUME: &str = "soak-files";
/// Name of the first container, unless the template gives another.
const MAIN: &str = "main";
/// What all files of a pod may take together; annotations end at 262,144 bytes in all.
const MAX_FILES_BYTES: usize = 200_000;

/// Everything that a pod is built from and that is not in its step.
pub(super) struct PodParts<'a> {
    pub(super) name: String,
    pub(super) namespace: &'a str,
    /// None on another cluster, which does not know the run.
    pub(super) owner: Option<Value>,
    /// None where the namespace's default account runs pods.
    pub(super) service_account: Option<&'a str>,
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) annotations: Vec<(&'static str, String)>,
    pub(super) env: Vec<(&'static str, String)>,
    pub(super) deadline_seconds: u64,
    /// The operator's own image, if it is known.
    pub(super) helper_image: Option<&'a str>,
}

/// Builds the manifest of a pod from a step whose expressions have been replaced.
///
/// `pod` is the step as JSON: a single expression may have become a number where a text is needed, which is put right.
/// Errors: the field that can't be used, and why.
pub(super) fn build(mut pod: Value, parts: PodParts<'_>) -> Result<Value, String> {
    for list in ["command", "args"] {
        coerce_texts(pod.get_mut(list));
    }
    coerce_texts(pod.get_mut("files"));
    for field in ["image", "resultsFile"] {
        if let Some(value) = pod.get_mut(field) {
            super::manifest::coerce_text(value);
        }
    }
    if let Some(artifacts) = pod.get_mut("artifacts") {
        pod_artifacts::coerce(artifacts);
    }
    let PodStep { target: _, image, command, args, env, resources, files, results_file, artifacts, template } =
        serde_json::from_value(pod).map_err(|error| error.to_string())?;

    let mut main = Map::from_iter([("name".to_owned(), json!(MAIN))]);
    let mut put = |field: &str, value: Value| main.insert(field.to_owned(), value);
    if let Some(image) = image {
        put("image", json!(image));
    }
    if !command.is_empty() {
        put("command", json!(command));
    }
    if !args.is_empty() {
        put("args", json!(args));
    }
    if !env.is_empty() {
        put("env", json!(env));
    }
    if let Some(resources) = resources {
        put("resources", resources);
    }
    put("terminationMessagePolicy", json!("File"));
    let mut base = json!({"metadata": {}, "spec": {"containers": []}});
    if !files.is_empty() {
        put("volumeMounts", json!([{"name": FILES_VOLUME, "mountPath": FILES_PATH, "readOnly": true}]));
        add_files(&mut base, &files)?;
    }
    base["spec"]["containers"] = json!([main]);

    let mut manifest = match template {
        Some(template) => with_template(base, template)?,
        None => base,
    };
    let helper_image = parts.helper_image;
    own(&mut manifest, parts, results_file);
    if let Some(artifacts) = artifacts {
        pod_artifacts::add(&mut manifest, &artifacts, helper_image)?;
    }
    Ok(manifest)
}

/// Files travel as annotations: no object of their own has to be made, owned and cleaned up.
fn add_files(base: &mut Value, files: &std::collections::BTreeMap<String, String>) -> Result<(), String> {
    let bytes: usize = files.iter().map(|(name, text)| name.len() + text.len()).sum();
    if bytes > MAX_FILES_BYTES {
        return Err(format!(
            "files: {bytes} bytes in all; at most {MAX_FILES_BYTES} fit: put them into the image or a ConfigMap"
        ));
    }
    let mut items = Vec::new();
    let mut annotations = Map::new();
    for (name, text) in files {
        let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        let good = name.len() <= 63
            && edge(name.chars().next())
            && edge(name.chars().next_back())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'));
        if !good {
            return Err(format!(
                "files: `{name}` is not a file name of at most 63 letters, digits, -, _ and . that begins and ends with a letter or digit"
            ));
        }
        let annotation = format!("{}{name}", label::FILE_PREFIX);
        items.push(json!({"path": name, "fieldRef": {"fieldPath": format!("metadata.annotations['{annotation}']")}}));
        annotations.insert(annotation, json!(text));
    }
    base["metadata"]["annotations"] = Value::Object(annotations);
    // 0555: a script can be run as it is.
    base["spec"]["volumes"] = json!([{"name": FILES_VOLUME, "downwardAPI": {"defaultMode": 0o555, "items": items}}]);
    Ok(())
}

/// Merges the template over the base; its first container goes over ours, whatever its name.
fn with_template(mut base: Value, mut template: Value) -> Result<Value, String> {
    let fields = template.as_object().ok_or("template: not an object")?;
    if let Some(unknown) =
        fields.keys().find(|field| !matches!(field.as_str(), "metadata" | "spec" | "apiVersion" | "kind"))
    {
        return Err(format!("template.{unknown}: a pod template has metadata and spec"));
    }
    if let Some(containers) = template.pointer_mut("/spec/containers").and_then(Value::as_array_mut)
        && let Some(first) = containers.first_mut()
    {
        if first.get("name").is_none() {
            first["name"] = json!(MAIN);
        }
        let name = first["name"].clone();
        base["spec"]["containers"][0]["name"] = name;
    }
    merge(&mut base, template);
    Ok(base)
}

/// Sets what a template can't change.
fn own(manifest: &mut Value, parts: PodParts<'_>, results_file: Option<String>) {
    let PodParts {
        name,
        namespace,
        owner,
        service_account,
        labels,
        annotations,
        env,
        deadline_seconds,
        helper_image: _,
    } = parts;
    manifest["apiVersion"] = json!("v1");
    manifest["kind"] = json!("Pod");
    let metadata = as_object(&mut manifest["metadata"]);
    metadata.remove("generateName");
    metadata.insert("name".into(), json!(name));
    metadata.insert("namespace".into(), json!(namespace));
    metadata.insert("ownerReferences".into(), json!(owner.into_iter().collect::<Vec<_>>()));
    let map = as_object(metadata.entry("labels").or_insert(Value::Null));
    map.extend(labels.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    let map = as_object(metadata.entry("annotations").or_insert(Value::Null));
    map.extend(annotations.into_iter().map(|(key, value)| (key.to_owned(), json!(value))));
    coerce_texts(metadata.get_mut("labels"));
    coerce_texts(metadata.get_mut("annotations"));

    let spec = as_object(&mut manifest["spec"]);
    // The operator owns retries: a container that is started again would run twice under one name.
    spec.insert("restartPolicy".into(), json!("Never"));
    if let Some(account) = service_account {
        spec.entry("serviceAccountName").or_insert(json!(account));
    }
    // The kubelet keeps this deadline even while the operator is down.
    let own_deadline = spec.get("activeDeadlineSeconds").and_then(Value::as_u64).unwrap_or(u64::MAX);
    spec.insert("activeDeadlineSeconds".into(), json!(deadline_seconds.max(1).min(own_deadline)));
    if let (Some(path), Some(main)) =
        (results_file, spec.get_mut("containers").and_then(|containers| containers.get_mut(0)))
    {
        main["terminationMessagePath"] = json!(path);
    }
    for list in ["containers", "initContainers"] {
        for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
            add_env(container, &env);
            coerce_texts(container.get_mut("command"));
            coerce_texts(container.get_mut("args"));
        }
    }
}

/// Puts the attempt's coordinates in front of a container's environment, so that its own entries can refer to them.
pub(super) fn add_env(container: &mut Value, env: &[(&'static str, String)]) {
    if !container.is_object() {
        return;
    }
    let theirs = container.get_mut("env").and_then(Value::as_array_mut).map(std::mem::take).unwrap_or_default();
    let mut all: Vec<Value> = env.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
    for mut entry in theirs {
        if env.iter().any(|(name, _)| entry["name"] == *name) {
            continue;
        }
        if let Some(value) = entry.get_mut("value") {
            super::manifest::coerce_text(value);
        }
        all.push(entry);
    }
    container["env"] = Value::Array(all);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> PodParts<'static> {
        PodParts {
            name: "run-load-c3-0123456789".into(),
            namespace: "team",
            owner: Some(json!({"kind": "SoakRun", "name": "run", "uid": "u", "controller": true})),
            service_account: Some("soak"),
            labels: vec![(label::RUN_UID, "u".into()), (label::STEP, "load".into())],
            annotations: vec![(label::STEP, "load".into())],
            env: vec![("SOAK_RUN", "run".into()), ("SOAK_CYCLE", "3".into())],
            deadline_seconds: 90,
            helper_image: None,
        }
    }

    #[test]
    fn the_short_form_gives_a_whole_pod() {
        let pod = build(
            json!({"image": "i", "args": ["--cycle", 3], "files": {"run.sh": "echo"}, "resultsFile": "/out"}),
            parts(),
        )
        .unwrap();
        let main = &pod["spec"]["containers"][0];
        assert_eq!(main["args"], json!(["--cycle", "3"]), "a single expression becomes a text again");
        assert_eq!(main["terminationMessagePath"], "/out");
        assert_eq!(main["env"][1], json!({"name": "SOAK_CYCLE", "value": "3"}));
        assert_eq!(pod["spec"]["restartPolicy"], "Never");
        assert_eq!(pod["spec"]["serviceAccountName"], "soak");
        assert_eq!(pod["spec"]["activeDeadlineSeconds"], 90);
        assert_eq!(pod["metadata"]["annotations"]["files.soak.dev/run.sh"], "echo");
        assert_eq!(pod["spec"]["volumes"][0]["downwardAPI"]["defaultMode"], 0o555);
        assert!(pod["spec"].get("automountServiceAccountToken").is_none());
        assert!(pod["metadata"]["ownerReferences"][0].get("blockOwnerDeletion").is_none());
    }

    #[test]
    fn a_template_goes_over_the_short_form_but_not_over_what_is_ours() {
        let template = json!({
            "metadata": {"name": "mine", "namespace": "other", "labels": {"soak.dev/run-uid": "forged", "team": "a"}, "ownerReferences": []},
            "spec": {
                "restartPolicy": "Always", "serviceAccountName": "builder", "activeDeadlineSeconds": 30,
                "containers": [
                    {"name": "k6", "env": [{"name": "SOAK_CYCLE", "value": "99"}, {"name": "B", "value": "2"}], "resources": {"limits": {"cpu": "1"}}},
                    {"name": "sidecar", "image": "s"}],
                "volumes": [{"name": "data", "emptyDir": {}}],
            },
        });
        let step = json!({"image": "i", "env": [{"name": "A", "value": "1"}], "files": {"f": "x"}, "resources": {"requests": {"cpu": "1"}}, "template": template});
        let pod = build(step, parts()).unwrap();
        let metadata = &pod["metadata"];
        assert_eq!((&metadata["name"], &metadata["namespace"]), (&json!("run-load-c3-0123456789"), &json!("team")));
        assert_eq!(metadata["labels"]["soak.dev/run-uid"], "u");
        assert_eq!(metadata["labels"]["team"], "a");
        assert_eq!(metadata["ownerReferences"][0]["kind"], "SoakRun");
        let spec = &pod["spec"];
        assert_eq!(
            (&spec["restartPolicy"], &spec["serviceAccountName"], &spec["activeDeadlineSeconds"]),
            (&json!("Never"), &json!("builder"), &json!(30))
        );
        let containers = spec["containers"].as_array().unwrap();
        assert_eq!(containers.len(), 2);
        assert_eq!((&containers[0]["name"], &containers[0]["image"]), (&json!("k6"), &json!("i")));
        assert_eq!(containers[0]["resources"], json!({"limits": {"cpu": "1"}, "requests": {"cpu": "1"}}));
        let names: Vec<&str> =
            containers[0]["env"].as_array().unwrap().iter().filter_map(|entry| entry["name"].as_str()).collect();
        assert_eq!(names, ["SOAK_RUN", "SOAK_CYCLE", "A", "B"]);
        assert_eq!(containers[0]["env"][1]["value"], "3", "a template can't change the coordinates");
        assert_eq!(containers[1]["env"][0]["name"], "SOAK_RUN");
        assert_eq!(spec["volumes"].as_array().unwrap().len(), 2);
    }

    #[test]
    fn what_can_not_work_names_its_field() {
        assert!(build(json!({"image": "i", "files": {"../x": ""}}), parts()).unwrap_err().contains("files: `../x`"));
        assert!(
            build(json!({"image": "i", "files": {"x": "y".repeat(300_000)}}), parts()).unwrap_err().contains("200000")
        );
        assert!(build(json!({"template": {"specs": {}}}), parts()).unwrap_err().contains("template.specs"));
    }
}
