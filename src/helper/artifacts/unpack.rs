//! Reads what was printed. It comes from a pod of a tenant, so nothing of it is believed.

use std::io::{Read, Write};

use base64::{Engine, engine::general_purpose::STANDARD};
use flate2::{Compression, read::GzDecoder, write::GzEncoder};

use sha2::{Digest, Sha256};

use super::{Frame, LeftOut, MAX_BYTES, MAX_FILES, MAX_LEFT, MAX_PACKED, MAX_PATH};

/// Longest reason why a file was left out, in bytes.
const MAX_WHY: usize = 256;

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The files that are whole.
    pub files: Vec<PackedFile>,
    /// Some of those that were asked for and left out.
    pub left: Vec<LeftOut>,
    /// How many more were left out.
    pub more: u32,
    /// Why there may be more than this; none if it is whole.
    pub cut: Option<String>,
}

/// A file, as gzip.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedFile {
    /// Its path below the folder: relative, without empty parts, `.` or `..`.
    pub path: String,
    /// Its length.
    pub bytes: u64,
    packed: Vec<u8>,
}

impl PackedFile {
    /// Packs a file.
    pub fn pack(path: String, content: &[u8]) -> Self {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        // Writing to memory does not fail.
        let _ = encoder.write_all(content);
        Self { path, bytes: content.len() as u64, packed: encoder.finish().unwrap_or_default() }
    }

    /// The file's content. Errors: it is not what it says.
    pub fn unpack(&self) -> Result<Vec<u8>, String> {
        let mut content = Vec::new();
        // One byte more than it says tells that it lies, however much would follow.
        let read = GzDecoder::new(self.packed.as_slice()).take(self.bytes + 1).read_to_end(&mut content);
        match read {
            Ok(_) if content.len() as u64 == self.bytes => Ok(content),
            Ok(_) => Err("it is not as long as it says".into()),
            Err(error) => Err(format!("it can't be unpacked: {error}")),
        }
    }
}

/// Reads what [`Artifacts`](super::Artifacts) has printed, as far as there is any of it. What is damaged, or is more than could have
/// been printed, is a cut.
pub fn read(log: &[u8]) -> Packed {
    let mut found = Packed { cut: Some("its end is missing".into()), ..Packed::default() };
    let (mut bytes, mut packed_bytes) = (0_u64, 0);
    let mut lines = log.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end).peekable();
    while let Some(line) = lines.next() {
        match serde_json::from_slice::<Frame>(line) {
            Ok(Frame::File { path, bytes: length, packed, sha256: digest }) => {
                bytes = bytes.saturating_add(length);
                packed_bytes += packed.min(MAX_PACKED + 1);
                let too_much = bytes > MAX_BYTES || packed_bytes > MAX_PACKED || found.files.len() == MAX_FILES;
                if too_much || !is_plain(&path) {
                    return Packed { cut: Some("it holds what can't have been sent".into()), ..found };
                }
                let mut content = Vec::with_capacity(packed);
                while content.len() < packed
                    && let Some(text) = lines.next_if(|line| !line.starts_with(b"{"))
                    && let Ok(part) = STANDARD.decode(text)
                {
                    content.extend(part);
                }
                let file = PackedFile { path, bytes: length, packed: content };
                let whole = file.packed.len() == packed
                    && file.unpack().is_ok_and(|it| STANDARD.encode(Sha256::digest(it)) == digest);
                if !whole {
                    return Packed { cut: Some(format!("{} is not whole", file.path)), ..found };
                }
                found.files.push(file);
            }
            Ok(Frame::End { files, mut left, more }) => {
                left.truncate(MAX_LEFT);
                for it in &mut left {
                    it.path.truncate(it.path.floor_char_boundary(MAX_PATH));
                    it.why.truncate(it.why.floor_char_boundary(MAX_WHY));
                }
                let cut = (files != found.files.len()).then(|| "its beginning is missing".to_owned());
                return Packed { left, more, cut, ..found };
            }
            // What a runtime prints, or the rest of a file whose beginning is missing: the end tells.
            Err(_) => {}
        }
    }
    found
}

fn is_plain(path: &str) -> bool {
    path.len() <= MAX_PATH
        && !path.contains(char::is_control)
        && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}
