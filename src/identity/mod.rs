//! Users' tokens: JSON Web Tokens that say which user may log in, and until when (SPEC section 12).
//!
//! The algorithm comes from the key, and never from the token: `none`, or a public key taken for a secret, is no way in.

mod keys;

pub use keys::{BadKeys, Keys};

use crate::config::Config;
use crate::engine::event::parse_user_id;
use crate::user_id::UserId;
use jsonwebtoken::{Validation, decode};
use serde::de::IgnoredAny;
use std::{
    collections::HashMap,
    fs,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The claims of a token.
#[derive(serde::Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    /// Claims that mean nothing here. They are read all the same: claims have to be JSON in UTF-8 (RFC 7519, section 7.2), and what is
    /// not read is not checked.
    #[serde(flatten)]
    _others: HashMap<String, IgnoredAny>,
}

/// The keys and the audience that tokens of users are checked against.
#[derive(Clone, Debug)]
pub struct Tokens {
    keys: Keys,
    audience: Option<String>,
}

impl Tokens {
    /// Tokens that are signed with one of these keys, and, where there is one, are for this audience.
    #[must_use]
    pub fn new(keys: Keys, audience: Option<String>) -> Self {
        Self { keys, audience }
    }

    /// Reads what the configuration names. `None`: no tokens are asked for.
    ///
    /// # Errors
    ///
    /// If the file cannot be read or makes no sense: one sentence that names the option.
    pub fn load(config: &Config) -> Result<Option<Self>, String> {
        let Some(path) = &config.user_token_key else { return Ok(None) };
        let text = fs::read_to_string(path)
            .map_err(|error| format!("userTokenKey: cannot read {}: {error}", path.display()))?;
        let keys = Keys::parse(&text).map_err(|reason| {
            format!(
                "userTokenKey: {}: {reason}; expected public keys in PEM (EdDSA, ES256, RS256), or hs256: and base64, one a line",
                path.display()
            )
        })?;
        Ok(Some(Self::new(keys, config.user_token_audience.clone())))
    }

    /// Whether a token lets its bearer log in as this user at `now`, counted from the beginning of 1970. If so: for how long.
    #[must_use]
    pub fn judge(&self, token: &[u8], user: UserId, now: Duration) -> Option<Duration> {
        let claims = self.keys.iter().find_map(|(key, algorithm)| {
            let mut validation = Validation::new(*algorithm);
            // Both are looked at below: without leeway, and by the clock of the caller.
            validation.validate_exp = false;
            validation.validate_nbf = false;
            match &self.audience {
                Some(audience) => {
                    validation.set_required_spec_claims(&["exp", "sub", "aud"]);
                    validation.set_audience(&[audience]);
                }
                None => {
                    validation.set_required_spec_claims(&["exp", "sub"]);
                    validation.validate_aud = false;
                }
            }
            decode::<Claims>(token, key, &validation).ok().map(|token| token.claims)
        })?;
        let now = now.as_secs_f64();
        let is_valid = claims.nbf.is_none_or(|nbf| nbf <= now) && claims.exp > now;
        let is_the_users = parse_user_id(claims.sub.as_bytes()) == Some(user);
        // A time that no clock can reach counts as the last time of the clock.
        (is_valid && is_the_users).then(|| Duration::from_secs_f64((claims.exp - now).min(1e12)))
    }
}

/// The time of day, counted from the beginning of 1970.
#[must_use]
pub fn time_of_day() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests;
