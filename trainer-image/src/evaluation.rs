//! What an evaluation comes to.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::recipe::Metric;

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluation {
    pub step: u64,
    /// Mean cross entropy in nats.
    pub loss: f64,
    /// Share of classes guessed right.
    pub accuracy: f64,
}

impl Evaluation {
    fn value(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Loss => self.loss,
            Metric::Accuracy => self.accuracy,
        }
    }

    /// A number that is higher the better.
    pub fn score(&self, metric: Metric) -> f64 {
        match metric {
            Metric::Loss => -self.loss,
            Metric::Accuracy => self.accuracy,
        }
    }

    pub fn report(&self, metrics: &[Metric]) -> BTreeMap<String, f64> {
        let name = |metric: &Metric| match metric {
            Metric::Loss => "loss".to_owned(),
            Metric::Accuracy => "accuracy".to_owned(),
        };
        metrics.iter().map(|metric| (name(metric), self.value(*metric))).collect()
    }
}
