//! The operator's process.

use std::process::ExitCode;

use clap::Parser;
use soak_operator::operator::{self, Options};

fn main() -> ExitCode {
    operator::main(Options::parse())
}
