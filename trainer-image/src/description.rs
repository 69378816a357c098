//! What a model file says of itself, beside its tensors.

use serde::{Deserialize, Serialize};

use crate::recipe::{Model, Precision};

const FORMAT: &str = "freehold.dev/model/v1";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Description {
    format: String,
    pub model: Model,
    pub precision: Precision,
    /// Names of the outputs; empty for bytes.
    pub classes: Vec<String>,
    /// Names of the feature columns, where the training data had names.
    pub features: Option<Vec<String>>,
}

impl Description {
    pub fn new(model: Model, precision: Precision, classes: Vec<String>, features: Option<Vec<String>>) -> Self {
        Self { format: FORMAT.into(), model, precision, classes, features }
    }

    /// Reads a model file's own description; an error is a sentence on what is wrong with it.
    pub fn parse(metadata: &str) -> std::result::Result<Self, String> {
        let description: Self = serde_json::from_str(metadata).map_err(|error| error.to_string())?;
        if description.format != FORMAT {
            return Err(format!("its format is `{}`, not `{FORMAT}`", description.format));
        }
        description.model.validate().map_err(|error| error.to_string())?;
        Ok(description)
    }
}
