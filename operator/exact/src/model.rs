//! The families of models as nets: parameters with their first values, and the way from inputs to logits.

use crate::net::{Net, Value};
use crate::op::{Op, Window};
use crate::optim::{PARAMETER, PARAMETER_BITS};
use crate::program::Refusal;
use crate::recipe::Model;
use crate::tensor::count;

/// Fractional bits of what a layer takes, and what it is kept to.
pub const ACTIVATION: i32 = 8;
const ACTIVATION_BITS: u32 = 13;
/// Of products before they are rounded, of logits, and of the residual stream.
pub const FINE: i32 = 12;
const STREAM_BITS: u32 = 19;
pub const BYTES: usize = 256;

/// How a parameter begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum First {
    Zero,
    One,
    /// Evenly between plus and minus this, with 20 fractional bits.
    Uniform(i64),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    pub name: String,
    pub shape: Vec<usize>,
    pub first: First,
}

fn dense(name: &str, to: usize, from: usize) -> [Parameter; 2] {
    // 1 / √from, as most libraries begin.
    let bound = ((1_i64 << (2 * PARAMETER)) / from as i64).isqrt();
    let weight = Parameter { name: format!("{name}.weight"), shape: vec![to, from], first: First::Uniform(bound) };
    [weight, Parameter { name: format!("{name}.bias"), shape: vec![to], first: First::Zero }]
}

/// In the order in which [`forward`] takes them.
pub fn parameters(model: &Model) -> Vec<Parameter> {
    match model {
        Model::Mlp { widths } => {
            let pairs = widths.windows(2).enumerate();
            pairs.flat_map(|(index, pair)| dense(&format!("layers.{index}"), pair[1], pair[0])).collect()
        }
        Model::Cnn { image: [from, height, width], channels, kernel, hidden, classes } => {
            let (mut from, mut sides) = (*from, [*height, *width]);
            let mut all = Vec::new();
            for (index, to) in channels.iter().enumerate() {
                all.extend(dense(&format!("convolutions.{index}"), *to, from * kernel * kernel));
                from = *to;
                sides = halved(sides).unwrap_or(sides);
            }
            all.extend(dense("hidden", *hidden, from * sides[0] * sides[1]));
            all.extend(dense("output", *classes, *hidden));
            all
        }
        Model::Transformer { width, layers, context, tied, .. } => {
            let some = |name: &str, shape: Vec<usize>| Parameter {
                name: name.into(),
                shape,
                first: First::Uniform(1 << (PARAMETER - 3)),
            };
            let norm = |name: String| Parameter { name, shape: vec![*width], first: First::One };
            let plain = |name: String, to: usize, from: usize| dense(&name, to, from)[0].clone();
            let mut all =
                vec![some("embedding.weight", vec![BYTES, *width]), some("position.weight", vec![*context, *width])];
            for index in 0..*layers {
                let name = |part: &str| format!("blocks.{index}.{part}");
                all.push(norm(name("norm1.weight")));
                for part in ["query.weight", "key.weight", "value.weight", "output.weight"] {
                    all.push(Parameter { name: name(part), ..plain(name(part), *width, *width) });
                }
                all.push(norm(name("norm2.weight")));
                all.push(Parameter { name: name("up.weight"), ..plain(name("up"), 4 * width, *width) });
                all.push(Parameter { name: name("down.weight"), ..plain(name("down"), *width, 4 * width) });
            }
            all.push(norm("norm.weight".into()));
            if !tied {
                all.push(Parameter { name: "head.weight".into(), ..plain("head".into(), BYTES, *width) });
            }
            all
        }
    }
}

fn halved(sides: [usize; 2]) -> Option<[usize; 2]> {
    (sides[0] >= 2 && sides[1] >= 2).then(|| [sides[0] / 2, sides[1] / 2])
}

/// Logits, a row for each label, with [`FINE`] fractional bits.
pub fn forward(net: &mut Net, model: &Model, parameters: &[Value], input: Value) -> Result<Value, Refusal> {
    match model {
        Model::Mlp { .. } => {
            let mut x = input;
            let last = parameters.len() / 2 - 1;
            for (index, layer) in parameters.chunks_exact(2).enumerate() {
                x = linear(net, x, layer)?;
                if index < last {
                    x = active(net, x)?;
                    x = dropped(net, x)?;
                }
            }
            Ok(x)
        }
        Model::Cnn { image, channels, kernel, .. } => cnn(net, *image, channels, *kernel, parameters, input),
        Model::Transformer { heads, layers, tied, .. } => transformer(net, *heads, *layers, *tied, parameters, input),
    }
}

/// x · Wᵀ + b.
fn linear(net: &mut Net, x: Value, layer: &[Value]) -> Result<Value, Refusal> {
    let product = net.product(x, layer[0], FINE)?;
    let bias = net.round(layer[1], FINE)?;
    let bias = net.broadcast(bias, &net.shape(product))?;
    net.add(product, bias)
}

fn active(net: &mut Net, x: Value) -> Result<Value, Refusal> {
    let x = net.relu(x)?;
    narrow(net, x)
}

fn dropped(net: &mut Net, x: Value) -> Result<Value, Refusal> {
    let x = net.dropped(x)?;
    net.keep(x, ACTIVATION_BITS)
}

/// What the next layer takes.
fn narrow(net: &mut Net, x: Value) -> Result<Value, Refusal> {
    let x = net.round(x, ACTIVATION)?;
    net.keep(x, ACTIVATION_BITS)
}

fn cnn(
    net: &mut Net,
    [mut depth, height, width]: [usize; 3],
    channels: &[usize],
    kernel: usize,
    parameters: &[Value],
    input: Value,
) -> Result<Value, Refusal> {
    let batch = net.shape(input)[0];
    let mut sides = [height, width];
    let mut x = net.reshape(input, &[batch, depth, height, width])?;
    let (convolutions, rest) = parameters.split_at(2 * channels.len());
    for (layer, to) in convolutions.chunks_exact(2).zip(channels) {
        let columns = net.im2col(x, Window { kernel: [kernel, kernel], stride: 1, padding: kernel / 2 })?;
        let places = sides[0] * sides[1];
        let flat = net.reshape(columns, &[batch * places, depth * kernel * kernel])?;
        let y = linear(net, flat, layer)?;
        let y = active(net, y)?;
        let y = net.reshape(y, &[batch, places, *to])?;
        let y = net.transpose(y, &[0, 2, 1])?;
        x = net.reshape(y, &[batch, *to, sides[0], sides[1]])?;
        depth = *to;
        if let Some(half) = halved(sides) {
            x = largest_of_four(net, x, half)?;
            sides = half;
        }
    }
    let flat = net.reshape(x, &[batch, depth * sides[0] * sides[1]])?;
    let hidden = linear(net, flat, &rest[..2])?;
    let hidden = active(net, hidden)?;
    let hidden = dropped(net, hidden)?;
    linear(net, hidden, &rest[2..])
}

fn largest_of_four(net: &mut Net, x: Value, half: [usize; 2]) -> Result<Value, Refusal> {
    let [batch, depth] = [net.shape(x)[0], net.shape(x)[1]];
    let columns = net.im2col(x, Window { kernel: [2, 2], stride: 2, padding: 0 })?;
    let fours = net.reshape(columns, &[batch, half[0] * half[1], depth, 4])?;
    let largest = net.max(fours)?;
    let largest = net.reshape(largest, &[batch, half[0] * half[1], depth])?;
    let largest = net.transpose(largest, &[0, 2, 1])?;
    net.reshape(largest, &[batch, depth, half[0], half[1]])
}

/// `input`: bytes, windows × positions.
fn transformer(
    net: &mut Net,
    heads: usize,
    layers: usize,
    tied: bool,
    parameters: &[Value],
    input: Value,
) -> Result<Value, Refusal> {
    let [windows, positions] = [net.shape(input)[0], net.shape(input)[1]];
    let width = net.shape(parameters[0])[1];
    let rows = windows * positions;
    let embedded = net.gather(parameters[0], input)?;
    let place = net.broadcast(parameters[1], &[windows, positions, width])?;
    let x = net.add(embedded, place)?;
    let x = net.round(x, FINE)?;
    let mut x = net.reshape(x, &[rows, width])?;
    let earlier = causal(net, &[windows, heads, positions, positions])?;
    for block in parameters[2..2 + 8 * layers].chunks_exact(8) {
        let y = norm(net, x, block[0])?;
        let y = attention(net, [windows, positions, heads], &block[1..5], y, earlier)?;
        x = stream(net, x, y)?;
        let y = norm(net, x, block[5])?;
        let y = net.product(y, block[6], FINE)?;
        let y = active(net, y)?;
        let y = net.product(y, block[7], FINE)?;
        x = stream(net, x, y)?;
    }
    let last = 2 + 8 * layers;
    let x = norm(net, x, parameters[last])?;
    net.product(x, if tied { parameters[0] } else { parameters[last + 1] }, FINE)
}

fn stream(net: &mut Net, x: Value, mut more: Value) -> Result<Value, Refusal> {
    if net.dropout > 0 {
        more = net.keep(more, STREAM_BITS)?;
        more = net.dropped(more)?;
    }
    let x = net.add(x, more)?;
    net.keep(x, STREAM_BITS)
}

/// x over the root of its mean square, times a weight.
fn norm(net: &mut Net, x: Value, weight: Value) -> Result<Value, Refusal> {
    let shape = net.shape(x);
    let squares = net.mul(x, x)?;
    let sum = net.sum(squares)?;
    let mean = divided(net, sum, shape[1])?;
    let root = net.root(mean)?;
    let root = net.broadcast(root, &shape)?;
    let fine = net.round(x, net.fraction(root) + ACTIVATION)?;
    let normal = net.div(fine, root)?;
    let normal = net.keep(normal, ACTIVATION_BITS)?;
    let weight = net.round(weight, FINE)?;
    let weight = net.broadcast(weight, &shape)?;
    let weighted = net.mul(normal, weight)?;
    narrow(net, weighted)
}

/// Over a whole number: the point moves where it is a power of two.
fn divided(net: &mut Net, x: Value, by: usize) -> Result<Value, Refusal> {
    if by.is_power_of_two() {
        return Ok(net.scale(x, by.trailing_zeros().cast_signed()));
    }
    let divisor = net.filled(by as i64, &net.shape(x), 0)?;
    net.div(x, divisor)
}

/// 1 where the second position is not after the first.
fn causal(net: &mut Net, shape: &[usize; 4]) -> Result<Value, Refusal> {
    let positions = shape[3];
    let places: Vec<i64> = (0..positions as i64).collect();
    let places = net.constant("positions", crate::tensor::Tensor::row(places), 0)?;
    let across = net.broadcast(places, &[positions, positions])?;
    let down = net.turned(across)?;
    let later = net.less(down, across)?;
    let zero = net.filled(0, &[positions, positions], 0)?;
    let earlier = net.equal(later, zero)?;
    net.broadcast(earlier, shape)
}

fn attention(
    net: &mut Net,
    [windows, positions, heads]: [usize; 3],
    weights: &[Value],
    x: Value,
    earlier: Value,
) -> Result<Value, Refusal> {
    let width = net.shape(x)[1];
    let size = width / heads;
    let mut part = |weight: Value, order: [usize; 4]| {
        let y = net.product(x, weight, FINE)?;
        let y = narrow(net, y)?;
        let y = net.reshape(y, &[windows, positions, heads, size])?;
        net.transpose(y, &order)
    };
    let query = part(weights[0], [0, 2, 1, 3])?;
    let key = part(weights[1], [0, 2, 1, 3])?;
    let value = part(weights[2], [0, 2, 3, 1])?;
    let scores = net.product(query, key, FINE)?;
    // 1 / √size.
    let share = ((1_i64 << 32) / size as i64).isqrt();
    let share = net.filled(share, &net.shape(scores), 16)?;
    let scores = net.keep(scores, 24)?;
    let scores = net.mul(scores, share)?;
    let scores = net.round(scores, ACTIVATION)?;
    let probabilities = net.softmax(scores, Some(earlier))?;
    let mixed = net.product(probabilities, value, ACTIVATION)?;
    let mixed = net.keep(mixed, ACTIVATION_BITS)?;
    let mixed = net.transpose(mixed, &[0, 2, 1, 3])?;
    let mixed = net.reshape(mixed, &[windows * positions, width])?;
    net.product(mixed, weights[3], FINE)
}

/// First values, drawn from a stream of their own.
pub fn first(net: &mut Net, parameter: &Parameter, stream: u32) -> Result<Value, Refusal> {
    let shape = &parameter.shape;
    match parameter.first {
        First::Zero => spread(net, 0, shape),
        First::One => spread(net, 1 << PARAMETER, shape),
        First::Uniform(bound) => {
            let drawn = net.source(Op::Random { stream, bits: 16 }, shape, 16)?;
            let middle = net.filled(1 << 15, shape, 16)?;
            let centred = net.sub(drawn, middle)?;
            let bound = net.filled(2 * bound, shape, PARAMETER)?;
            let value = net.mul(centred, bound)?;
            let value = net.round(value, PARAMETER)?;
            let wide = spread(net, 0, shape)?;
            let value = net.add(wide, value)?;
            net.keep(value, PARAMETER_BITS)
        }
    }
}

/// A number, in a tensor whose declared width the state's is.
fn spread(net: &mut Net, number: i64, shape: &[usize]) -> Result<Value, Refusal> {
    debug_assert!(count(shape) > 0);
    net.filled(number, shape, PARAMETER)
}
