//! The node: containerd, kubelet and kube-proxy in the cluster's own network namespace, and DNS on top.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{
    daemon::{Daemon, wait},
    layout::Layout,
    pki::NODE,
    plane::kubectl,
};
use crate::{
    image::{self, ImageSpec},
    workspace,
};

/// The node's daemons, in the order in which they are started.
pub const DAEMONS: [&str; 3] = ["containerd", "kubelet", "kube-proxy"];

const LIMIT: Duration = Duration::from_mins(1);
const NAMESPACE: &str = "k8s.io";

/// Makes the network namespace, its link to the host, and the bridge whose address is the node's.
pub fn network(layout: &Layout) -> Result<()> {
    let (netns, (host, inner)) = (layout.netns(), layout.link());
    if !Path::new("/run/netns").join(&netns).exists() {
        ip(&["netns", "add", &netns])?;
    }
    if !Path::new("/sys/class/net").join(&host).exists() {
        ip(&["link", "add", &host, "type", "veth", "peer", "name", &inner, "netns", &netns])?;
    }
    ip(&["addr", "replace", &format!("{}/30", layout.host_address()), "dev", &host])?;
    ip(&["link", "set", &host, "up"])?;
    let within = |arguments: &[&str]| {
        let mut all = vec!["-n", netns.as_str()];
        all.extend(arguments);
        ip(&all)
    };
    within(&["addr", "replace", &format!("{}/30", layout.address()), "dev", &inner])?;
    within(&["link", "set", "lo", "up"])?;
    within(&["link", "set", &inner, "up"])?;
    within(&["route", "replace", "default", "via", &layout.host_address()])?;
    if within(&["link", "show", "soakbr"]).is_err() {
        within(&["link", "add", "soakbr", "type", "bridge"])?;
    }
    within(&["addr", "replace", &format!("{}/24", layout.node_address()), "dev", "soakbr"])?;
    within(&["link", "set", "soakbr", "up"])?;
    run(Command::new("nsenter").arg(format!("--net=/run/netns/{netns}")).args([
        "sysctl",
        "-qw",
        "net.ipv4.ip_forward=1",
    ]))?;
    // The host reaches pods and Services through the namespace, where kube-proxy's rules are.
    for range in [layout.pods(), layout.services()] {
        ip(&["route", "replace", &range, "via", &layout.address(), "dev", &host])?;
    }
    Ok(())
}

/// Starts what does not run, loads the base images and waits until the node is ready.
pub fn start(layout: &Layout, bin: &Path, path: &str) -> Result<()> {
    fs::create_dir_all(layout.run())?;
    fs::create_dir_all(layout.path("cni"))?;
    fs::create_dir_all(layout.path("manifests"))?;
    for controller in cgroups()? {
        fs::create_dir_all(controller.join(layout.netns()))?;
    }
    for (file, text) in [
        ("cni/10-soak.conflist", cni(layout)),
        ("containerd.toml", containerd(layout)),
        ("kubelet.yaml", kubelet(layout)),
        ("kube-proxy.yaml", kube_proxy(layout)),
    ] {
        fs::write(layout.path(file), text)?;
    }
    let folder = layout.folder.display();
    let run =
        |name: &'static str, arguments: Vec<String>| Daemon::new(layout, name).start(&bin.join(name), &arguments, path);
    run("containerd", vec!["-c".into(), format!("{folder}/containerd.toml")])?;
    wait("containerd", LIMIT, &[Daemon::new(layout, "containerd")], || ctr(layout, bin, &["version"]).is_ok())?;
    for image in base_images(bin)? {
        load(layout, bin, &image)?;
    }
    run(
        "kubelet",
        vec![
            format!("--config={folder}/kubelet.yaml"),
            format!("--kubeconfig={folder}/kubelet.kubeconfig"),
            format!("--hostname-override={NODE}"),
            format!("--root-dir={folder}/kubelet"),
            format!("--node-ip={}", layout.node_address()),
        ],
    )?;
    run("kube-proxy", vec![format!("--config={folder}/kube-proxy.yaml"), format!("--hostname-override={NODE}")])?;
    let daemons = DAEMONS.map(|name| Daemon::new(layout, name));
    wait("the node", LIMIT, &daemons, || {
        kubectl(layout, bin, &["wait", "--for=condition=Ready", &format!("node/{NODE}"), "--timeout=1s"])
    })?;
    let dns = layout.path("coredns.yaml");
    fs::write(&dns, include_str!("coredns.yaml").replace("DNS_ADDRESS", &layout.dns_service()))?;
    if !kubectl(layout, bin, &["apply", "--server-side", "-f", &dns.display().to_string()]) {
        bail!("cluster DNS could not be applied");
    }
    wait("cluster DNS", LIMIT, &daemons, || {
        kubectl(layout, bin, &["-n", "kube-system", "rollout", "status", "deployment/coredns", "--timeout=1s"])
    })
}

/// Loads an image into containerd, unless the very same file was loaded before.
pub fn load(layout: &Layout, bin: &Path, tar: &Path) -> Result<()> {
    ctr(layout, bin, &["images", "import", "--local", &tar.display().to_string()])
        .map(|_| ())
        .with_context(|| format!("{} can't be imported", tar.display()))
}

/// Calls containerd's client.
pub fn ctr(layout: &Layout, bin: &Path, arguments: &[&str]) -> Result<String> {
    let socket = layout.run().join("containerd.sock");
    let output = Command::new(bin.join("ctr"))
        .arg("-a")
        .arg(socket)
        .args(["-n", NAMESPACE])
        .args(arguments)
        .stdin(Stdio::null())
        .output()?;
    if !output.status.success() {
        bail!("ctr {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The images that every node has.
fn base_images(bin: &Path) -> Result<Vec<PathBuf>> {
    let busybox = Path::new("/bin/busybox");
    let mut shell = ImageSpec::new("localhost/busybox:1").file(busybox, "bin/busybox", 0o755).command(&["sh"]);
    let mut etcd = ImageSpec::new("localhost/etcd:1").file(busybox, "bin/busybox", 0o755).command(&["etcd"]);
    let applets = Command::new(busybox).arg("--list").output().context("busybox can't be started")?;
    for applet in String::from_utf8(applets.stdout)?.lines().filter(|applet| *applet != "busybox") {
        shell = shell.link(&format!("bin/{applet}"), "busybox");
        etcd = etcd.link(&format!("bin/{applet}"), "busybox");
    }
    etcd = etcd.file(&bin.join("etcd"), "bin/etcd", 0o755).file(&bin.join("etcdctl"), "bin/etcdctl", 0o755);
    let pause = pause()?;
    [
        ImageSpec::new("localhost/pause:1").file(&pause, "pause", 0o755).entrypoint(&["/pause"]),
        ImageSpec::new("localhost/coredns:1").file(&bin.join("coredns"), "coredns", 0o755).entrypoint(&["/coredns"]),
        shell,
        etcd,
    ]
    .iter()
    .map(image::build)
    .collect()
}

/// The program of a pod's sandbox: it waits, and reaps what is orphaned.
fn pause() -> Result<PathBuf> {
    let binary = crate::tools::cache().join("bin/pause");
    if !binary.exists() {
        fs::create_dir_all(crate::tools::cache().join("bin"))?;
        let source = workspace::root().join("xtask/src/cluster/pause.c");
        // A C compiler is there wherever Rust links.
        run(Command::new("cc").args(["-static", "-Os", "-o"]).arg(&binary).arg(source))?;
    }
    Ok(binary)
}

/// The mounted cgroup hierarchies that can hold the pods' groups.
pub fn cgroups() -> Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if root.join("cgroup.controllers").exists() {
        return Ok(vec![root.to_owned()]);
    }
    let mut controllers = Vec::new();
    for entry in fs::read_dir(root)? {
        let entry = entry?;
        // Links such as cpu -> cpu,cpuacct name a hierarchy twice.
        if entry.file_type()?.is_dir() {
            controllers.push(entry.path());
        }
    }
    Ok(controllers)
}

fn ip(arguments: &[&str]) -> Result<()> {
    run(Command::new("ip").args(arguments))
}

/// Runs a program to its end.
pub fn run(command: &mut Command) -> Result<()> {
    let output = command.stdin(Stdio::null()).output().with_context(|| format!("{command:?} can't be started"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

fn cni(layout: &Layout) -> String {
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": layout.netns(),
        "plugins": [
            {
                "type": "bridge", "bridge": "soakbr", "isGateway": true, "ipMasq": true, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": layout.path("cni-state"),
                    "ranges": [[{"subnet": layout.node_pods()}]], "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    })
    .to_string()
}

fn containerd(layout: &Layout) -> String {
    let (folder, run) = (layout.folder.display(), layout.run());
    let run = run.display();
    format!(
        "version = 3\nroot = \"{folder}/containerd\"\nstate = \"{run}\"\n[grpc]\n  address = \"{run}/containerd.sock\"\n\
         [plugins.'io.containerd.cri.v1.images'.pinned_images]\n  sandbox = \"localhost/pause:1\"\n\
         [plugins.'io.containerd.cri.v1.runtime']\n  restrict_oom_score_adj = true\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n  runtime_type = \"io.containerd.runc.v2\"\n\
         [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]\n  BinaryName = \"/usr/sbin/runc\"\n  SystemdCgroup = false\n\
         [plugins.'io.containerd.cri.v1.runtime'.cni]\n  bin_dirs = [\"/usr/lib/cni\"]\n  conf_dir = \"{folder}/cni\"\n"
    )
}

fn kubelet(layout: &Layout) -> String {
    let (folder, run) = (layout.folder.display(), layout.run());
    format!(
        "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\naddress: {address}\n\
         authentication: {{anonymous: {{enabled: false}}, webhook: {{enabled: true}}, x509: {{clientCAFile: {folder}/pki/ca.crt}}}}\n\
         authorization: {{mode: Webhook}}\ntlsCertFile: {folder}/pki/kubelet.crt\ntlsPrivateKeyFile: {folder}/pki/kubelet.key\n\
         containerRuntimeEndpoint: unix://{run}/containerd.sock\npodLogsDir: {folder}/podlogs\nstaticPodPath: \"\"\n\
         clusterDNS: [{dns}]\nclusterDomain: cluster.local\ncgroupDriver: cgroupfs\ncgroupRoot: /{netns}\nfailCgroupV1: false\nfailSwapOn: false\n\
         enforceNodeAllocatable: []\nlocalStorageCapacityIsolation: false\nmaxPods: 200\nserializeImagePulls: false\n\
         evictionHard: {{memory.available: 50Mi, nodefs.available: \"1%\", imagefs.available: \"1%\"}}\n",
        address = layout.node_address(),
        run = run.display(),
        dns = layout.dns_service(),
        netns = layout.netns(),
    )
}

fn kube_proxy(layout: &Layout) -> String {
    format!(
        "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\nmode: iptables\n\
         clientConnection: {{kubeconfig: {folder}/kube-proxy.kubeconfig}}\nclusterCIDR: {pods}\nconntrack: {{maxPerCore: 0}}\nnodePortAddresses: [\"{address}/32\"]\n",
        folder = layout.folder.display(),
        pods = layout.pods(),
        address = layout.node_address(),
    )
}
