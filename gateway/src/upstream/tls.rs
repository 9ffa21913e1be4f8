//! What makes an instance's certificate the right one: who has issued it, and which names it holds.
//!
//! By default rustls checks it as browsers do: the chain, its dates, and the name of the service.
//! A service with `names` is known by others instead, a SPIFFE id for one: then the certificate must
//! hold one of them, and the name of the service only chooses among the certificates of a server.

use std::fmt;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use webpki::EndEntityCert;

/// A name a certificate may hold (subject alternative name, RFC 5280 section 4.2.1.6).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum AltName {
    /// A DNS name, which a wildcard of the certificate may cover, or an address.
    Server(ServerName<'static>),
    /// A URI, compared byte by byte.
    Uri(String),
}

impl AltName {
    /// Reads a DNS name, an address or a URI. `None`: it is none of them.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if let Ok(name) = ServerName::try_from(text) {
            return Some(Self::Server(name.to_owned()));
        }
        let (scheme, rest) = text.split_once(':')?;
        let of_scheme = |c: char| c.is_ascii_alphanumeric() || "+-.".contains(c);
        let is_uri = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(of_scheme)
            && !rest.is_empty()
            && rest.chars().all(|c| c.is_ascii_graphic());
        is_uri.then(|| Self::Uri(text.to_owned()))
    }
}

impl fmt::Display for AltName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(name) => f.write_str(&name.to_str()),
            Self::Uri(uri) => f.write_str(uri),
        }
    }
}

/// Accepts certificates of these issuers that hold one of these names.
#[derive(Debug)]
pub(crate) struct ByAltName {
    roots: Arc<RootCertStore>,
    /// At least one.
    names: Vec<AltName>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ByAltName {
    pub(crate) fn new(
        roots: Arc<RootCertStore>,
        names: Vec<AltName>,
        provider: &CryptoProvider,
    ) -> Self {
        Self {
            roots,
            names,
            algorithms: provider.signature_verification_algorithms,
        }
    }

    fn holds_a_name(&self, leaf: &CertificateDer<'_>) -> Result<bool, Error> {
        let parsed = ParsedCertificate::try_from(leaf)?;
        let encoding = |_| Error::InvalidCertificate(CertificateError::BadEncoding);
        let uris = EndEntityCert::try_from(leaf).map_err(encoding)?;
        Ok(self.names.iter().any(|name| match name {
            AltName::Server(name) => verify_server_name(&parsed, name).is_ok(),
            AltName::Uri(name) => uris.valid_uri_names().any(|uri| uri == name),
        }))
    }
}

impl ServerCertVerifier for ByAltName {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_server_cert_signed_by_trust_anchor(
            &ParsedCertificate::try_from(end_entity)?,
            &self.roots,
            intermediates,
            now,
            self.algorithms.all,
        )?;
        if self.holds_a_name(end_entity)? {
            return Ok(ServerCertVerified::assertion());
        }
        let expected = self.names.clone();
        let other = OtherError(Arc::new(NoSuchName { expected }));
        Err(Error::InvalidCertificate(CertificateError::Other(other)))
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// The certificate holds other names.
#[derive(Debug)]
struct NoSuchName {
    expected: Vec<AltName>,
}

impl fmt::Display for NoSuchName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<String> = self.expected.iter().map(ToString::to_string).collect();
        write!(f, "the certificate holds none of {}", names.join(", "))
    }
}

impl std::error::Error for NoSuchName {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_hosts_addresses_or_uris() {
        let table = [
            ("app.internal", Some("Server")),
            ("10.0.0.1", Some("Server")),
            ("2001:db8::1", Some("Server")),
            ("spiffe://cluster.local/ns/shop/sa/app", Some("Uri")),
            ("urn:service:app", Some("Uri")),
            ("*.internal", None),
            ("", None),
            ("app internal", None),
            ("spiffe:", None),
            ("://x", None),
            ("1a:b c", None),
        ];
        for (text, expected) in table {
            let parsed = AltName::parse(text);
            let kind = parsed.as_ref().map(|name| match name {
                AltName::Server(_) => "Server",
                AltName::Uri(_) => "Uri",
            });
            assert_eq!(kind, expected, "{text}");
            if let Some(name) = parsed {
                assert_eq!(name.to_string(), text);
            }
        }
    }
}
