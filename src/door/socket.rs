//! A connection as the door hands it to the server.

use super::session::{Session, Wakes};
use rustls::{ClientConfig, ServerConfig, pki_types::ServerName};
use std::{
    io::{self, ErrorKind, IoSlice, Read, Write},
    sync::Arc,
};

/// A connection that has passed the door.
#[derive(Debug)]
pub(crate) struct Guest<S: Read + Write> {
    line: Line<S>,
    /// The net below has been asked to watch it.
    pub(super) is_watched: bool,
}

/// How its bytes go.
#[derive(Debug)]
enum Line<S: Read + Write> {
    Plain(S),
    Tls(Box<Session<S>>),
    /// It has failed on its way from one to the other.
    Broken,
}

impl<S: Read + Write> Guest<S> {
    pub(super) fn new(socket: S) -> Self {
        Self { line: Line::Plain(socket), is_watched: false }
    }

    /// The socket of the net below.
    pub(super) fn inner(&mut self) -> Option<&mut S> {
        match &mut self.line {
            Line::Plain(socket) => Some(socket),
            Line::Tls(session) => Some(&mut session.socket),
            Line::Broken => None,
        }
    }

    /// From now on it speaks TLS, beginning with the handshake.
    pub(super) fn speak_tls(&mut self, config: Arc<ServerConfig>, wakes: Wakes) -> Result<(), String> {
        if let Line::Plain(socket) = std::mem::replace(&mut self.line, Line::Broken) {
            let session = Session::new(socket, config, wakes).map_err(|error| error.to_string())?;
            self.line = Line::Tls(Box::new(session));
        }
        Ok(())
    }

    /// This server speaks TLS on it from now on, with a server of that name, and knows it by this key.
    pub(super) fn call_tls(
        &mut self,
        config: Arc<ClientConfig>,
        name: ServerName<'static>,
        wakes: Wakes,
        key: usize,
    ) -> io::Result<()> {
        let Line::Plain(socket) = std::mem::replace(&mut self.line, Line::Broken) else {
            return Err(ErrorKind::NotConnected.into());
        };
        let mut session = Session::to(socket, config, name, wakes).map_err(io::Error::other)?;
        session.know_as(key);
        self.line = Line::Tls(Box::new(session));
        Ok(())
    }

    pub(super) fn session(&mut self) -> Option<&mut Session<S>> {
        match &mut self.line {
            Line::Tls(session) => Some(session),
            Line::Plain(_) | Line::Broken => None,
        }
    }
}

impl<S: Read + Write> Read for Guest<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        match &mut self.line {
            Line::Plain(socket) => socket.read(target),
            Line::Tls(session) => session.read(target),
            Line::Broken => Err(ErrorKind::NotConnected.into()),
        }
    }
}

impl<S: Read + Write> Write for Guest<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.line {
            Line::Plain(socket) => socket.write(bytes),
            Line::Tls(session) => session.write(bytes),
            Line::Broken => Err(ErrorKind::NotConnected.into()),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let session = match &mut self.line {
            Line::Plain(socket) => return socket.write_vectored(slices),
            Line::Tls(session) => session,
            Line::Broken => return Err(ErrorKind::NotConnected.into()),
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
