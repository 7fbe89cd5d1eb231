//! An operator as a process that is killed, stopped, and started again.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use tokio::{
    process::{Child, Command},
    sync::Notify,
};

/// How an operator is started.
#[derive(Clone, Debug)]
pub struct Launch {
    /// The program.
    pub program: PathBuf,
    /// The proxy's kubeconfig.
    pub kubeconfig: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Guards that are taken away.
    pub without: Option<String>,
    /// Where its logs go.
    pub folder: PathBuf,
}

/// One operator over all of its lives.
pub struct Process {
    number: usize,
    launch: Launch,
    child: Mutex<Option<Child>>,
    lives: AtomicU32,
    ended: Notify,
}

impl Process {
    /// An operator that does not run yet.
    pub fn new(number: usize, launch: Launch) -> Self {
        Self { number, launch, child: Mutex::default(), lives: AtomicU32::new(0), ended: Notify::new() }
    }

    /// Which life of which operator is at work.
    pub fn life(&self) -> String {
        format!("{}.{}", self.number, self.lives())
    }

    /// How often it was started.
    pub fn lives(&self) -> u32 {
        self.lives.load(Ordering::Relaxed)
    }

    /// Starts it.
    pub fn start(&self) -> Result<()> {
        let Launch { program, kubeconfig, arguments, without, folder } = &self.launch;
        let life = self.lives.fetch_add(1, Ordering::Relaxed) + 1;
        let log = self.log(folder, life);
        let mut command = Command::new(program);
        command
            .args(arguments)
            .args(["--instance", &format!("operator-{}", self.number)])
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).with_context(|| format!("{} can't be written", log.display()))?)
            .kill_on_drop(true);
        if let Some(without) = without {
            command.env("SOAK_TEST_WITHOUT", without);
        }
        let child = command.spawn().with_context(|| format!("{} can't be started", program.display()))?;
        *self.child.lock() = Some(child);
        Ok(())
    }

    fn log(&self, folder: &Path, life: u32) -> PathBuf {
        folder.join(format!("operator-{}.{life}.log", self.number))
    }

    /// Ends it as a crash would. Whoever waits in [`Process::crashed`] hears of it.
    pub fn kill(&self) {
        if let Some(child) = self.child.lock().as_mut() {
            let _ = child.start_kill();
        }
        self.ended.notify_one();
    }

    /// Waits for a kill.
    pub async fn crashed(&self) {
        self.ended.notified().await;
    }

    /// Collects what a kill left.
    pub async fn reap(&self) {
        let child = self.child.lock().take();
        if let Some(mut child) = child {
            let _ = child.start_kill();
            let _ = child.wait().await;
        }
    }

    /// Whether it ended without being killed.
    pub fn ended_by_itself(&self) -> bool {
        self.child.lock().as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(Some(_))))
    }

    /// Sends a signal by name, such as `-STOP`.
    pub fn signal(&self, signal: &str) {
        let pid = self.child.lock().as_ref().and_then(Child::id);
        if let Some(pid) = pid {
            let _ = std::process::Command::new("kill").args([signal, &pid.to_string()]).status();
        }
    }
}
