use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures;

#[rstest]
#[case("1m", Some(60))]
#[case("1h", Some(LONGEST_VALIDITY))]
#[case("0s", None)]
#[case("soon", None)]
fn a_bid_holds_no_longer_than_five_minutes(#[case] text: &str, #[case] seconds: Option<u64>) {
    let mut spec = fixtures::provider();
    spec.bidding.validity = text.into();
    assert_eq!(validate(&spec, 6).ok().map(|offer| offer.limits.validity), seconds);
}

#[test]
fn an_amount_finer_than_the_token_is_named() {
    let mut spec = fixtures::provider();
    spec.bidding.max_bond = "0.0000001".into();
    let error = validate(&spec, 6).unwrap_err().to_string();
    assert!(error.starts_with("spec.bidding.maxBond: "), "{error}");
}
