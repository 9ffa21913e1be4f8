//! TLS towards services: issuers, names, the gateway's own certificate.

use std::ops::Range;
use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::crypto::CryptoProvider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};

use super::super::error::Problem;
use super::super::file::{self, Placed, Service};
use super::super::model::ServiceTls;
use super::Compiler;
use crate::upstream::tls::{AltName, ByAltName};

/// Names of which a certificate must hold one, at most.
const NAMES_MAX: usize = 32;

/// Issuers that are trusted.
#[derive(Clone)]
pub(super) struct Roots {
    pub(super) store: Arc<RootCertStore>,
    /// All certificates one after the other.
    pub(super) der: Arc<[u8]>,
}

/// Hashes what something was made from, each part behind its length.
struct MadeFrom(Context);

impl MadeFrom {
    fn note(&mut self, part: &[u8]) {
        self.0.update(&(part.len() as u64).to_le_bytes());
        self.0.update(part);
    }
}

impl Compiler<'_> {
    pub(super) fn service_tls(
        &mut self,
        service: &Placed<String>,
        typed: &Service,
    ) -> Option<Arc<ServiceTls>> {
        let tls = typed.tls.as_ref()?;
        let mut made_from = MadeFrom(Context::new(&SHA256));
        let roots = match &tls.ca {
            Some(path) => self.roots_of(path, path.span()),
            None => self.system_roots(tls.span()),
        };
        let names = self.alt_names(&tls.names);
        let server_name = self.server_name(service, typed, tls);
        let own = tls.certificate.as_ref();
        let own = own.and_then(|own| self.own_certificate(own, &mut made_from));
        let roots = roots?;
        made_from.note(&roots.der);
        made_from.note(format!("{server_name:?} {names:?}").as_bytes());
        let made_from = made_from.0.finish().as_ref().try_into();
        let client = client(roots.store, names, own);
        let client = client
            .map_err(|error| {
                // The pair was checked; what is left is a kind of key nobody can use for this.
                let message = format!("TLS cannot be set up: {error}");
                self.refuse(Problem::at(tls.span(), message));
            })
            .ok()?;
        Some(Arc::new(ServiceTls {
            server_name,
            client: Arc::new(client),
            made_from: made_from.expect("a SHA-256 has its length"),
        }))
    }

    /// The issuers in a PEM file.
    pub(super) fn roots_of(&mut self, path: &str, span: Range<usize>) -> Option<Roots> {
        let pem = self.read(path, span.clone())?;
        let mut store = RootCertStore::empty();
        let mut der = Vec::new();
        for certificate in CertificateDer::pem_slice_iter(&pem) {
            let added = certificate.ok().and_then(|certificate| {
                der.extend_from_slice(&certificate);
                store.add(certificate).ok()
            });
            if added.is_none() {
                let message = format!("a certificate in {path} cannot be read");
                self.refuse(Problem::at(span, message).hint("a PEM file is expected"));
                return None;
            }
        }
        if store.is_empty() {
            let message = format!("there is no certificate in {path}");
            self.refuse(Problem::at(span, message).hint("a PEM file is expected"));
            return None;
        }
        Some(Roots {
            store: Arc::new(store),
            der: der.into(),
        })
    }

    /// The issuers the system trusts, read once for all services.
    fn system_roots(&mut self, span: Range<usize>) -> Option<Roots> {
        if self.system_roots.is_none() {
            let found = rustls_native_certs::load_native_certs();
            let mut store = RootCertStore::empty();
            let mut der = Vec::new();
            for certificate in found.certs {
                der.extend_from_slice(&certificate);
                // Systems carry some that are too old to be of use.
                let _ = store.add(certificate);
            }
            self.system_roots = Some(Roots {
                store: Arc::new(store),
                der: der.into(),
            });
        }
        let roots = self.system_roots.clone();
        let roots = roots.filter(|roots| !roots.store.is_empty());
        if roots.is_none() {
            self.refuse(
                Problem::at(span, "the system trusts no issuer of certificates")
                    .hint("name the issuers with `ca = \"…\"`, or install `ca-certificates`"),
            );
        }
        roots
    }

    fn alt_names(&mut self, typed: &[Placed<String>]) -> Vec<AltName> {
        if let Some(one_more) = typed.get(NAMES_MAX) {
            let message = format!("{} names are too many", typed.len());
            let hint = format!("a service may have {NAMES_MAX}");
            self.refuse(Problem::at(one_more.span(), message).hint(hint));
        }
        let mut names = Vec::new();
        for text in typed {
            match AltName::parse(text) {
                Some(name) => names.push(name),
                None => self.refuse(
                    Problem::at(text.span(), format!("`{text}` is no name of a certificate"))
                        .hint("write a host, an address, or a URI such as \"spiffe://domain/app\""),
                ),
            }
        }
        names
    }

    /// The name that is asked for.
    fn server_name(
        &mut self,
        service: &Placed<String>,
        typed: &Service,
        tls: &Placed<file::ServiceTls>,
    ) -> Option<ServerName<'static>> {
        let Some(text) = typed.tls_server_name() else {
            if tls.names.is_empty() {
                let message =
                    format!("nothing says which name the certificates of `{service}` must hold");
                let hint = "add for example `server_name = \"orders.internal\"`";
                self.refuse(Problem::at(tls.span(), message).hint(hint));
            }
            return None;
        };
        let name = ServerName::try_from(text.to_owned());
        name.map_err(|_| {
            let span = tls.server_name.as_ref().map_or(tls.span(), Placed::span);
            let message = format!("`{text}` is no name of a server");
            self.refuse(
                Problem::at(span, message).hint("write a host or an address, without port"),
            );
        })
        .ok()
    }

    fn own_certificate(
        &mut self,
        files: &Placed<file::Certificate>,
        made_from: &mut MadeFrom,
    ) -> Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
        let (chain, key) = self.certificate_pair(files)?;
        made_from.note(&chain);
        made_from.note(&key);
        let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&chain).collect();
        Some((chain.ok()?, PrivateKeyDer::from_pem_slice(&key).ok()?))
    }
}

fn client(
    roots: Arc<RootCertStore>,
    names: Vec<AltName>,
    own: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
) -> Result<ClientConfig, rustls::Error> {
    let provider: Arc<CryptoProvider> = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?;
    let builder = if names.is_empty() {
        builder.with_root_certificates(roots)
    } else {
        let verifier = ByAltName::new(roots, names, &provider);
        // The word is rustls's for any check but its own.
        builder
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
    };
    match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key),
        None => Ok(builder.with_no_client_auth()),
    }
}
