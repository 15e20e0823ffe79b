//! The connections, what is ready, and the time.

use super::{
    connection::{Connection, End, ServerSide},
    operation::{Fault, Peer},
};
use crate::{
    server::net::{Port, Ready},
    time::Micros,
};
use slab::Slab;
use std::{
    collections::VecDeque,
    io::{self, ErrorKind, IoSlice},
    net::SocketAddr,
};

/// Something that the next poll tells.
#[derive(Clone, Copy, Debug)]
enum Edge {
    Listener(Port),
    Connection(Peer),
    Signal,
}

/// A listener and the connections that wait to be accepted.
#[derive(Debug, Default)]
struct Listener {
    closed: bool,
    waiting: VecDeque<Peer>,
    edge: bool,
}

/// The state of the server's end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEnd {
    /// It is in use, or waits to be accepted.
    Open,
    /// It has been closed.
    Closed,
    /// It has been closed, or its listener has, with bytes unread: the far end sees a reset.
    Reset,
}

/// The connections and the time: what a [`Script`](super::Script) works on.
#[derive(Debug, Default)]
pub struct World {
    now: Micros,
    connections: Slab<Connection>,
    listeners: [Listener; 4],
    /// Connections that the server has opened, and nobody has answered.
    calls: VecDeque<Peer>,
    edges: VecDeque<Edge>,
    /// Connections that have been written to since they were last asked for.
    written_to: Vec<Peer>,
    idle: bool,
    /// Numbers that the server has asked for.
    random_numbers: u64,
}

/// Actions of the far ends. None of them fails: an action that comes too late has no effect.
impl World {
    /// Microseconds since the start.
    #[must_use]
    pub fn now(&self) -> Micros {
        self.now
    }

    /// Lets time pass without a wait of the server: its work took that long.
    pub fn advance_to(&mut self, at: Micros) {
        self.now = self.now.max(at);
    }

    /// Whether the server's last poll was for something that never comes.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.idle
    }

    /// Connects to a listener. `None`: it is closed.
    pub fn connect(&mut self, port: Port) -> Option<Peer> {
        if self.listeners[port as usize].closed {
            return None;
        }
        let entry = self.connections.vacant_entry();
        let peer = Peer(entry.key());
        let [_, high, middle, low] = (peer.0 as u32).to_be_bytes();
        let address = SocketAddr::from(([10, high, middle, low], 40_000 + port as u16));
        entry.insert(Connection::new(address));
        self.listeners[port as usize].waiting.push_back(peer);
        self.listener_edge(port);
        Some(peer)
    }

    /// A connection that the server has opened. Its other end is simulated from now on.
    pub fn next_call(&mut self) -> Option<Peer> {
        self.calls.pop_front()
    }

    /// Sends bytes. Returns how many there was room for: all, unless [`World::limit_inbound`] has been called; none after
    /// the connection's end.
    pub fn send(&mut self, peer: Peer, bytes: &[u8]) -> usize {
        let len = self.connection(peer).map_or(0, |connection| connection.send(bytes));
        if len > 0 {
            self.edge(peer);
        }
        len
    }

    /// Sends a byte of urgent data: it is not read with the others, and a read that comes to its place stops there.
    pub fn send_urgent(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.mark();
            self.edge(peer);
        }
    }

    /// Finishes sending; what the server sends is still received.
    pub fn finish(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.end.get_or_insert(End::Finished);
            self.edge(peer);
        }
    }

    /// Closes the socket. What the server sends after that is lost and breaks the connection.
    pub fn close(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.close();
            self.edge(peer);
        }
    }

    /// The machine of the far end is gone without notice. The connection still takes up to this number of bytes.
    pub fn vanish(&mut self, peer: Peer, more_bytes: u64) {
        let limit = self.written(peer) + more_bytes;
        if let Some(connection) = self.connection(peer) {
            connection.vanished = true;
            connection.set_limit(limit);
        }
    }

    /// Breaks the connection. What has been sent can still be read; writing fails.
    pub fn reset(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.reset();
            self.edge(peer);
        }
    }

    /// Sets how many bytes of the server's the connection takes, counted from its beginning: no more than it has taken
    /// already means none for now.
    pub fn limit_outbound(&mut self, peer: Peer, total_bytes: u64) {
        if self.connection(peer).is_some_and(|connection| connection.set_limit(total_bytes)) {
            self.edge(peer);
        }
    }

    /// As [`World::limit_outbound`], but nobody is told, as there is too little room yet to be told of.
    pub fn limit_outbound_quietly(&mut self, peer: Peer, total_bytes: u64) {
        if let Some(connection) = self.connection(peer) {
            connection.set_limit(total_bytes);
        }
    }

    /// Sets how many bytes may lie unread on the server's side.
    pub fn limit_inbound(&mut self, peer: Peer, bytes: usize) {
        if let Some(connection) = self.connection(peer) {
            connection.inbound_limit = bytes;
        }
    }

    /// Whether the next poll will tell something of a connection.
    #[must_use]
    pub fn has_edge(&self, peer: Peer) -> bool {
        self.connections.get(peer.0).is_some_and(|connection| connection.edge)
    }

    /// Bytes that lie unread on the server's side.
    #[must_use]
    pub fn unread(&self, peer: Peer) -> usize {
        self.connections.get(peer.0).map_or(0, Connection::unread)
    }

    /// The bytes that the server has written since [`World::take_received`] was last called.
    #[must_use]
    pub fn received(&self, peer: Peer) -> &[u8] {
        self.connections.get(peer.0).map_or(&[], |connection| &connection.outbound)
    }

    /// Hands what the server has written to `look` and drops it.
    pub fn take_received<T>(&mut self, peer: Peer, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let connection = self.connection(peer)?;
        let seen = look(&connection.outbound);
        connection.outbound.clear();
        Some(seen)
    }

    /// Bytes that the server has written since the beginning.
    #[must_use]
    pub fn written(&self, peer: Peer) -> u64 {
        self.connections.get(peer.0).map_or(0, |connection| connection.written)
    }

    /// A connection that has been written to and not been named by this since.
    pub fn next_written_to(&mut self) -> Option<Peer> {
        let peer = self.written_to.pop()?;
        if let Some(connection) = self.connection(peer) {
            connection.noted = false;
        }
        Some(peer)
    }

    /// The state of the server's end. A connection that has been forgotten counts as closed.
    #[must_use]
    pub fn server_end(&self, peer: Peer) -> ServerEnd {
        match self.connections.get(peer.0).map(|connection| connection.server) {
            Some(ServerSide::Waiting | ServerSide::Open) => ServerEnd::Open,
            None | Some(ServerSide::Closed { unread: false }) => ServerEnd::Closed,
            Some(ServerSide::Closed { unread: true }) => ServerEnd::Reset,
        }
    }

    /// Whether the server will write nothing more: it has closed its end, or said so.
    #[must_use]
    pub fn has_finished(&self, peer: Peer) -> bool {
        let finished = |connection: &Connection| {
            connection.server_finished || matches!(connection.server, ServerSide::Closed { .. })
        };
        self.connections.get(peer.0).is_none_or(finished)
    }

    /// Nobody will look at the connection any more: once the server has closed its end too, it is dropped.
    pub fn forget(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.forgotten = true;
        }
        self.drop_if_done(peer);
    }

    /// Every connection that has not been forgotten, in the order of their keys.
    pub fn peers(&self) -> impl Iterator<Item = Peer> {
        self.connections.iter().filter(|(_, connection)| !connection.forgotten).map(|(key, _)| Peer(key))
    }

    /// The process has ended, and its sockets have been dropped: nobody listens, and who waited to be accepted is gone.
    pub fn end_process(&mut self) {
        for port in 0..self.listeners.len() {
            self.stop_listening(port);
        }
        self.edges.clear();
        for (_, connection) in &mut self.connections {
            connection.edge = false;
        }
    }

    /// A new process listens.
    pub fn start_process(&mut self) {
        for listener in &mut self.listeners {
            (listener.closed, listener.edge) = (false, false);
        }
        self.idle = false;
    }

    /// Asks the process to end.
    pub fn signal(&mut self) {
        self.edges.push_back(Edge::Signal);
    }

    /// Signals that no poll has told of.
    pub(super) fn signals(&self) -> usize {
        self.edges.iter().filter(|edge| matches!(edge, Edge::Signal)).count()
    }

    /// Has the next poll tell that a connection is ready, if it is: an edge without a cause, which is allowed.
    pub fn edge(&mut self, peer: Peer) {
        if let Some(connection) = self.connections.get_mut(peer.0)
            && connection.key.is_some()
            && !std::mem::replace(&mut connection.edge, true)
        {
            self.edges.push_back(Edge::Connection(peer));
        }
    }

    fn connection(&mut self, peer: Peer) -> Option<&mut Connection> {
        self.connections.get_mut(peer.0)
    }

    fn listener_edge(&mut self, port: Port) {
        if !std::mem::replace(&mut self.listeners[port as usize].edge, true) {
            self.edges.push_back(Edge::Listener(port));
        }
    }

    fn drop_if_done(&mut self, peer: Peer) {
        let done = |connection: &Connection| {
            connection.forgotten && matches!(connection.server, ServerSide::Closed { .. })
        };
        if self.connections.get(peer.0).is_some_and(done) {
            self.connections.remove(peer.0);
            self.written_to.retain(|&other| other != peer);
        }
    }
}

/// Actions of the server.
impl World {
    /// A number that the server takes for a random one: another one each time, and the same ones in each run.
    pub(super) fn random(&mut self) -> u64 {
        let number = 0x0123_4567_89ab_cdef_u64.wrapping_add(self.random_numbers << 32);
        self.random_numbers += 1;
        number
    }

    pub(super) fn set_idle(&mut self) {
        self.idle = true;
    }

    /// Tells what has become ready.
    pub(super) fn tell(&mut self, ready: &mut Vec<Ready>) {
        self.idle = false;
        while let Some(edge) = self.edges.pop_front() {
            match edge {
                Edge::Signal => ready.push(Ready::Signal),
                Edge::Listener(port) => {
                    self.listeners[port as usize].edge = false;
                    if self.can_accept(port) {
                        ready.push(Ready::Listener(port));
                    }
                }
                Edge::Connection(peer) => ready.extend(self.readiness(peer)),
            }
        }
    }

    fn readiness(&mut self, peer: Peer) -> Option<Ready> {
        let connection = self.connection(peer)?;
        connection.edge = false;
        let key = connection.key?;
        let readable = connection.is_readable();
        let writable = connection.want_write && connection.is_writable();
        // Who asks for that is told when it can be written to, as if it had tried.
        connection.starved |= connection.want_write && !writable;
        (readable || writable).then_some(Ready::Socket {
            key,
            readable,
            writable,
            hung_up: connection.end.is_some(),
            urgent: connection.has_mark(),
        })
    }

    pub(super) fn backlog(&self, port: Port) -> usize {
        self.listeners[port as usize].waiting.len()
    }

    pub(super) fn can_accept(&self, port: Port) -> bool {
        !self.listeners[port as usize].waiting.is_empty()
    }

    pub(super) fn accept(&mut self, port: Port, fault: Option<Fault>) -> io::Result<(Peer, SocketAddr)> {
        if let Some(error) = fault.and_then(Fault::error) {
            if error.kind() == ErrorKind::ConnectionAborted {
                if let Some(peer) = self.listeners[port as usize].waiting.pop_front() {
                    self.server_closed(peer);
                }
            } else if error.kind() == ErrorKind::WouldBlock {
                self.listener_edge(port);
            }
            return Err(error);
        }
        let peer = self.listeners[port as usize].waiting.pop_front().ok_or(ErrorKind::WouldBlock)?;
        let connection = self.connection(peer).ok_or(ErrorKind::ConnectionAborted)?;
        connection.server = ServerSide::Open;
        Ok((peer, connection.address))
    }

    /// The server opens a connection. It is up at once.
    pub(super) fn call(&mut self, to: SocketAddr) -> Peer {
        let mut connection = Connection::new(to);
        connection.server = ServerSide::Open;
        let peer = Peer(self.connections.insert(connection));
        self.calls.push_back(peer);
        peer
    }

    pub(super) fn register(&mut self, peer: Peer, key: usize, fault: Option<Fault>) -> io::Result<()> {
        if let Some(error) = fault.and_then(Fault::error) {
            return Err(error);
        }
        if let Some(connection) = self.connection(peer) {
            connection.key = Some(key);
        }
        self.edge(peer);
        Ok(())
    }

    pub(super) fn want_write(
        &mut self,
        peer: Peer,
        key: usize,
        on: bool,
        fault: Option<Fault>,
    ) -> io::Result<()> {
        if let Some(error) = fault.and_then(Fault::error) {
            return Err(error);
        }
        if let Some(connection) = self.connection(peer) {
            assert_eq!(connection.key, Some(key), "a connection keeps its key");
            connection.want_write = on;
        }
        self.edge(peer);
        Ok(())
    }

    pub(super) fn read(&mut self, peer: Peer, target: &mut [u8], fault: Option<Fault>) -> io::Result<usize> {
        if let Some(error) = fault.and_then(Fault::error) {
            self.edge(peer);
            return Err(error);
        }
        let connection = self.connection(peer).ok_or(ErrorKind::NotConnected)?;
        let outcome = connection.read(target, most(fault));
        if fault.is_some() && connection.is_readable() {
            self.edge(peer);
        }
        outcome
    }

    pub(super) fn write(
        &mut self,
        peer: Peer,
        slices: &[IoSlice<'_>],
        len: usize,
        fault: Option<Fault>,
    ) -> io::Result<usize> {
        if let Some(error) = fault.and_then(Fault::error) {
            self.edge(peer);
            return Err(error);
        }
        let now = self.now;
        let connection = self.connection(peer).ok_or(ErrorKind::NotConnected)?;
        let outcome = connection.write(slices, len, most(fault));
        if connection.vanished && outcome.is_ok() {
            connection.unanswered_since.get_or_insert(now);
        }
        let broke = connection.end == Some(End::Reset);
        if outcome.is_ok() && !std::mem::replace(&mut connection.noted, true) {
            self.written_to.push(peer);
        }
        if fault.is_some() || broke {
            self.edge(peer);
        }
        outcome
    }

    pub(super) fn any_vanished(&self) -> bool {
        self.connections.iter().any(|(_, connection)| connection.vanished)
    }

    pub(super) fn silence(&self, peer: Peer) -> Option<Micros> {
        let since = self.connections.get(peer.0)?.unanswered_since?;
        Some(self.now - since)
    }

    /// The server is told nothing more of the connection.
    pub(super) fn forget_key(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.key = None;
        }
    }

    pub(super) fn server_finished(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.server_finished = true;
        }
    }

    pub(super) fn server_closed(&mut self, peer: Peer) {
        if let Some(connection) = self.connection(peer) {
            connection.server = ServerSide::Closed { unread: connection.unread() > 0 };
            connection.key = None;
        }
        self.drop_if_done(peer);
    }

    pub(super) fn close_listener(&mut self, port: Port) {
        self.stop_listening(port as usize);
    }

    fn stop_listening(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        listener.closed = true;
        for peer in std::mem::take(&mut listener.waiting) {
            if let Some(connection) = self.connection(peer) {
                connection.server = ServerSide::Closed { unread: true };
            }
            self.drop_if_done(peer);
        }
    }
}

/// Bytes that a read or write moves at most.
fn most(fault: Option<Fault>) -> usize {
    match fault {
        Some(Fault::Cut(len)) => len.max(1),
        _ => usize::MAX,
    }
}
