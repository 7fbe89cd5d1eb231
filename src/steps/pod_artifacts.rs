//! What a pod gets so that its files can be kept: a folder, and the operator's own program beside it.

use serde_json::{Value, json};

use super::{
    manifest::{coerce_text, coerce_texts},
    pod_manifest::add_env,
};
use crate::{
    api::{
        names::ARTIFACTS_CONTAINER,
        step::{Artifacts, DEFAULT_DIRECTORY},
    },
    helper::{PROGRAM, artifacts::Glob},
};

/// The volume of the folder.
const VOLUME: &str = "soak-artifacts";
/// Beyond this the kubelet evicts the pod, so that a node's disk is not filled.
const SIZE_LIMIT: &str = "1Gi";
/// The program's user where the pod's own is root.
const USER: u64 = 65_532;

/// Puts right what single expressions have become in a step as JSON.
pub(super) fn coerce(artifacts: &mut Value) {
    coerce_texts(artifacts.get_mut("paths"));
    if let Some(directory) = artifacts.get_mut("directory") {
        coerce_text(directory);
    }
}

/// Adds to a pod that is complete otherwise what keeps its artifacts.
///
/// The program is a native sidecar, and the last of them: the kubelet ends it right after the step's container, before all others.
/// It needs no rights and gets none. Errors: the field that can't be used, and why.
pub(super) fn add(pod: &mut Value, artifacts: &Artifacts, image: Option<&str>) -> Result<(), String> {
    let Artifacts { directory, paths, max_bytes: _ } = artifacts;
    let image = image.ok_or(
        "artifacts: the operator does not know the image of its own that reads them: an administrator names it with --helper-image",
    )?;
    let directory = directory.as_deref().unwrap_or(DEFAULT_DIRECTORY);
    if !directory.starts_with('/') || directory.split('/').any(|part| part == "..") || directory.contains(':') {
        return Err(format!("artifacts.directory: `{directory}` is no absolute path, such as {DEFAULT_DIRECTORY}"));
    }
    for (index, path) in paths.iter().enumerate() {
        path.parse::<Glob>().map_err(|problem| format!("artifacts.paths[{index}]: {problem}"))?;
    }
    let mut command = vec![PROGRAM.to_owned(), "artifacts".into(), "--folder".into(), DEFAULT_DIRECTORY.into()];
    command.extend(["--max-bytes".into(), artifacts.max_bytes().to_string()]);
    // As one word, so that a pattern that begins with a dash is no option.
    command.extend(paths.iter().map(|path| format!("--path={path}")));

    let (user, group) = (owner(pod, "runAsUser"), owner(pod, "runAsGroup"));
    let main = pod.pointer_mut("/spec/containers/0").ok_or("template.spec.containers: a pod has one at least")?;
    add_env(main, &[("SOAK_ARTIFACTS", directory.to_owned())]);
    push(main, "volumeMounts", json!({"name": VOLUME, "mountPath": directory}));
    let spec = &mut pod["spec"];
    push(spec, "volumes", json!({"name": VOLUME, "emptyDir": {"sizeLimit": SIZE_LIMIT}}));
    let mut security = json!({
        "runAsNonRoot": true, "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    for (field, id) in [("runAsUser", user), ("runAsGroup", group)] {
        if let Some(id) = id {
            security[field] = json!(id);
        }
    }
    push(
        spec,
        "initContainers",
        json!({
            "name": ARTIFACTS_CONTAINER,
            "image": image,
            "command": command,
            "restartPolicy": "Always",
            "resources": {"requests": {"cpu": "5m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
            "securityContext": security,
            "volumeMounts": [{"name": VOLUME, "mountPath": DEFAULT_DIRECTORY, "readOnly": true}],
        }),
    );
    Ok(())
}

/// As whom the program runs where the pod tells as whom its first container does: files that only their owner may read are read by
/// their owner, but for root. None: as the image says, or as admission decides for all containers alike.
fn owner(pod: &Value, field: &str) -> Option<u64> {
    let places = ["/spec/containers/0/securityContext", "/spec/securityContext"];
    let told = places.iter().find_map(|place| pod.pointer(place)?.get(field)?.as_u64())?;
    Some(if told == 0 { USER } else { told })
}

fn push(object: &mut Value, list: &str, item: Value) {
    match &mut object[list] {
        Value::Array(items) => items.push(item),
        other => *other = json!([item]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::helper;

    fn pod() -> Value {
        json!({"spec": {
            "containers": [
                {"name": "main", "env": [{"name": "A", "value": "1"}], "securityContext": {"runAsUser": 1000}},
                {"name": "other"}],
            "initContainers": [{"name": "theirs"}],
        }})
    }

    #[test]
    fn the_program_understands_what_its_pod_tells_it() {
        let artifacts = Artifacts {
            directory: Some("/results".into()),
            paths: vec!["*.json".into(), "-odd/**".into()],
            max_bytes: Some(77),
        };
        let mut pod = pod();
        add(&mut pod, &artifacts, Some("own:1")).unwrap();
        let spec = &pod["spec"];
        assert_eq!(spec["containers"][0]["volumeMounts"][0]["mountPath"], "/results");
        assert_eq!(spec["containers"][0]["env"][0], json!({"name": "SOAK_ARTIFACTS", "value": "/results"}));
        assert_eq!(spec["containers"][0]["env"][1]["name"], "A");
        assert!(spec["containers"][1].get("volumeMounts").is_none());
        let helper = &spec["initContainers"][1];
        assert_eq!((&helper["image"], &helper["restartPolicy"]), (&json!("own:1"), &json!("Always")));
        assert_eq!(helper["securityContext"]["runAsUser"], 1000, "whose the files are");
        assert_eq!(helper["volumeMounts"][0]["readOnly"], true);
        let helper::Command::Artifacts(told) = helper::parsed(&helper["command"]).unwrap() else {
            panic!("not the program for artifacts");
        };
        assert_eq!((told.folder.to_str(), told.max_bytes), (Some(DEFAULT_DIRECTORY), 77));
        assert!(told.paths[1].matches("-odd/a/b") && told.paths[0].matches("x.json"));
    }

    #[test]
    fn root_is_never_taken() {
        let mut pod = pod();
        pod["spec"]["containers"][0]["securityContext"]["runAsUser"] = json!(0);
        add(&mut pod, &Artifacts::default(), Some("own:1")).unwrap();
        assert_eq!(pod["spec"]["initContainers"][1]["securityContext"]["runAsUser"], USER);
        let mut silent = json!({"spec": {"containers": [{"name": "main"}]}});
        add(&mut silent, &Artifacts::default(), Some("own:1")).unwrap();
        let security = &silent["spec"]["initContainers"][0]["securityContext"];
        assert!(security.get("runAsUser").is_none() && security["runAsNonRoot"] == true, "the image's, or admission's");
    }

    #[test]
    fn what_can_not_work_names_its_field() {
        for (artifacts, image, expected) in [
            (Artifacts::default(), None, "--helper-image"),
            (Artifacts { directory: Some("results".into()), ..Artifacts::default() }, Some("i"), "artifacts.directory"),
            (
                Artifacts { paths: vec!["*".into(), "../x".into()], ..Artifacts::default() },
                Some("i"),
                "artifacts.paths[1]",
            ),
        ] {
            let problem = add(&mut pod(), &artifacts, image).unwrap_err();
            assert!(problem.contains(expected), "{problem}");
        }
    }
}
