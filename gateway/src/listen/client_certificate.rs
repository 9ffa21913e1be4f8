//! The certificate a client has shown: whether it is valid, and what instances are told of it.
//!
//! Instances are told by `X-Forwarded-Client-Cert`, in the form Envoy has made common:
//! `Hash=…;Subject="…";URI=…;DNS=…`, where `Hash` is the SHA-256 of the certificate.
//!
//! What is demanded of clients is said by listener, so it is the same for all names and routes of
//! one: a request cannot come to more than its connection was checked for. Sessions are not resumed
//! where clients are asked for certificates: one that has expired or was revoked since would go on.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use aws_lc_rs::digest::{SHA256, digest};
use http::HeaderValue;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::NoServerSessionStorage;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, ServerConfig,
    ServerConnection, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, UnixTime};
use webpki::EndEntityCert;
use x509_parser::x509::X509Name;

use crate::config::{ClientCertificate, ClientCertificates};

/// Bytes instances are told of a certificate at most; of one with more than that, the hash alone.
const TOLD_BYTES_MAX: usize = 8 * 1024;

/// What came of asking a client for its certificate: the label in the metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It is valid.
    Valid,
    /// There was none.
    Missing,
    /// Its time has not come, or is over.
    Expired,
    /// Its issuer has taken it back.
    Revoked,
    /// Nobody who is trusted has issued it.
    UnknownIssuer,
    /// Anything else.
    Invalid,
}

impl Outcome {
    /// All there are.
    pub(crate) const ALL: [Self; 6] = [
        Self::Valid,
        Self::Missing,
        Self::Expired,
        Self::Revoked,
        Self::UnknownIssuer,
        Self::Invalid,
    ];

    /// In kebab-case.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Valid => "valid",
            Self::Missing => "missing",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
            Self::UnknownIssuer => "unknown-issuer",
            Self::Invalid => "invalid",
        }
    }

    fn of(error: &Error) -> Option<Self> {
        use CertificateError as Certificate;
        Some(match error {
            Error::NoCertificatesPresented => Self::Missing,
            Error::InvalidCertificate(error) => match error {
                Certificate::Expired
                | Certificate::ExpiredContext { .. }
                | Certificate::NotValidYet
                | Certificate::NotValidYetContext { .. } => Self::Expired,
                Certificate::Revoked => Self::Revoked,
                Certificate::UnknownIssuer => Self::UnknownIssuer,
                _ => Self::Invalid,
            },
            _ => return None,
        })
    }

    /// Of a handshake that failed; `None`: for another reason.
    pub(super) fn of_failure(error: &io::Error) -> Option<Self> {
        Self::of(error.get_ref()?.downcast_ref()?)
    }
}

/// How the clients of one listener are checked.
#[derive(Debug)]
pub(super) struct Clients {
    pub(super) config: Arc<ClientCertificates>,
    started: Instant,
    /// The second, since it was made, in which a refusal was told last.
    told: AtomicU64,
}

impl Clients {
    pub(super) fn new(config: Arc<ClientCertificates>) -> Self {
        Self {
            config,
            started: Instant::now(),
            told: AtomicU64::new(u64::MAX),
        }
    }

    /// Asks for certificates in handshakes.
    pub(super) fn verifier(&self) -> Arc<dyn ClientCertVerifier> {
        let verifier = Arc::clone(&self.config.verifier);
        match self.config.demand {
            ClientCertificate::InsecureFallback => Arc::new(Fallback(verifier)),
            ClientCertificate::Required | ClientCertificate::Optional => verifier,
        }
    }

    /// Makes every handshake a full one.
    pub(super) fn resume_nothing(server: &mut ServerConfig) {
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
    }

    /// What came of asking, and what instances are told of it.
    pub(super) fn outcome(&self, session: &ServerConnection) -> (Outcome, Option<HeaderValue>) {
        let Some([leaf, intermediates @ ..]) = session.peer_certificates() else {
            return (Outcome::Missing, None);
        };
        if self.config.demand == ClientCertificate::InsecureFallback {
            // The handshake has let anything pass.
            let verified =
                self.config
                    .verifier
                    .verify_client_cert(leaf, intermediates, UnixTime::now());
            if let Err(error) = verified {
                return (Outcome::of(&error).unwrap_or(Outcome::Invalid), None);
            }
        }
        (Outcome::Valid, Some(told(leaf)))
    }

    /// Whether no other refusal was told this second.
    pub(super) fn may_tell(&self) -> bool {
        let second = self.started.elapsed().as_secs();
        self.told.swap(second, Ordering::Relaxed) != second
    }
}

/// Lets connections go on whatever their client shows, as long as it is the client's own.
#[derive(Debug)]
struct Fallback(Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for Fallback {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.0.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What instances are told of a certificate.
fn told(leaf: &CertificateDer<'_>) -> HeaderValue {
    let mut text = String::from("Hash=");
    for byte in digest(&SHA256, leaf).as_ref() {
        let _ = write!(text, "{byte:02x}");
    }
    let hash_alone = text.len();
    if let Ok((_, parsed)) = x509_parser::parse_x509_certificate(leaf) {
        let _ = write!(text, ";Subject=\"{}\"", subject(parsed.subject()));
    }
    if let Ok(names) = EndEntityCert::try_from(leaf) {
        let uris = names.valid_uri_names().map(|name| ("URI", name));
        let hosts = names.valid_dns_names().map(|name| ("DNS", name));
        for (key, name) in uris.chain(hosts) {
            add(&mut text, key, name);
        }
    }
    if text.len() > TOLD_BYTES_MAX {
        text.truncate(hash_alone);
    }
    HeaderValue::try_from(text).expect("every part of it is plain ASCII")
}

/// Adds a name. What no URI and no host can hold is left out: whoever reads the field might take
/// it for the end of the name.
fn add(text: &mut String, key: &str, name: &str) {
    let fits = |byte: u8| byte.is_ascii_graphic() && byte != b'"' && byte != b'\\';
    if !name.bytes().all(fits) {
        return;
    }
    let quote = match name.contains([',', ';', '=']) {
        true => "\"",
        false => "",
    };
    let _ = write!(text, ";{key}={quote}{name}{quote}");
}

/// A distinguished name as text (RFC 4514): the last part first. All that could mean anything to a
/// reader is escaped by its code, so no quotation mark and no lone backslash is ever in it.
fn subject(name: &X509Name<'_>) -> String {
    let mut parts: Vec<String> = Vec::new();
    for part in name.iter() {
        let attributes = part.iter().map(|attribute| {
            let oid = attribute.attr_type().to_id_string();
            let value = attribute
                .as_str()
                .map_or(attribute.as_slice(), str::as_bytes);
            format!("{}={}", keyword(&oid), escaped(value))
        });
        parts.push(attributes.collect::<Vec<_>>().join("+"));
    }
    parts.reverse();
    parts.join(",")
}

/// The short name of a type of attribute (RFC 4514 section 3).
fn keyword(oid: &str) -> &str {
    match oid {
        "2.5.4.3" => "CN",
        "2.5.4.6" => "C",
        "2.5.4.7" => "L",
        "2.5.4.8" => "ST",
        "2.5.4.9" => "STREET",
        "2.5.4.10" => "O",
        "2.5.4.11" => "OU",
        "0.9.2342.19200300.100.1.1" => "UID",
        "0.9.2342.19200300.100.1.25" => "DC",
        other => other,
    }
}

fn escaped(value: &[u8]) -> String {
    let mut text = String::with_capacity(value.len());
    for (at, byte) in value.iter().enumerate() {
        let inner = at > 0 && at + 1 < value.len();
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~@:/'()*!".contains(byte)
            || (*byte == b' ' && inner);
        if plain {
            text.push(char::from(*byte));
        } else {
            let _ = write!(text, "\\{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn certificate(change: impl FnOnce(&mut CertificateParams)) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        params.self_signed(&key).unwrap().der().clone()
    }

    fn hash(leaf: &CertificateDer<'_>) -> String {
        let digits = digest(&SHA256, leaf);
        digits
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }

    #[test]
    fn instances_are_told_who_it_is() {
        let uri = |text: &str| SanType::URI(text.try_into().unwrap());
        let dns = |text: &str| SanType::DnsName(text.try_into().unwrap());
        // Common name and organisation, further names, and what is told behind the hash.
        let table: [(&[&str], Vec<SanType>, &str); 6] = [
            (&["app"], vec![], ";Subject=\"CN=app\""),
            (
                &["app", "Shop Ltd"],
                vec![],
                ";Subject=\"O=Shop Ltd,CN=app\"",
            ),
            (
                &["a\",URI=spiffe://x;b\\"],
                vec![],
                ";Subject=\"CN=a\\22\\2CURI\\3Dspiffe://x\\3Bb\\5C\"",
            ),
            (&["é "], vec![], ";Subject=\"CN=\\C3\\A9\\20\""),
            (
                &["app"],
                vec![dns("a.test"), uri("spiffe://test/app"), dns("b.test")],
                ";Subject=\"CN=app\";URI=spiffe://test/app;DNS=a.test;DNS=b.test",
            ),
            (
                &["app"],
                vec![uri("urn:a;b=c,d"), uri("urn:\"x"), uri("urn:x\\")],
                ";Subject=\"CN=app\";URI=\"urn:a;b=c,d\"",
            ),
        ];
        for (names, more, expected) in table {
            let leaf = certificate(|params| {
                for (kind, name) in [DnType::CommonName, DnType::OrganizationName]
                    .into_iter()
                    .zip(names)
                {
                    params.distinguished_name.push(kind, *name);
                }
                params.subject_alt_names = more;
            });
            let expected = format!("Hash={}{expected}", hash(&leaf));
            assert_eq!(told(&leaf).to_str().unwrap(), expected, "{names:?}");
        }
    }

    #[test]
    fn a_certificate_with_too_much_to_tell_is_told_by_its_hash() {
        // `Hash=` and 64 digits, `;Subject=""`, and `;DNS=` before a name of up to 253 letters.
        let room = TOLD_BYTES_MAX - 69 - 11;
        let length = 5 + "1234567890.1234567890.test".len();
        for (count, hash_alone) in [(room / length, false), (room / length + 1, true)] {
            let leaf = certificate(|params| {
                params.subject_alt_names = (0..count)
                    .map(|n| format!("{n:010}.1234567890.test"))
                    .map(|name| SanType::DnsName(name.try_into().unwrap()))
                    .collect();
            });
            let told = told(&leaf);
            let is_hash = told.to_str().unwrap() == format!("Hash={}", hash(&leaf));
            assert_eq!(is_hash, hash_alone, "{count}");
            assert!(told.len() <= TOLD_BYTES_MAX);
        }
    }

    #[test]
    fn outcomes_follow_the_error() {
        let table = [
            (Error::NoCertificatesPresented, Some(Outcome::Missing)),
            (
                Error::InvalidCertificate(CertificateError::Revoked),
                Some(Outcome::Revoked),
            ),
            (
                Error::InvalidCertificate(CertificateError::NotValidYet),
                Some(Outcome::Expired),
            ),
            (
                Error::InvalidCertificate(CertificateError::UnknownRevocationStatus),
                Some(Outcome::Invalid),
            ),
            (Error::HandshakeNotComplete, None),
        ];
        for (error, expected) in table {
            let error = io::Error::other(error);
            assert_eq!(Outcome::of_failure(&error), expected, "{error}");
        }
    }
}
