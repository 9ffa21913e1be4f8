//! Ours with everything that a partner-facing API has: 1000 routes, a token on each request, a limit
//! by its subject, the JSON access log in a file, metrics; beside ours without all that.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow, ensure};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{KeyPair, KeySize};
use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::Ground;
use super::case::turns;
use super::load::{Load, request};
use super::proxy::{Chain, Kind, Program, Running, free_address};
use super::row::Row;

pub(super) const CASE: &str = "h1 95B full chain";
pub(super) const CASE_BARE: &str = "h1 95B bare, beside the full chain";
/// Routes, and tokens with a subject of their own.
const ROUTES: usize = 1000;
const TOKENS: usize = 1000;
const BODY: usize = 95;
const CONNECTIONS: usize = 64;
pub(crate) const ISSUER: &str = "https://id.example.com/";
pub(crate) const AUDIENCE: &str = "orders";
const KEY_ID: &str = "bench-1";
/// How long tokens are valid.
const LIFETIME: Duration = Duration::from_secs(24 * 3600);

/// Each of our builds with and without the chain.
pub(super) fn run(ground: &mut Ground, programs: &[Program]) -> Result<Vec<Row>> {
    if !ground.wants(CASE) && !ground.wants(CASE_BARE) {
        return Ok(Vec::new());
    }
    let signer = Signer::new()?;
    let chained = Load {
        requests: requests(&signer)?.into(),
        ..Load::new(([0, 0, 0, 0], 0).into(), BODY, CONNECTIONS)
    };
    let (mut proxies, mut loads) = (Vec::new(), Vec::new());
    for program in programs.iter().filter(|program| program.kind == Kind::Weir) {
        for chain in [true, false] {
            let proxy = start(ground, program, chain.then_some(&signer))?;
            let load = if chain {
                chained.clone()
            } else {
                Load::new(proxy.setup.plain, BODY, CONNECTIONS)
            };
            loads.push(Load {
                target: proxy.setup.plain,
                ..load
            });
            proxies.push(proxy);
        }
    }
    let references: Vec<&Running> = proxies.iter().collect();
    let mut rows = turns(ground, &references, &loads, CASE);
    for (proxy, row) in proxies.iter().zip(&mut rows) {
        if proxy.setup.chain.is_none() {
            row.case = CASE_BARE.to_owned();
        } else if row.failure.is_none()
            && let Err(error) = check_log(&access_log(&proxy.setup.directory), row.requests)
        {
            row.failure = Some(format!("{error:#}"));
        }
    }
    Row::table(&rows);
    Ok(rows)
}

fn start(ground: &Ground, program: &Program, signer: Option<&Signer>) -> Result<Running> {
    let kind = if signer.is_some() { "chain" } else { "bare" };
    let mut setup = ground.setup(&format!("{}-{kind}", program.name))?;
    if let Some(signer) = signer {
        std::fs::create_dir_all(&setup.directory)?;
        let keys = setup.directory.join("jwks.json");
        std::fs::write(&keys, signer.key_set().to_string()).context("writing the key set")?;
        setup.routes = ROUTES;
        setup.chain = Some(Chain {
            sections: sections(&keys, &access_log(&setup.directory))?,
            used: r#"["partners", "per-partner"]"#.to_owned(),
        });
    }
    program.start(&setup)
}

fn access_log(directory: &Path) -> PathBuf {
    directory.join("access.log")
}

fn sections(keys: &Path, log: &Path) -> Result<String> {
    let admin = free_address()?;
    Ok(format!(
        "[admin]\nbind = \"{admin}\"\n\n\
         [access_log]\nto = \"file\"\npath = {log:?}\n\n\
         [auth.partners]\ntype = \"jwt\"\nissuer = \"{ISSUER}\"\naudience = [\"{AUDIENCE}\"]\n\
         jwks = {{ file = {keys:?} }}\nalgorithms = [\"RS256\"]\n\n\
         [limits.per-partner]\nrate = \"1000000/s\"\nkey = \"jwt.sub\"\n"
    ))
}

/// Every request is in the log: at least those that were counted, and each as one JSON object.
fn check_log(log: &Path, counted: u64) -> Result<()> {
    let text = std::fs::read_to_string(log).context("reading the access log")?;
    let lines = text.lines().count() as u64;
    ensure!(
        lines >= counted,
        "{lines} lines in the log, {counted} answers"
    );
    let last = text.lines().next_back().unwrap_or_default();
    let parsed: Result<Value, _> = serde_json::from_str(last);
    parsed
        .with_context(|| format!("not JSON: {last}"))
        .map(drop)
}

/// One for each token, the routes in turn.
fn requests(signer: &Signer) -> Result<Vec<Vec<u8>>> {
    (0..TOKENS)
        .map(|number| {
            let token = signer.token(&format!("partner-{number}"))?;
            let path = format!("/r/{}/{BODY}", number % ROUTES);
            Ok(request(
                &path,
                &format!("authorization: Bearer {token}\r\n"),
            ))
        })
        .collect()
}

/// Signs tokens with RS256 (RFC 7518 section 3.3).
pub(crate) struct Signer {
    key: KeyPair,
    random: SystemRandom,
}

impl Signer {
    pub(crate) fn new() -> Result<Self> {
        let key = KeyPair::generate(KeySize::Rsa2048);
        Ok(Self {
            key: key.map_err(|_| anyhow!("cannot make an RSA key"))?,
            random: SystemRandom::new(),
        })
    }

    /// The public key as a JWK set (RFC 7517).
    pub(crate) fn key_set(&self) -> Value {
        let public = self.key.public_key();
        let number = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let modulus = number(public.modulus().big_endian_without_leading_zero());
        let exponent = number(public.exponent().big_endian_without_leading_zero());
        json!({ "keys": [{
            "kty": "RSA", "use": "sig", "alg": "RS256", "kid": KEY_ID, "n": modulus, "e": exponent,
        }] })
    }

    pub(crate) fn token(&self, subject: &str) -> Result<String> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
        let header = json!({ "alg": "RS256", "typ": "JWT", "kid": KEY_ID });
        let claims = json!({
            "iss": ISSUER, "aud": AUDIENCE, "sub": subject,
            "iat": now.as_secs(), "exp": (now + LIFETIME).as_secs(),
        });
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let mut signature = vec![0; self.key.public_modulus_len()];
        self.key
            .sign(
                &RSA_PKCS1_SHA256,
                &self.random,
                signed.as_bytes(),
                &mut signature,
            )
            .map_err(|_| anyhow!("cannot sign"))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{RSA_PKCS1_2048_8192_SHA256, UnparsedPublicKey};

    use super::*;

    #[test]
    fn tokens_differ_and_are_signed() {
        let signer = Signer::new().unwrap();
        let token = signer.token("a").unwrap();
        assert_ne!(token, signer.token("b").unwrap());
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let public = UnparsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, signer.key.public_key());
        public.verify(signed.as_bytes(), &signature).unwrap();
        assert!(public.verify(b"another", &signature).is_err());
    }

    #[test]
    fn a_log_lacks_no_request_and_ends_with_an_object() {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        std::fs::write(&log, "{}\n{\"a\":1}\n").unwrap();
        check_log(&log, 2).unwrap();
        assert!(check_log(&log, 3).is_err());
        std::fs::write(&log, "{}\n{\"a\"\n").unwrap();
        assert!(check_log(&log, 2).is_err());
    }
}
