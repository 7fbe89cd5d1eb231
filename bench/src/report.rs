//! How long a browser takes to open a report's page.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};
use soak_operator::report;

use crate::{
    browser::Browser,
    figures::{Figures, number, percentile, rounded},
    records::eventful,
};

/// Cycles of the two runs whose pages are opened.
const SMALL: u64 = 10;
const LARGE: u64 = 1_000;
/// How often each page is opened, by turns.
const TIMES: usize = 7;
/// What the phase `switch` takes more than in the baseline, in seconds.
const SLOWER: f64 = 2.0;

/// Measures, in a real browser: from the start of the navigation to the end of the load event, and to the first paint, by the page's own
/// clock; each time in a new tab without anything in a cache. Both runs have failures, injections, alerts, monitors, 50 metrics and a
/// baseline as long. The pages stay in `folder`.
pub fn measure(chromium: &Path, folder: &Path) -> Result<Figures> {
    let mut figures = Figures::of("report");
    let small = write(folder, SMALL)?;
    let large = write(folder, LARGE)?;
    let empty = folder.join("empty.html");
    fs::write(&empty, "<!doctype html><title>empty</title>")?;
    let pages = [&empty, &small, &large];
    let mut browser = Browser::start(chromium, &folder.join("profile"))?;
    let (mut opened, mut painted, mut complaints) = ([const { Vec::new() }; 3], [const { Vec::new() }; 3], 0);
    // The first page of a browser pays for its start.
    browser.open(&empty)?;
    for _ in 0..TIMES {
        for (place, page) in pages.iter().enumerate() {
            let seen = browser.open(page).with_context(|| page.display().to_string())?;
            opened[place].push(seen.loaded);
            painted[place].push(seen.painted);
            complaints += seen.complaints.len();
            seen.complaints.iter().for_each(|it| eprintln!("  {}: {it}", page.display()));
        }
    }
    drop(browser);
    let median = |times: &mut Vec<Duration>| percentile(times, 0.5).as_secs_f64() * 1_000.0;
    let [nothing, few, many] = opened.each_mut().map(median);
    let [_, few_painted, many_painted] = painted.each_mut().map(median);
    figures.at_most("openMillis", many, 1_000.0);
    figures.at_most("paintMillis", many_painted, 1_000.0);
    figures.tell("openMillisOf10", rounded(few));
    figures.tell("paintMillisOf10", rounded(few_painted));
    figures.tell("openMillisOfEmpty", rounded(nothing));
    figures.tell("overEmpty", rounded(many / nothing.max(0.001)));
    figures.at_most("megabytes", number(fs::metadata(&large)?.len()) / 1e6, 5.0);
    figures.tell("megabytesOf10", rounded(number(fs::metadata(&small)?.len()) / 1e6));
    figures.at_most("consoleErrors", number(complaints), 0.0);
    figures.tell("cycles", LARGE);
    Ok(figures)
}

/// The page of a run of so many cycles.
fn write(folder: &Path, cycles: u64) -> Result<PathBuf> {
    let (run, before) = (eventful(cycles, 1, SLOWER), eventful(cycles, 2, 0.0));
    let folder = folder.join(cycles.to_string());
    fs::create_dir_all(&folder).with_context(|| folder.display().to_string())?;
    for (name, text) in report::files(&report::report(&run, Some(&before)), &run, Some(&before))? {
        fs::write(folder.join(name), text)?;
    }
    eprintln!("  {}", folder.join("report.html").display());
    Ok(fs::canonicalize(folder.join("report.html"))?)
}
