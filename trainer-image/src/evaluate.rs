//! Loss and accuracy over the held-out rows.

use std::sync::atomic::{AtomicBool, Ordering};

use tch::{Device, Kind, Reduction, Tensor, no_grad};

use crate::dataset::Rows;
use crate::error::Result;
use crate::evaluation::Evaluation;
use crate::model;
use crate::recipe::{Model, Precision};

/// Mean cross entropy of logits, in f32.
pub fn loss(logits: &Tensor, classes: &Tensor, reduction: Reduction) -> Result<Tensor> {
    let logits = logits.f_flatten(0, -2)?;
    let classes = classes.f_flatten(0, -1)?;
    Ok(logits.f_cross_entropy_loss(&classes, None::<Tensor>, reduction, -100, 0.0)?)
}

/// A network as evaluation needs it.
#[derive(Clone, Copy)]
pub struct Network<'a> {
    pub model: &'a Model,
    pub parameters: &'a [Tensor],
    pub precision: Precision,
    pub device: Device,
}

impl Network<'_> {
    pub fn logits(&self, input: &Tensor) -> Result<Tensor> {
        model::forward(self.model, self.parameters, input, self.precision)
    }

    /// Evaluates rows; nothing if `stop` was raised before the end.
    pub fn evaluate(
        &self,
        rows: &Rows,
        ids: &[u32],
        batch: usize,
        step: u64,
        stop: &AtomicBool,
    ) -> Result<Option<Evaluation>> {
        let (mut total, mut right, mut count) = (0.0, 0, 0);
        for ids in ids.chunks(batch) {
            if stop.load(Ordering::Relaxed) {
                return Ok(None);
            }
            let ids: Vec<i64> = ids.iter().map(|id| i64::from(*id)).collect();
            let (input, classes) = rows.batch(&ids, self.device)?;
            no_grad(|| -> Result<()> {
                let logits = self.logits(&input)?;
                total += loss(&logits, &classes, Reduction::Sum)?.f_double_value(&[])?;
                let hits = logits.f_argmax(-1, false)?.f_eq_tensor(&classes)?;
                right += hits.f_sum(Kind::Int64)?.f_int64_value(&[])?;
                count += classes.numel();
                Ok(())
            })?;
        }
        let count = count.max(1) as f64;
        Ok(Some(Evaluation { step, loss: total / count, accuracy: right as f64 / count }))
    }
}
