//! What a container has printed, read as the tenant.

use std::{pin::Pin, time::Duration};

use futures::{AsyncRead, AsyncReadExt};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};

use super::context::RunIdentity;
use crate::{
    api::names::ARTIFACTS_CONTAINER,
    cluster::{
        Cluster,
        error::{ApiFailure, Class},
    },
};

/// Most lines of a log that are kept.
pub const MAX_LINES: u32 = 50;
/// Most bytes of a log that are kept.
pub const MAX_BYTES: usize = 4_096;
/// Most bytes that are read: the kubelet's tail starts at a line, and its lines are at most 16 KiB long.
const MAX_READ: usize = 1_048_576;
/// How long reading may take.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Of a whole log, so many bytes of its beginning and as many of its end are kept.
const MAX_HALF: usize = 1_048_576;
/// A longer line may be cut: the kubelet's own are at most so long.
const MAX_LINE: usize = 16_384;
/// How long reading a whole log may take.
const WHOLE_LIMIT: Duration = Duration::from_mins(1);

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
    let pods = pods(cluster, run)?;
    let params = LogParams {
        container: container.map(Into::into).or_else(|| main_container(cluster, run, pod)),
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
    within(READ_LIMIT, read).await
}

/// All that a container has printed to stdout and stderr, within a bound: its beginning, its end, and how much is missing between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WholeLog {
    half: usize,
    head: Vec<u8>,
    tail: Vec<u8>,
    bytes: u64,
}

/// Reads the log of a pod's first container from its beginning: at most a mebibyte of its head and one of its tail, as far as
/// the node still has it.
pub async fn whole(cluster: &Cluster, run: &RunIdentity, pod: &str) -> Result<WholeLog, ApiFailure> {
    let read = async {
        let mut stream = open(cluster, run, pod, main_container(cluster, run, pod), false).await?;
        let mut log = WholeLog::default();
        let mut chunk = vec![0; 65_536];
        loop {
            let count = stream.read(&mut chunk).await.map_err(kube::Error::ReadEvents)?;
            if count == 0 {
                return Ok(log);
            }
            log.push(&chunk[..count]);
        }
    };
    within(WHOLE_LIMIT, read).await
}

/// What the container that hands on artifacts has printed, as far as the node still has it; at most `limit` bytes.
pub async fn artifacts(cluster: &Cluster, run: &RunIdentity, pod: &str, limit: usize) -> Result<Vec<u8>, ApiFailure> {
    let read = async {
        let mut log = Vec::new();
        let stream = open(cluster, run, pod, Some(ARTIFACTS_CONTAINER.into()), false).await?;
        stream.take(limit as u64).read_to_end(&mut log).await.map_err(kube::Error::ReadEvents)?;
        Ok(log)
    };
    within(WHOLE_LIMIT, read).await
}

/// What that container prints until it ends, also while its pod is being deleted.
pub async fn artifacts_stream(cluster: &Cluster, run: &RunIdentity, pod: &str) -> Result<LogStream, ApiFailure> {
    within(READ_LIMIT, open(cluster, run, pod, Some(ARTIFACTS_CONTAINER.into()), true)).await
}

/// The log of a pod's first container from its beginning, which ends when the container does.
///
/// Reading may be given up at any time without losing a byte.
pub async fn stream(cluster: &Cluster, run: &RunIdentity, pod: &str) -> Result<LogStream, ApiFailure> {
    within(READ_LIMIT, open(cluster, run, pod, main_container(cluster, run, pod), true)).await
}

/// What a container prints.
pub type LogStream = Pin<Box<dyn AsyncRead + Send>>;

async fn open(
    cluster: &Cluster,
    run: &RunIdentity,
    pod: &str,
    container: Option<String>,
    follow: bool,
) -> Result<LogStream, kube::Error> {
    let params = LogParams { container, follow, ..LogParams::default() };
    let pods = pods(cluster, run).map_err(|failure| kube::Error::Service(failure.message.into()))?;
    Ok(Box::pin(pods.log_stream(pod, &params).await?))
}

impl Default for WholeLog {
    fn default() -> Self {
        Self::new(MAX_HALF)
    }
}

impl WholeLog {
    const fn new(half: usize) -> Self {
        Self { half, head: Vec::new(), tail: Vec::new(), bytes: 0 }
    }

    /// Takes in what was printed next.
    pub fn push(&mut self, chunk: &[u8]) {
        self.bytes += chunk.len() as u64;
        let room = self.half.saturating_sub(self.head.len()).min(chunk.len());
        self.head.extend_from_slice(&chunk[..room]);
        self.tail.extend_from_slice(&chunk[room..]);
        // Moved rarely, so that a long log costs one copy.
        if self.tail.len() > 2 * self.half {
            let excess = self.tail.len() - self.half;
            self.tail.drain(..excess);
        }
    }

    /// How long the log was so far, in bytes.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Its last lines.
    pub fn tail(&self) -> LogTail {
        let mut end = End::new(MAX_BYTES);
        for part in [&self.head, &self.tail] {
            end.push(&part[part.len().saturating_sub(MAX_BYTES + 1)..]);
        }
        let cut = end.read < usize::try_from(self.bytes).unwrap_or(usize::MAX);
        let LogTail { text, truncated } = end.into_tail();
        let start = text.rmatch_indices('\n').nth(MAX_LINES as usize).map_or(0, |(newline, _)| newline + 1);
        LogTail { text: text[start..].to_owned(), truncated: truncated || cut || start > 0 }
    }

    /// All of it as one text, with the cut marked. It is cut between lines, so that a value that must not be shown is whole
    /// wherever it is, and can be found.
    pub fn text(&self) -> String {
        let tail = &self.tail[self.tail.len().saturating_sub(self.half)..];
        if self.bytes <= (self.head.len() + tail.len()) as u64 {
            return String::from_utf8_lossy(&[self.head.as_slice(), tail].concat()).into_owned();
        }
        let end = self.head.iter().rev().take(MAX_LINE).position(|byte| *byte == b'\n').unwrap_or(MAX_LINE);
        let head = &self.head[..self.head.len().saturating_sub(end)];
        let start = tail.iter().take(MAX_LINE).position(|byte| *byte == b'\n').map_or(MAX_LINE, |newline| newline + 1);
        let tail = &tail[start.min(tail.len())..];
        let missing = self.bytes - (head.len() + tail.len()) as u64;
        let (head, tail) = (String::from_utf8_lossy(head), String::from_utf8_lossy(tail));
        format!("{head}[soak: {missing} bytes are left out here]\n{tail}")
    }
}

fn pods(cluster: &Cluster, run: &RunIdentity) -> Result<Api<Pod>, ApiFailure> {
    let client = cluster
        .tenants
        .client(&run.account())
        .map_err(|error| ApiFailure::definite(Class::Invalid, error.to_string()))?;
    Ok(Api::namespaced(client, &run.namespace))
}

/// The server wants a name as soon as there are several containers.
fn main_container(cluster: &Cluster, run: &RunIdentity, pod: &str) -> Option<String> {
    Some(cluster.pods.find(&run.uid, pod)?.main.as_ref()?.name.clone())
}

async fn within<T>(limit: Duration, read: impl Future<Output = Result<T, kube::Error>>) -> Result<T, ApiFailure> {
    match tokio::time::timeout(limit, read).await {
        Ok(read) => read.map_err(ApiFailure::from),
        Err(_) => Err(ApiFailure {
            class: Class::Transient,
            message: format!("the log could not be read within {} s", limit.as_secs()),
            ambiguous: false,
        }),
    }
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

    fn whole(text: &str, half: usize) -> WholeLog {
        let mut log = WholeLog::new(half);
        text.as_bytes().chunks(7).for_each(|chunk| log.push(chunk));
        log
    }

    fn numbered(count: u32, line: impl Fn(u32) -> String) -> String {
        (0..count).map(line).collect::<Vec<_>>().concat()
    }

    #[test]
    fn a_whole_log_keeps_its_beginning_and_its_end_and_tells_what_is_missing() {
        let lines = numbered(100, |number| format!("{number:02}\n"));
        let log = whole(&lines, 10);
        assert_eq!(log.bytes(), 300);
        assert_eq!(log.text(), "00\n01\n02\n[soak: 282 bytes are left out here]\n97\n98\n99\n");
        assert_eq!(whole("all of it, ä little möre", 14).text(), "all of it, ä little möre");
        assert_eq!(whole("all of it", 100).text(), "all of it");
    }

    #[test]
    fn a_whole_log_is_never_cut_in_the_middle_of_a_value() {
        for at in 0..40 {
            let text = format!("{}\nsecret-value\n{}", "x".repeat(at), "y\n".repeat(60));
            let kept = whole(&text, 30).text();
            let whole = kept.replace("secret-value", "");
            assert!(!whole.contains("sec") && !whole.contains("lue"), "{at}: {kept}");
        }
    }

    #[test]
    fn the_end_of_a_whole_log_is_what_the_server_would_have_told() {
        let lines = numbered(3_000, |number| format!("line {number}\n"));
        let end = whole(&lines, 8_192).tail();
        assert!(
            end.truncated && end.text.starts_with("line 2950\n") && end.text.ends_with("line 2999\n"),
            "{}",
            end.text
        );
        assert_eq!(whole("one\ntwo", 8_192).tail(), LogTail { text: "one\ntwo".into(), truncated: false });
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
