//! The server under test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use serde_json::Value;

/// The server's binary: the one that `FORTNIGHT` names, or the one that cargo builds now.
pub(crate) fn fortnight() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| match std::env::var_os("FORTNIGHT") {
        Some(path) => path.into(),
        None => build(),
    })
}

fn build() -> PathBuf {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.toml");
    let output = Command::new(env!("CARGO"))
        .args([
            "build",
            "-p",
            "fortnight",
            "--bin",
            "fortnight",
            "--message-format",
            "json",
            "--manifest-path",
            manifest,
        ])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let messages = String::from_utf8(output.stdout).unwrap();
    let messages = messages.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let binary =
        messages.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?))).next_back();
    binary.expect("cargo says where the binary is")
}
