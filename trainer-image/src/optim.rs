//! SGD with momentum, Adam and AdamW, as PyTorch defines them. Their state is
//! ours rather than libtorch's, because checkpoints must hold all of it.

use tch::{Tensor, no_grad};

use crate::error::Result;
use crate::recipe::{Decimal, Optimizer};

const EPSILON: f64 = 1e-8;

/// Tensors that an optimizer keeps beside each parameter, by slot.
#[derive(Debug)]
pub struct State {
    pub slots: Vec<Slot>,
}

#[derive(Debug)]
pub struct Slot {
    pub name: &'static str,
    /// One tensor a parameter.
    pub tensors: Vec<Tensor>,
}

impl State {
    pub fn new(optimizer: &Optimizer, parameters: &[Tensor]) -> Result<Self> {
        let names: &[&'static str] = match optimizer {
            Optimizer::Sgd { momentum: None, .. } => &[],
            Optimizer::Sgd { .. } => &["momentum"],
            Optimizer::Adam { .. } | Optimizer::Adamw { .. } => &["mean", "variance"],
        };
        let slots = names.iter().map(|name| Ok(Slot { name, tensors: zeros(parameters)? })).collect::<Result<_>>()?;
        Ok(Self { slots })
    }

    /// One update; `step` counts from 0.
    pub fn update(
        &mut self,
        optimizer: &Optimizer,
        parameters: &mut [Tensor],
        gradients: &[Tensor],
        rate: f64,
        step: u64,
    ) -> Result<()> {
        no_grad(|| match optimizer {
            Optimizer::Sgd { momentum, weight_decay, .. } => {
                let decay = or(weight_decay, 0.0);
                match (momentum, &mut self.slots[..]) {
                    (Some(Decimal(momentum)), [slot]) => sgd(parameters, gradients, slot, rate, *momentum, decay),
                    _ => plain_sgd(parameters, gradients, rate, decay),
                }
            }
            Optimizer::Adam { beta1, beta2, weight_decay, .. } => {
                let l2 = or(weight_decay, 0.0);
                let gradients = with_l2(gradients, parameters, l2)?;
                adam(parameters, &gradients, &mut self.slots, Moments::new(beta1, beta2, rate, step))
            }
            Optimizer::Adamw { beta1, beta2, weight_decay, .. } => {
                let keep = 1.0 - rate * or(weight_decay, 0.01);
                for parameter in parameters.iter_mut() {
                    let _ = parameter.f_mul_scalar_(keep)?;
                }
                adam(parameters, gradients, &mut self.slots, Moments::new(beta1, beta2, rate, step))
            }
        })
    }
}

fn or(value: &Option<Decimal>, default: f64) -> f64 {
    value.map_or(default, |decimal| decimal.0)
}

fn zeros(parameters: &[Tensor]) -> Result<Vec<Tensor>> {
    parameters
        .iter()
        .map(|parameter| Ok(Tensor::f_zeros(parameter.size(), (parameter.kind(), parameter.device()))?))
        .collect()
}

/// Gradients of the loss plus `l2`/2 times the squared norm.
fn with_l2(gradients: &[Tensor], parameters: &[Tensor], l2: f64) -> Result<Vec<Tensor>> {
    let pairs = gradients.iter().zip(parameters);
    if l2 == 0.0 {
        return Ok(pairs.map(|(gradient, _)| gradient.shallow_clone()).collect());
    }
    pairs.map(|(gradient, parameter)| Ok(gradient.f_add(&parameter.f_mul_scalar(l2)?)?)).collect()
}

fn plain_sgd(parameters: &mut [Tensor], gradients: &[Tensor], rate: f64, l2: f64) -> Result<()> {
    let gradients = with_l2(gradients, parameters, l2)?;
    for (parameter, gradient) in parameters.iter_mut().zip(&gradients) {
        let _ = parameter.f_add_(&gradient.f_mul_scalar(-rate)?)?;
    }
    Ok(())
}

fn sgd(
    parameters: &mut [Tensor],
    gradients: &[Tensor],
    slot: &mut Slot,
    rate: f64,
    momentum: f64,
    l2: f64,
) -> Result<()> {
    let gradients = with_l2(gradients, parameters, l2)?;
    for ((parameter, gradient), velocity) in parameters.iter_mut().zip(&gradients).zip(&mut slot.tensors) {
        let _ = velocity.f_mul_scalar_(momentum)?;
        let _ = velocity.f_add_(gradient)?;
        let _ = parameter.f_add_(&velocity.f_mul_scalar(-rate)?)?;
    }
    Ok(())
}

struct Moments {
    beta1: f64,
    beta2: f64,
    /// Step size with the first moment's bias taken out.
    size: f64,
    /// Root of the second moment's bias.
    bias: f64,
}

impl Moments {
    fn new(beta1: &Option<Decimal>, beta2: &Option<Decimal>, rate: f64, step: u64) -> Self {
        let (beta1, beta2) = (or(beta1, 0.9), or(beta2, 0.999));
        let count = (step + 1) as f64;
        Self { beta1, beta2, size: rate / (1.0 - beta1.powf(count)), bias: (1.0 - beta2.powf(count)).sqrt() }
    }
}

fn adam(parameters: &mut [Tensor], gradients: &[Tensor], slots: &mut [Slot], moments: Moments) -> Result<()> {
    let [means, variances] = slots else { return Ok(()) };
    let state = means.tensors.iter_mut().zip(&mut variances.tensors);
    for ((parameter, gradient), (mean, variance)) in parameters.iter_mut().zip(gradients).zip(state) {
        let _ = mean.f_lerp_(gradient, 1.0 - moments.beta1)?;
        let _ = variance.f_lerp_(&gradient.f_square()?, 1.0 - moments.beta2)?;
        let mut root = variance.f_sqrt()?;
        let _ = root.f_div_scalar_(moments.bias)?;
        let _ = root.f_add_scalar_(EPSILON)?;
        let mut change = mean.f_div(&root)?;
        let _ = change.f_mul_scalar_(-moments.size)?;
        let _ = parameter.f_add_(&change)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    /// Two updates of one parameter, 1.0, with gradients 0.5 and then -0.25, rate 0.1.
    fn two_steps(optimizer: &Optimizer) -> f64 {
        let mut parameters = vec![Tensor::from_slice(&[1.0_f32])];
        let mut state = State::new(optimizer, &parameters).unwrap();
        for (step, gradient) in [0.5_f32, -0.25].into_iter().enumerate() {
            let gradients = [Tensor::from_slice(&[gradient])];
            state.update(optimizer, &mut parameters, &gradients, 0.1, step as u64).unwrap();
        }
        parameters[0].double_value(&[0])
    }

    fn decimal(value: f64) -> Option<Decimal> {
        Some(Decimal(value))
    }

    const RATE: Decimal = Decimal(0.1);

    // By hand: 1 - 0.1·0.5 = 0.95, then + 0.1·0.25 = 0.975.
    #[rstest]
    #[case::sgd(Optimizer::Sgd { learning_rate: RATE, momentum: None, weight_decay: None }, 0.975)]
    // Velocity 0.5, then 0.9·0.5 - 0.25 = 0.2: 1 - 0.05 - 0.02.
    #[case::momentum(Optimizer::Sgd { learning_rate: RATE, momentum: decimal(0.9), weight_decay: None }, 0.93)]
    // Gradients 0.5 + 0.2·1 = 0.7, x = 0.93; -0.25 + 0.2·0.93 = -0.064, x = 0.9364.
    #[case::l2(Optimizer::Sgd { learning_rate: RATE, momentum: None, weight_decay: decimal(0.2) }, 0.9364)]
    // First step: size exactly the rate. Second: m = 0.9·0.05 - 0.025 = 0.02, /0.19 = 0.105263;
    // v = 0.999·0.00025 + 0.0000625 = 0.00031225, /0.001999 = 0.156203, root 0.395225: 0.9 - 0.1·0.266337.
    #[case::adam(Optimizer::Adam { learning_rate: RATE, beta1: None, beta2: None, weight_decay: None }, 0.873366)]
    // As Adam, but first multiplied by 1 - 0.1·0.5: 0.95 - 0.1 = 0.85, then 0.8075 - 0.0266337.
    #[case::adamw(Optimizer::Adamw { learning_rate: RATE, beta1: None, beta2: None, weight_decay: decimal(0.5) }, 0.780866)]
    fn two_updates_equal_the_hand_computed_value(#[case] optimizer: Optimizer, #[case] expected: f64) {
        let value = two_steps(&optimizer);
        assert!((value - expected).abs() < 2e-6, "{value} is not {expected}");
    }
}
