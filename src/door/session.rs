//! TLS on one connection: bytes of the server on one side, records on the other.
//!
//! A connection that this server opens itself shakes hands while it is read. Until that is over nothing can be written.
//!
//! The server relies on two rules of sockets, and a session keeps both:
//!
//! - A read that comes short has emptied the socket. If the end of the connection is known already, the server is told again.
//! - A write that reports all its bytes has handed all their records to the socket. While some records wait, the session
//!   reports the last byte as not taken. The server offers this byte again, and the session skips it.
//!
//! So the server knows which connections wait for their sockets, and with how many bytes, without knowing of TLS.

use rustls::{
    ClientConfig, ClientConnection, Connection, ServerConfig, ServerConnection, pki_types::ServerName,
};
use std::{
    cell::RefCell,
    fmt,
    io::{self, ErrorKind, Read, Write},
    rc::Rc,
    sync::Arc,
};

/// Plaintext that is encrypted before the socket is offered the records: the most that waits encrypted on a connection.
const PIECE_BYTES: usize = 64 << 10;
/// Reads of the socket that may bring nothing for the server, before others have their turn.
const EMPTY_READS_MAX: usize = 32;

/// Sockets whose readiness the server must be told: their keys, and whether they have ended.
pub(super) type Wakes = Rc<RefCell<Vec<(usize, bool)>>>;

/// See the [module](self). Dropping it ends the connection in good order, if the socket takes that.
pub(super) struct Session<S: Read + Write> {
    pub(super) socket: S,
    connection: Connection,
    /// The last byte that was encrypted has not been reported as written.
    owes_byte: bool,
    /// The server sends nothing more.
    is_finished: bool,
    /// Why nothing more can be read.
    failure: Option<ErrorKind>,
    /// The handshake is not over.
    is_shaking: bool,
    wakes: Wakes,
    /// The key that the server knows it by.
    key: Option<usize>,
}

impl<S: Read + Write> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("key", &self.key)
            .field("failure", &self.failure)
            .finish_non_exhaustive()
    }
}

impl<S: Read + Write> Session<S> {
    /// A connection that somebody has opened to this server.
    pub(super) fn new(socket: S, config: Arc<ServerConfig>, wakes: Wakes) -> Result<Self, rustls::Error> {
        Ok(Self::on(socket, ServerConnection::new(config)?.into(), wakes))
    }

    /// A connection that this server has opened to a server of that name.
    pub(super) fn to(
        socket: S,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        wakes: Wakes,
    ) -> Result<Self, rustls::Error> {
        Ok(Self::on(socket, ClientConnection::new(config, name)?.into(), wakes))
    }

    fn on(socket: S, mut connection: Connection, wakes: Wakes) -> Self {
        connection.set_buffer_limit(Some(PIECE_BYTES));
        let (owes_byte, is_finished, failure, key) = (false, false, None, None);
        Self { socket, connection, owes_byte, is_finished, failure, is_shaking: true, wakes, key }
    }

    /// The server knows it by this key from now on. What came with the end of the handshake is there already.
    pub(super) fn know_as(&mut self, key: usize) {
        self.key = Some(key);
        self.wake(false);
    }

    /// The key is free for another connection: nothing is told of this one any more.
    pub(super) fn forget_key(&mut self) {
        self.key = None;
    }

    fn wake(&self, hung_up: bool) {
        if let Some(key) = self.key {
            self.wakes.borrow_mut().push((key, hung_up));
        }
    }

    /// Goes on with the handshake. True: it is over.
    ///
    /// # Errors
    ///
    /// The reason, if the other side or the socket has failed.
    pub(super) fn shake(&mut self) -> Result<bool, String> {
        loop {
            let flushed = self.flush().map_err(|error| error.to_string())?;
            if !self.connection.is_handshaking() {
                self.is_shaking = false;
                return Ok(flushed);
            }
            match self.connection.read_tls(&mut self.socket) {
                Ok(0) => return Err("it has ended within its handshake".to_owned()),
                Ok(_) => {
                    if let Err(error) = self.connection.process_new_packets() {
                        // The other side is told why, if its socket takes that.
                        let _ = self.flush();
                        return Err(error.to_string());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Hands records to the socket. False: it takes no more for now.
    fn flush(&mut self) -> io::Result<bool> {
        while self.connection.wants_write() {
            match self.connection.write_tls(&mut self.socket) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Says that nothing more will be sent. True: the socket has taken that, or never will. Otherwise it is offered again before each
    /// read, behind the records that wait.
    pub(super) fn finish(&mut self) -> bool {
        self.connection.send_close_notify();
        self.is_finished = true;
        !matches!(self.flush(), Ok(false))
    }

    /// Decrypted bytes that have not been read.
    pub(super) fn unread(&mut self) -> usize {
        self.connection.process_new_packets().map_or(0, |state| state.plaintext_bytes_to_read())
    }

    /// Reads the socket once. False: there is nothing for now.
    fn fill(&mut self) -> io::Result<bool> {
        match self.connection.read_tls(&mut self.socket) {
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        }
        let processed = self.connection.process_new_packets();
        // An alert, a part of the handshake, or the answer to new keys. What the socket does not take goes ahead of the next write.
        let flushed = self.flush();
        match (processed, flushed) {
            (Err(error), _) => return Err(io::Error::new(ErrorKind::InvalidData, error)),
            (_, Err(error)) => return Err(error),
            _ => {}
        }
        if self.is_shaking && !self.connection.is_handshaking() {
            // What was to be written meanwhile can be written now.
            self.is_shaking = false;
            self.wake(false);
        }
        Ok(true)
    }

    /// The result of a read that a failure ends after so many bytes.
    fn fail(&mut self, failure: io::Error, filled: usize) -> io::Result<usize> {
        self.failure = Some(failure.kind());
        if filled == 0 {
            return Err(failure);
        }
        self.wake(true);
        Ok(filled)
    }
}

impl<S: Read + Write> Read for Session<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        if self.is_finished || self.is_shaking {
            // An error says that the other side is gone, which the read finds out.
            let _ = self.flush();
        }
        let (mut filled, mut empty_reads) = (0, 0);
        while filled < target.len() {
            match self.connection.reader().read(&mut target[filled..]) {
                Ok(0) => {
                    // The other side has said that this is all.
                    if filled > 0 {
                        self.wake(true);
                    }
                    return Ok(filled);
                }
                Ok(len) => {
                    filled += len;
                    empty_reads = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    if let Some(failure) = self.failure {
                        return self.fail(failure.into(), filled);
                    }
                    if empty_reads == EMPTY_READS_MAX {
                        self.wake(false);
                        break;
                    }
                    empty_reads += 1;
                    match self.fill() {
                        Ok(true) => {}
                        Ok(false) => break,
                        Err(failure) => return self.fail(failure, filled),
                    }
                }
                // The other side is gone, and has not said that this was all.
                Err(_) => return self.fail(ErrorKind::ConnectionAborted.into(), filled),
            }
        }
        if filled == 0 && !target.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }
}

impl<S: Read + Write> Write for Session<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if bytes.is_empty() {
            return Ok(0);
        }
        if !self.flush()? || self.connection.is_handshaking() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut done = usize::from(std::mem::take(&mut self.owes_byte));
        while done < bytes.len() {
            done += self.connection.writer().write(&bytes[done..])?;
            if !self.flush()? {
                self.owes_byte = true;
                return if done > 1 { Ok(done - 1) } else { Err(ErrorKind::WouldBlock.into()) };
            }
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Read + Write> Drop for Session<S> {
    fn drop(&mut self) {
        if !self.connection.is_handshaking() {
            self.finish();
        }
    }
}

#[cfg(test)]
mod tests;
