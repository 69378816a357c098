//! What `make bench-bits` and `make bench-exact` run: one program, a word for what it does, one line of JSON for what came
//! of it.

mod cost;
mod float;
mod operators;
mod run;
mod setup;
mod speed;

use std::path::PathBuf;

use clap::{Parser, Subcommand};

pub type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Arguments {
    /// Threads of libtorch.
    #[arg(long, default_value_t = 2, global = true)]
    threads: i32,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Train by an exact program, and evaluate.
    Train(run::Options),
    /// Train the same net on the same rows in floats, from the same first state.
    Float(float::Options),
    /// Exact steps and float steps in turn, and where the exact step's time goes.
    Speed(speed::Options),
    /// Hashing and writing a state, as a part of a segment.
    Cost { setup: PathBuf, folder: PathBuf },
    /// Write what each operator takes and what the interpreter makes of it.
    Record { setup: PathBuf, file: PathBuf },
    /// Compute what was recorded on this machine.
    Check { files: Vec<PathBuf> },
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    tch::set_num_threads(arguments.threads);
    let found = match arguments.what {
        What::Train(options) => run::train(&options)?,
        What::Float(options) => float::train(&options)?,
        What::Speed(options) => speed::measure(&options)?,
        What::Cost { setup, folder } => cost::measure(&setup, &folder)?,
        What::Record { setup, file } => operators::record(&setup, &file)?,
        What::Check { files } => operators::check(&files)?,
    };
    println!("{found}");
    Ok(())
}
