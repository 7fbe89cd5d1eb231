//! Hands on the files that a step leaves behind: it runs beside the step in its pod, and prints them packed when it is told to end.
//!
//! What a container prints is the one thing that leaves a pod without credentials in it and without the right to execute programs
//! in it. The operator reads it ([`read`]). A kubelet keeps 10 MiB of it by default, and tells nobody when it drops the rest, so what
//! is printed is bounded and says of itself whether it is whole.

mod glob;
mod pack;
mod unpack;

use std::{io::Write, path::PathBuf};

use clap::Args;
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};

use super::End;

pub use glob::Glob;
pub use unpack::{Packed, PackedFile, read};

/// Most files of one attempt.
pub const MAX_FILES: usize = 256;
/// Most bytes of all files of one attempt, before they are packed.
pub const MAX_BYTES: u64 = 32 * 1024 * 1024;
/// Most bytes of all of them packed. As text they are a third longer, which has to fit into a log.
pub const MAX_PACKED: usize = 5 * 1024 * 1024;
/// Most bytes that all of it takes in a log.
pub const MAX_LOG: usize = MAX_PACKED / 3 * 4 + 1024 * 1024;
/// Longest path of a file below the folder, in bytes.
const MAX_PATH: usize = 512;
/// Most files that are named as left out.
const MAX_LEFT: usize = 16;

/// What is kept, and of what folder.
#[derive(Clone, Debug, Args)]
pub struct Artifacts {
    /// The folder.
    #[arg(long)]
    pub folder: PathBuf,
    /// Which files below it; all if none is given.
    #[arg(long = "path")]
    pub paths: Vec<Glob>,
    /// Most bytes of all of them.
    #[arg(long)]
    pub max_bytes: u64,
}

/// A file that is not kept although it was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeftOut {
    /// Its path below the folder.
    pub path: String,
    /// Why.
    pub why: String,
}

/// A line that tells of what follows it. All other lines are the bytes of a file in base64.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Frame {
    /// A file, as gzip, follows.
    File {
        path: String,
        /// Its length.
        bytes: u64,
        /// The length of what follows, before it became text.
        packed: usize,
        /// Of the file, in base64.
        sha256: String,
    },
    /// Nothing follows.
    End {
        /// How many files came before.
        files: usize,
        left: Vec<LeftOut>,
        /// How many more were left out.
        more: u32,
    },
}

impl Artifacts {
    /// Waits until it is told to end, as the kubelet does once the step's container has ended, and prints the files.
    pub(super) async fn run(self) -> End {
        let signals = signal(SignalKind::terminate()).and_then(|term| Ok((term, signal(SignalKind::interrupt())?)));
        let (mut term, mut int) = match signals {
            Ok(signals) => signals,
            Err(error) => {
                eprintln!("signals can't be received: {error}");
                return End::NeverBegan;
            }
        };
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
        }
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        match pack::pack(&self, &mut out).and_then(|()| out.flush()) {
            Ok(()) => End::Good,
            Err(error) => {
                eprintln!("the artifacts could not be printed: {error}");
                End::Bad
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// A folder of the test's own.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("soak-artifacts-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn write(&self, path: &str, content: &[u8]) {
            let path = self.0.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn printed(folder: &Path, paths: &[&str], max_bytes: u64) -> Vec<u8> {
        let paths = paths.iter().map(|path| path.parse().unwrap()).collect();
        let mut out = Vec::new();
        pack::pack(&Artifacts { folder: folder.to_owned(), paths, max_bytes }, &mut out).unwrap();
        out
    }

    fn files(packed: &Packed) -> Vec<(&str, Vec<u8>)> {
        packed.files.iter().map(|file| (file.path.as_str(), file.unpack().unwrap())).collect()
    }

    fn left(packed: &Packed) -> Vec<(&str, &str)> {
        packed.left.iter().map(|left| (left.path.as_str(), left.why.as_str())).collect()
    }

    #[test]
    fn what_was_asked_for_comes_out_as_it_went_in() {
        let folder = Folder::new("whole");
        let binary: Vec<u8> = (0..70_000_u32).flat_map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
        folder.write("result.json", b"{\"ok\": true}");
        folder.write("screens/a/1.png", &binary);
        folder.write("empty", b"");
        folder.write("other.txt", b"not asked for");
        let packed = read(&printed(&folder.0, &["*.json", "screens/**", "empty"], MAX_BYTES));
        assert_eq!(packed.cut, None);
        assert_eq!(
            files(&packed),
            [("empty", Vec::new()), ("result.json", b"{\"ok\": true}".to_vec()), ("screens/a/1.png", binary)]
        );
        assert_eq!((packed.left.len(), packed.more), (0, 0), "what was not asked for is not missed");
        assert_eq!(read(&printed(&folder.0, &[], MAX_BYTES)).files.len(), 4, "all, if nothing was named");
        assert_eq!(read(&printed(&folder.0.join("absent"), &[], MAX_BYTES)).cut, None);
    }

    #[test]
    fn a_link_is_never_followed() {
        let folder = Folder::new("links");
        let outside = Folder::new("outside");
        outside.write("secret", b"canary");
        std::os::unix::fs::symlink(outside.0.join("secret"), folder.0.join("file")).unwrap();
        std::os::unix::fs::symlink(&outside.0, folder.0.join("folder")).unwrap();
        folder.write("good", b"good");
        let packed = read(&printed(&folder.0, &[], MAX_BYTES));
        assert_eq!(files(&packed), [("good", b"good".to_vec())]);
        assert_eq!(left(&packed), [("file", "a symbolic link"), ("folder", "a symbolic link")]);
    }

    #[test]
    fn what_does_not_fit_is_named_and_does_not_keep_the_rest_out() {
        let folder = Folder::new("bound");
        folder.write("a", &[b'a'; 10]);
        folder.write("b", &[b'b'; 100]);
        folder.write("c", &[b'c'; 10]);
        let packed = read(&printed(&folder.0, &[], 20));
        assert_eq!(files(&packed).len(), 2);
        assert_eq!(left(&packed), [("b", "100 bytes; of maxBytes, 10 are left")]);

        for number in 0..MAX_FILES + 20 {
            folder.write(&format!("many/{number:03}"), b"");
        }
        let packed = read(&printed(&folder.0, &["many/*"], 20));
        assert_eq!((packed.files.len(), packed.left.len(), packed.more), (MAX_FILES, MAX_LEFT, 4));
    }

    #[test]
    fn what_can_not_be_packed_small_enough_stays_behind() {
        let folder = Folder::new("noise");
        let mut state = 1_u64;
        let mut noise = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33).to_le_bytes()[0]
        };
        let noise: Vec<u8> = (0..=MAX_PACKED).map(|_| noise()).collect();
        folder.write("noise", &noise);
        folder.write("zeros", &vec![0; MAX_PACKED + 1]);
        let log = printed(&folder.0, &[], MAX_BYTES);
        assert!(log.len() < MAX_LOG, "{}", log.len());
        let packed = read(&log);
        assert_eq!(files(&packed), [("zeros", vec![0; MAX_PACKED + 1])]);
        assert!(left(&packed)[0].1.starts_with("packed it is longer"), "{:?}", packed.left);
    }

    #[test]
    fn a_cut_anywhere_is_noticed_and_whole_files_before_it_stay() {
        let folder = Folder::new("cut");
        folder.write("a", b"first");
        folder.write("b", &(0..200_u8).collect::<Vec<_>>());
        let log = printed(&folder.0, &[], MAX_BYTES);
        for end in 0..log.len() - 1 {
            let packed = read(&log[..end]);
            assert!(packed.cut.is_some(), "cut at {end}");
            assert!(files(&packed).iter().all(|(path, content)| *path != "a" || content == b"first"));
        }
        for begin in 1..log.len() {
            let packed = read(&log[begin..]);
            assert!(packed.cut.is_some(), "begun at {begin}");
            assert!(files(&packed).iter().all(|(path, _)| *path != "a"), "begun at {begin}");
        }
        let second = log.windows(8).rposition(|it| it == b"{\"file\":").unwrap();
        assert_eq!(files(&read(&log[..second])), [("a", b"first".to_vec())]);
        assert!(read(b"").cut.is_some());
    }

    #[test]
    fn a_log_that_lies_does_no_harm() {
        let folder = Folder::new("lies");
        folder.write("a", &[0; 1_000]);
        let honest = String::from_utf8(printed(&folder.0, &[], MAX_BYTES)).unwrap();
        for (from, to, why) in [
            ("\"path\":\"a\"", "\"path\":\"../a\"", "it would leave the folder"),
            ("\"path\":\"a\"", "\"path\":\"/a\"", "it would leave the folder"),
            ("\"path\":\"a\"", "\"path\":\"a\\u0000\"", "no name"),
            ("\"bytes\":1000", "\"bytes\":999", "longer than it says"),
            ("\"bytes\":1000", "\"bytes\":99999999999", "larger than is allowed"),
            ("\"packed\":", "\"packed\":9", "more than follows"),
            ("\"sha256\":\"", "\"sha256\":\"0", "another content"),
            ("\"files\":1", "\"files\":2", "one is missing"),
        ] {
            let packed = read(honest.replacen(from, to, 1).as_bytes());
            assert!(packed.cut.is_some(), "{why}: {packed:?}");
            assert!(packed.files.len() <= usize::from(from.contains("files")), "{why}");
        }
        let noise = honest.replacen('{', "a warning of the runtime\n{", 1);
        assert_eq!(read(noise.as_bytes()).cut, None, "what is said before is not about it");
    }
}
