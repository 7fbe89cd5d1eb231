//! Daemons: processes that outlive this program and are found again by a file.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::layout::{Layout, Mode};

/// One daemon of a cluster.
pub struct Daemon<'a> {
    layout: &'a Layout,
    name: &'static str,
}

impl<'a> Daemon<'a> {
    /// Names a daemon; it need not run.
    pub const fn new(layout: &'a Layout, name: &'static str) -> Self {
        Self { layout, name }
    }

    /// Starts it, unless it runs. A node's daemons run in the cluster's network namespace.
    pub fn start(&self, program: &std::path::Path, arguments: &[String], path: &str) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        fs::create_dir_all(self.layout.path("logs"))?;
        let log = File::create(self.log())?;
        let mut command = match self.layout.mode {
            // Only the network is another: mounts have to be seen by kubelet, containerd and the containers alike.
            Mode::Node => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net=/run/netns/{}", self.layout.netns())).arg("--").arg(program);
                command
            }
            Mode::Simulated | Mode::ControlPlane => Command::new(program),
        };
        let child = command
            .args(arguments)
            .env("PATH", path)
            // Memory for time: a fifth of what the API server does for a status is collecting garbage.
            .env("GOGC", "200")
            .env("GOMEMLIMIT", "8GiB")
            .current_dir(&self.layout.folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("{} can't be started", self.name))?;
        let pid = child.id();
        let started = started_at(pid).context("the daemon ended at once")?;
        fs::write(self.file(), format!("{pid} {started}\n"))?;
        Ok(())
    }

    /// Its pid, if it runs. A pid that another process has by now is told apart by the time of its start.
    pub fn pid(&self) -> Option<u32> {
        let text = fs::read_to_string(self.file()).ok()?;
        let (pid, started) = text.trim().split_once(' ')?;
        let pid: u32 = pid.parse().ok()?;
        (started_at(pid)? == started.parse::<u64>().ok()?).then_some(pid)
    }

    /// Errors with the end of its log when it does not run.
    pub fn check(&self) -> Result<()> {
        if self.pid().is_some() {
            return Ok(());
        }
        let text = fs::read_to_string(self.log()).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        bail!(
            "{} has ended; the end of {}:\n{}",
            self.name,
            self.log().display(),
            lines[lines.len().saturating_sub(15)..].join("\n")
        )
    }

    /// Ends it, politely for up to `grace`.
    pub fn stop(&self, grace: Duration) {
        if let Some(pid) = self.pid() {
            signal(pid, "-TERM");
            let end = Instant::now() + grace;
            while self.pid().is_some() && Instant::now() < end {
                thread::sleep(Duration::from_millis(20));
            }
            if self.pid().is_some() {
                signal(pid, "-KILL");
            }
        }
        let _ = fs::remove_file(self.file());
    }

    /// Kills it and starts it again as it was started.
    pub fn restart(&self) -> Result<()> {
        let pid = self.pid().with_context(|| format!("{} does not run", self.name))?;
        let read = |file: &str| -> Result<Vec<String>> {
            let text = fs::read_to_string(format!("/proc/{pid}/{file}"))?;
            Ok(text.split_terminator('\0').map(str::to_owned).collect())
        };
        let line = read("cmdline")?;
        let path = read("environ")?.iter().find_map(|it| it.strip_prefix("PATH=").map(str::to_owned));
        let (program, arguments) = line.split_first().context("the daemon has no command line")?;
        self.stop(Duration::ZERO);
        let end = Instant::now() + Duration::from_secs(5);
        while started_at(pid).is_some() && Instant::now() < end {
            thread::sleep(Duration::from_millis(10));
        }
        // Its ports may stay taken for a moment, while the last threads end.
        while self.pid().is_none() && Instant::now() < end {
            self.start(std::path::Path::new(program), arguments, path.as_deref().unwrap_or_default())?;
            thread::sleep(Duration::from_millis(500));
        }
        self.check()
    }

    fn log(&self) -> PathBuf {
        self.layout.path("logs").join(format!("{}.log", self.name))
    }

    fn file(&self) -> PathBuf {
        self.layout.path(&format!("{}.pid", self.name))
    }
}

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: u32, signal: &str) {
    let _ = Command::new("kill").args([signal, &pid.to_string()]).stderr(Stdio::null()).status();
}

/// When a live process was started, in clock ticks since boot.
fn started_at(pid: u32) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold anything; fields are counted after it.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

/// Waits until `ready` holds, while `daemons` run.
pub fn wait(what: &str, limit: Duration, daemons: &[Daemon<'_>], mut ready: impl FnMut() -> bool) -> Result<()> {
    let end = Instant::now() + limit;
    while !ready() {
        for daemon in daemons {
            daemon.check()?;
        }
        if Instant::now() > end {
            bail!("{what} was not ready within {} s; logs are beside the kubeconfig in logs/", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pid_that_was_given_to_another_process_is_not_the_daemon() {
        let folder = std::env::temp_dir().join(format!("soak-daemon-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let layout = Layout { name: "t".into(), index: 0, mode: Mode::ControlPlane, folder: folder.clone() };
        let daemon = Daemon::new(&layout, "sleeper");
        let own = std::process::id();
        fs::write(folder.join("sleeper.pid"), format!("{own} {}\n", started_at(own).unwrap() + 1)).unwrap();
        assert_eq!(daemon.pid(), None);
        fs::write(folder.join("sleeper.pid"), format!("{own} {}\n", started_at(own).unwrap())).unwrap();
        assert_eq!(daemon.pid(), Some(own));
        fs::remove_dir_all(folder).unwrap();
    }
}
