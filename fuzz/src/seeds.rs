//! Inputs to begin with, made of real objects: what is committed under `corpus/`.

pub struct Seed {
    pub target: &'static str,
    pub name: &'static str,
    pub bytes: Vec<u8>,
}

#[cfg(feature = "operator")]
mod chain;
#[cfg(feature = "operator")]
mod operator;
#[cfg(feature = "trainer")]
mod trainer;

/// Those of the halves that are built in.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut take = |target: &'static str, name: &'static str, bytes: Vec<u8>| seeds.push(Seed { target, name, bytes });
    #[cfg(feature = "operator")]
    operator::seeds(&mut take);
    #[cfg(feature = "operator")]
    chain::seeds(&mut take);
    #[cfg(feature = "trainer")]
    trainer::seeds(&mut take);
    let _ = &mut take;
    seeds
}
