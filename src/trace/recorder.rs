//! Records a trace of what reaches a running server.
//!
//! [`Recording`] is a [`Net`] around another one. It looks at what the server accepts, reads and writes. It does not
//! know the server, and the server does not know it. A server that records nothing runs without it.
//!
//! A source's bytes are handed to the operating system before the server acts on them. So the trace of a server that
//! was killed or has crashed ends with the bytes that the server was working on, in a whole line. If the file takes no
//! more, the log says so once, and the trace ends. The server goes on.
//!
//! The time of a record is the time of the poll after which the server acted on it. The server polls between reading a
//! source and looking at the bytes, and serves users then. That poll does not move the time, and the next read does. In
//! a replay, records of the same time arrive together, and users are served first.
//!
//! A user stops taking bytes: this is known after a write that its socket did not take. It is recorded with the time of
//! the last input. In a replay no time passes while the server works, so the user stops at the same byte. A user takes
//! bytes again: this is an input, with its own time.

use super::{
    file,
    record::{Action, ConnectionId, Record, head, push_block_line},
    text::push_data,
};
use crate::{
    config::Config,
    counters::DoorCounters,
    process::Process,
    server::net::{Net, Port, Ready},
    time::Micros,
    warning::Warning,
};
use std::{
    cell::RefCell,
    fmt,
    io::{self, ErrorKind, IoSlice, Read, Write},
    net::SocketAddr,
    path::Path,
    rc::Rc,
};

/// From this number of bytes on, bytes are written as a block, unchanged, and not as lines.
const BLOCK_BYTES_MIN: usize = 16 << 10;

/// Writes the file.
pub struct Recorder {
    /// `None`: writing has failed, and the trace has ended.
    output: Option<Box<dyn Write>>,
    /// Records that have not been written.
    text: Vec<u8>,
    /// The time of the last record.
    at: Micros,
    /// The time of the next record of something that reaches the server.
    next_at: Micros,
    /// A source's bytes have been recorded with that time. The server will poll before it looks at them.
    unseen: bool,
    /// The server has polled and looks at the bytes. The next input is later.
    seen: bool,
    sources: u64,
    users: u64,
}

impl fmt::Debug for Recorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Recorder").field("at", &self.at).finish_non_exhaustive()
    }
}

impl Recorder {
    /// Begins a trace in a new file. A file that has something in it is kept: it is renamed to `FILE.1`, `FILE.2` and so on.
    ///
    /// # Errors
    ///
    /// If the file cannot be written, is no regular file, or is written by another server.
    pub fn create(path: &Path, config: &Config) -> io::Result<Self> {
        Self::new(Box::new(file::create(path)?), config)
    }

    /// Begins a trace.
    ///
    /// # Errors
    ///
    /// If `output` cannot be written to.
    pub fn new(mut output: Box<dyn Write>, config: &Config) -> io::Result<Self> {
        output.write_all(head(config).as_bytes())?;
        Ok(Self {
            output: Some(output),
            text: Vec::new(),
            at: 0,
            next_at: 0,
            unseen: false,
            seen: false,
            sources: 0,
            users: 0,
        })
    }

    /// Something reaches the server.
    fn note(&mut self, id: ConnectionId, action: Action) {
        self.at = self.next_at;
        self.note_now(id, action);
    }

    /// Something turns out to have been so.
    fn note_now(&mut self, id: ConnectionId, action: Action) {
        Record::Connection { id, action }.push_line(self.at, &mut self.text);
    }

    /// Connections to the admin interface are not recorded.
    fn connects(&mut self, port: Port) -> Option<ConnectionId> {
        let id = match port {
            Port::Source => ConnectionId::Source(count(&mut self.sources)),
            Port::User => ConnectionId::User(count(&mut self.users)),
            Port::Admin | Port::Stream => return None,
        };
        self.note(id, Action::Connects);
        Some(id)
    }

    fn sends(&mut self, id: ConnectionId, bytes: &[u8]) {
        let is_source = matches!(id, ConnectionId::Source(_));
        if is_source {
            self.next_at = self.next_at.max(self.earliest());
            (self.unseen, self.seen) = (true, false);
        }
        if bytes.len() < BLOCK_BYTES_MIN {
            self.note(id, Action::Sends);
            push_data(bytes, &mut self.text);
            if is_source {
                self.flush();
            }
        } else {
            self.at = self.next_at;
            push_block_line(self.at, id, bytes.len(), &mut self.text);
            self.write(bytes, b"\n");
        }
    }

    fn signal(&mut self) {
        self.at = self.next_at;
        Record::Signal.push_line(self.at, &mut self.text);
    }

    fn after_poll(&mut self, now: Micros) {
        if self.unseen {
            (self.unseen, self.seen) = (false, true);
        } else {
            self.next_at = now.max(self.earliest());
            self.seen = false;
        }
    }

    /// The earliest time of what comes next.
    fn earliest(&self) -> Micros {
        self.at + Micros::from(self.seen)
    }

    /// Hands everything to the operating system.
    fn flush(&mut self) {
        if !self.text.is_empty() {
            self.write(b"", b"");
        }
    }

    /// Hands everything, and then this, to the operating system, without copying it.
    fn write(&mut self, bytes: &[u8], end: &[u8]) {
        if let Some(output) = &mut self.output
            && let Err(error) = write_all(output, &mut [&self.text[..], bytes, end].map(IoSlice::new))
        {
            log::error!(error:%; "recordTrace: the trace cannot be written any further and ends here");
            self.output = None;
        }
        self.text.clear();
    }
}

fn write_all(output: &mut impl Write, mut slices: &mut [IoSlice<'_>]) -> io::Result<()> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match output.write_vectored(slices) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(len) => IoSlice::advance_slices(&mut slices, len),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.flush();
    }
}

fn count(connections: &mut u64) -> u64 {
    *connections += 1;
    *connections
}

/// See the [module](self).
#[derive(Debug)]
pub struct Recording<N> {
    net: N,
    recorder: Rc<RefCell<Recorder>>,
}

impl<N: Net> Recording<N> {
    /// Records what happens on `net`.
    #[must_use]
    pub fn new(net: N, recorder: Recorder) -> Self {
        Self { net, recorder: Rc::new(RefCell::new(recorder)) }
    }
}

impl<N: Net> Net for Recording<N> {
    type Socket = RecordedSocket<N::Socket>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        self.recorder.borrow_mut().flush();
        let now = self.net.poll(wait, ready)?;
        let mut recorder = self.recorder.borrow_mut();
        recorder.after_poll(now);
        for _ in ready.iter().filter(|&&action| action == Ready::Signal) {
            recorder.signal();
        }
        Ok(now)
    }

    fn told_to_end(&mut self) -> usize {
        self.net.told_to_end()
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        let (socket, peer) = self.net.accept(port)?;
        let id = self.recorder.borrow_mut().connects(port);
        let recorder = Rc::clone(&self.recorder);
        Ok((RecordedSocket { socket, recorder, id, written: 0, limited: false }, peer))
    }

    fn backlog(&mut self, port: Port) -> usize {
        self.net.backlog(port)
    }

    fn random(&mut self) -> u64 {
        self.net.random()
    }

    fn door(&self) -> DoorCounters {
        self.net.door()
    }

    fn clock(&self) -> Micros {
        self.net.clock()
    }

    fn warnings(&self) -> Vec<Warning> {
        self.net.warnings()
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

    /// What an edge is sent by its stream is not recorded: options see to it that no edge records.
    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        let (socket, recorder) = (self.net.connect(to)?, Rc::clone(&self.recorder));
        Ok(RecordedSocket { socket, recorder, id: None, written: 0, limited: false })
    }

    fn start_tls(&mut self, socket: &mut Self::Socket, key: usize, name: &str) -> io::Result<()> {
        self.net.start_tls(&mut socket.socket, key, name)
    }

    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()> {
        self.net.register(&mut socket.socket, key)
    }

    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        self.net.want_write(&mut socket.socket, key, on)
    }

    fn forget(&mut self, socket: &mut Self::Socket) {
        self.net.forget(&mut socket.socket);
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        self.net.finish(&mut socket.socket);
    }

    fn hold_little_unsent(&mut self, socket: &mut Self::Socket, on: bool) {
        self.net.hold_little_unsent(&mut socket.socket, on);
    }

    fn unread(&mut self, socket: &mut Self::Socket) -> usize {
        self.net.unread(&mut socket.socket)
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

/// A socket whose reads and writes are looked at.
#[derive(Debug)]
pub struct RecordedSocket<S> {
    socket: S,
    recorder: Rc<RefCell<Recorder>>,
    /// `None`: there is nothing to record, or nothing any more.
    id: Option<ConnectionId>,
    written: u64,
    /// The last write came short.
    limited: bool,
}

impl<S> RecordedSocket<S> {
    fn end(&mut self, action: Action) {
        if let Some(id) = self.id.take() {
            self.recorder.borrow_mut().note(id, action);
        }
    }

    fn has_written(&mut self, len: usize, outcome: &io::Result<usize>) {
        let Some(id) = self.id else {
            return;
        };
        let written = match outcome {
            Ok(written) => *written,
            Err(error) if is_trouble(error) => return self.end(Action::Resets),
            Err(error) if error.kind() == ErrorKind::Interrupted => return,
            Err(_) => 0,
        };
        self.written += written as u64;
        let short = written < len;
        let mut recorder = self.recorder.borrow_mut();
        match (self.limited, short) {
            (false, true) => recorder.note_now(id, Action::Takes(self.written)),
            (true, true) if written > 0 => recorder.note(id, Action::Takes(self.written)),
            (true, false) => recorder.note(id, Action::Takes(u64::MAX)),
            _ => {}
        }
        drop(recorder);
        self.limited = short;
    }
}

/// The connection has failed.
fn is_trouble(error: &io::Error) -> bool {
    !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

impl<S: Read> Read for RecordedSocket<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let outcome = self.socket.read(target);
        match &outcome {
            Ok(0) => self.end(Action::Closes),
            Ok(len) => {
                if let Some(id) = self.id {
                    self.recorder.borrow_mut().sends(id, &target[..*len]);
                }
            }
            Err(error) if is_trouble(error) => self.end(Action::Resets),
            Err(_) => {}
        }
        outcome
    }
}

impl<S: Write> Write for RecordedSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let outcome = self.socket.write(bytes);
        self.has_written(bytes.len(), &outcome);
        outcome
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        let outcome = self.socket.write_vectored(slices);
        self.has_written(len, &outcome);
        outcome
    }

    fn flush(&mut self) -> io::Result<()> {
        self.socket.flush()
    }
}
