//! A server in a program of its own: it does all that its configuration says, and leaves the process alone.

use fortnight::{Config, Phase, Service};
use std::{fs, io::prelude::*, net::TcpStream, path::PathBuf, thread};

/// A folder that goes with the test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("fortnight-embedding-{name}-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A configuration with free ports and these options.
fn config(options: &[(&str, &str)]) -> Config {
    let mut config = Config { user_server_port: 0, event_source_server_port: 0, ..Config::default() };
    for (option, value) in options {
        config.set(option, value).unwrap();
    }
    config
}

/// Runs a server in this thread until an event has reached a user who logs in so. Returns what the user received.
fn serve(config: Config, login: &'static str, events: &'static str, expected: usize) -> String {
    let mut service = Service::open(config).unwrap();
    let (addresses, stopper) = (service.addresses(), service.stopper().unwrap());
    let client = thread::spawn(move || {
        let mut user = TcpStream::connect(addresses.users.unwrap()).unwrap();
        user.write_all(login.as_bytes()).unwrap();
        let mut source = TcpStream::connect(addresses.source.unwrap()).unwrap();
        source.write_all(events.as_bytes()).unwrap();
        let mut received = vec![0; expected];
        user.read_exact(&mut received).unwrap();
        stopper.stop().unwrap();
        user.read_to_end(&mut received).unwrap();
        String::from_utf8(received).unwrap()
    });
    assert!(service.run().unwrap(), "it has ended in order");
    assert_eq!(service.phase(), Phase::Done { forced: false });
    client.join().unwrap()
}

#[test]
fn the_journal_and_the_trace_are_written() {
    let folder = Folder::new("journal");
    let journal = folder.path("journal");
    let with_journal = config(&[("journalDirectory", &journal), ("recordTrace", &folder.path("run.trace"))]);
    assert_eq!(serve(with_journal, "7\n", "1|B\n2|P|1|7\n", 12), "1|B\n2|P|1|7\n");
    let trace = fs::read_to_string(folder.path("run.trace")).unwrap();
    assert!(trace.contains("=2|P|1|7") || trace.contains("-2|P|1|7"), "{trace}");
    // The next server of that folder goes on there: 2 has been released, and 3 is next.
    let again = config(&[("journalDirectory", &journal), ("restartGraceMs", "0")]);
    assert_eq!(serve(again, "7\n", "2|P|1|7\n3|B\n", 4), "3|B\n");
}

#[test]
fn a_journal_changes_the_options_that_follow_from_it() {
    let folder = Folder::new("owner");
    let with_journal = || config(&[("journalDirectory", &folder.path("journal"))]);
    let first = Service::open(with_journal()).unwrap();
    let error = Service::open(with_journal()).unwrap_err();
    assert!(error.to_string().starts_with("journalDirectory: ") && !error.is_refusal(), "{error}");
    drop(first);
    // Without the journal, this policy is refused: so is checked what goes together.
    let error = Service::open(config(&[("slowUserPolicy", "journal")])).unwrap_err();
    assert!(
        error.to_string().starts_with("slowUserPolicy: \"journal\" is not accepted") && error.is_refusal(),
        "{error}"
    );
}

#[test]
fn what_the_command_line_refuses_is_refused() {
    let refused = |config: Config| {
        let error = Service::open(config).unwrap_err();
        assert!(error.is_refusal(), "{error}");
        error.to_string()
    };
    let sentence = refused(Config { max_event_bytes: 1, ..config(&[]) });
    assert!(sentence.starts_with("maxEventBytes: \"1\" is not accepted; expected "), "{sentence}");
    // A ring has a power of two of slots: the number is rounded, as on the command line.
    Service::open(Config { reorder_capacity: 3, ..config(&[]) }).unwrap();
    let sentence = refused(config(&[("eventSourceServerPort", "7"), ("userServerPort", "7")]));
    assert!(sentence.starts_with("userServerPort: \"7\" is not accepted; expected a port"), "{sentence}");
    let sentence = refused(config(&[("userTokenKey", "no such file")]));
    assert!(sentence.starts_with("userTokenKey: cannot read no such file: "), "{sentence}");
    let sentence = refused(config(&[("tlsCertificate", "no such file")]));
    assert!(sentence.starts_with("tlsCertificate: "), "{sentence}");
    let sentence = refused(config(&[("role", "edge")]));
    assert!(sentence.starts_with("stream: an edge needs "), "{sentence}");
    let mut config = config(&[]);
    let sentence = config.set("journalSync", "often").unwrap_err();
    assert!(sentence.starts_with("journalSync: \"often\" is not accepted; expected "), "{sentence}");
    assert_eq!(config.set("often", "1").unwrap_err(), "\"often\": there is no such option");
}

#[test]
fn who_is_told_twice_to_stop_ends_at_once() {
    let mut service = Service::open(config(&[])).unwrap();
    let _user = TcpStream::connect(service.addresses().users.unwrap()).unwrap();
    service.turn().unwrap();
    assert_eq!(service.phase(), Phase::Running);
    service.stop().unwrap();
    service.stopper().unwrap().stop().unwrap();
    assert!(!service.run().unwrap());
}

#[test]
fn the_signals_stay_the_programs_own() {
    let _service = Service::open(config(&[])).unwrap();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
    let caught = u64::from_str_radix(caught.trim(), 16).unwrap();
    // SIGHUP, SIGINT, SIGTERM, SIGXFSZ.
    for signal in [1, 2, 15, 25] {
        assert_eq!(caught >> (signal - 1) & 1, 0, "signal {signal}");
    }
}
