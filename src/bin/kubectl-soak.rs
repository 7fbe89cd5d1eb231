//! The kubectl plugin: `kubectl soak` finds it by its name.

use std::process::ExitCode;

use clap::Parser;
use soak_operator::cli::{self, Arguments};

fn main() -> ExitCode {
    cli::main(Arguments::parse())
}
