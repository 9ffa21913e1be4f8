//! The key of the flow hash, read from where the configuration says it is.

use std::fs::File;
use std::io::{self, Read};
use std::{env, fmt};

use thiserror::Error;

use super::Secret;

/// Bytes of the key (SipHash takes 128 bits).
const KEY_BYTES: usize = 16;

/// Bytes of a secret file that are looked at: a key, its line end, and room for a clear error.
const FILE_BYTES_MAX: u64 = 4096;

/// The key of the flow hash. Clients that knew it could choose their backend, so it is never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HashKey(pub [u8; KEY_BYTES]);

/// Why the key could not be read. Says nothing of what was found instead.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The file could not be read.
    #[error("cannot read the hash secret from {0}")]
    Read(Secret, #[source] io::Error),
    /// The environment variable is not set, or is not text.
    #[error("cannot read the hash secret: the environment variable {0} is not set")]
    Env(String),
    /// Found, but not a key.
    #[error("the hash secret in {0} is not 32 hexadecimal digits (make one: openssl rand -hex 16)")]
    Form(Secret),
}

impl Secret {
    /// Reads the key: 32 hexadecimal digits, and nothing else but white space around them.
    ///
    /// # Errors
    ///
    /// When the source cannot be read or holds something else.
    pub fn read(&self) -> Result<HashKey, SecretError> {
        let text = match self {
            Self::File(path) => {
                let mut text = String::new();
                File::open(path)
                    .and_then(|file| file.take(FILE_BYTES_MAX).read_to_string(&mut text))
                    .map_err(|source| SecretError::Read(self.clone(), source))?;
                text
            }
            Self::Env(name) => env::var(name).map_err(|_| SecretError::Env(name.clone()))?,
        };
        HashKey::parse(text.trim()).ok_or_else(|| SecretError::Form(self.clone()))
    }
}

impl HashKey {
    fn parse(text: &str) -> Option<Self> {
        if text.len() != 2 * KEY_BYTES || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        let mut key = [0; KEY_BYTES];
        for (byte, i) in key.iter_mut().zip((0..).step_by(2)) {
            *byte = u8::from_str_radix(&text[i..i + 2], 16).ok()?;
        }
        Some(Self(key))
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HashKey(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_hexadecimal_digits() {
        let mut expected = [0; KEY_BYTES];
        (expected[0], expected[15]) = (0x01, 0xff);
        let key = HashKey::parse("010000000000000000000000000000fF");
        assert_eq!(key, Some(HashKey(expected)));
        for wrong in [
            "",
            "00",
            "0x000000000000000000000000000000",
            &"0".repeat(33),
            &"ä".repeat(16),
        ] {
            assert_eq!(HashKey::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn errors_and_debug_do_not_show_the_secret() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key");
        std::fs::write(&path, "hunter2 is not a key\n").unwrap();
        let error = Secret::File(path.clone()).read().unwrap_err().to_string();
        assert!(
            error.contains("32 hexadecimal digits") && !error.contains("hunter2"),
            "{error}"
        );

        std::fs::write(&path, "00112233445566778899aabbccddeeff\n").unwrap();
        let key = Secret::File(path).read().unwrap();
        assert_eq!(
            (key.0[1], format!("{key:?}")),
            (0x11, "HashKey(…)".to_owned())
        );
    }
}
