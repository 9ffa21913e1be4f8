//! Certificates: authorities, and what they issue.

use rcgen::{
    BasicConstraints, CertificateParams, CertificateRevocationListParams, CertifiedIssuer, DnType,
    IsCa, KeyIdMethod, KeyPair, RevokedCertParams, SanType, SerialNumber,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Who issues certificates.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub(crate) struct Leaf {
    /// Chain and key, one after the other.
    pub(crate) pem: String,
    pub(crate) chain: Vec<CertificateDer<'static>>,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let issuer = CertifiedIssuer::self_signed(authority(name), KeyPair::generate().unwrap());
        Self(issuer.unwrap())
    }

    /// An authority below this one.
    pub(crate) fn subordinate(&self, name: &str) -> Self {
        let key = KeyPair::generate().unwrap();
        Self(CertifiedIssuer::signed_by(authority(name), key, &self.0).unwrap())
    }

    /// Its own certificate.
    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// Its list of the certificates it has taken back, which is good for long, or was until 2021.
    pub(crate) fn revokes(&self, serials: &[u64], current: bool) -> String {
        let day = |year| rcgen::date_time_ymd(year, 1, 1);
        let revoked = serials.iter().map(|serial| RevokedCertParams {
            serial_number: SerialNumber::from(*serial),
            revocation_time: day(2020),
            reason_code: None,
            invalidity_date: None,
        });
        let list = CertificateRevocationListParams {
            this_update: day(2020),
            next_update: day(if current { 2100 } else { 2021 }),
            crl_number: SerialNumber::from(1_u64),
            issuing_distribution_point: None,
            revoked_certs: revoked.collect(),
            key_identifier_method: KeyIdMethod::Sha256,
        };
        list.signed_by(&self.0).unwrap().pem().unwrap()
    }

    /// A certificate for these names: hosts, addresses and URIs.
    pub(crate) fn issue(&self, names: &[&str]) -> Leaf {
        self.issue_as(names, |_| {})
    }

    /// The same, for a time that has passed.
    pub(crate) fn issue_expired(&self, names: &[&str]) -> Leaf {
        self.issue_as(names, |params| {
            params.not_before = rcgen::date_time_ymd(2020, 1, 1);
            params.not_after = rcgen::date_time_ymd(2021, 1, 1);
        })
    }

    pub(crate) fn issue_as(
        &self,
        names: &[&str],
        change: impl FnOnce(&mut CertificateParams),
    ) -> Leaf {
        let is_uri = |name: &&str| name.contains("://");
        let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().copied().partition(is_uri);
        let names: Vec<String> = names.into_iter().map(ToOwned::to_owned).collect();
        let mut params = CertificateParams::new(names).unwrap();
        let uris = uris.into_iter().map(|uri| uri.try_into().unwrap());
        params.subject_alt_names.extend(uris.map(SanType::URI));
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.0).unwrap();
        Leaf {
            // Without its issuer nobody could tell who vouches for a subordinate one.
            pem: leaf.pem() + &self.pem() + &key.serialize_pem(),
            chain: vec![leaf.der().clone(), self.0.der().clone()],
        }
    }
}

fn authority(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

impl Leaf {
    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::from_pem_slice(self.pem.as_bytes()).unwrap()
    }
}
