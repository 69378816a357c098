//! The choice among bids.

use std::collections::{BTreeMap, BTreeSet};

use freehold_chain::view::ProviderRecord;
use freehold_core::Address;
use freehold_core::money::{Amount, Rate};
use freehold_core::order::{Bid, Order};
use freehold_core::record::Record;
use rstest::rstest;

use super::world::*;
use crate::task::choose::{Choice, Market, choose};
use crate::task::validate::{self, Limits};

const BID_BY: u64 = 1_000;

fn provider(n: u8) -> Address {
    Address::repeat_byte(n)
}

fn bid(n: u8, hourly: u128) -> Bid {
    Bid { provider: provider(n), price: Rate::per_hour(Amount(hourly)).0, bond: Amount(1), valid_until: BID_BY + 300 }
}

struct Case {
    limits: Limits,
    providers: BTreeMap<Address, ProviderRecord>,
    records: BTreeMap<Address, Record>,
    excluded: BTreeSet<Address>,
    disappointing: BTreeSet<Address>,
    refused: BTreeSet<(Address, u128, u64)>,
    now: u64,
}

impl Case {
    fn new() -> Self {
        let limits = validate::limits(&spec_of(manifest()), &chain_facts()).expect("valid");
        let record = |n: u8| ProviderRecord {
            gateway: "https://g.example".into(),
            attributes: [("region".to_owned(), if n == 1 { "eu-west" } else { "us-east" }.to_owned())].into(),
            attested_by: [Address::repeat_byte(0xa0 + n)].into(),
        };
        let providers = (1..4).map(|n| (provider(n), record(n))).collect();
        Self {
            limits,
            providers,
            records: BTreeMap::new(),
            excluded: BTreeSet::new(),
            disappointing: BTreeSet::new(),
            refused: BTreeSet::new(),
            now: BID_BY - 10,
        }
    }

    fn choose(&self, bids: &[Bid]) -> Choice {
        let mut world = World::new();
        world.until("an order", |w| w.order().is_some());
        let mut order: Order = world.order().expect("an order").clone();
        order.terms.bidBy = alloy::primitives::aliases::U40::from(BID_BY);
        order.bids = bids.to_vec();
        let market = Market {
            limits: &self.limits,
            providers: &self.providers,
            records: &self.records,
            excluded: &self.excluded,
            disappointing: &self.disappointing,
            refused: &self.refused,
            now: self.now,
            block_time: 2,
            decimals: DECIMALS,
        };
        choose(&order, &market)
    }
}

fn reason(choice: Choice) -> &'static str {
    match choice {
        Choice::Nothing { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

#[rstest]
#[case(BID_BY - 40, false)]
#[case(BID_BY - 31, false)]
#[case(BID_BY - 30, true)]
#[case(BID_BY - 2, true)]
fn takes_a_bid_from_half_of_the_window_on(#[case] now: u64, #[case] taken: bool) {
    let case = Case { now, ..Case::new() };
    assert_eq!(case.choose(&[bid(1, 400_000)]), if taken { Choice::Take(bid(1, 400_000)) } else { Choice::Wait });
}

#[test]
fn takes_the_cheapest_and_prefers_who_has_not_disappointed() {
    let mut case = Case::new();
    let bids = [bid(1, 300_000), bid(2, 200_000), bid(3, 400_000)];
    assert_eq!(case.choose(&bids), Choice::Take(bids[1]));
    case.disappointing = [provider(2)].into();
    assert_eq!(case.choose(&bids), Choice::Take(bids[0]));
    assert_eq!(case.choose(&bids[1..2]), Choice::Take(bids[1]), "better than nobody");
    case.excluded = [provider(2)].into();
    assert_eq!(case.choose(&bids[1..2]), Choice::Wait);
}

#[test]
fn a_bad_record_has_to_be_made_up_for_by_the_price() {
    let mut case = Case::new();
    case.records = [(provider(2), Record { no_shows: 1, ..Record::default() })].into();
    let dear = bid(1, 300_000);
    assert_eq!(case.choose(&[dear, bid(2, 200_000)]), Choice::Take(dear), "a fifth as reliable, two thirds as dear");
    assert_eq!(case.choose(&[dear, bid(2, 50_000)]), Choice::Take(bid(2, 50_000)), "a sixth as dear");
    assert_eq!(case.choose(&[bid(2, 200_000)]), Choice::Take(bid(2, 200_000)), "better than nobody");
}

#[test]
fn waits_to_the_end_for_a_suitable_bid() {
    let mut case = Case::new();
    assert_eq!(case.choose(&[]), Choice::Wait);
    assert_eq!(case.choose(&[bid(1, 900_000)]), Choice::Wait);
    case.now = BID_BY;
    assert_eq!(reason(case.choose(&[])), "NoBids");
    assert_eq!(reason(case.choose(&[bid(1, 900_000)])), "PriceTooHigh");
    case.excluded = [provider(1)].into();
    assert_eq!(reason(case.choose(&[bid(1, 100_000)])), "NoMatchingProvider");
    assert_eq!(
        reason(case.choose(&[bid(1, 100_000), bid(2, 900_000)])),
        "PriceTooHigh",
        "a price that would do comes first"
    );
}

#[test]
fn filters_by_address_attribute_and_auditor() {
    let mut case = Case::new();
    let bids = [bid(1, 400_000), bid(2, 200_000)];
    case.limits.providers.attributes = [("region".to_owned(), "eu-*".to_owned())].into();
    assert_eq!(case.choose(&bids), Choice::Take(bids[0]));
    case.limits.providers.attributes = [("tier".to_owned(), "*".to_owned())].into();
    assert_eq!(case.choose(&bids), Choice::Wait, "an attribute that nobody publishes");
    case = Case::new();
    case.limits.providers.addresses = vec![provider(1)];
    assert_eq!(case.choose(&bids), Choice::Take(bids[0]));
    case = Case::new();
    case.limits.providers.any_auditor = vec![Address::repeat_byte(0xa1), Address::repeat_byte(0xaf)];
    assert_eq!(case.choose(&bids), Choice::Take(bids[0]));
    case.limits.providers.all_auditors = vec![Address::repeat_byte(0xa1), Address::repeat_byte(0xa2)];
    assert_eq!(case.choose(&bids), Choice::Wait);
    case = Case::new();
    case.providers.remove(&provider(2));
    assert_eq!(case.choose(&bids), Choice::Take(bids[0]), "without a gateway nothing can be handed over");
}

#[test]
fn leaves_bids_that_have_lapsed_or_were_refused() {
    let mut case = Case::new();
    let lapsed = Bid { valid_until: case.now, ..bid(1, 100_000) };
    assert_eq!(case.choose(&[lapsed, bid(2, 200_000)]), Choice::Take(bid(2, 200_000)));
    let again = bid(2, 200_000);
    case.refused = [(again.provider, again.price, again.valid_until)].into();
    assert_eq!(case.choose(&[again]), Choice::Wait);
}
