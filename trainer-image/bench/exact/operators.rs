//! Each operator by itself: what it takes and what the interpreter makes of it is written down on one machine, and computed
//! from that on another.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use freehold_exact::build::{Builder, Id, declare};
use freehold_exact::draw;
use freehold_exact::element::Context;
use freehold_exact::interpret::{self, Inputs};
use freehold_exact::op::{Op, Window};
use freehold_exact::program::{List, Program};
use freehold_exact::tensor::{LIMIT, Tensor, count};
use freehold_trainer::exact::machine::Machine;
use freehold_trainer::exact::units::Units;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tch::Device;

use crate::Failure;
use crate::setup::Job;

/// The word for the program that has each operator at the ends of its range.
const CORNERS: &str = "corners";
const STEP: u32 = 1;

/// The file's first line; all values of all operators follow, list by list, little-endian.
#[derive(Serialize, Deserialize)]
struct Header {
    setup: PathBuf,
    program: String,
}

/// A program with what it is computed from.
struct Given {
    program: Program,
    data: Vec<Arc<Tensor>>,
    context: Context,
    lists: Vec<List>,
}

fn given(setup: &Path) -> Result<Given, Failure> {
    if setup == Path::new(CORNERS) {
        return corners();
    }
    let job = Job::read(setup)?;
    let context = job.context(STEP);
    Ok(Given { program: job.program, data: job.data, context, lists: vec![List::Init, List::Step, List::Evaluate] })
}

pub fn record(setup: &Path, file: &Path) -> Result<Value, Failure> {
    let Given { program, data, context, lists } = given(setup)?;
    let run = |list, state: &[Arc<Tensor>], step| {
        interpret::run(&program, list, &Inputs { state, data: &data, context: Context { step, ..context } })
    };
    let state = match lists.contains(&List::Step) {
        true => run(List::Step, &run(List::Init, &[], 0)?, 0)?,
        false => vec![],
    };
    let mut out = BufWriter::new(std::fs::File::create(file)?);
    let header = Header { setup: setup.into(), program: program.id().to_string() };
    writeln!(out, "{}", serde_json::to_string(&header)?)?;
    let mut elements = 0;
    for list in lists {
        let inputs = Inputs { state: &state, data: &data, context };
        for value in interpret::trace(&program, list, &inputs)? {
            elements += value.values().len();
            value.values().iter().try_for_each(|value| out.write_all(&value.to_le_bytes()))?;
        }
    }
    out.flush()?;
    Ok(json!({ "program": program.id(), "elements": elements }))
}

pub fn check(files: &[PathBuf]) -> Result<Value, Failure> {
    let units = Units::probed(Device::Cpu);
    let (mut operators, mut products) = (BTreeMap::new(), BTreeMap::new());
    for file in files {
        let mut input = BufReader::new(std::fs::File::open(file)?);
        let mut line = String::new();
        input.read_line(&mut line)?;
        let header: Header = serde_json::from_str(&line)?;
        let Given { program, context, lists, .. } = given(&header.setup)?;
        if program.id().to_string() != header.program {
            return Err(format!("{}: was recorded of another program", file.display()).into());
        }
        let ranges = program.check()?;
        let machine = Machine::new(program.clone(), &ranges, &units, Device::Cpu)?;
        for list in lists {
            let nodes = &program.list(list).nodes;
            let mut known = Vec::with_capacity(nodes.len());
            for node in nodes {
                let mut word = [0; 8];
                let read = |_| input.read_exact(&mut word).map(|()| i64::from_le_bytes(word));
                let values = (0..count(&node.shape)).map(read).collect::<Result<Vec<_>, _>>()?;
                known.push(Tensor::new(node.shape.clone(), values)?);
            }
            for (at, node) in nodes.iter().enumerate() {
                let operand = |of: usize| machine.load(&known[of]);
                let Some(found) = machine.operator(list, at, &operand, &context)? else { continue };
                if machine.store(&found)?.values() != known[at].values() {
                    let (name, shape) = (node.op.name(), &node.shape);
                    let file = file.display();
                    return Err(format!("{file}: operator {at} (`{name}`, shape {shape:?}) has other values").into());
                }
                let entry: &mut (u64, u64) = operators.entry(node.op.name()).or_default();
                *entry = (entry.0 + 1, entry.1 + count(&node.shape) as u64);
            }
            machine.products(list).iter().for_each(|(_, unit)| *products.entry(unit.name()).or_insert(0_u64) += 1);
        }
    }
    Ok(json!({ "operators": operators, "products": products, "units": format!("{:?}", units.admitted()) }))
}

/// Every operator at the ends of what it may be given.
fn corners() -> Result<Given, Failure> {
    const TOP: i64 = LIMIT - 1;
    let all: [(&[usize], i64, i64); 10] = [
        (&[6, 40], -TOP / 2, TOP / 2),
        (&[6, 40], -TOP / 2, TOP / 2),
        (&[6, 40], -(1 << 25), 1 << 25),
        (&[6, 40], 1, 1 << 40),
        (&[6, 40], -127, 127),
        (&[9, 40], -127, 127),
        (&[6, 40], 0, 39),
        (&[2, 3, 8, 8], -(1 << 40), 1 << 40),
        (&[6, 40], 0, TOP),
        (&[6, 40], 0, 62),
    ];
    let seed = [9; 32];
    let context = Context { seed: seed.into(), step: STEP };
    let data = all.iter().enumerate().map(|(stream, (shape, low, high))| {
        let span = high.abs_diff(*low) + 1;
        let value = |at: usize| match at % 4 {
            0 => *low,
            1 => *high,
            _ => low + draw::row(&context.seed, stream as u32, at as u64, span),
        };
        Tensor::new(*shape, (0..count(shape)).map(value).collect()).map(Arc::new)
    });
    let data = data.collect::<Result<Vec<_>, _>>()?;
    let declared = all.iter().map(|(shape, low, high)| declare("x", shape, *low, *high)).collect();
    let program = Program { steps: 9, data: declared, ..Program::default() };
    let mut builder = Builder::new(program, List::Evaluate);
    let x: Vec<Id> = (0..all.len()).map(|index| builder.data(index)).collect::<Result<_, _>>()?;
    let table = builder.constant("table", Tensor::row((0..40).map(|at| (at - 20) * (TOP / 20)).collect()))?;
    let exponents = builder.push(Op::Rowexp, &[x[0]])?;
    let window = Window { kernel: [3, 3], stride: 1, padding: 1 };
    let columns = builder.push(Op::Im2col(window), &[x[7]])?;
    let same = [
        (Op::Add, vec![x[0], x[1]]),
        (Op::Sub, vec![x[0], x[1]]),
        (Op::Mul, vec![x[2], x[2]]),
        (Op::Mul, vec![x[2], x[4]]),
        (Op::Clamp { low: -5, high: TOP / 3 }, vec![x[0]]),
        (Op::Less, vec![x[0], x[1]]),
        (Op::Equal, vec![x[4], x[6]]),
        (Op::Select, vec![x[4], x[0], x[1]]),
        (Op::Relu, vec![x[0]]),
        (Op::Sign, vec![x[0]]),
        (Op::Shift { by: 1 }, vec![x[0]]),
        (Op::Shift { by: 40 }, vec![x[0]]),
        (Op::Shift { by: 62 }, vec![x[0]]),
        (Op::Shift { by: -11 }, vec![x[3]]),
        (Op::ShiftBy, vec![x[0], x[9]]),
        (Op::Div, vec![x[2], x[3]]),
        (Op::Isqrt, vec![x[8]]),
        (Op::Max, vec![x[0]]),
        (Op::Sum, vec![x[2]]),
        (Op::Argmax, vec![x[0]]),
        (Op::Quant, vec![x[0], exponents]),
        (Op::Table, vec![table, x[6]]),
        (Op::Matmul, vec![x[4], x[5]]),
        (Op::Matmul, vec![x[2], x[4]]),
        (Op::Transpose { order: vec![3, 0, 2, 1] }, vec![x[7]]),
        (Op::Step, vec![]),
    ];
    for (op, of) in same {
        builder.push(op, &of)?;
    }
    let shaped: [(Op, Vec<Id>, &[usize]); 9] = [
        (Op::Reshape, vec![x[0]], &[8, 30]),
        (Op::Broadcast, vec![exponents], &[3, 6, 40]),
        (Op::Slice { dimension: 1, start: 7 }, vec![x[0]], &[6, 20]),
        (Op::Pad { dimension: 0, before: 2 }, vec![x[0]], &[11, 40]),
        (Op::Pad { dimension: 1, before: 1 }, vec![x[0]], &[6, 41]),
        (Op::Col2im(window), vec![columns], &[2, 3, 8, 8]),
        (Op::Sample { rows: 1_000_003 }, vec![], &[64]),
        (Op::Random { stream: 5, bits: 32 }, vec![], &[64]),
        (Op::Random { stream: 6, bits: 1 }, vec![], &[4, 5]),
    ];
    for (op, of, shape) in shaped {
        builder.push_as(op, &of, shape)?;
    }
    let six = builder.push(Op::Clamp { low: 0, high: 5 }, &[x[6]])?;
    builder.push(Op::Gather, &[x[5], six])?;
    Ok(Given { program: builder.finish(&[]), data, context, lists: vec![List::Evaluate] })
}
