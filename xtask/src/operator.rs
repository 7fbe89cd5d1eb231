//! The operator under test as a process of this machine.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{kubectl::Kubectl, workspace};

/// How long the operator may take to become ready, and to end.
const LIMIT: Duration = Duration::from_secs(30);

/// A running operator. Dropping it ends it the hard way; [`Operator::stop`] is the polite one.
pub struct Operator {
    child: Child,
    log: PathBuf,
}

impl Operator {
    /// Builds the operator, installs its CRDs and starts it with these options against a cluster. Its log goes to `log`.
    pub fn start(kubectl: &Kubectl, log: &Path, options: &[String]) -> Result<Self> {
        let binary =
            workspace::cargo_build(&["--package", "soak-operator", "--bin", "soak-operator"])?.join("soak-operator");
        Self::start_binary(&binary, kubectl, log, options)
    }

    /// As [`start`](Self::start), with a binary that is there.
    pub fn start_binary(binary: &Path, kubectl: &Kubectl, log: &Path, options: &[String]) -> Result<Self> {
        install_crds(kubectl)?;
        if let Some(folder) = log.parent() {
            fs::create_dir_all(folder)?;
        }
        let output = File::create(log).with_context(|| format!("{} can't be written", log.display()))?;
        let child = Command::new(binary)
            .args(["--metrics-address", "127.0.0.1:0"])
            .args(options)
            .env("KUBECONFIG", kubectl.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(output)
            .spawn()
            .with_context(|| format!("{} can't be started", binary.display()))?;
        let mut operator = Self { child, log: log.to_owned() };
        operator.wait_until("works", |text| text.contains("the operator works"))?;
        Ok(operator)
    }

    /// Asks it to end, as a kubelet would, and waits for that.
    pub fn stop(mut self) -> Result<()> {
        let pid = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &pid]).status()?;
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            if let Some(status) = self.child.try_wait()? {
                if status.success() {
                    return Ok(());
                }
                bail!("the operator ended with {status}; its log is {}", self.log.display());
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("the operator did not end within {} s of SIGTERM", LIMIT.as_secs())
    }

    fn wait_until(&mut self, what: &str, judge: impl Fn(&str) -> bool) -> Result<()> {
        let end = Instant::now() + LIMIT;
        while Instant::now() < end {
            let text = fs::read_to_string(&self.log).unwrap_or_default();
            if judge(&text) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the operator ended with {status}:\n{text}");
            }
            thread::sleep(Duration::from_millis(50));
        }
        bail!("nothing shows that the operator {what}; its log is {}", self.log.display())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Installs the generated CRDs with the admission policy, and waits until they are served.
pub fn install_crds(kubectl: &Kubectl) -> Result<()> {
    let crds = workspace::root().join("crds");
    kubectl.run(&["apply", "--server-side", "--force-conflicts", "-f", &crds.to_string_lossy()])?;
    // The folder has the policy as well, which has no such condition.
    kubectl.run(&["wait", "--for=condition=Established", "--timeout=30s", "crd", "--all"])?;
    Ok(())
}
