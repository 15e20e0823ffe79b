//! What a connection shows before it is a user: PROXY headers, and login lines with tokens (SPEC section 12).
//!
//! The first byte of an input says which. With an even one the rest is the beginning of a connection, which is
//! read as the door reads it. With an odd one the rest is a login line, a NUL, and the claims of its token.
//! The token is signed here, since nobody guesses a signature; other bits of the first byte say how.
//!
//! - Nothing panics.
//! - A header is judged as [`header`] does, which knows nothing of pieces, and no byte behind it is asked for.
//! - Who is let in has a token of its own, of a key and an algorithm that are accepted, for the audience, and for now.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use fortnight::internals::{
    identity::{Keys, Tokens},
    proxy::{self, Progress},
    resume::Login,
};
use jsonwebtoken::{Algorithm, EncodingKey, crypto};
use serde_json::Value;

/// The time at which tokens are judged.
const NOW: u64 = 2_000_000_000;
const AUDIENCE: &str = "maze";
/// A secret that is accepted, as in a file of keys and as it is.
const KEY: &str = "hs256:aHVuZHJlZA==";
const SECRET: &[u8] = b"hundred";
const OTHER_SECRET: &[u8] = b"another";
/// Heads of tokens. Only the first is of the key's algorithm.
const HEADS: [&str; 4] =
    [r#"{"alg":"HS256"}"#, r#"{"alg":"none"}"#, r#"{"alg":"HS384"}"#, r#"{"alg":"EdDSA"}"#];

/// Runs one input.
pub fn run(input: &[u8]) {
    match input {
        [how, rest @ ..] if how & 1 == 0 => check_header(rest),
        [how, rest @ ..] => check_login(how >> 1, rest),
        [] => {}
    }
}

/// Reads a header as the door does, and compares.
fn check_header(bytes: &[u8]) {
    let mut len = 0;
    let judged = loop {
        match proxy::read(&bytes[..len]) {
            Progress::Needs(missing) => {
                assert!(missing > 0, "nothing is missing, and nothing is judged");
                if len + missing > bytes.len() {
                    break None;
                }
                len += missing;
            }
            Progress::Whole(peer) => break Some((peer, len)),
            Progress::Bad(_) => break None,
        }
    };
    assert_eq!(judged, header(bytes), "of {:?}", bytes.escape_ascii().to_string());
}

/// The peer that a whole header names, and the header's length.
fn header(bytes: &[u8]) -> Option<(Option<SocketAddr>, usize)> {
    if bytes.starts_with(b"PROXY ") {
        let end = bytes.iter().take(107).position(|&byte| byte == b'\n')?;
        let line = std::str::from_utf8(&bytes[..end]).ok()?.strip_suffix('\r')?;
        let words: Vec<&str> = line.split(' ').skip(1).collect();
        let port = |word: &str| {
            let is_number = word.bytes().all(|byte| byte.is_ascii_digit());
            word.parse::<u16>().ok().filter(|_| is_number)
        };
        let peer = match words[..] {
            ["UNKNOWN", ..] => None,
            [family @ ("TCP4" | "TCP6"), from, to, from_port, to_port] => {
                let address = |word: &str| match family {
                    "TCP4" => word.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    _ => word.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                };
                address(to)?;
                port(to_port)?;
                Some(SocketAddr::new(address(from)?, port(from_port)?))
            }
            _ => return None,
        };
        return Some((peer, end + 1));
    }
    let rest = bytes.strip_prefix(b"\r\n\r\n\0\r\nQUIT\n")?;
    let (&[command, family, high, low], rest) = rest.split_first_chunk()?;
    let body = rest.get(..usize::from(u16::from_be_bytes([high, low]))).filter(|body| body.len() <= 4096)?;
    let len = bytes.len() - rest.len() + body.len();
    let addresses = match (command, family) {
        (0x20, _) | (0x21, 0) => return Some((None, len)),
        (0x21, 0x11) => 12,
        (0x21, 0x21) => 36,
        (0x21, 0x31) => 216,
        _ => return None,
    };
    let mut extras = body.get(addresses..)?;
    while !extras.is_empty() {
        let (&[_, high, low], values) = extras.split_first_chunk()?;
        extras = values.get(usize::from(u16::from_be_bytes([high, low]))..)?;
    }
    let ip = match family {
        0x11 => IpAddr::from(*body.first_chunk::<4>()?),
        0x21 => IpAddr::from(*body.first_chunk::<16>()?),
        _ => return Some((None, len)),
    };
    let port = u16::from_be_bytes([body[addresses - 4], body[addresses - 3]]);
    Some((Some(SocketAddr::new(ip, port)), len))
}

/// Reads a login line with a token, and looks into the token of whoever is let in.
fn check_login(how: u8, rest: &[u8]) {
    let (line, claims) = match rest.iter().position(|&byte| byte == 0) {
        Some(end) => (&rest[..end], Some(&rest[end + 1..])),
        None => (rest, None),
    };
    let (head, is_ours, has_audience) = (usize::from(how & 3), how & 4 == 0, how & 8 != 0);
    let mut line = line.to_vec();
    if let Some(claims) = claims {
        line.push(b'|');
        line.extend(sign(HEADS[head], claims, if is_ours { SECRET } else { OTHER_SECRET }).into_bytes());
    }
    // Without a token, each form is a login or none, whatever it says.
    let _ = Login::parse(&line, false);
    let Some(login) = Login::parse(&line, true) else { return };
    let token = login.token.expect("a token where tokens are asked for");
    assert!(line.ends_with(token) && !token.is_empty(), "the token is the last field");
    let keys = Keys::parse(KEY).expect("a key");
    let tokens = Tokens::new(keys, has_audience.then(|| AUDIENCE.to_owned()));
    let Some(lasts) = tokens.judge(token, login.id, Duration::from_secs(NOW)) else { return };
    let claims = claims.expect("a signature was guessed");
    assert!(head == 0 && is_ours, "let in with a key or an algorithm that is not accepted");
    let claims: Value = serde_json::from_slice(claims).expect("claims in JSON");
    let user = claims["sub"].as_str().expect("a user");
    assert!(user.bytes().all(|byte| byte.is_ascii_digit()), "{user} is no number");
    assert_eq!(user.parse(), Ok(login.id.get()), "another user's token");
    let now = Duration::from_secs(NOW).as_secs_f64();
    let expires = claims["exp"].as_f64().expect("an end");
    assert!(expires > now && lasts.as_secs_f64() <= expires - now + 1e-3, "it lasts {lasts:?}");
    assert!(claims.get("nbf").and_then(Value::as_f64).is_none_or(|from| from <= now), "not valid yet");
    if has_audience {
        let is_ours = |one: &Value| one == AUDIENCE;
        let audience = &claims["aud"];
        assert!(is_ours(audience) || audience.as_array().is_some_and(|all| all.iter().any(is_ours)));
    }
}

/// A token with these claims, as they are.
fn sign(head: &str, claims: &[u8], secret: &[u8]) -> String {
    let message = format!("{}.{}", base64(head.as_bytes()), base64(claims));
    let key = EncodingKey::from_secret(secret).expect("a key");
    let signature = crypto::sign(message.as_bytes(), &key, Algorithm::HS256).expect("a signature");
    format!("{message}.{signature}")
}

/// Base64 of RFC 4648, section 5, without padding.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for group in bytes.chunks(3) {
        let byte = |index: usize| usize::from(*group.get(index).unwrap_or(&0));
        let bits = (byte(0) << 16) | (byte(1) << 8) | byte(2);
        let digits = (0..=group.len()).map(|index| char::from(DIGITS[(bits >> (18 - 6 * index)) & 63]));
        text.extend(digits);
    }
    text
}
