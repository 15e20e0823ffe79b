//! The address of a stream: the value of the option `stream`.

use std::{fmt, str::FromStr};

/// Longest name of a stream of NATS.
const NAME_BYTES_MAX: usize = 64;

/// A host, by name or address, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name, or an address without brackets.
    pub host: String,
    /// Never 0.
    pub port: u16,
}

/// The address from which the released stream is taken, or to which it is published (`docs/SPEC.md` section 11).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamAddress {
    /// `tcp://HOST:PORT`: another server's `streamPort`.
    Tcp(HostPort),
    /// `tls://HOST:PORT`: the same, over TLS.
    Tls(HostPort),
    /// `nats://HOST:PORT[,HOST:PORT…]/NAME`: a stream of NATS JetStream.
    Nats {
        /// Any of its servers; at least one.
        servers: Vec<HostPort>,
        /// The stream's name: letters, digits, `-` and `_`.
        name: String,
    },
}

impl FromStr for HostPort {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (host, port) = text.rsplit_once(':').ok_or(())?;
        let host = match host.strip_prefix('[') {
            Some(address) => address.strip_suffix(']').ok_or(())?,
            // An IPv6 address without brackets: nobody knows where it ends.
            None if host.contains(':') => return Err(()),
            None => host,
        };
        let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:%".contains(&byte);
        let port = port.parse().map_err(|_| ())?;
        if host.is_empty() || !host.bytes().all(known) || port == 0 {
            return Err(());
        }
        Ok(Self { host: host.to_owned(), port })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl FromStr for StreamAddress {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        match text.split_once("://") {
            Some(("tcp", rest)) => rest.parse().map(Self::Tcp),
            Some(("tls", rest)) => rest.parse().map(Self::Tls),
            Some(("nats", rest)) => {
                let (servers, name) = rest.split_once('/').ok_or(())?;
                let servers = servers.split(',').map(str::parse).collect::<Result<Vec<_>, _>>()?;
                let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
                if !(1..=NAME_BYTES_MAX).contains(&name.len()) || !name.bytes().all(known) {
                    return Err(());
                }
                Ok(Self::Nats { servers, name: name.to_owned() })
            }
            _ => Err(()),
        }
    }
}

impl StreamAddress {
    /// The servers at which the stream is.
    pub(crate) fn servers(&self) -> impl Iterator<Item = &HostPort> {
        let servers = match self {
            Self::Tcp(server) | Self::Tls(server) => std::slice::from_ref(server),
            Self::Nats { servers, .. } => servers,
        };
        servers.iter()
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(server) => write!(f, "tcp://{server}"),
            Self::Tls(server) => write!(f, "tls://{server}"),
            Self::Nats { servers, name } => {
                let servers: Vec<String> = servers.iter().map(HostPort::to_string).collect();
                write!(f, "nats://{}/{name}", servers.join(","))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_read_is_shown_again() {
        for text in [
            "tcp://127.0.0.1:9097",
            "tcp://events.example.org:9097",
            "tcp://[::1]:1",
            "tls://events.example.org:9097",
            "tcp://a-b_c:65535",
            "nats://127.0.0.1:4222/maze",
            "nats://a:1,[::1]:2,c:3/A-b_9",
        ] {
            let address: StreamAddress = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let bad = [
            "",
            "tcp",
            "tcp://",
            "tcp://:1",
            "tcp://host",
            "tcp://host:0",
            "tcp://host:65536",
            "tcp://::1:9",
            "tcp://[::1:9",
            "http://host:1",
            "TCP://host:1",
            "tcp://ho st:1",
            "tcp://host:1/name",
            "tls://host:1/name",
            "nats://host:1",
            "nats://host:1/",
            "nats:///name",
            "nats://host:1,/name",
            "nats://host:1/na.me",
            "nats://host:1/a/b",
            "host:1",
        ];
        for text in bad {
            assert_eq!(text.parse::<StreamAddress>(), Err(()), "{text}");
        }
    }
}
