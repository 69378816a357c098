//! How much memory a run needs, told before it runs: a clear sentence instead
//! of an exit code 137.

use crate::error::{Error, Result};
use crate::recipe::{Model, Optimizer, Recipe};
use crate::task::Resources;

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

pub fn require(what: &str, bytes: u64, limit: Option<u64>) -> Result<()> {
    match limit {
        Some(limit) if bytes > limit => Err(Error::Usage(format!(
            "too little memory: {what} needs about {}, but the container may use {}; raise resources.memory, \
             or lower batchSize or the model's size",
            human(bytes),
            human(limit)
        ))),
        _ => Ok(()),
    }
}

/// Bytes that training needs at its peak, beyond `RUNTIME`, in main memory or,
/// but for the rows, on the GPU.
pub fn training(recipe: &Recipe, parameters: u64, rows: u64) -> u64 {
    let slots = match recipe.optimizer {
        Optimizer::Sgd { momentum: None, .. } => 0,
        Optimizer::Sgd { .. } => 1,
        Optimizer::Adam { .. } | Optimizer::Adamw { .. } => 2,
    };
    let best = u64::from(recipe.early_stopping.is_some());
    // Values, gradients, and what a checkpoint copies while it is written.
    let copies = 1 + 1 + 2 * (slots + best) + 1;
    let width = recipe.model.features().unwrap_or(0) as u64;
    // The rows exist twice while they are handed to libtorch.
    let data = rows * (2 * width * 4 + 16);
    data + copies * parameters * 4 + activations(&recipe.model) * u64::from(recipe.batch_size)
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
        let error = require("training", 3 << 30, Some(1 << 30)).unwrap_err();
        assert_eq!(error.exit_code(), 64);
        let message = error.to_string();
        assert!(message.contains("3.0 GiB") && message.contains("1.0 GiB"), "{message}");
        assert!(message.contains("resources.memory"), "{message}");
        assert!(require("training", 1 << 20, Some(1 << 20)).is_ok());
        assert!(require("training", u64::MAX, None).is_ok());
    }
}
