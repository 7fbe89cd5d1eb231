//! The engine as a package of its own, and what the compiler says about it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    ops::RangeInclusive,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::{image, workspace};

/// What the engine needs of the checkout: the modules that it may use, and what its tests read.
const NEEDED: [&str; 7] =
    ["Cargo.lock", "src/api", "src/analysis", "src/engine", "src/switches.rs", "docs/expressions.md", "tests/data"];
const LIBRARY: &str = "//! The engine, and what it may use.\n\
    pub mod analysis;\npub mod api;\npub mod engine;\nmod switches;\n";

/// It is compiled once and run thousands of times. Checks of overflow stay.
const OPTIMIZED: &str = "\n[profile.dev.package.soak-operator]\nopt-level = 1\n";

/// A package of the engine and what it may use, in a folder of its own.
pub struct Copy {
    pub folder: PathBuf,
    /// All its Rust source in one.
    source: String,
}

/// An error of the compiler: where, and in which words.
pub struct Complaint {
    pub file: String,
    pub lines: RangeInclusive<usize>,
    pub message: String,
}

impl Copy {
    /// Brings it up to date, but for files that are `written` otherwise. What is as it was keeps its time, so that nothing
    /// is built anew for it.
    pub fn new(folder: PathBuf, written: &BTreeSet<String>) -> Result<Self> {
        let mut texts = BTreeMap::new();
        for path in NEEDED {
            gather(&workspace::root().join(path), path, &mut texts)?;
        }
        let is_rust = |path: &String| Path::new(path).extension().is_some_and(|it| it == "rs");
        let source: String = texts.iter().filter(|(path, _)| is_rust(path)).map(|(_, text)| text.as_str()).collect();
        texts.insert("Cargo.toml".into(), manifest(&workspace::read("Cargo.toml")?, &source)?);
        texts.insert("src/lib.rs".into(), LIBRARY.into());
        let copy = Self { folder, source };
        for (path, text) in texts.iter().filter(|(path, _)| !written.contains(*path)) {
            copy.write(path, text)?;
        }
        for path in NEEDED {
            remove_others(&copy.folder.join(path), path, &texts)?;
        }
        Ok(copy)
    }

    pub fn read(&self, file: &str) -> Result<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).with_context(|| format!("{} can't be read", path.display()))
    }

    pub fn write(&self, file: &str, text: &str) -> Result<()> {
        let path = self.folder.join(file);
        if fs::read_to_string(&path).is_ok_and(|there| there == text) {
            return Ok(());
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::write(&path, text).with_context(|| format!("{} can't be written", path.display()))
    }

    /// What all its source is known by, tests included.
    pub fn digest(&self) -> String {
        digest(&self.source)
    }

    /// Builds its tests: the binary, or what the compiler complains of.
    ///
    /// Errors: cargo can't be started, or fails without telling where.
    pub fn build(&self) -> Result<std::result::Result<PathBuf, Vec<Complaint>>> {
        let output = Command::new("cargo")
            .args(["test", "--quiet", "--lib", "--no-run", "--message-format", "json"])
            .current_dir(&self.folder)
            .env("CARGO_TARGET_DIR", workspace::target().join("mutants/target"))
            // Nobody debugs these, and what they depend on is run as often as they are.
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
            .stderr(Stdio::inherit())
            .output()
            .context("cargo can't be started")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if output.status.success() {
            let binary = messages.iter().rev().find_map(|message| message["executable"].as_str());
            return Ok(Ok(binary.context("cargo tells of no test binary")?.into()));
        }
        let complaints: Vec<Complaint> = messages.iter().filter_map(complaint).collect();
        if complaints.is_empty() {
            bail!(
                "the engine can't be built in {}: {}",
                self.folder.display(),
                text.lines().last().unwrap_or_default()
            );
        }
        Ok(Err(complaints))
    }
}

/// What a text is known by.
pub fn digest(text: &str) -> String {
    image::hexadecimal(&Sha256::digest(text.as_bytes())[..8])
}

/// The operator's manifest with the dependencies that this source names: many others take minutes to build.
fn manifest(whole: &str, source: &str) -> Result<String> {
    let at = whole.find("[features]").context("Cargo.toml has no features")?;
    let named = |name: &str| {
        let name = name.replace('-', "_");
        source.contains(&format!("{name}::")) && !source.contains(&format!("mod {name};"))
    };
    let mut text =
        "[workspace]\n[package]\nname = \"soak-operator\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n".to_owned();
    let mut section = "";
    for line in whole[at..].lines() {
        if line.starts_with('[') {
            section = line;
        }
        let dependency = line.split_once(" = ").map(|(name, _)| name);
        if !section.ends_with("dependencies]") || dependency.is_none_or(named) {
            text += line;
            text.push('\n');
        }
    }
    Ok(text + OPTIMIZED)
}

/// Reads a file, or all files of a folder, by their paths in the checkout.
fn gather(from: &Path, path: &str, texts: &mut BTreeMap<String, String>) -> Result<()> {
    each_file(from, path, &mut |from, path| {
        let text = fs::read_to_string(from).with_context(|| format!("{} can't be read", from.display()))?;
        texts.insert(path.to_owned(), text);
        Ok(())
    })
}

/// Removes files that the checkout no longer has: two may claim to be the same module.
fn remove_others(at: &Path, path: &str, texts: &BTreeMap<String, String>) -> Result<()> {
    each_file(at, path, &mut |at, path| {
        if at.exists() && !texts.contains_key(path) {
            fs::remove_file(at)?;
        }
        Ok(())
    })
}

/// Does something with a file, or with all files of a folder, and their paths in the checkout.
fn each_file(at: &Path, path: &str, act: &mut dyn FnMut(&Path, &str) -> Result<()>) -> Result<()> {
    if !at.is_dir() {
        return act(at, path);
    }
    for entry in fs::read_dir(at)? {
        let name = entry?.file_name();
        each_file(&at.join(&name), &format!("{path}/{}", name.to_string_lossy()), act)?;
    }
    Ok(())
}

fn complaint(message: &Value) -> Option<Complaint> {
    let message = &message["message"];
    if message["level"] != "error" {
        return None;
    }
    let span = message["spans"].as_array()?.iter().find(|span| span["is_primary"] == true)?;
    let line = |key: &str| usize::try_from(span[key].as_u64()?).ok();
    Some(Complaint {
        file: span["file_name"].as_str()?.to_owned(),
        lines: line("line_start")?..=line("line_end")?,
        message: message["rendered"].as_str().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_gone_from_the_checkout_goes_from_the_copy() {
        let folder = std::env::temp_dir().join(format!("mutants-copy-{}", std::process::id()));
        for name in ["a.rs", "a/mod.rs", "a/b.rs"] {
            let path = folder.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let texts = ["src/a/mod.rs", "src/a/b.rs"].map(|path| (path.to_owned(), String::new())).into();
        remove_others(&folder, "src", &texts).unwrap();
        assert!(!folder.join("a.rs").exists() && folder.join("a/mod.rs").exists() && folder.join("a/b.rs").exists());
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn only_dependencies_that_the_source_names_are_built() {
        let whole = "[workspace]\n[features]\nf = []\n[dependencies]\nserde-x = \"1\"\nobject_store = \"1\"\ntower = \"1\"\n\
                     [profile.dev]\ndebug = 1\n";
        let text = manifest(whole, "use serde_x::A; mod object_store; use object_store::B;").unwrap();
        assert!(text.contains("serde-x") && text.contains("debug = 1") && text.contains("f = []"));
        assert!(!text.contains("object_store") && !text.contains("tower"));
    }
}
