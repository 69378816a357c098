//! Random elements of random programs, and what the contract is asked about them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use alloy_primitives::{B256, U256};
use freehold_exact::build::{Builder, declare};
use freehold_exact::commit::{open, position, tensor_root};
use freehold_exact::descriptor;
use freehold_exact::element::{Context, Read, element};
use freehold_exact::interpret::{Inputs, trace};
use freehold_exact::op::{Op, Window};
use freehold_exact::program::{Declared, List, Program, Refusal};
use freehold_exact::tensor::{Tensor, Width, count};
use freehold_exact::testkit::{self, Choices};

use super::evm::LeafCourt::{self, NodeOpening, Opening};
use super::evm::Question;

/// Operators that there are.
pub(crate) const OPERATORS: usize = 34;

/// Numbers that follow from a seed (SplitMix64).
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, number: u64) -> Self {
        Self(seed.wrapping_mul(0x2545_F491_4F6C_DD1D) ^ number.wrapping_mul(0xD6E8_FEB8_6659_FD93))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.next() % end.max(1) as u64) as usize
    }

    /// From `low` to `high`, both included.
    fn from(&mut self, low: i64, high: i64) -> i64 {
        low + (self.next() % (high.abs_diff(low) + 1)) as i64
    }

    pub(crate) fn bytes(&mut self) -> B256 {
        B256::from(std::array::from_fn(|_| self.next() as u8))
    }
}

#[derive(Debug)]
pub(crate) struct Case {
    program: Program,
    list: List,
    node: usize,
    place: usize,
    context: Context,
    state: Vec<Arc<Tensor>>,
    data: Vec<Arc<Tensor>>,
    /// Of all nodes of the list.
    values: Vec<Arc<Tensor>>,
}

impl Case {
    /// Half of the cases are operators of random programs, the other half each operator in turn.
    pub(crate) fn roll(dice: &mut Dice, number: u64) -> Self {
        let context = Context { seed: dice.bytes(), step: dice.below(9) as u32 };
        let is_alone = number.is_multiple_of(2);
        let (program, list, state, data) = if is_alone {
            let which = (number / 2) as usize % OPERATORS;
            std::iter::repeat_with(|| one(which, dice)).find_map(Result::ok).expect("one that is not refused")
        } else {
            let left = (0..30 + dice.below(60)).map(|_| dice.next() as u32).collect();
            let draws: Vec<u64> = (0..16).map(|_| dice.next()).collect();
            let (program, _) = testkit::program(Choices { left });
            let data = testkit::data(&program, &draws);
            (program, List::Evaluate, vec![], data)
        };
        let values = trace(&program, list, &Inputs { state: &state, data: &data, context }).expect("values");
        let mut by_name: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for (at, node) in program.list(list).nodes.iter().enumerate() {
            by_name.entry(node.op.name()).or_default().push(at);
        }
        let node = if is_alone {
            program.list(list).nodes.len() - 1
        } else {
            let of_name = by_name.values().nth(dice.below(by_name.len())).expect("an operator");
            of_name[dice.below(of_name.len())]
        };
        let place = dice.below(values[node].values().len());
        Self { program, list, node, place, context, state, data, values }
    }

    pub(crate) fn op(&self) -> &'static str {
        self.program.list(self.list).nodes[self.node].op.name()
    }

    /// A program that evaluates to what the operator makes, and its data. A state is given as data: it is loaded alike.
    pub(crate) fn alone(&self) -> (Program, &[Arc<Tensor>]) {
        let mut graph = self.program.list(self.list).clone();
        graph.results = vec![self.node];
        let mut program = Program {
            steps: self.program.steps,
            data: self.program.data.clone(),
            constants: self.program.constants.clone(),
            metrics: vec!["value".into()],
            ..Program::default()
        };
        let mut data = &self.data;
        if !self.state.is_empty() {
            (program.data, data) = (self.program.state.clone(), &self.state);
            for node in &mut graph.nodes {
                if let Op::State { index } = node.op {
                    node.op = Op::Data { index };
                }
            }
        }
        program.evaluate = graph;
        (program, data)
    }

    pub(crate) fn context(&self) -> &Context {
        &self.context
    }

    /// All that the operator makes.
    pub(crate) fn result(&self) -> &Tensor {
        &self.values[self.node]
    }

    /// The case with every opening, and a claim that is right or wrong by one.
    pub(crate) fn question(&self, is_right: bool, dice: &mut Dice) -> Question {
        let nodes = &self.program.list(self.list).nodes;
        let node = &nodes[self.node];
        let result = self.values[self.node].as_ref();
        let is_source = matches!(node.op, Op::State { .. } | Op::Data { .. } | Op::Constant { .. });
        let of = if is_source { vec![self.node] } else { node.of.clone() };
        let operands: Vec<(&Tensor, Width)> =
            of.iter().map(|of| (self.values[*of].as_ref(), nodes[*of].width)).collect();
        let mut reading = Reading { operands: &operands, seen: BTreeSet::new(), openings: vec![] };
        let shapes: Vec<&[usize]> = operands.iter().map(|(tensor, _)| tensor.shape()).collect();
        let value = element(&node.op, &shapes, &node.shape, self.place, &self.context, &mut reading);
        assert_eq!(value, Ok(result.values()[self.place]));

        let mut claimed = result.values().to_vec();
        if !is_right {
            let widest = node.width.interval();
            let up = claimed[self.place] + 1;
            let fits = i128::from(up) <= widest.high && (dice.below(2) == 0 || i128::from(up) - 2 < widest.low);
            claimed[self.place] = if fits { up } else { up - 2 };
        }
        let claimed = tensor(&node.shape, claimed);
        let opened = descriptor::open(&self.program, self.list, self.node).expect("an operator of the program");
        let case = LeafCourt::Case {
            programId: self.program.id(),
            list: List::ALL.iter().position(|list| *list == self.list).expect("a list") as u8,
            number: self.node as u32,
            seed: self.context.seed,
            step: self.context.step,
            place: U256::from(self.place),
            roots: operands.iter().map(|(tensor, width)| tensor_root(tensor, *width)).collect(),
            node: NodeOpening {
                header: opened.header,
                counts: opened.counts,
                descriptor: opened.descriptor.into(),
                path: opened.path,
            },
            openings: reading.openings,
        };
        let claim = opening(&claimed, node.width, self.place);
        Question { c: case, root: tensor_root(&claimed, node.width), claim }
    }
}

fn opening(tensor: &Tensor, width: Width, place: usize) -> Opening {
    let opened = open(tensor, width, place);
    Opening { chunk: opened.chunk.into(), path: opened.path }
}

/// Opens each chunk that a rule reads when it is read first.
struct Reading<'a> {
    operands: &'a [(&'a Tensor, Width)],
    seen: BTreeSet<(usize, usize)>,
    openings: Vec<Opening>,
}

impl Read for Reading<'_> {
    fn at(&mut self, operand: usize, place: usize) -> i64 {
        let (tensor, width) = self.operands[operand];
        if self.seen.insert((operand, position(tensor.shape(), width, place).0)) {
            self.openings.push(opening(tensor, width, place));
        }
        tensor.values()[place]
    }
}

type Given = (Program, List, Vec<Arc<Tensor>>, Vec<Arc<Tensor>>);

/// A program whose last operator is the one with this number in `op`'s list, on random operands.
fn one(which: usize, dice: &mut Dice) -> Result<Given, Box<Refusal>> {
    let list = if which == 0 { List::ALL[1 + dice.below(2)] } else { List::ALL[dice.below(3)] };
    let mut program = Program { steps: 9, ..Program::default() };
    for other in List::ALL.into_iter().filter(|other| *other != list) {
        let mut builder = Builder::new(program, other);
        for _ in 0..dice.below(4) {
            builder.push(Op::Step, &[])?;
        }
        program = builder.finish(&[]);
    }
    let like = shape(dice);
    if which < 3 {
        let declared = vec![declared(&like, dice)];
        let values = vec![Arc::new(filled(&declared[0], dice))];
        match which {
            0 => program.state = declared,
            1 => program.data = declared,
            _ => {}
        }
        let mut builder = Builder::new(program, list);
        match which {
            0 => builder.state(0)?,
            1 => builder.data(0)?,
            _ => builder.constant("one", values[0].as_ref().clone())?,
        };
        let (state, data) = match which {
            0 => (values, vec![]),
            1 => (vec![], values),
            _ => (vec![], vec![]),
        };
        return Ok((builder.finish(&[]), list, state, data));
    }
    let (op, operands, result) = operator(which, like, dice);
    let data: Vec<_> = operands.iter().map(|one| Arc::new(filled(one, dice))).collect();
    program.data = operands;
    let mut builder = Builder::new(program, list);
    let ids = (0..data.len()).map(|index| builder.data(index)).collect::<Result<Vec<_>, _>>()?;
    match result {
        Some(shape) => builder.push_as(op, &ids, &shape)?,
        None => builder.push(op, &ids)?,
    };
    Ok((builder.finish(&[]), list, vec![], data))
}

/// An operator, its operands, and its shape where it has to be given. May well be refused.
fn operator(which: usize, like: Vec<usize>, dice: &mut Dice) -> (Op, Vec<Declared>, Option<Vec<usize>>) {
    let within = |shape: &[usize], low, high| declare("x", shape, low, high);
    let x = declared(&like, dice);
    let y = declared(&like, dice);
    let with_row = |row: usize| -> Vec<usize> {
        let mut shape = like.clone();
        if let Some(last) = shape.last_mut() {
            *last = row
        } else {
            shape.push(row)
        }
        shape
    };
    match which {
        3 => (Op::Step, vec![], None),
        4 => {
            let terms = row(dice);
            let batch: Vec<usize> = (0..dice.below(3)).map(|_| 1 + dice.below(3)).collect();
            let sides = |rows: usize| [batch.clone(), vec![rows, terms]].concat();
            let (m, n) = (sides(1 + dice.below(4)), sides(1 + dice.below(4)));
            (Op::Matmul, vec![declared(&m, dice), declared(&n, dice)], None)
        }
        5 => {
            let mut order: Vec<usize> = (0..like.len()).collect();
            (1..order.len()).for_each(|at| order.swap(at, dice.below(at + 1)));
            (Op::Transpose { order }, vec![x], None)
        }
        6 => {
            let flat = vec![count(&like)];
            let turned = like.iter().rev().copied().collect();
            let to = [flat, turned, [like, vec![1]].concat()];
            (Op::Reshape, vec![x], Some(to[dice.below(3)].clone()))
        }
        7 => {
            let some: Vec<usize> = like.iter().map(|side| if dice.below(3) == 0 { 1 } else { *side }).collect();
            let front = (0..dice.below(3)).map(|_| 1 + dice.below(3)).collect();
            let kept = some[dice.below(2).min(some.len())..].to_vec();
            (Op::Broadcast, vec![declared(&kept, dice)], Some([front, like].concat()))
        }
        8 => {
            let dimension = dice.below(like.len());
            let start = dice.below(3);
            let mut part = like;
            if let Some(side) = part.get_mut(dimension) {
                *side = side.saturating_sub(start + dice.below(2)).max(1);
            }
            (Op::Slice { dimension, start }, vec![x], Some(part))
        }
        9 => {
            let (dimension, before) = (dice.below(like.len()), dice.below(3));
            let mut whole = like;
            if let Some(side) = whole.get_mut(dimension) {
                *side += before + dice.below(3);
            }
            (Op::Pad { dimension, before }, vec![x], Some(whole))
        }
        10 | 11 => {
            let image = [1 + dice.below(2), 1 + dice.below(3), 1 + dice.below(9), 1 + dice.below(9)];
            // Most larger ones could not be summed.
            let side = if which == 10 { 6 } else { 3 };
            let kernel = [1 + dice.below(side), 1 + dice.below(side)];
            let window = Window { kernel, stride: 1 + dice.below(3), padding: dice.below(3) };
            let columns = Op::Im2col(window).shape(&[&image]).ok().flatten().unwrap_or_default();
            if which == 10 {
                (Op::Im2col(window), vec![declared(&image, dice)], None)
            } else {
                (Op::Col2im(window), vec![declared(&columns, dice)], Some(image.to_vec()))
            }
        }
        12 => {
            let rows = if like.is_empty() { vec![1 + dice.below(4)] } else { like };
            let index: Vec<usize> = (0..dice.below(3)).map(|_| 1 + dice.below(4)).collect();
            let last = rows[0] as i64 - 1;
            (Op::Gather, vec![declared(&rows, dice), within(&index, 0, last)], None)
        }
        13 => (Op::Add, vec![x, y], None),
        14 => (Op::Sub, vec![x, y], None),
        15 => (Op::Mul, vec![x, y], None),
        16 => {
            let (one, other) = (dice.from(-200, 300), dice.from(-(1 << 30), 1 << 30));
            (Op::Clamp { low: one.min(other), high: one.max(other) }, vec![x], None)
        }
        17 => (Op::Less, vec![x, y], None),
        18 => (Op::Equal, vec![x, y], None),
        19 => (Op::Select, vec![within(&like, -1, 1), x, y], None),
        20 => (Op::Relu, vec![x], None),
        21 => (Op::Sign, vec![x], None),
        22 => (Op::Shift { by: dice.from(-40, 62) }, vec![x], None),
        23 => {
            let (one, other) = (dice.from(-20, 62), dice.from(-20, 62));
            (Op::ShiftBy, vec![x, within(&like, one.min(other), one.max(other))], None)
        }
        24 => (Op::Div, vec![x, within(&like, 1, 1 << dice.below(40))], None),
        25 => (Op::Isqrt, vec![within(&like, 0, (1 << dice.below(52)) - 1)], None),
        26..=29 => {
            let op = [Op::Max, Op::Sum, Op::Argmax, Op::Rowexp][which - 26].clone();
            let length = row(dice);
            (op, vec![declared(&with_row(length), dice)], None)
        }
        30 => (Op::Quant, vec![x, within(&with_row(1), 0, dice.from(0, 45))], None),
        31 => {
            let values = [1 + dice.below(6), 1 + dice.below(5_000)][dice.below(2)];
            (Op::Table, vec![declared(&[values], dice), within(&like, 0, values as i64 - 1)], None)
        }
        32 => (Op::Sample { rows: 1 + dice.next() % (1 << (1 + dice.below(51))) }, vec![], Some(like)),
        _ => (Op::Random { stream: dice.next() as u32, bits: 1 + dice.below(32) as u8 }, vec![], Some(like)),
    }
}

/// Small; some have rows of several chunks.
fn shape(dice: &mut Dice) -> Vec<usize> {
    let mut shape: Vec<usize> = (0..dice.below(5)).map(|_| 1 + dice.below(4)).collect();
    if dice.below(8) == 0
        && let Some(last) = shape.last_mut()
    {
        *last = 1 + dice.below(3_000);
    }
    shape
}

/// Length of a row that is read whole.
fn row(dice: &mut Dice) -> usize {
    1 + if dice.below(4) == 0 { dice.below(1_024) } else { dice.below(70) }
}

fn declared(shape: &[usize], dice: &mut Dice) -> Declared {
    const RANGES: [(i64, i64); 9] = [
        (-128, 127),
        (0, 1),
        (-3, 3),
        (0, 255),
        (-32_768, 32_767),
        (-(1 << 20), 1 << 20),
        (1, 1 << 40),
        (-(1 << 50), 1 << 49),
        (1 - (1 << 52), (1 << 52) - 1),
    ];
    let (low, high) = RANGES[dice.below(RANGES.len())];
    declare("x", shape, low, high)
}

/// At the ends of its range, or anywhere in it.
fn filled(one: &Declared, dice: &mut Dice) -> Tensor {
    let mut value = |()| match dice.below(5) {
        0 => one.low,
        1 => one.high,
        _ => dice.from(one.low, one.high),
    };
    let values: Vec<i64> = (0..count(&one.shape)).map(|_| value(())).collect();
    tensor(&one.shape, values)
}

fn tensor(shape: &[usize], values: Vec<i64>) -> Tensor {
    Tensor::new(shape, values).expect("as many values as the shape has")
}
