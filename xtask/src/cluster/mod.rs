//! Clusters for tests and demos, built from source and run as plain processes of this machine (docs/local-cluster.md).

mod daemon;
mod layout;
mod node;
mod pki;
mod plane;
mod simulated;
mod teardown;

use std::{
    env,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

use crate::tools;
use daemon::Daemon;
use layout::Layout;

pub use layout::Mode;

/// What cluster is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// Its name.
    pub name: String,
    /// How much of it; none: a real node with root, a simulated one without.
    pub mode: Option<Mode>,
}

impl Options {
    /// A cluster with a node.
    pub fn named(name: &str) -> Self {
        Self { name: name.into(), mode: None }
    }
}

/// A cluster that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// A kubectl of the cluster's version.
    pub kubectl: PathBuf,
    layout: Layout,
}

impl Running {
    /// Where volumes of pods may lie on the node's disk; they go with the cluster.
    pub fn volumes(&self) -> PathBuf {
        self.layout.path("volumes")
    }

    /// Makes an image known to the cluster's node.
    ///
    /// Errors: the cluster has no real node.
    pub fn load_image(&self, tar: &Path) -> Result<()> {
        if self.layout.mode != Mode::Node {
            bail!("cluster {} has no real node to load images into", self.layout.name);
        }
        node::load(&self.layout, &tools::build(tools::NODE)?, tar)
    }

    /// Kills a daemon and starts it again as it was started.
    pub fn restart_daemon(&self, name: &str) -> Result<()> {
        self.daemon(name)?.restart()
    }

    /// Sends a signal, such as `-STOP`, to a daemon.
    pub fn signal_daemon(&self, name: &str, signal: &str) -> Result<()> {
        let pid = self.daemon(name)?.pid().with_context(|| format!("{name} does not run"))?;
        daemon::signal(pid, signal);
        Ok(())
    }

    /// Makes etcd forget all revisions but the newest.
    pub fn compact_etcd(&self) -> Result<()> {
        let status: serde_json::Value = serde_json::from_slice(&self.etcdctl(&["endpoint", "status", "-w", "json"])?)?;
        let revision = status[0]["Status"]["header"]["revision"].as_u64().context("etcd tells no revision")?;
        self.etcdctl(&["compact", &revision.to_string()]).map(|_| ())
    }

    fn etcdctl(&self, arguments: &[&str]) -> Result<Vec<u8>> {
        let program = tools::build(&["etcdctl"])?.join("etcdctl");
        let endpoint = format!("--endpoints=http://127.0.0.1:{}", self.layout.port(2379));
        let mut command = Command::new("nsenter");
        if self.layout.mode == Mode::Node {
            command.arg(format!("--net=/run/netns/{}", self.layout.netns()));
        }
        let output = command.arg("--").arg(program).arg(endpoint).args(arguments).stderr(Stdio::inherit()).output()?;
        if !output.status.success() {
            bail!("etcdctl {} ended with {}", arguments.join(" "), output.status);
        }
        Ok(output.stdout)
    }

    fn daemon(&self, name: &str) -> Result<Daemon<'_>> {
        // Where the node is simulated, its kubelet is.
        let name = if name == "kubelet" && self.layout.mode == Mode::Simulated { simulated::DAEMON } else { name };
        let name = daemons(&self.layout).into_iter().find(|it| *it == name);
        Ok(Daemon::new(&self.layout, name.context("the cluster has no such daemon")?))
    }
}

/// Brings a cluster up, or finds it running. Progress goes to stderr.
pub fn up(options: &Options) -> Result<Running> {
    let mode = options.mode.unwrap_or(if is_root() { Mode::Node } else { Mode::Simulated });
    if mode == Mode::Node {
        if !is_root() {
            bail!("a real node needs root; without it use --simulated or --control-plane");
        }
        tools::install_packages()?;
    }
    let extra: &[&str] = match mode {
        Mode::Node => tools::NODE,
        Mode::Simulated => &[simulated::DAEMON],
        Mode::ControlPlane => &[],
    };
    let bin = tools::build(&[tools::CONTROL_PLANE, extra].concat())?;
    let layout = Layout::load_or_create(&options.name, mode)?;
    let running = Running { kubeconfig: layout.kubeconfig(), kubectl: bin.join("kubectl"), layout: layout.clone() };
    if daemons(&layout).iter().all(|name| Daemon::new(&layout, name).pid().is_some())
        && plane::kubectl(&layout, &bin, &["get", "--raw", "/readyz"])
    {
        return Ok(running);
    }
    eprintln!("starting cluster {} ({})", layout.name, layout.mode.as_str());
    // A part that is missing means that somebody or something killed it: what is left is not to be trusted.
    let layout = if daemons(&layout).iter().any(|name| layout.path(&format!("{name}.pid")).exists()) {
        eprintln!("parts of it were killed: it begins anew");
        teardown::down(&layout)?;
        Layout::load_or_create(&options.name, mode)?
    } else {
        layout
    };
    pki::ensure(&layout)?;
    let path = format!("{}:{}", bin.display(), env::var("PATH").unwrap_or_default());
    if mode == Mode::Node {
        node::network(&layout)?;
    }
    plane::start(&layout, &bin, &path)?;
    plane::wait_for_default_account(&layout, &bin)?;
    match mode {
        Mode::Node => node::start(&layout, &bin, &path)?,
        Mode::Simulated => simulated::start(&layout, &bin, &path)?,
        Mode::ControlPlane => {}
    }
    Ok(Running { layout, ..running })
}

/// Takes a cluster down; one that is not there is fine.
pub fn down(name: &str) -> Result<()> {
    if let Some(layout) = Layout::load(name)? {
        return teardown::down(&layout);
    }
    eprintln!("there is no cluster {name}");
    Ok(())
}

/// Takes every cluster down.
pub fn down_all() -> Result<()> {
    layout::all()?.iter().try_for_each(teardown::down)
}

/// A line for each daemon of each cluster.
pub fn status() -> Result<Vec<String>> {
    let mut lines = Vec::new();
    for layout in layout::all()? {
        lines.push(format!("{} ({}) {}", layout.name, layout.mode.as_str(), layout.server()));
        for name in daemons(&layout) {
            let state =
                Daemon::new(&layout, name).pid().map_or_else(|| "not running".into(), |pid| format!("pid {pid}"));
            lines.push(format!("  {name:<24} {state}"));
        }
    }
    Ok(lines)
}

/// A cluster that was brought up before.
pub fn running(name: &str) -> Result<Running> {
    let layout = Layout::load(name)?
        .with_context(|| format!("there is no cluster {name}: cargo xtask cluster up --name {name}"))?;
    Ok(Running {
        kubeconfig: layout.kubeconfig(),
        kubectl: tools::build(tools::CONTROL_PLANE)?.join("kubectl"),
        layout,
    })
}

fn daemons(layout: &Layout) -> Vec<&'static str> {
    let mut names = plane::DAEMONS.to_vec();
    match layout.mode {
        Mode::Node => names.extend(node::DAEMONS),
        Mode::Simulated => names.push(simulated::DAEMON),
        Mode::ControlPlane => {}
    }
    names
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}
