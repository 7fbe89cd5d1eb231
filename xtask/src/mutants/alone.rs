//! Changes that are not in the schema, each in the place of what it replaces, as cargo-mutants would try it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use anyhow::Result;

use super::{
    copy::{Complaint, Copy},
    list::Mutant,
    run::{End, Program, Test},
};

/// Those of the changes that do not compile.
///
/// The compiler checks functions one by one, so one change in each function is tried at a time: what it complains of
/// lies in the function whose change is at fault. Only a build without any complaint shows that the others compile.
pub fn unviable(copy: &Copy, mutants: &[&Mutant]) -> Result<BTreeSet<u32>> {
    let mut found = BTreeSet::new();
    let mut left: Vec<&Mutant> = mutants.to_vec();
    while !left.is_empty() {
        let mut round = one_each(&left);
        loop {
            eprintln!("  {} changes that are not in the schema are left, {} are compiled", left.len(), round.len());
            let (built, places) = with(copy, &round, Copy::build)?;
            let bad: BTreeSet<u32> = match built {
                Ok(_) => BTreeSet::new(),
                Err(complaints) => complaints.iter().flat_map(|complaint| blamed(&places, complaint)).collect(),
            };
            // All that are left compile, or it can't be told which do not: that shows when each is tried.
            if bad.is_empty() {
                left.retain(|mutant| !round.iter().any(|it| it.number == mutant.number));
                break;
            }
            left.retain(|mutant| !bad.contains(&mutant.number));
            round.retain(|mutant| !bad.contains(&mutant.number));
            found.extend(bad);
            // The next ones take the place of the refused, so that a build decides as many as it can.
            round = filled(round, &left);
            if round.is_empty() {
                break;
            }
        }
    }
    Ok(found)
}

/// Tries a change by itself; none when it does not compile.
pub fn judge(copy: &Copy, mutant: &Mutant, tests: &[&Test]) -> Result<Option<End>> {
    let (built, _) = with(copy, &[mutant], Copy::build)?;
    let Ok(binary) = built else { return Ok(None) };
    // The test binary knows no switch: the change is there.
    let end = Program { binary, folder: copy.folder.clone() }.judge(mutant.number, tests)?;
    Ok(Some(end))
}

/// A file, the lines of a changed function in it, and the change.
type Place = (String, Range<usize>, u32);

/// Does something while the copy has these changes, none of which lies in another's function.
fn with<T>(copy: &Copy, mutants: &[&Mutant], act: impl Fn(&Copy) -> Result<T>) -> Result<(T, Vec<Place>)> {
    let mut files: BTreeMap<&str, Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        files.entry(&mutant.file).or_default().push(mutant);
    }
    let (mut before, mut places) = (Vec::new(), Vec::new());
    for (file, mutants) in files {
        let source = copy.read(file)?;
        let (text, lines) = replaced(&source, &mutants);
        places.extend(lines.into_iter().map(|(lines, number)| (file.to_owned(), lines, number)));
        copy.write(file, &text)?;
        before.push((file, source));
    }
    let result = act(copy);
    for (file, source) in before {
        copy.write(file, &source)?;
    }
    Ok((result?, places))
}

/// The source with these changes, and the lines of the functions that they are in.
fn replaced(source: &str, mutants: &[&Mutant]) -> (String, Vec<(Range<usize>, u32)>) {
    let mut sorted = mutants.to_vec();
    sorted.sort_by_key(|mutant| mutant.span.start);
    let (mut text, mut at, mut lines) = (String::new(), 0, Vec::new());
    for mutant in sorted {
        let around = around(mutant);
        text.push_str(&source[at..around.start]);
        let first = text.matches('\n').count() + 1;
        text.push_str(&source[around.start..mutant.span.start]);
        text.push_str(&mutant.replacement);
        text.push_str(&source[mutant.span.end..around.end]);
        lines.push((first..text.matches('\n').count() + 2, mutant.number));
        at = around.end;
    }
    text.push_str(&source[at..]);
    (text, lines)
}

fn blamed(places: &[Place], complaint: &Complaint) -> Vec<u32> {
    let within =
        |lines: &Range<usize>| lines.contains(complaint.lines.start()) && lines.contains(complaint.lines.end());
    let found = places.iter().filter(|(file, lines, _)| *file == complaint.file && within(lines));
    found.map(|(_, _, number)| *number).collect()
}

fn around(mutant: &Mutant) -> Range<usize> {
    mutant.function.clone().unwrap_or_else(|| mutant.span.clone())
}

fn one_each<'a>(left: &[&'a Mutant]) -> Vec<&'a Mutant> {
    filled(Vec::new(), left)
}

/// Adds changes of functions that have none yet.
fn filled<'a>(mut round: Vec<&'a Mutant>, left: &[&'a Mutant]) -> Vec<&'a Mutant> {
    for mutant in left {
        let apart = |other: &&Mutant| {
            let (one, other_) = (around(mutant), around(other));
            other.file != mutant.file || other_.end <= one.start || one.end <= other_.start
        };
        if round.iter().all(apart) {
            round.push(mutant);
        }
    }
    round
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::list::Genre;

    const SOURCE: &str = "fn a() {\n    one();\n}\n\nfn b() {\n    two();\n}\n";

    fn body(number: u32, function: &str, replacement: &str) -> Mutant {
        let start = SOURCE.find(function).unwrap();
        let function = start..start + SOURCE[start..].find('}').unwrap() + 1;
        Mutant {
            number,
            name: String::new(),
            file: "f.rs".into(),
            genre: Genre::Body,
            span: function.start + 13..function.end - 2,
            replacement: replacement.into(),
            function: Some(function),
            return_type: String::new(),
        }
    }

    #[test]
    fn a_complaint_is_about_the_change_in_whose_function_it_lies() {
        let (one, two) = (body(1, "fn a", "x;\n    y;"), body(2, "fn b", "z;"));
        let (text, lines) = replaced(SOURCE, &[&two, &one]);
        assert_eq!(text, "fn a() {\n    x;\n    y;\n}\n\nfn b() {\n    z;\n}\n");
        let places: Vec<Place> = lines.into_iter().map(|(lines, number)| ("f.rs".to_owned(), lines, number)).collect();
        for (line, expected) in [(3, vec![1]), (5, vec![]), (7, vec![2])] {
            let complaint = Complaint { file: "f.rs".into(), lines: line..=line, message: String::new() };
            assert_eq!(blamed(&places, &complaint), expected, "line {line}");
        }
    }

    #[test]
    fn a_round_has_one_change_of_each_function() {
        let all = [body(1, "fn a", "x;"), body(2, "fn a", "y;"), body(3, "fn b", "z;")];
        let round: Vec<u32> = one_each(&all.iter().collect::<Vec<_>>()).iter().map(|mutant| mutant.number).collect();
        assert_eq!(round, [1, 3]);
    }
}
