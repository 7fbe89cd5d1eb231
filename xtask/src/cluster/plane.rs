//! The control plane: etcd, kube-apiserver, kube-controller-manager, kube-scheduler.

use std::{
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Result;

use super::{
    daemon::{Daemon, wait},
    layout::{Layout, Mode},
};

/// The control plane's daemons, in the order in which they are started.
pub const DAEMONS: [&str; 4] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"];

const LIMIT: Duration = Duration::from_secs(90);

/// Starts what does not run, and waits until the API server serves.
pub fn start(layout: &Layout, bin: &Path, path: &str) -> Result<()> {
    let folder = layout.folder.display();
    let etcd = format!("http://127.0.0.1:{}", layout.port(2379));
    let peer = format!("http://127.0.0.1:{}", layout.port(2380));
    let run =
        |name: &'static str, arguments: Vec<String>| Daemon::new(layout, name).start(&bin.join(name), &arguments, path);
    run(
        "etcd",
        vec![
            format!("--data-dir={folder}/etcd"),
            format!("--listen-client-urls={etcd}"),
            format!("--advertise-client-urls={etcd}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            // A test cluster does not survive a power cut, and is much faster for it.
            "--unsafe-no-fsync".into(),
        ],
    )?;
    let bind = if layout.mode == Mode::Node { "0.0.0.0" } else { "127.0.0.1" };
    let mut apiserver = vec![
        format!("--etcd-servers={etcd}"),
        format!("--service-cluster-ip-range={}", layout.services()),
        format!("--secure-port={}", layout.port(6443)),
        format!("--bind-address={bind}"),
        format!("--tls-cert-file={folder}/pki/apiserver.crt"),
        format!("--tls-private-key-file={folder}/pki/apiserver.key"),
        format!("--client-ca-file={folder}/pki/ca.crt"),
        "--authorization-mode=Node,RBAC".into(),
        "--allow-privileged=true".into(),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-account-key-file={folder}/pki/sa.pub"),
        format!("--service-account-signing-key-file={folder}/pki/sa.key"),
        format!("--kubelet-client-certificate={folder}/pki/kubelet-client.crt"),
        format!("--kubelet-client-key={folder}/pki/kubelet-client.key"),
        "--kubelet-preferred-address-types=InternalIP".into(),
        // Benches ask for more than a small machine's defaults allow.
        "--max-requests-inflight=3000".into(),
        "--max-mutating-requests-inflight=1000".into(),
    ];
    if layout.mode == Mode::Node {
        apiserver.push(format!("--advertise-address={}", layout.node_address()));
    }
    run("kube-apiserver", apiserver)?;
    let daemons = ["etcd", "kube-apiserver"].map(|name| Daemon::new(layout, name));
    wait("the API server", LIMIT, &daemons, || kubectl(layout, bin, &["get", "--raw", "/readyz"]))?;
    let mut manager = vec![
        format!("--kubeconfig={folder}/kube-controller-manager.kubeconfig"),
        format!("--service-account-private-key-file={folder}/pki/sa.key"),
        format!("--root-ca-file={folder}/pki/ca.crt"),
        "--use-service-account-credentials=true".into(),
        "--leader-elect=false".into(),
        format!("--service-cluster-ip-range={}", layout.services()),
        format!("--secure-port={}", layout.port(10_257)),
    ];
    if layout.mode == Mode::Node {
        manager.extend(["--allocate-node-cidrs=true".into(), format!("--cluster-cidr={}", layout.pods())]);
    } else {
        // The node has no heartbeat, and kwok never makes a pod ready again that was on a node which is given up.
        manager.push("--node-monitor-grace-period=240h".into());
    }
    run("kube-controller-manager", manager)?;
    run(
        "kube-scheduler",
        vec![
            format!("--kubeconfig={folder}/kube-scheduler.kubeconfig"),
            "--leader-elect=false".into(),
            format!("--secure-port={}", layout.port(10_259)),
        ],
    )
}

/// Waits until pods can be created in the namespace `default`.
pub fn wait_for_default_account(layout: &Layout, bin: &Path) -> Result<()> {
    let daemons = DAEMONS.map(|name| Daemon::new(layout, name));
    wait("the default service account", LIMIT, &daemons, || kubectl(layout, bin, &["get", "serviceaccount", "default"]))
}

/// Whether a kubectl call as the administrator succeeds.
pub fn kubectl(layout: &Layout, bin: &Path, arguments: &[&str]) -> bool {
    Command::new(bin.join("kubectl"))
        .arg("--kubeconfig")
        .arg(layout.path("admin.kubeconfig"))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
