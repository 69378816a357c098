//! Small texts with a grammar of their own: amounts, durations, quantities, patterns, digests.

use freehold_chain::calldata::price_of;
use freehold_core::money::{Amount, Rate};
use freehold_core::units;

use crate::bytes::Bytes;

/// Decimals, then an amount, a duration, a quantity, a pattern and what it is held against, a price.
pub fn values(data: &[u8]) {
    let mut data = Bytes(data);
    // A policy and the contracts' view take no more than 36; a token may say any byte.
    let decimals = data.u8();
    amount(&data.text(), decimals);
    duration(&data.text());
    quantity(&data.text());
    let (pattern, text) = (data.text(), data.text());
    assert_eq!(units::glob(&pattern, &text), matches(&pattern, &text), "`{pattern}` against `{text}`");
    if let Ok(price) = price_of(&data.text()) {
        let hourly = Rate(price).hourly();
        assert!(Rate::per_hour(hourly).0 <= price.max(Rate::per_hour(Amount(u128::MAX)).0));
    }
}

fn amount(text: &str, decimals: u8) {
    let parsed = Amount::parse(text, decimals);
    if let Ok(amount) = parsed {
        let printed = amount.format(decimals);
        assert_eq!(Amount::parse(&printed, decimals), Ok(amount), "{text} became {printed}");
        assert_eq!(Amount::limit(text, decimals), amount);
        assert!(printed.len() <= text.len() + 1, "the shortest form is no longer than another");
    }
    // A limit never allows more than was written.
    let limit = Amount::limit(text, decimals);
    if let Ok(finer) = Amount::parse(text, decimals.saturating_add(20))
        && decimals <= 30
    {
        let scale = 10_u128.checked_pow(20.min(u32::from(255 - decimals)));
        assert!(scale.and_then(|scale| limit.0.checked_mul(scale)).is_none_or(|limit| limit <= finer.0));
    }
}

fn duration(text: &str) {
    if let Some(seconds) = units::seconds(text) {
        let printed = units::go_duration(seconds);
        assert_eq!(units::seconds(&printed), Some(seconds), "{text} became {printed}");
    }
}

fn quantity(text: &str) {
    if let (Some(millis), Some(whole)) = (units::millis(text), units::units(text)) {
        assert_eq!(u128::from(whole), millis.div_ceil(1000));
    }
}

/// Whether `*` stands for any run of characters, the slow and plain way: what of the text each star may have reached.
fn matches(pattern: &str, text: &str) -> bool {
    let text = text.as_bytes();
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for one in pattern.bytes() {
        let before = reached.clone();
        for at in 0..=text.len() {
            reached[at] = match one {
                b'*' => before[..=at].contains(&true),
                _ => at > 0 && before[at - 1] && text[at - 1].eq_ignore_ascii_case(&one),
            };
        }
    }
    reached[text.len()]
}
