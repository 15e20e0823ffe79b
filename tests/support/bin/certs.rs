//! `make certs`: a throw-away authority, certificates and a key for tokens, for trying TLS.

use std::path::Path;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let folder = arguments.next().unwrap_or_else(|| "certs".to_owned());
    let names: Vec<String> = arguments.collect();
    let names = ["localhost", "127.0.0.1", "::1"].into_iter().chain(names.iter().map(String::as_str));
    match support::certificates::write_all(Path::new(&folder), &names.collect::<Vec<_>>()) {
        Ok(()) => {
            println!(
                "{folder}: ca.pem, server.pem, server.key, client.pem, client.key, token.pem, token.key"
            );
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("certs: {folder}: {error}");
            ExitCode::FAILURE
        }
    }
}
