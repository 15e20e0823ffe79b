//! The programs of `examples/clients`: a source and a user in each language, against a server with a journal that is
//! killed under them. A language that is not on this machine is skipped.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Instant,
};

use crate::journal::Folder;
use support::{DEADLINE, Server, launch, model::Model, only_in_clear, private_address, skipped};

/// Events without their numbers.
const EVENTS: usize = 4_000;
/// The user that is watched.
const USER: u64 = 7;

/// The line of an event, without its number: everything that user 7 may be told, and what it must not be.
fn content(number: usize) -> String {
    match number % 8 {
        0 => format!("F|7|{}", number % 5),
        1 => format!("F|{number}|7"),
        2 => format!("U|7|{}", number % 3),
        3 => "B".to_owned(),
        4 => "P|1|7".to_owned(),
        5 => "P|7|1".to_owned(),
        _ => format!("S|{}", number % 5),
    }
}

fn input(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|number| content(number) + "\n").collect()
}

/// The lines that the user receives of this number of first events.
fn expected(count: usize) -> Vec<String> {
    let mut model = Model::new();
    model.login(USER);
    for number in 1..=count {
        model.release(format!("{number}|{}\n", content(number)).as_bytes());
    }
    let told = String::from_utf8(model.told(USER).unwrap().to_vec()).unwrap();
    told.lines().map(str::to_owned).collect()
}

/// The command of an example: a program and its first arguments.
type Example = Vec<String>;

fn file(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/clients").join(path).display().to_string()
}

/// Runs a compiler. Without it the test is skipped.
fn compile(command: &mut Command) -> Option<()> {
    let output = match command.output() {
        Ok(output) => output,
        Err(error) => {
            skipped(&format!("{}: {error}", command.get_program().to_string_lossy()));
            return None;
        }
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(())
}

/// An example that an interpreter runs.
fn interpreted(interpreter: &str, path: &str) -> Option<Example> {
    compile(Command::new(interpreter).arg("--version"))?;
    Some(vec![interpreter.to_owned(), file(path)])
}

/// A program that has been started.
struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
}

impl Program {
    fn start(example: &Example, arguments: &[&str]) -> Program {
        let mut child = Command::new(&example[0])
            .args(&example[1..])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // They say there what they try again.
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{example:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
        Program { input: child.stdin.take(), child, lines }
    }

    fn give(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    fn expect(&self, lines: &[String]) {
        for line in lines {
            let got = self.lines.recv_timeout(DEADLINE).unwrap_or_else(|error| panic!("not {line}: {error}"));
            assert_eq!(&got, line);
        }
    }

    #[track_caller]
    fn expect_success(mut self) {
        drop(self.input.take());
        let deadline = Instant::now() + DEADLINE;
        let status = loop {
            match self.child.try_wait().unwrap() {
                Some(status) => break status,
                None => assert!(Instant::now() < deadline, "the program does not end"),
            }
            thread::sleep(std::time::Duration::from_millis(2));
        };
        assert!(status.success(), "{status}");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where a server listens: on ports that stay free for it while it is down.
struct Place {
    folder: Folder,
    ports: Option<(u16, u16)>,
}

impl Place {
    fn start(&mut self) -> Server {
        let (sources, users) = self.ports.unwrap_or_default();
        let server = launch!(
            journalDirectory = self.folder.show(),
            eventSourceBindAddress = private_address(),
            userBindAddress = private_address(),
            eventSourceServerPort = sources,
            userServerPort = users,
            eventTimeoutMs = -1,
        )
        .start();
        self.ports = Some((server.sources.port(), server.users.port()));
        server
    }
}

/// Waits until the user has stored its place.
#[track_caller]
fn wait_for_place(state: &Path, next: usize) {
    let deadline = Instant::now() + DEADLINE;
    let stored = || fs::read_to_string(state).unwrap_or_default();
    while !stored().starts_with(&format!("{next} ")) {
        assert!(Instant::now() < deadline, "place {:?}, not {next}", stored());
        thread::sleep(std::time::Duration::from_millis(2));
    }
}

/// The server is killed while events flow, the user and the source are killed, and everything arrives once.
fn exact_through_kills(name: &str, source: &Example, user: &Example) {
    let mut place = Place { folder: Folder::new(&format!("clients-{name}")), ports: None };
    let state = PathBuf::from(place.folder.show() + ".place");
    let _ = fs::remove_file(&state);
    let server = place.start();
    // The second address is where nobody listens: they take the next one.
    let address = |address: SocketAddr| address.to_string();
    let (sources, users) = (address(server.sources), address(server.users));
    let nowhere = format!("{}:1", private_address());
    let follow: [&str; 7] =
        ["--from", "oldest", "--state", state.to_str().unwrap(), &USER.to_string(), &users, &nowhere];
    let mut feeding = Program::start(source, &["feed", &sources, &nowhere]);
    let following = Program::start(user, &follow);

    let told = [EVENTS / 4, EVENTS / 2, EVENTS].map(expected);
    feeding.give(&input(1..=EVENTS / 4));
    following.expect(&told[0]);
    feeding.give(&input(EVENTS / 4 + 1..=EVENTS / 2));
    // With SIGKILL.
    drop(server);
    let server = place.start();
    following.expect(&told[1][told[0].len()..]);

    // A user that is started again goes on behind its place; a source is given its whole input once more.
    let last = told[1].last().unwrap().split('|').next().unwrap().parse::<usize>().unwrap();
    wait_for_place(&state, last + 1);
    drop(following);
    drop(feeding);
    let mut feeding = Program::start(source, &["feed", &sources]);
    feeding.give(&input(1..=EVENTS));
    let following = Program::start(user, &follow);
    following.expect(&told[2][told[1].len()..]);
    feeding.expect_success();
    assert!(following.lines.try_recv().is_err(), "nothing comes twice");
    drop((following, server));
    fs::remove_file(&state).unwrap();
}

#[test]
fn python() {
    if only_in_clear("the example clients speak in clear") {
        return;
    }
    let Some(source) = interpreted("python3", "python/source.py") else { return };
    let user = interpreted("python3", "python/user.py").unwrap();
    exact_through_kills("python", &source, &user);
}

#[test]
fn javascript() {
    if only_in_clear("the example clients speak in clear") {
        return;
    }
    let Some(source) = interpreted("node", "javascript/source.js") else { return };
    let user = interpreted("node", "javascript/user.js").unwrap();
    exact_through_kills("javascript", &source, &user);
}

#[test]
fn go() {
    if only_in_clear("the example clients speak in clear") {
        return;
    }
    let folder = Folder::new("clients-go-programs");
    let build = |name: &str| {
        let program = format!("{}/{name}", folder.show());
        compile(Command::new("go").args(["build", "-o", &program, &file(&format!("go/{name}.go"))]))?;
        Some(vec![program])
    };
    let Some(source) = build("source") else { return };
    exact_through_kills("go", &source, &build("user").unwrap());
}

#[test]
fn rust() {
    if only_in_clear("the example clients speak in clear") {
        return;
    }
    let folder = Folder::new("clients-rust-programs");
    fs::create_dir_all(folder.show()).unwrap();
    let build = |name: &str| {
        let program = format!("{}/{name}", folder.show());
        let source = file(&format!("rust/{name}.rs"));
        compile(Command::new("rustc").args(["--edition=2024", "-Dwarnings", "-o", &program, &source]))?;
        Some(vec![program])
    };
    let Some(source) = build("source") else { return };
    exact_through_kills("rust", &source, &build("user").unwrap());
}
