//! The list of changes, as cargo-mutants makes it.

use std::{collections::BTreeMap, env, fs, ops::Range, path::Path, process::Command};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::tools;

/// Another version may choose and name other changes, so figures are of this one.
const VERSION: &str = "27.1.0";

/// What of the code is changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Genre {
    /// A function's body becomes a value.
    Body,
    /// An operator between two operands becomes another.
    Binary,
    /// `!` or `-` goes.
    Unary,
    /// An arm of a match goes.
    Arm,
    /// The guard of an arm becomes true or false.
    Guard,
    /// A field of a struct expression goes, so that its base gives it.
    Field,
}

/// One change. `replacement` takes the place of the bytes in `span`.
#[derive(Clone, Debug)]
pub struct Mutant {
    /// From 1 on, in the list's order.
    pub number: u32,
    /// As cargo-mutants tells it.
    pub name: String,
    pub file: String,
    pub genre: Genre,
    pub span: Range<usize>,
    pub replacement: String,
    /// The bytes of the function around it, if it is in one.
    pub function: Option<Range<usize>>,
    /// `-> Type`, or nothing.
    pub return_type: String,
}

/// Lists the changes of the engine's files in a copy of it. Needs cargo-mutants, which is installed into the cache if it
/// is not there.
pub fn of(copy: &Path) -> Result<Vec<Mutant>> {
    let (mut command, program) = cargo_mutants()?;
    let output = command
        .args(["mutants", "--list", "--json", "--no-shuffle", "--colors", "never", "--file", "src/engine/**/*.rs"])
        .args(["--exclude", "src/engine/**/tests/**", "--dir"])
        .arg(copy)
        .output()
        .with_context(|| format!("{program} can't be started"))?;
    if !output.status.success() {
        bail!("{program} can't list: {}", String::from_utf8_lossy(&output.stderr));
    }
    let list: Vec<Value> = serde_json::from_slice(&output.stdout).context("the list of changes is not JSON")?;
    let mut texts = BTreeMap::new();
    (1..).zip(&list).map(|(number, entry)| parse(number, entry, copy, &mut texts)).collect()
}

/// The command that is there in the right version, or that of the cache.
fn cargo_mutants() -> Result<(Command, String)> {
    let present = Command::new("cargo-mutants").args(["mutants", "--version"]).output();
    if present.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(VERSION)) {
        return Ok((Command::new("cargo-mutants"), "cargo-mutants".into()));
    }
    let root = tools::cache().join("bin").join(format!("cargo-mutants-{VERSION}"));
    let binary = root.join("bin/cargo-mutants");
    if !binary.exists() {
        eprintln!("installing cargo-mutants {VERSION}");
        let status = Command::new("cargo")
            .args(["install", "--quiet", "cargo-mutants", "--version", VERSION, "--locked", "--root"])
            .arg(&root)
            .current_dir(env::temp_dir())
            .status()
            .context("cargo can't be started")?;
        if !status.success() {
            bail!("cargo-mutants can't be installed: cargo install ended with {status}");
        }
    }
    Ok((Command::new(&binary), binary.display().to_string()))
}

fn parse(number: u32, entry: &Value, copy: &Path, texts: &mut BTreeMap<String, String>) -> Result<Mutant> {
    let word = |value: &Value| value.as_str().map(str::to_owned).context("an entry of the list has another form");
    let file = word(&entry["file"])?;
    if !texts.contains_key(&file) {
        texts.insert(file.clone(), fs::read_to_string(copy.join(&file))?);
    }
    let text = &texts[&file];
    let genre = match entry["genre"].as_str() {
        Some("FnValue") => Genre::Body,
        Some("BinaryOperator") => Genre::Binary,
        Some("UnaryOperator") => Genre::Unary,
        Some("MatchArm") => Genre::Arm,
        Some("MatchArmGuard") => Genre::Guard,
        Some("StructField") => Genre::Field,
        other => bail!("changes of the kind {other:?} are new: teach xtask/src/mutants about them"),
    };
    let function = &entry["function"];
    Ok(Mutant {
        number,
        name: word(&entry["name"])?,
        genre,
        span: bytes(text, &entry["span"])?,
        replacement: word(&entry["replacement"])?,
        function: if function.is_null() { None } else { Some(bytes(text, &function["span"])?) },
        return_type: function["return_type"].as_str().unwrap_or_default().to_owned(),
        file,
    })
}

fn bytes(text: &str, span: &Value) -> Result<Range<usize>> {
    Ok(offset(text, &span["start"])?..offset(text, &span["end"])?)
}

/// The byte at a line and a column; both count from 1, columns in characters.
fn offset(text: &str, position: &Value) -> Result<usize> {
    let number = |key: &str| position[key].as_u64().and_then(|number| usize::try_from(number).ok());
    let (Some(line), Some(column)) = (number("line"), number("column")) else {
        bail!("a position of the list has another form: {position}");
    };
    let start: usize = text.split_inclusive('\n').take(line - 1).map(str::len).sum();
    let within: usize = text[start..].chars().take(column - 1).map(char::len_utf8).sum();
    Ok(start + within)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn positions_count_characters_and_offsets_bytes() {
        let text = "a\n\"ä\" == b\n";
        assert_eq!(&text[offset(text, &json!({"line": 2, "column": 5})).unwrap()..][..2], "==");
    }
}
