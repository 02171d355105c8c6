//! Moments as text (RFC 3339), in UTC.

use crate::time::Timestamp;

/// The moment with nanoseconds, such as `2026-11-22T23:05:01.000000042Z`.
pub(crate) fn format(time: Timestamp) -> String {
    let (secs, nanos) = time.as_secs_nanos();
    let (year, month, day) = civil(secs / 86_400);
    let second = secs % 86_400;
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{nanos:09}Z",
        second / 3600,
        second / 60 % 60,
        second % 60
    )
}

/// Reads a moment with any number of fraction digits and any offset; `None` for anything else or before 1970.
pub(crate) fn parse(text: &str) -> Option<Timestamp> {
    let (date, rest) = text.split_at_checked(10)?;
    let mut parts = date.split('-').map(digits);
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    let rest = rest.strip_prefix(['T', 't', ' '])?;
    let (clock, rest) = rest.split_at_checked(8)?;
    let mut parts = clock.split(':').map(digits);
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    if parts.next().is_some() || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (nanos, zone) = match rest.strip_prefix('.') {
        None => (0, rest),
        Some(fraction) => {
            let length = fraction.bytes().take_while(u8::is_ascii_digit).count();
            let kept = &fraction[..length.min(9)];
            let scale = 10u64.pow(9 - u32::try_from(kept.len()).ok()?);
            (digits(kept)? * scale, &fraction[length..])
        }
    };
    let offset_minutes = match zone {
        "Z" | "z" => 0,
        _ => {
            let sign = match zone.as_bytes().first()? {
                b'+' => 1,
                b'-' => -1,
                _ => return None,
            };
            let (hours, minutes) = zone[1..]
                .split_once(':')
                .or(zone[1..].split_at_checked(2))?;
            sign * i64::try_from(digits(hours)? * 60 + digits(minutes)?).ok()?
        }
    };
    let local = days(year, month, day)? * 86_400 + hour * 3600 + minute * 60 + second;
    let secs = local.checked_add_signed(-offset_minutes * 60)?;
    Some(Timestamp::from_secs_nanos(secs, nanos))
}

fn digits(text: &str) -> Option<u64> {
    let plain = !text.is_empty() && text.len() < 10 && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten()
}

/// Year, month and day of a day since 1970 (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(day: u64) -> (u64, u64, u64) {
    let shifted = day + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// The inverse of [`civil`]; `None` before 1970.
fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let year = if month <= 2 {
        year.checked_sub(1)?
    } else {
        year
    };
    let of_era = year % 400;
    let shifted_month = (month + 9) % 12;
    let of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day = year / 400 * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year;
    day.checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_moments() {
        for (nanos, text) in [
            (0, "1970-01-01T00:00:00.000000000Z"),
            (951_782_400_000_000_001, "2000-02-29T00:00:00.000000001Z"),
            (1_795_381_446_370_345_171, "2026-11-22T21:04:06.370345171Z"),
        ] {
            assert_eq!(format(Timestamp::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn forms_that_others_write() {
        let moment = Some(Timestamp::from_nanos(1_795_381_446_370_000_000));
        for text in [
            "2026-11-22T21:04:06.370Z",
            "2026-11-22T22:04:06.37+01:00",
            "2026-11-22T15:34:06.370000000000-05:30",
            "2026-11-22t21:04:06.370+0000",
        ] {
            assert_eq!(parse(text), moment, "{text}");
        }
        for text in [
            "",
            "2026-11-22",
            "2026-13-22T21:04:06Z",
            "2026-11-22T21:04:06",
            "1969-12-31T23:59:59Z",
            "ü026-11-22T21:04:06Z",
            "2026-11-22T21:04:06.5",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_moment_survives(nanos in any::<u64>()) {
            let time = Timestamp::from_nanos(nanos);
            prop_assert_eq!(parse(&format(time)), Some(time));
        }

        #[test]
        fn no_text_panics(text in any::<String>()) {
            let _ = parse(&text);
        }
    }
}
