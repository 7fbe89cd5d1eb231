//! Many sessions: seeds, coverage of writes by crashes, guards taken away, and the figures.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::{RwLock, Semaphore};

use crate::{
    script::{OnWrite, Script, When},
    session::{self, Outcome, Setup},
};

/// Violations of one promise that are printed.
const SHOWN: usize = 5;
/// Writes that one session is crashed at in the first round, and half as many in each that follows: a crash takes events with it
/// that were to be sent, and those can be met only where nothing crashes before them.
const TARGETS: usize = 8;
/// Rounds of sessions that may be spent on writes that no seed has crashed.
const ROUNDS: usize = 6;
/// Sessions without any fault that tell which writes there are.
const BASELINES: u64 = 2;

/// The guards, and the scenarios that must turn red without each.
pub const GUARDS: [(&str, &str); 9] = [
    ("precondition", "two-leaders"),
    ("uid-check", "squatters"),
    ("deterministic-names", "crash-at-pods"),
    ("post-retry-off", "unclear-pods"),
    ("record-before-count", "crash-at-records"),
    ("finalizer-first", "crash-after"),
    ("journal-before-effect", "crash-before"),
    ("target-uid", "ambiguous"),
    ("read-back", "undo-denied"),
];
/// Seeds that are tried before a guard counts as missed.
const GUARD_SEEDS: u64 = 3;

/// What campaign is wanted.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many seeds, beginning with 0.
    pub seeds: u64,
    /// Only this scenario.
    pub scenario: Option<String>,
    /// Only this seed.
    pub replay: Option<u64>,
    /// Sessions side by side.
    pub parallel: usize,
    /// Crash every write of the workload before and after, whatever the seeds do.
    pub cover: bool,
    /// The operator with switches to take guards away; none skips them.
    pub switchable: Option<PathBuf>,
}

/// The figures of a campaign.
#[derive(Debug, Default)]
pub struct Figures {
    seeds: u64,
    writes: BTreeSet<String>,
    crashed: BTreeSet<(String, bool)>,
    faults: BTreeMap<String, u64>,
    requests: usize,
    violations: usize,
    injected: usize,
    left: usize,
    guards: usize,
    caught: usize,
}

impl Figures {
    fn add(&mut self, outcome: &Outcome) {
        self.requests += outcome.requests;
        self.violations += outcome.violations.len();
        self.injected += outcome.injected;
        self.left += outcome.left;
        for (kind, count) in &outcome.faults {
            *self.faults.entry(kind.clone()).or_default() += count;
        }
        self.crashed.extend(outcome.crashed.iter().cloned());
    }

    /// Writes that were crashed both before and after.
    fn covered(&self) -> usize {
        let both = |key: &&String| [false, true].iter().all(|after| self.crashed.contains(&((*key).clone(), *after)));
        self.writes.iter().filter(both).count()
    }

    /// Crashes that are still to be made.
    fn missing(&self) -> Vec<(String, bool)> {
        let all = self.writes.iter().flat_map(|key| [(key.clone(), false), (key.clone(), true)]);
        all.filter(|target| !self.crashed.contains(target)).collect()
    }

    /// Whether the campaign was passed.
    pub const fn passed(&self) -> bool {
        self.violations == 0 && self.caught == self.guards
    }

    /// The last line of a campaign's output.
    pub fn to_json(&self) -> Value {
        json!({
            "seeds": self.seeds, "writes": self.writes.len(), "writesCovered": self.covered(), "faults": self.faults,
            "requests": self.requests, "violations": self.violations, "faultsInjected": self.injected, "faultsLeft": self.left, "guards": self.guards, "guardsCaught": self.caught,
        })
    }
}

/// Runs sessions, some side by side; those that strike the whole cluster run alone.
struct Runner {
    setup: Setup,
    places: Arc<Semaphore>,
    alone: Arc<RwLock<()>>,
    figures: Arc<Mutex<Figures>>,
}

impl Runner {
    async fn all(&self, scripts: Vec<Script>) -> Result<Vec<Outcome>> {
        let count = scripts.len();
        let mut tasks = tokio::task::JoinSet::new();
        for (turn, script) in scripts.into_iter().enumerate() {
            let place = self.places.clone().acquire_owned().await?;
            let (setup, alone, figures) = (self.setup.clone(), self.alone.clone(), self.figures.clone());
            tasks.spawn(async move {
                let outcome = if script.is_shared() {
                    let _guard = alone.write().await;
                    session::run(&setup, script).await
                } else {
                    let _guard = alone.read().await;
                    session::run(&setup, script).await
                }?;
                drop(place);
                figures.lock().add(&outcome);
                tell(turn + 1, count, &outcome);
                anyhow::Ok(outcome)
            });
        }
        let mut outcomes = Vec::new();
        while let Some(outcome) = tasks.join_next().await {
            outcomes.push(outcome.context("a session panicked")??);
        }
        Ok(outcomes)
    }
}

fn tell(turn: usize, count: usize, outcome: &Outcome) {
    let Outcome { seed, scenario, violations, faults, requests, seconds, folder, .. } = outcome;
    let faults: Vec<String> = faults.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let verdict = if violations.is_empty() { "good".to_owned() } else { format!("{} VIOLATIONS", violations.len()) };
    eprintln!(
        "{turn}/{count} {scenario} {seed}: {verdict}, {seconds:.0} s, {requests} requests, {}",
        faults.join(", ")
    );
    let mut by_rule: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for violation in violations {
        by_rule.entry(violation.rule).or_default().push(&violation.text);
    }
    for (rule, texts) in by_rule {
        for text in texts.iter().take(SHOWN) {
            eprintln!("   {rule}: {text}");
        }
        if texts.len() > SHOWN {
            eprintln!("   {rule}: and {} more", texts.len() - SHOWN);
        }
    }
    if !violations.is_empty() {
        eprintln!(
            "   histories: {}; again: cargo xtask faults --scenario {scenario} --replay {seed}",
            folder.display()
        );
    }
}

/// Runs a campaign. Progress goes to stderr.
///
/// Errors: a session could not be set up.
pub async fn run(setup: Setup, options: &Options) -> Result<Figures> {
    let runner = Runner {
        setup: setup.clone(),
        places: Arc::new(Semaphore::new(options.parallel.max(1))),
        alone: Arc::default(),
        figures: Arc::default(),
    };
    if let Some(seed) = options.replay {
        let script = replayed(&setup, seed, options.scenario.as_deref())?;
        runner.all(vec![script]).await?;
        runner.figures.lock().seeds = 1;
        return Ok(std::mem::take(&mut *runner.figures.lock()));
    }
    let began = Instant::now();
    let baselines = (0..BASELINES).map(|seed| Script::new(seed, Some("baseline"))).collect::<Result<_>>()?;
    let baselines = runner.all(baselines).await?;
    runner.figures.lock().writes = catalogue(&baselines);
    let scripts = (0..options.seeds).map(|seed| Script::new(seed, options.scenario.as_deref()));
    let mut scripts: Vec<Script> = scripts.collect::<Result<_>>()?;
    // The longest first, so that nobody waits for it in the end; those that run alone after all others.
    scripts.sort_by_key(|script| !script.is_silent());
    let (shared, others) = scripts.into_iter().partition(Script::is_shared);
    let guards = async {
        match &options.switchable {
            Some(program) => guards(&runner, program).await,
            None => Ok(()),
        }
    };
    tokio::try_join!(runner.all(others), guards)?;
    runner.all(shared).await?;
    runner.figures.lock().seeds = options.seeds;
    if options.cover {
        cover(&runner, options.seeds).await?;
    }
    let figures = std::mem::take(&mut *runner.figures.lock());
    eprintln!(
        "{} of {} writes were crashed before and after; {:.0} s in all",
        figures.covered(),
        figures.writes.len(),
        began.elapsed().as_secs_f64()
    );
    for (key, after) in figures.missing().iter().filter(|_| options.cover) {
        eprintln!("   never crashed {}: {key}", if *after { "after" } else { "before" });
    }
    Ok(figures)
}

/// Writes that come in every fault-free session; what depends on the order of two pods is no promise.
fn catalogue(outcomes: &[Outcome]) -> BTreeSet<String> {
    let mut all = outcomes.iter().map(|outcome| outcome.keys.clone());
    let first = all.next().unwrap_or_default();
    all.fold(first, |common, keys| common.intersection(&keys).cloned().collect())
}

/// Crashes what no seed has crashed yet.
async fn cover(runner: &Runner, first_seed: u64) -> Result<()> {
    let mut seed = first_seed;
    for round in 0..ROUNDS {
        let missing = runner.figures.lock().missing();
        if missing.is_empty() {
            return Ok(());
        }
        // Neighbours in the alphabet are neighbours in time: dealt out, each session has crashes all along.
        let sessions = missing.len().div_ceil((TARGETS >> round).max(1));
        let mut scripts = Vec::new();
        for session in 0..sessions {
            let targets: Vec<(String, bool)> = missing.iter().skip(session).step_by(sessions).cloned().collect();
            save(runner, seed, &targets)?;
            scripts.push(Script::crashes_at(seed, &targets));
            seed += 1;
        }
        runner.all(scripts).await?;
    }
    Ok(())
}

fn targets_file(setup: &Setup, seed: u64) -> PathBuf {
    setup.folder.join(format!("targets-{seed}.json"))
}

fn save(runner: &Runner, seed: u64, targets: &[(String, bool)]) -> Result<()> {
    std::fs::create_dir_all(&runner.setup.folder)?;
    std::fs::write(targets_file(&runner.setup, seed), json!(targets).to_string())?;
    Ok(())
}

/// The script of a seed once more. Crashes at named writes depend on what was covered before them, so they were saved.
fn replayed(setup: &Setup, seed: u64, scenario: Option<&str>) -> Result<Script> {
    if scenario != Some("crash-at") {
        return Script::new(seed, scenario);
    }
    let file = targets_file(setup, seed);
    let text = std::fs::read_to_string(&file)
        .with_context(|| format!("{} can't be read: the campaign that made it was run elsewhere", file.display()))?;
    let targets: Vec<(String, bool)> = serde_json::from_str(&text)?;
    Ok(Script::crashes_at(seed, &targets))
}

/// Takes each guard away alone; the campaign must find that out.
async fn guards(runner: &Runner, program: &std::path::Path) -> Result<()> {
    let writes: Arc<[String]> = runner.figures.lock().writes.iter().cloned().collect();
    let mut tasks = tokio::task::JoinSet::new();
    for (guard, scenario) in GUARDS {
        let mut setup = runner.setup.clone();
        program.clone_into(&mut setup.program);
        setup.without = Some(guard.to_owned());
        setup.folder = runner.setup.folder.join(format!("without-{guard}"));
        let own = Runner { setup, places: runner.places.clone(), alone: runner.alone.clone(), figures: Arc::default() };
        let writes = writes.clone();
        tasks.spawn(async move { anyhow::Ok((guard, is_caught(&own, guard, scenario, &writes).await?)) });
    }
    while let Some(guard) = tasks.join_next().await {
        let (guard, caught) = guard.context("a guard's sessions panicked")??;
        if !caught {
            eprintln!("   nobody has noticed that {guard} is missing");
        }
        let mut figures = runner.figures.lock();
        figures.guards += 1;
        figures.caught += usize::from(caught);
    }
    Ok(())
}

/// Whether a missing guard shows within a few seeds.
async fn is_caught(own: &Runner, guard: &str, scenario: &str, writes: &[String]) -> Result<bool> {
    for seed in 0..GUARD_SEEDS {
        let script = match scenario {
            "crash-at-pods" => aimed(seed, writes, "POST pods pods/", &OnWrite::KillAfter),
            "crash-at-records" => aimed(seed, writes, "POST configmaps ", &OnWrite::KillBefore),
            "unclear-pods" => aimed(seed, writes, "POST pods pods/", &OnWrite::CommitAndRefuse(504)),
            other => Script::new(seed, Some(other))?,
        };
        let outcomes = own.all(vec![script]).await?;
        let rules: BTreeSet<&str> = outcomes.iter().flat_map(|it| &it.violations).map(|it| it.rule).collect();
        if !rules.is_empty() {
            eprintln!("without {guard}: noticed by {}", rules.into_iter().collect::<Vec<_>>().join(", "));
            return Ok(true);
        }
    }
    Ok(false)
}

/// A script that does that to all writes that begin so.
fn aimed(seed: u64, writes: &[String], prefix: &str, what: &OnWrite) -> Script {
    let writes = writes.iter().filter(|key| key.starts_with(prefix) && !key.contains(" t-"));
    Script::aimed(seed, writes.map(|key| (When::Key(key.clone()), what.clone())).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_covered_when_it_was_crashed_before_and_after() {
        let mut figures = Figures { writes: ["a".to_owned(), "b".to_owned()].into(), ..Figures::default() };
        figures.crashed.extend([("a".to_owned(), false), ("a".to_owned(), true), ("b".to_owned(), true)]);
        assert_eq!(figures.covered(), 1);
        assert_eq!(figures.missing(), [("b".to_owned(), false)]);
        figures.guards = 1;
        assert!(!figures.passed(), "a guard was missed");
    }
}
