//! Whom a server on loopback answers: what asks for this machine, by a name that is always its own.
//!
//! Loopback keeps other machines out, not the pages in this machine's browser. One of them can have its own name resolve to
//! 127.0.0.1 (DNS rebinding): the browser then asks here, and takes what is answered for the page's own. But it says in `Host` for
//! whom it asks.

use std::net::Ipv6Addr;

use axum::body::Body;
use axum::extract::Request;
use axum::http::uri::Authority;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::middleware::Next;
use axum::response::IntoResponse as _;

/// Answers only what asks for this machine.
pub(super) async fn only_for_this_machine(request: Request, next: Next) -> Response<Body> {
    let named = request.headers().get_all(header::HOST);
    let in_target = request.uri().authority().map(Authority::as_str);
    // A browser never leaves it out; a health check in HTTP/1.0 may.
    if named.iter().all(is_this_machine) && in_target.is_none_or(names_this_machine) {
        return next.run(request).await;
    }
    (StatusCode::MISDIRECTED_REQUEST, EXPLANATION).into_response()
}

const EXPLANATION: &str = "this server is for programs and browsers of this machine, and was asked for by another name (the Host field): \
    a page on the web may be trying to read what was captured. Ask for localhost or 127.0.0.1; where another name is needed, give \
    --admin-token-file\n";

fn is_this_machine(host: &HeaderValue) -> bool {
    host.to_str().is_ok_and(names_this_machine)
}

/// Whether a host, with or without a port, is loopback whatever a resolver says: RFC 6761 §6.3 for names, and addresses.
fn names_this_machine(host: &str) -> bool {
    let Ok(authority) = host.trim().parse::<Authority>() else {
        return false;
    };
    if authority.as_str().contains('@') {
        return false;
    }
    let host = authority.host().to_ascii_lowercase();
    if let Some(address) = host.strip_prefix('[').and_then(|it| it.strip_suffix(']')) {
        let address = address.parse::<Ipv6Addr>();
        return address.is_ok_and(|it| it.to_canonical().is_loopback());
    }
    if let Ok(address) = host.parse::<std::net::Ipv4Addr>() {
        return address.is_loopback();
    }
    let name = host.strip_suffix('.').unwrap_or(&host);
    name == "localhost" || name.ends_with(".localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_always_this_machine() {
        for host in [
            "localhost",
            "localhost:9471",
            "LocalHost:1",
            "localhost.",
            "shadowtap.localhost:9471",
            "127.0.0.1",
            "127.0.0.1:9471",
            "127.3.2.1:80",
            "[::1]",
            "[::1]:9471",
            "[0:0:0:0:0:0:0:1]:9471",
            "[::ffff:127.0.0.1]:9471",
        ] {
            assert!(names_this_machine(host), "{host}");
        }
    }

    #[test]
    fn names_that_somebody_else_may_have() {
        for host in [
            "",
            "evil.example",
            "evil.example:9471",
            "localhost.evil.example",
            "evillocalhost",
            "127.0.0.1.evil.example",
            "127.0.0.1.nip.io:9471",
            "localhost@evil.example",
            "evil.example@localhost",
            "0.0.0.0:9471",
            "10.0.0.1",
            "[::]:9471",
            "[::ffff:10.0.0.1]",
            "::1",
            "2130706433",
            "localhost evil.example",
            "localhost, evil.example",
        ] {
            assert!(!names_this_machine(host), "{host}");
        }
    }
}
