//! Runs tests of one binary, with one change active or none.

use std::{
    collections::BTreeSet,
    fs,
    io::{BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

/// A test that takes longer has a process of its own, and is asked after all quicker ones.
const QUICK: f64 = 1.0;
/// Tests may take so many times as long as without a change, and so many seconds more, of the processor's time: how busy
/// the machine is does not matter then.
const PATIENCE: (f64, f64) = (3.0, 5.0);
/// A test that waits instead of working is given up after so many times as long.
const WAITING: u32 = 100;
/// A change may make a loop fill the memory. In KiB of address space.
const MEMORY: &str = "4194304";

/// A test of the engine.
pub struct Test {
    pub name: String,
    /// How long it keeps a processor busy, alone and without a change.
    pub seconds: f64,
    /// The changes that it reaches: no other can make a difference to it.
    pub reached: BTreeSet<u32>,
}

/// What tests say of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// This test failed.
    Caught(String),
    /// They took far too long.
    Timeout,
    /// They passed.
    Missed,
}

/// A binary of tests and where it runs.
pub struct Program {
    pub binary: PathBuf,
    pub folder: PathBuf,
}

impl Program {
    /// A shell that sets limits and then does `rest`, where `$@` is the binary with arguments that are still to come.
    fn command(&self, seconds: u64, rest: &str) -> Command {
        let script = format!("ulimit -c 0 && ulimit -v \"$0\" && ulimit -S -t \"$1\" && shift && {rest}");
        let mut command = Command::new("sh");
        command
            .args(["-c", &script, MEMORY, &seconds.to_string()])
            .arg(&self.binary)
            .args(["--test-threads", "1", "--exact"])
            .current_dir(&self.folder)
            // The same random cases for each change, so that the figures can be had again; which of them is the smallest
            // that fails does not matter.
            .env("PROPTEST_RNG_SEED", "1")
            .env("PROPTEST_MAX_SHRINK_ITERS", "0")
            .env("PROPTEST_DISABLE_FAILURE_PERSISTENCE", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }

    /// Runs each of the engine's tests alone without a change: they must pass, and show what they reach.
    ///
    /// Errors: a test fails.
    pub fn tests(&self) -> Result<Vec<Test>> {
        let output = Command::new(&self.binary)
            .args(["--list", "--format", "terse", "engine::"])
            .output()
            .context("the engine's tests can't be listed")?;
        let text = String::from_utf8_lossy(&output.stdout);
        let names = text.lines().filter_map(|line| line.strip_suffix(": test"));
        names.map(|name| self.reach(name)).collect()
    }

    fn reach(&self, name: &str) -> Result<Test> {
        let file = self.folder.join("reached.txt");
        fs::write(&file, "")?;
        // The last line that the shell tells is the time that its children took of a processor.
        let output = self.command(3_600, "{ \"$@\" && times; }").arg(name).env("MUTANT_REACHED", &file).output()?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            bail!("{name} fails without a change: {said}");
        }
        let seconds = said.lines().last().and_then(spent).context("the shell tells no times")?;
        let reached = fs::read_to_string(&file)?.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Test { name: name.to_owned(), seconds, reached })
    }

    /// Asks these tests about a change, the quick ones first, up to the first that fails.
    pub fn judge(&self, number: u32, tests: &[&Test]) -> Result<End> {
        let (quick, mut slow): (Vec<&Test>, Vec<&Test>) = tests.iter().copied().partition(|test| test.seconds < QUICK);
        slow.sort_by(|one, other| one.seconds.total_cmp(&other.seconds));
        for group in std::iter::once(quick).chain(slow.into_iter().map(|test| vec![test])) {
            if group.is_empty() {
                continue;
            }
            let end = self.ask(number, &group)?;
            if end != End::Missed {
                return Ok(end);
            }
        }
        Ok(End::Missed)
    }

    fn ask(&self, number: u32, tests: &[&Test]) -> Result<End> {
        let seconds = tests.iter().map(|test| test.seconds).sum::<f64>() * PATIENCE.0 + PATIENCE.1;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a few hundred seconds")]
        let seconds = seconds as u64;
        let mut child = self
            .command(seconds, "exec \"$@\"")
            .args(tests.iter().map(|test| &test.name))
            .env("MUTANT", number.to_string())
            .spawn()
            .context("the engine's tests can't be started")?;
        let failed = first_failure(&mut child, Duration::from_secs(seconds) * WAITING)?;
        if failed.is_some() {
            child.kill()?;
        }
        let status = child.wait()?;
        // Past its time of the processor a program gets SIGXCPU.
        let out_of_time = status.signal() == Some(24);
        Ok(match failed {
            Some(end) => end,
            None if status.success() => End::Missed,
            None if out_of_time => End::Timeout,
            None => End::Caught(format!("{status}")),
        })
    }
}

/// The seconds in a line of the shell's `times`: `0m1.20s 0m0.05s`.
fn spent(line: &str) -> Option<f64> {
    line.split_whitespace()
        .map(|part| {
            let (minutes, seconds) = part.strip_suffix('s')?.split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        })
        .sum()
}

/// Reads what the tests say until one fails, or they end.
fn first_failure(child: &mut Child, patience: Duration) -> Result<Option<End>> {
    let output = BufReader::new(child.stdout.take().context("the tests have no output")?);
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let until = Instant::now() + patience;
    loop {
        match lines.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                if let Some(name) = line.strip_suffix("FAILED").and_then(|line| line.strip_prefix("test ")) {
                    let name = name.trim_end_matches([' ', '.']).trim_end_matches(" - should panic");
                    return Ok(Some(End::Caught(name.to_owned())));
                }
            }
            Err(RecvTimeoutError::Timeout) => return Ok(Some(End::Timeout)),
            Err(RecvTimeoutError::Disconnected) => return Ok(None),
        }
    }
}

/// The module by which the program knows the active change: `MUTANT` names it. With `MUTANT_REACHED` none is active, and
/// that file gets the numbers of those that are asked for.
pub fn switch(highest: u32) -> String {
    format!("const COUNT: usize = {highest} + 1;\n{}", include_str!("switch.txt"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(script: &str) -> Program {
        let folder = std::env::temp_dir().join(format!("mutants-run-{}-{}", std::process::id(), script.len()));
        fs::create_dir_all(&folder).unwrap();
        let binary = folder.join("tests.sh");
        fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&binary, mode).unwrap();
        Program { binary, folder }
    }

    fn judged(script: &str) -> End {
        let test = Test { name: "a".into(), seconds: 0.1, reached: BTreeSet::new() };
        let program = program(script);
        let end = program.judge(3, &[&test]).unwrap();
        fs::remove_dir_all(&program.folder).unwrap();
        end
    }

    #[test]
    fn the_first_failure_ends_a_run_that_would_go_on() {
        assert_eq!(judged("echo 'test a ... FAILED'; exec sleep 1000"), End::Caught("a".into()));
    }

    #[test]
    fn the_time_of_the_processor_is_read() {
        assert_eq!(spent("1m1.25s 0m0.50s"), Some(61.75));
        assert_eq!(spent("test a ... ok"), None);
    }

    #[test]
    fn a_crash_is_noticed_and_a_clean_end_is_not() {
        assert_eq!(judged("[ $MUTANT = 3 ]; echo 'test a ... ok'"), End::Missed);
        assert!(matches!(judged("echo 'test a ... ok'; kill -ABRT $$"), End::Caught(_)));
    }
}
