//! Kubernetes quantities and Go durations as integers.

/// Seconds of a Go-form duration such as `1h30m`, `90s`.
pub fn seconds(text: &str) -> Option<u64> {
    let mut total: u64 = 0;
    let mut digits = String::new();
    if text.is_empty() {
        return None;
    }
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(unit)?)?;
        digits.clear();
    }
    digits.is_empty().then_some(total)
}

/// The shortest Go form of `seconds`.
pub fn go_duration(seconds: u64) -> String {
    let (h, m, s) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut out = String::new();
    for (value, unit) in [(h, 'h'), (m, 'm'), (s, 's')] {
        if value > 0 {
            out.push_str(&format!("{value}{unit}"));
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

/// Value of a quantity in thousandths, rounded up: `500m` is 500, `4Gi` is 4·2^30·1000.
pub fn millis(quantity: &str) -> Option<u128> {
    let split = quantity.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(quantity.len());
    let (number, suffix) = quantity.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.len() > 9 {
        return None;
    }
    let scale = scale_of(suffix)?;
    let fraction_scale = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    let value = format!("{whole}{fraction}").parse::<u128>().ok()?;
    let scaled = value.checked_mul(scale)?;
    Some(scaled.div_ceil(fraction_scale))
}

fn scale_of(suffix: &str) -> Option<u128> {
    Some(match suffix {
        "m" => 1,
        "" => 1000,
        "k" => 1_000_000,
        "M" => 1_000_000_000,
        "G" => 1_000_000_000_000,
        "T" => 1_000_000_000_000_000,
        "P" => 1_000_000_000_000_000_000,
        "Ki" => 1000 << 10,
        "Mi" => 1000 << 20,
        "Gi" => 1000 << 30,
        "Ti" => 1000 << 40,
        "Pi" => 1000 << 50,
        _ => return None,
    })
}

/// Whole units of a quantity, rounded up: bytes of `4Gi`.
pub fn units(quantity: &str) -> Option<u64> {
    u64::try_from(millis(quantity)?.div_ceil(1000)).ok()
}

/// `pattern` with `*` as a wildcard, ASCII case ignored.
pub fn glob(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut p, mut t) = (0, 0);
    // Where the newest star is, and how much of the text it has swallowed. Earlier stars need no second try, so a
    // hostile pattern costs its length times the text's at most.
    let mut star: Option<(usize, usize)> = None;
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(one) if one.eq_ignore_ascii_case(&text[t]) => (p, t) = (p + 1, t + 1),
            _ => {
                let Some((at, swallowed)) = star else { return false };
                star = Some((at, swallowed + 1));
                (p, t) = (at + 1, swallowed + 1);
            }
        }
    }
    pattern[p..].iter().all(|one| *one == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations() {
        assert_eq!(seconds("1h30m"), Some(5400));
        assert_eq!(seconds("90s"), Some(90));
        assert_eq!(go_duration(5400), "1h30m");
        assert_eq!(go_duration(0), "0s");
        for bad in ["", "5", "m", "1d", "-1s"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn quantities() {
        assert_eq!(millis("500m"), Some(500));
        assert_eq!(millis("2"), Some(2000));
        assert_eq!(millis("0.5"), Some(500));
        assert_eq!(units("4Gi"), Some(4 << 30));
        assert_eq!(units("1.5Gi"), Some(3 << 29));
        assert_eq!(units("16M"), Some(16_000_000));
        for bad in ["", "Gi", "1X", "-1", "1e3x"] {
            assert_eq!(millis(bad), None, "{bad}");
        }
    }

    #[test]
    fn globs() {
        assert!(glob("*", "NVIDIA H100"));
        assert!(glob("*h100*", "NVIDIA H100 80GB HBM3"));
        assert!(glob("eu-*", "eu-west"));
        assert!(!glob("eu-*", "us-east"));
        assert!(!glob("H100", "NVIDIA H100"));
        assert!(glob("*a*b*", "xaybz") && glob("**", "") && glob("a*b*b", "abxb") && !glob("*a*b", "ba"));
    }

    #[test]
    fn a_hostile_pattern_costs_no_time() {
        // Tried star by star, this takes some 10^13 steps.
        assert!(!glob(&format!("{}b", "*a".repeat(20)), &"a".repeat(40)));
        assert!(!glob(&format!("{}b", "*a".repeat(500)), &"a".repeat(2000)));
    }
}
