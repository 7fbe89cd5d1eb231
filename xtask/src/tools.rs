//! Programs that the project builds or installs by itself: Go programs from pinned modules, and a few Debian packages.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::{image, workspace};

/// A program that is built from a Go module. Its pins are `xtask/go/MODULE/go.mod` and `go.sum`.
struct Tool {
    name: &'static str,
    /// Folder below `xtask/go`.
    module: &'static str,
    package: &'static str,
}

const fn tool(name: &'static str, module: &'static str, package: &'static str) -> Tool {
    Tool { name, module, package }
}

/// Every program. One more is a folder with its pins and a line here.
const TOOLS: &[Tool] = &[
    tool("kube-apiserver", "kubernetes", "k8s.io/kubernetes/cmd/kube-apiserver"),
    tool("kube-controller-manager", "kubernetes", "k8s.io/kubernetes/cmd/kube-controller-manager"),
    tool("kube-scheduler", "kubernetes", "k8s.io/kubernetes/cmd/kube-scheduler"),
    tool("kubelet", "kubernetes", "k8s.io/kubernetes/cmd/kubelet"),
    tool("kube-proxy", "kubernetes", "k8s.io/kubernetes/cmd/kube-proxy"),
    tool("kubectl", "kubernetes", "k8s.io/kubernetes/cmd/kubectl"),
    tool("etcd", "etcd", "go.etcd.io/etcd/server/v3"),
    tool("etcdctl", "etcdctl", "go.etcd.io/etcd/etcdctl/v3"),
    tool("containerd", "containerd", "github.com/containerd/containerd/v2/cmd/containerd"),
    tool("containerd-shim-runc-v2", "containerd", "github.com/containerd/containerd/v2/cmd/containerd-shim-runc-v2"),
    tool("ctr", "containerd", "github.com/containerd/containerd/v2/cmd/ctr"),
    tool("coredns", "coredns", "github.com/coredns/coredns"),
    tool("kwok", "kwok", "sigs.k8s.io/kwok/cmd/kwok"),
    tool("helm", "helm", "helm.sh/helm/v4/cmd/helm"),
    tool("versitygw", "versitygw", "github.com/versity/versitygw/cmd/versitygw"),
    tool("toxiproxy-server", "toxiproxy", "github.com/Shopify/toxiproxy/v2/cmd/server"),
];

/// What a control plane needs.
pub const CONTROL_PLANE: &[&str] = &["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubectl"];
/// What a node needs beside that.
pub const NODE: &[&str] =
    &["kubelet", "kube-proxy", "containerd", "containerd-shim-runc-v2", "ctr", "coredns", "etcdctl"];
/// Debian packages of a node: binary by which a present one is known, and package.
const PACKAGES: &[(&str, &str)] = &[
    ("/usr/sbin/runc", "runc"),
    ("/usr/lib/cni/bridge", "containernetworking-plugins"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/conntrack", "conntrack"),
    ("/bin/busybox", "busybox-static"),
];
/// A module proxy that stumbles is asked again.
const DOWNLOAD_TRIES: u32 = 4;

/// Where everything is kept that outlives a checkout.
pub fn cache() -> PathBuf {
    let base = env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_else(|| "/root".into())).join(".cache");
    base.unwrap_or_else(home).join("soak-operator")
}

/// The path of a program, which is built first if its pins have changed or it was never built.
pub fn path(name: &str) -> Result<PathBuf> {
    let tool = find(name)?;
    let (folder, stamp) = (workspace::root().join("xtask/go").join(tool.module), stamp(tool)?);
    let binary = cache().join("bin").join(format!("{name}-{stamp}")).join(name);
    if !binary.exists() {
        build_one(tool, &folder, &binary).with_context(|| format!("{name} can't be built"))?;
    }
    Ok(binary)
}

/// Builds programs in a row and tells progress on stderr; the answer is the folder that links them all by name.
pub fn build(names: &[&str]) -> Result<PathBuf> {
    let folder = cache().join("bin/current");
    fs::create_dir_all(&folder)?;
    for (index, name) in names.iter().enumerate() {
        let tool = find(name)?;
        let built = cache().join("bin").join(format!("{name}-{}", stamp(tool)?)).join(name).exists();
        if !built {
            eprintln!("building {name} ({} of {})", index + 1, names.len());
        }
        let began = Instant::now();
        let binary = path(name)?;
        if !built {
            eprintln!("  {name}: {:.0} s", began.elapsed().as_secs_f64());
        }
        let link = folder.join(name);
        if fs::read_link(&link).ok().as_deref() != Some(&binary) {
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink(&binary, &link)?;
        }
    }
    Ok(folder)
}

/// The names of all programs.
pub fn names() -> Vec<&'static str> {
    TOOLS.iter().map(|tool| tool.name).collect()
}

fn find(name: &str) -> Result<&'static Tool> {
    TOOLS
        .iter()
        .find(|tool| tool.name == name)
        .with_context(|| format!("there is no program {name}; there are {}", names().join(", ")))
}

/// What a built program is known by: its pins.
fn stamp(tool: &Tool) -> Result<String> {
    let folder = workspace::root().join("xtask/go").join(tool.module);
    let mut hash = Sha256::new();
    for file in ["go.mod", "go.sum"] {
        let path = folder.join(file);
        hash.update(fs::read(&path).with_context(|| format!("{} can't be read", path.display()))?);
    }
    Ok(image::hexadecimal(&hash.finalize()[..6]))
}

fn build_one(tool: &Tool, folder: &Path, binary: &Path) -> Result<()> {
    download(folder)?;
    let version = kubernetes_version(folder)?;
    let flags = format!(
        "-s -w -X k8s.io/component-base/version.gitVersion=v{version} -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=37"
    );
    let new = binary.with_extension("new");
    fs::create_dir_all(binary.parent().context("a binary has a folder")?)?;
    let output = Command::new("go")
        .args(["build", "-trimpath", "-mod=readonly", "-ldflags", &flags, "-o"])
        .arg(&new)
        .arg(tool.package)
        .current_dir(folder)
        .env("CGO_ENABLED", "0")
        .env("GOFLAGS", "")
        .output()
        .context("go can't be started: install Go 1.26")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    // Only a whole binary gets the name.
    fs::rename(&new, binary)?;
    Ok(())
}

fn download(folder: &Path) -> Result<()> {
    for attempt in 1..=DOWNLOAD_TRIES {
        let output = Command::new("go")
            .args(["mod", "download"])
            .current_dir(folder)
            .output()
            .context("go can't be started: install Go 1.26")?;
        if output.status.success() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if attempt == DOWNLOAD_TRIES {
            bail!("modules can't be downloaded: {text}");
        }
        eprintln!("  a download failed, trying again: {}", text.lines().last().unwrap_or_default());
        thread::sleep(Duration::from_secs(u64::from(attempt) * 3));
    }
    Ok(())
}

fn kubernetes_version(folder: &Path) -> Result<String> {
    let text = fs::read_to_string(folder.join("go.mod"))?;
    let line = text.lines().find(|line| line.contains("k8s.io/kubernetes v"));
    Ok(line
        .and_then(|line| line.split(" v").nth(1))
        .map_or_else(|| "0.0.0".into(), |rest| rest.split_whitespace().next().unwrap_or_default().to_owned()))
}

/// Installs the Debian packages of a node that are missing. Needs root.
pub fn install_packages() -> Result<()> {
    let missing: Vec<&str> =
        PACKAGES.iter().filter(|(binary, _)| !Path::new(binary).exists()).map(|(_, package)| *package).collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("installing {}", missing.join(", "));
    apt(&["update"])?;
    let mut arguments = vec!["install", "-y", "--no-install-recommends"];
    arguments.extend(missing);
    apt(&arguments)
}

/// Prometheus from its Debian package, unpacked into the cache: installing it would start a service.
pub fn prometheus() -> Result<PathBuf> {
    let folder = cache().join("bin/prometheus-debian");
    let binary = folder.join("usr/bin/prometheus");
    if binary.exists() {
        return Ok(binary);
    }
    fs::create_dir_all(&folder)?;
    apt(&["update"])?;
    unpack(&folder, "apt-get", &["download", "prometheus"])?;
    let package = fs::read_dir(&folder)?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
        .context("apt-get download left no package")?;
    unpack(&folder, "dpkg-deb", &["-x", &package.display().to_string(), "."])?;
    fs::remove_file(package)?;
    Ok(binary)
}

/// Chromium, from its Debian package when it is not there: its libraries are too many to be unpacked beside the system's.
pub fn chromium() -> Result<PathBuf> {
    let binary = PathBuf::from("/usr/bin/chromium");
    if !binary.exists() {
        apt(&["update"])?;
        apt(&["install", "--yes", "--no-install-recommends", "chromium"])?;
    }
    Ok(binary)
}

fn unpack(folder: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let status = Command::new(program)
        .args(arguments)
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{program} can't be started: this needs Debian"))?;
    if !status.success() {
        bail!("{program} {} ended with {status}", arguments.join(" "));
    }
    Ok(())
}

fn apt(arguments: &[&str]) -> Result<()> {
    let output = Command::new("apt-get")
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .context("apt-get can't be started: this needs Debian, or the packages by hand")?;
    if !output.status.success() {
        bail!("apt-get {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
