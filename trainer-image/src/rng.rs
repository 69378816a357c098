//! Randomness by position: every number is a function of the seed, what it is
//! for and a counter. A resumed run needs the step and nothing else, and the
//! CPU and the GPU start from the same weights.

/// What a sequence of numbers is for; each use has its own.
#[derive(Clone, Copy, Debug)]
pub enum Stream {
    /// Initial value of the parameter with this index.
    Init(u64),
    /// Which rows are held out.
    Split,
    /// Order of the rows in this epoch.
    Order(u64),
}

/// SplitMix64 (Steele, Lea and Flood, 2014) from a start that the seed and the stream fix.
#[derive(Clone, Debug)]
pub struct Rng {
    state: u64,
}

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Rng {
    pub fn new(seed: u64, stream: Stream) -> Self {
        let (domain, index) = match stream {
            Stream::Init(index) => (1, index),
            Stream::Split => (2, 0),
            Stream::Order(epoch) => (3, epoch),
        };
        let state = mix(mix(mix(seed).wrapping_add(domain)).wrapping_add(index));
        Self { state }
    }

    pub fn next_u64(&mut self) -> u64 {
        self.state = self.state.wrapping_add(GOLDEN);
        mix(self.state)
    }

    /// Uniform in `0..bound`; the bias is below 2⁻³² for any bound that fits memory.
    pub fn below(&mut self, bound: usize) -> usize {
        ((u128::from(self.next_u64()) * bound as u128) >> 64) as usize
    }

    /// Uniform in [0, 1) with 53 bits.
    pub fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Standard normal by Box and Muller's transform.
    pub fn normal(&mut self) -> f64 {
        let radius = (-2.0 * (1.0 - self.unit()).ln()).sqrt();
        radius * (std::f64::consts::TAU * self.unit()).cos()
    }

    /// Fisher and Yates' shuffle of `0..len`.
    pub fn permutation(&mut self, len: usize) -> Vec<u32> {
        let mut order: Vec<u32> = (0..len as u32).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last + 1));
        }
        order
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_depend_on_seed_and_use_alone() {
        let draw = |seed, stream| Rng::new(seed, stream).next_u64();
        assert_eq!(draw(7, Stream::Split), draw(7, Stream::Split));
        assert_ne!(draw(7, Stream::Split), draw(8, Stream::Split));
        assert_ne!(draw(7, Stream::Order(0)), draw(7, Stream::Order(1)));
        assert_ne!(draw(7, Stream::Order(0)), draw(7, Stream::Init(0)));
    }

    #[test]
    fn a_permutation_holds_every_row_once_and_is_not_the_identity() {
        let order = Rng::new(1, Stream::Order(3)).permutation(1000);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert_eq!(sorted, (0..1000).collect::<Vec<u32>>());
        assert_ne!(order, sorted);
    }

    #[test]
    fn normal_numbers_have_mean_zero_and_variance_one() {
        let mut rng = Rng::new(5, Stream::Init(0));
        let draws: Vec<f64> = (0..20_000).map(|_| rng.normal()).collect();
        let mean = draws.iter().sum::<f64>() / 20_000.0;
        let variance = draws.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / 20_000.0;
        assert!(mean.abs() < 0.03 && (variance - 1.0).abs() < 0.05, "mean {mean}, variance {variance}");
    }
}
