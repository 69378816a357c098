//! What computes a program: libtorch, or the definition itself, which is slow and needs no unit of any device.

use std::sync::Arc;

use freehold_exact::element::Context;
use freehold_exact::interpret::{self, Inputs};
use freehold_exact::program::List;
use freehold_exact::tensor::Tensor;
use tch::Device;

use super::machine::Machine;
use super::plan::Plan;
use super::units::Units;
use crate::error::{Error, Result};

pub trait Engine {
    /// Tensors, as it holds them.
    type Held;

    /// What it is called in messages.
    fn name(&self) -> String;
    /// The results of a list. The first state is made of none.
    fn run(&self, list: List, state: &Self::Held, context: &Context) -> Result<Self::Held>;
    fn load(&self, state: Vec<Tensor>) -> Result<Self::Held>;
    fn store(&self, held: &Self::Held) -> Result<Vec<Tensor>>;
}

pub struct Libtorch {
    pub machine: Machine,
    units: Units,
    data: Vec<tch::Tensor>,
}

impl Libtorch {
    /// Tries what the device can do first.
    pub fn start(plan: &Plan, device: Device, say: &mut dyn FnMut(String)) -> Result<Self> {
        let units = Units::probed(device);
        let machine = Machine::new(plan.program.clone(), &plan.ranges, &units, device)?;
        let data = plan.data.tensors.iter().map(|tensor| machine.load(tensor)).collect::<Result<_>>()?;
        let engine = Self { machine, units, data };
        say(format!("computing exactly by {}", engine.name()));
        Ok(engine)
    }

    pub fn data(&self) -> &[tch::Tensor] {
        &self.data
    }
}

impl Engine for Libtorch {
    type Held = Vec<tch::Tensor>;

    fn name(&self) -> String {
        let names: Vec<&str> = self.units.admitted().iter().map(|unit| unit.name()).collect();
        format!("libtorch ({})", names.join(", "))
    }

    fn run(&self, list: List, state: &Self::Held, context: &Context) -> Result<Self::Held> {
        self.machine.run(list, state, &self.data, context)
    }

    fn load(&self, state: Vec<Tensor>) -> Result<Self::Held> {
        state.iter().map(|tensor| self.machine.load(tensor)).collect()
    }

    fn store(&self, held: &Self::Held) -> Result<Vec<Tensor>> {
        held.iter().map(|tensor| self.machine.store(tensor)).collect()
    }
}

pub struct Interpreter<'a>(pub &'a Plan);

impl Engine for Interpreter<'_> {
    type Held = Vec<Arc<Tensor>>;

    fn name(&self) -> String {
        "the interpreter".into()
    }

    fn run(&self, list: List, state: &Self::Held, context: &Context) -> Result<Self::Held> {
        let inputs = Inputs { state, data: &self.0.data.tensors, context: *context };
        interpret::run(&self.0.program, list, &inputs).map_err(|error| Error::Data(error.to_string()))
    }

    fn load(&self, state: Vec<Tensor>) -> Result<Self::Held> {
        Ok(state.into_iter().map(Arc::new).collect())
    }

    fn store(&self, held: &Self::Held) -> Result<Vec<Tensor>> {
        Ok(held.iter().map(|tensor| tensor.as_ref().clone()).collect())
    }
}
