//! The reactor: real sockets, the clock and, if asked for, signals, on mio. The only place that waits.

mod listen;
mod reserve;
#[cfg(feature = "signals")]
mod signals;
mod tcp_info;

use crate::{
    config::{Config, ServerRole},
    counters::DoorCounters,
    process::{Process, ProcessWatch},
    server::net::{Net, Port, Ready},
    time::Micros,
    warning::{self, Warning},
};
pub(crate) use listen::{ListenError, raise_open_files_limit};
use mio::{
    Events, Interest, Poll, Token,
    net::{TcpListener, TcpStream},
    unix::SourceFd,
};
use reserve::Reserve;
use rustix::event::{EventfdFlags, eventfd};
use socket2::{SockRef, Socket};
use std::{
    fmt, io,
    net::{Shutdown, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// Readiness events taken from the kernel at once.
const EVENTS: usize = 1024;
/// Batches of them taken by one poll: more than there can be connections.
const BATCHES_MAX: usize = 1024;
/// Bytes that a socket holds unsent where little is to be held. They are what is sent while the loop is elsewhere.
const UNSENT_BYTES: u32 = 256 << 10;
/// What is told of every connection: bytes, and urgent ones for themselves.
const READABLE: Interest = Interest::READABLE.add(Interest::PRIORITY);
const SOURCE_LISTENER: Token = Token(0);
const USER_LISTENER: Token = Token(1);
const ADMIN_LISTENER: Token = Token(2);
#[cfg(feature = "signals")]
const SIGNALS: Token = Token(3);
const STREAM_LISTENER: Token = Token(4);
const DISK: Token = Token(5);
const STOP: Token = Token(6);
/// The token of the connection with key 0.
const FIRST_CONNECTION: usize = 7;

/// Listeners, sockets, the clock of the operating system and, if asked for, its signals.
pub(crate) struct Reactor {
    poll: Poll,
    events: Events,
    /// `None`: the process keeps its signals.
    #[cfg(feature = "signals")]
    signals: Option<signals::Signals>,
    /// Counts how often the server was told to end.
    stop: OwnedFd,
    /// What has been asked for outside of a poll: the next one tells it.
    early: Vec<Ready>,
    process: ProcessWatch,
    reserve: Reserve,
    sources: Option<TcpListener>,
    /// The source port of a sequencer that does not listen.
    bound: Option<Socket>,
    users: Option<TcpListener>,
    admin: Option<TcpListener>,
    stream: Option<TcpListener>,
    addresses: Addresses,
    start: Instant,
}

/// Where the listeners listen: the line that the server prints (SPEC section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// For event sources; an edge has none.
    pub source: Option<SocketAddr>,
    /// For users; a sequencer has none.
    pub users: Option<SocketAddr>,
    /// The address of the admin interface, if it is on.
    pub admin: Option<SocketAddr>,
    /// The address of the stream port, if it is on.
    pub stream: Option<SocketAddr>,
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown =
            |address: Option<SocketAddr>| address.map_or("off".to_owned(), |address| address.to_string());
        let (source, users, admin) = (shown(self.source), shown(self.users), shown(self.admin));
        write!(f, "listening source={source} users={users} admin={admin}")?;
        self.stream.map_or(Ok(()), |stream| write!(f, " stream={stream}"))
    }
}

impl fmt::Debug for Reactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reactor").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}

impl Reactor {
    /// Opens the listeners.
    ///
    /// # Errors
    ///
    /// Names the option, the address and the reason if one cannot be opened.
    pub(crate) fn new(config: &Config) -> Result<Self, ListenError> {
        let poll = Poll::new().map_err(ListenError::System)?;
        let stop = counter(&poll, STOP).map_err(ListenError::System)?;
        let open = |option, address, port, token| -> Result<(TcpListener, SocketAddr), ListenError> {
            let (mut listener, bound) = listen::listen(option, SocketAddr::new(address, port))?;
            poll.registry()
                .register(&mut listener, token, Interest::READABLE)
                .map_err(ListenError::System)?;
            Ok((listener, bound))
        };
        let is_sequencer = config.role == ServerRole::Sequencer;
        let (bound, bound_at) = is_sequencer
            .then(|| {
                let (address, port) = (config.event_source_bind_address, config.event_source_server_port);
                listen::bind(listen::SOURCES, SocketAddr::new(address, port))
            })
            .transpose()?
            .unzip();
        let source_port = (config.role == ServerRole::Standalone).then_some(config.event_source_server_port);
        let (sources, source) = source_port
            .map(|port| open(listen::SOURCES, config.event_source_bind_address, port, SOURCE_LISTENER))
            .transpose()?
            .unzip();
        let user_port = (!is_sequencer).then_some(config.user_server_port);
        let (users, user) = user_port
            .map(|port| open("userServerPort", config.user_bind_address, port, USER_LISTENER))
            .transpose()?
            .unzip();
        let admin = config
            .admin_port
            .map(|port| open("adminPort", config.admin_bind_address, port, ADMIN_LISTENER))
            .transpose()?;
        let (admin, admin_address) = admin.unzip();
        let stream = config
            .stream_port
            .map(|port| open("streamPort", config.stream_bind_address, port, STREAM_LISTENER))
            .transpose()?;
        let (stream, stream_address) = stream.unzip();
        Ok(Self {
            poll,
            events: Events::with_capacity(EVENTS),
            #[cfg(feature = "signals")]
            signals: None,
            stop,
            early: Vec::new(),
            process: ProcessWatch::default(),
            reserve: Reserve::new(config),
            sources,
            bound,
            users,
            admin,
            stream,
            addresses: Addresses {
                source: source.or(bound_at),
                users: user,
                admin: admin_address,
                stream: stream_address,
            },
            start: Instant::now(),
        })
    }

    /// Where the listeners listen.
    #[must_use]
    pub(crate) fn addresses(&self) -> Addresses {
        self.addresses
    }

    /// An eventfd: whenever it is signalled, [`Ready::Disk`] is told.
    ///
    /// # Errors
    ///
    /// If the operating system has none left.
    pub(crate) fn disk_waker(&self) -> io::Result<OwnedFd> {
        counter(&self.poll, DISK)
    }

    /// An eventfd: whoever writes a number to it tells the server so many times to end, as a signal would.
    ///
    /// # Errors
    ///
    /// If the operating system has none left.
    pub(crate) fn stopper(&self) -> io::Result<OwnedFd> {
        self.stop.try_clone()
    }

    /// Takes the signals of this process from now on: SIGTERM and SIGINT end the server, SIGHUP has certificates and keys read
    /// again.
    ///
    /// # Errors
    ///
    /// If the operating system does not allow it.
    #[cfg(feature = "signals")]
    pub(crate) fn take_signals(&mut self) -> io::Result<()> {
        if self.signals.is_none() {
            self.signals = Some(signals::Signals::take(self.poll.registry(), SIGNALS)?);
        }
        Ok(())
    }

    /// Microseconds since the start.
    #[must_use]
    pub(crate) fn now(&self) -> Micros {
        self.clock()()
    }

    /// The clock, for code that needs it while another part owns the reactor.
    pub(crate) fn clock(&self) -> impl Fn() -> Micros + use<> {
        let start = self.start;
        move || start.elapsed().as_micros() as Micros
    }

    fn listener(&mut self, port: Port) -> &mut Option<TcpListener> {
        match port {
            Port::Source => &mut self.sources,
            Port::User => &mut self.users,
            Port::Admin => &mut self.admin,
            Port::Stream => &mut self.stream,
        }
    }
}

impl Reactor {
    /// Says what the last poll has found.
    fn tell(&mut self, ready: &mut Vec<Ready>) {
        for event in &self.events {
            match event.token() {
                SOURCE_LISTENER => ready.push(Ready::Listener(Port::Source)),
                USER_LISTENER => ready.push(Ready::Listener(Port::User)),
                ADMIN_LISTENER => ready.push(Ready::Listener(Port::Admin)),
                STREAM_LISTENER => ready.push(Ready::Listener(Port::Stream)),
                DISK => ready.push(Ready::Disk),
                #[cfg(feature = "signals")]
                SIGNALS => ready.extend(self.signals.iter_mut().flat_map(signals::Signals::pending)),
                STOP => ready.extend((0..times(&self.stop)).map(|_| Ready::Signal)),
                Token(token) => ready.push(Ready::Socket {
                    key: token - FIRST_CONNECTION,
                    readable: event.is_readable() || event.is_error(),
                    writable: event.is_writable(),
                    hung_up: event.is_read_closed() || event.is_error(),
                    urgent: event.is_priority(),
                }),
            }
        }
    }
}

/// An eventfd that the poll tells of under `token`.
fn counter(poll: &Poll, token: Token) -> io::Result<OwnedFd> {
    let counter = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
    // Edge-triggered: every write is told, also where nobody reads the count.
    poll.registry().register(&mut SourceFd(&counter.as_raw_fd()), token, Interest::READABLE)?;
    Ok(counter)
}

/// Takes the count of an eventfd: twice is as good as any number above, as the server then ends at once.
fn times(counter: &OwnedFd) -> u64 {
    let mut count = [0; 8];
    match rustix::io::read(counter, &mut count) {
        Ok(_) => u64::from_ne_bytes(count).min(2),
        // It is zero.
        Err(_) => 0,
    }
}

impl Net for Reactor {
    type Socket = TcpStream;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let mut wait = if self.early.is_empty() { wait } else { Some(0) };
        ready.append(&mut self.early);
        // A full batch may not be all: who is told of one event must be told of those that came before it.
        for _ in 0..BATCHES_MAX {
            match self.poll.poll(&mut self.events, wait.map(Duration::from_micros)) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
            self.tell(ready);
            if self.events.iter().count() < EVENTS {
                break;
            }
            wait = Some(0);
        }
        Ok(self.now())
    }

    fn told_to_end(&mut self) -> usize {
        #[cfg(feature = "signals")]
        self.early.extend(self.signals.iter_mut().flat_map(signals::Signals::pending));
        self.early.extend((0..times(&self.stop)).map(|_| Ready::Signal));
        self.early.iter().filter(|&&ready| ready == Ready::Signal).count()
    }

    fn accept(&mut self, port: Port) -> io::Result<(TcpStream, SocketAddr)> {
        if port == Port::Admin {
            let admin = self.admin.as_ref().ok_or(io::ErrorKind::WouldBlock)?;
            self.reserve.admit_admin(&self.stop)?;
            admin.accept()
        } else {
            self.reserve.admit_client(&self.stop)?;
            self.listener(port).as_ref().ok_or(io::ErrorKind::WouldBlock)?.accept()
        }
    }

    fn backlog(&mut self, port: Port) -> usize {
        self.listener(port).as_ref().map_or(0, tcp_info::backlog)
    }

    fn random(&mut self) -> u64 {
        let mut bits = [0; 8];
        // It waits until the system has random numbers, and fails only where it has none: then the time is better than nothing.
        let got = rustix::rand::getrandom(&mut bits, rustix::rand::GetRandomFlags::empty());
        let time = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos() as u64);
        if got == Ok(bits.len()) { u64::from_le_bytes(bits) } else { time() }
    }

    fn door(&self) -> DoorCounters {
        DoorCounters::default()
    }

    fn clock(&self) -> Micros {
        self.now()
    }

    fn warnings(&self) -> Vec<Warning> {
        warning::recent()
    }

    fn process(&mut self) -> Option<Process> {
        let now = self.now();
        self.process.look(now)
    }

    fn time_ms(&mut self) -> u64 {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
    }

    fn listen(&mut self, port: Port, on: bool) -> io::Result<()> {
        if port != Port::Source || on == self.sources.is_some() {
            return Ok(());
        }
        if let Some(mut listener) = self.sources.take() {
            self.poll.registry().deregister(&mut listener)?;
            self.bound = Some(listen::end(listener)?);
        } else if let Some(socket) = self.bound.take() {
            let words = |reason| format!("{}: cannot listen again: {reason}", listen::SOURCES);
            let listener = listen::begin(socket, listen::SOURCES);
            let mut listener = listener.map_err(|reason| io::Error::other(words(reason)))?;
            self.poll.registry().register(&mut listener, SOURCE_LISTENER, Interest::READABLE)?;
            self.sources = Some(listener);
        }
        Ok(())
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<TcpStream> {
        let socket = TcpStream::connect(to)?;
        socket.set_nodelay(true)?;
        listen::notice_vanished_peers(&SockRef::from(&socket))?;
        Ok(socket)
    }

    fn register(&mut self, socket: &mut TcpStream, key: usize) -> io::Result<()> {
        self.poll.registry().register(socket, Token(key + FIRST_CONNECTION), READABLE)
    }

    fn want_write(&mut self, socket: &mut TcpStream, key: usize, on: bool) -> io::Result<()> {
        let interest = if on { READABLE.add(Interest::WRITABLE) } else { READABLE };
        self.poll.registry().reregister(socket, Token(key + FIRST_CONNECTION), interest)
    }

    fn forget(&mut self, socket: &mut TcpStream) {
        // Whoever gets the key would be told what becomes of this one. It fails only where it is not watched.
        let _ = self.poll.registry().deregister(socket);
    }

    fn finish(&mut self, socket: &mut TcpStream) {
        // An error says that the connection is over anyway.
        let _ = socket.shutdown(Shutdown::Write);
    }

    fn hold_little_unsent(&mut self, socket: &mut TcpStream, on: bool) {
        // 0: as the system is set. A system that refuses takes more memory, and nothing else.
        let _ = SockRef::from(&*socket).set_tcp_notsent_lowat(if on { UNSENT_BYTES } else { 0 });
    }

    fn unread(&mut self, socket: &mut TcpStream) -> usize {
        rustix::io::ioctl_fionread(&*socket).map_or(0, |len| usize::try_from(len).unwrap_or(usize::MAX))
    }

    fn peers_may_vanish(&self) -> bool {
        true
    }

    fn silence(&mut self, socket: &mut TcpStream) -> Option<Micros> {
        tcp_info::silence(socket)
    }

    fn close_listener(&mut self, port: Port) {
        *self.listener(port) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_whether_it_is_told_to_end_takes_nothing_from_the_next_poll() {
        let config = Config { event_source_server_port: 0, user_server_port: 0, ..Config::default() };
        let mut reactor = Reactor::new(&config).unwrap();
        assert_eq!(reactor.told_to_end(), 0);
        let stopper = reactor.stopper().unwrap();
        for times in 1..=2 {
            rustix::io::write(&stopper, &1_u64.to_ne_bytes()).unwrap();
            assert_eq!(reactor.told_to_end(), times);
        }
        // It does not wait either.
        let mut ready = Vec::new();
        reactor.poll(None, &mut ready).unwrap();
        assert_eq!(ready.iter().filter(|&&ready| ready == Ready::Signal).count(), 2);
        assert_eq!(reactor.told_to_end(), 0);
    }
}
