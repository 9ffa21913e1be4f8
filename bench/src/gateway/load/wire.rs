//! A client's connection: bytes over TCP, or over TLS over TCP.

use std::io::{self, BufRead, Read, Write};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;

use anyhow::{Context, Result};
use mio::event::Source;
use mio::net::TcpStream;
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::version::TLS13;
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme};

use super::HOST;

/// From so many bytes of body on, the kernel throws them away for us instead of copying them.
const DISCARD_BYTES_MIN: usize = 4 << 10;

/// What has come.
pub(super) enum Received<'a> {
    /// These bytes.
    Bytes(&'a [u8]),
    /// So many bytes that nobody needs to see.
    Discarded(usize),
}

/// One connection of a client.
pub(super) struct Wire {
    socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl Wire {
    /// Begins to connect to `target`.
    pub(super) fn connect(target: SocketAddr, tls: Option<&Arc<ClientConfig>>) -> Result<Self> {
        let socket = TcpStream::connect(target).context("connecting")?;
        socket.set_nodelay(true).context("TCP_NODELAY")?;
        let session = |config: &Arc<ClientConfig>| {
            let name = ServerName::try_from(HOST).context("the host's name")?;
            let session = ClientConnection::new(Arc::clone(config), name);
            anyhow::Ok(Box::new(session.context("beginning TLS")?))
        };
        let tls = tls.map(session).transpose()?;
        Ok(Self { socket, tls })
    }

    pub(super) fn source(&mut self) -> &mut impl Source {
        &mut self.socket
    }

    /// Sends as much of `out` as goes, and takes it out of there.
    pub(super) fn send(&mut self, out: &mut Vec<u8>) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            while !out.is_empty() {
                match self.socket.write(out) {
                    Ok(count) => drop(out.drain(..count)),
                    Err(error) if is_patient(&error) => return Ok(()),
                    Err(error) => return Err(error).context("sending"),
                }
            }
            return Ok(());
        };
        if !out.is_empty() {
            tls.writer().write_all(out).context("encrypting")?;
            out.clear();
        }
        while tls.wants_write() {
            match tls.write_tls(&mut self.socket) {
                Ok(_) => {}
                Err(error) if is_patient(&error) => return Ok(()),
                Err(error) => return Err(error).context("sending"),
            }
        }
        Ok(())
    }

    /// Reads until nothing is there, and hands it on; `discardable` says how many of the next
    /// bytes are of no interest. False at the end of the stream, which is looked for only where an
    /// event has said that it `ends`: a short read tells that nothing else is there now.
    pub(super) fn receive<S>(
        &mut self,
        scratch: &mut [u8],
        ends: bool,
        sink: &mut S,
        discardable: impl Fn(&S) -> usize,
        mut take: impl FnMut(&mut S, Received<'_>) -> Result<()>,
    ) -> Result<bool> {
        loop {
            let discard = discardable(sink).min(scratch.len());
            let (read, wanted) = if self.tls.is_none() && discard >= DISCARD_BYTES_MIN {
                let flags = MsgFlags::MSG_TRUNC;
                let count = recv(self.socket.as_raw_fd(), &mut scratch[..discard], flags);
                if let Ok(count @ 1..) = count {
                    take(sink, Received::Discarded(count))?;
                }
                (count.map_err(io::Error::from), discard)
            } else {
                let read = self.socket.read(scratch);
                if let Ok(count @ 1..) = read {
                    self.hand_on(&scratch[..count], sink, &mut take)?;
                }
                (read, scratch.len())
            };
            match read {
                Ok(0) => return Ok(false),
                Ok(count) if count < wanted && !ends => return Ok(true),
                Ok(_) => {}
                Err(error) if is_patient(&error) => return Ok(true),
                Err(error) => return Err(error).context("receiving"),
            }
        }
    }

    fn hand_on<S>(
        &mut self,
        mut bytes: &[u8],
        sink: &mut S,
        take: &mut impl FnMut(&mut S, Received<'_>) -> Result<()>,
    ) -> Result<()> {
        let Some(tls) = &mut self.tls else {
            return take(sink, Received::Bytes(bytes));
        };
        while !bytes.is_empty() {
            tls.read_tls(&mut bytes).context("TLS")?;
            tls.process_new_packets().context("TLS")?;
            let mut reader = tls.reader();
            loop {
                let plain = match reader.fill_buf() {
                    Ok([]) => break,
                    Ok(plain) => plain,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("TLS"),
                };
                take(sink, Received::Bytes(plain))?;
                let count = plain.len();
                reader.consume(count);
            }
        }
        Ok(())
    }
}

/// Nothing to be had now, or the connection does not stand yet: an event will follow.
fn is_patient(error: &io::Error) -> bool {
    let later = [Errno::EAGAIN, Errno::ENOTCONN].map(|errno| errno as i32);
    error
        .raw_os_error()
        .is_some_and(|code| later.contains(&code))
}

/// A TLS client for the protocols of `alpn`: TLS 1.3, AES-128-GCM, X25519, no resumption, so that
/// every proxy does the same work.
pub(crate) fn tls_client(alpn: &[&str]) -> Result<Arc<ClientConfig>> {
    let provider = CryptoProvider {
        cipher_suites: vec![aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256],
        kx_groups: vec![aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    };
    let schemes = provider
        .signature_verification_algorithms
        .supported_schemes();
    let mut client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody { schemes }))
        .with_no_client_auth();
    client.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    client.resumption = Resumption::disabled();
    Ok(Arc::new(client))
}

/// Believes every server: what the client spends on signatures, the proxy has to wait for.
#[derive(Debug)]
struct Anybody {
    schemes: Vec<SignatureScheme>,
}

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
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}
