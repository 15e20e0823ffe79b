//! A connection as the door hands it to the server.

use super::session::{Session, Wakes};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    sync::Arc,
};

/// A socket that may speak TLS. The server reads and writes in clear, whichever it is.
#[derive(Debug)]
pub(crate) struct MaybeTlsSocket<S: Read + Write> {
    transport: Transport<S>,
    /// The net below has been asked to watch it.
    pub(super) is_watched: bool,
}

/// How the bytes of a connection travel.
#[derive(Debug)]
enum Transport<S: Read + Write> {
    Plain(S),
    Tls(Box<Session<S>>),
    /// The change from plain bytes to TLS has failed.
    Broken,
}

impl<S: Read + Write> MaybeTlsSocket<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { transport: Transport::Plain(socket), is_watched: false }
    }

    /// The socket of the net below.
    pub(super) fn inner(&mut self) -> Option<&mut S> {
        match &mut self.transport {
            Transport::Plain(socket) => Some(socket),
            Transport::Tls(session) => Some(&mut session.socket),
            Transport::Broken => None,
        }
    }

    /// From now on the connection speaks TLS, beginning with the handshake. This side is the server.
    pub(super) fn speak_tls(&mut self, config: Arc<ServerConfig>, wakes: Wakes) -> Result<(), String> {
        if let Transport::Plain(socket) = std::mem::replace(&mut self.transport, Transport::Broken) {
            let session = Session::new(socket, config, wakes).map_err(|error| error.to_string())?;
            self.transport = Transport::Tls(Box::new(session));
        }
        Ok(())
    }

    /// From now on the connection speaks TLS. This side is the client of a server with that name. `key` is the key of the
    /// connection.
    pub(super) fn call_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        wakes: Wakes,
        key: usize,
    ) -> io::Result<()> {
        let Transport::Plain(socket) = std::mem::replace(&mut self.transport, Transport::Broken) else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut session = Session::to(socket, config, name, wakes).map_err(io::Error::other)?;
        session.know_as(key);
        self.transport = Transport::Tls(Box::new(session));
        Ok(())
    }

    pub(super) fn session(&mut self) -> Option<&mut Session<S>> {
        match &mut self.transport {
            Transport::Tls(session) => Some(session),
            Transport::Plain(_) | Transport::Broken => None,
        }
    }
}

impl<S: Read + Write> Read for MaybeTlsSocket<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.read(target),
            Transport::Tls(session) => session.read(target),
            Transport::Broken => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: Read + Write> Write for MaybeTlsSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.transport {
            Transport::Plain(socket) => socket.write(bytes),
            Transport::Tls(session) => session.write(bytes),
            Transport::Broken => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = match &mut self.transport {
            Transport::Plain(socket) => return socket.write_vectored(slices),
            Transport::Tls(session) => session,
            Transport::Broken => return Err(ErrorKind::NotConnected.into()),
        };
        let mut done = 0;
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            match session.write(slice) {
                Ok(len) => {
                    done += len;
                    if len < slice.len() {
                        break;
                    }
                }
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
