//! What being checkable costs: taking a state off the device, hashing it, writing it down.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use freehold_exact::program::List;
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::Units;
use serde_json::{Value, json};
use tch::Device;

use crate::Failure;
use crate::run::{root, write_state};
use crate::setup::Job;

const TIMES: usize = 5;

pub fn measure(setup: &Path, folder: &Path) -> Result<Value, Failure> {
    let job = Job::read(setup)?;
    let machine = Machine::new(job.program.clone(), &job.ranges, &Units::probed(Device::Cpu), Device::Cpu)?;
    let data = job.data.iter().map(|tensor| machine.load(tensor)).collect::<Result<Vec<_>, _>>()?;
    let first = machine.run(List::Init, &[], &data, &job.context(0))?;
    let state = machine.run(List::Step, &first, &data, &job.context(0))?;
    let path = folder.join("state");
    let mut times = [f64::INFINITY; 3];
    for _ in 0..TIMES {
        let mut last = Instant::now();
        let mut lap = |which: usize| {
            times[which] = times[which].min(last.elapsed().as_secs_f64() * 1_000.0);
            last = Instant::now();
        };
        let stored = state.iter().map(|tensor| machine.store(tensor).map(Arc::new)).collect::<Result<Vec<_>, _>>()?;
        lap(0);
        let _ = root(&job, 1, &stored);
        lap(1);
        write_state(&job, 1, &stored, &path)?;
        lap(2);
    }
    let bytes = std::fs::metadata(&path)?.len();
    std::fs::remove_file(&path)?;
    let [taken, hashed, written] = times;
    Ok(json!({
        "parameters": job.parameters(), "bytes": bytes,
        "milliseconds": { "taken": taken, "hashed": hashed, "written": written },
        "shareOfMinute": (taken + hashed + written) / 60_000.0,
    }))
}
