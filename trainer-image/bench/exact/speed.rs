//! Exact steps and float steps in turn, in one process: what else the machine does meets both. Medians.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Instant;

use clap::Args;
use freehold_exact::program::List;
use freehold_trainer::exact::machine::Machine;
use serde_json::{Value, json};
use tch::{Device, Kind};

use crate::Failure;
use crate::float::Float;
use crate::run::units;
use crate::setup::Job;

#[derive(Args)]
pub struct Options {
    setup: PathBuf,
    #[arg(long, value_delimiter = ',')]
    units: Vec<String>,
    /// Rounds: in each, so many steps of one kind after the other.
    #[arg(long, default_value_t = 15)]
    rounds: usize,
    #[arg(long, default_value_t = 4)]
    steps: u32,
    /// Lines of the profile.
    #[arg(long, default_value_t = 12)]
    lines: usize,
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times.get(times.len() / 2).copied().unwrap_or(f64::NAN)
}

pub fn measure(options: &Options) -> Result<Value, Failure> {
    let job = Job::read(&options.setup)?;
    let machine = Machine::new(job.program.clone(), &job.ranges, &units(&options.units)?, Device::Cpu)?;
    let data = job.data.iter().map(|tensor| machine.load(tensor)).collect::<Result<Vec<_>, _>>()?;
    let mut state = machine.run(List::Init, &[], &data, &job.context(0))?;
    let mut floats = [Float::new(&job, Kind::Float)?, Float::new(&job, Kind::Double)?];
    let mut times: [Vec<f64>; 3] = Default::default();
    // The first round is not counted.
    for round in 0..=options.rounds {
        let mut timed = |which: usize, work: &mut dyn FnMut(u32) -> Result<(), Failure>| -> Result<(), Failure> {
            let began = Instant::now();
            (0..options.steps).try_for_each(work)?;
            if round > 0 {
                times[which].push(began.elapsed().as_secs_f64() * 1_000.0 / f64::from(options.steps));
            }
            Ok(())
        };
        timed(0, &mut |step| {
            state = machine.run(List::Step, &state, &data, &job.context(step))?;
            Ok(())
        })?;
        for (which, float) in floats.iter_mut().enumerate() {
            timed(1 + which, &mut |step| float.step(step))?;
        }
    }
    let least = |times: &Vec<f64>| times.iter().copied().fold(f64::INFINITY, f64::min);
    let [exact_least, float32_least, float64_least] = [least(&times[0]), least(&times[1]), least(&times[2])];
    let [exact, float32, float64] = times.map(median);
    let mut by = BTreeMap::new();
    machine.products(List::Step).iter().for_each(|(_, unit)| *by.entry(unit.name()).or_insert(0) += 1);
    Ok(json!({
        "parameters": job.parameters(), "operators": job.program.step.nodes.len(), "products": by,
        "milliseconds": { "exact": exact, "float32": float32, "float64": float64 },
        "least": { "exact": exact_least, "float32": float32_least, "float64": float64_least },
        "ratio": { "float32": exact / float32, "float64": exact / float64 },
        "profile": profile(&job, &machine, &state, &data, options.lines)?,
    }))
}

/// Milliseconds of a step by operator and shape, the longest first, and what part of the whole they are.
fn profile(
    job: &Job,
    machine: &Machine,
    state: &[tch::Tensor],
    data: &[tch::Tensor],
    lines: usize,
) -> Result<Value, Failure> {
    const STEPS: u32 = 10;
    let nodes = &job.program.step.nodes;
    // The least time of each piece of work over some steps: what else the machine did in between is no part of it.
    let mut least: BTreeMap<usize, ((String, String), f64)> = BTreeMap::new();
    for step in 0..STEPS {
        let mut last = Instant::now();
        machine.watched(List::Step, state, data, &job.context(step), &mut |done| {
            let time = last.elapsed().as_secs_f64() * 1_000.0;
            let largest = done.iter().map(|at| &nodes[*at].shape).max_by_key(|shape| shape.iter().product::<usize>());
            let name = match done {
                [one] => nodes[*one].op.name().into(),
                _ => format!("{} row by row", done.len()),
            };
            let shape = format!("{:?}", largest.into_iter().flatten().collect::<Vec<_>>());
            let known = least.entry(done.first().copied().unwrap_or(0)).or_insert(((name, shape), time));
            known.1 = known.1.min(time);
            last = Instant::now();
        })?;
    }
    let mut spent: BTreeMap<(String, String), (f64, u32)> = BTreeMap::new();
    for (what, time) in least.into_values() {
        let entry = spent.entry(what).or_default();
        *entry = (entry.0 + time, entry.1 + 1);
    }
    let all: f64 = spent.values().map(|(time, _)| time).sum();
    let mut operators: BTreeMap<&str, f64> = BTreeMap::new();
    for ((name, _), (time, _)) in &spent {
        *operators.entry(name.split_once(' ').map_or(name.as_str(), |(_, kind)| kind)).or_default() += time;
    }
    let mut operators: Vec<_> = operators.into_iter().collect();
    operators.sort_by(|one, other| other.1.total_cmp(&one.1));
    let mut longest: Vec<_> = spent.iter().collect();
    longest.sort_by(|one, other| other.1.0.total_cmp(&one.1.0));
    let rows = longest.iter().take(lines).map(|((name, shape), (time, times))| {
        json!({ "operator": name, "shape": shape, "times": times, "milliseconds": time, "share": time / all })
    });
    let operators = operators.iter().map(|(name, time)| json!({ "operator": name, "share": time / all }));
    Ok(json!({ "milliseconds": all, "rows": rows.collect::<Vec<_>>(), "operators": operators.collect::<Vec<_>>() }))
}
