//! Every name that other tools see: labels, annotations, the field manager, condition types and reasons.
//!
//! Dashboards, GitOps health checks and users' scripts match on these words, so they change only with the API version.

/// The API group of all resources.
pub const GROUP: &str = "soak.dev";
/// The version that is served and stored.
pub const VERSION: &str = "v1alpha1";
/// The field manager of the operator's own writes; what it does for a run is done as `soak-run`.
pub const OPERATOR_FIELD_MANAGER: &str = "soak-operator";
/// The field manager of writes that a spec asks for.
pub const RUN_FIELD_MANAGER: &str = "soak-run";
/// Held by each run from its first visit until its cleanup has ended.
pub const FINALIZER: &str = "soak.dev/cleanup";

/// The container of a step's pod that hands on its artifacts.
pub const ARTIFACTS_CONTAINER: &str = "soak-artifacts";

/// Labels and annotations on the objects that a run makes.
pub mod label {
    /// The run's name, for people and selectors.
    pub const RUN: &str = "soak.dev/run";
    /// The run's uid: what tells two runs of one name apart.
    pub const RUN_UID: &str = "soak.dev/run-uid";
    /// The attempt of the run (it grows with each rerun).
    pub const RUN_ATTEMPT: &str = "soak.dev/run-attempt";
    /// The cycle's number; 0 is the setup.
    pub const CYCLE: &str = "soak.dev/cycle";
    /// The phase's name.
    pub const PHASE: &str = "soak.dev/phase";
    /// The step's path inside its phase, children of a group as `group.child`.
    pub const STEP: &str = "soak.dev/step";
    /// The step's attempt, from 1.
    pub const STEP_ATTEMPT: &str = "soak.dev/step-attempt";
    /// The uid of the injection that made an object.
    pub const INJECTION_UID: &str = "soak.dev/injection-uid";
    /// On a ConfigMap that holds a record: `cycle` or `summary`.
    pub const RECORD: &str = "soak.dev/record";
    /// The outcome that a record tells.
    pub const OUTCOME: &str = "soak.dev/outcome";
    /// Who manages the object, as the Kubernetes project recommends.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// Annotation: the digest of a record's content, `sha256:…`.
    pub const DIGEST: &str = "soak.dev/digest";
    /// Annotation: the uid of the run that created (not merely changed) an object.
    pub const CREATED_BY: &str = "soak.dev/created-by-run";
    /// Annotation on a run: the commit that its manifest is from, as a GitOps tool or a person gives it.
    pub const GIT_COMMIT: &str = "soak.dev/git-commit";
    /// Annotation on a run: who asked for it, as whoever created it says.
    pub const REQUESTED_BY: &str = "soak.dev/requested-by";
    /// The schedule that a run was made by.
    pub const SCHEDULE: &str = "soak.dev/schedule";
    /// Annotation on a run: the time of the schedule that it was made for.
    pub const SCHEDULED_AT: &str = "soak.dev/scheduled-at";
    /// Prefix of the annotations that carry the files of a pod step.
    pub const FILE_PREFIX: &str = "files.soak.dev/";
}

/// Condition types.
pub mod condition_type {
    /// `Unknown` while the run runs, then `True` or `False`.
    pub const SUCCEEDED: &str = "Succeeded";
    /// `True` at any end, so that a wait on it never hangs.
    pub const COMPLETED: &str = "Completed";
    /// `True` until the first step has begun.
    pub const RECONCILING: &str = "Reconciling";
    /// `True` on an invalid spec or a failed verdict: nothing happens until somebody changes something.
    pub const STALLED: &str = "Stalled";
    /// `True` while an alert of the run's monitors fires.
    pub const ALERTING: &str = "Alerting";
    /// Of a run with an object store: `False` while records wait for it.
    pub const RECORDS_STORED: &str = "RecordsStored";
    /// Of an injection: `False` once it has failed. Of a schedule: `False` while no run of it could begin.
    pub const READY: &str = "Ready";
    /// Of an injection: `True` from when the fault was there on all targets.
    pub const INJECTED: &str = "Injected";
    /// Of an injection: `True` once the fault is undone and the system is healthy.
    pub const RECOVERED: &str = "Recovered";
}

/// Reasons of conditions, of `status.reason` and of events.
pub mod reason {
    /// The run has not been looked at in full yet.
    pub const PENDING: &str = "Pending";
    /// The spec is being resolved and validated on the server.
    pub const VALIDATING: &str = "Validating";
    /// Cycles are running.
    pub const RUNNING: &str = "Running";
    /// `spec.suspend` is set.
    pub const SUSPENDED: &str = "Suspended";
    /// The verdict is good.
    pub const PASSED: &str = "Passed";
    /// More cycles failed than the failure policy allows.
    pub const FAILURE_POLICY_EXCEEDED: &str = "FailurePolicyExceeded";
    /// A criterion is not met.
    pub const THRESHOLD_FAILED: &str = "ThresholdFailed";
    /// The evidence is not enough for a verdict at the asked confidence.
    pub const INCONCLUSIVE: &str = "Inconclusive";
    /// `spec.abort` was set.
    pub const ABORTED: &str = "Aborted";
    /// The object is being deleted.
    pub const DELETED: &str = "Deleted";
    /// The setup failed, so no cycle began.
    pub const SETUP_FAILED: &str = "SetupFailed";
    /// The cleanup failed: the system may not be as it was found.
    pub const CLEANUP_FAILED: &str = "CleanupFailed";
    /// A dry run found nothing wrong.
    pub const DRY_RUN_PASSED: &str = "DryRunPassed";
    /// The spec can't be run as it is; the message names the field.
    pub const INVALID_SPEC: &str = "InvalidSpec";
    /// The service account lacks a right; the message names verb and resource.
    pub const PERMISSION_DENIED: &str = "PermissionDenied";
    /// A namespace or service account that the run needs is not there.
    pub const NOT_FOUND: &str = "NotFound";
    /// The spec was changed during an attempt without a new `rerun`.
    pub const SPEC_CHANGED: &str = "SpecChanged";
    /// The harness, not the system under test, failed.
    pub const INFRA_ERROR: &str = "InfraError";
    /// A target is being connected to.
    pub const CONNECTING: &str = "Connecting";
    /// A target can't be reached, or does not accept the credentials.
    pub const TARGET_UNREACHABLE: &str = "TargetUnreachable";
    /// Another run holds the key of `spec.exclusive`.
    pub const WAITING_FOR_KEY: &str = "WaitingForKey";
    /// A limit of time was reached.
    pub const TIMEOUT: &str = "Timeout";
    /// An alert fires, or fired whose policy fails the cycle or the run.
    pub const ALERT_FIRING: &str = "AlertFiring";
    /// An alert has ended.
    pub const ALERT_RESOLVED: &str = "AlertResolved";
    /// No alert fires.
    pub const NO_ALERT: &str = "NoAlert";
    /// The rule of the alert that a monitor which can't see raises.
    pub const MONITOR_BROKEN: &str = "MonitorBroken";
    /// Every record so far is in the object store.
    pub const STORED: &str = "Stored";
    /// The object store does not take records; they wait in ConfigMaps.
    pub const STORE_UNAVAILABLE: &str = "StoreUnavailable";
    /// An injection, or a schedule, waits for its time.
    pub const SCHEDULED: &str = "Scheduled";
    /// The kill switch is on: no injection begins, and those that are active are undone.
    pub const HALTED: &str = "Halted";
    /// Nothing fits an injection's target.
    pub const NO_TARGET: &str = "NoTarget";
    /// An injection, or the run of a schedule, did not begin in time.
    pub const STARTING_DEADLINE_EXCEEDED: &str = "StartingDeadlineExceeded";
    /// A fault is being made.
    pub const INJECTING: &str = "Injecting";
    /// A fault could not be made in time.
    pub const INJECTION_TIMEOUT: &str = "InjectionTimeout";
    /// A fault is there.
    pub const INJECTED: &str = "Injected";
    /// A fault is being undone.
    pub const REVERTING: &str = "Reverting";
    /// A fault is undone, and the system is not healthy yet.
    pub const RECOVERING: &str = "Recovering";
    /// A fault is undone, and the system is healthy.
    pub const RECOVERED: &str = "Recovered";
    /// The system was not healthy in time after a fault.
    pub const NOT_RECOVERED: &str = "NotRecovered";
    /// The administrator's guard rails are against an injection.
    pub const NOT_ALLOWED: &str = "NotAllowed";
    /// Another injection holds what this one would touch.
    pub const CONFLICT: &str = "Conflict";
    /// As many injections, or runs of a schedule, are active as may be.
    pub const TOO_MANY_ACTIVE: &str = "TooManyActive";
    /// A fault would change nothing.
    pub const NO_CHANGE: &str = "NoChange";
    /// A cron expression or a time zone can't be read, or no such time will come.
    pub const INVALID_SCHEDULE: &str = "InvalidSchedule";
    /// A run of a schedule waits for the run before it to end.
    pub const WAITING_FOR_RUN: &str = "WaitingForRun";
    /// A schedule has made a run.
    pub const RUN_CREATED: &str = "RunCreated";
    /// A run of a schedule has ended.
    pub const RUN_ENDED: &str = "RunEnded";
    /// A run takes the place of those before it, which are aborted.
    pub const RUN_REPLACED: &str = "RunReplaced";
    /// Somebody changed the target between the journal and the fault.
    pub const SUPERSEDED: &str = "Superseded";
}
