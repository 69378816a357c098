//! How the leases of each provider ended, from the market's logs. Outcomes of
//! recent blocks are kept one by one, so that a reorganisation can take them
//! back; older ones are only counted. Pure.

use std::collections::BTreeMap;

use alloy::primitives::{Address, B256};
use freehold_core::record::{Outcome, Record};

/// Blocks that a reorganisation may undo without a new scan.
const RECENT: u64 = 1024;

/// A lease that has not ended.
#[derive(Clone, Copy, Debug)]
struct Lease {
    provider: Address,
    block: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ended {
    id: B256,
    lease: Lease,
    block: u64,
    /// Nothing where its end says nothing of the provider.
    outcome: Option<Outcome>,
}

#[derive(Clone, Debug, Default)]
pub struct Records {
    live: BTreeMap<B256, Lease>,
    recent: Vec<Ended>,
    old: BTreeMap<Address, Record>,
}

impl Records {
    pub fn leased(&mut self, id: B256, provider: Address, block: u64) {
        self.live.insert(id, Lease { provider, block });
    }

    /// `outcome` judges the end, given the provider. An order that was never leased ends without one.
    pub fn ended(&mut self, id: B256, block: u64, outcome: impl FnOnce(Address) -> Option<Outcome>) {
        let Some(lease) = self.live.remove(&id) else { return };
        self.recent.push(Ended { id, lease, block, outcome: outcome(lease.provider) });
        let settled = self.recent.partition_point(|ended| ended.block.saturating_add(RECENT) < block);
        for ended in self.recent.drain(..settled) {
            count(&mut self.old, &ended);
        }
    }

    pub fn rewind(&mut self, ancestor: u64) {
        while let Some(ended) = self.recent.pop_if(|ended| ended.block > ancestor) {
            self.live.insert(ended.id, ended.lease);
        }
        self.live.retain(|_, lease| lease.block <= ancestor);
    }

    pub fn all(&self) -> BTreeMap<Address, Record> {
        let mut all = self.old.clone();
        self.recent.iter().for_each(|ended| count(&mut all, ended));
        all
    }
}

fn count(records: &mut BTreeMap<Address, Record>, ended: &Ended) {
    if let Some(outcome) = ended.outcome {
        records.entry(ended.lease.provider).or_default().add(outcome);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PROVIDER: Address = Address::repeat_byte(3);

    fn id(byte: u8) -> B256 {
        B256::repeat_byte(byte)
    }

    #[test]
    fn a_reorganisation_takes_an_outcome_back_and_the_lease_can_end_otherwise() {
        let mut records = Records::default();
        records.leased(id(1), PROVIDER, 10);
        records.ended(id(1), 12, |_| Some(Outcome::NoShow));
        assert_eq!(records.all()[&PROVIDER].no_shows, 1);
        records.rewind(11);
        assert!(records.all().is_empty());
        records.ended(id(1), 12, |_| Some(Outcome::Accepted));
        assert_eq!(records.all()[&PROVIDER], Record { accepted: 1, ..Record::default() });
        records.rewind(9);
        records.ended(id(1), 12, |_| Some(Outcome::Accepted));
        assert!(records.all().is_empty(), "the lease itself was undone");
    }

    #[test]
    fn old_outcomes_are_counted_once() {
        let mut records = Records::default();
        for number in 0..20 {
            records.leased(id(number), PROVIDER, u64::from(number) * 500);
            records.ended(id(number), u64::from(number) * 500 + 1, |_| Some(Outcome::Accepted));
        }
        assert!(records.recent.len() < 5);
        assert_eq!(records.all()[&PROVIDER].accepted, 20);
    }

    #[test]
    fn an_end_that_says_nothing_counts_nothing() {
        let mut records = Records::default();
        records.ended(id(7), 3, |_| Some(Outcome::NoShow));
        records.leased(id(1), PROVIDER, 10);
        records.ended(id(1), 12, |_| None);
        assert!(records.all().is_empty());
    }
}
