//! `fortnight top` in a terminal of its own.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, Winsize, tcgetattr, tcsetwinsize};
use support::line::authority_of;
use support::{DEADLINE, Server, Signal, launch, private_address, server};

const COLUMNS: u16 = 100;
const ROWS: u16 = 30;

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// The program in a terminal.
struct Terminal {
    child: Child,
    /// The side of the one who sits at it.
    keys: Option<File>,
    /// Reads what the program draws, as long as there is a terminal.
    reader: Option<JoinHandle<()>>,
    is_there: Arc<AtomicBool>,
    /// The program's side, kept open so that it can be looked at when the program has gone.
    program: OwnedFd,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(arguments: &[&str]) -> Terminal {
        let keys = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&keys).unwrap();
        unlockpt(&keys).unwrap();
        let name = ptsname(&keys, Vec::new()).unwrap();
        let program =
            open(name.as_c_str(), OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty()).unwrap();
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0)));
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&program, size).unwrap();
        let side = || Stdio::from(program.try_clone().unwrap());
        let child = Command::new(env!("CARGO_BIN_EXE_fortnight"))
            .arg("top")
            .args(arguments)
            .env("TERM", "xterm-256color")
            .env_remove("adminPort")
            .stdin(side())
            .stdout(side())
            .stderr(side())
            .spawn()
            .unwrap();
        let mut output = File::from(keys.try_clone().unwrap());
        let (drawn, is_there) = (Arc::clone(&screen), Arc::new(AtomicBool::new(true)));
        let is_still_there = Arc::clone(&is_there);
        let reader = std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            while is_still_there.load(Ordering::Relaxed) {
                let tick = Timespec { tv_sec: 0, tv_nsec: 5_000_000 };
                if poll(&mut [PollFd::new(&output, PollFlags::IN)], Some(&tick)) != Ok(0) {
                    let Ok(len @ 1..) = output.read(&mut buffer) else { return };
                    drawn.lock().unwrap().process(&buffer[..len]);
                }
            }
        });
        Terminal { child, keys: Some(keys.into()), reader: Some(reader), is_there, program, screen }
    }

    /// Shows the numbers of a server, whatever it speaks.
    fn of(server: &Server) -> Terminal {
        Terminal::at(server, "127.0.0.1")
    }

    fn at(server: &Server, host: &str) -> Terminal {
        let (admin, authority) = (server.admin(), authority_of(server.admin()));
        let url =
            format!("{}://{host}:{}/", if authority.is_some() { "https" } else { "http" }, admin.port());
        let mut arguments = vec!["--admin", &url];
        arguments.extend(authority.iter().flat_map(|file| ["--tls-ca", file]));
        Terminal::start(&arguments)
    }

    /// The terminal goes away.
    fn hang_up(&mut self) {
        self.is_there.store(false, Ordering::Relaxed);
        self.reader.take().unwrap().join().unwrap();
        self.keys = None;
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    fn wait_for(&self, what: &str, condition: impl Fn() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        while !condition() {
            assert!(Instant::now() < deadline, "never {what}; the screen is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    #[track_caller]
    fn wait_for_text(&self, text: &str) {
        self.wait_for(text, || self.text().contains(text));
    }

    fn press(&mut self, keys: &[u8]) {
        self.keys.as_mut().unwrap().write_all(keys).unwrap();
    }

    /// Whether the terminal passes on keys at once and unseen, and shows the alternate screen.
    fn is_taken(&self) -> (bool, bool) {
        let raw = !tcgetattr(self.program.as_fd()).unwrap().local_modes.contains(LocalModes::ICANON);
        (raw, self.screen.lock().unwrap().screen().alternate_screen())
    }

    /// Waits until the program has ended with `status`; by then the terminal must be as it was.
    #[track_caller]
    fn expect_end(&mut self, status: i32) {
        let deadline = Instant::now() + DEADLINE;
        let ended = loop {
            if let Some(ended) = self.child.try_wait().unwrap() {
                break ended;
            }
            assert!(Instant::now() < deadline, "still running; the screen is\n{}", self.text());
            std::thread::sleep(Duration::from_millis(2));
        };
        assert_eq!(ended.code(), Some(status), "{}", self.text());
        // What the program has written last may still be on its way.
        let has_cursor = || !self.screen.lock().unwrap().screen().hide_cursor();
        self.wait_for("the terminal as it was", || self.is_taken() == (false, false) && has_cursor());
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.is_there.store(false, Ordering::Relaxed);
    }
}

#[test]
fn it_shows_numbers_that_move_until_q() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let mut terminal = Terminal::of(&server);
    terminal.wait_for_text("● healthy");
    terminal.wait_for_text("No event source is connected.");
    assert_eq!(terminal.is_taken(), (true, true));
    let (mut source, mut user) = (server.source(), server.user(1));
    source.send("1|B\n2|B\n12346|B\n");
    user.expect("1|B\n2|B\n");
    terminal.wait_for_text("Events wait for a missing one.");
    terminal.wait_for("1 of 65,536 waiting", || {
        terminal.text().lines().any(|line| line.contains("Waiting") && line.contains("1 of 65,536"))
    });
    // Who is connected, sorted by id.
    terminal.press(b"c");
    terminal.wait_for_text("Users: 1 of 1");
    terminal.press(b"i");
    terminal.wait_for_text("User ▾");
    terminal.press(b"i");
    terminal.wait_for_text("User ▴");
    terminal.press(b"o");
    terminal.wait_for_text("eventTimeoutMs=-1");
    terminal.press(b"o");
    terminal.wait_for_text("1 of 65,536");
    source.send((3..=12_345).map(|number| format!("{number}|B\n")).collect::<String>());
    terminal.wait_for_text("12,347");
    terminal.press(b"q");
    terminal.expect_end(0);
}

#[test]
fn it_fits_the_terminal_when_that_is_resized() {
    let server = server!(adminPort = 0);
    let mut terminal = Terminal::of(&server);
    terminal.wait_for_text("Rejected lines");
    terminal.screen.lock().unwrap().screen_mut().set_size(cells(20), cells(50));
    let size = Winsize { ws_row: 20, ws_col: 50, ws_xpixel: 0, ws_ypixel: 0 };
    tcsetwinsize(&terminal.program, size).unwrap();
    // The terminal is nobody's controlling one, so nobody else tells the program.
    let pid = i32::try_from(terminal.child.id()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), Signal::WINCH).unwrap();
    terminal.wait_for("narrow", || {
        let text = terminal.text();
        text.contains("Order")
            && !text.contains("Rejected lines")
            && text.lines().all(|line| line.chars().count() <= 50)
    });
    terminal.press(b"\x03");
    terminal.expect_end(0);
}

#[test]
fn it_says_that_the_server_cannot_be_reached_and_comes_back() {
    // Over TLS it lets the certificates stay, which all servers share.
    let _keeper = server!();
    let address = private_address();
    let start = |port: u16| launch!(adminPort = port, adminBindAddress = address).start();
    let first = start(0);
    let port = first.admin().port();
    let mut terminal = Terminal::at(&first, &address.to_string());
    terminal.wait_for_text("● healthy");
    first.stop();
    terminal.wait_for_text("The server cannot be reached: Connection refused");
    terminal.wait_for_text("● no answer");
    let _second = start(port);
    terminal.wait_for_text("● healthy");
    terminal.press(b"\x1b");
    terminal.expect_end(0);
}

#[test]
fn signals_leave_the_terminal_in_order() {
    for signal in [Signal::TERM, Signal::INT, Signal::HUP, Signal::QUIT] {
        let server = server!(adminPort = 0);
        let mut terminal = Terminal::of(&server);
        terminal.wait_for_text("● healthy");
        let pid = i32::try_from(terminal.child.id()).unwrap();
        rustix::process::kill_process(rustix::process::Pid::from_raw(pid).unwrap(), signal).unwrap();
        terminal.expect_end(0);
    }
}

#[test]
fn it_ends_when_its_terminal_has_gone() {
    let server = server!(adminPort = 0);
    let mut terminal = Terminal::of(&server);
    terminal.wait_for_text("● healthy");
    terminal.hang_up();
    let deadline = Instant::now() + DEADLINE;
    while terminal.child.try_wait().unwrap().is_none() {
        assert!(Instant::now() < deadline, "still running");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn without_a_terminal_it_says_what_to_use_instead() {
    let finished = launch!().flag("top").flag("--admin").flag("127.0.0.1:9").run();
    assert_eq!((finished.status, finished.stdout.as_str()), (2, ""));
    assert_eq!(
        finished.stderr,
        "fortnight: top needs a terminal; for scripts there are http://127.0.0.1:9/metrics and http://127.0.0.1:9/status.json\n"
    );
}

#[test]
fn it_needs_the_address_of_the_admin_interface() {
    let finished = launch!().flag("top").run();
    assert_eq!(finished.status, 2);
    assert_eq!(
        finished.stderr,
        "fortnight: --admin: a value is missing; expected http://HOST:PORT or https://HOST:PORT, or a port in adminPort\n"
    );
}
