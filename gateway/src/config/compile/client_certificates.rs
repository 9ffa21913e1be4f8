//! Certificates that clients of a listener show: who issues them, which are revoked.

use std::sync::Arc;

use aws_lc_rs::digest::{Context, SHA256};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::CertificateRevocationListDer;
use rustls_pki_types::pem::PemObject as _;

use super::super::error::Problem;
use super::super::file::{Placed, Tls};
use super::super::model::{ClientCertificate, ClientCertificates};
use super::Compiler;

impl Compiler<'_> {
    pub(super) fn client_certificates(&mut self, tls: &Tls) -> Option<Arc<ClientCertificates>> {
        let Some(path) = &tls.client_ca else {
            self.nothing_about_clients(tls);
            return None;
        };
        let roots = self.roots_of(path, path.span());
        let revoked = match &tls.client_crl {
            Some(path) => self.revoked(path)?,
            None => Vec::new(),
        };
        let roots = roots?;
        let demand = tls.client_certificate();
        let mut made_from = Context::new(&SHA256);
        made_from.update(format!("{demand:?} {} ", roots.der.len()).as_bytes());
        made_from.update(&roots.der);
        for list in &revoked {
            made_from.update(list);
        }
        let made_from = made_from.finish().as_ref().try_into();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = WebPkiClientVerifier::builder_with_provider(roots.store, provider)
            .with_crls(revoked)
            // A list that is not renewed would make revoked certificates good again in silence.
            .enforce_revocation_expiration();
        let builder = match demand {
            ClientCertificate::Required => builder,
            _ => builder.allow_unauthenticated(),
        };
        let verifier = builder.build();
        let verifier = verifier
            .map_err(|error| {
                let span = tls.client_crl.as_ref().map_or(path.span(), Placed::span);
                let message = format!("clients cannot be checked by this: {error}");
                self.refuse(Problem::at(span, message));
            })
            .ok()?;
        Some(Arc::new(ClientCertificates {
            demand,
            verifier,
            made_from: made_from.expect("a SHA-256 has its length"),
        }))
    }

    /// A key that would silently do nothing.
    fn nothing_about_clients(&mut self, tls: &Tls) {
        let keys = [
            (
                "client_certificate",
                tls.client_certificate.as_ref().map(Placed::span),
            ),
            ("client_crl", tls.client_crl.as_ref().map(Placed::span)),
        ];
        for (key, span) in keys {
            if let Some(span) = span {
                let message = format!("`{key}` does nothing where clients show no certificate");
                let hint = "name who issues their certificates with `client_ca = \"…\"`";
                self.refuse(Problem::at(span, message).hint(hint));
            }
        }
    }

    fn revoked(
        &mut self,
        path: &Placed<String>,
    ) -> Option<Vec<CertificateRevocationListDer<'static>>> {
        let pem = self.read(path, path.span())?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let lists = lists.ok().filter(|lists| !lists.is_empty());
        if lists.is_none() {
            let message = format!("there is no revocation list in {}", **path);
            self.refuse(Problem::at(path.span(), message).hint("a PEM file is expected"));
        }
        lists
    }
}
