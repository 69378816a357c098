//! The built-in training recipe: what `freehold-trainer` trains, and how.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::scalars::{Decimal, GoDuration, ObjectName, Percent, Sha256};

/// A model, its optimizer and its schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("!has(self.earlyStopping) || has(self.evaluate)", "earlyStopping needs evaluate: set evaluate.every"))]
#[x_kube(validation = ("!has(self.model.transformer) || self.model.transformer.width % self.model.transformer.heads == 0", "model.transformer.heads must divide width"))]
#[x_kube(validation = ("!has(self.model.cnn) || !has(self.model.cnn.kernel) || self.model.cnn.kernel % 2 == 1", "model.cnn.kernel must be odd, such as 3"))]
#[x_kube(validation = ("(has(self.optimizer.sgd) ? self.optimizer.sgd.learningRate : has(self.optimizer.adam) ? self.optimizer.adam.learningRate : self.optimizer.adamw.learningRate).matches('[1-9]')", "optimizer: learningRate must be above 0"))]
#[x_kube(validation = ("!has(self.optimizer.adam) || ((!has(self.optimizer.adam.beta1) || self.optimizer.adam.beta1.startsWith('0')) && (!has(self.optimizer.adam.beta2) || self.optimizer.adam.beta2.startsWith('0')))", "optimizer.adam: beta1 and beta2 must be below 1"))]
#[x_kube(validation = ("!has(self.optimizer.adamw) || ((!has(self.optimizer.adamw.beta1) || self.optimizer.adamw.beta1.startsWith('0')) && (!has(self.optimizer.adamw.beta2) || self.optimizer.adamw.beta2.startsWith('0')))", "optimizer.adamw: beta1 and beta2 must be below 1"))]
#[x_kube(validation = ("!has(self.evaluate) || !has(self.evaluate.split) || (int(self.evaluate.split.split('%')[0]) >= 1 && int(self.evaluate.split.split('%')[0]) <= 90)", "evaluate.split must be between 1% and 90%"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || has(self.evaluate)", "precision exact-i8 and exact-wide need evaluate: set evaluate.every"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || !has(self.earlyStopping)", "precision exact-i8 and exact-wide make all their steps: remove earlyStopping"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || !has(self.initFrom)", "precision exact-i8 and exact-wide start from the seed: remove initFrom"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || !has(self.checkpoint) || !has(self.checkpoint.keepBest) || self.checkpoint.keepBest == 0", "precision exact-i8 and exact-wide deliver the last state: remove checkpoint.keepBest"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || self.steps <= 1000000", "steps: at most 1000000 with precision exact-i8 and exact-wide"))]
#[x_kube(validation = ("!self.precision.startsWith('exact') || self.batchSize * self.gradientAccumulation <= 4096", "batchSize times gradientAccumulation: at most 4096 with precision exact-i8 and exact-wide"))]
#[x_kube(validation = ("!has(self.segmentSteps) || self.precision.startsWith('exact')", "segmentSteps belongs to precision exact-i8 and exact-wide: remove it"))]
pub struct Recipe {
    /// The network to train.
    pub model: Model,
    /// Where training starts; absent: from seeded random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init_from: Option<InitFrom>,
    /// The update rule.
    pub optimizer: Optimizer,
    /// The learning rate over time; absent: constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Rows a micro-batch.
    #[schemars(range(min = 1, max = 65536))]
    pub batch_size: u32,
    /// Micro-batches an optimizer step.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 4096))]
    pub gradient_accumulation: u32,
    /// Optimizer steps in all.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub steps: u32,
    /// Seed of initialisation and data order.
    #[serde(default)]
    #[schemars(range(min = 0, max = 4_294_967_295_i64))]
    pub seed: u32,
    /// Arithmetic of training; exact-i8 and exact-wide compute in integers.
    #[serde(default)]
    pub precision: Precision,
    /// Steps of a segment of exact training, after each of which its state is committed to; absent: about a minute's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub segment_steps: Option<u32>,
    /// How the input file is read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<DataFormat>,
    /// Held-out evaluation during training.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evaluate: Option<Evaluate>,
    /// Stop when the held-out metric no longer improves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub early_stopping: Option<EarlyStopping>,
    /// When checkpoints are written, and which are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub checkpoint: Option<Checkpoint>,
}

fn one() -> u32 {
    1
}

/// One of the built-in model families.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Model {
    /// A multilayer perceptron over the feature columns.
    #[serde(rename_all = "camelCase")]
    Mlp {
        /// Widths from input to output, such as `[64, 32, 10]`.
        #[schemars(length(min = 2, max = 32), inner(range(min = 1, max = 65536)))]
        layers: Vec<u32>,
    },
    /// A convolutional network over rows that hold images.
    #[serde(rename_all = "camelCase")]
    Cnn {
        /// Channels, height and width of a row, such as `[1, 8, 8]`.
        #[schemars(length(min = 3, max = 3), inner(range(min = 1, max = 4096)))]
        input: Vec<u32>,
        /// Output channels of each convolution.
        #[schemars(length(min = 1, max = 16), inner(range(min = 1, max = 4096)))]
        channels: Vec<u32>,
        /// Edge of the square kernel (odd).
        #[serde(default = "three")]
        #[schemars(range(min = 1, max = 15))]
        kernel: u32,
        /// Width of the hidden dense layer.
        #[serde(default = "sixty_four")]
        #[schemars(range(min = 1, max = 65536))]
        hidden: u32,
        /// Classes of the output.
        #[schemars(range(min = 2, max = 65536))]
        classes: u32,
    },
    /// A decoder transformer over bytes.
    #[serde(rename_all = "camelCase")]
    Transformer {
        /// Width of the residual stream.
        #[schemars(range(min = 8, max = 16384))]
        width: u32,
        /// Attention heads; divides width.
        #[schemars(range(min = 1, max = 256))]
        heads: u32,
        /// Blocks.
        #[schemars(range(min = 1, max = 128))]
        layers: u32,
        /// Bytes of context.
        #[schemars(range(min = 8, max = 65536))]
        context: u32,
    },
}

fn three() -> u32 {
    3
}

fn sixty_four() -> u32 {
    64
}

/// Weights to start from. Set exactly one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = ("has(self.taskRef) != has(self.artifact)", "set exactly one of taskRef and artifact"))]
pub struct InitFrom {
    /// A finished TrainingTask of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task_ref: Option<ObjectName>,
    /// A model in the tenant's store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
}

/// An artifact in the tenant's store, by digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ArtifactRef {
    /// SHA-256 of the artifact.
    pub sha256: Sha256,
}

/// One of the built-in optimizers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Optimizer {
    /// Stochastic gradient descent with momentum.
    #[serde(rename_all = "camelCase")]
    Sgd {
        /// Highest learning rate.
        learning_rate: Decimal,
        /// Momentum (default 0).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        momentum: Option<Decimal>,
        /// Weight decay (default 0).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<Decimal>,
    },
    /// Adam (Kingma and Ba, 2015), weight decay as L2 term.
    #[serde(rename_all = "camelCase")]
    Adam {
        /// Highest learning rate.
        learning_rate: Decimal,
        /// Decay of the first moment (default 0.9).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta1: Option<Decimal>,
        /// Decay of the second moment (default 0.999).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta2: Option<Decimal>,
        /// Weight decay (default 0).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<Decimal>,
    },
    /// AdamW: Adam with decoupled weight decay (Loshchilov and Hutter, 2019).
    #[serde(rename_all = "camelCase")]
    Adamw {
        /// Highest learning rate.
        learning_rate: Decimal,
        /// Decay of the first moment (default 0.9).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta1: Option<Decimal>,
        /// Decay of the second moment (default 0.999).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        beta2: Option<Decimal>,
        /// Weight decay (default 0.01).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        weight_decay: Option<Decimal>,
    },
}

/// Learning-rate schedule; `warmup` counts optimizer steps of linear rise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Schedule {
    /// The same rate at each step.
    #[serde(rename_all = "camelCase")]
    Constant {
        /// Steps of linear rise before the schedule begins.
        #[serde(default)]
        #[schemars(range(min = 0, max = 100_000_000))]
        warmup: u32,
    },
    /// Falls in a straight line to `floor` at the last step.
    #[serde(rename_all = "camelCase")]
    Linear {
        /// Steps of linear rise before the schedule begins.
        #[serde(default)]
        #[schemars(range(min = 0, max = 100_000_000))]
        warmup: u32,
        /// Share of the highest rate that is left at the last step (default 0%).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        floor: Option<Percent>,
    },
    /// Falls along half a cosine to `floor` at the last step.
    #[serde(rename_all = "camelCase")]
    Cosine {
        /// Steps of linear rise before the schedule begins.
        #[serde(default)]
        #[schemars(range(min = 0, max = 100_000_000))]
        warmup: u32,
        /// Share of the highest rate that is left at the last step (default 0%).
        #[serde(default, skip_serializing_if = "Option::is_none")]
        floor: Option<Percent>,
    },
    /// Multiplies the rate by `factor` after every `every` steps.
    #[serde(rename_all = "camelCase")]
    Step {
        /// Steps of linear rise before the schedule begins.
        #[serde(default)]
        #[schemars(range(min = 0, max = 100_000_000))]
        warmup: u32,
        /// Steps between two changes.
        #[schemars(range(min = 1, max = 100_000_000))]
        every: u32,
        /// What the rate is multiplied by.
        factor: Decimal,
    },
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Precision {
    #[default]
    #[serde(rename = "f32")]
    F32,
    #[serde(rename = "bf16")]
    Bf16,
    #[serde(rename = "exact-i8")]
    ExactI8,
    #[serde(rename = "exact-wide")]
    ExactWide,
}

/// How rows are read from the input file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DataFormat {
    /// Name of the label column (default `label`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub label: Option<String>,
    /// Feature columns, in order; absent: all but the label.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096), inner(length(max = 128)))]
    pub features: Option<Vec<String>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evaluate {
    /// Steps between two evaluations.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub every: u32,
    /// What to report; absent: loss and accuracy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub metrics: Vec<Metric>,
    /// Share of the rows held out (default 10%).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Percent>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Metric {
    Loss,
    Accuracy,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct EarlyStopping {
    /// The metric that must improve.
    pub metric: Metric,
    /// Evaluations without improvement before training stops.
    #[schemars(range(min = 1, max = 10_000))]
    pub patience: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Checkpoint {
    /// Time between two checkpoints (default 5m).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<GoDuration>,
    /// Steps between two checkpoints, in addition to `every`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub every_steps: Option<u32>,
    /// Newest checkpoints kept (default 2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub keep_last: Option<u32>,
    /// Best checkpoints kept by the first metric of `evaluate` (default 0).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub keep_best: Option<u32>,
}
