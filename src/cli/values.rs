//! What single flags may hold: each parser turns text into the type that the program works with, or says what it wants.

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::tap::WatchedEnd;
use crate::time::rfc3339;
pub use crate::traffic::byte_size;
use crate::traffic::slice::Moment;

/// Parses `PORT` or `ADDRESS:PORT` (`[ADDRESS]:PORT` for IPv6).
///
/// # Errors
/// What is expected instead.
pub fn watched_end(text: &str) -> Result<WatchedEnd, String> {
    if text.starts_with("tcp://") {
        return Err(format!(
            "'{text}' looks like the variable that Kubernetes sets for a Service called shadowtap; \
             set enableServiceLinks: false in the pod, or give --port"
        ));
    }
    let expected = || format!("'{text}' is neither PORT, ADDRESS:PORT nor [ADDRESS]:PORT");
    let end = match text.parse::<SocketAddr>() {
        Ok(address) => WatchedEnd {
            address: Some(address.ip()),
            port: address.port(),
        },
        Err(_) => WatchedEnd {
            address: None,
            port: text
                .strip_prefix(':')
                .unwrap_or(text)
                .parse()
                .map_err(|_| expected())?,
        },
    };
    if end.port == 0 {
        return Err("port 0 carries no traffic".to_owned());
    }
    Ok(end)
}

/// Parses a port alone.
///
/// # Errors
/// What is expected instead.
pub fn port(text: &str) -> Result<u16, String> {
    let port = text.parse().ok().filter(|&port| port != 0);
    port.ok_or_else(|| format!("'{text}' is not a port from 1 to 65535"))
}

/// Parses how many of something there may be.
///
/// # Errors
/// What is expected instead.
pub fn count(text: &str) -> Result<NonZeroUsize, String> {
    let count = text.parse().ok();
    count.ok_or_else(|| format!("'{text}' is not a whole number from 1"))
}

/// Parses `PORT` or `ADDRESS:PORT` as an address to listen on; a port alone means every address.
///
/// # Errors
/// What is expected instead.
pub fn listen_address(text: &str) -> Result<SocketAddr, String> {
    listen_on(text, Ipv4Addr::UNSPECIFIED)
}

/// The same; a port alone means this machine's loopback.
///
/// # Errors
/// What is expected instead.
pub fn listen_locally(text: &str) -> Result<SocketAddr, String> {
    listen_on(text, Ipv4Addr::LOCALHOST)
}

fn listen_on(text: &str, unless_told: Ipv4Addr) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    text.strip_prefix(':')
        .unwrap_or(text)
        .parse()
        .map(|port| SocketAddr::new(unless_told.into(), port))
        .map_err(|_| format!("'{text}' is neither PORT nor ADDRESS:PORT"))
}

/// Parses a length of time: `250ms`, `5s`, `1.5s`, `2m`, `1h`; a number without unit means seconds.
///
/// # Errors
/// What is expected instead.
pub fn duration(text: &str) -> Result<Duration, String> {
    let expected = || format!("'{text}' is not a length of time such as 250ms, 5s or 2m");
    let digits = text
        .bytes()
        .take_while(|byte| byte.is_ascii_digit() || *byte == b'.')
        .count();
    let (number, unit) = text.split_at(digits);
    let scale = match unit.trim_start() {
        "us" | "µs" => 1e-6,
        "ms" => 1e-3,
        "" | "s" => 1.0,
        "m" | "min" => 60.0,
        "h" => 3600.0,
        _ => return Err(expected()),
    };
    let number: f64 = number.parse().map_err(|_| expected())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| expected())
}

/// Parses a moment of a recording: a length of time from its first request on, or a time by RFC 3339.
///
/// # Errors
/// What is expected instead.
pub fn moment(text: &str) -> Result<Moment, String> {
    if let Some(time) = rfc3339::parse(text) {
        return Ok(Moment::At(time));
    }
    duration(text).map(Moment::After).map_err(|_| {
        format!(
            "'{text}' is neither a length of time from the beginning, such as 90s or 10m, nor a time such as 2026-11-24T08:30:00Z"
        )
    })
}

/// Parses a share of everything: `1%`, `0.2%`, or a number from 0 to 1.
///
/// # Errors
/// What is expected instead.
pub fn share(text: &str) -> Result<f64, String> {
    let expected = || format!("'{text}' is not a share such as 1% or 0.01");
    let (number, whole) = match text.trim().strip_suffix('%') {
        Some(number) => (number.trim_end(), 100.0),
        None => (text.trim(), 1.0),
    };
    let share = number.parse::<f64>().map_err(|_| expected())? / whole;
    if (0.0..=1.0).contains(&share) {
        return Ok(share);
    }
    Err(expected())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watched_ends() {
        let end = |address: Option<&str>, port| WatchedEnd {
            address: address.map(|a| a.parse().unwrap()),
            port,
        };
        assert_eq!(watched_end("8080"), Ok(end(None, 8080)));
        assert_eq!(watched_end(":8080"), Ok(end(None, 8080)));
        assert_eq!(watched_end("10.0.0.1:80"), Ok(end(Some("10.0.0.1"), 80)));
        assert_eq!(watched_end("[::1]:80"), Ok(end(Some("::1"), 80)));
        for wrong in [
            "",
            "0",
            "65536",
            "http",
            "10.0.0.1",
            "10.0.0.1:0",
            "::1",
            "-1",
        ] {
            assert!(watched_end(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn moments() {
        assert_eq!(moment("90s"), Ok(Moment::After(Duration::from_secs(90))));
        let time = rfc3339::parse("2026-11-24T08:30:00Z").expect("a time");
        assert_eq!(moment("2026-11-24T09:30:00+01:00"), Ok(Moment::At(time)));
        for wrong in ["", "noon", "2026-11-24", "2026-13-24T08:30:00Z"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn byte_sizes() {
        assert_eq!(byte_size("65536"), Ok(65_536));
        assert_eq!(byte_size("64k"), Ok(65_536));
        assert_eq!(byte_size("16 MiB"), Ok(16 << 20));
        assert_eq!(byte_size("1G"), Ok(1 << 30));
        for wrong in ["", "k", "1.5M", "-1", "16X", "99999999999G"] {
            assert!(byte_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn shares() {
        assert_eq!(share("1%"), Ok(0.01));
        assert_eq!(share("99.5 %"), Ok(0.995));
        assert_eq!(share("0.25"), Ok(0.25));
        for wrong in ["", "%", "1", "2", "101%", "-1%", "NaN", "inf", "one"] {
            assert_eq!(share(wrong).is_err(), wrong != "1", "{wrong}");
        }
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "s", "-1s", "5 parsecs", "1.2.3s", "1e400h"] {
            assert!(duration(wrong).is_err(), "{wrong}");
        }
    }
}
