//! The bytes at the other end of standard error, and a log that nobody reads. Each test starts this test program again,
//! as a child that does nothing but log.

use std::{
    fs::File,
    io::{BufRead, BufReader, PipeReader, Read},
    os::fd::OwnedFd,
    process::{Child, ChildStdout, Command, Stdio},
    time::Duration,
};

use super::sink::Sink;
use rustix::{
    fs::{Mode, OFlags, fcntl_setfl, fstat, open},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Action, tcflow},
};

/// How many lines the child logs; only a child has this variable.
const COUNT: &str = "FORTNIGHT_TEST_LOG_LINES";

/// In a child: logs this number of lines, says so on standard output, waits for standard input to end, logs one more.
#[test]
fn child() {
    let Ok(count) = std::env::var(COUNT) else { return };
    std::thread::spawn(|| {
        std::thread::sleep(Duration::from_secs(60));
        // A log line has held the child up.
        std::process::exit(1);
    });
    super::init(log::LevelFilter::Info);
    for number in 0..count.parse::<u64>().unwrap() {
        log::info!(number, peer = "a \"b\"\n"; "user connected");
        log::debug!("below the level");
    }
    println!("logged");
    std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
    log::warn!("last");
}

struct Logging {
    child: Child,
    /// Kept open for what the test harness in the child prints.
    _stdout: BufReader<ChildStdout>,
}

impl Logging {
    /// Starts a child and waits until it has logged `count` lines.
    fn start(count: u64, stderr: impl Into<Stdio>, environment: &[(&str, &str)]) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "logging::tests::child", "--nocapture"])
            .env(COUNT, count.to_string())
            .env_remove("NO_COLOR")
            .env("TERM", "xterm")
            .envs(environment.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr)
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let logged = stdout.by_ref().lines().any(|line| line.unwrap().contains("logged"));
        let logging = Self { child, _stdout: stdout };
        assert!(logged, "the child ended early");
        logging
    }

    /// Lets the child log its last line, and waits for it to end well.
    fn finish(mut self) {
        drop(self.child.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The two ends of a new terminal: the one that a screen reads, and the one that programs write to.
fn terminal() -> (File, OwnedFd) {
    let screen = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
    grantpt(&screen).unwrap();
    unlockpt(&screen).unwrap();
    let name = ptsname(&screen, Vec::new()).unwrap();
    let program =
        open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
    (File::from(screen), program)
}

/// What a child writes to a terminal: two lines and the last one.
fn on_a_terminal(environment: &[(&str, &str)]) -> String {
    let (screen, program) = terminal();
    Logging::start(1, program, environment).finish();
    // A terminal without programs answers with an error at the end.
    let lines = BufReader::new(screen).lines().map_while(Result::ok);
    lines.map(|line| line + "\n").collect()
}

#[test]
fn on_a_pipe_it_is_key_value_lines_up_to_the_level() {
    let (mut reader, writer) = std::io::pipe().unwrap();
    Logging::start(1, writer, &[]).finish();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let lines: Vec<_> = text.lines().map(|line| line.split_once(' ').unwrap().1).collect();
    assert_eq!(
        lines,
        [r#"level=info msg="user connected" number=0 peer="a \"b\"\n""#, "level=warn msg=last"],
        "{text}"
    );
}

#[test]
fn on_a_terminal_it_is_for_people_and_in_colours() {
    let text = on_a_terminal(&[]);
    let target = "[fortnight::logging::tests]";
    assert!(
        text.contains(&format!("\u{1b}[36mINFO \u{1b}[0m {target} user connected number=0 peer=")),
        "{text:?}"
    );
    assert!(text.contains(&format!("\u{1b}[33mWARN \u{1b}[0m {target} last")), "{text:?}");
    assert!(!text.contains("below"), "{text:?}");
}

#[test]
fn a_terminal_that_wants_no_colours_gets_none() {
    for environment in [[("NO_COLOR", "1")], [("TERM", "dumb")]] {
        let text = on_a_terminal(&environment);
        assert!(text.contains("INFO  [fortnight::logging::tests] user connected number=0"), "{text:?}");
        assert!(!text.contains('\u{1b}'), "{text:?}");
    }
    assert!(on_a_terminal(&[("NO_COLOR", "")]).contains('\u{1b}'), "empty is unset");
}

#[test]
fn a_pipe_that_nobody_reads_stops_nothing_and_every_line_is_accounted_for() {
    const COUNT: u64 = 20_000;
    let (mut reader, writer) = std::io::pipe().unwrap();
    let logging = Logging::start(COUNT, writer, &[]);
    let written = read_what_is_there(&mut reader);
    let written = written.lines().count() as u64;
    assert!((1..COUNT).contains(&written), "{written} lines");
    logging.finish();
    let mut rest = String::new();
    reader.read_to_string(&mut rest).unwrap();
    let left_out = format!("count={}\n", COUNT - written);
    assert!(rest.contains("standard error took no more") && rest.contains(&left_out), "{rest}");
    assert!(rest.ends_with("level=warn msg=last\n"), "{rest}");
}

/// Empties a pipe whose writer is still there.
fn read_what_is_there(reader: &mut PipeReader) -> String {
    fcntl_setfl(&*reader, OFlags::NONBLOCK).unwrap();
    let mut bytes = Vec::new();
    assert_eq!(reader.read_to_end(&mut bytes).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    fcntl_setfl(&*reader, OFlags::empty()).unwrap();
    String::from_utf8(bytes).unwrap()
}

#[test]
fn a_closed_pipe_ends_nothing() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    Logging::start(100, writer, &[]).finish();
}

#[test]
fn a_closed_terminal_ends_nothing() {
    let (screen, program) = terminal();
    let logging = Logging::start(10, program, &[]);
    drop(screen);
    logging.finish();
}

#[test]
fn a_stopped_terminal_stops_nothing() {
    let (_screen, program) = terminal();
    tcflow(&program, Action::OOff).unwrap();
    Logging::start(2000, program, &[]).finish();
}

#[test]
fn a_terminal_that_nobody_reads_stops_nothing() {
    let (_screen, program) = terminal();
    Logging::start(2000, program, &[]).finish();
}

#[test]
fn in_the_journal_of_systemd_a_line_begins_with_its_priority() {
    let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let place = fstat(&writer).unwrap();
    let stream = format!("{}:{}", place.st_dev, place.st_ino);
    Logging::start(1, OwnedFd::from(writer), &[("JOURNAL_STREAM", &stream)]).finish();
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    assert!(text.starts_with("<6>time=") && text.contains("\n<4>time="), "{text}");
}

#[test]
fn a_socket_that_nobody_reads_stops_nothing() {
    let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    // Another stream than the variable speaks of.
    Logging::start(20_000, OwnedFd::from(writer), &[("JOURNAL_STREAM", "1:2")]).finish();
}

/// A pipe without room stands for a disk that is full and then has room again.
#[test]
fn a_line_that_was_torn_is_finished_first() {
    let mut sink = Sink::of_standard_error();
    let (mut reader, writer) = std::io::pipe().unwrap();
    fcntl_setfl(&writer, OFlags::NONBLOCK).unwrap();
    sink.redirect(File::from(OwnedFd::from(writer)));
    let long = format!("{}\n", "x".repeat(100_000));
    sink.write(&long, |_| unreachable!("nothing was left out"));
    sink.write("left out\n", |_| unreachable!("there is no room"));
    let mut text = read_what_is_there(&mut reader);
    assert!(text.len() < long.len());
    for line in ["room again\n", "last\n"] {
        sink.write(line, |count| format!("{count} left out\n"));
        text += &read_what_is_there(&mut reader);
    }
    // The line that came while the long one was still being finished has gone too.
    let told = text.strip_prefix(&long).unwrap_or_else(|| panic!("torn: {}", text.len()));
    assert!(["2 left out\nlast\n", "1 left out\nroom again\nlast\n"].contains(&told), "{told:?}");
}

#[test]
fn a_terminal_that_does_not_block_ends_nothing_when_it_is_full() {
    let (_screen, program) = terminal();
    fcntl_setfl(&program, OFlags::NONBLOCK).unwrap();
    Logging::start(2000, program, &[]).finish();
}

#[test]
fn a_full_disk_ends_nothing() {
    let full = File::options().write(true).open("/dev/full").unwrap();
    Logging::start(100, full, &[]).finish();
}
