//! Stored tensors as libtorch's, and back.

use tch::{Device, Kind, Tensor, no_grad};

use super::Stored;
use crate::error::Result;

impl Stored {
    pub fn of(tensor: &Tensor) -> Result<Self> {
        let tensor = tensor.f_detach()?.f_to_device(Device::Cpu)?.f_to_kind(Kind::Float)?.f_contiguous()?;
        let mut bytes = vec![0; tensor.numel() * 4];
        tensor.f_copy_data_u8(&mut bytes, tensor.numel())?;
        Ok(Self { shape: tensor.size().iter().map(|edge| *edge as usize).collect(), bytes })
    }

    pub fn to_tensor(&self, device: Device) -> Result<Tensor> {
        let shape: Vec<i64> = self.shape.iter().map(|edge| *edge as i64).collect();
        Ok(Tensor::f_from_data_size(&self.bytes, &shape, Kind::Float)?.f_to_device(device)?)
    }
}

/// A copy that later updates do not change.
pub fn copy_of(tensor: &Tensor) -> Result<Tensor> {
    no_grad(|| {
        let mut copy = tensor.f_zeros_like()?;
        copy.f_copy_(tensor)?;
        Ok(copy)
    })
}
