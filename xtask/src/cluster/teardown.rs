//! Taking a cluster down: nothing of it stays in the kernel, and nothing of another is touched.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{
    daemon::{Daemon, signal},
    layout::{Layout, Mode},
    node, plane, simulated,
};

/// How long a daemon may take to end before it is killed. Nothing of the cluster is meant to survive.
const GRACE: Duration = Duration::from_secs(3);

/// Removes a cluster.
///
/// Errors: when something is left behind; it is named.
pub fn down(layout: &Layout) -> Result<()> {
    if layout.mode == Mode::Node {
        Daemon::new(layout, "kubelet").stop(GRACE);
        Daemon::new(layout, "kube-proxy").stop(GRACE);
        kill_containers(layout);
        Daemon::new(layout, "containerd").stop(GRACE);
    }
    for name in [simulated::DAEMON].iter().chain(plane::DAEMONS.iter().rev()) {
        Daemon::new(layout, name).stop(GRACE);
    }
    if layout.mode == Mode::Node {
        unmount(layout);
        remove_network(layout);
        remove_cgroups(layout);
        let _ = fs::remove_dir_all(layout.run());
    }
    let left = leftovers(layout);
    if !left.is_empty() {
        bail!("of cluster {} there is left:\n{}", layout.name, left.join("\n"));
    }
    fs::remove_dir_all(&layout.folder)?;
    Ok(())
}

/// What is there of a cluster outside of its folder: processes, mounts, namespaces, links, cgroups.
pub fn leftovers(layout: &Layout) -> Vec<String> {
    let mut left: Vec<String> =
        processes(layout).into_iter().map(|(pid, line)| format!("process {pid}: {line}")).collect();
    left.extend(mounts(layout).into_iter().map(|mount| format!("mount {mount}")));
    if layout.mode != Mode::Node {
        return left;
    }
    if Path::new("/run/netns").join(layout.netns()).exists() {
        left.push(format!("network namespace {}", layout.netns()));
    }
    if Path::new("/sys/class/net").join(layout.link().0).exists() {
        left.push(format!("link {}", layout.link().0));
    }
    left.extend(pod_namespaces(layout).into_iter().map(|name| format!("network namespace {name}")));
    let groups = node::cgroups().unwrap_or_default();
    left.extend(
        groups
            .iter()
            .map(|root| root.join(layout.netns()))
            .filter(|group| group.exists())
            .map(|group| format!("cgroup {}", group.display())),
    );
    left
}

/// Ends shims and containers at once: they are told by their paths and by the cluster's cgroup.
fn kill_containers(layout: &Layout) {
    let end = Instant::now() + Duration::from_secs(10);
    while Instant::now() < end {
        let mut found = false;
        for group in node::cgroups().unwrap_or_default() {
            for pid in pids_below(&group.join(layout.netns())) {
                signal(pid, "-KILL");
                found = true;
            }
        }
        for (pid, line) in processes(layout) {
            if line.contains("containerd-shim") {
                signal(pid, "-KILL");
                found = true;
            }
        }
        if !found {
            return;
        }
        thread::sleep(Duration::from_millis(50));
    }
}

fn pids_below(group: &Path) -> Vec<u32> {
    let mut pids: Vec<u32> = fs::read_to_string(group.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| line.parse().ok())
        .collect();
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|type_| type_.is_dir()) {
            pids.extend(pids_below(&entry.path()));
        }
    }
    pids
}

/// Processes whose command line names one of the cluster's folders.
fn processes(layout: &Layout) -> Vec<(u32, String)> {
    let marks = [format!("{}/", layout.folder.display()), format!("{}/", layout.run().display())];
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
        let line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default().replace('\0', " ");
        let program = line.split(' ').next().unwrap_or_default();
        // An editor or a pager that looks at a log is no part of the cluster.
        let ours = program.contains("containerd-shim") || program.contains("/soak-operator/bin/");
        if ours && marks.iter().any(|mark| line.contains(mark.as_str())) {
            found.push((pid, line.chars().take(120).collect()));
        }
    }
    found
}

fn mounts(layout: &Layout) -> Vec<String> {
    let marks = [format!("{}/", layout.folder.display()), format!("{}/", layout.run().display())];
    let text = fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut mounts: Vec<String> = text
        .lines()
        .filter_map(|line| line.split(' ').nth(1))
        .filter(|place| marks.iter().any(|mark| place.starts_with(mark.as_str())))
        .map(str::to_owned)
        .collect();
    // What is mounted inside of another mount comes off first.
    mounts.sort_by(|a, b| b.cmp(a));
    mounts
}

fn unmount(layout: &Layout) {
    for _ in 0..3 {
        for place in mounts(layout) {
            quietly("umount", &["-l", &place]);
        }
    }
}

/// Namespaces of pods: told by an address from the cluster's range.
fn pod_namespaces(layout: &Layout) -> Vec<String> {
    let prefix = layout.node_address().trim_end_matches('1').to_owned();
    let mut names = Vec::new();
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("cni-") {
            continue;
        }
        let output =
            Command::new("ip").args(["-n", &name, "-4", "-o", "addr", "show", "eth0"]).stderr(Stdio::null()).output();
        if output.is_ok_and(|output| String::from_utf8_lossy(&output.stdout).contains(&format!("inet {prefix}"))) {
            names.push(name);
        }
    }
    names
}

fn remove_network(layout: &Layout) {
    for name in pod_namespaces(layout) {
        quietly("ip", &["netns", "del", &name]);
    }
    // Bridge, links and packet filter live in the namespace and go with it; routes go with the host's link.
    quietly("ip", &["link", "del", &layout.link().0]);
    quietly("ip", &["netns", "del", &layout.netns()]);
}

fn remove_cgroups(layout: &Layout) {
    let end = Instant::now() + Duration::from_secs(3);
    for root in node::cgroups().unwrap_or_default() {
        let group = root.join(layout.netns());
        while group.exists() && Instant::now() < end {
            remove_tree(&group);
            if group.exists() {
                thread::sleep(Duration::from_millis(50));
            }
        }
    }
}

/// cgroups are removed folder by folder; their files can't be.
fn remove_tree(group: &Path) {
    for entry in fs::read_dir(group).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|type_| type_.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    let _ = fs::remove_dir(group);
}

fn quietly(program: &str, arguments: &[&str]) {
    let _ =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
}
