//! The PROXY protocol, versions 1 and 2: the header with which a proxy says who is at its other end (SPEC section 12).
//!
//! Nothing in here reads. [`read`] is told the bytes that have come, and says how many more it needs: never one of those
//! behind the header, which are the connection's own.

mod network;

pub use network::Network;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// The first twelve bytes of a header of version 2.
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
/// The first bytes of a header of version 1.
const NAME: &[u8; 6] = b"PROXY ";
/// The shortest header of version 1: `PROXY UNKNOWN` and its line end. No header of version 2 is shorter.
const SHORTEST: usize = 15;
/// The longest header of version 1, line end included.
const LINE_BYTES_MAX: usize = 107;
/// Signature, command, family and length of version 2.
const HEAD_BYTES: usize = 16;
/// The most that may follow them. The address of a Unix socket takes 216 bytes; what proxies add to it is far less than
/// the rest.
const BODY_BYTES_MAX: usize = 4096;

/// The verdict on the bytes so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// At least this number of bytes of the header is missing.
    Needs(usize),
    /// The header is whole. It names the real peer; `None`: it speaks of the connection itself.
    Whole(Option<SocketAddr>),
    /// It is no header, for this reason.
    Bad(&'static str),
}

/// Judges the first bytes of a connection.
#[must_use]
pub fn read(bytes: &[u8]) -> Progress {
    let begins_with = |start: &[u8]| bytes.iter().zip(start).all(|(byte, wanted)| byte == wanted);
    if begins_with(NAME) {
        match SHORTEST.checked_sub(bytes.len()) {
            Some(missing @ 1..) => Progress::Needs(missing),
            _ => read_line(bytes),
        }
    } else if begins_with(SIGNATURE) {
        match HEAD_BYTES.checked_sub(bytes.len()) {
            Some(missing @ 1..) => Progress::Needs(missing),
            _ => read_binary(bytes),
        }
    } else {
        Progress::Bad("it does not begin with a PROXY header")
    }
}

/// Version 1: one line of text.
fn read_line(bytes: &[u8]) -> Progress {
    let Some(end) = bytes.iter().position(|&byte| byte == b'\n') else {
        return match bytes.last() {
            _ if bytes.len() >= LINE_BYTES_MAX => Progress::Bad("its PROXY header has no end"),
            Some(b'\r') => Progress::Needs(1),
            _ => Progress::Needs(2.min(LINE_BYTES_MAX - bytes.len())),
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").and_then(|line| std::str::from_utf8(line).ok());
    let Some(line) = line else { return Progress::Bad("its PROXY header is no line of text") };
    let fields: Vec<&str> = line.split(' ').collect();
    let peer = match fields[..] {
        ["PROXY", "UNKNOWN", ..] => return Progress::Whole(None),
        ["PROXY", "TCP4", from, to, from_port, to_port] => {
            endpoints::<Ipv4Addr>(from, to, from_port, to_port)
        }
        ["PROXY", "TCP6", from, to, from_port, to_port] => {
            endpoints::<Ipv6Addr>(from, to, from_port, to_port)
        }
        _ => None,
    };
    match peer {
        Some(peer) => Progress::Whole(Some(peer)),
        None => Progress::Bad("its PROXY header names no addresses"),
    }
}

/// The first of two endpoints, if both are whole.
fn endpoints<A: std::str::FromStr + Into<IpAddr>>(
    from: &str,
    to: &str,
    from_port: &str,
    to_port: &str,
) -> Option<SocketAddr> {
    let port = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|_| is_number)
    };
    to.parse::<A>().ok()?;
    port(to_port)?;
    Some(SocketAddr::new(from.parse::<A>().ok()?.into(), port(from_port)?))
}

/// Version 2, after its head has arrived.
fn read_binary(bytes: &[u8]) -> Progress {
    let (version, command) = (bytes[12] >> 4, bytes[12] & 15);
    if version != 2 || command > 1 {
        return Progress::Bad("its PROXY header is of an unknown version or command");
    }
    let len = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
    if len > BODY_BYTES_MAX {
        return Progress::Bad("its PROXY header is longer than 4096 bytes");
    }
    if let Some(missing @ 1..) = (HEAD_BYTES + len).checked_sub(bytes.len()) {
        return Progress::Needs(missing);
    }
    if command == 0 {
        // The proxy itself, looking whether anybody is there. What else the header says counts for nothing.
        return Progress::Whole(None);
    }
    let body = &bytes[HEAD_BYTES..HEAD_BYTES + len];
    let (addresses, peer) = match bytes[13] {
        0x00 => return Progress::Whole(None),
        0x11 => (12, endpoint::<4>(body)),
        0x21 => (36, endpoint::<16>(body)),
        // A Unix socket in front of the proxy has no address that could be named.
        0x31 => (216, None),
        _ => return Progress::Bad("its PROXY header is of an unknown family"),
    };
    match body.get(addresses..) {
        Some(extras) if are_whole(extras) => Progress::Whole(peer),
        Some(_) => Progress::Bad("its PROXY header has a field that is cut"),
        None => Progress::Bad("its PROXY header is too short for its addresses"),
    }
}

/// The first of two addresses of so many bytes, and the first of the two ports behind them.
fn endpoint<const N: usize>(body: &[u8]) -> Option<SocketAddr>
where
    IpAddr: From<[u8; N]>,
{
    let port = body.get(2 * N..)?.first_chunk::<2>()?;
    Some(SocketAddr::new(IpAddr::from(*body.first_chunk::<N>()?), u16::from_be_bytes(*port)))
}

/// Whether the fields behind the addresses (type, length, value) add up.
fn are_whole(mut extras: &[u8]) -> bool {
    while let [_, high, low, rest @ ..] = extras {
        let len = usize::from(u16::from_be_bytes([*high, *low]));
        let Some(rest) = rest.get(len..) else { return false };
        extras = rest;
    }
    extras.is_empty()
}

#[cfg(test)]
mod tests;
