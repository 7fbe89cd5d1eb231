//! The operator as a process of this machine, and what the kernel tells about it.

use std::{
    fs,
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How often the kernel counts a second of CPU.
const TICKS: f64 = 100.0;
/// Between two looks at the metrics where they say that something is over, not when. Rendering them is work of the operator,
/// which is measured: the series of a thousand runs take 15 ms.
pub const SCRAPE: Duration = Duration::from_secs(5);

/// A running operator; it is killed when it is dropped.
pub struct Operator {
    child: Child,
    metrics: SocketAddr,
    /// When the process was started.
    pub started: Instant,
}

impl Operator {
    /// Starts it for the runs of one namespace. It is not ready yet.
    pub fn start(binary: &Path, kubeconfig: &Path, namespace: &str) -> Result<Self> {
        let metrics = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let log = std::env::temp_dir().join(format!("{namespace}-operator.log"));
        let log = fs::File::create(&log).with_context(|| format!("{} can't be written", log.display()))?;
        let started = Instant::now();
        let child = Command::new(binary)
            .args(["--metrics-address", &metrics.to_string(), "--watch-namespace", namespace])
            .env("KUBECONFIG", kubeconfig)
            .env("RUST_LOG", "warn")
            // As the chart does.
            .env("MALLOC_ARENA_MAX", "2")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} can't be started", binary.display()))?;
        Ok(Self { child, metrics, started })
    }

    /// CPU time so far.
    pub fn cpu(&self) -> Result<Duration> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // The name of the program, in parentheses, may hold blanks; user and system time are fields 14 and 15.
        let (_, rest) = stat.rsplit_once(')').context("/proc/PID/stat has another form")?;
        let ticks: f64 = rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Ok(Duration::from_secs_f64(ticks / TICKS))
    }

    /// Resident memory in megabytes (10^6 bytes).
    pub fn resident_megabytes(&self) -> Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
        let kibibytes: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kibibytes * 1_024.0 / 1e6)
    }

    /// The sum of a metric's series whose line begins with `prefix`; 0 while it does not answer.
    pub async fn metric(&self, prefix: &str) -> f64 {
        let Ok(text) = self.scrape().await else { return 0.0 };
        let lines = text.lines().filter(|line| line.starts_with(prefix));
        lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
    }

    /// Waits until a metric has reached a value, and looks at it at such intervals.
    pub async fn until_metric(&mut self, prefix: &str, value: f64, interval: Duration, limit: Duration) -> Result<()> {
        let end = Instant::now() + limit;
        loop {
            let seen = self.metric(prefix).await;
            if seen >= value {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended with {status}");
            }
            if Instant::now() > end {
                bail!("{prefix} is {seen} after {} s, not {value}", limit.as_secs());
            }
            tokio::time::sleep(interval).await;
        }
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    async fn scrape(&self) -> Result<String> {
        let mut connection = tokio::net::TcpStream::connect(self.metrics).await?;
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n").await?;
        let mut text = String::new();
        connection.read_to_string(&mut text).await?;
        Ok(text)
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
