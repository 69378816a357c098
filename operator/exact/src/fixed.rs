//! Exponentials, cosines and logarithms in integers: no library of floating-point functions gives the same last bit
//! everywhere, and the tables that recipes compile to are part of a program's identity.
//!
//! Numbers are fractions of 2^60 in i128. A table's values have at most 40 fractional bits, far above the error here.

/// One, with 60 fractional bits.
pub const ONE: i128 = 1 << 60;
const PI: i128 = 3_622_009_729_038_561_421;
const LN_2: i128 = 799_144_290_325_165_979;

pub fn times(x: i128, y: i128) -> i128 {
    (x * y + (ONE >> 1)) >> 60
}

/// `numerator / denominator`, rounded down.
pub fn ratio(numerator: i64, denominator: i64) -> i128 {
    (i128::from(numerator) * ONE).div_euclid(i128::from(denominator))
}

/// To `bits` fractional bits, halves up.
pub fn rounded(x: i128, bits: u32) -> i64 {
    let places = 60 - bits.min(60);
    let half = if places == 0 { 0 } else { 1_i128 << (places - 1) };
    i64::try_from((x + half) >> places).unwrap_or(i64::MAX)
}

pub fn power(base: i128, exponent: u64) -> i128 {
    let (mut result, mut square, mut left) = (ONE, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = times(result, square);
        }
        square = times(square, square);
        left >>= 1;
    }
    result
}

/// Rounded down, of an x from 0 to 16.
pub fn root(x: i128) -> i128 {
    // 124 bits at most, so half of the lowest are left out and put back as zeros.
    ((x.max(0) << 58).isqrt()) << 1
}

/// e^−x of an x from 0: e^−1 to the whole part, times the series of the rest.
pub fn exp_neg(x: i128) -> i128 {
    let x = x.max(0);
    let (whole, rest) = (x >> 60, x & (ONE - 1));
    let series = |x: i128| {
        let (mut sum, mut term) = (ONE, ONE);
        for n in 1..30 {
            term = -times(term, x) / n;
            sum += term;
        }
        sum
    };
    match u64::try_from(whole) {
        Ok(whole) if whole < 64 => times(power(series(ONE), whole), series(rest)),
        _ => 0,
    }
}

/// Natural logarithm of an x above 0.
pub fn ln(x: i128) -> i128 {
    let x = x.max(1);
    let twos = i128::from(127 - x.leading_zeros()) - 60;
    // Between one and two: 2 · artanh((m − 1) / (m + 1)).
    let m = if twos >= 0 { x >> twos } else { x << -twos };
    let z = ((m - ONE) << 60) / (m + ONE);
    let square = times(z, z);
    let (mut sum, mut odd) = (0, z);
    for n in 0..40 {
        sum += odd / (2 * n + 1);
        odd = times(odd, square);
    }
    2 * sum + twos * LN_2
}

/// cos(π · x) of an x from 0 to 1.
pub fn cos_pi(x: i128) -> i128 {
    let x = x.clamp(0, ONE);
    if x > ONE / 2 {
        return -cos_pi(ONE - x);
    }
    let angle = times(PI, x);
    let square = times(angle, angle);
    let (mut sum, mut term) = (ONE, ONE);
    for n in 1..16 {
        term = -times(term, square) / ((2 * n - 1) * (2 * n));
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(x: i128) -> f64 {
        x as f64 / ONE as f64
    }

    fn close(found: i128, expected: f64) {
        assert!(
            (float(found) - expected).abs() < 1e-13 * expected.abs().max(1.0),
            "{} is not {expected}",
            float(found)
        );
    }

    #[test]
    fn functions_agree_with_floats() {
        for j in 0..2_000 {
            let (x, fx) = (ratio(j, 97), j as f64 / 97.0);
            close(exp_neg(x), (-fx).exp());
            close(cos_pi(ratio(j, 1_999)), (std::f64::consts::PI * j as f64 / 1_999.0).cos());
            close(ln(x + ONE / 1_000), (fx + 0.001).ln());
            close(power(ratio(999, 1_000), j as u64), 0.999_f64.powi(j as i32));
        }
    }

    #[test]
    fn known_values() {
        assert_eq!(rounded(exp_neg(0), 15), 1 << 15);
        assert_eq!(rounded(exp_neg(ONE), 30), 395_007_542); // 2^30 / e = 395 007 542.05…
        assert_eq!(rounded(ln(2 * ONE), 30), 744_261_118); // 2^30 · ln 2 = 744 261 117.95…
        assert_eq!(rounded(cos_pi(ratio(1, 3)), 20), 1 << 19);
        assert_eq!(root(4 * ONE), 2 * ONE);
        assert_eq!(rounded(root(2 * ONE), 30), 1_518_500_250); // 2^30 · √2 = 1 518 500 249.99…
        assert_eq!(exp_neg(64 * ONE), 0);
        assert_eq!((cos_pi(0), cos_pi(ONE)), (ONE, -ONE));
    }
}
