//! The end of a container's log, read as the tenant.

use std::time::Duration;

use futures::AsyncReadExt;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};

use super::context::RunIdentity;
use crate::cluster::{
    Cluster,
    error::{ApiFailure, Class},
};

/// Most lines of a log that are kept.
pub const MAX_LINES: u32 = 50;
/// Most bytes of a log that are kept.
pub const MAX_BYTES: usize = 4_096;
/// Most bytes that are read: the kubelet's tail starts at a line, and its lines are at most 16 KiB long.
const MAX_READ: usize = 1_048_576;
/// How long reading may take.
const READ_LIMIT: Duration = Duration::from_secs(10);

/// The end of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LogTail {
    /// The last lines.
    pub text: String,
    /// Whether the lines that were asked for were cut to the bytes that are kept.
    pub truncated: bool,
}

/// Reads the last lines of a container's log, of the pod's first container if none is named. Both bounds are cut to
/// [`MAX_LINES`] and [`MAX_BYTES`].
///
/// The server seeks from the log's end, so a log of any size costs little. `limitBytes` is not used: it would keep the
/// beginning of the tail instead of its end.
pub async fn tail(
    cluster: &Cluster,
    run: &RunIdentity,
    pod: &str,
    container: Option<&str>,
    lines: u32,
    bytes: usize,
) -> Result<LogTail, ApiFailure> {
    let client = cluster
        .tenants
        .client(&run.account())
        .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
    let pods: Api<Pod> = Api::namespaced(client, &run.namespace);
    // The server wants a name as soon as there are several containers.
    let first = || Some(cluster.pods.find(&run.uid, pod)?.main.as_ref()?.name.clone());
    let params = LogParams {
        container: container.map(Into::into).or_else(first),
        tail_lines: Some(i64::from(lines.min(MAX_LINES))),
        ..LogParams::default()
    };
    let read = async {
        let mut stream = std::pin::pin!(pods.log_stream(pod, &params).await?);
        let mut end = End::new(bytes.min(MAX_BYTES));
        let mut chunk = vec![0; 16_384];
        while end.read < MAX_READ {
            let count = stream.read(&mut chunk).await.map_err(kube::Error::ReadEvents)?;
            if count == 0 {
                break;
            }
            end.push(&chunk[..count]);
        }
        Ok(end.into_tail())
    };
    tokio::time::timeout(READ_LIMIT, read).await.unwrap_or_else(|_| {
        Err(ApiFailure {
            class: Class::Transient,
            message: format!("the log could not be read within {} s", READ_LIMIT.as_secs()),
            ambiguous: false,
        })
    })
}

/// Keeps the last bytes of what is pushed.
struct End {
    keep: usize,
    read: usize,
    bytes: Vec<u8>,
}

impl End {
    fn new(keep: usize) -> Self {
        Self { keep, read: 0, bytes: Vec::new() }
    }

    fn push(&mut self, chunk: &[u8]) {
        self.read += chunk.len();
        self.bytes.extend_from_slice(chunk);
        // One byte more than is kept tells whether the cut is at a line's beginning.
        let excess = self.bytes.len().saturating_sub(self.keep + 1);
        self.bytes.drain(..excess);
    }

    fn into_tail(self) -> LogTail {
        let truncated = self.read > self.keep;
        let text = if truncated {
            // A line that was cut in its middle is left out, unless it is all there is.
            let start = self.bytes.iter().position(|byte| *byte == b'\n').map_or(1, |newline| newline + 1);
            let rest = &self.bytes[start..];
            if rest.is_empty() { &self.bytes[1..] } else { rest }
        } else {
            &self.bytes
        };
        // A character that was cut becomes three bytes long; the bound holds all the same.
        let mut text = String::from_utf8_lossy(text).into_owned();
        if text.len() > self.keep {
            text = text.split_off(text.ceil_char_boundary(text.len() - self.keep));
        }
        LogTail { text, truncated }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail(text: &str, keep: usize) -> LogTail {
        let mut end = End::new(keep);
        for chunk in text.as_bytes().chunks(3) {
            end.push(chunk);
        }
        end.into_tail()
    }

    #[test]
    fn the_end_is_kept_in_whole_lines() {
        assert_eq!(tail("one\ntwo\n", 64), LogTail { text: "one\ntwo\n".into(), truncated: false });
        assert_eq!(tail("one\ntwo\nthree\n", 10), LogTail { text: "two\nthree\n".into(), truncated: true });
        assert_eq!(tail("one\ntwo\nthree\n", 8), LogTail { text: "three\n".into(), truncated: true });
        assert_eq!(tail("abcdefgh", 4), LogTail { text: "efgh".into(), truncated: true });
        assert_eq!(tail("", 4), LogTail::default());
        assert!(tail(&"ä".repeat(100), 5).text.len() <= 5);
    }
}
