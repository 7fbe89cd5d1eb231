//! One session: a namespace, the workload, operators behind proxies, a script of faults, and a verdict.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::mpsc::UnboundedReceiver,
    task::JoinSet,
};

use crate::{
    api::Server,
    checker::{self, Facts, Violation},
    injections,
    process::{Launch, Process},
    proxy::{self, Proxy},
    script::{Around, Script},
    shared::Shared,
    targets::Toxiproxy,
    tls::Identity,
    user::{self, Place},
    watcher, workload,
};

/// How long a session may take until every run has come to its end.
const LIMIT: Duration = Duration::from_secs(150);
/// A session that has to wait for a connection that went silent (two minutes) may take so much longer.
const SILENT_LIMIT: Duration = Duration::from_secs(330);
/// After so long no further fault comes: what is promised for the time after crashes needs such a time.
const FAULTS_END: Duration = Duration::from_mins(1);
/// How long an operator may take from its start until it works.
const START: Duration = Duration::from_secs(2);
/// How long a server that was killed or stood still may take until it answers as before.
const BACK: Duration = Duration::from_secs(5);
/// How often, and how far apart, pods are nudged after their node was started again.
const NUDGES: usize = 5;
const NUDGE_AFTER: Duration = Duration::from_secs(2);
/// How late after the session's begin the injection comes that has a time.
const LATER: Duration = Duration::from_secs(5);
/// How long an ended workload is watched for writes that should not come.
const QUIET: Duration = Duration::from_millis(1_500);

/// The machine that the cluster runs on.
pub trait Machine: Send + Sync {
    /// Kills a daemon and starts it again.
    fn restart(&self, daemon: &str) -> Result<()>;
    /// Sends a signal to a daemon.
    fn signal(&self, daemon: &str, signal: &str) -> Result<()>;
    /// Makes etcd forget all revisions but the newest.
    fn compact(&self) -> Result<()>;
}

/// What sessions share.
#[derive(Clone)]
pub struct Setup {
    /// The API server, past all proxies.
    pub server: Server,
    /// The proxies' certificate.
    pub identity: Identity,
    /// The operator.
    pub program: PathBuf,
    /// The server of Toxiproxy.
    pub toxiproxy: PathBuf,
    /// Guards that are taken away from it.
    pub without: Option<String>,
    /// The machine below the cluster.
    pub machine: Arc<dyn Machine>,
    /// Where logs and histories go.
    pub folder: PathBuf,
    /// Keep histories of sessions in which all was well, too.
    pub keep: bool,
}

/// What came of a session.
#[derive(Debug)]
pub struct Outcome {
    /// The script's seed.
    pub seed: u64,
    /// The script's scenario.
    pub scenario: &'static str,
    /// What is wrong.
    pub violations: Vec<Violation>,
    /// Faults that struck, by kind.
    pub faults: BTreeMap<String, u64>,
    /// Faults that injections made.
    pub injected: usize,
    /// Of these, how many were still there afterwards.
    pub left: usize,
    /// How many requests the operators made.
    pub requests: usize,
    /// The names of all writes.
    pub keys: BTreeSet<String>,
    /// Writes at which the operator was killed, and whether after them.
    pub crashed: BTreeSet<(String, bool)>,
    /// How long it took.
    pub seconds: f64,
    /// Where its logs and history are.
    pub folder: PathBuf,
}

/// Runs one script.
///
/// Errors: the session could not be set up; what the operator does wrong is a violation and no error.
pub async fn run(setup: &Setup, script: Script) -> Result<Outcome> {
    let began = Instant::now();
    let (seed, scenario) = (script.seed, script.scenario);
    let random = fastrand::u32(..);
    let (namespace, node) = (format!("f-{seed}-{random:08x}"), format!("t-node-{random:08x}"));
    let folder = setup.folder.join(format!("{scenario}-{seed}"));
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder)?;
    fs::write(folder.join("script.txt"), format!("{script:#?}\n"))?;
    let place = Place { server: setup.server.clone(), namespace, node };
    place.prepare().await?;
    let (http, address) = proxy::listen().await?;
    let toxiproxy = Toxiproxy::start(&setup.toxiproxy, &address.to_string()).await?;
    let (shared, around) = Shared::new(script.clone());
    let shared = Arc::new(shared);
    let mut tasks = JoinSet::new();
    let watch = watcher::watch(&setup.server, &place.namespace, &place.node, &shared).await?;
    let processes = start_operators(setup, &script, &place, &folder, &shared, &mut tasks).await?;
    tasks.spawn(serve_http(http));
    let toxics = front(&toxiproxy, &processes, &shared, &mut tasks).await?;
    let runs = workload::runs(&format!("http://{address}/"));
    let at = (chrono::Utc::now() + LATER).to_rfc3339_opts(chrono::SecondsFormat::Secs, true);
    let injections = injections::injections(&toxics, &place.node, &at);
    place.submit(&runs).await?;
    place.submit_injections(&injections).await?;
    tasks.spawn(place.clone().tend(shared.clone()));
    if script.second_writer {
        tasks.spawn(place.clone().scribble(shared.clone()));
    }
    if script.scenario == "squatters" {
        tasks.spawn(place.clone().evict(shared.clone()));
    }
    tasks.spawn(strike(setup.clone(), place.clone(), shared.clone(), around));
    let limit = if script.is_silent() { SILENT_LIMIT } else { LIMIT };
    while began.elapsed() < limit && !all_ended(&shared, runs.len(), injections.len()) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if began.elapsed() > FAULTS_END {
            shared.disarm();
        }
    }
    shared.disarm();
    tokio::time::sleep(QUIET).await;
    let mut violations = if scenario == "namespace-deleted" { namespace_goes(&place).await } else { Vec::new() };
    tasks.shutdown().await;
    for process in &processes {
        process.reap().await;
    }
    drop(watch);
    let left = place.left(&toxiproxy.server, &shared, scenario != "namespace-deleted").await?;
    place.tidy().await;
    violations.extend(left.iter().map(|text| Violation { rule: "faults left", text: text.clone() }));
    let facts = Facts {
        scenario,
        keeps_verdicts: script.keeps_verdicts(),
        loses_events: script.loses_events(),
        expected: &runs,
        injections: &injections,
    };
    let outcome = shared.recorder.with(|history| {
        violations.extend(checker::check(history, &facts));
        if setup.keep || !violations.is_empty() {
            let _ = fs::write(folder.join("history.jsonl"), history.dump());
        }
        let writes = || history.requests.iter().filter(|request| request.key.is_some());
        let crashed = writes().filter_map(|request| match request.fault.as_deref() {
            Some("KillBefore") => Some((request.key.clone()?, false)),
            Some("KillAfter") if request.is_committed() => Some((request.key.clone()?, true)),
            _ => None,
        });
        Outcome {
            seed,
            scenario,
            faults: shared.counts(),
            injected: checker::injected(history),
            left: left.len(),
            requests: history.requests.len(),
            keys: writes().filter_map(|request| request.key.clone()).collect(),
            crashed: crashed.collect(),
            seconds: began.elapsed().as_secs_f64(),
            violations: std::mem::take(&mut violations),
            folder: folder.clone(),
        }
    });
    Ok(outcome)
}

async fn start_operators(
    setup: &Setup,
    script: &Script,
    place: &Place,
    folder: &std::path::Path,
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
) -> Result<Vec<Arc<Process>>> {
    let mut processes = Vec::new();
    for number in 0..script.operators {
        let (listener, address) = proxy::listen().await?;
        let kubeconfig = folder.join(format!("operator-{number}.kubeconfig"));
        setup.identity.write_kubeconfig(address, &kubeconfig)?;
        let namespace = place.namespace.as_str();
        let mut arguments: Vec<String> = [
            "--metrics-address",
            "127.0.0.1:0",
            "--allow-local-http",
            "--watch-namespace",
            namespace,
            "--namespace",
            &place.own(),
            "--injection-cluster-scoped",
            "--injection-max-active",
            "64",
        ]
        .map(str::to_owned)
        .into();
        if script.election {
            arguments.push("--leader-elect".into());
        }
        let launch = Launch {
            program: setup.program.clone(),
            kubeconfig,
            arguments,
            without: setup.without.clone(),
            folder: folder.to_owned(),
        };
        let process = Arc::new(Process::new(number, launch));
        let proxy = Proxy { server: setup.server.clone(), process: process.clone(), shared: shared.clone() };
        tasks.spawn(Arc::new(proxy).serve(listener, Some(setup.identity.clone())));
        process.start()?;
        tasks.spawn(revive(process.clone(), shared.clone(), script.stale, script.seed));
        processes.push(process);
    }
    Ok(processes)
}

/// Puts a proxy before Toxiproxy, so that what the operator does there is recorded and disturbed as well.
async fn front(
    toxiproxy: &Toxiproxy,
    processes: &[Arc<Process>],
    shared: &Arc<Shared>,
    tasks: &mut JoinSet<()>,
) -> Result<String> {
    let (listener, address) = proxy::listen().await?;
    // Of two operators it can't tell which one asks; no script depends on that.
    let process = processes.first().context("a script has an operator")?.clone();
    let proxy = Proxy { server: toxiproxy.server.clone(), process, shared: shared.clone() };
    tasks.spawn(Arc::new(proxy).serve(listener, None));
    Ok(format!("http://{address}"))
}

/// Starts an operator again whenever it was killed or has ended.
async fn revive(process: Arc<Process>, shared: Arc<Shared>, stale: bool, seed: u64) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut look = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = process.crashed() => {}
            _ = look.tick() => {
                // It ends by itself when it has lost its lease, or finds no server when it starts.
                if !process.ended_by_itself() {
                    continue;
                }
                shared.count("EndedByItself");
            }
        }
        let died = shared.recorder.now();
        process.reap().await;
        tokio::time::sleep(Duration::from_millis(rng.u64(..1_000))).await;
        if let Some(until) = shared.down_until() {
            tokio::time::sleep_until(until.into()).await;
        }
        shared.recorder.outage(died, shared.recorder.now() + START.as_millis());
        if stale {
            shared.grow_stale(process.lives() + 1);
        }
        if process.start().is_err() {
            return;
        }
    }
}

/// Makes happen what the script has for around the operator.
async fn strike(setup: Setup, place: Place, shared: Arc<Shared>, mut around: UnboundedReceiver<Around>) {
    while let Some(what) = around.recv().await {
        shared.count(&crate::shared::kind(&format!("{what:?}")));
        let machine = setup.machine.clone();
        let (began, is_shared) = (shared.recorder.now(), what.is_shared());
        let result = match what {
            Around::Cut(millis) => {
                shared.cut(Duration::from_millis(millis));
                Ok(())
            }
            Around::DeleteRuns => {
                let mut result = Ok(());
                for run in user::newest(&shared) {
                    let path = place.run_path(run.name());
                    result = setup.server.call(http::Method::DELETE, &path, None).await.map(|_| ());
                }
                let injections = place.path("/apis/soak.dev/v1alpha1", "failureinjections");
                result.and(setup.server.call(http::Method::DELETE, &injections, None).await.map(|_| ()))
            }
            Around::DeleteNamespace => place.delete().await,
            Around::Revoke(millis) => {
                shared.outage(Duration::from_millis(millis) + BACK);
                let revoked = place.revoke().await;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                revoked.and(place.grant().await)
            }
            Around::Halt(millis) => {
                let halted = place.halt(true).await;
                tokio::time::sleep(Duration::from_millis(millis)).await;
                halted.and(place.halt(false).await)
            }
            Around::RestartServer => machine.restart("kube-apiserver"),
            Around::RestartManager => machine.restart("kube-controller-manager"),
            Around::RestartKubelet => {
                let restarted = machine.restart("kubelet");
                for _ in 0..NUDGES {
                    tokio::time::sleep(NUDGE_AFTER).await;
                    // It is done again anyway.
                    let _ = place.nudge_pods().await;
                }
                restarted
            }
            Around::Compact => machine.compact(),
            Around::StopEtcd(millis) => {
                let stopped = machine.signal("etcd", "-STOP");
                tokio::time::sleep(Duration::from_millis(millis)).await;
                stopped.and(machine.signal("etcd", "-CONT"))
            }
        };
        if is_shared {
            shared.recorder.outage(began, shared.recorder.now() + BACK.as_millis());
        }
        if let Err(error) = result {
            eprintln!("   a fault could not be made: {error:#}");
        }
    }
}

fn all_ended(shared: &Shared, runs: usize, injections: usize) -> bool {
    let newest = user::newest(shared);
    if newest.len() < runs || !newest.iter().all(user::has_ended) {
        return false;
    }
    let newest = shared.recorder.with(|history| history.newest("failureinjections"));
    newest.len() >= injections && newest.iter().all(user::injection_has_ended)
}

/// L3 for a whole namespace: it goes without anybody's help.
async fn namespace_goes(place: &Place) -> Vec<Violation> {
    let end = Instant::now() + Duration::from_mins(1);
    let path = format!("/api/v1/namespaces/{}", place.namespace);
    let mut last = serde_json::Value::Null;
    while Instant::now() < end {
        match place.server.get(&path).await {
            Ok(None) => return Vec::new(),
            Ok(Some(object)) => last = object["status"].clone(),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    vec![Violation { rule: "L3", text: format!("the deleted namespace is still there: {last}") }]
}

/// Answers every request with 200 and a bit of JSON.
async fn serve_http(listener: TcpListener) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 14\r\nConnection: close\r\n\r\n{\"good\": true}";
    while let Ok((mut connection, _)) = listener.accept().await {
        tokio::spawn(async move {
            let mut request = vec![0; 4_096];
            let _ = connection.read(&mut request).await;
            let _ = connection.write_all(ANSWER).await;
            let _ = connection.shutdown().await;
        });
    }
}
