//! `freehold-trainer`: trains, or predicts, as the task says, and exits with a
//! code that tells whether a retry can help.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use clap::error::ErrorKind;
use clap::{Parser, Subcommand};
use freehold_trainer::device::{self, Choice};
use freehold_trainer::exact::plan::Plan;
use freehold_trainer::exact::replay::{Request, replay};
use freehold_trainer::exact::{inspect, trace};
use freehold_trainer::task::{Kind, Paths, Task};
use freehold_trainer::train::{Env, train};
use freehold_trainer::{Error, Result, infer};
use jiff::Timestamp;
use signal_hook::consts::{SIGINT, SIGTERM};

/// Trains networks and predicts with them, on libtorch.
///
/// Exit codes: 0 done, 1 a replay came to another state than the trace says, 64 bad task, 65 bad data, 75 interrupted
/// (run it again; training goes on from a checkpoint).
#[derive(Parser)]
#[command(name = "freehold-trainer", version)]
struct Options {
    /// What to do; without it, what the task's kind says.
    #[command(subcommand)]
    command: Option<Command>,
    /// The task, a JSON file.
    #[arg(long, global = true, default_value = "/freehold/task.json")]
    task: PathBuf,
    /// Folder of the inputs: dataset and init, or model and input.
    #[arg(long = "in", global = true, default_value = "/freehold/in")]
    inputs: PathBuf,
    /// Folder of the outputs.
    #[arg(long = "out", global = true, default_value = "/freehold/out")]
    outputs: PathBuf,
    /// Folder of checkpoints; the newest whole one is resumed from.
    #[arg(long, global = true, default_value = "/freehold/checkpoints")]
    checkpoints: PathBuf,
    /// File that lines of progress are added to.
    #[arg(long, global = true, default_value = "/freehold/progress.jsonl")]
    progress: PathBuf,
    /// Where to compute.
    #[arg(long, global = true, value_enum, default_value_t)]
    device: Choice,
}

#[derive(Clone, PartialEq, Subcommand)]
enum Command {
    /// Train a model from the input `dataset`.
    Train,
    /// Predict the input `input` with the input `model`.
    Infer,
    /// Compute a segment of an exact run again, from the checkpoint before it, and compare it with the run's trace.
    Replay {
        /// Which segment, from 1.
        #[arg(long)]
        segment: usize,
        /// The run's trace; without it, trace.json of the outputs.
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Compute by the definition of each operator rather than by libtorch: slow, and the same on every machine.
        #[arg(long)]
        interpreter: bool,
    },
    /// Print what the program of an exact recipe is.
    Program {
        #[command(subcommand)]
        what: What,
    },
}

#[derive(Clone, Copy, PartialEq, Subcommand)]
enum What {
    /// Its identity, what it declares, and all operators with shapes and widths.
    Show,
    /// The operators that come nearest to 52 bits, and what would fit.
    Range,
    /// Time of a step by operators, and the units that compute products.
    Bench {
        /// Steps that are timed.
        #[arg(long, default_value_t = 5)]
        steps: u32,
    },
}

fn main() -> ExitCode {
    let options = match Options::try_parse() {
        Ok(options) => options,
        Err(error) => {
            let asked = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
            // Nothing is left to do if even this cannot be printed.
            let _ = error.print();
            return if asked { ExitCode::SUCCESS } else { ExitCode::from(64) };
        }
    };
    match run(options) {
        Ok(sentence) => {
            say(sentence);
            ExitCode::SUCCESS
        }
        Err(error) => {
            // Names of a stranger's columns may be long.
            say(error.to_string().chars().take(2048).collect());
            ExitCode::from(error.exit_code())
        }
    }
}

fn say(sentence: String) {
    eprintln!("freehold-trainer: {sentence}");
}

fn run(options: Options) -> Result<String> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        signal_hook::flag::register(signal, Arc::clone(&stop))
            .map_err(|error| Error::Unavailable(format!("cannot listen for signal {signal}: {error}")))?;
    }
    let task = Task::read(&options.task)?;
    device::set_threads(task.resources);
    let paths = Paths {
        inputs: options.inputs,
        outputs: options.outputs,
        checkpoints: options.checkpoints,
        progress: options.progress,
    };
    let command = command(options.command, task.kind)?;
    let mut say = say;
    let mut env = Env {
        device: device::choose(options.device, task.resources, &mut say)?,
        stop: &stop,
        now: &Timestamp::now,
        say: &mut say,
    };
    match command {
        Command::Train => train(&task, &paths, &mut env).map(|summary| summary.sentence()),
        Command::Infer => infer::infer(&task, &paths, &mut env).map(|summary| summary.sentence()),
        Command::Replay { segment, trace, interpreter } => {
            let trace = trace.unwrap_or_else(|| paths.outputs.join(trace::FILE));
            replay(&task, &paths, &Request { segment, trace, by_interpreter: interpreter }, &mut env)
        }
        Command::Program { what } => {
            let plan = Plan::new(&task, task.recipe()?, &paths, &env)?;
            let text = match what {
                What::Show => inspect::show(&plan),
                What::Range => inspect::range(&plan),
                What::Bench { steps } => inspect::bench(&plan, steps, &mut env)?,
            };
            print(&text)?;
            Ok(format!("program {}", plan.program_id))
        }
    }
}

fn print(text: &str) -> Result<()> {
    std::io::stdout().write_all(text.as_bytes()).map_err(Error::io("write", Path::new("standard output")))
}

/// What to do: what is asked for, if it is of the task's kind.
fn command(given: Option<Command>, kind: Kind) -> Result<Command> {
    let (usual, name) = match kind {
        Kind::TrainingTask => (Command::Train, "TrainingTask"),
        Kind::InferenceTask => (Command::Infer, "InferenceTask"),
    };
    let given = given.unwrap_or_else(|| usual.clone());
    if (given == Command::Infer) == (usual == Command::Infer) {
        return Ok(given);
    }
    Err(Error::Usage(format!("the task is of kind {name}: call another subcommand, or none")))
}
