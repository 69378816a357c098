//! What a task's program is, how near to its limits, and what its operators cost: for people to read.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use freehold_exact::op::Op;
use freehold_exact::program::{Declared, List, Node};
use freehold_exact::tensor::row_length;

use super::engine::{Engine, Libtorch};
use super::plan::Plan;
use crate::error::Result;
use crate::train::Env;

/// Bits that a value, and whatever is computed on the way to one, may take.
const BITS: u32 = 52;
/// Lines of a table.
const LINES: usize = 25;

fn name(list: List) -> &'static str {
    match list {
        List::Init => "init",
        List::Step => "step",
        List::Evaluate => "evaluate",
    }
}

fn shape(sides: &[usize]) -> String {
    sides.iter().map(ToString::to_string).collect::<Vec<_>>().join(" × ")
}

/// What it is made of, and what it is known by.
pub fn show(plan: &Plan) -> String {
    let (steps, segments, each) = (plan.program.steps, plan.segments(), plan.segment_steps);
    let mut text = format!("programId  {}\ndataRoot   {}\nseed       {}\n", plan.program_id, plan.data_root, plan.seed);
    let _ = writeln!(text, "{steps} steps in {segments} segments of {each}");
    for (kind, all) in [("state", &plan.program.state), ("data", &plan.program.data)] {
        let _ = writeln!(text, "\n{kind}");
        for Declared { name, shape: sides, width, low, high } in all {
            let _ = writeln!(text, "  {name}  {}  {} bits, {low} to {high}", shape(sides), width.bits());
        }
    }
    let _ = writeln!(text, "\nconstants");
    for constant in &plan.program.constants {
        let _ =
            writeln!(text, "  {}  {}  {} bits", constant.name, shape(constant.values.shape()), constant.width.bits());
    }
    for list in List::ALL {
        let graph = plan.program.list(list);
        let _ = writeln!(text, "\n{}: {} operators", name(list), graph.nodes.len());
        for (at, Node { op, of, shape: sides, width }) in graph.nodes.iter().enumerate() {
            let of = of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let _ = writeln!(text, "{at:6}  {:<10} {of:<16} {}  {} bits", op.name(), shape(sides), width.bits());
        }
        let _ = writeln!(text, "  results in {:?}", graph.results);
    }
    text
}

/// The operators that come nearest to the limit, and how much more would fit.
pub fn range(plan: &Plan) -> String {
    let all = List::ALL.into_iter().flat_map(|list| {
        let nodes = plan.program.list(list).nodes.iter().enumerate();
        nodes.zip(plan.ranges.of(list)).map(move |((at, node), range)| (list, at, node, range))
    });
    let mut all: Vec<_> = all.collect();
    all.sort_by_key(|(_, _, _, range)| std::cmp::Reverse(range.inner_bits));
    let mut text = format!("bits of {BITS}, operator, shape, what would fit\n");
    for (list, at, node, range) in all.into_iter().take(LINES) {
        let times = 1_u64 << BITS.saturating_sub(range.inner_bits);
        let operands = plan.program.list(list);
        let fits = match node.op {
            Op::Matmul | Op::Sum => {
                let terms = row_length(&operands.nodes[node.of[0]].shape) as u64;
                format!("rows of {terms} terms; {} would fit", terms.saturating_mul(times))
            }
            _ => format!("values of {} bits; {times} times as large would fit", range.values.bits()),
        };
        let (list, op) = (name(list), node.op.name());
        let _ = writeln!(text, "{:4}  {list} {at} {op}  {}  {fits}", range.inner_bits, shape(&node.shape));
    }
    text
}

/// Time of a step, by operators of a kind and shape, and the unit that computes their products.
pub fn bench(plan: &Plan, steps: u32, env: &mut Env) -> Result<String> {
    let engine = Libtorch::start(plan, env.device, env.say)?;
    let units: BTreeMap<usize, &str> =
        engine.machine.products(List::Step).into_iter().map(|(at, unit)| (at, unit.name())).collect();
    let mut state = engine.run(List::Init, &Vec::new(), &plan.context(0))?;
    let steps = steps.clamp(1, plan.program.steps);
    let now = env.now;
    let mut spent: BTreeMap<(&str, String, &str), (Duration, usize)> = BTreeMap::new();
    // The first step is made twice: libtorch prepares itself in it.
    for step in std::iter::once(0).chain(0..steps) {
        if step == 0 {
            spent.clear();
        }
        let mut last = now();
        let seen = &mut |made: &[usize]| {
            // Those that are computed together count as one, the last of them.
            let Some(at) = made.last() else { return };
            let reached = now();
            let node = &plan.program.step.nodes[*at];
            let unit = if made.len() > 1 { "with those before it" } else { units.get(at).copied().unwrap_or_default() };
            let entry = spent.entry((node.op.name(), shape(&node.shape), unit)).or_default();
            (entry.0, entry.1) = (entry.0 + reached.duration_since(last).unsigned_abs(), entry.1 + 1);
            last = reached;
        };
        state = engine.machine.watched(List::Step, &state, engine.data(), &plan.context(step), seen)?;
    }
    let each = |spent: Duration| spent.as_secs_f64() * 1_000.0 / f64::from(steps);
    let total: Duration = spent.values().map(|(spent, _)| *spent).sum();
    let mut rows: Vec<_> = spent.into_iter().collect();
    rows.sort_by_key(|(_, (spent, _))| std::cmp::Reverse(*spent));
    let mut text = format!("{:.2} ms a step; ms, operators, unit\n", each(total));
    for ((op, shape, unit), (spent, count)) in rows.iter().take(LINES) {
        let _ = writeln!(text, "{:8.3}  {:4} {op:<10} {shape}  {unit}", each(*spent), count / steps as usize);
    }
    let rest: Duration = rows.iter().skip(LINES).map(|(_, (spent, _))| *spent).sum();
    let _ = writeln!(text, "{:8.3}  the rest", each(rest));
    Ok(text)
}
