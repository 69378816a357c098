//! Money is integers: amounts in a token's smallest unit, rates a second
//! scaled by 10^12 (design: protocol, section 2). Decimal strings exist only
//! at the edge to people.

use std::fmt;

/// 10^12: rates carry this factor so that cheap leases do not round away.
pub const RATE_SCALE: u128 = 1_000_000_000_000;

/// An amount in the token's smallest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Amount(pub u128);

/// Smallest units a second, times [`RATE_SCALE`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(pub u128);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("`{text}` is not a decimal amount; write whole tokens such as \"1.25\"")]
    Malformed { text: String },
    #[error("`{text}` has more than the token's {decimals} decimals; round it to {decimals}")]
    TooPrecise { text: String, decimals: u8 },
    #[error("`{text}` is too large for a 128-bit amount")]
    TooLarge { text: String },
}

impl Amount {
    pub const ZERO: Self = Self(0);

    /// Whole tokens as a decimal string, such as `"1.25"`.
    pub fn parse(text: &str, decimals: u8) -> Result<Self, Error> {
        let malformed = || Error::Malformed { text: text.to_owned() };
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !digits(whole) || !digits(fraction) || text.ends_with('.') {
            return Err(malformed());
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > usize::from(decimals) {
            return Err(Error::TooPrecise { text: text.to_owned(), decimals });
        }
        let padded = format!("{whole}{fraction:0<width$}", width = usize::from(decimals));
        padded.parse().map(Self).map_err(|_| Error::TooLarge { text: text.to_owned() })
    }

    /// What a limit in whole tokens allows: rounded down where the token is coarser. One that cannot be read allows
    /// nothing, since the other way round it would not limit.
    pub fn limit(text: &str, decimals: u8) -> Self {
        match text.split_once('.') {
            Some((whole, fraction)) if fraction.len() > usize::from(decimals) && fraction.is_ascii() => {
                let kept = format!("{whole}.{}", &fraction[..usize::from(decimals)]);
                Self::parse(kept.trim_end_matches('.'), decimals).unwrap_or(Self::ZERO)
            }
            _ => Self::parse(text, decimals).unwrap_or(Self::ZERO),
        }
    }

    /// Whole tokens without needless zeros.
    pub fn format(self, decimals: u8) -> String {
        let digits = format!("{:0>width$}", self.0, width = usize::from(decimals) + 1);
        let (whole, fraction) = digits.split_at(digits.len() - usize::from(decimals));
        match fraction.trim_end_matches('0') {
            "" => whole.to_owned(),
            fraction => format!("{whole}.{fraction}"),
        }
    }

    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    pub fn saturating_add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The part of an accrual that is paid without the tenant's word.
    pub fn released(self, holdback_bps: u16) -> Self {
        self.bps(10_000u16.saturating_sub(holdback_bps))
    }

    /// `self · bps / 10_000`, floored.
    pub fn bps(self, bps: u16) -> Self {
        Self(mul_div(self.0, u128::from(bps), 10_000))
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::iter::Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Self::saturating_add)
    }
}

impl Rate {
    /// From an amount an hour, floored.
    pub fn per_hour(amount: Amount) -> Self {
        Self(mul_div(amount.0, RATE_SCALE, 3600))
    }

    /// An hour at this rate, rounded to the nearest unit so that `per_hour` comes back as written.
    pub fn hourly(self) -> Amount {
        Amount(mul_div(self.0, 3600, RATE_SCALE).max(mul_div(self.0.saturating_add(1), 3600, RATE_SCALE)))
    }

    /// What accrues in `seconds`, floored, as the contract computes it.
    pub fn accrued(self, seconds: u64, cap: Amount) -> Amount {
        Amount(mul_div(self.0, u128::from(seconds), RATE_SCALE)).min(cap)
    }

    /// The least amount that lasts for so many seconds.
    pub fn costs(self, seconds: u64) -> Amount {
        Amount(mul_div_up(self.0, u128::from(seconds), RATE_SCALE))
    }

    /// Seconds until the accrual reaches `cap`, the last one begun included, as the contract computes it.
    pub fn lasts(self, cap: Amount) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        u64::try_from(mul_div_up(cap.0, RATE_SCALE, self.0)).unwrap_or(u64::MAX)
    }

    /// Whole seconds that `cap` lasts.
    pub fn seconds_until(self, cap: Amount) -> u64 {
        if self.0 == 0 {
            return u64::MAX;
        }
        u64::try_from(mul_div(cap.0, RATE_SCALE, self.0)).unwrap_or(u64::MAX)
    }
}

/// `a · b / c`, rounded up; saturates at `u128::MAX`. `c` is not zero.
fn mul_div_up(a: u128, b: u128, c: u128) -> u128 {
    use alloy_primitives::U256;
    let wide = (U256::from(a) * U256::from(b)).div_ceil(U256::from(c));
    u128::try_from(wide).unwrap_or(u128::MAX)
}

/// `a · b / c`, floored; saturates at `u128::MAX`. `c` is not zero.
pub fn mul_div(a: u128, b: u128, c: u128) -> u128 {
    use alloy_primitives::U256;
    let wide = U256::from(a) * U256::from(b) / U256::from(c);
    u128::try_from(wide).unwrap_or(u128::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_bid_may_name_any_rate() {
        assert!(Rate(u128::MAX).hourly() > Rate(1 << 100).hourly());
    }

    #[test]
    fn a_limit_rounds_down_and_one_that_cannot_be_read_allows_nothing() {
        assert_eq!(Amount::limit("1.25", 6), Amount(1_250_000));
        assert_eq!(Amount::limit("1.2345678", 6), Amount(1_234_567));
        assert_eq!(Amount::limit("0.0000001", 6), Amount::ZERO);
        assert_eq!(Amount::limit("7.9", 0), Amount(7));
        assert_eq!(Amount::limit("much", 6), Amount::ZERO);
        assert_eq!(Amount::limit("999999999999", 36), Amount::ZERO);
    }

    #[test]
    fn reads_and_writes_whole_tokens() {
        assert_eq!(Amount::parse("1.25", 6), Ok(Amount(1_250_000)));
        assert_eq!(Amount::parse("0.50", 6), Ok(Amount(500_000)));
        assert_eq!(Amount(1_250_000).format(6), "1.25");
        assert_eq!(Amount(7).format(6), "0.000007");
        assert_eq!(Amount(12).format(0), "12");
        assert!(matches!(Amount::parse("0.0000001", 6), Err(Error::TooPrecise { .. })));
        for bad in ["", ".", "1.", ".5", "-1", "1e3", "1,5", " 1"] {
            assert!(matches!(Amount::parse(bad, 6), Err(Error::Malformed { .. })), "{bad}");
        }
    }

    #[test]
    fn a_cent_an_hour_does_not_round_away() {
        let rate = Rate::per_hour(Amount(10_000));
        assert_eq!(rate.hourly(), Amount(10_000));
        assert_eq!(rate.accrued(3600, Amount(u128::MAX)), Amount(9_999));
    }

    proptest! {
        #[test]
        fn amounts_survive_the_round_trip(units in 0u128..1u128 << 100, decimals in 0u8..19) {
            let amount = Amount(units);
            prop_assert_eq!(Amount::parse(&amount.format(decimals), decimals), Ok(amount));
        }

        #[test]
        fn what_a_time_costs_lasts_for_it_and_one_unit_less_does_not(rate in 1u128..1u128 << 90, t in 1u64..1 << 40) {
            let rate = Rate(rate);
            let cost = rate.costs(t);
            prop_assert!(rate.lasts(cost) >= t);
            prop_assert!(rate.accrued(t, Amount(u128::MAX)) <= cost);
            // In the second before the end the accrual has not reached the cap.
            prop_assert!(rate.accrued(rate.lasts(cost) - 1, Amount(u128::MAX)) < cost);
            if rate.0 >= RATE_SCALE && cost.0 > 1 {
                prop_assert!(rate.lasts(Amount(cost.0 - 1)) <= t);
            }
        }

        #[test]
        fn accrual_is_monotone_and_capped(rate in 0u128..1u128 << 90, t in 0u64..1 << 40, dt in 0u64..1 << 30, cap in 0u128..1u128 << 90) {
            let (rate, cap) = (Rate(rate), Amount(cap));
            prop_assert!(rate.accrued(t, cap) <= rate.accrued(t + dt, cap));
            prop_assert!(rate.accrued(t + dt, cap) <= cap);
        }
    }
}
