//! Junk connections, as every open port receives them.
//!
//! Nothing here is an event, and no line begins with a digit: a number that can be read would be used up.

use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::Serialize;
use socket2::{Domain, SockRef, Socket, Type};

use crate::process::Addresses;
use crate::rng::Rng;

/// Between one piece of junk and the next.
const BEAT: Duration = Duration::from_millis(10);
/// Between one user that stops reading and the next.
const STALL_EVERY: Duration = Duration::from_secs(15);
/// Receive buffer of a user that stops reading.
const STALLED_RECEIVE_BUFFER: usize = 4096;
/// Ids of users that stop reading: those of the workload are smaller.
const STALLED_ID: u64 = 1 << 40;
/// Connections that say nothing, held at once: the server's login timeout ends them.
const SILENT_MAX: usize = 32;

/// The start of what a TLS client says.
const TLS_HELLO: &[u8] = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
const HTTP: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: scanner\r\n\r\n";

/// What has been done to the server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Junk {
    /// Connections with junk, or nothing, or half a line.
    pub connections: u64,
    /// Those of them that ended with a reset.
    pub resets: u64,
    /// Bytes of junk taken by the server's sockets.
    pub bytes: u64,
    /// Users who logged in and read nothing.
    pub stalled: u64,
}

/// Throws junk at both ports until `stop` is set, and takes it all away again.
pub(super) fn throw(at: Addresses, seed: u64, stop: &AtomicBool) -> Junk {
    let mut rng = Rng::new(seed, 77);
    let mut junk = Junk::default();
    let mut silent: Vec<TcpStream> = Vec::new();
    let mut stalled: Vec<TcpStream> = Vec::new();
    let mut next_stall = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        if Instant::now() >= next_stall {
            next_stall += STALL_EVERY;
            stalled.extend(stall(at.users, STALLED_ID + junk.stalled));
            junk.stalled += 1;
        }
        let address = if rng.chance(0.5) { at.users } else { at.source };
        // One too many, or out of ports: that is what junk is like.
        if let Ok(mut stream) = TcpStream::connect(address) {
            junk.connections += 1;
            let bytes = speech(&mut rng);
            let _ = stream.set_nonblocking(true);
            junk.bytes += stream.write(&bytes).unwrap_or(0) as u64;
            if address == at.users && bytes.is_empty() && rng.chance(0.5) {
                silent.push(stream);
                silent.drain(..silent.len().saturating_sub(SILENT_MAX));
            } else if rng.chance(0.5) {
                junk.resets += u64::from(SockRef::from(&stream).set_linger(Some(Duration::ZERO)).is_ok());
            }
        }
        std::thread::sleep(BEAT);
    }
    junk
}

/// A user who logs in and reads nothing.
fn stall(address: SocketAddr, id: u64) -> Option<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(STALLED_RECEIVE_BUFFER).ok()?;
    socket.connect(&address.into()).ok()?;
    let mut stream = TcpStream::from(socket);
    stream.write_all(format!("{id}\n").as_bytes()).ok()?;
    Some(stream)
}

/// What a connection says, often nothing.
fn speech(rng: &mut Rng) -> Vec<u8> {
    match rng.below(8) {
        0 | 1 => Vec::new(),
        2 => HTTP.to_vec(),
        3 => TLS_HELLO.to_vec(),
        4 => vec![b'x'; 1 + rng.below(100_000) as usize],
        5 => b"half a l".to_vec(),
        6 => b"\n\r\n|\n||B\nx|B\n-|P|a|b\n".to_vec(),
        _ => (0..rng.below(5000)).map(|_| no_digit(rng.next() as u8)).collect(),
    }
}

fn no_digit(byte: u8) -> u8 {
    if byte.is_ascii_digit() { b'|' } else { byte }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_junk_begins_with_a_number() {
        let mut rng = Rng::new(1, 1);
        for _ in 0..2000 {
            let bytes = speech(&mut rng);
            let numbered =
                bytes.split(|&byte| byte == b'\n').any(|line| line.first().is_some_and(u8::is_ascii_digit));
            assert!(!numbered, "{}", bytes.escape_ascii());
        }
    }
}
