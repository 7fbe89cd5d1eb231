//! What the tests in a cluster share: a client, a namespace of their own, an operator of their own.
#![allow(dead_code, clippy::unwrap_used, clippy::panic, reason = "each test binary uses a part of it")]

pub mod browser;
pub mod bucket;

use std::{
    env,
    fs::{self, File},
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use kube::{
    Api, Client, Config, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use soak_operator::api::{
    ConditionStatus, SoakRun, condition,
    status::{RunPhase, StepStatus},
};

/// The longest that a test waits for anything. On a machine with much else to do a pod takes twenty times as long.
pub const PATIENCE: Duration = Duration::from_mins(5);

const RBAC: &str = "rbac.authorization.k8s.io";

/// The kubeconfig of the cluster that the tests run against.
pub fn kubeconfig() -> PathBuf {
    env::var_os("SOAK_TEST_KUBECONFIG").map(PathBuf::from).expect(
        "SOAK_TEST_KUBECONFIG is not set: these tests need a real cluster; `cargo xtask test` makes one, \
         or `SOAK_TEST_KUBECONFIG=$(cargo xtask cluster up) cargo test`",
    )
}

/// Runs the kubectl plugin in a namespace, with the administrator's kubeconfig.
pub fn plugin(namespace: &Namespace, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_kubectl-soak"))
        .args(arguments)
        .args(["--namespace", &namespace.name, "--kubeconfig"])
        .arg(kubeconfig())
        .output()
        .unwrap()
}

/// The image of the operator that the cluster has.
pub fn operator_image() -> String {
    env::var("SOAK_TEST_IMAGE").expect(
        "SOAK_TEST_IMAGE is not set: it names an image of the operator that the cluster has, such as \
         localhost/soak-operator:dev; `cargo xtask test` builds and loads it",
    )
}

/// A client of that cluster, as its administrator.
pub async fn client() -> Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig()).unwrap();
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

/// A namespace of the test's own with the CRDs installed and a service account `soak` that may run pods.
///
/// It is deleted when the test has ended well; after a failure it is left to be looked at.
pub struct Namespace {
    pub name: String,
    pub client: Client,
}

impl Namespace {
    /// Makes a namespace whose name begins with `prefix`.
    pub async fn create(prefix: &str) -> Self {
        let client = client().await;
        install_crds(&client).await;
        let name = format!("{prefix}-{:08x}", fastrand::u32(..));
        let this = Self { name, client };
        this.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": this.name}})).await;
        this.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "soak"}})).await;
        this.allow(
            "soak-pods",
            json!([
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["create", "get", "delete", "patch"]},
                {"apiGroups": [""], "resources": ["pods/log"], "verbs": ["get"]},
            ]),
        )
        .await;
        this
    }

    /// Gives the account `soak` further rights in the namespace.
    pub async fn allow(&self, name: &str, rules: Value) {
        self.role(name, rules).await;
        self.bind(name, name, "soak").await;
    }

    /// Makes an account that has these rights, in a role of its own name.
    pub async fn account(&self, name: &str, rules: Value) {
        self.apply(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})).await;
        self.role(name, rules).await;
        self.bind(name, name, name).await;
    }

    async fn role(&self, name: &str, rules: Value) {
        self.apply(
            json!({"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": name}, "rules": rules}),
        )
        .await;
    }

    /// Gives an account the rights of a role, by a binding of that name.
    pub async fn bind(&self, name: &str, role: &str, account: &str) {
        self.apply(json!({
            "apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
        }))
        .await;
    }

    /// Applies an object, in the namespace unless it is cluster-scoped.
    pub async fn apply(&self, object: Value) -> Value {
        let kind = object["kind"].as_str().unwrap();
        let plural = format!("{}s", kind.to_lowercase());
        let version = object["apiVersion"].as_str().unwrap();
        let root = if version.contains('/') { format!("/apis/{version}") } else { format!("/api/{version}") };
        let place = if kind == "Namespace" { String::new() } else { format!("/namespaces/{}", self.name) };
        let name = object["metadata"]["name"].as_str().unwrap();
        let uri = format!("{root}{place}/{plural}/{name}?fieldManager=test&force=true");
        let request = http::Request::patch(uri)
            .header("content-type", "application/apply-patch+yaml")
            .body(serde_json::to_vec(&object).unwrap())
            .unwrap();
        self.client.request(request).await.unwrap_or_else(|error| panic!("{object}: {error}"))
    }

    /// Creates a run from its spec; the account and one cycle are filled in where they are missing.
    pub async fn run(&self, name: &str, mut spec: Value) -> SoakRun {
        let fields = spec.as_object_mut().unwrap();
        fields.entry("serviceAccountName").or_insert_with(|| json!("soak"));
        if !fields.contains_key("duration") {
            fields.entry("cycles").or_insert_with(|| json!(1));
        }
        let run =
            json!({"apiVersion": "soak.dev/v1alpha1", "kind": "SoakRun", "metadata": {"name": name}, "spec": spec});
        self.runs().create(&PostParams::default(), &serde_json::from_value(run).unwrap()).await.unwrap()
    }

    pub fn runs(&self) -> Api<SoakRun> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Changes a run's spec by a merge patch.
    pub async fn patch_run(&self, name: &str, spec: Value) {
        self.runs().patch(name, &PatchParams::default(), &Patch::Merge(json!({"spec": spec}))).await.unwrap();
    }

    /// Waits until a run satisfies a condition.
    pub async fn until(&self, name: &str, what: &str, judge: impl Fn(&SoakRun) -> bool) -> SoakRun {
        let runs = self.runs();
        let mut last = None;
        let found = eventually(
            || async {
                let run = runs.get(name).await.ok()?;
                let good = judge(&run);
                (good, run).into()
            },
            &mut last,
        )
        .await;
        found.unwrap_or_else(|| {
            panic!("run {name} never {what}; its status is {:#}", json!(last.map(|run: SoakRun| run.status)))
        })
    }

    /// Waits until a run has ended.
    pub async fn ended(&self, name: &str) -> SoakRun {
        self.until(name, "ended", |run| is_condition(run, "Completed", ConditionStatus::True)).await
    }

    /// The records of a run, in order, as JSON.
    pub async fn records(&self, run: &SoakRun, kind: &str) -> Vec<Value> {
        let maps: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.name);
        let selector = format!("soak.dev/run-uid={},soak.dev/record={kind}", run.uid().unwrap());
        let mut maps = maps.list(&ListParams::default().labels(&selector)).await.unwrap().items;
        maps.sort_by_key(ResourceExt::name_any);
        maps.iter().map(|map| serde_json::from_str(&map.data.as_ref().unwrap()["record.json"]).unwrap()).collect()
    }

    /// Deletes the namespace. Its end is not waited for.
    pub async fn delete(self) {
        let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client.clone());
        let _ = namespaces.delete(&self.name, &kube::api::DeleteParams::background()).await;
    }
}

/// Where a run is.
pub fn phase(run: &SoakRun) -> RunPhase {
    run.status.as_ref().map_or(RunPhase::Pending, |status| status.phase)
}

/// A step of the section or cycle that a run is in.
pub fn step<'a>(run: &'a SoakRun, name: &str) -> Option<&'a StepStatus> {
    let pass = run.status.as_ref()?.current.as_ref()?;
    pass.phases.iter().flat_map(|phase| &phase.steps).find(|step| step.name == name)
}

/// Whether a step runs: its container does, if it has one.
pub fn is_running(run: &SoakRun, name: &str) -> bool {
    step(run, name).is_some_and(|step| step.running_at.is_some() && step.finished_at.is_none())
}

/// Whether a condition of a run has that status.
pub fn is_condition(run: &SoakRun, type_: &str, status: ConditionStatus) -> bool {
    let conditions = run.status.iter().flat_map(|it| &it.conditions).cloned().collect::<Vec<_>>();
    condition::find(&conditions, type_).is_some_and(|it| it.status == status)
}

async fn eventually<T, F: Future<Output = Option<(bool, T)>>>(look: impl Fn() -> F, last: &mut Option<T>) -> Option<T> {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        if let Some((good, value)) = look().await {
            if good {
                return Some(value);
            }
            *last = Some(value);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    None
}

/// Waits until `look` has an answer.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let mut last = None;
    let found = eventually(|| async { look().await.map(|value| (true, value)) }, &mut last).await;
    found.unwrap_or_else(|| panic!("{what} did not come within {PATIENCE:?}"))
}

/// Installs the CRDs and the admission policy as they are in the code and waits until the kinds are served.
pub async fn install_crds(client: &Client) {
    use k8s_openapi::{
        api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding},
        apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
    };
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for crd in soak_operator::api::crds() {
        let name = crd["metadata"]["name"].as_str().unwrap().to_owned();
        api.patch(&name, &PatchParams::apply("test").force(), &Patch::Apply(crd)).await.unwrap();
        wait_for("the CRD's establishment", || async {
            let crd = api.get(&name).await.ok()?;
            let established =
                crd.status?.conditions?.into_iter().any(|it| it.type_ == "Established" && it.status == "True");
            established.then_some(())
        })
        .await;
    }
    let [policy, binding] = soak_operator::api::admission();
    let (name, parameters) = (policy["metadata"]["name"].as_str().unwrap(), PatchParams::apply("test").force());
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    policies.patch(name, &parameters, &Patch::Apply(&policy)).await.unwrap();
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
    bindings.patch(name, &parameters, &Patch::Apply(&binding)).await.unwrap();
}

/// An operator process of the test's own, which drives the runs of one namespace.
pub struct Operator {
    child: Child,
    pub log: PathBuf,
}

impl Operator {
    /// Starts one for a namespace.
    pub fn start(namespace: &Namespace) -> Self {
        Self::start_with(namespace, &[])
    }

    /// Starts one for a namespace with further arguments. The namespace is also its own.
    pub fn start_with(namespace: &Namespace, arguments: &[&str]) -> Self {
        Self::spawn(namespace, &namespace.name, arguments)
    }

    /// Starts one that lives elsewhere: its own namespace is protected from injections, and has the kill switch.
    pub fn start_beside(namespace: &Namespace, own: &str, arguments: &[&str]) -> Self {
        Self::spawn(namespace, own, arguments)
    }

    fn spawn(namespace: &Namespace, own: &str, arguments: &[&str]) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(&folder).unwrap();
        let log = folder.join(format!("{}-{:04x}.log", namespace.name, fastrand::u16(..)));
        let child = Command::new(env!("CARGO_BIN_EXE_soak-operator"))
            .args([
                "--metrics-address",
                "127.0.0.1:0",
                "--allow-local-http",
                "--watch-namespace",
                &namespace.name,
                "--namespace",
                own,
            ])
            .args(arguments)
            .env("KUBECONFIG", kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, log }
    }

    /// What it has logged so far.
    pub fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it as a crash would.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Asks it to end, as a kubelet would; the answer is how long that took, and whether it ended well.
    pub fn terminate(mut self) -> (Duration, bool) {
        let began = Instant::now();
        Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        let status = self.child.wait().unwrap();
        (began.elapsed(), status.success())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A pod step that runs a shell script in the image that every test cluster has.
pub fn script(text: &str) -> Value {
    json!({
        "image": "localhost/busybox:1",
        "command": ["sh", "-c", text],
        "template": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "step", "imagePullPolicy": "Never"}]}},
    })
}
