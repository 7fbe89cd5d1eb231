//! Names of what a step attempt makes: the same attempt always gets the same name, no two attempts share one.

use std::fmt::Write;

use sha2::{Digest, Sha256};

use super::StepKey;

/// Longest name of a pod that is also its host name.
const LONGEST: usize = 63;
/// Longest readable part of a name taken from one coordinate.
const READABLE: usize = 18;

/// The name of the pod, Job or unnamed resource of one attempt of a step.
///
/// Readable coordinates in front, then 40 bits of a hash over all of them with the run's uid, which is what makes it unique.
pub fn attempt_name(run: &str, run_uid: &str, key: &StepKey) -> String {
    let StepKey { run_attempt, section, cycle, phase, step, attempt } = key;
    let mut hash = Sha256::new();
    for part in [
        run_uid,
        &run_attempt.to_string(),
        &format!("{section:?}"),
        &cycle.to_string(),
        phase,
        step,
        &attempt.to_string(),
    ] {
        hash.update(part.as_bytes());
        hash.update([0]);
    }
    if crate::switches::without("deterministic-names") {
        // Another name in each life of the operator.
        hash.update(std::process::id().to_be_bytes());
    }
    let mut name = String::new();
    for part in [run, step] {
        let part: String = part
            .chars()
            .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' })
            .take(READABLE)
            .collect();
        let part = part.trim_matches('-');
        if !part.is_empty() {
            let _ = write!(name, "{part}-");
        }
    }
    let _ = write!(name, "c{cycle}-");
    for byte in &hash.finalize()[..5] {
        let _ = write!(name, "{byte:02x}");
    }
    debug_assert!(name.len() <= LONGEST);
    if name.starts_with(|c: char| c.is_ascii_digit()) { format!("r{name}") } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::status::Section;

    fn key(step: &str, cycle: u32, attempt: u32) -> StepKey {
        StepKey {
            run_attempt: 1,
            section: Section::Cycle,
            cycle,
            phase: "activation".into(),
            step: step.into(),
            attempt,
        }
    }

    #[test]
    fn names_differ_in_every_coordinate_and_are_dns_labels() {
        let names = [
            attempt_name("switchover", "uid-1", &key("load", 1, 1)),
            attempt_name("switchover", "uid-2", &key("load", 1, 1)),
            attempt_name("switchover", "uid-1", &key("load", 2, 1)),
            attempt_name("switchover", "uid-1", &key("load", 1, 2)),
            attempt_name("switchover", "uid-1", &key("group/load", 1, 1)),
            attempt_name(&"very.long.run.name".repeat(10), "uid-1", &key(&"x".repeat(40), 1_000_000, 1)),
        ];
        for (index, name) in names.iter().enumerate() {
            assert!(name.len() <= LONGEST, "{name}");
            assert!(name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'), "{name}");
            assert!(!names[..index].contains(name));
        }
        assert_eq!(names[0], attempt_name("switchover", "uid-1", &key("load", 1, 1)));
    }
}
