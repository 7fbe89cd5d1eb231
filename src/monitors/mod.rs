//! Monitors at work: each is a task of its own beside its run, which looks, judges (as [`monitor::judge`] says) and wakes the run
//! when an alert may have changed. Nothing is decided here.
//!
//! What a monitor asks a cluster is asked as the run's service account. A look that fails, hangs or panics makes the monitor
//! broken, which is an alert; it never stops the run.

mod fetch;
mod pods;
mod promql;
mod rights;

use std::{collections::BTreeMap, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use chrono::{DateTime, SubsecRound, Utc};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::{
    sync::{Semaphore, watch},
    task::JoinHandle,
    time::{Instant, MissedTickBehavior, interval, sleep_until},
};

use crate::{
    cluster::{Cluster, client::Account},
    engine::{
        expr::Scope,
        monitor::{self, Broken, Judged, MonitorPlan, MonitorSeen, Subject},
    },
};

use fetch::Fetcher;

pub use rights::validate;

/// Looks at the same time, over all runs: each may hold an answer of 1 MiB.
const LOOKS: usize = 32;
/// After a change of a watched object the next look waits for so long, so that a busy object is not judged all the time.
const SETTLE: Duration = Duration::from_millis(500);

static LOOKING: Semaphore = Semaphore::const_new(LOOKS);

/// Whose monitors these are, and what they are performed with.
#[derive(Clone)]
pub struct Surroundings {
    /// The run's namespace, where its account is.
    pub namespace: String,
    /// The account as which clusters are asked.
    pub account: Account,
    /// When the attempt of the run began.
    pub started_at: DateTime<Utc>,
    /// The variables `run` and `params`.
    pub scope: Scope,
    /// Requests may go to loopback and link-local addresses.
    pub local_addresses: bool,
    /// Called when an alert of the run may have changed.
    pub wake: Arc<dyn Fn() + Send + Sync>,
}

/// Where a monitor looks at present. Roles swap and credentials change, so it is told anew at each visit of the run.
#[derive(Clone)]
pub struct Place {
    /// The target's name, by which its subjects are told apart; empty for a monitor without one.
    pub target: String,
    /// Its cluster; none while it is being connected to.
    ///
    /// Errors: why it can't be asked.
    pub cluster: Result<Option<Cluster>, String>,
}

impl Place {
    fn is_same(&self, other: &Self) -> bool {
        let same = match (&self.cluster, &other.cluster) {
            (Ok(Some(one)), Ok(Some(two))) => one.watches.is_same(&two.watches),
            (Ok(None), Ok(None)) => true,
            (Err(one), Err(two)) => one == two,
            _ => false,
        };
        same && self.target == other.target
    }
}

/// The monitors of one run at work. They end when it is dropped.
pub struct Monitors {
    seen: BTreeMap<String, Arc<Mutex<Option<MonitorSeen>>>>,
    places: BTreeMap<String, watch::Sender<Place>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Monitors {
    /// Starts all, each where `place` says. Must be called inside a tokio runtime.
    pub fn start(plans: &[MonitorPlan], around: &Surroundings, place: impl Fn(&MonitorPlan) -> Place) -> Self {
        let mut this = Self { seen: BTreeMap::new(), places: BTreeMap::new(), tasks: Vec::new() };
        for plan in plans {
            let seen: Arc<Mutex<Option<MonitorSeen>>> = Arc::default();
            this.seen.insert(plan.name.clone(), seen.clone());
            let (sender, place) = watch::channel(place(plan));
            this.places.insert(plan.name.clone(), sender);
            this.tasks.push(tokio::spawn(follow(plan.clone(), around.clone(), place, seen)));
        }
        this
    }

    /// Tells all where to look from now on.
    pub fn look_at(&self, plans: &[MonitorPlan], place: impl Fn(&MonitorPlan) -> Place) {
        for plan in plans {
            let Some(sender) = self.places.get(&plan.name) else { continue };
            let new = place(plan);
            sender.send_if_modified(|old| {
                let moves = !old.is_same(&new);
                if moves {
                    *old = new;
                }
                moves
            });
        }
    }

    /// What they have seen so far. Samples that are known to be recorded (by monitor: until when) are forgotten.
    pub fn seen(&self, recorded: &BTreeMap<String, DateTime<Utc>>) -> BTreeMap<String, MonitorSeen> {
        let mut all = BTreeMap::new();
        for (name, seen) in &self.seen {
            if let Some(seen) = &mut *seen.lock() {
                if let Some(until) = recorded.get(name) {
                    seen.series.forget(until.timestamp_millis());
                }
                all.insert(name.clone(), seen.clone());
            }
        }
        all
    }
}

impl Drop for Monitors {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

async fn follow(
    plan: MonitorPlan,
    around: Surroundings,
    place: watch::Receiver<Place>,
    seen: Arc<Mutex<Option<MonitorSeen>>>,
) {
    let mut ticks = interval(plan.interval.as_std());
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut fetcher = Fetcher::new(&plan, &around, place);
    let plan = Arc::new(plan);
    let mut rested = Instant::now();
    loop {
        let sampled = tokio::select! {
            _ = ticks.tick() => true,
            () = async { sleep_until(rested).await; fetcher.changed().await } => false,
        };
        let look = AssertUnwindSafe(look(&plan, &around, &mut fetcher)).catch_unwind().await;
        let look = look.unwrap_or_else(|_| Err(Broken("looking has a defect here: please report it".into())));
        rested = Instant::now() + SETTLE;
        let Some(look) = look.transpose() else { continue };
        let now = Utc::now().trunc_subsecs(3);
        let news = seen.lock().get_or_insert_with(|| MonitorSeen::new(&plan, now)).take_in(now, look, sampled);
        if news {
            (around.wake)();
        }
    }
}

/// One look. None: there is nothing to tell yet.
async fn look(
    plan: &Arc<MonitorPlan>,
    around: &Surroundings,
    fetcher: &mut Fetcher,
) -> Result<Option<Vec<Judged>>, Broken> {
    let Ok(_place) = LOOKING.acquire().await else { return Ok(None) };
    let patience = fetch::patience(plan);
    let told = tokio::time::timeout(patience, fetcher.fetch()).await;
    let subjects: Option<Vec<Subject>> = match told {
        Ok(told) => told.map_err(Broken)?,
        Err(_) => return Err(Broken(format!("no answer within {} s", patience.as_secs()))),
    };
    let Some(subjects) = subjects else { return Ok(None) };
    let (plan, scope) = (plan.clone(), around.scope.clone());
    // Judging may take some tenths of a second, which is too long for a thread that others wait for.
    tokio::task::spawn_blocking(move || monitor::judge(&plan, &scope, subjects).map(Some))
        .await
        .unwrap_or_else(|_| Err(Broken("judging has a defect here: please report it".into())))
}
