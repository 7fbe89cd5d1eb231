//! Files that are made from the code: CRDs, and schemas of records. A test fails when they are stale.

use std::{fs, path::PathBuf, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::workspace;

/// Where the CRDs are needed once more: neither helm nor kustomize reads files outside of its folder.
const COPIES: [&str; 2] = ["charts/soak-operator/files", "deploy"];

/// Writes what is stale; with `check`, only tells it.
///
/// Errors: with `check`, when a file is not what the code says.
pub fn generate(check: bool) -> Result<()> {
    let mut stale = Vec::new();
    for (path, text) in files()? {
        let path = workspace::root().join(path);
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            continue;
        }
        if check {
            stale.push(path);
        } else {
            if let Some(folder) = path.parent() {
                fs::create_dir_all(folder)?;
            }
            fs::write(&path, text)?;
            eprintln!("wrote {}", path.display());
        }
    }
    if !stale.is_empty() {
        let names: Vec<String> = stale.iter().map(|path| path.display().to_string()).collect();
        bail!("stale: {}; run `cargo xtask generate`", names.join(", "));
    }
    Ok(())
}

fn files() -> Result<Vec<(PathBuf, String)>> {
    let binary = workspace::operator(&[])?;
    let output = Command::new(&binary)
        .arg("--print-generated")
        .output()
        .with_context(|| format!("{} can't be started", binary.display()))?;
    let mut files = Vec::new();
    for line in String::from_utf8(output.stdout)?.lines() {
        let file: Value = serde_json::from_str(line)?;
        let path = PathBuf::from(file["path"].as_str().context("a generated file has no path")?);
        let content = &file["content"];
        if path.extension().is_some_and(|extension| extension == "yaml") {
            let text =
                format!("# Generated from src/api by `cargo xtask generate`.\n{}", serde_yaml_ng::to_string(content)?);
            for copy in COPIES {
                files.push((PathBuf::from(copy).join(&path), text.clone()));
            }
            files.push((path, text));
        } else {
            files.push((path, content.as_str().context("a generated file has no text")?.to_owned()));
        }
    }
    Ok(files)
}
