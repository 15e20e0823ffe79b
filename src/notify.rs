//! What a service manager is told: that the server serves, and that it ends (`sd_notify(3)`, `Type=notify` of systemd).
//!
//! The manager names a datagram socket in the variable `NOTIFY_SOCKET`. Where the variable is not set, nobody is told anything.

use std::{
    ffi::{OsStr, OsString},
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
};

/// The variable that names the socket.
pub(crate) const VARIABLE: &str = "NOTIFY_SOCKET";

/// Tells the service manager how far the server is.
#[derive(Debug)]
pub(crate) struct Notifier {
    place: Option<OsString>,
    is_ending: bool,
}

impl Notifier {
    /// Tells `place`: the path of a socket, or its abstract name after `@`. `None` or nothing: nobody is told.
    #[must_use]
    pub(crate) fn new(place: Option<OsString>) -> Self {
        Self { place: place.filter(|place| !place.is_empty()), is_ending: false }
    }

    /// The server listens, and has recovered what it keeps.
    pub(crate) fn serves(&self) {
        self.tell("READY=1");
    }

    /// The server ends. That is told once.
    pub(crate) fn ends(&mut self) {
        if !std::mem::replace(&mut self.is_ending, true) {
            self.tell("STOPPING=1");
        }
    }

    fn tell(&self, state: &str) {
        let Some(place) = &self.place else { return };
        if let Err(error) = send(place, state) {
            let place = place.to_string_lossy();
            log::warn!(place:%, state, reason:% = error; "the service manager cannot be told how far the server is");
        }
    }
}

/// Sends one datagram. It is not waited until there is room for it.
fn send(place: &OsStr, state: &str) -> io::Result<()> {
    let address = match place.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(place)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_nonblocking(true)?;
    socket.send_to_addr(state.as_bytes(), &address).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn told(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 64];
        socket.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..len]).into_owned()
    }

    #[test]
    fn an_abstract_name_and_a_path_are_told() {
        let name = format!("fortnight-notify-{}", std::process::id());
        let hidden = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let path = std::env::temp_dir().join(&name);
        let shown = UnixDatagram::bind(&path).unwrap();
        for (socket, place) in [(hidden, format!("@{name}").into()), (shown, path.clone().into_os_string())] {
            let mut notifier = Notifier::new(Some(place));
            notifier.serves();
            assert_eq!(told(&socket), "READY=1");
            notifier.ends();
            notifier.ends();
            assert_eq!(told(&socket), "STOPPING=1");
            socket.set_nonblocking(true).unwrap();
            assert_eq!(
                socket.recv(&mut [0]).unwrap_err().kind(),
                io::ErrorKind::WouldBlock,
                "it is told once"
            );
        }
        std::fs::remove_file(path).unwrap();
    }

    #[test]
    fn a_missing_service_manager_does_not_stop_the_server() {
        for place in
            [None, Some(OsString::new()), Some("/nowhere/at/all".into()), Some("x".repeat(999).into())]
        {
            Notifier::new(place).serves();
        }
    }
}
