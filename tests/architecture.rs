//! The import rule of docs/architecture.md: modules depend downward only.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each module and what it may use of the crate.
const RULE: &[(&str, &[&str])] = &[
    ("api", &[]),
    ("analysis", &[]),
    ("telemetry", &[]),
    ("request", &[]),
    ("helper", &[]),
    ("engine", &["api", "analysis"]),
    ("results", &["api"]),
    ("report", &["api", "results", "analysis"]),
    ("cluster", &["api", "request"]),
    ("steps", &["api", "cluster", "engine", "request", "helper"]),
    ("faults", &["api", "cluster", "engine", "request", "helper"]),
    ("monitors", &["api", "cluster", "engine", "request"]),
    (
        "controller",
        &["api", "analysis", "telemetry", "engine", "results", "cluster", "steps", "faults", "monitors", "helper"],
    ),
    (
        "operator",
        &[
            "api",
            "analysis",
            "telemetry",
            "engine",
            "results",
            "report",
            "cluster",
            "steps",
            "faults",
            "controller",
            "helper",
            "request",
        ],
    ),
    ("cli", &["api", "results", "report", "cluster"]),
];

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Modules that a source names as `crate::MODULE`, or in a list `crate::{…}`.
fn used(text: &str) -> Vec<String> {
    let mut modules = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        if let Some(list) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut name = String::new();
            for c in list.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    _ => {}
                }
                if depth == 0 && (c.is_alphanumeric() || c == '_') {
                    name.push(c);
                } else if depth == 0 && c == ',' {
                    modules.push(std::mem::take(&mut name));
                } else if c == ':' && !name.is_empty() && depth == 0 {
                    modules.push(name.clone());
                    name.clear();
                }
            }
            modules.push(name);
        } else {
            modules.push(rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect());
        }
    }
    modules.retain(|name| RULE.iter().any(|(module, _)| module == name));
    modules
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut checked = 0;
    for (module, allowed) in RULE {
        let mut files = Vec::new();
        if root.join(module).is_dir() {
            sources(&root.join(module), &mut files);
        } else {
            files.push(root.join(format!("{module}.rs")));
        }
        // A module may also be a file beside its folder.
        let beside = root.join(format!("{module}.rs"));
        if beside.exists() && !files.contains(&beside) {
            files.push(beside);
        }
        for file in files {
            for name in used(&fs::read_to_string(&file).unwrap()) {
                checked += 1;
                assert!(
                    name == *module || allowed.contains(&name.as_str()),
                    "{} uses {name}, which {module} may not",
                    file.display()
                );
            }
        }
    }
    assert!(checked > 50, "the check has found {checked} uses only: does it still see them?");
}

#[test]
fn the_engine_does_no_io_and_reads_no_clock() {
    let mut files = Vec::new();
    sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine"), &mut files);
    for file in files.iter().filter(|file| !file.components().any(|part| part.as_os_str() == "tests")) {
        let text = fs::read_to_string(file).unwrap();
        for forbidden in [
            "Utc::now",
            "Instant::now",
            "SystemTime",
            "std::fs",
            "std::net",
            "tokio::",
            "kube::Client",
            "fastrand",
            "rand::",
        ] {
            assert!(!text.contains(forbidden), "{} uses {forbidden}", file.display());
        }
    }
}

#[test]
fn lists_and_paths_are_both_seen() {
    assert_eq!(used("use crate::{api::{Duration, Phase}, engine::Plan, text};"), ["api", "engine"]);
    assert_eq!(used("crate::steps::begin(); use crate::cluster;"), ["steps", "cluster"]);
}
