//! Which hosts a request may ask (SPEC section 12).
//!
//! A browser asks the admin interface for any web page, if that page's own name has been made to lead to it (DNS
//! rebinding). It says the name in `Host`. So on a loopback address only names are answered that no page can have.

use std::net::{IpAddr, Ipv6Addr};

/// The hosts that a request may ask.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hosts {
    /// `None`: any.
    names: Option<Vec<String>>,
}

impl Hosts {
    /// Any host.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn any() -> Self {
        Self { names: None }
    }

    /// Those that the admin interface answers for on `address`.
    #[must_use]
    pub(crate) fn on(address: IpAddr, names: &[String]) -> Self {
        Self { names: address.is_loopback().then(|| names.to_vec()) }
    }

    /// Whether a `Host` is accepted: a name or an address, with or without a port.
    #[must_use]
    pub(crate) fn accept(&self, host: &[u8]) -> bool {
        let Some(names) = &self.names else { return true };
        let Some(name) = std::str::from_utf8(host).ok().and_then(without_port) else { return false };
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        if let Some(inner) = inner {
            return inner.parse::<Ipv6Addr>().is_ok();
        }
        if name.parse::<IpAddr>().is_ok_and(|address| address.is_ipv4()) {
            return true;
        }
        // The dot at the end only says that the name is whole.
        let name = name.strip_suffix('.').unwrap_or(name);
        name.eq_ignore_ascii_case("localhost") || names.iter().any(|known| known.eq_ignore_ascii_case(name))
    }
}

/// The host without its port. `None`: what should be the port is none.
fn without_port(host: &str) -> Option<&str> {
    let name_end = host.rfind(']').unwrap_or(0);
    let Some(colon) = host[name_end..].find(':').map(|at| name_end + at) else { return Some(host) };
    host[colon + 1..].bytes().all(|byte| byte.is_ascii_digit()).then(|| &host[..colon])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loopback() -> Hosts {
        Hosts::on(IpAddr::from([127, 0, 0, 1]), &["fortnight.example".to_owned()])
    }

    #[test]
    fn addresses_localhost_and_the_names_given_are_accepted() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9095",
            "10.1.2.3:80",
            "[::1]",
            "[::1]:9095",
            "localhost",
            "LocalHost:9095",
            "localhost.",
            "fortnight.example",
            "FORTNIGHT.example:1",
        ] {
            assert!(loopback().accept(host.as_bytes()), "{host}");
        }
    }

    #[test]
    fn no_other_name_is() {
        for host in [
            "",
            ":80",
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "fortnight.example.evil",
            "localhost:80:80",
            "localhost:x",
            "user@localhost",
            "[localhost]",
            "[::1",
            "::1",
            "2130706433",
            "127.1",
        ] {
            assert!(!loopback().accept(host.as_bytes()), "{host}");
        }
        assert!(!loopback().accept(b"\xfflocalhost"));
    }

    #[test]
    fn on_any_other_address_every_name_is() {
        for address in ["0.0.0.0", "::", "192.0.2.1"] {
            assert!(Hosts::on(address.parse().unwrap(), &[]).accept(b"evil.example"), "{address}");
        }
        assert!(!Hosts::on("::1".parse().unwrap(), &[]).accept(b"evil.example"));
    }
}
