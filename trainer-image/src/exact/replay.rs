//! Computes a segment of a run again, from the state before it, and compares what comes out with the run's trace.

use std::path::PathBuf;
use std::sync::atomic::Ordering;

use freehold_exact::program::List;

use super::checkpoint::{Checkpoint, Store};
use super::engine::{Engine, Interpreter, Libtorch};
use super::plan::Plan;
use super::trace::TraceFile;
use crate::error::{Error, Result};
use crate::task::{Paths, Task};
use crate::train::Env;

pub struct Request {
    /// From 1: the segment whose end is the trace's state of this number.
    pub segment: usize,
    pub trace: PathBuf,
    /// Whether the definition computes, rather than libtorch.
    pub by_interpreter: bool,
}

/// A sentence that says that the segment is what the trace says; else an error says which root is not.
pub fn replay(task: &Task, paths: &Paths, request: &Request, env: &mut Env) -> Result<String> {
    let plan = Plan::new(task, task.recipe()?, paths, env)?;
    let trace = TraceFile::read(&request.trace, &plan)?;
    let segments = plan.segments();
    if !(1..=segments).contains(&request.segment) {
        let asked = request.segment;
        return Err(Error::Usage(format!("--segment is {asked}: the run has the segments 1 to {segments}")));
    }
    if request.by_interpreter {
        compute(&Interpreter(&plan), &plan, &trace, request.segment, paths, env)
    } else {
        let engine = Libtorch::start(&plan, env.device, env.say)?;
        compute(&engine, &plan, &trace, request.segment, paths, env)
    }
}

fn compute<E: Engine>(
    engine: &E,
    plan: &Plan,
    trace: &TraceFile,
    segment: usize,
    paths: &Paths,
    env: &mut Env,
) -> Result<String> {
    let (mut ended, mut state) = begin(engine, plan, trace, segment, paths, env)?;
    loop {
        let (from, to) = (plan.end_of(ended), plan.end_of(ended + 1));
        for step in from..to {
            if env.stop.load(Ordering::Relaxed) {
                return Err(Error::Interrupted(format!("stopped by SIGTERM at step {step}")));
            }
            state = engine.run(List::Step, &state, &plan.context(step))?;
        }
        ended += 1;
        let (found, expected) = (plan.state_root(to, &engine.store(&state)?), trace.states[ended]);
        if found != expected {
            return Err(Error::Differs(format!(
                "segment {ended}, steps {from} to {to}: the trace ends it with the stateRoot {expected}, {} with {found}",
                engine.name()
            )));
        }
        let sentence = format!("segment {ended}, steps {from} to {to}: stateRoot {found} is that of the trace");
        if ended == segment {
            return Ok(format!("{sentence}, computed by {}", engine.name()));
        }
        (env.say)(sentence);
    }
}

/// The nearest state before the segment that there is a checkpoint of, else the first: segments that have ended, and it.
fn begin<E: Engine>(
    engine: &E,
    plan: &Plan,
    trace: &TraceFile,
    segment: usize,
    paths: &Paths,
    env: &mut Env,
) -> Result<(usize, E::Held)> {
    let mut store = Store::open(&paths.checkpoints, plan, env.say)?;
    let ends_one = |step: u32| step > 0 && plan.end_of(plan.ended(step)) == step && plan.ended(step) < segment;
    let (ended, state, root, whose) = match store.newest(plan, ends_one, env.say) {
        Some(Checkpoint { step, state, root, .. }) => {
            (env.say)(format!("begins with the checkpoint at step {step}"));
            (plan.ended(step), engine.load(state)?, root, "the checkpoint has")
        }
        None => {
            (env.say)("begins with the first state".into());
            let state = engine.run(List::Init, &engine.load(Vec::new())?, &plan.context(0))?;
            let root = plan.state_root(0, &engine.store(&state)?);
            (0, state, root, "this program, data and seed have")
        }
    };
    let expected = trace.states[ended];
    if root == expected {
        return Ok((ended, state));
    }
    let step = plan.end_of(ended);
    Err(Error::Differs(format!(
        "before step {step}, the state that segment {} begins with: the trace says the stateRoot {expected}, {whose} {root}",
        ended + 1
    )))
}
