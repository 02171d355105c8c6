//! An HTTP/1 server that strangers may talk to: bounds on connections, heads and time, a token, TLS.
//!
//! Nobody gets more than his part: connections are counted, in all and for each peer; whoever does not say what he wants in
//! time, or does not take the answer, is cut off.

use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::ConnectInfo;
use axum::http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest as _, Sha256};
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

/// How much each may take.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bounds {
    /// Connections at a time.
    pub connections: usize,
    /// Connections of one address at a time.
    pub of_one_peer: usize,
    /// Bytes of a request's head.
    pub head: usize,
    /// How long a head, a TLS handshake, or taking what is sent may take.
    pub patience: Duration,
}

impl Bounds {
    /// For the few who look on.
    pub const ADMIN: Self = Self {
        connections: 128,
        of_one_peer: 64,
        head: 16 << 10,
        patience: Duration::from_secs(10),
    };

    /// For a service and its load.
    pub const MOCK: Self = Self {
        connections: 16 << 10,
        of_one_peer: 16 << 10,
        head: 256 << 10,
        patience: Duration::from_secs(60),
    };
}

/// Takes an address to listen on. `0.0.0.0` is every address of this machine, those of IPv6 too where the kernel has it: a pod may
/// have no other.
///
/// # Errors
/// When it is not free or not of this machine.
pub fn listen(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let listener = match address.ip() {
        IpAddr::V4(Ipv4Addr::UNSPECIFIED) => match of_both_families(address.port()) {
            Ok(listener) => listener,
            // No IPv6 here, or somebody has the port.
            Err(_) => std::net::TcpListener::bind(address)?,
        },
        _ => std::net::TcpListener::bind(address)?,
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn of_both_families(port: u16) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, None)?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)).into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// So many connections may wait to be accepted.
const BACKLOG: i32 = 1024;

/// How a server is reached, beside its address.
#[derive(Clone, Default, Debug)]
pub struct Protection {
    /// What whoever asks has to know.
    pub token: Option<Token>,
    /// With what it proves who it is.
    pub tls: Option<Tls>,
}

/// A secret that whoever asks has to send: as a bearer token, or, for browsers, as the password of any user.
#[derive(Clone, PartialEq, Eq)]
pub struct Token([u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

impl Token {
    /// This text.
    #[must_use]
    pub fn new(text: &[u8]) -> Self {
        // Comparing hashes tells nothing by the time that it takes.
        Self(Sha256::digest(text).into())
    }

    /// The text of a file, without space around it.
    ///
    /// # Errors
    /// When it cannot be read, or is too short for a secret.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = read_secret(file)?;
        Ok(Self::new(text.as_bytes()))
    }

    /// Whether a request with these fields may pass.
    #[must_use]
    pub fn admits(&self, fields: &HeaderMap) -> bool {
        let Some((scheme, credentials)) = fields
            .get(header::AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.trim().split_once(' '))
        else {
            return false;
        };
        let credentials = credentials.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Self::new(credentials.as_bytes()) == *self;
        }
        let decoded = BASE64_STANDARD.decode(credentials).unwrap_or_default();
        let password = decoded.iter().position(|&byte| byte == b':');
        scheme.eq_ignore_ascii_case("basic")
            && password.is_some_and(|colon| Self::new(&decoded[colon + 1..]) == *self)
    }
}

/// The secret in a file: one word of at least eight bytes.
///
/// # Errors
/// When it cannot be read, or is none.
pub fn read_secret(file: &Path) -> Result<String, String> {
    let text = std::fs::read_to_string(file)
        .map_err(|error| format!("cannot read {}: {error}", file.display()))?;
    let text = text.trim();
    if text.len() < 8 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!(
            "{} must hold a secret of at least 8 printable characters, without spaces",
            file.display()
        ));
    }
    Ok(text.to_owned())
}

/// A certificate and its key.
#[derive(Clone)]
pub struct Tls(Arc<ServerConfig>);

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls")
    }
}

impl Tls {
    /// The certificates, its own first, and the key, in PEM files.
    ///
    /// # Errors
    /// When they cannot be read, or do not belong together.
    pub fn read(certificates: &Path, key: &Path) -> Result<Self, String> {
        let wrong = |file: &Path, error: &dyn fmt::Display| format!("{}: {error}", file.display());
        let chain = CertificateDer::pem_file_iter(certificates)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| wrong(certificates, &error))?;
        if chain.is_empty() {
            return Err(wrong(certificates, &"there is no certificate in it"));
        }
        let secret = PrivateKeyDer::from_pem_file(key).map_err(|error| wrong(key, &error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .and_then(|builder| {
                builder
                    .with_no_client_auth()
                    .with_single_cert(chain, secret)
            })
            .map_err(|error| wrong(key, &error))?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(config)))
    }
}

/// Serves until `stop` is ready, and then until every request that has begun has its answer.
///
/// # Errors
/// When the socket fails.
pub async fn serve<S>(
    listener: TcpListener,
    service: S,
    bounds: Bounds,
    tls: Option<Tls>,
    stop: impl Future<Output = ()> + Send,
) -> io::Result<()>
where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send,
{
    let seats = Seats::new(bounds);
    let (stopping, stopped) = watch::channel(());
    let acceptor = tls.map(|tls| TlsAcceptor::from(tls.0));
    let mut served = JoinSet::new();
    tokio::pin!(stop);
    loop {
        let (stream, peer) = tokio::select! {
            () = &mut stop => break,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                // One that has gone again, or no room for a file: the next may do better.
                Err(error) => {
                    tracing::debug!(%error, "a connection was not accepted");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            },
            Some(_) = served.join_next() => continue,
        };
        let Some(seat) = seats.take(peer.ip().to_canonical()) else {
            tracing::debug!(%peer, "too many connections: this one is closed");
            continue;
        };
        let (service, acceptor, stopped) = (service.clone(), acceptor.clone(), stopped.clone());
        served.spawn(async move {
            let _seat = seat;
            bound_sending(&stream, bounds.patience);
            match acceptor {
                None => answer(stream, peer, service, bounds, stopped).await,
                Some(acceptor) => {
                    let shaken = tokio::time::timeout(bounds.patience, acceptor.accept(stream));
                    if let Ok(Ok(stream)) = shaken.await {
                        answer(stream, peer, service, bounds, stopped).await;
                    }
                }
            }
        });
    }
    drop(listener);
    drop(stopping);
    while served.join_next().await.is_some() {}
    Ok(())
}

/// After a failure to accept.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers what comes over one connection.
async fn answer<S>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    peer: SocketAddr,
    service: S,
    bounds: Bounds,
    mut stopped: watch::Receiver<()>,
) where
    S: Service<Request<Body>, Response = Response<Body>, Error = Infallible> + Clone + Send,
{
    let handle = hyper::service::service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        service.clone().call(request)
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.patience)
        .max_buf_size(bounds.head)
        .serve_connection(TokioIo::new(stream), handle);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => ended,
        _ = stopped.changed() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%peer, %error, "a connection was cut off");
    }
}

/// Bounds how long a peer may leave what is sent to it lying.
fn bound_sending(stream: &TcpStream, patience: Duration) {
    let _ = stream.set_nodelay(true);
    #[cfg(target_os = "linux")]
    let _ = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(patience));
    #[cfg(not(target_os = "linux"))]
    let _ = patience;
}

/// The answer to whoever does not know the token.
#[must_use]
pub fn unauthorised() -> Response<Body> {
    let mut response = Response::new(Body::from(
        "this needs the token of --admin-token-file, as 'Authorization: Bearer TOKEN' or as a password\n",
    ));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    response.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"shadowtap\", charset=\"UTF-8\""),
    );
    response
}

/// Who is connected.
#[derive(Clone)]
struct Seats {
    bounds: Bounds,
    taken: Arc<Mutex<Taken>>,
}

/// Invariant: the number of each peer is above zero, and `all` is their sum.
#[derive(Default)]
struct Taken {
    all: usize,
    of_peers: HashMap<IpAddr, usize>,
}

/// A connection that is counted while this is held.
struct Seat {
    seats: Seats,
    peer: IpAddr,
}

impl Seats {
    fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            taken: Arc::default(),
        }
    }

    fn take(&self, peer: IpAddr) -> Option<Seat> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let of_peer = taken.of_peers.get(&peer).copied().unwrap_or(0);
        if taken.all >= self.bounds.connections || of_peer >= self.bounds.of_one_peer {
            return None;
        }
        taken.all += 1;
        taken.of_peers.insert(peer, of_peer + 1);
        Some(Seat {
            seats: self.clone(),
            peer,
        })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let taken = self.seats.taken.lock();
        let mut taken = taken.unwrap_or_else(PoisonError::into_inner);
        taken.all -= 1;
        if let Some(of_peer) = taken.of_peers.get_mut(&self.peer) {
            *of_peer -= 1;
            if *of_peer == 0 {
                taken.of_peers.remove(&self.peer);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    #[test]
    fn every_address_is_of_either_family() {
        let connects = |address: IpAddr, listener: &std::net::TcpListener| {
            let port = listener.local_addr().expect("bound").port();
            std::net::TcpStream::connect((address, port)).is_ok()
        };
        let (v4, v6) = (
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        );
        let every = listen("0.0.0.0:0".parse().expect("an address")).expect("a free port");
        assert!(connects(v4, &every));
        // Where there is IPv6.
        if std::net::TcpListener::bind((v6, 0)).is_ok() {
            assert!(connects(v6, &every));
        }
        let one = listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
        assert!(connects(v4, &one) && !connects(v6, &one));
        // Somebody has it.
        let taken = every.local_addr().expect("bound").port();
        assert!(listen((Ipv4Addr::UNSPECIFIED, taken).into()).is_err());
    }

    #[test]
    fn nobody_takes_every_seat() {
        let seats = Seats::new(Bounds {
            connections: 3,
            of_one_peer: 2,
            ..Bounds::ADMIN
        });
        let peer = |last| IpAddr::from([10, 0, 0, last]);
        let first = seats.take(peer(1)).expect("free");
        let _second = seats.take(peer(1)).expect("free");
        assert!(seats.take(peer(1)).is_none());
        let _other = seats.take(peer(2)).expect("free");
        assert!(seats.take(peer(3)).is_none());
        drop(first);
        assert!(seats.take(peer(3)).is_some());
    }

    /// Serves with these bounds until what it returns is dropped.
    fn served(bounds: Bounds) -> (tokio::sync::oneshot::Sender<()>, SocketAddr) {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = socket.local_addr().expect("bound");
        socket.set_nonblocking(true).expect("set");
        let (open, closed) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime");
            runtime.block_on(async {
                let listener = TcpListener::from_std(socket).expect("a socket");
                let routes = axum::Router::new().fallback(|| async { "hello" });
                let stop = async {
                    let _ = closed.await;
                };
                serve(listener, routes, bounds, None, stop).await
            })
        });
        (open, address)
    }

    /// What comes back for `bytes`, until the server closes.
    fn ask(address: SocketAddr, bytes: &[u8]) -> String {
        let mut stream = std::net::TcpStream::connect(address).expect("connected");
        // A server that has heard enough may be gone before everything is sent.
        let _ = stream.write_all(bytes);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    const WHOLE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

    #[test]
    fn whoever_does_not_say_what_he_wants_is_cut_off() {
        let (_open, address) = served(Bounds {
            patience: Duration::from_millis(50),
            ..Bounds::ADMIN
        });
        for slow in [&b""[..], b"GET / HT", b"GET / HTTP/1.1\r\nX: 1\r\n"] {
            let answer = ask(address, slow);
            assert!(!answer.contains("200"), "{answer}");
        }
        assert!(ask(address, WHOLE).ends_with("hello"));
    }

    #[test]
    fn endless_heads_are_refused() {
        let (_open, address) = served(Bounds::ADMIN);
        let mut endless = b"GET / HTTP/1.1\r\n".to_vec();
        for number in 0..20_000 {
            endless.extend_from_slice(format!("X-{number}: 1\r\n").as_bytes());
        }
        let answer = ask(address, &endless);
        assert!(answer.is_empty() || answer.contains("431"), "{answer}");
        assert!(ask(address, WHOLE).ends_with("hello"));
    }

    #[test]
    fn who_comes_when_every_seat_is_taken_is_turned_away() {
        let (_open, address) = served(Bounds {
            connections: 2,
            ..Bounds::ADMIN
        });
        let seated: Vec<_> = (0..2)
            .map(|_| std::net::TcpStream::connect(address).expect("connected"))
            .collect();
        assert_eq!(ask(address, WHOLE), "");
        drop(seated);
        while ask(address, WHOLE).is_empty() {
            std::thread::yield_now();
        }
    }

    #[test]
    fn tokens() {
        let token = Token::new(b"correct horse");
        let admits = |value: &str| {
            let mut fields = HeaderMap::new();
            fields.insert(header::AUTHORIZATION, value.parse().expect("a value"));
            token.admits(&fields)
        };
        assert!(admits("Bearer correct horse"));
        assert!(admits("bearer  correct horse "));
        let basic = |text: &str| format!("Basic {}", BASE64_STANDARD.encode(text));
        assert!(admits(&basic("anybody:correct horse")));
        assert!(admits(&basic(":correct horse")));
        for wrong in ["Bearer correct", "Bearer", "correct horse", "Basic !", ""] {
            assert!(!admits(wrong), "{wrong}");
        }
        assert!(!admits(&basic("correct horse")));
        assert!(!token.admits(&HeaderMap::new()));
    }
}
