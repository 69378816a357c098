//! How much memory a run needs, told before it runs: a clear sentence instead
//! of an exit code 137.

use crate::error::{Error, Result};
use crate::recipe::{Model, Optimizer, Recipe};
use crate::task::Resources;

/// Where the network computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Cpu,
    Gpu,
}

/// What libtorch and the process occupy before any data, measured.
pub const RUNTIME: u64 = 160 << 20;

/// Where the kernel says what the container may use: cgroup 2, then cgroup 1.
const LIMIT_FILES: [&str; 2] = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"];

/// The least of what the task was given and what the container may use.
pub fn limit(resources: Resources) -> Option<u64> {
    let read = |path: &&str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let given = Some(resources.memory).filter(|bytes| *bytes > 0);
    LIMIT_FILES.iter().filter_map(read).chain(given).min()
}

/// `lower` names what else the user can change.
pub fn require(what: &str, bytes: u64, limit: Option<u64>, lower: &str) -> Result<()> {
    match limit {
        Some(limit) if bytes > limit => Err(Error::Usage(format!(
            "too little memory: {what} needs about {}, but the container may use {}; raise resources.memory, \
             or lower {lower}",
            human(bytes),
            human(limit)
        ))),
        _ => Ok(()),
    }
}

/// Bytes of main memory that training needs at its peak, beyond `RUNTIME`.
///
/// What lies on a GPU is not checked: tch cannot say how much memory that has.
/// libtorch's own error there becomes a sentence with a remedy (see `Error`).
pub fn training(recipe: &Recipe, parameters: u64, rows: u64, side: Side) -> u64 {
    let slots = match recipe.optimizer {
        Optimizer::Sgd { momentum: None, .. } => 0,
        Optimizer::Sgd { .. } => 1,
        Optimizer::Adam { .. } | Optimizer::Adamw { .. } => 2,
    };
    let best = u64::from(recipe.early_stopping.is_some());
    let activations = activations(&recipe.model).saturating_mul(u64::from(recipe.batch_size));
    let (copies, activations) = if side == Side::Gpu {
        // A checkpoint that is resumed from is there twice: the file's bytes, and the tensors out of it.
        (2 * (1 + slots + best), 0)
    } else {
        // Values, gradients, and what a checkpoint copies while it is written.
        (1 + 1 + 2 * (slots + best) + 1, activations)
    };
    let width = recipe.model.features().unwrap_or(0) as u64;
    // The rows exist twice while they are handed to libtorch.
    let data = rows.saturating_mul(2 * width * 4 + 16);
    data.saturating_add(copies * parameters * 4).saturating_add(activations)
}

/// Bytes a row that inference needs where the network is widest: layer by
/// layer what goes in and what comes out, since nothing is kept for gradients.
/// `positions` is how many bytes of text a transformer sees at once.
pub fn inference(model: &Model, positions: usize) -> u64 {
    let wide = |value: u32| u64::from(value);
    let numbers = match model {
        Model::Mlp { layers } => layers.windows(2).map(|pair| wide(pair[0]) + wide(pair[0].max(pair[1]))).max(),
        Model::Cnn { input, channels, .. } => {
            let pixels = wide(input[1]) * wide(input[2]);
            channels.iter().enumerate().map(|(depth, c)| 2 * wide(*c) * (pixels >> (2 * depth.min(15)))).max()
        }
        Model::Transformer { width, heads, .. } => {
            let (width, heads, positions) = (wide(*width), wide(*heads), positions as u64);
            let attention = 3 * heads * positions * positions + 5 * positions * width;
            Some(attention.max(10 * positions * width).max(256 * positions))
        }
    };
    numbers.unwrap_or_default() * 4
}

/// Bytes of activations and their gradients a row.
fn activations(model: &Model) -> u64 {
    let wide = |value: u32| u64::from(value);
    let numbers: u64 = match model {
        Model::Mlp { layers } => layers.iter().map(|layer| 2 * wide(*layer)).sum(),
        Model::Cnn { input, channels, hidden, classes, .. } => {
            let pixels = wide(input[1]) * wide(input[2]);
            let maps: u64 =
                channels.iter().enumerate().map(|(depth, c)| 3 * wide(*c) * (pixels >> (2 * depth.min(15)))).sum();
            wide(input[0]) * pixels + maps + 2 * (wide(*hidden) + wide(*classes))
        }
        Model::Transformer { width, heads, layers, context } => {
            let (width, heads, context) = (wide(*width), wide(*heads), wide(*context));
            wide(*layers) * (context * width * 16 + 3 * heads * context * context) + 3 * context * 256
        }
    };
    numbers * 4 * 2
}

fn human(bytes: u64) -> String {
    let mib = bytes as f64 / f64::from(1 << 20);
    if mib >= 1024.0 { format!("{:.1} GiB", mib / 1024.0) } else { format!("{mib:.0} MiB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_need_above_the_limit_names_both_and_the_remedy() {
        let error = require("training", 3 << 30, Some(1 << 30), "batchSize").unwrap_err();
        assert_eq!(error.exit_code(), 64);
        let message = error.to_string();
        assert!(message.contains("3.0 GiB") && message.contains("1.0 GiB"), "{message}");
        assert!(message.contains("raise resources.memory, or lower batchSize"), "{message}");
        assert!(require("training", 1 << 20, Some(1 << 20), "batchSize").is_ok());
        assert!(require("training", u64::MAX, None, "batchSize").is_ok());
    }

    #[test]
    fn inference_needs_its_widest_layer_and_the_text_that_there_is() {
        assert_eq!(inference(&Model::Mlp { layers: vec![2, 1000, 10] }, 0), (1000 + 1000) * 4);
        let long = Model::Transformer { width: 64, heads: 4, layers: 2, context: 1 << 20 };
        assert!(inference(&long, 100) < 1 << 20);
    }

    #[test]
    fn on_a_gpu_main_memory_holds_only_rows_and_checkpoints() {
        let recipe: Recipe = serde_json::from_value(serde_json::json!({
            "model": { "transformer": { "width": 1024, "heads": 16, "layers": 24, "context": 1024 } },
            "optimizer": { "adamw": { "learningRate": "0.001" } },
            "batchSize": 64,
            "steps": 10,
        }))
        .unwrap();
        let (parameters, rows) = (300 << 20, 1000);
        let checkpoint = 3 * parameters * 4;
        assert_eq!(training(&recipe, parameters, rows, Side::Gpu), 16 * rows + 2 * checkpoint);
        assert!(training(&recipe, parameters, rows, Side::Cpu) > 100 << 30);
    }
}
