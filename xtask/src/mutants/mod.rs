//! `cargo xtask mutants`: changes the engine in many small ways and tells which changes no test notices
//! (docs/reliability.md).
//!
//! cargo-mutants lists the changes. It would compile the engine for each; here one program holds all that can be put
//! behind a switch ([`schema`]), and each of them is asked about only the tests that reach it. The others are tried one
//! by one ([`alone`]).

mod alone;
mod copy;
mod ledger;
mod list;
mod run;
mod schema;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::{
    copy::Copy,
    ledger::{Ledger, Verdict, Way},
    list::Mutant,
    run::{End, Program, Test},
};
use crate::workspace;

/// Which changes are tried.
#[derive(clap::Args)]
pub struct Options {
    /// Only the k-th of n parts, `k/n` with k from 0: each n-th change.
    #[arg(long)]
    shard: Option<String>,
    /// Only changes of files whose path has this in it.
    #[arg(long, default_value = "")]
    file: String,
    /// So many changes are tried at a time; by default as many as there are processors.
    #[arg(long)]
    jobs: Option<usize>,
    /// Forget what an earlier run has found out. Otherwise only what is not known yet is tried, and what was missed if
    /// any source or test has changed since.
    #[arg(long)]
    fresh: bool,
    /// The least percentage of changes that must be noticed.
    #[arg(long, default_value_t = 90.0)]
    least: f64,
}

/// Tries the changes; the last line on stdout is one line of JSON with the figures, and `target/mutants/missed.txt` names
/// those that no test notices.
///
/// Errors: cargo-mutants can't be had, the tests fail without any change, or too few changes were noticed.
pub fn run(options: &Options) -> Result<()> {
    let began = Instant::now();
    let folder = workspace::target().join("mutants");
    let plain = Copy::new(folder.join("engine"), &BTreeSet::new())?;
    let all = list::of(&plain.folder)?;
    let chosen = chosen(&all, options)?;
    let mut digests = BTreeMap::new();
    for mutant in &all {
        if !digests.contains_key(&mutant.file) {
            digests.insert(mutant.file.clone(), copy::digest(&plain.read(&mutant.file)?));
        }
    }
    let path = folder.join("verdicts.jsonl");
    if options.fresh && path.exists() {
        fs::remove_file(&path)?;
    }
    let mut ledger = Ledger::open(&path, &all, digests, plain.digest())?;

    let (program, inside) = all_in_one(&plain, &folder, &all)?;
    eprintln!("{} of {} changes are in the schema; the tests run without a change", inside.len(), all.len());
    let tests = program.tests()?;
    let seconds: f64 = tests.iter().map(|test| test.seconds).sum();
    eprintln!("{} tests pass without a change, in {seconds:.0} s one by one", tests.len());

    let open: Vec<&Mutant> = chosen.iter().filter(|mutant| ledger.get(mutant.number).is_none()).copied().collect();
    let (mut within, without): (Vec<&Mutant>, Vec<&Mutant>) =
        open.into_iter().partition(|mutant| inside.contains(&mutant.number));
    // In a random order that is always the same (Knuth's multiplicative hash), so that what a run has judged when it is
    // broken off is a fair sample.
    within.sort_by_key(|mutant| mutant.number.wrapping_mul(2_654_435_761));
    let jobs = options.jobs.or_else(|| thread::available_parallelism().ok().map(Into::into)).unwrap_or(1);
    judge_within(&program, &within, &tests, jobs, &mut ledger)?;
    judge_alone(&plain, &without, &tests, &mut ledger)?;

    let verdicts: Vec<(&Mutant, &Verdict)> =
        chosen.iter().filter_map(|mutant| Some((*mutant, ledger.get(mutant.number)?))).collect();
    let missed: Vec<&str> = verdicts
        .iter()
        .filter(|(_, verdict)| verdict.end == Some(End::Missed))
        .map(|(mutant, _)| mutant.name.as_str())
        .collect();
    fs::write(folder.join("missed.txt"), missed.iter().flat_map(|name| [name, "\n"]).collect::<String>())?;
    let figures = Figures::of(verdicts.iter().map(|(_, verdict)| *verdict));
    println!("{}", figures.to_json(began.elapsed().as_secs()));
    if figures.caught_percent() < options.least {
        bail!("{:.1} % of the changes were noticed, not {} %", figures.caught_percent(), options.least);
    }
    Ok(())
}

fn chosen<'a>(all: &'a [Mutant], options: &Options) -> Result<Vec<&'a Mutant>> {
    let (part, parts) = match &options.shard {
        None => (0, 1),
        Some(shard) => shard
            .split_once('/')
            .and_then(|(part, parts)| Some((part.parse::<usize>().ok()?, parts.parse::<usize>().ok()?)))
            .filter(|(part, parts)| part < parts)
            .with_context(|| format!("--shard {shard}: k/n is needed, with k from 0 and below n"))?,
    };
    let named = all.iter().filter(|mutant| mutant.file.contains(&options.file));
    Ok(named.skip(part).step_by(parts).collect())
}

/// Builds the one program; what the compiler refuses is left out. Which that was is kept in a file for the next time.
fn all_in_one(plain: &Copy, folder: &Path, all: &[Mutant]) -> Result<(Program, BTreeSet<u32>)> {
    let mut files: BTreeMap<&str, (String, Vec<&Mutant>)> = BTreeMap::new();
    for mutant in all {
        if !files.contains_key(mutant.file.as_str()) {
            files.insert(&mutant.file, (plain.read(&mutant.file)?, Vec::new()));
        }
        files.entry(&mutant.file).and_modify(|(_, mutants)| mutants.push(mutant));
    }
    let mut written: BTreeSet<String> = files.keys().map(|file| (*file).to_owned()).collect();
    written.insert("src/lib.rs".into());
    let copy = Copy::new(folder.join("schema"), &written)?;
    let highest = all.last().map_or(0, |mutant| mutant.number);
    copy.write("src/mutant.rs", &run::switch(highest))?;
    let allowed = "#![allow(warnings, arithmetic_overflow, unconditional_panic, overflowing_literals)]";
    copy.write("src/lib.rs", &format!("{allowed}\n{}pub mod mutant;\n", plain.read("src/lib.rs")?))?;

    let memory = folder.join("refused.txt");
    let known = fs::read_to_string(&memory).unwrap_or_default();
    let known: BTreeSet<&str> = known.lines().collect();
    let mut refused: BTreeSet<u32> =
        all.iter().filter(|mutant| known.contains(mutant.name.as_str())).map(|mutant| mutant.number).collect();
    loop {
        let mut schemata = BTreeMap::new();
        for (file, (source, mutants)) in &files {
            let schema = schema::rewrite(source, mutants, &refused).with_context(|| format!("{file} is not read"))?;
            copy.write(file, &schema.text)?;
            schemata.insert(*file, schema);
        }
        eprintln!("the schema is compiled without {} changes that the compiler refuses in it", refused.len());
        let complaints = match copy.build()? {
            Ok(binary) => {
                let names = all.iter().filter(|mutant| refused.contains(&mutant.number));
                fs::write(&memory, names.flat_map(|mutant| [&mutant.name, "\n"]).collect::<String>())?;
                let inside = schemata.values().flat_map(|schema| schema.inside.iter().copied()).collect();
                return Ok((Program { binary, folder: copy.folder.clone() }, inside));
            }
            Err(complaints) => complaints,
        };
        let before = refused.len();
        for complaint in &complaints {
            if let Some(schema) = schemata.get(complaint.file.as_str()) {
                refused.extend(schema.blamed(&complaint.lines));
            }
        }
        if refused.len() == before {
            let first = complaints.first().map(|complaint| complaint.message.as_str()).unwrap_or_default();
            bail!("the schema does not compile, and no change is to blame: {first}");
        }
    }
}

fn judge_within(
    program: &Program,
    mutants: &[&Mutant],
    tests: &[Test],
    jobs: usize,
    ledger: &mut Ledger,
) -> Result<()> {
    let (next, ledger) = (AtomicUsize::new(0), Mutex::new(ledger));
    let work = || -> Result<()> {
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(mutant) = mutants.get(index) else { return Ok(()) };
            if index % 100 == 0 {
                eprintln!("  {index} of {} changes in the schema were tried", mutants.len());
            }
            let reaching: Vec<&Test> = tests.iter().filter(|test| test.reached.contains(&mutant.number)).collect();
            let way = if reaching.is_empty() { Way::Unreached } else { Way::Schema };
            let verdict = Verdict { way, end: Some(program.judge(mutant.number, &reaching)?) };
            ledger.lock().expect("no holder panics").put(mutant, verdict)?;
        }
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..jobs.max(1)).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().expect("a worker does not panic"))
    })
}

fn judge_alone(copy: &Copy, mutants: &[&Mutant], tests: &[Test], ledger: &mut Ledger) -> Result<()> {
    let unviable = alone::unviable(copy, mutants)?;
    let tests: Vec<&Test> = tests.iter().collect();
    for mutant in mutants {
        let verdict = if unviable.contains(&mutant.number) {
            Verdict { way: Way::Compiler, end: None }
        } else {
            eprintln!("  alone: {}", mutant.name);
            let end = alone::judge(copy, mutant, &tests)?;
            Verdict { way: if end.is_none() { Way::Compiler } else { Way::Alone }, end }
        };
        ledger.put(mutant, verdict)?;
    }
    Ok(())
}

/// How many changes came to which end, and in which way.
struct Figures {
    ends: BTreeMap<&'static str, usize>,
    ways: BTreeMap<&'static str, usize>,
}

impl Figures {
    fn of<'a>(verdicts: impl Iterator<Item = &'a Verdict>) -> Self {
        let mut figures = Self { ends: BTreeMap::new(), ways: BTreeMap::new() };
        for verdict in verdicts {
            *figures.ends.entry(verdict.list()).or_default() += 1;
            *figures.ways.entry(verdict.way.name()).or_default() += 1;
        }
        figures
    }

    fn count(&self, list: &str) -> usize {
        self.ends.get(list).copied().unwrap_or_default()
    }

    /// The share that was noticed of the changes that compile, in percent.
    fn caught_percent(&self) -> f64 {
        let caught = self.count("caught") + self.count("timeout");
        let all = caught + self.count("missed");
        #[allow(clippy::cast_precision_loss, reason = "a few thousand changes")]
        if all == 0 { 100.0 } else { caught as f64 * 100.0 / all as f64 }
    }

    fn to_json(&self, seconds: u64) -> Value {
        json!({
            "caught": self.count("caught"), "timeout": self.count("timeout"), "missed": self.count("missed"),
            "unviable": self.count("unviable"), "caughtPercent": (self.caught_percent() * 10.0).round() / 10.0,
            "judgedBy": self.ways, "seconds": seconds,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_compile_does_not_count_and_what_hangs_was_noticed() {
        let verdict = |end| Verdict { way: Way::Schema, end };
        let mut verdicts = vec![verdict(Some(End::Caught(String::new()))); 8];
        verdicts.extend([verdict(Some(End::Timeout)), verdict(Some(End::Missed)), verdict(None), verdict(None)]);
        let figures = Figures::of(verdicts.iter());
        assert_eq!(figures.to_json(1)["caughtPercent"], 90.0);
    }
}
