//! Which rows a micro-batch holds: a function of the seed and of how many rows
//! were taken before, so that a resumed run goes on where it stopped.

use crate::rng::{Rng, Stream};

/// Goes through the rows epoch after epoch, each in an order of its own.
pub struct Sampler<'a> {
    rows: &'a [u32],
    seed: u64,
    /// The epoch whose order is at hand.
    epoch: u64,
    order: Vec<u32>,
}

impl<'a> Sampler<'a> {
    pub fn new(rows: &'a [u32], seed: u64) -> Self {
        let order = Rng::new(seed, Stream::Order(0)).permutation(rows.len());
        Self { rows, seed, epoch: 0, order }
    }

    /// The rows from `position` on, counted over all epochs.
    pub fn take(&mut self, position: u64, count: usize) -> Vec<i64> {
        (position..position + count as u64).map(|position| self.row(position)).collect()
    }

    fn row(&mut self, position: u64) -> i64 {
        let len = self.rows.len() as u64;
        let epoch = position / len;
        if epoch != self.epoch {
            self.order = Rng::new(self.seed, Stream::Order(epoch)).permutation(self.rows.len());
            self.epoch = epoch;
        }
        i64::from(self.rows[self.order[(position % len) as usize] as usize])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_takes_each_row_once_in_another_order() {
        let rows: Vec<u32> = (100..110).collect();
        let mut sampler = Sampler::new(&rows, 7);
        let (first, second) = (sampler.take(0, 10), sampler.take(10, 10));
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (100..110).collect::<Vec<i64>>());
        }
    }

    #[test]
    fn a_position_gives_the_same_rows_whatever_was_taken_before() {
        let rows: Vec<u32> = (0..7).collect();
        let mut straight = Sampler::new(&rows, 7);
        let all: Vec<i64> = (0..10).flat_map(|batch| straight.take(batch * 4, 4)).collect();
        assert_eq!(Sampler::new(&rows, 7).take(24, 16), all[24..]);
    }
}
