//! Where the checkout is, and cargo inside it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The root of the checkout.
pub fn root() -> &'static Path {
    // xtask lies right below the root.
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new("."))
}

/// Where cargo puts what it builds.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// Runs a program of the tool chain in the checkout; its output goes where this program's goes.
pub fn run(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    ended_well(command(program, arguments, environment), program, arguments)
}

/// The same with all its output in a file.
pub fn run_into(file: &Path, program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Result<()> {
    let out = fs::File::create(file).with_context(|| format!("{} can't be written", file.display()))?;
    let mut command = command(program, arguments, environment);
    command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
    ended_well(command, program, arguments)
}

fn command(program: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).envs(environment.iter().copied()).current_dir(root());
    // Set by the cargo that runs this program: where they differ, build scripts are run anew, and all that needs them is built anew.
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_PKG_") || text.starts_with("CARGO_MANIFEST_") {
            command.env_remove(name);
        }
    }
    command
}

fn ended_well(mut command: Command, program: &str, arguments: &[&str]) -> Result<()> {
    let status = command.status().with_context(|| format!("{program} can't be started"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

/// Builds for development; the answer is the folder of the binaries.
pub fn cargo_build(arguments: &[&str]) -> Result<PathBuf> {
    let mut all = vec!["build", "--quiet"];
    all.extend(arguments);
    run("cargo", &all, &[])?;
    Ok(target().join("debug"))
}

/// Builds the operator for development with these features of its own; the answer is the binary.
pub fn operator(features: &[&str]) -> Result<PathBuf> {
    let features: Vec<String> = features.iter().map(|feature| format!("soak-operator/{feature}")).collect();
    let arguments: Vec<&str> = features.iter().flat_map(|feature| ["--features", feature]).collect();
    binary("soak-operator", &arguments)
}

/// Builds a program of the workspace for development; the answer is the binary.
///
/// All other crates are those that `cargo test --workspace` builds: a test among the targets, and all packages, give
/// dependencies the same features. Otherwise the whole tree is built once more.
pub fn binary(name: &str, further: &[&str]) -> Result<PathBuf> {
    let mut arguments = vec!["--workspace", "--bin", name, "--test", "architecture"];
    arguments.extend(further);
    Ok(cargo_build(&arguments)?.join(name))
}

/// How a binary for an image is built.
#[derive(Clone, Copy)]
pub enum Profile {
    /// As it is released.
    Release,
    /// Without optimization, for tests of what is around the binary.
    Quick,
}

impl Profile {
    const fn name(self) -> &'static str {
        match self {
            Self::Release => "release",
            Self::Quick => "quick",
        }
    }
}

/// Builds fully static binaries, which run in an image without anything else; the answer is their folder.
pub fn cargo_build_static(profile: Profile, arguments: &[&str]) -> Result<PathBuf> {
    const TARGET: &str = "x86_64-unknown-linux-gnu";
    let mut all = vec!["build", "--quiet", "--profile", profile.name(), "--target", TARGET];
    all.extend(arguments);
    // No musl target is needed: glibc itself links statically, and resolves names since 2.34 without further files.
    run("cargo", &all, &[("RUSTFLAGS", "-C target-feature=+crt-static")])?;
    Ok(target().join(TARGET).join(profile.name()))
}

/// Reads a file of the checkout.
pub fn read(path: &str) -> Result<String> {
    fs::read_to_string(root().join(path)).with_context(|| format!("{path} can't be read"))
}
