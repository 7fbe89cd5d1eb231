//! Finds files and prints them.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, write::GzEncoder};
use sha2::{Digest, Sha256};

use super::{Artifacts, Frame, LeftOut, MAX_BYTES, MAX_FILES, MAX_LEFT, MAX_PACKED, MAX_PATH};

/// Bytes in a line: the runtime splits lines of 16 KiB.
const LINE: usize = 6_144;
/// Most names that are looked at.
const MAX_ENTRIES: usize = 10_000;

/// What is found below the folder.
#[derive(Default)]
struct Found {
    files: Vec<(String, Metadata)>,
    entries: usize,
    left: Vec<LeftOut>,
    more: u32,
}

impl Found {
    fn leave(&mut self, path: String, why: impl Into<String>) {
        if self.left.len() < MAX_LEFT {
            self.left.push(LeftOut { path, why: why.into() });
        } else {
            self.more = self.more.saturating_add(1);
        }
    }
}

/// Prints the files that are asked for, in the order of their paths, and what was left out.
///
/// Errors: only those of `out`. What can't be read is left out.
pub(super) fn pack(artifacts: &Artifacts, out: &mut impl Write) -> io::Result<()> {
    let mut found = Found::default();
    look(artifacts, &artifacts.folder, "", &mut found);
    let (mut room, mut packed_room, mut count) = (artifacts.max_bytes.min(MAX_BYTES), MAX_PACKED, 0);
    for (path, metadata) in std::mem::take(&mut found.files) {
        if count == MAX_FILES {
            found.leave(path, format!("more than {MAX_FILES} files"));
            continue;
        }
        match compress(&artifacts.folder.join(&path), &metadata, room, packed_room) {
            Ok((bytes, sha256, packed)) => {
                line(out, &Frame::File { path, bytes, packed: packed.len(), sha256 })?;
                for chunk in packed.chunks(LINE) {
                    writeln!(out, "{}", STANDARD.encode(chunk))?;
                }
                (room, packed_room, count) = (room - bytes, packed_room - packed.len(), count + 1);
            }
            Err(why) => found.leave(path, why),
        }
    }
    line(out, &Frame::End { files: count, left: found.left, more: found.more })
}

fn line(out: &mut impl Write, frame: &Frame) -> io::Result<()> {
    writeln!(out, "{}", serde_json::to_string(frame)?)
}

/// Lists a folder in the order of names. `below` is its own path below the first.
fn look(artifacts: &Artifacts, folder: &Path, below: &str, found: &mut Found) {
    let mut entries: Vec<PathBuf> = match fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|entry| entry.path()).take(MAX_ENTRIES + 1).collect(),
        Err(error) if below.is_empty() && error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return found.leave(below.to_owned(), format!("a folder that can't be read: {error}")),
    };
    entries.sort();
    for entry in entries {
        found.entries += 1;
        if found.entries > MAX_ENTRIES {
            if found.entries == MAX_ENTRIES + 1 {
                found.leave(
                    below.to_owned(),
                    format!("more than {MAX_ENTRIES} names in all: nothing after it was looked at"),
                );
            }
            return;
        }
        let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let path = if below.is_empty() { name } else { format!("{below}/{name}") };
        let wanted = artifacts.paths.is_empty() || artifacts.paths.iter().any(|glob| glob.matches(&path));
        match fs::symlink_metadata(&entry) {
            // A link is no folder here, so nothing outside is ever reached.
            Ok(metadata) if metadata.is_dir() => look(artifacts, &entry, &path, found),
            _ if !wanted => {}
            _ if entry.to_str().is_none() || path.len() > MAX_PATH || path.contains(char::is_control) => {
                let path = path.chars().take(MAX_PATH / 4).collect();
                found.leave(path, format!("its path is not plain UTF-8 of at most {MAX_PATH} bytes"));
            }
            Ok(metadata) if metadata.is_symlink() => found.leave(path, "a symbolic link"),
            Ok(metadata) if !metadata.is_file() => found.leave(path, "not a file"),
            Ok(metadata) => found.files.push((path, metadata)),
            Err(error) => found.leave(path, error.to_string()),
        }
    }
}

/// The length of a file, its digest, and what it is packed. Errors: why it is left out.
fn compress(
    path: &Path,
    looked_at: &Metadata,
    room: u64,
    packed_room: usize,
) -> Result<(u64, String, Vec<u8>), String> {
    let unread = |error: io::Error| format!("it can't be read by user {}: {error}", rustix::process::getuid().as_raw());
    if looked_at.len() > room {
        return Err(format!("{} bytes; of maxBytes, {room} are left", looked_at.len()));
    }
    let mut file = File::open(path).map_err(unread)?;
    // What stands in its place since may be a link.
    let opened = file.metadata().map_err(unread)?;
    if (opened.dev(), opened.ino()) != (looked_at.dev(), looked_at.ino()) {
        return Err("it was replaced meanwhile".into());
    }
    let (mut encoder, mut digest) = (GzEncoder::new(Vec::new(), Compression::default()), Sha256::new());
    let (mut bytes, mut chunk) = (0_u64, vec![0; 65_536]);
    let too_long = || format!("packed it is longer than the {packed_room} bytes that are left");
    loop {
        let count = file.read(&mut chunk).map_err(unread)?;
        if count == 0 {
            break;
        }
        bytes += count as u64;
        if bytes > room {
            return Err(format!("it grows; of maxBytes, {room} are left"));
        }
        digest.update(&chunk[..count]);
        encoder.write_all(&chunk[..count]).map_err(|error| error.to_string())?;
        if encoder.get_ref().len() > packed_room {
            return Err(too_long());
        }
    }
    let packed = encoder.finish().map_err(|error| error.to_string())?;
    if packed.len() > packed_room {
        return Err(too_long());
    }
    Ok((bytes, STANDARD.encode(digest.finalize()), packed))
}
