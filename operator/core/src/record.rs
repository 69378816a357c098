//! What a provider did with the leases that it won, and what that is worth when
//! bids are compared. The weights are published: who bids knows what counts.
//!
//! Reliability, in thousandths, is `1000 · c / (c + d + 4·l + 4·r + 8·n)` of
//! `c` results accepted, `d` declined, `l` closed by the provider, `r` results
//! rejected and `n` no-shows, where `c` begins at 2: a newcomer has 1000, and
//! one bad lease does not end it. Bids are compared by `price · 1000 /
//! reliability`, so a provider that fails half of its leases is taken where it
//! is half as dear.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Accepted,
    Declined,
    /// By the provider, while it ran.
    Closed,
    Rejected,
    NoShow,
}

/// Leases of a provider by how they ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub accepted: u32,
    pub declined: u32,
    pub closed: u32,
    pub rejected: u32,
    pub no_shows: u32,
}

const FULL: u64 = 1000;
const NEWCOMER: u64 = 2;
const DECLINED: u64 = 1;
const CLOSED: u64 = 4;
const REJECTED: u64 = 4;
const NO_SHOW: u64 = 8;

impl Record {
    pub fn add(&mut self, outcome: Outcome) {
        let count = match outcome {
            Outcome::Accepted => &mut self.accepted,
            Outcome::Declined => &mut self.declined,
            Outcome::Closed => &mut self.closed,
            Outcome::Rejected => &mut self.rejected,
            Outcome::NoShow => &mut self.no_shows,
        };
        *count = count.saturating_add(1);
    }

    /// In thousandths, 1 to 1000.
    pub fn reliability(&self) -> u64 {
        let good = NEWCOMER + u64::from(self.accepted);
        let bad = DECLINED * u64::from(self.declined)
            + CLOSED * u64::from(self.closed)
            + REJECTED * u64::from(self.rejected)
            + NO_SHOW * u64::from(self.no_shows);
        (FULL * good / (good + bad)).max(1)
    }

    /// What a bid at `price` is compared by.
    pub fn weigh(&self, price: u128) -> u128 {
        price.saturating_mul(u128::from(FULL)) / u128::from(self.reliability())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Accepted, Closed, Declined, NoShow, Rejected};

    fn record(outcomes: &[Outcome]) -> Record {
        let mut record = Record::default();
        outcomes.iter().for_each(|outcome| record.add(*outcome));
        record
    }

    #[test]
    fn a_newcomer_is_trusted_and_each_failure_costs_its_weight() {
        assert_eq!(record(&[]).reliability(), 1000);
        assert_eq!(record(&[Accepted; 50]).reliability(), 1000);
        assert_eq!(record(&[Declined]).reliability(), 666);
        assert_eq!(record(&[Closed]).reliability(), 333);
        assert_eq!(record(&[Rejected]).reliability(), 333);
        assert_eq!(record(&[NoShow]).reliability(), 200);
    }

    #[test]
    fn a_long_good_record_bears_a_bad_lease() {
        let mut outcomes = vec![Accepted; 98];
        outcomes.push(NoShow);
        assert_eq!(record(&outcomes).reliability(), 925);
    }

    #[test]
    fn half_as_reliable_wins_only_below_half_the_price() {
        let half = record(&[Declined, Declined]);
        assert_eq!(half.reliability(), 500);
        assert_eq!(half.weigh(50), 100);
        assert_eq!(record(&[]).weigh(100), 100);
    }

    #[test]
    fn nothing_overflows() {
        let worst =
            Record { accepted: 0, declined: u32::MAX, closed: u32::MAX, rejected: u32::MAX, no_shows: u32::MAX };
        assert_eq!(worst.reliability(), 1);
        assert_eq!(worst.weigh(u128::MAX), u128::MAX);
    }
}
