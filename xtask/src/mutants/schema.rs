//! All changes in one program, each behind a switch.
//!
//! "Mutant schemata" (Untch, Offutt, Harrold: Mutation analysis using mutant schemata, ISSTA 1993): instead of one
//! program for each change, one is compiled in which each changed place asks which change is the active one. Operands
//! stay where they are and are evaluated once, so changes within changes compose. An operator is replaced between its own
//! operands: of `a && b && c` comes `(a || b) && c`, where the changed text would read `a || (b && c)`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    ops::{Range, RangeInclusive},
};

use anyhow::{Context, Result};
use syn::{
    BinOp, Expr,
    spanned::Spanned,
    visit::{self, Visit},
};

use super::list::{Genre, Mutant};

/// A file with its changes behind switches.
pub struct Schema {
    pub text: String,
    /// The changes that are in it.
    pub inside: BTreeSet<u32>,
    /// Lines of the text, from 1 on, that hold one change each.
    lines: BTreeMap<usize, Vec<u32>>,
    /// Lines that a rewritten place takes, and its changes.
    places: Vec<(RangeInclusive<usize>, Vec<u32>)>,
}

impl Schema {
    /// The changes that an error of the compiler in these lines is about: those on the very line, or those of the
    /// innermost place around.
    pub fn blamed(&self, lines: &RangeInclusive<usize>) -> Vec<u32> {
        if lines.start() == lines.end()
            && let Some(numbers) = self.lines.get(lines.start())
        {
            return numbers.clone();
        }
        let around = |place: &RangeInclusive<usize>| place.start() <= lines.start() && lines.end() <= place.end();
        let innermost =
            self.places.iter().filter(|(place, _)| around(place)).min_by_key(|(place, _)| place.clone().count());
        innermost.map(|(_, numbers)| numbers.clone()).unwrap_or_default()
    }
}

/// Puts the changes of one file behind switches, but those in `without` and those that can't be put so: in constants
/// (a switch is no constant), in chains of `let`, and of functions whose type is what the body has.
///
/// Errors: the source is not Rust.
pub fn rewrite(source: &str, mutants: &[&Mutant], without: &BTreeSet<u32>) -> Result<Schema> {
    let file = syn::parse_file(source).context("a file of the engine can't be parsed")?;
    let mut places = Places { source, at: BTreeMap::new(), nodes: Vec::new() };
    for mutant in mutants.iter().filter(|mutant| !without.contains(&mutant.number)) {
        places.at.entry((mutant.genre, mutant.span.start)).or_default().push(mutant);
    }
    places.bodies();
    places.visit_file(&file);
    let mut nodes = places.nodes;
    // What is around comes first; of places with the same bytes, the one of the outer kind.
    nodes.sort_by_key(|node| (node.range.start, std::cmp::Reverse(node.range.end), node.rank));
    let mut written = Written { source, nodes: &nodes, text: String::new(), places: Vec::new() };
    written.write(0..source.len(), 0..nodes.len());
    let (text, places) = (written.text, written.places);
    let line_of = |offset: usize| text[..offset].matches('\n').count() + 1;
    let places =
        places.into_iter().map(|(range, numbers)| (line_of(range.start)..=line_of(range.end), numbers)).collect();
    let mut lines: BTreeMap<usize, Vec<u32>> = BTreeMap::new();
    for (line, words) in (1..).zip(text.lines()) {
        for number in words.split(SWITCH).skip(1).filter_map(|rest| rest.split(')').next()?.parse().ok()) {
            lines.entry(line).or_default().push(number);
        }
    }
    let inside = nodes.iter().flat_map(|node| node.numbers.iter().copied()).collect();
    Ok(Schema { text, inside, lines, places })
}

/// How a place asks for a change, up to its number.
const SWITCH: &str = "crate::mutant::active(";

/// A place that is written anew.
struct Node {
    range: Range<usize>,
    /// Which of two with the same bytes is around the other: the lower.
    rank: u8,
    pieces: Vec<Piece>,
    numbers: Vec<u32>,
}

enum Piece {
    Text(String),
    /// What stands there in the source, with its own places written anew.
    Source(Range<usize>),
}

fn text(words: impl Into<String>) -> Piece {
    Piece::Text(words.into())
}

struct Written<'a> {
    source: &'a str,
    nodes: &'a [Node],
    text: String,
    places: Vec<(Range<usize>, Vec<u32>)>,
}

impl Written<'_> {
    /// Writes a part of the source, in which of these nodes only those count that lie within it.
    fn write(&mut self, range: Range<usize>, within: Range<usize>) {
        let mut at = range.start;
        for index in within.clone() {
            let node = &self.nodes[index];
            if node.range.start < at || node.range.end > range.end {
                continue;
            }
            self.text.push_str(&self.source[at..node.range.start]);
            let start = self.text.len();
            for piece in &node.pieces {
                match piece {
                    Piece::Text(words) => self.text.push_str(words),
                    Piece::Source(part) => self.write(part.clone(), index + 1..within.end),
                }
            }
            self.places.push((start..self.text.len(), node.numbers.clone()));
            at = node.range.end;
        }
        self.text.push_str(&self.source[at..range.end]);
    }
}

/// Finds the places of changes in a parsed file.
struct Places<'a> {
    source: &'a str,
    at: BTreeMap<(Genre, usize), Vec<&'a Mutant>>,
    nodes: Vec<Node>,
}

impl<'a> Places<'a> {
    fn take(&mut self, genre: Genre, span: proc_macro2::Span) -> Vec<&'a Mutant> {
        self.at.remove(&(genre, span.byte_range().start)).unwrap_or_default()
    }

    fn add(&mut self, rank: u8, range: Range<usize>, mutants: &[&Mutant], pieces: Vec<Piece>) {
        let numbers = mutants.iter().map(|mutant| mutant.number).collect();
        self.nodes.push(Node { range, rank, pieces, numbers });
    }

    /// A function returns the value before it does anything.
    fn bodies(&mut self) {
        let bodies: Vec<_> = self.at.extract_if((Genre::Body, 0)..=(Genre::Body, usize::MAX), |_, _| true).collect();
        for (_, mutants) in bodies {
            let Some(range) = mutants.first().map(|mutant| mutant.span.clone()) else { continue };
            let fits: Vec<_> = mutants.into_iter().filter(|mutant| !mutant.return_type.contains("impl ")).collect();
            if fits.is_empty() {
                continue;
            }
            let values = alternatives(&fits, |value| format!("return {value};"));
            let pieces = vec![text(values + "\n{}\n"), Piece::Source(range.clone())];
            self.add(0, range, &fits, pieces);
        }
    }

    /// `a && b` is `if a { b } else { a }`, and `a || b` is that with the branches exchanged.
    fn lazy(&mut self, expr: &syn::ExprBinary, mutants: &[&Mutant]) {
        let [mutant] = mutants else { return };
        if has_let(&expr.left) || has_let(&expr.right) {
            return;
        }
        let not = if matches!(expr.op, BinOp::And(_)) { "!" } else { "" };
        let pieces = vec![
            text("({ let __l: bool = "),
            source(&expr.left),
            text(format!(";\nif __l == {not}{SWITCH}{}) {{\n", mutant.number)),
            source(&expr.right),
            text("\n} else { __l } })"),
        ];
        self.add(2, range(expr), mutants, pieces);
    }

    fn compared(&mut self, expr: &syn::ExprBinary, mutants: &[&Mutant]) {
        let mut pieces = vec![text("(match (&("), source(&expr.left), text("), &("), source(&expr.right)];
        let operator = &self.source[expr.op.span().byte_range()];
        let others = alternatives(mutants, |operator| format!("*__l {operator} *__r"));
        pieces.push(text(format!(")) {{ (__l, __r) => \n{others}\n{{ *__l {operator} *__r }} }})")));
        self.add(2, range(expr), mutants, pieces);
    }

    fn computed(&mut self, expr: &syn::ExprBinary, mutants: &[&Mutant]) {
        let mut pieces = vec![text("(match ("), source(&expr.left), text(", "), source(&expr.right)];
        let operator = &self.source[expr.op.span().byte_range()];
        let others = alternatives(mutants, |operator| format!("__l {operator} __r"));
        pieces.push(text(format!(") {{ (__l, __r) => \n{others}\n{{ __l {operator} __r }} }})")));
        self.add(2, range(expr), mutants, pieces);
    }

    /// The right side is evaluated first, as it is in `a += b` of numbers.
    fn assigned(&mut self, expr: &syn::ExprBinary, mutants: &[&Mutant]) {
        let mut pieces =
            vec![text("({ let __r = "), source(&expr.right), text("; let __l = &mut ("), source(&expr.left)];
        let operator = &self.source[expr.op.span().byte_range()];
        let others = alternatives(mutants, |operator| format!("*__l {operator} __r"));
        pieces.push(text(format!(");\n{others}\n{{ *__l {operator} __r }} }})")));
        self.add(2, range(expr), mutants, pieces);
    }
}

impl<'ast> Visit<'ast> for Places<'_> {
    fn visit_expr_binary(&mut self, expr: &'ast syn::ExprBinary) {
        let mutants = self.take(Genre::Binary, expr.op.span());
        if !mutants.is_empty() {
            match expr.op {
                BinOp::And(_) | BinOp::Or(_) => self.lazy(expr, &mutants),
                BinOp::Eq(_) | BinOp::Ne(_) | BinOp::Lt(_) | BinOp::Le(_) | BinOp::Gt(_) | BinOp::Ge(_) => {
                    self.compared(expr, &mutants);
                }
                _ if self.source[expr.op.span().byte_range()].ends_with('=') => self.assigned(expr, &mutants),
                _ => self.computed(expr, &mutants),
            }
        }
        visit::visit_expr_binary(self, expr);
    }

    fn visit_expr_unary(&mut self, expr: &'ast syn::ExprUnary) {
        let mutants = self.take(Genre::Unary, expr.op.span());
        if !mutants.is_empty() {
            let operator = &self.source[expr.op.span().byte_range()];
            let others = alternatives(&mutants, |_| "__v".into());
            let rest = text(format!(") {{ __v => \n{others}\n{{ {operator}__v }} }})"));
            self.add(2, range(expr), &mutants, vec![text("(match ("), source(&expr.expr), rest]);
        }
        visit::visit_expr_unary(self, expr);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let start = arm.pat.span();
        let gone = self.take(Genre::Arm, start);
        let guard = arm.guard.as_ref().map(|(_, guard)| &**guard);
        let others = guard.map(|guard| self.take(Genre::Guard, guard.span())).unwrap_or_default();
        let others = if guard.is_some_and(has_let) { Vec::new() } else { others };
        let mut words = String::new();
        for mutant in &gone {
            let _ = write!(words, "\n!{SWITCH}{}) && ", mutant.number);
        }
        if let Some(guard) = guard {
            for mutant in &others {
                let (not, or) = if mutant.replacement == "true" { ("", "||") } else { ("!", "&&") };
                let _ = write!(words, "(\n{not}{SWITCH}{}) {or} ", mutant.number);
            }
            let (open, close) = if has_let(guard) { ("\n", "") } else { ("\n(", ")") };
            let pieces = vec![
                text(format!("{words}{open}")),
                source(guard),
                text(format!("{close}{}\n", ")".repeat(others.len()))),
            ];
            let all: Vec<_> = gone.iter().chain(&others).copied().collect();
            if !all.is_empty() {
                self.add(1, range(guard), &all, pieces);
            }
        } else if !gone.is_empty() {
            let end = start.byte_range().end;
            self.add(1, end..end, &gone, vec![text(format!(" if {words}true\n"))]);
        }
        visit::visit_arm(self, arm);
    }

    /// A field that is left out has the base's value. The base is named once more, which only a call without arguments
    /// bears.
    fn visit_expr_struct(&mut self, expr: &'ast syn::ExprStruct) {
        if let Some(base) = expr.rest.as_deref().filter(|base| matches!(base, Expr::Call(call) if call.args.is_empty()))
        {
            let base = &self.source[range(base)];
            for field in &expr.fields {
                let mutants = self.take(Genre::Field, field.span());
                if mutants.is_empty() {
                    continue;
                }
                let name = &self.source[field.member.span().byte_range()];
                let named = if field.colon_token.is_none() { format!("{name}: ") } else { String::new() };
                let others = alternatives(&mutants, |_| format!("({base}).{name}"));
                let pieces = vec![text(format!("{named}(\n{others}\n{{ ")), source(&field.expr), text(" })")];
                self.add(1, range(&field.expr), &mutants, pieces);
            }
        }
        visit::visit_expr_struct(self, expr);
    }

    // A switch is no constant.
    fn visit_item_const(&mut self, _: &'ast syn::ItemConst) {}
    fn visit_impl_item_const(&mut self, _: &'ast syn::ImplItemConst) {}
    fn visit_item_static(&mut self, _: &'ast syn::ItemStatic) {}
    fn visit_type(&mut self, _: &'ast syn::Type) {}
    fn visit_item_fn(&mut self, function: &'ast syn::ItemFn) {
        if function.sig.constness.is_none() {
            visit::visit_item_fn(self, function);
        }
    }
    fn visit_impl_item_fn(&mut self, function: &'ast syn::ImplItemFn) {
        if function.sig.constness.is_none() {
            visit::visit_impl_item_fn(self, function);
        }
    }
}

/// One line for each change, so that an error of the compiler tells which it is about.
fn alternatives(mutants: &[&Mutant], value: impl Fn(&str) -> String) -> String {
    mutants.iter().fold(String::new(), |mut text, mutant| {
        // A value that takes several lines would not.
        let value = value(&mutant.replacement).replace('\n', " ");
        let _ = write!(text, "\nif {SWITCH}{}) {{ {value} }} else", mutant.number);
        text
    })
}

fn range(of: &impl Spanned) -> Range<usize> {
    of.span().byte_range()
}

fn source(of: &Expr) -> Piece {
    Piece::Source(range(of))
}

/// Whether it is a chain with `let`, which no other expression can hold.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(expr) => matches!(expr.op, BinOp::And(_)) && (has_let(&expr.left) || has_let(&expr.right)),
        _ => false,
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
