//! Looks over the server's shoulder: everything that it does to its network, in order.

use std::{
    cell::RefCell,
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::{IpAddr, SocketAddr},
    rc::Rc,
};

use fortnight::internals::{
    process::Process,
    server::net::{Net, Port, Ready},
    time::Micros,
};

/// Something that the server did. Connections go by the index of their [`Peer`](fortnight::internals::sim::Peer).
#[derive(Clone, Debug)]
pub(crate) enum Seen {
    /// It asked what is ready, willing to wait so long, and was told that it is now so late.
    Poll { wait: Option<Micros>, now: Micros },
    /// It accepted a connection.
    Accepted(Port, usize),
    /// It failed to, with this error number.
    NotAccepted(Port, i32),
    /// It registered a connection, successfully or not.
    Registered(usize, bool),
    /// It changed what it wants to know of a connection.
    WantWrite(usize, bool, Result<(), ErrorKind>),
    /// It read; nothing: the end.
    Read(usize, Result<Vec<u8>, ErrorKind>),
    /// The number of bytes offered, and how many of them were taken.
    Wrote(usize, usize, Result<Vec<u8>, ErrorKind>),
    /// It will write nothing more to a connection.
    Finished(usize),
    /// It wants to know nothing more of a connection.
    Forgotten(usize),
    /// It closed a connection.
    Closed(usize),
}

/// What has been seen and not been looked at.
pub(crate) type Log = Rc<RefCell<Vec<Seen>>>;

/// A [`Net`] that is watched.
pub(crate) struct Watch<N> {
    net: N,
    log: Log,
    /// Called when the server is about to sleep.
    before_sleep: Box<dyn FnMut()>,
}

impl<N: Net> Watch<N> {
    pub(crate) fn new(net: N, log: Log, before_sleep: Box<dyn FnMut()>) -> Watch<N> {
        Watch { net, log, before_sleep }
    }

    fn note(&self, seen: Seen) {
        self.log.borrow_mut().push(seen);
    }
}

impl<N: Net> Net for Watch<N> {
    type Socket = WatchedSocket<N::Socket>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        if wait != Some(0) {
            (self.before_sleep)();
        }
        let now = self.net.poll(wait, ready)?;
        self.note(Seen::Poll { wait, now });
        Ok(now)
    }

    fn told_to_end(&mut self) -> usize {
        self.net.told_to_end()
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        match self.net.accept(port) {
            Ok((socket, address)) => {
                let peer = index_of(address);
                self.note(Seen::Accepted(port, peer));
                let log = Rc::clone(&self.log);
                Ok((WatchedSocket { socket, peer, log }, address))
            }
            Err(error) => {
                if let Some(number) = error.raw_os_error() {
                    self.note(Seen::NotAccepted(port, number));
                }
                Err(error)
            }
        }
    }

    fn backlog(&mut self, port: Port) -> usize {
        self.net.backlog(port)
    }

    fn random(&mut self) -> u64 {
        self.net.random()
    }

    fn door(&self) -> fortnight::internals::counters::DoorCounters {
        self.net.door()
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        let (socket, log) = (self.net.connect(to)?, Rc::clone(&self.log));
        Ok(WatchedSocket { socket, peer: usize::MAX, log })
    }

    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()> {
        let outcome = self.net.register(&mut socket.socket, key);
        self.note(Seen::Registered(socket.peer, outcome.is_ok()));
        outcome
    }

    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        let outcome = self.net.want_write(&mut socket.socket, key, on);
        self.note(Seen::WantWrite(socket.peer, on, told(&outcome)));
        outcome
    }

    fn forget(&mut self, socket: &mut Self::Socket) {
        self.note(Seen::Forgotten(socket.peer));
        self.net.forget(&mut socket.socket);
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        self.note(Seen::Finished(socket.peer));
        self.net.finish(&mut socket.socket);
    }

    fn unread(&mut self, socket: &mut Self::Socket) -> usize {
        self.net.unread(&mut socket.socket)
    }

    fn clock(&self) -> Micros {
        self.net.clock()
    }

    fn warnings(&self) -> Vec<fortnight::internals::warning::Warning> {
        Vec::new()
    }

    fn process(&mut self) -> Option<Process> {
        self.net.process()
    }

    fn time_ms(&mut self) -> u64 {
        self.net.time_ms()
    }

    fn listen(&mut self, port: Port, on: bool) -> io::Result<()> {
        self.net.listen(port, on)
    }

    fn peers_may_vanish(&self) -> bool {
        self.net.peers_may_vanish()
    }

    fn silence(&mut self, socket: &mut Self::Socket) -> Option<Micros> {
        self.net.silence(&mut socket.socket)
    }

    fn close_listener(&mut self, port: Port) {
        self.net.close_listener(port);
    }
}

/// The simulated network has the index in the address.
fn index_of(address: SocketAddr) -> usize {
    let IpAddr::V4(address) = address.ip() else { unreachable!("the simulated network is an IPv4 one") };
    let [_, high, middle, low] = address.octets();
    u32::from_be_bytes([0, high, middle, low]) as usize
}

fn told<T: Copy>(outcome: &io::Result<T>) -> Result<T, ErrorKind> {
    match outcome {
        Ok(value) => Ok(*value),
        Err(error) => Err(error.kind()),
    }
}

/// A socket that is watched.
pub(crate) struct WatchedSocket<S> {
    socket: S,
    peer: usize,
    log: Log,
}

impl<S: Read> Read for WatchedSocket<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let outcome = self.socket.read(target);
        let bytes = told(&outcome).map(|len| target[..len].to_vec());
        self.log.borrow_mut().push(Seen::Read(self.peer, bytes));
        outcome
    }
}

impl<S: Write> Write for WatchedSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.socket.write(bytes);
        let taken = told(&outcome).map(|len| bytes[..len].to_vec());
        self.log.borrow_mut().push(Seen::Wrote(self.peer, bytes.len(), taken));
        outcome
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let outcome = self.socket.write_vectored(slices);
        let bytes: Vec<u8> = slices.iter().flat_map(|slice| slice.to_vec()).collect();
        let taken = told(&outcome).map(|len| bytes[..len].to_vec());
        self.log.borrow_mut().push(Seen::Wrote(self.peer, bytes.len(), taken));
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}

impl<S> Drop for WatchedSocket<S> {
    fn drop(&mut self) {
        self.log.borrow_mut().push(Seen::Closed(self.peer));
    }
}
