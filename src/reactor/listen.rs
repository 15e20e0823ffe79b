//! Opening listeners, and the limit that decides how many connections there can be.

use crate::config::Config;
use mio::net::TcpListener;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use std::{
    error, fmt, io,
    net::{Shutdown, SocketAddr},
    os::fd::OwnedFd,
    time::Duration,
};

/// The option with the port of event sources.
pub(super) const SOURCES: &str = "eventSourceServerPort";
/// Connections that the kernel may hold until they are accepted; it takes less if `somaxconn` is lower.
const BACKLOG: i32 = 4096;
/// Descriptors besides those of connections: standard streams, poll, signals, listeners, a trace, the journal, and what is kept for
/// all these (`reserve`).
const OTHER_DESCRIPTORS: u64 = 64;

/// Why the server cannot start.
#[derive(Debug)]
pub(crate) enum ListenError {
    /// A port cannot be opened.
    Port {
        /// The option that asked for it.
        option: &'static str,
        /// The address.
        address: SocketAddr,
        /// The operating system's error.
        reason: io::Error,
    },
    /// There is no event loop or no signal handling to be had.
    System(io::Error),
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port { option, address, reason } => {
                write!(f, "{option}: cannot listen on {address}: {reason}")
            }
            Self::System(reason) => write!(f, "cannot set up the event loop: {reason}"),
        }
    }
}

impl error::Error for ListenError {}

/// Makes `address` this server's own, without listening there yet; returns where that is, as port 0 picks a free one.
///
/// Nobody else may bind it, since the socket does not allow that. Connections of a server that has just ended allow it only to
/// sockets that do: hence the second attempt.
pub(super) fn bind(option: &'static str, address: SocketAddr) -> Result<(Socket, SocketAddr), ListenError> {
    let attempt = open(option, address, false).or_else(|_| open(option, address, true));
    let (mut socket, bound) = attempt?;
    let refused = |reason| ListenError::Port { option, address: bound, reason };
    if address.port() == 0 {
        // The kernel takes a port that it has picked itself back as soon as the socket does not listen any more.
        socket.set_reuse_address(true).map_err(refused)?;
        (socket, _) = open(option, bound, true)?;
    }
    socket.set_reuse_address(false).map_err(refused)?;
    Ok((socket, bound))
}

/// Listens no more, and keeps the address: closing the socket and binding another one could fail, because connections that were
/// accepted here still hold the address, or because somebody else takes it meanwhile.
pub(super) fn end(listener: TcpListener) -> io::Result<Socket> {
    let socket = Socket::from(OwnedFd::from(listener));
    socket.shutdown(Shutdown::Read)?;
    socket.set_reuse_address(false)?;
    Ok(socket)
}

fn open(option: &'static str, address: SocketAddr, reuse: bool) -> Result<(Socket, SocketAddr), ListenError> {
    let open = || {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        // A restarted server gets its port back at once.
        socket.set_reuse_address(reuse)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        let bound = socket.local_addr()?.as_socket().unwrap_or(address);
        Ok((socket, bound))
    };
    open().map_err(|reason| ListenError::Port { option, address, reason })
}

/// Listens on a socket that has its address. Its options are those of the connections that are accepted there: setting them once
/// makes each connection cheaper.
pub(super) fn begin(socket: Socket, option: &str) -> io::Result<TcpListener> {
    // An option that cannot be set is no reason to do without the listener.
    let _ = notice_vanished_peers(&SockRef::from(&socket));
    if option != SOURCES {
        // A turn's bytes are written at once; there is nothing to wait for.
        let _ = socket.set_tcp_nodelay(true);
    }
    // Connections inherit this: while they are open, or wait for their last packets, the address can be listened on again.
    socket.set_reuse_address(true)?;
    socket.listen(BACKLOG)?;
    Ok(TcpListener::from_std(socket.into()))
}

/// Listens on `address`; returns where that is.
pub(super) fn listen(
    option: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let (socket, bound) = open(option, address, true)?;
    let listener = begin(socket, option).map_err(|reason| ListenError::Port { option, address, reason })?;
    Ok((listener, bound))
}

/// A peer that vanishes without a word is noticed within two minutes (SPEC section 5): after a minute of silence it is asked
/// for a sign of life four times.
///
/// `TCP_USER_TIMEOUT` is not set. It would also end connections of peers that are alive and have not read for that long. The
/// server looks for those that vanish while something is on its way to them.
pub(super) fn notice_vanished_peers(socket: &SockRef<'_>) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(Duration::from_secs(60))
        .with_interval(Duration::from_secs(12))
        .with_retries(4);
    socket.set_tcp_keepalive(&keepalive)
}

/// Raises the open-files limit as far as the system allows; warns if that is not enough for the connections that
/// the configuration allows.
pub(crate) fn raise_open_files_limit(config: &Config) {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
    let limit = getrlimit(Resource::Nofile).current;
    let needed =
        [config.max_user_clients, config.max_event_source_clients, config.max_stream_clients].map(u64::from);
    let needed = needed.iter().sum::<u64>() + OTHER_DESCRIPTORS;
    if let Some(limit) = limit
        && limit < needed
    {
        log::warn!(limit, needed; "the open-files limit is too low for maxUserClients: connections beyond it will have to wait");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    #[test]
    fn a_port_that_is_not_listened_on_stays_this_servers_own() {
        for port in ["127.0.0.1:0", "[::1]:0"] {
            let Ok((mut socket, address)) = bind(SOURCES, port.parse().unwrap()) else { continue };
            let mut clients = Vec::new();
            for _ in 0..3 {
                listen(SOURCES, address).unwrap_err();
                bind(SOURCES, address).unwrap_err();
                TcpStream::connect(address).unwrap_err();
                let listener = begin(socket, SOURCES).unwrap();
                let client = TcpStream::connect(address).unwrap();
                let accepted = loop {
                    match listener.accept() {
                        Ok((accepted, _)) => break accepted,
                        Err(error) => assert_eq!(error.kind(), io::ErrorKind::WouldBlock),
                    }
                };
                listen(SOURCES, address).unwrap_err();
                socket = end(listener).unwrap();
                // One waits for the client to close, and the next ones are still there.
                if clients.is_empty() {
                    drop(accepted);
                    clients.push((client, None));
                } else {
                    clients.push((client, Some(accepted)));
                }
            }
        }
    }
}
