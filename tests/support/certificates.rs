//! A throw-away authority, and certificates of it: for the tests of TLS, and for trying it (`make certs`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};

/// An authority, a certificate of it for the server and one for clients, in a folder that is gone when this is dropped.
#[derive(Debug)]
pub struct Certificates {
    /// Where the files are: `ca.pem`, `server.pem`, `server.key`, `client.pem`, `client.key`.
    pub folder: PathBuf,
}

impl Certificates {
    /// Makes new ones, for loopback. The name makes the folder easier to recognise.
    pub fn new(name: &str) -> Certificates {
        let private = crate::private_address().to_string();
        Certificates::for_names(name, &["localhost", "127.0.0.1", "::1", &private])
    }

    /// The same, for servers of these names.
    pub fn for_names(name: &str, names: &[&str]) -> Certificates {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = format!("fortnight-tls-{name}-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        write(&folder, names).expect("certificates");
        Certificates { folder }
    }

    /// The path of one of the files.
    pub fn file(&self, name: &str) -> String {
        self.folder.join(name).display().to_string()
    }

    /// What a client speaks TLS with that trusts the authority. With `named` it shows the client's certificate.
    pub fn client_config(&self, versions: &[&'static SupportedProtocolVersion], named: bool) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        let authority = CertificateDer::from_pem_file(self.file("ca.pem")).expect("an authority");
        roots.add(authority).expect("an authority");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions of TLS")
            .with_root_certificates(roots);
        if named {
            let chain = vec![CertificateDer::from_pem_file(self.file("client.pem")).expect("a certificate")];
            let key = PrivateKeyDer::from_pem_file(self.file("client.key")).expect("a key");
            builder.with_client_auth_cert(chain, key).expect("a key of the certificate")
        } else {
            builder.with_no_client_auth()
        }
    }
}

impl Drop for Certificates {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Makes an authority and certificates for `names`, and writes them into a folder: `ca.pem`, and `.pem` and `.key` of `server` and
/// `client`.
///
/// # Errors
///
/// If a name is none, or a file cannot be written.
pub fn write(folder: &Path, names: &[&str]) -> io::Result<()> {
    std::fs::create_dir_all(folder)?;
    let mut params = CertificateParams::new(Vec::new()).map_err(io::Error::other)?;
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Strict clients (Python from 3.13 on) want to see what its key is for, and who has signed a certificate.
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.distinguished_name.push(DnType::CommonName, "authority for trying Fortnight");
    let key = KeyPair::generate().map_err(io::Error::other)?;
    let authority = CertifiedIssuer::self_signed(params, key).map_err(io::Error::other)?;
    std::fs::write(folder.join("ca.pem"), authority.pem())?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    for holder in ["server", "client"] {
        let key = KeyPair::generate().map_err(io::Error::other)?;
        let mut params = CertificateParams::new(names.clone()).map_err(io::Error::other)?;
        params.distinguished_name.push(DnType::CommonName, holder);
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &authority).map_err(io::Error::other)?;
        std::fs::write(folder.join(format!("{holder}.pem")), certificate.pem())?;
        write_secret(&folder.join(format!("{holder}.key")), &key.serialize_pem())?;
    }
    Ok(())
}

/// The same, and a pair of keys for users' tokens (EdDSA): `token.key` signs, `token.pem` is for `userTokenKey`.
///
/// # Errors
///
/// As [`write()`].
pub fn write_all(folder: &Path, names: &[&str]) -> io::Result<()> {
    write(folder, names)?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(io::Error::other)?;
    std::fs::write(folder.join("token.pem"), key.public_key_pem())?;
    write_secret(&folder.join("token.key"), &key.serialize_pem())
}

/// Writes a file that nobody else may read.
///
/// # Errors
///
/// If it cannot be written.
pub fn write_secret(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600).open(path)?.write_all(text.as_bytes())
}
