//! TLS for the stream between instances, on blocking sockets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, ServerConfig, ServerConnection,
    SignatureScheme,
};
use rustls_platform_verifier::BuilderVerifierExt as _;

/// What `--input-tcp-secure` proves itself with.
pub(super) fn server(certificate: &Path, key: &Path) -> anyhow::Result<Arc<ServerConfig>> {
    let chain: Vec<_> = CertificateDer::pem_file_iter(certificate)
        .and_then(Iterator::collect)
        .with_context(|| format!("--input-tcp-certificate {}", certificate.display()))?;
    if chain.is_empty() {
        bail!(
            "--input-tcp-certificate {}: there is no certificate in it",
            certificate.display()
        );
    }
    let of_key = || format!("--input-tcp-certificate-key {}", key.display());
    let key = PrivateKeyDer::from_pem_file(key).with_context(of_key)?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .context("--input-tcp-certificate and its key")?;
    Ok(Arc::new(config))
}

/// Whom `--output-tcp-secure` trusts: the system's authorities, or everybody.
pub(super) fn client(skip_verify: bool) -> anyhow::Result<Arc<ClientConfig>> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if skip_verify {
        let anybody = Arc::new(Anybody(provider));
        builder
            .dangerous()
            .with_custom_certificate_verifier(anybody)
    } else {
        builder
            .with_platform_verifier()
            .context("--output-tcp-secure: the system's authorities")?
    };
    Ok(Arc::new(builder.with_no_client_auth()))
}

/// A connection that comes in, as what it says in the clear.
pub(super) fn incoming(
    config: Option<&Arc<ServerConfig>>,
    stream: TcpStream,
) -> anyhow::Result<Box<dyn Read + Send>> {
    let Some(config) = config else {
        return Ok(Box::new(stream));
    };
    let connection = ServerConnection::new(Arc::clone(config))?;
    Ok(Box::new(Incoming(rustls::StreamOwned::new(
        connection, stream,
    ))))
}

struct Incoming(rustls::StreamOwned<ServerConnection, TcpStream>);

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer) {
            // Closed without a word of TLS: what was cut by that is noticed where records are read.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

/// A connection that goes out.
pub(super) struct Outgoing {
    stream: TcpStream,
    tls: Option<ClientConnection>,
}

impl Outgoing {
    /// Shakes hands, if that is asked for; `host` is who the other side has to be.
    pub(super) fn over(
        mut stream: TcpStream,
        config: Option<&Arc<ClientConfig>>,
        host: &str,
    ) -> io::Result<Self> {
        let Some(config) = config else {
            return Ok(Self { stream, tls: None });
        };
        let wrong = |error: &dyn std::fmt::Display| io::Error::other(format!("TLS: {error}"));
        let name = ServerName::try_from(host.to_owned()).map_err(|error| wrong(&error))?;
        let mut tls =
            ClientConnection::new(Arc::clone(config), name).map_err(|error| wrong(&error))?;
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)
                .map_err(|error| wrong(&error))?;
        }
        Ok(Self {
            stream,
            tls: Some(tls),
        })
    }

    pub(super) fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.tls {
            None => self.stream.write_all(bytes),
            Some(tls) => {
                let mut stream = rustls::Stream::new(tls, &mut self.stream);
                stream.write_all(bytes)?;
                stream.flush()
            }
        }
    }

    /// Whether the other side has closed: it never says anything but TLS's own.
    pub(super) fn is_closed(&mut self) -> bool {
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let is_closed = match &mut self.tls {
            None => match self.stream.peek(&mut [0]) {
                Ok(0) => true,
                Ok(_) => false,
                Err(error) => error.kind() != ErrorKind::WouldBlock,
            },
            Some(tls) => loop {
                match tls.read_tls(&mut self.stream) {
                    Ok(0) => break true,
                    Ok(_) => match tls.process_new_packets() {
                        Ok(state) if !state.peer_has_closed() => {}
                        Ok(_) | Err(_) => break true,
                    },
                    Err(error) => break error.kind() != ErrorKind::WouldBlock,
                }
            },
        };
        self.stream.set_nonblocking(false).is_err() || is_closed
    }

    /// Everything is written; the other side reads to the end.
    pub(super) fn finish(mut self) {
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = tls.write_tls(&mut self.stream);
        }
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }
}

/// Takes any certificate: `--output-tcp-skip-verify`.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
