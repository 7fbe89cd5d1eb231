//! OCI images of static programs: one packed layer, a config, an index, in a tar that containerd imports.
//!
//! The same input gives the same bytes: no times, a fixed order.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use flate2::{Compression, write::GzEncoder};
use serde_json::json;
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::tools;

enum Entry {
    File { source: PathBuf, mode: u32 },
    Link { target: String },
}

/// What goes into an image.
pub struct ImageSpec {
    reference: String,
    entries: BTreeMap<String, Entry>,
    entrypoint: Vec<String>,
    command: Vec<String>,
    user: Option<u32>,
}

impl ImageSpec {
    /// An empty image of that name, such as `localhost/pause:1`.
    pub fn new(reference: &str) -> Self {
        Self {
            reference: reference.into(),
            entries: BTreeMap::new(),
            entrypoint: Vec::new(),
            command: Vec::new(),
            user: None,
        }
    }

    /// Adds a file under a path without a leading slash.
    #[must_use]
    pub fn file(mut self, source: &Path, path: &str, mode: u32) -> Self {
        self.entries.insert(path.into(), Entry::File { source: source.to_owned(), mode });
        self
    }

    /// Adds a symbolic link.
    #[must_use]
    pub fn link(mut self, path: &str, target: &str) -> Self {
        self.entries.insert(path.into(), Entry::Link { target: target.into() });
        self
    }

    /// Sets what is started.
    #[must_use]
    pub fn entrypoint(mut self, words: &[&str]) -> Self {
        self.entrypoint = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Sets what is started when the pod names nothing.
    #[must_use]
    pub fn command(mut self, words: &[&str]) -> Self {
        self.command = words.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// Sets the user that it is started as (default root).
    #[must_use]
    pub const fn user(mut self, uid: u32) -> Self {
        self.user = Some(uid);
        self
    }
}

/// Builds an image; the answer is its tar in the cache.
pub fn build(spec: &ImageSpec) -> Result<PathBuf> {
    let layer = layer(spec).with_context(|| format!("image {}", spec.reference))?;
    let mut config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": spec.entrypoint, "Cmd": spec.command, "Env": ["PATH=/bin:/usr/bin"], "WorkingDir": "/"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    if let Some(user) = spec.user {
        config["config"]["User"] = json!(format!("{user}:{user}"));
    }
    let config = serde_json::to_vec(&config)?;
    let layer = packed(&layer)?;
    let manifest = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest(&config), "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": digest(&layer), "size": layer.len()}],
    }))?;
    let index = serde_json::to_vec(&json!({
        "schemaVersion": 2,
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(&manifest),
            "size": manifest.len(),
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"io.containerd.image.name": spec.reference, "org.opencontainers.image.ref.name": spec.reference},
        }],
    }))?;
    let name: String = spec.reference.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let path = tools::cache().join("images").join(format!("{name}.tar"));
    fs::create_dir_all(path.parent().context("a cache has a folder")?)?;
    let new = path.with_extension("new");
    let mut tar = Builder::new(File::create(&new)?);
    put(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    put(&mut tar, "index.json", &index, 0o644)?;
    for blob in [&layer, &config, &manifest] {
        put(&mut tar, &digest(blob).replace("sha256:", "blobs/sha256/"), blob, 0o644)?;
    }
    tar.into_inner()?.flush()?;
    fs::rename(&new, &path)?;
    Ok(path)
}

/// A layer as registries keep it.
fn packed(layer: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(layer)?;
    Ok(encoder.finish()?)
}

fn layer(spec: &ImageSpec) -> Result<Vec<u8>> {
    let mut folders: BTreeSet<String> = ["tmp", "etc"].map(String::from).into();
    for path in spec.entries.keys() {
        folders.extend(
            Path::new(path)
                .ancestors()
                .skip(1)
                .map(|folder| folder.display().to_string())
                .filter(|folder| !folder.is_empty()),
        );
    }
    let mut tar = Builder::new(Vec::new());
    for folder in &folders {
        let mut header = header(EntryType::Directory, 0, if folder == "tmp" { 0o1777 } else { 0o755 });
        tar.append_data(&mut header, format!("{folder}/"), std::io::empty())?;
    }
    for (path, entry) in &spec.entries {
        match entry {
            Entry::File { source, mode } => {
                let bytes = fs::read(source).with_context(|| format!("{} can't be read", source.display()))?;
                put(&mut tar, path, &bytes, *mode)?;
            }
            Entry::Link { target } => tar.append_link(&mut header(EntryType::Symlink, 0, 0o777), path, target)?,
        }
    }
    Ok(tar.into_inner()?)
}

fn put<W: Write>(tar: &mut Builder<W>, path: &str, bytes: &[u8], mode: u32) -> Result<()> {
    tar.append_data(&mut header(EntryType::Regular, bytes.len() as u64, mode), path, bytes)?;
    Ok(())
}

fn header(type_: EntryType, size: u64, mode: u32) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(type_);
    header.set_size(size);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hexadecimal(&Sha256::digest(bytes)))
}

/// Bytes as lower-case hexadecimal digits.
pub fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_gives_the_same_bytes() {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
        let spec = || ImageSpec::new("localhost/x:1").file(&source, "bin/x", 0o755).link("bin/y", "x");
        let first = layer(&spec()).unwrap();
        assert_eq!(first, layer(&spec()).unwrap());
        let mut archive = tar::Archive::new(first.as_slice());
        let names: Vec<String> =
            archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect();
        assert_eq!(names, ["bin/", "etc/", "tmp/", "bin/x", "bin/y"]);
    }
}
