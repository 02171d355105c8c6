//! Which part of the traffic is replayed when not all of it is: a stable hash decides, so that a session stays whole, a
//! file gives the same sample every time, and every shadowtap that sees the same key decides alike.

use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use super::pattern::RuleError;
use super::select::cookies;
use crate::exchange::Request;
use crate::http1::FieldName;

/// A share of the traffic.
///
/// The key is hashed by 64-bit FNV-1a, begun with the bytes of `shadowtap sample 1`, and mixed by the step of SplitMix64;
/// the request is taken when the hash lies in the lowest so many percent of all numbers. So a larger percentage takes all
/// that a smaller one takes, and more.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Sample {
    /// How large.
    pub percent: Percent,
    /// What stays together.
    pub by: SampleBy,
}

impl Sample {
    /// Whether everything is in it.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.percent.is_all()
    }

    /// Whether `request` is in it.
    #[must_use]
    pub fn takes(&self, request: &Request) -> bool {
        self.by.takes(request, self.percent)
    }
}

impl SampleBy {
    /// Whether `request` is in a sample of so many percent.
    pub(super) fn takes(&self, request: &Request, percent: Percent) -> bool {
        percent.is_all() || u128::from(self.hash(request, Fnv1a::new(SAMPLE))) < percent.threshold()
    }

    /// Which of so many it goes to: evenly, and whatever the sample.
    pub(super) fn deal(&self, request: &Request, among: usize) -> usize {
        let hash = self.hash(request, Fnv1a::new(SPLIT));
        let place = (u128::from(hash) * among as u128) >> 64;
        usize::try_from(place).unwrap_or(0)
    }

    fn hash(&self, request: &Request, hash: Fnv1a) -> u64 {
        let fields = request.head.fields();
        match self {
            Self::Request => hash
                .address(request.endpoints.client)
                .write(&request.first_byte.as_nanos().to_be_bytes())
                .write(request.head.bytes())
                .finish(),
            Self::Connection => of_connection(request, hash),
            Self::Client => hash.ip(request.endpoints.client.ip()).finish(),
            Self::Header(name) => match fields.get(name.as_str()) {
                Some(value) => hash.write(value).finish(),
                None => of_connection(request, hash),
            },
            Self::Cookie(name) => {
                let named = |&(cookie, _): &(&[u8], &[u8])| cookie == name.as_str().as_bytes();
                match cookies(fields).find(named) {
                    Some((_, value)) => hash.write(value).finish(),
                    None => of_connection(request, hash),
                }
            }
        }
    }
}

/// Both ends, or the connection's number where a recording does not know them.
fn of_connection(request: &Request, hash: Fnv1a) -> u64 {
    let ends = request.endpoints;
    if ends.client.ip().is_unspecified() || ends.client.port() == 0 {
        return hash.write(&request.connection.0.to_be_bytes()).finish();
    }
    hash.address(ends.client).address(ends.server).finish()
}

/// What the hashes begin with: which requests are taken, and where they go, are independent of each other.
const SAMPLE: &[u8] = b"shadowtap sample 1";
const SPLIT: &[u8] = b"shadowtap split 1";

/// What is hashed: requests that share it are taken together or not at all.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub enum SampleBy {
    /// Each request for itself: client, time and head.
    Request,
    /// The connection.
    #[default]
    Connection,
    /// The client's address, without the port.
    Client,
    /// The value of a header; requests without it go by connection.
    Header(FieldName),
    /// The value of a cookie; requests without it go by connection.
    Cookie(FieldName),
}

impl FromStr for SampleBy {
    type Err = RuleError;

    /// `request`, `connection`, `client`, `header:NAME` or `cookie:NAME`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let name = |name: &str| {
            name.parse()
                .map_err(|_| RuleError(format!("{name:?} is not a name")))
        };
        match text.split_once(':') {
            None if text == "request" => Ok(Self::Request),
            None if text == "connection" => Ok(Self::Connection),
            None if text == "client" => Ok(Self::Client),
            Some(("header", header)) => name(header).map(Self::Header),
            Some(("cookie", cookie)) => name(cookie).map(Self::Cookie),
            _ => Err(RuleError::new(
                "expected request, connection, client, header:NAME or cookie:NAME",
            )),
        }
    }
}

/// Between 0 and 100.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Percent(f64);

impl Percent {
    /// Everything.
    pub const ALL: Self = Self(100.0);

    fn is_all(self) -> bool {
        self.0 >= 100.0
    }

    /// Hashes below it are taken.
    fn threshold(self) -> u128 {
        (self.0 / 100.0 * 2f64.powi(64)) as u128
    }
}

impl Default for Percent {
    fn default() -> Self {
        Self::ALL
    }
}

impl FromStr for Percent {
    type Err = RuleError;

    /// A number from 0 to 100, with or without `%`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.strip_suffix('%').unwrap_or(text).parse::<f64>() {
            Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self(percent)),
            _ => Err(RuleError::new("expected a number from 0 to 100")),
        }
    }
}

/// The hash; see [`Sample`].
#[derive(Clone, Copy)]
struct Fnv1a(u64);

impl Fnv1a {
    fn new(begin: &[u8]) -> Self {
        Self(0xcbf2_9ce4_8422_2325).write(begin)
    }

    fn write(self, bytes: &[u8]) -> Self {
        let step = |hash: u64, &byte: &u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
        Self(bytes.iter().fold(self.0, step))
    }

    fn ip(self, ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => self.write(&ip.octets()),
            IpAddr::V6(ip) => self.write(&ip.octets()),
        }
    }

    fn address(self, address: SocketAddr) -> Self {
        self.ip(address.ip()).write(&address.port().to_be_bytes())
    }

    /// FNV's low bits are good, its high ones are not: the mixer spreads them.
    fn finish(self) -> u64 {
        let mut mixed = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;
    use crate::exchange::ConnectionId;
    use crate::time::Timestamp;

    fn sample(percent: &str, by: &str) -> Sample {
        Sample {
            percent: percent.parse().expect("a percentage"),
            by: by.parse().expect("a key"),
        }
    }

    /// Request `number` of a made-up traffic: every connection has four, every client four connections.
    fn traffic(number: u16) -> Request {
        let session = number / 8;
        let head = format!(
            "GET /{number} HTTP/1.1\r\nX-User: u{session}\r\nCookie: a=b; sid=s{session}\r\n\r\n"
        );
        let mut request = request(&head, "");
        let client = u32::from(number / 16).to_be_bytes();
        request
            .endpoints
            .client
            .set_ip([10, 9, client[2], client[3]].into());
        request.endpoints.client.set_port(1000 + number / 4);
        request.first_byte = Timestamp::from_nanos(u64::from(number) * 1000);
        request
    }

    #[test]
    fn the_share_is_as_asked_and_groups_stay_whole() {
        for (by, group) in [
            ("request", 1),
            ("connection", 4),
            ("client", 16),
            ("header:x-user", 8),
            ("cookie:sid", 8),
        ] {
            for percent in ["0", "0.5", "12.5", "50%", "99", "100"] {
                let sample = sample(percent, by);
                let taken: Vec<bool> = (0..8192)
                    .map(|number| sample.takes(&traffic(number)))
                    .collect();
                let groups: Vec<_> = taken.chunks(group).collect();
                for group in &groups {
                    assert!(group.iter().all(|taken| *taken == group[0]), "{by}");
                }
                let share = sample.percent.0 / 100.0;
                let count = groups.iter().filter(|group| group[0]).count() as f64;
                let total = groups.len() as f64;
                // Five standard deviations of a fair draw.
                let bound = 5.0 * (total * share * (1.0 - share)).sqrt();
                assert!((count - share * total).abs() <= bound, "{by} {percent}");
            }
        }
    }

    #[test]
    fn a_larger_sample_holds_the_smaller_one() {
        let (small, large) = (sample("10", "connection"), sample("25", "connection"));
        for number in 0..4000 {
            let request = traffic(number);
            assert!(large.takes(&request) || !small.takes(&request));
        }
    }

    /// Several sidecars, and later versions, must agree: these numbers never change.
    #[test]
    fn the_hash_is_fixed() {
        let head = "GET / HTTP/1.1\r\nX-User: u1\r\nCookie: sid=u1\r\n\r\n";
        let hash = |by| {
            sample("50", by)
                .by
                .hash(&request(head, ""), Fnv1a::new(SAMPLE))
        };
        assert_eq!(hash("header:X-USER"), HASH_OF_U1);
        assert_eq!(hash("cookie:sid"), HASH_OF_U1);
        assert_eq!(hash("header:x-none"), hash("connection"));
        assert_eq!(hash("cookie:SID"), hash("connection"));
        assert_eq!(hash("connection"), HASH_OF_CONNECTION);
    }

    const HASH_OF_U1: u64 = 0x3273_8fe7_b04a_62cf;
    const HASH_OF_CONNECTION: u64 = 0xf110_f23b_2e7a_8b49;

    #[test]
    fn without_addresses_the_connections_number_counts() {
        let mut request = request("GET / HTTP/1.1\r\n\r\n", "");
        request.endpoints.client = ([0, 0, 0, 0], 0).into();
        let sample = sample("50", "connection");
        let taken = (0..1000)
            .filter(|&number| {
                request.connection = ConnectionId(number);
                sample.takes(&request)
            })
            .count();
        assert!((400..600).contains(&taken), "{taken}");
    }

    #[test]
    fn what_may_be_written() {
        for wrong in ["", "101", "-1", "NaN", "inf", "x", "5 %"] {
            assert!(wrong.parse::<Percent>().is_err(), "{wrong}");
        }
        for wrong in ["", "ip", "header", "header:", "cookie:a b", "request:x"] {
            assert!(wrong.parse::<SampleBy>().is_err(), "{wrong}");
        }
    }
}
