//! Where requests are replayed to: what a user writes, and the addresses behind it.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::str::FromStr;
use std::time::Duration;

/// `http://host[:port][/base-path]` or the same with `https`.
///
/// The base path goes before the captured path: `http://v2/api/` makes `/api/users` of `/users`. A slash at its end
/// makes no difference.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Target {
    scheme: Scheme,
    host: Host,
    port: u16,
    base_path: String,
}

/// How a target is spoken to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Scheme {
    /// HTTP/1 in the open, by the `wire` sender.
    Http,
    /// HTTP over TLS, by reqwest.
    Https,
}

impl Scheme {
    /// `http` or `https`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }

    /// The port that a URL of this scheme means when it names none (RFC 9110 §4.2).
    #[must_use]
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }
}

/// The host part of a target.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// Asked of the system's resolver.
    Name(String),
    /// Taken as it is.
    Address(IpAddr),
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Address(IpAddr::V4(address)) => address.fmt(f),
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
        }
    }
}

/// What is wrong with a target as written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TargetError {
    /// Neither `http://` nor `https://` is in front.
    #[error("{0:?} has no scheme; write http://{0} or https://{0}")]
    NoScheme(String),
    /// Another scheme.
    #[error("the scheme {0:?} is not supported; use http:// or https://")]
    Scheme(String),
    /// `user:password@` is in it.
    #[error(
        "a user name or password in a target is not supported; set an Authorization header instead"
    )]
    UserInfo,
    /// There is no host.
    #[error("the host is missing; write {0}://HOST[:PORT][/BASE-PATH]")]
    NoHost(&'static str),
    /// The host holds bytes that no host name has.
    #[error("{0:?} is not a host name or address")]
    Host(String),
    /// The port is not a number from 1 to 65535.
    #[error("the port {0:?} is not a number from 1 to 65535")]
    Port(String),
    /// A query or a fragment is in it.
    #[error(
        "a target has no query or fragment; {0:?} begins one: requests bring their own queries"
    )]
    QueryOrFragment(char),
    /// The base path holds bytes that cannot stand in a request line.
    #[error("the base path {0:?} holds a blank or a character that must be percent-encoded")]
    BasePath(String),
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let text = text.trim();
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err(TargetError::NoScheme(text.to_owned()));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            _ => return Err(TargetError::Scheme(scheme.to_owned())),
        };
        if let Some(begin) = rest.chars().find(|c| matches!(c, '?' | '#')) {
            return Err(TargetError::QueryOrFragment(begin));
        }
        let (authority, path) = match rest.find('/') {
            Some(slash) => rest.split_at(slash),
            None => (rest, ""),
        };
        if authority.contains('@') {
            return Err(TargetError::UserInfo);
        }
        let (host, port) = parse_authority(authority, scheme)?;
        let base_path = path.trim_end_matches('/');
        if !base_path.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TargetError::BasePath(base_path.to_owned()));
        }
        Ok(Self {
            scheme,
            host,
            port,
            base_path: base_path.to_owned(),
        })
    }
}

impl Target {
    /// How it is spoken to.
    #[must_use]
    pub const fn scheme(&self) -> Scheme {
        self.scheme
    }

    /// Its host.
    #[must_use]
    pub const fn host(&self) -> &Host {
        &self.host
    }

    /// Its port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// What goes before each captured path: empty, or beginning with `/` and not ending with it.
    #[must_use]
    pub fn base_path(&self) -> &str {
        &self.base_path
    }

    /// The host and, unless it is the scheme's own, the port: what a `Host` field for this target says
    /// (RFC 9110 §7.2).
    #[must_use]
    pub fn authority(&self) -> String {
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// Asks the system's resolver for the addresses once: what a replay from a file does before it begins.
    ///
    /// # Errors
    /// When the name does not resolve, or has not after `limit`.
    pub async fn resolve_once(&self, limit: Duration) -> Result<Vec<SocketAddr>, ResolveError> {
        let name = match &self.host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(*address, self.port)]),
            Host::Name(name) => name,
        };
        let fail = |cause: io::Error| ResolveError {
            name: name.clone(),
            cause: cause.to_string(),
        };
        let lookup = tokio::net::lookup_host((name.as_str(), self.port));
        let found: Vec<SocketAddr> = match tokio::time::timeout(limit, lookup).await {
            Ok(answer) => answer.map_err(fail)?.collect(),
            Err(_) => return Err(fail(io::Error::from(io::ErrorKind::TimedOut))),
        };
        if found.is_empty() {
            return Err(fail(io::Error::other("the name has no address")));
        }
        Ok(found)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}{}",
            self.scheme.name(),
            self.authority(),
            self.base_path
        )
    }
}

/// A target's name did not resolve.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the target's name {name:?} does not resolve: {cause}")]
pub struct ResolveError {
    /// The name that was asked for.
    pub name: String,
    /// What the resolver said.
    pub cause: String,
}

/// What is known of a target's addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TargetState {
    /// The resolver was asked for the first time and has not answered.
    Asking,
    /// The name did not resolve when last asked; it is asked again.
    Unresolved(ResolveError),
    /// The addresses, in the resolver's order; never empty.
    Resolved(Vec<SocketAddr>),
}

impl TargetState {
    /// Whether there is an address to send to.
    #[must_use]
    pub const fn is_resolved(&self) -> bool {
        matches!(self, Self::Resolved(_))
    }
}

fn parse_authority(authority: &str, scheme: Scheme) -> Result<(Host, u16), TargetError> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (inside, after) = rest
            .split_once(']')
            .ok_or_else(|| TargetError::Host(authority.to_owned()))?;
        let address: Ipv6Addr = inside
            .parse()
            .map_err(|_| TargetError::Host(format!("[{inside}]")))?;
        let port = match after {
            "" => None,
            _ => Some(
                after
                    .strip_prefix(':')
                    .ok_or_else(|| TargetError::Host(authority.to_owned()))?,
            ),
        };
        (Host::Address(IpAddr::V6(address)), port)
    } else {
        let (host, port) = match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        };
        if host.is_empty() {
            return Err(TargetError::NoHost(scheme.name()));
        }
        let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if !host.bytes().all(is_name_byte) {
            return Err(TargetError::Host(host.to_owned()));
        }
        let host = match host.parse() {
            Ok(address) => Host::Address(IpAddr::V4(address)),
            Err(_) => Host::Name(host.to_owned()),
        };
        (host, port)
    };
    let port = match port {
        None | Some("") => scheme.default_port(),
        Some(digits) => digits
            .parse()
            .ok()
            .filter(|&port| port != 0 && digits.bytes().all(|byte| byte.is_ascii_digit()))
            .ok_or_else(|| TargetError::Port(digits.to_owned()))?,
    };
    Ok((host, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_write() {
        for (text, authority, base) in [
            ("http://my-app-v2", "my-app-v2", ""),
            ("HTTP://v2/", "v2", ""),
            ("http://v2:80/api", "v2", "/api"),
            ("https://v2:80/api//", "v2:80", "/api"),
            ("https://v2:443", "v2", ""),
            ("http://10.0.0.1:8080", "10.0.0.1:8080", ""),
            ("http://[::1]:8080/a/b/", "[::1]:8080", "/a/b"),
            ("http://v2:/x", "v2", "/x"),
        ] {
            let target: Target = text.parse().expect(text);
            assert_eq!(target.authority(), authority, "{text}");
            assert_eq!(target.base_path(), base, "{text}");
        }
    }

    #[test]
    fn what_is_refused_says_why() {
        for (text, part) in [
            ("my-app:8080", "write http://my-app:8080"),
            ("ftp://v2", "\"ftp\""),
            ("http://", "host is missing"),
            ("http://:80", "host is missing"),
            ("http://user:pass@v2", "Authorization"),
            ("http://v2:0", "\"0\""),
            ("http://v2:+80", "\"+80\""),
            ("http://v2:99999", "\"99999\""),
            ("http://v2/a?b", "query"),
            ("http://v2#x", "fragment"),
            ("http://v 2", "\"v 2\""),
            ("http://[::1", "[::1"),
            ("http://[::1]x", "[::1]x"),
            ("http://v2/a b", "/a b"),
        ] {
            let error = text.parse::<Target>().expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
