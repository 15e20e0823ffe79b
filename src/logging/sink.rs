//! Standard error as something that never waits and never tears a line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    time::Duration,
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FileType, OFlags, fstat},
    net::{SendFlags, send},
};

/// The destination of the bytes.
enum Output {
    /// A regular file, which makes nobody wait.
    File,
    /// A terminal or a pipe, opened once more. A write that does not wait is a property of what was opened, and other
    /// processes write to what this one was given.
    Opened(File),
    /// A socket, as under systemd.
    Socket,
    /// Anything that cannot be opened once more, such as the terminal of another user: it is asked for room first. A
    /// line that is longer than this room can wait.
    Asked,
}

/// See the [module](self).
pub(super) struct Sink {
    output: Output,
    /// The end of a line whose beginning has been written.
    rest: Vec<u8>,
    /// Lines left out since the last one that was written.
    left_out: u64,
}

impl Sink {
    pub(super) fn of_standard_error() -> Self {
        let kind = fstat(io::stderr()).map(|status| FileType::from_raw_mode(status.st_mode));
        let output = match kind {
            Ok(FileType::RegularFile) => Output::File,
            Ok(FileType::Socket) => Output::Socket,
            _ => {
                let flags = (OFlags::NONBLOCK | OFlags::NOCTTY).bits();
                let opened =
                    OpenOptions::new().write(true).custom_flags(flags as i32).open("/proc/self/fd/2");
                opened.map_or(Output::Asked, Output::Opened)
            }
        };
        Self { output, rest: Vec::new(), left_out: 0 }
    }

    /// Writes to `file` instead.
    #[cfg(test)]
    pub(super) fn redirect(&mut self, file: File) {
        self.output = Output::Opened(file);
    }

    /// Writes a line, or leaves it out. `confession` makes the line that says how many were left out before.
    pub(super) fn write(&mut self, line: &str, confession: impl FnOnce(u64) -> String) {
        let takes_it =
            self.finish_line() && (self.left_out == 0 || self.begin_line(&confession(self.left_out))) && {
                self.left_out = 0;
                self.rest.is_empty() && self.begin_line(line)
            };
        if !takes_it {
            self.left_out += 1;
        }
    }

    /// Writes what is left of the line before. Says whether nothing is.
    fn finish_line(&mut self) -> bool {
        while !self.rest.is_empty() {
            match self.output.write(&self.rest) {
                Ok(len) if len > 0 => drop(self.rest.drain(..len)),
                _ => return false,
            }
        }
        true
    }

    /// Says whether the beginning of the line has been written; the rest will follow.
    fn begin_line(&mut self, line: &str) -> bool {
        match self.output.write(line.as_bytes()) {
            Ok(len) if len > 0 => {
                self.rest.extend_from_slice(&line.as_bytes()[len..]);
                self.finish_line();
                true
            }
            _ => false,
        }
    }
}

impl Output {
    fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            let outcome = match self {
                Self::Opened(file) => (&mut &*file).write(bytes),
                Self::Socket => send(io::stderr(), bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL)
                    .map_err(io::Error::from),
                Self::Asked if !has_room() => Err(io::ErrorKind::WouldBlock.into()),
                Self::File | Self::Asked => io::stderr().write(bytes),
            };
            if !outcome.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::Interrupted) {
                return outcome;
            }
        }
    }
}

/// Whether standard error takes bytes now, and its reader is there.
fn has_room() -> bool {
    let stderr = io::stderr();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    let now = Timespec::try_from(Duration::ZERO).ok();
    poll(&mut fds, now.as_ref()).is_ok() && fds[0].revents() == PollFlags::OUT
}
