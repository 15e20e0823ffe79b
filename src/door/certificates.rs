//! Certificates, keys and authorities: from files to configurations of rustls.

use crate::{config::Config, server::net::Port, stream::address::StreamAddress};
use rustls::{
    CipherSuite, ClientConfig, ConfigBuilder, RootCertStore, ServerConfig,
    client::WantsClientCert,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    server::WebPkiClientVerifier,
};
use std::{
    io::{self, ErrorKind},
    path::Path,
    sync::Arc,
};

/// The TLS configuration of each port.
#[derive(Clone, Debug)]
pub(super) struct Certificates {
    ports: Vec<(Port, Arc<ServerConfig>)>,
    /// When the server's certificate runs out, in seconds from the beginning of 1970.
    pub(super) expires: Option<u64>,
}

impl Certificates {
    /// Reads the files that the configuration names. `None`: there is no certificate.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or makes no sense: one sentence that names the option.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, String> {
        let (Some(certificate), Some(key)) = (&config.tls_certificate, &config.tls_key) else {
            return Ok(None);
        };
        let chain = certificates("tlsCertificate", certificate)?;
        let key_der = private_key("tlsKey", key)?;
        let expires = chain.first().and_then(|leaf| expiry(leaf));
        let mut ports = Vec::new();
        for &port in &config.tls_ports {
            let authority = match port {
                Port::Source => ("sourceClientCa", &config.source_client_ca),
                Port::Admin => ("adminClientCa", &config.admin_client_ca),
                Port::Stream => ("streamClientCa", &config.stream_client_ca),
                Port::User => ("", &None),
            };
            let provider = Arc::new(with_aes_128_first());
            let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
                .with_safe_default_protocol_versions()
                .map_err(|error| format!("tlsCertificate: {error}"))?;
            let builder = match authority {
                (option, Some(path)) => {
                    let roots = authorities(option, path)?;
                    let verifier =
                        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                    let verifier =
                        verifier.map_err(|error| format!("{option}: {}: {error}", path.display()))?;
                    builder.with_client_cert_verifier(verifier)
                }
                (_, None) => builder.with_no_client_auth(),
            };
            let mut tls = builder.with_single_cert(chain.clone(), key_der.clone_key()).map_err(|error| {
                let (certificate, key) = (certificate.display(), key.display());
                format!(
                    "tlsCertificate: {certificate} does not go with the key in {key}: {error}; expected this server's own \
                     certificate first"
                )
            })?;
            // Most clients name AES-256 first, and hardly any for a reason.
            tls.ignore_client_order = true;
            // A second ticket is for clients that open several connections.
            tls.send_tls13_tickets = 1;
            ports.push((port, Arc::new(tls)));
        }
        Ok(Some(Self { ports, expires }))
    }

    pub(super) fn of(&self, port: Port) -> Option<&Arc<ServerConfig>> {
        self.ports.iter().find(|(at, _)| *at == port).map(|(_, config)| config)
    }
}

/// The library's algorithms. AES-128-GCM comes before AES-256-GCM: its key schedule is SHA-256, for which most processors have
/// instructions, in place of SHA-384. The other costs a tenth of a handshake.
fn with_aes_128_first() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
        | CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256 => 0,
        _ => 1,
    });
    provider
}

/// Whom to trust at the other end of the connection to the stream, and who this server is there.
#[derive(Clone, Debug)]
pub(super) struct Trust {
    pub(super) config: Arc<ClientConfig>,
    /// When this server's own certificate runs out.
    pub(super) expires: Option<u64>,
}

impl Trust {
    /// Reads the files that the configuration names. `None`: there is no authority, and so no TLS towards the stream.
    ///
    /// # Errors
    ///
    /// If a file cannot be read or makes no sense, or a server of the stream has a name that no certificate can have: one
    /// sentence that names the option.
    pub(super) fn load(config: &Config) -> Result<Option<Self>, String> {
        let Some(authority) = &config.stream_ca else { return Ok(None) };
        for server in config.stream.iter().flat_map(StreamAddress::servers) {
            server_name(&server.host).map_err(|error| format!("stream: {server}: {error}"))?;
        }
        let builder = trusting("streamCa", authority)?;
        let (Some(certificate), Some(key)) = (&config.stream_certificate, &config.stream_key) else {
            let config = Arc::new(builder.with_no_client_auth());
            return Ok(Some(Self { config, expires: None }));
        };
        let chain = certificates("streamCertificate", certificate)?;
        let expires = chain.first().and_then(|leaf| expiry(leaf));
        let tls = builder.with_client_auth_cert(chain, private_key("streamKey", key)?).map_err(|error| {
            let (certificate, key) = (certificate.display(), key.display());
            format!("streamCertificate: {certificate} does not go with the key in {key}: {error}")
        })?;
        Ok(Some(Self { config: Arc::new(tls), expires }))
    }
}

/// How to speak TLS to a server with a certificate of the authority in this file. `option` names the file.
///
/// # Errors
///
/// If the file cannot be read or makes no sense: one sentence that names the option.
pub(crate) fn client_config(option: &str, authority: &Path) -> Result<Arc<ClientConfig>, String> {
    Ok(Arc::new(trusting(option, authority)?.with_no_client_auth()))
}

fn trusting(option: &str, authority: &Path) -> Result<ConfigBuilder<ClientConfig, WantsClientCert>, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("{option}: {error}"))?;
    Ok(builder.with_root_certificates(authorities(option, authority)?))
}

/// The name that the certificate of a server must have.
///
/// # Errors
///
/// If no certificate can have it.
pub(crate) fn server_name(host: &str) -> io::Result<ServerName<'static>> {
    ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(ErrorKind::InvalidInput, "no certificate can have this name"))
}

/// The authorities of a file, at least one.
fn authorities(option: &str, path: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for root in certificates(option, path)? {
        roots.add(root).map_err(|error| format!("{option}: {}: {error}", path.display()))?;
    }
    Ok(roots)
}

/// The private key of a file.
fn private_key(option: &str, path: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| {
        format!("{option}: cannot read a private key from {}: {error}; expected PEM", path.display())
    })
}

/// The certificates of a file, at least one.
fn certificates(option: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(chain) if chain.is_empty() => {
            Err(format!("{option}: there is no certificate in {}; expected PEM", path.display()))
        }
        Ok(chain) => Ok(chain),
        Err(error) => {
            Err(format!("{option}: cannot read certificates from {}: {error}; expected PEM", path.display()))
        }
    }
}

/// When a certificate runs out: the second time of its validity (RFC 5280, 4.1).
fn expiry(certificate: &[u8]) -> Option<u64> {
    let (_, certificate, _) = element(certificate)?;
    let (_, mut fields, _) = element(certificate)?;
    // An explicit version comes first, if there is one; then number, algorithm, issuer, validity.
    if fields.first() == Some(&0xa0) {
        fields = element(fields)?.2;
    }
    for _ in 0..3 {
        fields = element(fields)?.2;
    }
    let (_, validity, _) = element(fields)?;
    let (tag, text, _) = element(element(validity)?.2)?;
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let text = match tag {
        // Two digits of the year: 1950 to 2049.
        0x17 => format!("{}{text}", if text.get(..2)? < "50" { "20" } else { "19" }),
        0x18 => text.to_owned(),
        _ => return None,
    };
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<u32>().ok();
    let part = |range| number(range).and_then(|number| u8::try_from(number).ok());
    let date = time::Date::from_calendar_date(
        i32::try_from(number(0..4)?).ok()?,
        time::Month::try_from(part(4..6)?).ok()?,
        part(6..8)?,
    );
    let at = date.ok()?.with_hms(part(8..10)?, part(10..12)?, part(12..14)?).ok()?;
    u64::try_from(at.assume_utc().unix_timestamp()).ok()
}

/// The first element of DER: its tag, its contents, and the bytes after it.
fn element(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = bytes.split_first_chunk::<2>()?;
    let (len, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            (digits.iter().fold(0, |len, &digit| (len << 8) | usize::from(digit)), rest)
        }
        _ => return None,
    };
    let (contents, rest) = rest.split_at_checked(len)?;
    Some((tag, contents, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, date_time_ymd};

    #[test]
    fn aes_128_comes_first_and_nothing_is_left_out() {
        let all = aws_lc_rs::default_provider().cipher_suites;
        let ours = with_aes_128_first().cipher_suites;
        assert_eq!(ours.len(), all.len());
        assert!(all.iter().all(|suite| ours.contains(suite)));
        for is_tls13 in [true, false] {
            let first = ours.iter().find(|suite| suite.tls13().is_some() == is_tls13).unwrap();
            assert!(format!("{:?}", first.suite()).contains("AES_128"), "{:?}", first.suite());
        }
    }

    #[test]
    fn the_end_of_a_certificate_is_read_from_it() {
        for (year, seconds) in
            [(2030, 1_893_456_000), (2049, 2_493_072_000), (2050, 2_524_608_000), (2100, 4_102_444_800)]
        {
            let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
            params.not_after = date_time_ymd(year, 1, 1);
            let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec();
            assert_eq!(expiry(&der), Some(seconds), "{year}");
            for len in 0..der.len() {
                assert_eq!(expiry(&der[..len]), None, "cut at {len}");
            }
        }
    }
}
