//! The recipe of a training task: the serde mirror of the kind's schema, with
//! the checks that one recipe can make on itself.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Recipe {
    pub model: Model,
    /// Where the weights come from; the trainer finds them as input `init`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<serde_json::Value>,
    pub optimizer: Optimizer,
    #[serde(default)]
    pub schedule: Schedule,
    pub batch_size: u32,
    #[serde(default = "one")]
    pub gradient_accumulation: u32,
    pub steps: u32,
    #[serde(default)]
    pub seed: u64,
    #[serde(default)]
    pub precision: Precision,
    /// Steps of a segment of exact training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub segment_steps: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataFormat>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<Evaluate>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    #[serde(default)]
    pub checkpoint: Checkpoint,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Model {
    Mlp {
        layers: Vec<u32>,
    },
    Cnn {
        input: [u32; 3],
        channels: Vec<u32>,
        #[serde(default = "three")]
        kernel: u32,
        #[serde(default = "sixty_four")]
        hidden: u32,
        classes: u32,
    },
    Transformer {
        width: u32,
        heads: u32,
        layers: u32,
        context: u32,
    },
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase", deny_unknown_fields)]
pub enum Optimizer {
    Sgd {
        learning_rate: Decimal,
        #[serde(default)]
        momentum: Option<Decimal>,
        #[serde(default)]
        weight_decay: Option<Decimal>,
    },
    Adam {
        learning_rate: Decimal,
        #[serde(default)]
        beta1: Option<Decimal>,
        #[serde(default)]
        beta2: Option<Decimal>,
        #[serde(default)]
        weight_decay: Option<Decimal>,
    },
    Adamw {
        learning_rate: Decimal,
        #[serde(default)]
        beta1: Option<Decimal>,
        #[serde(default)]
        beta2: Option<Decimal>,
        #[serde(default)]
        weight_decay: Option<Decimal>,
    },
}

impl Optimizer {
    pub fn learning_rate(&self) -> f64 {
        match self {
            Self::Sgd { learning_rate, .. } | Self::Adam { learning_rate, .. } | Self::Adamw { learning_rate, .. } => {
                learning_rate.0
            }
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Schedule {
    Constant {
        #[serde(default)]
        warmup: u32,
    },
    Linear {
        #[serde(default)]
        warmup: u32,
        #[serde(default)]
        floor: Percent,
    },
    Cosine {
        #[serde(default)]
        warmup: u32,
        #[serde(default)]
        floor: Percent,
    },
    Step {
        #[serde(default)]
        warmup: u32,
        every: u32,
        factor: Decimal,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self::Constant { warmup: 0 }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Precision {
    #[default]
    F32,
    Bf16,
    ExactI8,
    ExactWide,
}

impl Precision {
    /// Whether it computes in integers.
    pub fn is_exact(self) -> bool {
        matches!(self, Self::ExactI8 | Self::ExactWide)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DataFormat {
    #[serde(default)]
    pub label: Option<String>,
    #[serde(default)]
    pub features: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Evaluate {
    pub every: u32,
    #[serde(default)]
    pub metrics: Vec<Metric>,
    #[serde(default)]
    pub split: Option<Percent>,
}

impl Evaluate {
    pub fn metrics(&self) -> &[Metric] {
        if self.metrics.is_empty() { &[Metric::Loss, Metric::Accuracy] } else { &self.metrics }
    }

    pub fn split(&self) -> Percent {
        self.split.unwrap_or(Percent(10))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    Loss,
    Accuracy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EarlyStopping {
    pub metric: Metric,
    pub patience: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Checkpoint {
    #[serde(default)]
    pub every: Option<GoDuration>,
    #[serde(default)]
    pub every_steps: Option<u32>,
    #[serde(default)]
    pub keep_last: Option<u32>,
    #[serde(default)]
    pub keep_best: Option<u32>,
}

impl Checkpoint {
    pub fn every(&self) -> Duration {
        self.every.map_or(Duration::from_secs(300), |every| every.0)
    }

    pub fn keep_last(&self) -> usize {
        self.keep_last.unwrap_or(2).max(1) as usize
    }

    pub fn keep_best(&self) -> usize {
        self.keep_best.unwrap_or(0) as usize
    }
}

fn one() -> u32 {
    1
}

fn three() -> u32 {
    3
}

fn sixty_four() -> u32 {
    64
}

/// A non-negative decimal that travels as a string, so that no parser on the
/// way can change it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Decimal(pub f64);

impl TryFrom<String> for Decimal {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
        match text.parse::<f64>() {
            Ok(value) if plain && value.is_finite() => Ok(Self(value)),
            _ => Err(format!("`{text:.80}` is not a decimal such as \"0.003\"")),
        }
    }
}

impl From<Decimal> for String {
    fn from(decimal: Decimal) -> Self {
        decimal.0.to_string()
    }
}

/// A whole percentage such as `10%`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Percent(pub u32);

impl Percent {
    pub fn fraction(self) -> f64 {
        f64::from(self.0) / 100.0
    }
}

impl TryFrom<String> for Percent {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.strip_suffix('%')
            .and_then(|digits| digits.parse().ok())
            .filter(|percent| *percent <= 100)
            .map(Self)
            .ok_or_else(|| format!("`{text}` is not a percentage such as \"10%\""))
    }
}

impl From<Percent> for String {
    fn from(percent: Percent) -> Self {
        format!("{}%", percent.0)
    }
}

/// A duration in Go's form (`90s`, `5m`, `1h30m`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct GoDuration(pub Duration);

impl TryFrom<String> for GoDuration {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        let complaint = || format!("`{text}` is not a duration such as \"5m\"");
        let mut seconds = 0_u64;
        let mut number = String::new();
        for c in text.chars() {
            let unit = match c {
                '0'..='9' => {
                    number.push(c);
                    continue;
                }
                'h' => 3600,
                'm' => 60,
                's' => 1,
                _ => return Err(complaint()),
            };
            let count: u64 = number.parse().map_err(|_| complaint())?;
            seconds = count.checked_mul(unit).and_then(|s| s.checked_add(seconds)).ok_or_else(complaint)?;
            number.clear();
        }
        if text.is_empty() || !number.is_empty() { Err(complaint()) } else { Ok(Self(Duration::from_secs(seconds))) }
    }
}

impl From<GoDuration> for String {
    fn from(duration: GoDuration) -> Self {
        format!("{}s", duration.0.as_secs())
    }
}

impl Model {
    /// Columns a row must have; a transformer reads bytes instead.
    pub fn features(&self) -> Option<usize> {
        match self {
            Self::Mlp { layers } => layers.first().map(|width| *width as usize),
            Self::Cnn { input, .. } => Some(input.iter().map(|edge| *edge as usize).product()),
            Self::Transformer { .. } => None,
        }
    }

    /// Outputs, each of which stands for a class (for a transformer: a byte).
    pub fn classes(&self) -> usize {
        match self {
            Self::Mlp { layers } => layers.last().map_or(0, |width| *width as usize),
            Self::Cnn { classes, .. } => *classes as usize,
            Self::Transformer { .. } => 256,
        }
    }

    /// A model file or a task may come from anybody: what the kind's schema bounds is bounded here too, before
    /// anything is reckoned or allocated by it.
    pub fn validate(&self) -> Result<()> {
        self.bounded()?;
        match self {
            Self::Mlp { layers } if layers.len() < 2 || layers.contains(&0) => usage(format!(
                "model.mlp.layers is {layers:?}: give at least an input and an output width, all above 0"
            )),
            Self::Cnn { input, channels, kernel, hidden, classes } => {
                if input.contains(&0) || channels.is_empty() || channels.contains(&0) || *hidden == 0 || *classes < 2 {
                    return usage(
                        "model.cnn: input, channels and hidden must be above 0 and classes at least 2".into(),
                    );
                }
                if kernel % 2 == 0 {
                    return usage(format!("model.cnn.kernel is {kernel}: give an odd edge, such as 3"));
                }
                Ok(())
            }
            Self::Transformer { width, heads, layers, context } => {
                if *width == 0 || *layers == 0 || *context == 0 {
                    return usage("model.transformer: width, layers and context must be above 0".into());
                }
                if *heads == 0 || width % heads != 0 {
                    return usage(format!(
                        "model.transformer.heads is {heads}: it must divide width, which is {width}"
                    ));
                }
                Ok(())
            }
            Self::Mlp { .. } => Ok(()),
        }
    }

    fn bounded(&self) -> Result<()> {
        match self {
            Self::Mlp { layers } => {
                at_most("model.mlp.layers", "entries", layers.len() as u64, 32)?;
                each_at_most("model.mlp.layers", layers, 65_536)
            }
            Self::Cnn { input, channels, kernel, hidden, classes } => {
                each_at_most("model.cnn.input", input, 4096)?;
                at_most("model.cnn.channels", "entries", channels.len() as u64, 16)?;
                each_at_most("model.cnn.channels", channels, 4096)?;
                at_most("model.cnn.kernel", "", u64::from(*kernel), 15)?;
                at_most("model.cnn.hidden", "", u64::from(*hidden), 65_536)?;
                at_most("model.cnn.classes", "", u64::from(*classes), 65_536)
            }
            Self::Transformer { width, heads, layers, context } => {
                at_most("model.transformer.width", "", u64::from(*width), 16_384)?;
                at_most("model.transformer.heads", "", u64::from(*heads), 256)?;
                at_most("model.transformer.layers", "", u64::from(*layers), 128)?;
                at_most("model.transformer.context", "", u64::from(*context), 65_536)
            }
        }
    }
}

fn each_at_most(field: &str, values: &[u32], most: u64) -> Result<()> {
    values.iter().try_for_each(|value| at_most(field, "", u64::from(*value), most))
}

fn at_most(field: &str, what: &str, value: u64, most: u64) -> Result<()> {
    if value <= most {
        return Ok(());
    }
    let what = if what.is_empty() { String::new() } else { format!(" {what}") };
    usage(format!("{field} has {value}{what}: at most {most} are possible"))
}

impl Recipe {
    pub fn label(&self) -> &str {
        self.data.as_ref().and_then(|data| data.label.as_deref()).unwrap_or("label")
    }

    pub fn chosen_features(&self) -> Option<&[String]> {
        self.data.as_ref().and_then(|data| data.features.as_deref())
    }

    pub fn validate(&self) -> Result<()> {
        self.model.validate()?;
        if self.batch_size == 0 || self.gradient_accumulation == 0 || self.steps == 0 {
            return usage("batchSize, gradientAccumulation and steps must be at least 1".into());
        }
        at_most("batchSize", "", u64::from(self.batch_size), 65_536)?;
        at_most("gradientAccumulation", "", u64::from(self.gradient_accumulation), 4096)?;
        at_most("steps", "", u64::from(self.steps), 100_000_000)?;
        if self.optimizer.learning_rate() <= 0.0 {
            return usage("optimizer: learningRate must be above 0".into());
        }
        if let Optimizer::Adam { beta1, beta2, .. } | Optimizer::Adamw { beta1, beta2, .. } = &self.optimizer {
            for (name, beta) in [("beta1", beta1), ("beta2", beta2)] {
                if let Some(Decimal(value)) = beta
                    && *value >= 1.0
                {
                    return usage(format!("optimizer.{name} is {value}: give a value below 1"));
                }
            }
        }
        if let Some(evaluate) = &self.evaluate {
            if evaluate.every == 0 {
                return usage("evaluate.every must be at least 1".into());
            }
            if evaluate.split().0 == 0 || evaluate.split().0 > 90 {
                return usage(format!("evaluate.split is {}%: hold out between 1% and 90%", evaluate.split().0));
            }
        }
        if self.early_stopping.is_some() && self.evaluate.is_none() {
            return usage("earlyStopping needs evaluate: set evaluate.every".into());
        }
        if let (Some(steps), false) = (self.segment_steps, self.precision.is_exact()) {
            return usage(format!(
                "segmentSteps is {steps}: it belongs to precision exact-i8 and exact-wide; remove it"
            ));
        }
        if let Schedule::Step { every: 0, .. } = self.schedule {
            return usage("schedule.step.every must be at least 1".into());
        }
        Ok(())
    }
}

fn usage<T>(message: String) -> Result<T> {
    Err(Error::Usage(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(model: serde_json::Value) -> String {
        serde_json::from_value::<Model>(model).unwrap().validate().unwrap_err().to_string()
    }

    #[test]
    fn a_model_of_a_stranger_cannot_be_of_any_size() {
        let huge = u32::MAX;
        let message =
            refusal(serde_json::json!({ "transformer": { "width": 8, "heads": 1, "layers": huge, "context": 8 } }));
        assert!(message.contains("model.transformer.layers has 4294967295: at most 128"), "{message}");
        let message = refusal(serde_json::json!({ "mlp": { "layers": [huge, huge] } }));
        assert!(message.contains("model.mlp.layers has 4294967295: at most 65536"), "{message}");
        let message = refusal(serde_json::json!({ "mlp": { "layers": vec![1; 40] } }));
        assert!(message.contains("model.mlp.layers has 40 entries: at most 32"), "{message}");
        let cnn = serde_json::json!({ "cnn": { "input": [huge, huge, huge], "channels": [1], "classes": 2 } });
        assert!(refusal(cnn).contains("model.cnn.input has 4294967295: at most 4096"));
    }

    #[test]
    fn a_decimal_is_a_finite_number() {
        assert_eq!(Decimal::try_from("0.003".to_owned()), Ok(Decimal(0.003)));
        for bad in ["9".repeat(400), "inf".into(), "1e5".into(), "-1".into(), ".".into(), String::new()] {
            assert!(Decimal::try_from(bad.clone()).is_err(), "{bad}");
        }
    }
}
