//! Values as Go writes them.

use std::time::Duration;

/// Parses a boolean as Go's `strconv.ParseBool` does.
///
/// # Errors
/// What is expected instead.
pub fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err(format!("'{text}' is neither true nor false")),
    }
}

/// Parses an integer as Go's `strconv.ParseInt` with base 0 does: `10`, `0x0a`, `0o12`, `012`, `0b1010`, `1_000`.
///
/// # Errors
/// What is expected instead.
pub fn integer(text: &str) -> Result<i64, String> {
    let expected = || format!("'{text}' is not a whole number");
    let (sign, digits) = match text.as_bytes().first() {
        Some(b'-') => (-1, &text[1..]),
        Some(b'+') => (1, &text[1..]),
        _ => (1, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (radix, digits, has_prefix) = if let Some(rest) = lower.strip_prefix("0x") {
        (16, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0o") {
        (8, rest, true)
    } else if let Some(rest) = lower.strip_prefix("0b") {
        (2, rest, true)
    } else if lower.len() > 1 && lower.starts_with('0') {
        (8, &lower[1..], true)
    } else {
        (10, &lower[..], false)
    };
    // An underscore stands between digits, or behind a prefix.
    let first_is_wrong = digits.starts_with('_') && !has_prefix;
    if first_is_wrong || digits.ends_with('_') || digits.contains("__") || digits.is_empty() {
        return Err(expected());
    }
    let digits = digits.replace('_', "");
    if digits.starts_with(['+', '-']) {
        return Err(expected());
    }
    i64::from_str_radix(&digits, radix)
        .map(|number| number * sign)
        .map_err(|_| expected())
}

/// Parses a size: an integer, with `kb`, `mb`, `gb` or `tb` behind it in any case, each a power of 1024.
///
/// # Errors
/// What is expected instead.
pub fn size(text: &str) -> Result<u64, String> {
    let expected = || format!("'{text}' is not a size such as 5mb, 0x10kb or 1048576");
    let lower = text.to_ascii_lowercase();
    let (number, shift) = [("kb", 10), ("mb", 20), ("gb", 30), ("tb", 40)]
        .iter()
        .find_map(|&(unit, shift)| Some((lower.strip_suffix(unit)?, shift)))
        .unwrap_or((&lower, 0));
    let number = integer(number).map_err(|_| expected())?;
    let number = u64::try_from(number).map_err(|_| expected())?;
    number.checked_mul(1 << shift).ok_or_else(expected)
}

/// Parses a length of time as Go's `time.ParseDuration` does: `300ms`, `1.5h`, `2h45m`; `0` needs no unit.
///
/// # Errors
/// What is expected instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is not a length of time such as 300ms, 5s or 2h45m");
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(expected());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let is_number = |byte: &u8| byte.is_ascii_digit() || *byte == b'.';
        let digits = rest.bytes().take_while(|byte| is_number(byte)).count();
        let (number, behind) = rest.split_at(digits);
        let letters = behind.bytes().take_while(|byte| !is_number(byte)).count();
        let (unit, behind) = behind.split_at(letters);
        let scale = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(expected()),
        };
        let number: f64 = number.parse().map_err(|_| expected())?;
        seconds += number * scale;
        rest = behind;
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn booleans() {
        for yes in ["1", "t", "true", "TRUE", "True"] {
            assert_eq!(boolean(yes), Ok(true));
        }
        for no in ["0", "f", "false", "F"] {
            assert_eq!(boolean(no), Ok(false));
        }
        for wrong in ["", "yes", "tRUE", "2"] {
            assert!(boolean(wrong).is_err());
        }
    }

    #[test]
    fn integers() {
        for (text, number) in [
            ("0", 0),
            ("10", 10),
            ("-1", -1),
            ("0x1F", 31),
            ("0o17", 15),
            ("017", 15),
            ("0b101", 5),
            ("1_000", 1000),
            ("0x_ff", 255),
            ("0_7", 7),
        ] {
            assert_eq!(integer(text), Ok(number), "{text}");
        }
        for wrong in [
            "", "-", "1.5", "0x", "08", "1__0", "_1", "1_", "k", "0b2", "--1", "0x-1",
        ] {
            assert!(integer(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("42mb", 42 << 20),
            ("4_2", 42),
            ("00", 0),
            ("0", 0),
            ("0_600tb", 0o600 << 40),
            ("0600Tb", 0o600 << 40),
            ("0o12Mb", 10 << 20),
            ("0b_10010001111_1kb", 0b1001_0001_1111 << 10),
            ("1024", 1024),
            ("0b111", 7),
            ("0x12gB", 0x12 << 30),
            ("32KB", 32 << 10),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for wrong in [
            "",
            "kb",
            "1k",
            "1m",
            "1.5mb",
            "-1",
            "1 mb",
            "99999999999tb",
            "1pb",
        ] {
            assert!(size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        for (text, millis) in [
            ("0", 0),
            ("5s", 5000),
            ("300ms", 300),
            ("1.5h", 5_400_000),
            ("2h45m", 9_900_000),
            ("1m0.5s", 60_500),
            (".5s", 500),
            ("1000000ns", 1),
            ("1000us", 1),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for wrong in ["", "5", "s", "-1s", "1d", "1.2.3s", "5 s", "1h5"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
