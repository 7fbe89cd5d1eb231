//! A node that only exists in kwok's imagination: for machines without root, and for thousands of pods.

use std::{fs, path::Path, time::Duration};

use anyhow::{Result, bail};

use super::{
    daemon::{Daemon, wait},
    layout::Layout,
    plane::kubectl,
};

/// The daemon's name.
pub const DAEMON: &str = "kwok";

/// Starts kwok and its node.
pub fn start(layout: &Layout, bin: &Path, path: &str) -> Result<()> {
    let folder = layout.folder.display();
    let stages = layout.path("kwok.yaml");
    fs::write(&stages, include_str!("kwok.yaml"))?;
    let arguments = vec![
        format!("--kubeconfig={folder}/admin.kubeconfig"),
        format!("--config={}", stages.display()),
        "--manage-all-nodes=true".into(),
        format!("--server-address=127.0.0.1:{}", layout.port(10_247)),
    ];
    let daemon = Daemon::new(layout, DAEMON);
    daemon.start(&bin.join("kwok"), &arguments, path)?;
    let node = layout.path("node.yaml");
    fs::write(&node, include_str!("simulated-node.yaml"))?;
    if !kubectl(layout, bin, &["apply", "--server-side", "-f", &node.display().to_string()]) {
        bail!("the simulated node could not be applied");
    }
    wait("the simulated node", Duration::from_secs(30), &[daemon], || {
        kubectl(layout, bin, &["wait", "--for=condition=Ready", "node/simulated", "--timeout=1s"])
    })
}
