//! `cargo xtask mutants`: changes the engine in many small ways and tells which changes no test notices
//! (docs/reliability.md).

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::workspace;

/// What the engine needs of the checkout: the modules that it may use, and what its tests read. By itself it compiles
/// in a fraction of the operator's time, and it is compiled anew for each change.
const NEEDED: [&str; 7] =
    ["Cargo.lock", "src/api", "src/analysis", "src/engine", "src/switches.rs", "docs/expressions.md", "tests/data"];
const LIBRARY: &str = "//! The engine, and what it may use.\n\
    pub mod analysis;\npub mod api;\npub mod engine;\nmod switches;\n";
/// Tests of random and of all orders of events take longer than all others together: they judge what those miss.
const SLOW: [&str; 2] = ["tests::explore", "tests::properties"];

/// Which changes are tried.
#[derive(clap::Args)]
pub struct Options {
    /// Only the k-th of n parts, `k/n` with k from 0: each n-th change.
    #[arg(long)]
    shard: Option<String>,
    /// Try what was missed last time once more, with the tests of random and of all orders of events as further judges.
    #[arg(long)]
    again: bool,
    /// Seconds after which a test run counts as hanging, and so as having noticed. A busy machine needs more.
    #[arg(long, default_value_t = 300)]
    timeout: u32,
    /// The least percentage of changes that must be noticed.
    #[arg(long, default_value_t = 90.0)]
    least: f64,
}

/// Runs cargo-mutants on a copy of the engine; the last line on stdout is one line of JSON with the figures.
///
/// Errors: cargo-mutants is not there, the tests fail without any change, or too few changes were noticed.
pub fn run(options: &Options) -> Result<()> {
    let folder = workspace::target().join("mutants");
    let copy = folder.join("engine");
    engine_alone(&copy)?;
    let mut command = Command::new("cargo");
    command
        .args([
            "mutants",
            "--no-shuffle",
            "--colors",
            "never",
            "--timeout",
            &options.timeout.to_string(),
            "--file",
            "src/engine/**/*.rs",
        ])
        .args(["--exclude", "src/engine/**/tests/**", "--sharding", "round-robin"])
        .arg("--dir")
        .arg(&copy)
        .arg("--output")
        .arg(&folder)
        .env("CARGO_TARGET_DIR", folder.join("target"))
        // Nobody debugs these.
        .env("CARGO_PROFILE_DEV_DEBUG", "0");
    if let Some(shard) = &options.shard {
        command.args(["--shard", shard]);
    }
    if options.again {
        command.arg("--iterate");
    }
    command.args(["--", "--lib", "engine::"]);
    if !options.again {
        command.arg("--").args(SLOW.iter().flat_map(|slow| ["--skip", slow]));
    }
    // 2 and 3 mean that changes were missed, or made tests hang: that is what the figures tell.
    let status = command.status().context("cargo can't be started")?;
    if !matches!(status.code(), Some(0 | 2 | 3)) {
        bail!("cargo mutants ended with {status}; if it is not there: cargo install cargo-mutants");
    }
    let figures = Figures::read(&folder.join("mutants.out"))?;
    println!("{}", figures.to_json());
    if figures.caught_percent() < options.least {
        bail!("{:.1} % of the changes were noticed, not {} %", figures.caught_percent(), options.least);
    }
    Ok(())
}

/// Makes a package of the engine and what it may use.
fn engine_alone(copy: &Path) -> Result<()> {
    if copy.exists() {
        fs::remove_dir_all(copy)?;
    }
    for path in NEEDED {
        copy_all(&workspace::root().join(path), &copy.join(path))?;
    }
    fs::write(copy.join("src/lib.rs"), LIBRARY)?;
    let manifest = workspace::read("Cargo.toml")?;
    let at = manifest.find("[features]").context("Cargo.toml has no features")?;
    let header = "[workspace]\n[package]\nname = \"soak-operator\"\nversion = \"0.1.0\"\nedition = \"2024\"\n\n";
    fs::write(copy.join("Cargo.toml"), format!("{header}{}", &manifest[at..]))?;
    Ok(())
}

fn copy_all(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::copy(from, to).with_context(|| format!("{} can't be copied", from.display()))?;
        return Ok(());
    }
    for entry in fs::read_dir(from)? {
        let name: PathBuf = entry?.file_name().into();
        copy_all(&from.join(&name), &to.join(&name))?;
    }
    Ok(())
}

/// How many changes came to which end.
struct Figures(BTreeMap<&'static str, usize>);

impl Figures {
    /// Counts the lines of the lists that cargo-mutants leaves. With `--iterate` those of earlier turns count as well.
    fn read(folder: &Path) -> Result<Self> {
        let mut counts = BTreeMap::new();
        for list in ["caught", "missed", "timeout", "unviable"] {
            let text = fs::read_to_string(folder.join(format!("{list}.txt")))
                .with_context(|| format!("{} has no {list}.txt", folder.display()))?;
            counts.insert(list, text.lines().count());
        }
        Ok(Self(counts))
    }

    fn count(&self, list: &str) -> usize {
        self.0.get(list).copied().unwrap_or_default()
    }

    /// The share that was noticed of the changes that compile, in percent.
    fn caught_percent(&self) -> f64 {
        let caught = self.count("caught") + self.count("timeout");
        let all = caught + self.count("missed");
        #[allow(clippy::cast_precision_loss, reason = "a few thousand changes")]
        if all == 0 { 100.0 } else { caught as f64 * 100.0 / all as f64 }
    }

    fn to_json(&self) -> Value {
        json!({
            "caught": self.count("caught"), "timeout": self.count("timeout"), "missed": self.count("missed"),
            "unviable": self.count("unviable"), "caughtPercent": (self.caught_percent() * 10.0).round() / 10.0,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_compile_does_not_count_and_what_hangs_was_noticed() {
        let figures = Figures([("caught", 8), ("timeout", 1), ("missed", 1), ("unviable", 30)].into());
        assert_eq!(figures.to_json()["caughtPercent"], 90.0);
    }
}
