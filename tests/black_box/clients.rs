//! The programs of `examples/clients`: a source and a user in each language, against a server with a journal that is
//! killed under them. A language that is not on this machine is skipped.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::journal::Folder;
use support::{DEADLINE, Server, launch, model::Model, only_in_clear, private_address, skipped};

/// Events without their numbers.
pub(crate) const EVENTS: usize = 4_000;
/// The user that is watched.
pub(crate) const USER: u64 = 7;

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

pub(crate) fn input(numbers: std::ops::RangeInclusive<usize>) -> String {
    numbers.map(|number| content(number) + "\n").collect()
}

/// The lines that the user receives of this number of first events.
pub(crate) fn expected(count: usize) -> Vec<String> {
    let mut model = Model::new();
    model.login(USER);
    for number in 1..=count {
        model.release(format!("{number}|{}\n", content(number)).as_bytes());
    }
    let told = String::from_utf8(model.told(USER).unwrap().to_vec()).unwrap();
    told.lines().map(str::to_owned).collect()
}

/// The command of an example: a program and its first arguments.
pub(crate) type Example = Vec<String>;

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

/// The programs of a language.
pub(crate) struct Language {
    pub(crate) name: &'static str,
    pub(crate) source: Example,
    pub(crate) user: Example,
    /// Where they are, if a compiler made them.
    _folder: Option<Folder>,
}

impl Language {
    /// Programs that an interpreter runs. `None`: it is not here.
    fn interpreted(name: &'static str, interpreter: &str, extension: &str) -> Option<Language> {
        let program = |kind: &str| interpreted(interpreter, &format!("{name}/{kind}.{extension}"));
        Some(Language { name, source: program("source")?, user: program("user")?, _folder: None })
    }

    /// Programs that a compiler makes. `None`: it is not here.
    fn compiled(name: &'static str, of: &str, extension: &str, compiler: &[&str]) -> Option<Language> {
        let folder = Folder::new(&format!("clients-{name}-{of}"));
        fs::create_dir_all(folder.show()).unwrap();
        let program = |kind: &str| {
            let (program, text) = (format!("{}/{kind}", folder.show()), format!("{name}/{kind}.{extension}"));
            compile(Command::new(compiler[0]).args(&compiler[1..]).args(["-o", &program, &file(&text)]))?;
            Some(vec![program])
        };
        let (source, user) = (program("source")?, program("user")?);
        Some(Language { name, source, user, _folder: Some(folder) })
    }

    pub(crate) fn python() -> Option<Language> {
        Language::interpreted("python", "python3", "py")
    }

    pub(crate) fn javascript() -> Option<Language> {
        Language::interpreted("javascript", "node", "js")
    }

    /// `of` is a name for the folder that the programs are in.
    pub(crate) fn go(of: &str) -> Option<Language> {
        Language::compiled("go", of, "go", &["go", "build"])
    }

    /// The same.
    pub(crate) fn rust(of: &str) -> Option<Language> {
        Language::compiled("rust", of, "rs", &["rustc", "--edition=2024", "-Dwarnings"])
    }
}

/// A program that has been started.
pub(crate) struct Program {
    child: Child,
    input: Option<ChildStdin>,
    lines: Receiver<String>,
    /// What it has said on standard error.
    said: Arc<Mutex<String>>,
    listener: Option<JoinHandle<()>>,
}

impl Program {
    pub(crate) fn start(example: &Example, arguments: &[&str]) -> Program {
        let mut child = Command::new(&example[0])
            .args(&example[1..])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{example:?}: {error}"));
        let output = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = channel();
        thread::spawn(move || output.lines().map_while(Result::ok).all(|line| send.send(line).is_ok()));
        let mut errors = child.stderr.take().unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let listener = thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(length @ 1..) = errors.read(&mut buffer) {
                heard.lock().unwrap().push_str(&String::from_utf8_lossy(&buffer[..length]));
            }
        });
        Program { input: child.stdin.take(), child, lines, said, listener: Some(listener) }
    }

    pub(crate) fn give(&mut self, text: &str) {
        self.input.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    #[track_caller]
    pub(crate) fn expect(&self, lines: &[String]) {
        for line in lines {
            let got = self.lines.recv_timeout(DEADLINE);
            let got = got.unwrap_or_else(|error| panic!("not {line}: {error}; it said:\n{}", self.said()));
            assert_eq!(&got, line);
        }
    }

    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// Waits until it has said this, in capitals or not.
    #[track_caller]
    pub(crate) fn expect_to_say(&self, text: &str) {
        let deadline = Instant::now() + DEADLINE;
        while !self.said().to_lowercase().contains(text) {
            assert!(Instant::now() < deadline, "it does not say {text:?}, but:\n{}", self.said());
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    fn ended(&mut self) -> ExitStatus {
        drop(self.input.take());
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                self.listener.take().unwrap().join().unwrap();
                return status;
            }
            assert!(Instant::now() < deadline, "the program does not end; it said:\n{}", self.said());
            thread::sleep(Duration::from_millis(2));
        }
    }

    #[track_caller]
    pub(crate) fn expect_success(mut self) {
        let status = self.ended();
        assert!(status.success(), "{status}; it said:\n{}", self.said());
    }

    /// Expects that it ends with status 1, says one sentence with these words, and prints nothing.
    #[track_caller]
    pub(crate) fn expect_failure(mut self, words: &[&str]) {
        let status = self.ended();
        let said = self.said();
        assert_eq!(status.code(), Some(1), "it said:\n{said}");
        let last = said.lines().last().unwrap_or_default();
        for word in words {
            assert!(last.contains(word), "no {word:?} in:\n{said}");
        }
        assert!(!said.contains("Traceback") && !said.contains("    at "), "{said}");
        assert_eq!(self.lines.try_iter().next(), None);
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
pub(crate) fn wait_for_place(state: &Path, next: usize) {
    let deadline = Instant::now() + DEADLINE;
    let stored = || fs::read_to_string(state).unwrap_or_default();
    while !stored().starts_with(&format!("{next} ")) {
        assert!(Instant::now() < deadline, "place {:?}, not {next}", stored());
        thread::sleep(Duration::from_millis(2));
    }
}

/// The server is killed while events flow, the user and the source are killed, and everything arrives once.
fn exact_through_kills(language: &Language) {
    let Language { name, source, user, .. } = language;
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
    if only_in_clear("the example clients speak in clear here") {
        return;
    }
    if let Some(language) = Language::python() {
        exact_through_kills(&language);
    }
}

#[test]
fn javascript() {
    if only_in_clear("the example clients speak in clear here") {
        return;
    }
    if let Some(language) = Language::javascript() {
        exact_through_kills(&language);
    }
}

#[test]
fn go() {
    if only_in_clear("the example clients speak in clear here") {
        return;
    }
    if let Some(language) = Language::go("kills") {
        exact_through_kills(&language);
    }
}

#[test]
fn rust() {
    if only_in_clear("the example clients speak in clear here") {
        return;
    }
    if let Some(language) = Language::rust("kills") {
        exact_through_kills(&language);
    }
}
