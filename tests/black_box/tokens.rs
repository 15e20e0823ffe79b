//! SPEC section 12: users' tokens.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use support::{Launch, Server, Signal, User, launch, server};

/// Base64 of a secret.
pub(crate) const SECRET: &str = "aHVuZHJlZHMgb2YgZXZlbnRzIGFuZCBvbmUgc2VjcmV0";
const OTHER_SECRET: &str = "b25lIG1vcmUgc2VjcmV0IGFuZCBubyBldmVudHM=";

/// A file of keys, which is gone when this is dropped.
pub(crate) struct KeyFile(PathBuf);

impl KeyFile {
    pub(crate) fn new(name: &str, text: &str) -> KeyFile {
        let path = std::env::temp_dir().join(format!("fortnight-{name}-{}.keys", std::process::id()));
        std::fs::write(&path, text).expect("a file of keys");
        KeyFile(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn launch_with(keys: &KeyFile) -> Launch {
    launch!(adminPort = 0).set("userTokenKey", &keys.path().display())
}

/// This number of seconds from now, or ago.
fn at(seconds: i64) -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap() + seconds
}

fn sign(secret: &str, claims: &Value) -> String {
    encode(&Header::new(Algorithm::HS256), claims, &EncodingKey::from_base64_secret(secret).unwrap()).unwrap()
}

pub(crate) fn token(user: u64, seconds: i64) -> String {
    sign(SECRET, &json!({"sub": user.to_string(), "exp": at(seconds)}))
}

fn log_in(server: &Server, line: &str) -> User {
    let mut user = server.stranger();
    user.name = line.to_owned();
    user.send(format!("{line}\r\n"));
    user
}

fn gone(server: &Server, reason: &str) -> f64 {
    server.metric(&format!("fortnight_users_disconnected_total{{reason=\"{reason}\"}}"))
}

#[test]
fn a_user_with_a_token_is_let_in_in_every_form_of_a_login() {
    let keys = KeyFile::new("forms", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).start();
    let mut plain = log_in(&server, &format!("1|{}", token(1, 60)));
    let mut now = log_in(&server, &format!("2|now|{}", token(2, 60)));
    assert!(now.read_line().starts_with(b"+|"));
    let mut source = server.source();
    source.send("1|B\n");
    plain.expect("1|B\n");
    now.expect("1|B\n");
    let mut bad = log_in(&server, &format!("3|later|{}", token(3, 60)));
    bad.expect_eof();
    assert_eq!(gone(&server, "bad_login"), 1.0);
}

#[test]
fn whose_token_is_no_good_is_closed_without_a_word() {
    let keys = KeyFile::new("bad", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).set("userTokenAudience", "fortnight").start();
    let good = |more: Value| {
        let mut claims = json!({"sub": "7", "exp": at(60), "aud": "fortnight"});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        sign(SECRET, &claims)
    };
    let lines = [
        "7".to_owned(),
        "7|now".to_owned(),
        "7|".to_owned(),
        "7|a.b.c".to_owned(),
        "7|..".to_owned(),
        format!("7|{}", good(json!({})).replace('.', "")),
        format!("7|{}", good(json!({"exp": at(0)}))),
        format!("7|{}", good(json!({"exp": at(-60)}))),
        format!("7|{}", good(json!({"nbf": at(60)}))),
        format!("7|{}", good(json!({"aud": "another"}))),
        format!("7|{}", good(json!({"sub": "8"}))),
        format!("8|now|{}", good(json!({}))),
        format!("7|{}", sign(OTHER_SECRET, &json!({"sub": "7", "exp": at(60), "aud": "fortnight"}))),
        format!("7|eyJhbGciOiJub25lIn0.{}.", good(json!({})).split('.').nth(1).unwrap()),
    ];
    for (index, line) in lines.iter().enumerate() {
        log_in(&server, line).expect_eof();
        let closed = gone(&server, "bad_token") + gone(&server, "bad_login");
        assert_eq!(closed, (index + 1) as f64, "{line}");
    }
    assert_eq!(gone(&server, "bad_login"), 1.0, "only what has an empty token is no login");
    // The log says why, and keeps the secrets.
    let log = server.log();
    let why =
        "reason=bad_token why=\"its token is missing, is not accepted, or has run out\" text=7 left_out=0";
    assert!(log.contains(why) && !log.contains("eyJ") && !log.contains("a.b.c"), "{log}");
    let mut user = log_in(&server, &format!("7|{}", good(json!({"aud": ["x", "fortnight"]}))));
    server.source().send("1|B\n");
    user.expect("1|B\n");
}

#[test]
fn a_login_line_may_have_8192_bytes() {
    let keys = KeyFile::new("long", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).start();
    let line = |padding: usize| {
        let claims = json!({"sub": "7", "exp": at(60), "padding": "x".repeat(padding)});
        format!("7|{}\n", sign(SECRET, &claims))
    };
    let padding = (1..8192).rev().find(|&padding| line(padding).len() <= 8192).expect("a line that fits");
    let mut user = server.stranger();
    user.send(line(padding));
    server.source().send("1|B\n");
    user.expect("1|B\n");
    let mut user = server.stranger();
    user.offer(line(10 << 10));
    user.expect_closed();
    assert_eq!(gone(&server, "bad_login"), 1.0);
    assert_eq!(gone(&server, "replaced"), 0.0);
}

#[test]
fn a_user_is_closed_when_its_token_runs_out() {
    let keys = KeyFile::new("expiry", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).start();
    let mut short = log_in(&server, &format!("1|{}", token(1, 2)));
    let mut told = log_in(&server, &format!("2|now|{}", token(2, 2)));
    assert!(told.read_line().starts_with(b"+|"));
    let mut long = log_in(&server, &format!("3|{}", token(3, 3600)));
    short.expect_eof();
    let line = String::from_utf8(told.read_line()).unwrap();
    assert!(line.starts_with("-|") && line.ends_with("|token_expired\r\n"), "{line}");
    told.expect_eof();
    assert_eq!(gone(&server, "token_expired"), 2.0);
    server.source().send("1|B\n");
    long.expect("1|B\n");
}

#[test]
fn a_new_login_takes_over_before_the_token_runs_out_and_another_users_token_does_not() {
    let keys = KeyFile::new("takeover", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).start();
    let mut first = log_in(&server, &format!("1|{}", token(1, 3600)));
    log_in(&server, &format!("1|{}", token(2, 3600))).expect_eof();
    let mut source = server.source();
    source.send("1|B\n");
    first.expect("1|B\n");
    let mut second = log_in(&server, &format!("1|{}", token(1, 7200)));
    first.expect_eof();
    source.send("2|B\n");
    second.expect("2|B\n");
    assert_eq!(gone(&server, "replaced"), 1.0);
}

#[test]
fn keys_are_read_anew_and_bad_ones_change_nothing() {
    let keys = KeyFile::new("reload", &format!("hs256:{SECRET}\n"));
    let server = launch_with(&keys).start();
    std::fs::write(keys.path(), "rubbish").expect("a file of keys");
    server.signal(Signal::HUP);
    server.wait_for_log("the keys of tokens stay as they were");
    let mut first = log_in(&server, &format!("1|{}", token(1, 3600)));
    log_in(&server, &format!("2|{}", token(3, 3600))).expect_eof();
    std::fs::write(keys.path(), format!("hs256:{OTHER_SECRET}")).expect("a file of keys");
    server.signal(Signal::HUP);
    server.wait_for_log("the keys of tokens have been read again");
    log_in(&server, &format!("2|{}", token(2, 3600))).expect_eof();
    let claims = json!({"sub": "2", "exp": at(60)});
    let mut second = log_in(&server, &format!("2|{}", sign(OTHER_SECRET, &claims)));
    server.source().send("1|B\n");
    // Who is connected stays.
    first.expect("1|B\n");
    second.expect("1|B\n");
}

#[test]
fn tokens_in_clear_stay_on_this_machine() {
    let keys = KeyFile::new("clear", &format!("hs256:{SECRET}\n"));
    let refused = launch_with(&keys).set("userBindAddress", "0.0.0.0").run();
    assert_eq!(refused.status, 2);
    assert!(
        refused.stderr.contains("userTokenKey: tokens would go over the network in clear"),
        "{}",
        refused.stderr
    );
    drop(launch_with(&keys).set("userBindAddress", "0.0.0.0").set("proxyProtocolFrom", "10.0.0.0/8").start());
}

#[test]
fn keys_that_make_no_sense_are_refused_at_the_start() {
    let keys = KeyFile::new("refused", "hs256:%%\n");
    let refused = launch_with(&keys).run();
    assert_eq!((refused.status, refused.stderr.lines().count()), (2, 1), "{}", refused.stderr);
    assert!(
        refused.stderr.contains("userTokenKey: ") && refused.stderr.contains("line 1: "),
        "{}",
        refused.stderr
    );
    let missing = launch!(userTokenKey = "/nowhere/keys").run();
    assert_eq!((missing.status, missing.stderr.lines().count()), (2, 1), "{}", missing.stderr);
    assert!(missing.stderr.contains("userTokenKey: cannot read /nowhere/keys: "), "{}", missing.stderr);
    // Without keys nothing is asked for, and a token is no login.
    let server = server!();
    log_in(&server, &format!("7|{}", token(7, 60))).expect_eof();
}
