//! The stream to an instance: plain TCP, or TLS over it.

use std::cell::Cell;
use std::error::Error;
use std::fmt;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use rustls::client::Resumption;
use rustls::{AlertDescription, CertificateError, OtherError};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::config::{ServiceTls, UpstreamProtocol};
use crate::socket::Socket;

/// Sessions kept to be resumed. One instance is one server to rustls, which keeps eight tickets
/// of each.
const SESSIONS_MAX: usize = 8;
/// Between two lines of the log that say why there is no TLS to an instance.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// The stream to an instance.
#[derive(Debug)]
pub(crate) enum Transport {
    /// As it is.
    Clear(Socket),
    /// Encrypted. Boxed: its buffers and keys are large.
    Tls(Box<Secured>),
}

/// How TLS with one instance is set up. Sessions are kept here, since another instance could not
/// resume them.
pub(crate) struct Connector {
    tls: TlsConnector,
    name: ServerName<'static>,
    protocol: UpstreamProtocol,
    reporter: Rc<Reporter>,
}

/// A TLS connection.
#[derive(Debug)]
pub(crate) struct Secured {
    stream: TlsStream<Socket>,
    reporter: Rc<Reporter>,
}

/// Says why there is no TLS to an instance, and not too often.
#[derive(Debug)]
struct Reporter {
    service: Box<str>,
    address: SocketAddr,
    last: Cell<Option<Instant>>,
}

impl Connector {
    pub(crate) fn new(
        tls: &ServiceTls,
        (service, address): (&str, SocketAddr),
        protocol: UpstreamProtocol,
    ) -> Self {
        let mut client = (*tls.client).clone();
        client.resumption = Resumption::in_memory_sessions(SESSIONS_MAX);
        client.alpn_protocols = vec![match protocol {
            UpstreamProtocol::Http1 => b"http/1.1".to_vec(),
            UpstreamProtocol::Http2 => b"h2".to_vec(),
        }];
        Self {
            tls: TlsConnector::from(Arc::new(client)),
            // An address is a name that is not sent, but tells sessions apart.
            name: (tls.server_name.clone()).unwrap_or_else(|| address.ip().into()),
            protocol,
            reporter: Rc::new(Reporter {
                service: service.into(),
                address,
                last: Cell::default(),
            }),
        }
    }

    /// Sets up TLS on a connection to the instance.
    pub(crate) async fn secure(&self, socket: Socket) -> io::Result<Transport> {
        let handshake = self.tls.connect(self.name.clone(), socket).await;
        let spoken = handshake.and_then(|stream| self.check_protocol(stream));
        let stream = spoken.inspect_err(|error| self.reporter.tell(error))?;
        Ok(Transport::Tls(Box::new(Secured {
            stream,
            reporter: Rc::clone(&self.reporter),
        })))
    }

    /// HTTP/2 over TLS must have been agreed on (RFC 9113 section 3.2); many speak HTTP/1.1
    /// without a word about it.
    fn check_protocol(&self, stream: TlsStream<Socket>) -> io::Result<TlsStream<Socket>> {
        let agreed = stream.get_ref().1.alpn_protocol();
        match self.protocol {
            UpstreamProtocol::Http2 if agreed.is_none() => {
                Err(io::Error::other("it does not offer HTTP/2 (ALPN `h2`)"))
            }
            _ => Ok(stream),
        }
    }
}

impl Reporter {
    fn tell(&self, error: &io::Error) {
        let (service, address, error) = (&self.service, self.address, reason(error));
        let now = Instant::now();
        let told = self.last.get().is_some_and(|last| now - last < TOLD_EVERY);
        if told {
            tracing::debug!(%service, %address, %error, "no TLS with an instance");
        } else {
            self.last.set(Some(now));
            tracing::warn!(%service, %address, %error, "no TLS with an instance");
        }
    }
}

/// Why there is no TLS, for people.
pub(crate) fn reason(error: &io::Error) -> String {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
            "invalid peer certificate: unknown issuer".to_owned()
        }
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(reason)))) => {
            format!("invalid peer certificate: {reason}")
        }
        _ => error.to_string(),
    }
}

/// Whether a connection failed because the instance does not accept the gateway's certificate, or
/// misses one. With TLS 1.3 it says so only after the client's side of the handshake is complete
/// (RFC 8446 section 4.4.2.4), and has looked at nothing of what came behind it.
pub(crate) fn is_refused(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return is_refused_by_alert(error);
        }
        next = error.source();
    }
    false
}

fn is_refused_by_alert(error: &io::Error) -> bool {
    use AlertDescription as Alert;
    let inner = error.get_ref();
    matches!(
        inner.and_then(|inner| inner.downcast_ref()),
        Some(rustls::Error::AlertReceived(
            Alert::NoCertificate
                | Alert::BadCertificate
                | Alert::UnsupportedCertificate
                | Alert::CertificateRevoked
                | Alert::CertificateExpired
                | Alert::CertificateUnknown
                | Alert::UnknownCA
                | Alert::AccessDenied
                | Alert::CertificateRequired
        ))
    )
}

impl AsyncRead for Secured {
    /// An end without `close_notify` is an error: what came before it may be cut short (RFC 8446
    /// section 6.1).
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        if let Poll::Ready(Err(error)) = &read
            && is_refused_by_alert(error)
        {
            self.reporter.tell(error);
        }
        read
    }
}

impl Drop for Secured {
    /// Ends the connection as it should be ended, as far as that needs no waiting: otherwise the
    /// instance takes it for cut short.
    fn drop(&mut self) {
        let mut nobody = Context::from_waker(Waker::noop());
        let _ = Pin::new(&mut self.stream).poll_shutdown(&mut nobody);
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(socket) => Pin::new(socket).poll_read(cx, buf),
            Self::Tls(secured) => Pin::new(&mut **secured).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(socket) => Pin::new(socket).poll_write(cx, buf),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Clear(socket) => Pin::new(socket).poll_write_vectored(cx, bufs),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Clear(socket) => socket.is_write_vectored(),
            Self::Tls(secured) => secured.stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(socket) => Pin::new(socket).poll_flush(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Clear(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Tls(secured) => Pin::new(&mut secured.stream).poll_shutdown(cx),
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Connector({:?})", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_alerts_about_certificates_refuse() {
        let alert = |alert| io::Error::other(rustls::Error::AlertReceived(alert));
        let table: [(io::Error, bool); 5] = [
            (alert(AlertDescription::CertificateRequired), true),
            (alert(AlertDescription::UnknownCA), true),
            (alert(AlertDescription::InternalError), false),
            (io::ErrorKind::ConnectionReset.into(), false),
            (io::Error::other("x"), false),
        ];
        for (error, expected) in table {
            let text = error.to_string();
            assert_eq!(is_refused(&error), expected, "{text}");
            let wrapped = Wrapped(error);
            assert_eq!(is_refused(&wrapped), expected, "{text}, wrapped");
        }
    }

    #[derive(Debug)]
    struct Wrapped(io::Error);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("wrapped")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }
}
