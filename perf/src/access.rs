//! How the server is reached: in clear or over TLS, and with which token.
//!
//! [`Line`] is a connection of either kind. It keeps what the loops rely on: a read that comes short has emptied the socket, and a
//! write that reports all its bytes has handed all their records to the socket.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, Connection, ProtocolVersion, RootCertStore, ServerConfig};
use rustls::{ServerConnection, crypto::aws_lc_rs};
use serde_json::json;
use socket2::{Domain, Socket, Type};

/// Plaintext that is encrypted before the socket is offered the records.
const PIECE_BYTES: usize = 64 << 10;
/// How long a server that has shaken hands may take to send a ticket, which says that it knows. Some never send one.
const TICKET: Duration = Duration::from_secs(1);
/// How long a server may take for a handshake.
const HANDSHAKE: Duration = Duration::from_secs(20);
/// How long a token is good for, in seconds.
const TOKEN_SECONDS: u64 = 24 * 3600;

/// How a server is reached. The default: in clear, without tokens.
#[derive(Clone, Default)]
pub struct Access {
    tls: Option<Tls>,
    tokens: Option<Arc<EncodingKey>>,
}

#[derive(Clone)]
struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
    /// Which ports speak it.
    users: bool,
    sources: bool,
}

impl fmt::Debug for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (tls, tokens) = (self.tls.is_some(), self.tokens.is_some());
        f.debug_struct("Access").field("tls", &tls).field("tokens", &tokens).finish()
    }
}

impl Access {
    /// Over TLS with a server of this name and authority. `ports`: any of `users` and `sources`, separated by commas. `own` is this
    /// side's certificate and its key.
    ///
    /// # Errors
    /// A sentence that names the file or the value.
    pub fn over_tls(
        host: &str,
        authority: &Path,
        own: Option<(&Path, &Path)>,
        ports: &str,
    ) -> Result<Access, String> {
        let mut roots = RootCertStore::empty();
        for root in certificates(authority)? {
            roots.add(root).map_err(|e| format!("{}: {e}", authority.display()))?;
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|e| format!("TLS: {e}"))?
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder
                .with_client_auth_cert(certificates(chain)?, private_key(key)?)
                .map_err(|e| format!("{} and {}: {e}", chain.display(), key.display()))?,
        };
        // Every handshake is a full one, as those of different users are.
        config.resumption = Resumption::disabled();
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("host {host}: no certificate can have this name"))?;
        let (mut users, mut sources) = (false, false);
        for port in ports.split(',').map(str::trim) {
            match port {
                "users" => users = true,
                "sources" => sources = true,
                "admin" | "stream" => {}
                _ => return Err(format!("tls-ports {ports}: accepted are users and sources")),
            }
        }
        let tls = Some(Tls { config: Arc::new(config), name, users, sources });
        Ok(Access { tls, tokens: None })
    }

    /// With tokens for users, signed with the Ed25519 key of this file.
    ///
    /// # Errors
    /// A sentence that names the file.
    pub fn with_tokens(self, key: &Path) -> Result<Access, String> {
        let pem = std::fs::read(key).map_err(|e| format!("{}: {e}", key.display()))?;
        let key = EncodingKey::from_ed_pem(&pem)
            .map_err(|e| format!("{}: {e}; accepted is an Ed25519 key in PEM", key.display()))?;
        Ok(Access { tokens: Some(Arc::new(key)), ..self })
    }

    /// The login line of a user; `place` says where it goes on, and begins with a bar where there is one.
    pub fn login(&self, id: u64, place: &str) -> String {
        let Some(key) = &self.tokens else { return format!("{id}{place}\r\n") };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let claims = json!({ "sub": id.to_string(), "exp": now + TOKEN_SECONDS });
        let token = jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), &claims, key);
        format!("{id}{place}|{}\r\n", token.unwrap_or_default())
    }

    /// Connects a user, and shakes hands: the server has done so, too, when this returns. The line does not block.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn user(&self, at: SocketAddr, receive_buffer: Option<usize>) -> io::Result<Line> {
        self.open(at, receive_buffer, self.tls.as_ref().filter(|tls| tls.users))
    }

    /// Connects an event source, in the same way.
    ///
    /// # Errors
    /// Those of connecting.
    pub fn source(&self, at: SocketAddr) -> io::Result<Line> {
        self.open(at, None, self.tls.as_ref().filter(|tls| tls.sources))
    }

    fn open(&self, at: SocketAddr, receive_buffer: Option<usize>, tls: Option<&Tls>) -> io::Result<Line> {
        let socket = Socket::new(Domain::for_address(at), Type::STREAM, None)?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        socket.connect(&at.into())?;
        let mut stream = std::net::TcpStream::from(socket);
        stream.set_nodelay(true)?;
        let tls = match tls {
            Some(tls) => Some(tls.shake_hands(&mut stream)?.into()),
            None => None,
        };
        stream.set_nonblocking(true)?;
        Ok(Line::new(TcpStream::from_std(stream), tls))
    }
}

impl Tls {
    /// A login that is sent behind this has reached the server's loop before an event that is sent later.
    fn shake_hands(&self, stream: &mut std::net::TcpStream) -> io::Result<ClientConnection> {
        let config = Arc::clone(&self.config);
        let mut tls = ClientConnection::new(config, self.name.clone()).map_err(io::Error::other)?;
        stream.set_read_timeout(Some(HANDSHAKE))?;
        while tls.is_handshaking() {
            tls.complete_io(stream)?;
        }
        stream.set_read_timeout(Some(TICKET))?;
        while tls.protocol_version() == Some(ProtocolVersion::TLSv1_3) && tls.tls13_tickets_received() == 0 {
            match tls.read_tls(stream) {
                Ok(0) => return Err(ErrorKind::ConnectionAborted.into()),
                Ok(_) => {
                    tls.process_new_packets().map_err(io::Error::other)?;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(tls)
    }
}

/// What a server speaks TLS with that has this certificate and its key.
///
/// # Errors
/// A sentence that names the file.
pub fn server_config(chain: &Path, key: &Path) -> Result<Arc<ServerConfig>, String> {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| format!("TLS: {e}"))?
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, private_key(key)?)
        .map_err(|e| format!("{} and {}: {e}", chain.display(), key.display()))?;
    Ok(Arc::new(config))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    CertificateDer::pem_file_iter(file)
        .and_then(Iterator::collect)
        .map_err(|e| format!("{}: {e}; accepted are certificates in PEM", file.display()))
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file)
        .map_err(|e| format!("{}: {e}; accepted is a private key in PEM", file.display()))
}

/// Makes an authority, a certificate of it for a server on loopback, with keys of this algorithm, and a pair of keys for tokens:
/// `ca.pem`, `server.pem` and `server.key`, `token.pem` and `token.key`.
///
/// # Errors
/// Those of writing files.
pub fn make_certificates(folder: &Path, algorithm: &'static SignatureAlgorithm) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let pair = || KeyPair::generate_for(algorithm).map_err(io::Error::other);
    let authority = CertifiedIssuer::self_signed(params, pair()?).map_err(io::Error::other)?;
    let (key, names) = (pair()?, vec!["127.0.0.1".to_owned(), "localhost".to_owned()]);
    let params = CertificateParams::new(names).map_err(io::Error::other)?;
    let certificate = params.signed_by(&key, &authority).map_err(io::Error::other)?;
    let token = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
    for (name, text) in [
        ("ca.pem", authority.pem()),
        ("server.pem", certificate.pem()),
        ("server.key", key.serialize_pem()),
        ("token.pem", token.public_key_pem()),
        ("token.key", token.serialize_pem()),
    ] {
        std::fs::write(folder.join(name), text)?;
    }
    Ok(())
}

/// See the [module](self).
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    tls: Option<Box<Connection>>,
    /// The last byte that was encrypted has not been reported as written.
    owes_byte: bool,
}

impl From<TcpStream> for Line {
    fn from(stream: TcpStream) -> Line {
        Line::new(stream, None)
    }
}

impl Line {
    fn new(stream: TcpStream, tls: Option<Connection>) -> Line {
        let mut tls = tls.map(Box::new);
        if let Some(tls) = &mut tls {
            tls.set_buffer_limit(Some(PIECE_BYTES));
        }
        Line { stream, tls, owes_byte: false }
    }

    /// The server's side of a connection over TLS: reading shakes hands first.
    ///
    /// # Errors
    /// Those of the library.
    pub fn accepted(stream: TcpStream, config: Option<&Arc<ServerConfig>>) -> io::Result<Line> {
        let tls = match config {
            Some(config) => Some(ServerConnection::new(Arc::clone(config)).map_err(io::Error::other)?.into()),
            None => None,
        };
        Ok(Line::new(stream, tls))
    }

    /// Has readiness told.
    ///
    /// # Errors
    /// Those of `epoll_ctl(2)`.
    pub fn register(&mut self, registry: &Registry, token: Token, interest: Interest) -> io::Result<()> {
        registry.register(&mut self.stream, token, interest)
    }

    /// The port of this side.
    pub fn local_port(&self) -> Option<u16> {
        self.stream.local_addr().ok().map(|at| at.port())
    }

    /// The socket, for its options.
    pub fn socket(&self) -> &TcpStream {
        &self.stream
    }
}

/// Hands records to the socket. False: it takes no more for now.
fn flush(tls: &mut Connection, stream: &mut TcpStream) -> io::Result<bool> {
    while tls.wants_write() {
        match tls.write_tls(stream) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(true)
}

impl Read for Line {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let Self { stream, tls, .. } = self;
        let Some(tls) = tls else { return stream.read(target) };
        let mut filled = 0;
        while filled < target.len() {
            match tls.reader().read(&mut target[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(length) => filled += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    match tls.read_tls(stream) {
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                        Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                        Err(_) if filled > 0 => break,
                        Err(error) => return Err(error),
                    }
                    tls.process_new_packets().map_err(|e| io::Error::new(ErrorKind::InvalidData, e))?;
                    flush(tls, stream)?;
                }
                Err(_) if filled > 0 => break,
                Err(error) => return Err(error),
            }
        }
        if filled == 0 && !target.is_empty() { Err(ErrorKind::WouldBlock.into()) } else { Ok(filled) }
    }
}

impl Write for Line {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &self.tls {
            None => self.stream.write(bytes),
            Some(_) => self.write_vectored(&[IoSlice::new(bytes)]),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let Self { stream, tls, owes_byte } = self;
        let Some(tls) = tls else { return stream.write_vectored(slices) };
        let wanted: usize = slices.iter().map(|slice| slice.len()).sum();
        if wanted == 0 {
            return Ok(0);
        }
        if !flush(tls, stream)? {
            return Err(ErrorKind::WouldBlock.into());
        }
        let mut done = usize::from(std::mem::take(owes_byte));
        while done < wanted {
            let mut before = 0;
            let rest = slices.iter().filter_map(|slice| {
                let from = done.saturating_sub(before).min(slice.len());
                before += slice.len();
                (from < slice.len()).then(|| IoSlice::new(&slice[from..]))
            });
            let rest: Vec<IoSlice<'_>> = rest.collect();
            done += tls.writer().write_vectored(&rest)?;
            if !flush(tls, stream)? {
                *owes_byte = true;
                return if done > 1 { Ok(done - 1) } else { Err(ErrorKind::WouldBlock.into()) };
            }
        }
        Ok(done)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
