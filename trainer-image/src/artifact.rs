//! The model file: parameters, and all that inference needs beside them.

use std::path::Path;

use tch::{Device, Tensor};

use crate::dataset::Normalization;
use crate::description::Description;
use crate::error::{Error, Result};
use crate::model;
use crate::recipe::Model;
use crate::tensors::{self, Named, Stored};

const MEAN: &str = "normalization.mean";
const DEVIATION: &str = "normalization.deviation";

pub struct Artifact {
    pub description: Description,
    pub parameters: Vec<Tensor>,
    pub normalization: Option<Normalization>,
}

impl Artifact {
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut named = Named::new();
        for (spec, tensor) in model::parameters(&self.description.model).iter().zip(&self.parameters) {
            named.insert(spec.name.clone(), Stored::of(tensor)?);
        }
        write(path, named, &self.description, self.normalization.as_ref())
    }

    pub fn read(path: &Path, device: Device) -> Result<Self> {
        let bad = |what: String| Error::Data(format!("the model {} cannot be used: {what}", path.display()));
        let (named, metadata) = tensors::read(path).map_err(bad)?;
        let metadata = metadata.ok_or_else(|| bad("it was not written by freehold-trainer".into()))?;
        let description = Description::parse(&metadata).map_err(bad)?;
        let served = !(description.precision.is_exact() && matches!(description.model, Model::Transformer { .. }));
        if !served {
            let what = "exact training's transformer (RMS norm, ReLU) can only be trained and replayed yet; train with \
                        precision f32 or bf16 what is to predict or to be trained on";
            return Err(bad(what.into()));
        }
        let parameters = model::from_named(&model::parameters(&description.model), &named, "", device)?;
        let normalization = match (named.get(MEAN), named.get(DEVIATION)) {
            (Some(mean), Some(deviation)) => {
                Some(Normalization { mean: mean.to_vector(), deviation: deviation.to_vector() })
            }
            _ => None,
        };
        let artifact = Self { description, parameters, normalization };
        artifact.check().map_err(bad)?;
        Ok(artifact)
    }

    /// What the shapes of the parameters do not tell.
    fn check(&self) -> std::result::Result<(), String> {
        let Some(width) = self.description.model.features() else { return Ok(()) };
        let outputs = self.description.model.classes();
        if self.description.classes.len() != outputs {
            return Err(format!("it names {} classes for {outputs} outputs", self.description.classes.len()));
        }
        match &self.normalization {
            Some(figures) if figures.mean.len() == width && figures.deviation.len() == width => Ok(()),
            _ => Err(format!("its normalization does not fit {width} features")),
        }
    }
}

/// Writes a model's file: its parameters by name, and what goes with them.
pub fn write(
    path: &Path,
    mut parameters: Named,
    description: &Description,
    normalization: Option<&Normalization>,
) -> Result<()> {
    if let Some(normalization) = normalization {
        parameters.insert(MEAN.into(), Stored::of_vector(&normalization.mean));
        parameters.insert(DEVIATION.into(), Stored::of_vector(&normalization.deviation));
    }
    let metadata = serde_json::to_string(description)
        .map_err(|error| Error::Usage(format!("the model cannot be described: {error}")))?;
    tensors::write(path, &parameters, metadata)
}
