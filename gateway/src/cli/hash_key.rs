//! `weir-gateway hash-key`: from an API key on stdin to the hash that stands in the configuration.
//! The key is never an argument, where other users could see it.

use std::io::{IsTerminal, Read};

use anyhow::anyhow;

use super::{Failure, output};
use crate::filter::api_key::{KEY_BYTES_MAX, KeyHash};

/// Bytes of a key at least. Its hash has no salt, so the key itself must be beyond guessing.
const KEY_BYTES_MIN: usize = 20;

/// How to make a good key.
const HINT: &str = "make one with `openssl rand -base64 32`";

pub(super) fn run() -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        output::talk("type the API key, Enter, and Ctrl-D");
    }
    let mut key = Vec::new();
    let limit = u64::try_from(KEY_BYTES_MAX + 2).expect("a small number fits");
    std::io::stdin()
        .take(limit)
        .read_to_end(&mut key)
        .map_err(anyhow::Error::from)?;
    let hash = hash(&key).map_err(|reason| Failure::Other(anyhow!(reason), Some(HINT)))?;
    output::text(&hash.to_string())
}

/// The hash of a key without the line end an `echo` adds.
fn hash(input: &[u8]) -> Result<KeyHash, &'static str> {
    let key = input.strip_suffix(b"\n").unwrap_or(input);
    let key = key.strip_suffix(b"\r").unwrap_or(key);
    if key.len() > KEY_BYTES_MAX {
        return Err("the key is longer than 1024 bytes");
    }
    if !key.iter().all(|byte| byte.is_ascii_graphic()) {
        return Err("the key has characters that cannot stand in a header");
    }
    if key.len() < KEY_BYTES_MIN {
        return Err("the key is shorter than 20 characters: its hash could be tried out");
    }
    Ok(KeyHash::of(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_keys_fit_for_a_header_and_beyond_guessing_are_hashed() {
        let key = "k".repeat(20);
        let plain = hash(key.as_bytes()).unwrap();
        for ending in ["\n", "\r\n"] {
            assert_eq!(
                hash(format!("{key}{ending}").as_bytes()),
                Ok(plain),
                "{ending:?}"
            );
        }
        for wrong in [
            &key[1..],
            "",
            "\n",
            "with a space in the key",
            "line\nbreaks-in-the-key",
        ] {
            assert!(hash(wrong.as_bytes()).is_err(), "{wrong:?}");
        }
        assert!(hash(&[b'k'; 1024]).is_ok());
        assert!(hash(&[b'k'; 1025]).is_err());
    }
}
