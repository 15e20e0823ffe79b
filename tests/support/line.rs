//! One connection of a client, in clear or over TLS: where the tests run over TLS, no test knows it.
//!
//! With `FORTNIGHT_TEST_TLS=1` in the environment every server that a test starts speaks TLS on all its ports, unless the test sets
//! certificates itself. Its clients look up here what an address speaks. Connections speak TLS 1.3 and 1.2 in turn.
//!
//! A connection that has been made has shaken hands, as the server sees it, too: then a login that is sent comes before an event that is
//! sent later, as it does in clear. Where the server does not answer, because it does not accept anybody for now, a thread goes on with
//! the handshake, and what is sent meanwhile waits for its end.

use std::collections::HashMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use rustls::client::{ClientSessionStore, Resumption, Tls12ClientSessionValue, Tls13ClientSessionValue};
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, ClientConnection, NamedGroup};

use crate::DEADLINE;
use crate::certificates::Certificates;

/// How long a server is waited for before a thread goes on with the handshake.
const PATIENCE: Duration = Duration::from_secs(2);
/// The same where it already lets another one wait.
const LITTLE_PATIENCE: Duration = Duration::from_millis(2);
/// Bytes that are encrypted or read at once.
const PIECE_BYTES: usize = 16 << 10;

/// Whether the tests run over TLS.
pub fn over_tls() -> bool {
    std::env::var_os("FORTNIGHT_TEST_TLS").is_some_and(|value| value == "1")
}

/// True where the tests run over TLS: says that this test does nothing then, and why.
pub fn only_in_clear(reason: &str) -> bool {
    if over_tls() {
        crate::skipped(&format!("not over TLS: {reason}"));
    }
    over_tls()
}

/// What the servers of this process speak TLS with, by their addresses.
static SPEAKERS: Mutex<Option<HashMap<SocketAddr, Arc<Speaker>>>> = Mutex::new(None);
/// The certificates of all servers of this process, while there is one.
static CERTIFICATES: Mutex<Weak<Certificates>> = Mutex::new(Weak::new());

/// The certificates that all servers of this process share.
pub(crate) fn shared_certificates() -> Arc<Certificates> {
    let mut shared = locked(&CERTIFICATES);
    shared.upgrade().unwrap_or_else(|| {
        let certificates = Arc::new(Certificates::new("all"));
        *shared = Arc::downgrade(&certificates);
        certificates
    })
}

#[derive(Debug)]
pub(crate) struct Speaker {
    /// The file with the authority.
    authority: String,
    configs: [ClientConfig; 2],
    next: AtomicUsize,
    /// Handshakes that the server lets wait.
    waiting: AtomicUsize,
}

/// What one server speaks. It counts until it is dropped: the system may then give the addresses to somebody else.
#[derive(Debug)]
pub(crate) struct Spoken {
    addresses: Vec<SocketAddr>,
    /// `None`: it speaks in clear.
    speaker: Option<Arc<Speaker>>,
}

/// A server listens at these addresses: from now on with these certificates, or in clear.
pub(crate) fn note_server(addresses: &[SocketAddr], certificates: Option<&Arc<Certificates>>) -> Spoken {
    let speaker = certificates.map(|certificates| {
        let configs = [[&TLS13], [&TLS12]].map(|version| certificates.client_config(&version, false));
        let authority = certificates.file("ca.pem");
        let (next, waiting) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Arc::new(Speaker { authority, configs, next, waiting })
    });
    let mut speakers = locked(&SPEAKERS);
    let speakers = speakers.get_or_insert_default();
    for &address in addresses {
        match &speaker {
            Some(speaker) => speakers.insert(address, Arc::clone(speaker)),
            None => speakers.remove(&address),
        };
    }
    Spoken { addresses: addresses.to_vec(), speaker }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let Some(own) = &self.speaker else { return };
        let mut speakers = locked(&SPEAKERS);
        let speakers = speakers.get_or_insert_default();
        for address in &self.addresses {
            // A server that came after this one may have its port.
            if speakers.get(address).is_some_and(|speaker| Arc::ptr_eq(speaker, own)) {
                speakers.remove(address);
            }
        }
    }
}

fn speaker(address: SocketAddr) -> Option<Arc<Speaker>> {
    let speakers = locked(&SPEAKERS);
    let anywhere = SocketAddr::from(([0, 0, 0, 0], address.port()));
    speakers.as_ref()?.get(&address).or(speakers.as_ref()?.get(&anywhere)).cloned()
}

/// The file with the authority of the server at this address, if it speaks TLS.
pub fn authority_of(address: SocketAddr) -> Option<String> {
    speaker(address).map(|speaker| speaker.authority.clone())
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// See the [module](self).
#[derive(Debug)]
pub struct Line {
    socket: TcpStream,
    tls: Option<Arc<Tls>>,
}

#[derive(Debug)]
struct Tls {
    /// Held while records go to the socket, so that they stay in order.
    writing: Mutex<()>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    connection: ClientConnection,
    /// What has been read from the socket and not been decrypted.
    unread: Vec<u8>,
    /// A thread is at the handshake.
    in_background: bool,
    /// The server has sent a ticket: it knows that the handshake is over.
    ticket: Arc<Ticket>,
    failure: Option<(ErrorKind, String)>,
}

impl Line {
    /// Connects, and shakes hands where this address speaks TLS.
    ///
    /// # Errors
    ///
    /// If the server cannot be reached.
    pub fn connect(address: SocketAddr) -> io::Result<Line> {
        Line::new(TcpStream::connect(address)?, address)
    }

    /// Makes one of a connected socket.
    ///
    /// # Errors
    ///
    /// If the socket has failed.
    pub fn new(socket: TcpStream, address: SocketAddr) -> io::Result<Line> {
        socket.set_nodelay(true)?;
        socket.set_write_timeout(Some(DEADLINE))?;
        let Some(speaker) = speaker(address) else {
            socket.set_read_timeout(Some(DEADLINE))?;
            return Ok(Line { socket, tls: None });
        };
        let turn = speaker.next.fetch_add(1, Ordering::Relaxed) % 2;
        let mut config = speaker.configs[turn].clone();
        let ticket = Arc::new(Ticket(AtomicBool::new(turn == 1)));
        config.resumption = Resumption::store(Arc::clone(&ticket) as Arc<dyn ClientSessionStore>);
        let name = ServerName::try_from("localhost").expect("a name");
        let mut connection = ClientConnection::new(Arc::new(config), name).map_err(io::Error::other)?;
        connection.set_buffer_limit(None);
        let state = State { connection, unread: Vec::new(), in_background: false, ticket, failure: None };
        let tls = Tls { writing: Mutex::new(()), state: Mutex::new(state), changed: Condvar::new() };
        let line = Line { socket, tls: Some(Arc::new(tls)) };
        line.shake_hands(&speaker)?;
        line.socket.set_read_timeout(Some(DEADLINE))?;
        Ok(line)
    }

    /// The same connection once more.
    ///
    /// # Errors
    ///
    /// If there are no descriptors left.
    pub fn try_clone(&self) -> io::Result<Line> {
        Ok(Line { socket: self.socket.try_clone()?, tls: self.tls.clone() })
    }

    /// How long a read waits.
    ///
    /// # Errors
    ///
    /// If the socket has failed.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        self.socket.set_read_timeout(timeout)
    }

    /// This side's address.
    ///
    /// # Errors
    ///
    /// If the socket has failed.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Closes this side for writing, and leaves the other open.
    ///
    /// # Errors
    ///
    /// If the connection is closed already.
    pub fn finish(&self) -> io::Result<()> {
        if let Some(tls) = &self.tls {
            let _writing = locked(&tls.writing);
            let records = {
                let mut state = self.after_handshake(tls, DEADLINE)?;
                state.connection.send_close_notify();
                state.records()?
            };
            (&self.socket).write_all(&records)?;
        }
        self.socket.shutdown(Shutdown::Write)
    }

    /// Ends both directions, without a word.
    pub fn cut(&self) {
        let _ = self.socket.shutdown(Shutdown::Both);
    }

    /// The socket below, for its options. It sends no TLS close when it is dropped, like a cut connection.
    pub fn into_socket(mut self) -> TcpStream {
        self.tls = None;
        self.socket.try_clone().expect("a second handle")
    }

    fn shake_hands(&self, speaker: &Arc<Speaker>) -> io::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        let is_stuck = speaker.waiting.load(Ordering::Relaxed) > 0;
        let patience = if is_stuck { LITTLE_PATIENCE } else { PATIENCE };
        self.socket.set_read_timeout(Some(patience))?;
        let deadline = Instant::now() + patience;
        while Instant::now() < deadline {
            if tls.advance(&self.socket) {
                return Ok(());
            }
        }
        locked(&tls.state).in_background = true;
        speaker.waiting.fetch_add(1, Ordering::Relaxed);
        let (socket, tls, speaker) = (self.socket.try_clone()?, Arc::clone(tls), Arc::clone(speaker));
        std::thread::spawn(move || {
            let deadline = Instant::now() + 4 * DEADLINE;
            while Arc::strong_count(&tls) > 1 && Instant::now() < deadline && !tls.advance(&socket) {}
            locked(&tls.state).in_background = false;
            tls.changed.notify_all();
            speaker.waiting.fetch_sub(1, Ordering::Relaxed);
        });
        Ok(())
    }

    /// The connection, once its handshake is over.
    fn after_handshake<'a>(&self, tls: &'a Tls, timeout: Duration) -> io::Result<MutexGuard<'a, State>> {
        let state = locked(&tls.state);
        let waiting = |state: &mut State| state.in_background;
        let waited = tls.changed.wait_timeout_while(state, timeout, waiting);
        let (state, waited) = waited.unwrap_or_else(PoisonError::into_inner);
        if waited.timed_out() {
            return Err(ErrorKind::WouldBlock.into());
        }
        match &state.failure {
            Some((kind, reason)) => Err(io::Error::new(*kind, reason.clone())),
            None => Ok(state),
        }
    }
}

impl Tls {
    /// Goes on with the handshake by one read. True: it is over, or has failed.
    fn advance(&self, socket: &TcpStream) -> bool {
        match self.try_advance(socket) {
            Ok(is_over) => is_over,
            Err(error) if is_patient(&error) => false,
            Err(error) => {
                locked(&self.state).failure = Some((error.kind(), error.to_string()));
                true
            }
        }
    }

    fn try_advance(&self, mut socket: &TcpStream) -> io::Result<bool> {
        self.write_out(socket)?;
        let mut buffer = [0; 4096];
        {
            let state = locked(&self.state);
            if !state.connection.is_handshaking() && state.ticket.0.load(Ordering::Relaxed) {
                return Ok(true);
            }
        }
        let length = socket.read(&mut buffer)?;
        let mut state = locked(&self.state);
        let decrypted = state.take(&buffer[..length]);
        // The server lets the handshake pass before it closes a connection that it has no place for.
        if length == 0 && state.connection.is_handshaking() {
            return Err(ErrorKind::ConnectionReset.into());
        }
        let is_heard = length == 0 || state.ticket.0.load(Ordering::Relaxed);
        let is_over = is_heard && !state.connection.is_handshaking();
        drop(state);
        self.write_out(socket)?;
        decrypted?;
        Ok(is_over)
    }

    fn write_out(&self, mut socket: &TcpStream) -> io::Result<()> {
        let _writing = locked(&self.writing);
        let records = locked(&self.state).records()?;
        socket.write_all(&records)
    }
}

impl State {
    /// Records to send.
    fn records(&mut self) -> io::Result<Vec<u8>> {
        let mut records = Vec::new();
        while self.connection.wants_write() {
            self.connection.write_tls(&mut records)?;
        }
        Ok(records)
    }

    /// Bytes have come: none at the end.
    fn take(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            self.connection.read_tls(&mut &bytes[..])?;
        }
        self.unread.extend_from_slice(bytes);
        self.decrypt()
    }

    /// Decrypts some of what has come.
    fn decrypt(&mut self) -> io::Result<()> {
        while !self.unread.is_empty() {
            let mut rest = &self.unread[..];
            let read = self.connection.read_tls(&mut rest);
            let taken = self.unread.len() - rest.len();
            self.unread.drain(..taken);
            let state = self
                .connection
                .process_new_packets()
                .map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
            if read.as_ref().is_ok_and(|&length| length == 0) {
                // Nothing counts behind the end.
                self.unread.clear();
            }
            // Its buffer may be full: the rest comes when that has been read.
            if read.is_err() || state.plaintext_bytes_to_read() > 0 {
                break;
            }
        }
        Ok(())
    }
}

impl Read for Line {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.read(target) };
        let timeout = self.socket.read_timeout()?.unwrap_or(DEADLINE);
        let mut state = self.after_handshake(tls, timeout)?;
        loop {
            match state.connection.reader().read(target) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                // The server has gone, and has not said that this was all.
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {
                    return Err(ErrorKind::ConnectionAborted.into());
                }
                read => return read,
            }
            if !state.unread.is_empty() {
                state.decrypt()?;
                continue;
            }
            drop(state);
            let mut buffer = [0; PIECE_BYTES];
            let length = self.socket.read(&mut buffer)?;
            state = locked(&tls.state);
            state.take(&buffer[..length])?;
        }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(tls) = &self.tls else { return self.socket.write(bytes) };
        let piece = &bytes[..bytes.len().min(PIECE_BYTES)];
        let _writing = locked(&tls.writing);
        let records = {
            let mut state = locked(&tls.state);
            if let Some((kind, reason)) = &state.failure {
                return Err(io::Error::new(*kind, reason.clone()));
            }
            state.connection.writer().write_all(piece)?;
            state.records()?
        };
        self.socket.write_all(&records)?;
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        let Some(tls) = self.tls.take() else { return };
        let mut state = locked(&tls.state);
        let is_last = Arc::strong_count(&tls) == 1;
        if is_last && state.failure.is_none() && !state.connection.is_handshaking() {
            state.connection.send_close_notify();
            // If the socket does not take it at once, the connection counts as cut.
            if let (Ok(records), Ok(())) = (state.records(), self.socket.set_nonblocking(true)) {
                let _ = self.socket.write_all(&records);
            }
        }
    }
}

fn is_patient(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}

/// Remembers no session, and that the server has sent a ticket.
#[derive(Debug)]
struct Ticket(AtomicBool);

impl ClientSessionStore for Ticket {
    fn set_kx_hint(&self, _: ServerName<'static>, _: NamedGroup) {}

    fn kx_hint(&self, _: &ServerName<'_>) -> Option<NamedGroup> {
        None
    }

    fn set_tls12_session(&self, _: ServerName<'static>, _: Tls12ClientSessionValue) {}

    fn tls12_session(&self, _: &ServerName<'_>) -> Option<Tls12ClientSessionValue> {
        None
    }

    fn remove_tls12_session(&self, _: &ServerName<'static>) {}

    fn insert_tls13_ticket(&self, _: ServerName<'static>, _: Tls13ClientSessionValue) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn take_tls13_ticket(&self, _: &ServerName<'static>) -> Option<Tls13ClientSessionValue> {
        None
    }
}
