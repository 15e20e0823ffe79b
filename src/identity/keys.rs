//! The keys that tokens are signed with, as a file has them.

use jsonwebtoken::{Algorithm, DecodingKey};
use std::{fmt, slice};

/// The object identifier of the curve of ES256, as it is encoded in a key.
const P256: &[u8] = &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07];

/// Keys, each with its own algorithm.
#[derive(Clone)]
pub struct Keys(Vec<(DecodingKey, Algorithm)>);

/// Why a file of keys is no good, as the end of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadKeys(String);

impl fmt::Display for BadKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(_, algorithm)| algorithm)).finish()
    }
}

impl Keys {
    /// Reads the text of a file: PEM blocks of public keys, and lines of `hs256:` and base64.
    ///
    /// # Errors
    ///
    /// Says which part of the file is no key, or that there is none.
    pub fn parse(text: &str) -> Result<Self, BadKeys> {
        let mut keys = Vec::new();
        let mut lines = text.lines().map(str::trim).enumerate();
        while let Some((index, line)) = lines.next() {
            let bad = |what: &str| Err(BadKeys(format!("line {}: {what}", index + 1)));
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            if let Some(secret) = line.strip_prefix("hs256:") {
                match DecodingKey::from_base64_secret(secret.trim()) {
                    Ok(key) => keys.push((key, Algorithm::HS256)),
                    Err(_) => return bad("what follows hs256: is not base64 of a secret"),
                }
            } else if line.starts_with("-----BEGIN ") {
                let mut block = format!("{line}\n");
                for (_, line) in lines.by_ref() {
                    block.push_str(line);
                    block.push('\n');
                    if line.starts_with("-----END ") {
                        break;
                    }
                }
                if line.contains("PRIVATE") {
                    return bad("a private key; only the public one belongs here");
                }
                match public_key(&block) {
                    Some(key) => keys.push(key),
                    None => return bad("no public key of Ed25519, P-256 or RSA"),
                }
            } else {
                return bad("neither the beginning of a PEM block nor hs256: and base64");
            }
        }
        if keys.is_empty() { Err(BadKeys("there is no key in it".to_owned())) } else { Ok(Self(keys)) }
    }

    pub(super) fn iter(&self) -> slice::Iter<'_, (DecodingKey, Algorithm)> {
        self.0.iter()
    }
}

/// The public key of a PEM block, and the one algorithm that is used with it.
fn public_key(block: &str) -> Option<(DecodingKey, Algorithm)> {
    let pem = block.as_bytes();
    if let Ok(key) = DecodingKey::from_ed_pem(pem) {
        return Some((key, Algorithm::EdDSA));
    }
    if let Ok(key) = DecodingKey::from_ec_pem(pem) {
        let base64: String = block.lines().filter(|line| !line.starts_with('-')).collect();
        let is_p256 = decoded(&base64).windows(P256.len()).any(|window| window == P256);
        return is_p256.then_some((key, Algorithm::ES256));
    }
    DecodingKey::from_rsa_pem(pem).ok().map(|key| (key, Algorithm::RS256))
}

/// The bytes of base64; what is none is left out.
fn decoded(base64: &str) -> Vec<u8> {
    let secret = DecodingKey::from_base64_secret(base64);
    secret.ok().and_then(|key| key.try_get_as_bytes().map(<[u8]>::to_vec).ok()).unwrap_or_default()
}
