//! What belongs to one cluster: folders, names, addresses, ports. Two clusters share none of them.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use crate::tools;

/// Clusters that fit side by side.
const MAX_CLUSTERS: u8 = 10;

/// How much of a cluster there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// A control plane and a real node, in a network namespace of their own.
    Node,
    /// A control plane on loopback, and a node that only exists in kwok's imagination.
    Simulated,
    /// A control plane on loopback.
    ControlPlane,
}

impl Mode {
    /// The word that is kept in the cluster's folder.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Simulated => "simulated",
            Self::ControlPlane => "control-plane",
        }
    }
}

/// One cluster's place in the machine.
#[derive(Clone, Debug)]
pub struct Layout {
    /// Its name.
    pub name: String,
    /// Its number, from which addresses and ports follow.
    pub index: u8,
    /// How much of it there is.
    pub mode: Mode,
    /// Its folder in the cache.
    pub folder: PathBuf,
}

impl Layout {
    /// The layout of a cluster that exists, if it does.
    pub fn load(name: &str) -> Result<Option<Self>> {
        let folder = clusters().join(name);
        let Ok(text) = fs::read_to_string(folder.join("layout")) else { return Ok(None) };
        let (index, mode) = text.trim().split_once(' ').context("the cluster's layout file is damaged")?;
        let mode = [Mode::Node, Mode::Simulated, Mode::ControlPlane]
            .into_iter()
            .find(|it| it.as_str() == mode)
            .context("the cluster's layout file names no mode")?;
        Ok(Some(Self { name: name.into(), index: index.parse()?, mode, folder }))
    }

    /// The layout of a cluster, made if it does not exist.
    ///
    /// Errors: a bad name; the cluster exists in another mode; all numbers are taken.
    pub fn load_or_create(name: &str, mode: Mode) -> Result<Self> {
        let good = !name.is_empty()
            && name.len() <= 9
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-');
        if !good {
            bail!("`{name}` can't name a cluster: use at most nine lower-case letters, digits and dashes");
        }
        if let Some(layout) = Self::load(name)? {
            if layout.mode != mode {
                bail!(
                    "cluster {name} exists as {}: take it down first (cargo xtask cluster down --name {name})",
                    layout.mode.as_str()
                );
            }
            return Ok(layout);
        }
        let taken: Vec<u8> = all()?.iter().map(|layout| layout.index).collect();
        // Another user's clusters are in another folder, but on the same machine.
        let in_use = |index: u8| Path::new("/sys/class/net").join(format!("soak{index}h")).exists();
        let index = (0..MAX_CLUSTERS)
            .find(|index| !taken.contains(index) && !in_use(*index))
            .with_context(|| format!("there are {MAX_CLUSTERS} clusters already: take one down"))?;
        let folder = clusters().join(name);
        fs::create_dir_all(&folder)?;
        fs::write(folder.join("layout"), format!("{index} {}\n", mode.as_str()))?;
        Ok(Self { name: name.into(), index, mode, folder })
    }

    /// A path in the cluster's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Sockets and containerd's state, short because a socket's path is.
    pub fn run(&self) -> PathBuf {
        Path::new("/run").join(self.netns())
    }

    /// The network namespace, the cgroup and the prefix of links.
    pub fn netns(&self) -> String {
        format!("soak-{}", self.name)
    }

    /// The host's end of the link into the namespace; the other end has a `c` in place of the `h`.
    pub fn link(&self) -> (String, String) {
        (format!("soak{}h", self.index), format!("soak{}c", self.index))
    }

    /// The host's address on that link.
    pub fn host_address(&self) -> String {
        format!("10.199.{}.1", self.index)
    }

    /// The namespace's address on that link; loopback where there is no namespace.
    pub fn address(&self) -> String {
        match self.mode {
            Mode::Node => format!("10.199.{}.2", self.index),
            Mode::Simulated | Mode::ControlPlane => "127.0.0.1".into(),
        }
    }

    /// The first address of the pods' range: the bridge, the node, and the API server as pods see it.
    pub fn node_address(&self) -> String {
        match self.mode {
            Mode::Node => format!("10.{}.0.1", 210 + self.index),
            Mode::Simulated | Mode::ControlPlane => "127.0.0.1".into(),
        }
    }

    /// The pods' range.
    pub fn pods(&self) -> String {
        format!("10.{}.0.0/16", 210 + self.index)
    }

    /// The node's part of it.
    pub fn node_pods(&self) -> String {
        format!("10.{}.0.0/24", 210 + self.index)
    }

    /// The Services' range.
    pub fn services(&self) -> String {
        format!("10.{}.0.0/16", 230 + self.index)
    }

    /// The address of the Service `kubernetes`.
    pub fn kubernetes_service(&self) -> String {
        format!("10.{}.0.1", 230 + self.index)
    }

    /// The address of the cluster's DNS.
    pub fn dns_service(&self) -> String {
        format!("10.{}.0.10", 230 + self.index)
    }

    /// A port: the usual one in a namespace, one of the cluster's own on loopback.
    pub fn port(&self, usual: u16) -> u16 {
        match self.mode {
            Mode::Node => usual,
            Mode::Simulated | Mode::ControlPlane => 20_000 + u16::from(self.index) * 1_000 + usual % 1_000,
        }
    }

    /// The API server's address.
    pub fn server(&self) -> String {
        format!("https://{}:{}", self.address(), self.port(6443))
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path("kubeconfig")
    }
}

/// Every cluster that has a folder.
pub fn all() -> Result<Vec<Layout>> {
    let Ok(entries) = fs::read_dir(clusters()) else { return Ok(Vec::new()) };
    let mut layouts = Vec::new();
    for entry in entries {
        if let Some(layout) = Layout::load(&entry?.file_name().to_string_lossy())? {
            layouts.push(layout);
        }
    }
    layouts.sort_by_key(|layout| layout.index);
    Ok(layouts)
}

fn clusters() -> PathBuf {
    tools::cache().join("clusters")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn ten_clusters_share_no_range_and_no_port() {
        let mut seen = BTreeSet::new();
        for index in 0..MAX_CLUSTERS {
            let real = Layout { name: format!("n{index}"), index, mode: Mode::Node, folder: PathBuf::new() };
            let plane = Layout { mode: Mode::ControlPlane, ..real.clone() };
            let places = [real.pods(), real.services(), real.address(), real.netns(), real.link().0];
            let ports = [6443, 2379, 2380, 10_257, 10_259].map(|port| plane.port(port).to_string());
            for place in places.into_iter().chain(ports) {
                assert!(seen.insert(place.clone()), "{place} comes twice");
            }
        }
    }
}
