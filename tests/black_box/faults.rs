//! Real sockets, real faults: clients that stop, die, flood, dribble or come in crowds, and a server without
//! descriptors. Whatever they do, everyone else's stream is exact to the byte (SPEC sections 1 to 5).

use std::io::Read;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use support::stream::{Random, each, long_broadcast, long_broadcasts};
use support::{DEADLINE, Server, Source, User, launch, raise_own_limit, server};

/// Bytes of a long event in these tests.
const EVENT_BYTES: usize = 1000;

/// What the machine may add to a bounded delay: it runs other tests at the same time.
const SLACK: Duration = Duration::from_secs(15);

/// How long nothing must come before a user is taken to be held up. Too short a time would only make a test
/// show less than it could.
const QUIET: Duration = Duration::from_millis(400);

// Users that stop reading.

const CROWD: u64 = 1000;
const STOPPED: u64 = 50;
/// Bytes of a broadcast to the crowd. All of them fit the window of one that is read late: a window that has been
/// closed is opened in the kernel's own time.
const BROADCAST_BYTES: usize = 100;
/// The user that the stopped users follow. Its events flood them and no other users.
const IDOL: u64 = 1_000_000;

#[test]
fn fifty_of_1000_users_stop_reading_and_hold_the_others_up_for_a_bounded_time() {
    let timeout = Duration::from_millis(3000);
    let server =
        server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = timeout.as_millis());
    let longest = stop_fifty_of_1000(&server);
    println!("policy wait: nothing came for {longest:.2?} at most");
    assert!(longest < timeout + SLACK, "the others were held up for {longest:?}");
}

#[test]
fn fifty_of_1000_users_stop_reading_and_with_policy_disconnect_nobody_waits_for_them() {
    let server = server!(
        eventTimeoutMs = -1,
        userBufferBytes = 65_536,
        slowUserPolicy = "disconnect",
        slowUserTimeoutMs = 600_000
    );
    let longest = stop_fifty_of_1000(&server);
    println!("policy disconnect: nothing came for {longest:.2?} at most");
    assert!(longest < SLACK, "the others were held up for {longest:?}");
}

/// Floods fifty users that do not read, checks the streams of all, and gives the longest time for which
/// one of the others got nothing.
fn stop_fifty_of_1000(server: &Server) -> Duration {
    let mut stopped: Vec<User> = (1..=STOPPED).map(|id| server.narrow_user(id)).collect();
    let mut others: Vec<User> = (STOPPED + 1..=CROWD).map(|id| server.user(id)).collect();
    let mut witness = others.pop().expect("a user");
    let mut stream = each(1..=STOPPED, |id| format!("{id}|F|{id}|{IDOL}\n")).into_bytes();
    let (mut flood, mut broadcasts) = (Vec::new(), Vec::new());
    for number in STOPPED + 1..=STOPPED + 8000 {
        if number % 25 == 0 {
            broadcasts.push(long_broadcast(number, BROADCAST_BYTES));
            flood.extend(long_broadcast(number, BROADCAST_BYTES));
        } else {
            flood.extend(format!("{number:0984}|S|{IDOL:013}\n").into_bytes());
        }
    }
    stream.extend(&flood);
    let told = broadcasts.concat();
    let writer = server.source().send_in_background(stream);
    let share = others.len().div_ceil(4);
    let longest = std::thread::scope(|scope| {
        for users in others.chunks_mut(share) {
            let told = &told;
            scope.spawn(move || users.iter_mut().for_each(|user| user.expect(told)));
        }
        let mut last = Instant::now();
        let gap = |line: &Vec<u8>| {
            witness.expect(line);
            std::mem::replace(&mut last, Instant::now()).elapsed()
        };
        broadcasts.iter().map(gap).max().expect("broadcasts")
    });
    writer.join().unwrap().unwrap();
    for user in &mut stopped {
        let (got, _) = user.read_to_close();
        assert!(got.len() < flood.len(), "{}: got everything", user.name);
        assert!(flood.starts_with(&got), "{}: not the beginning of its stream", user.name);
    }
    longest
}

// Users that are killed.

/// A user that is a process of its own: it copies what it gets to its standard output.
struct Process {
    child: Child,
    output: ChildStdout,
}

impl Process {
    fn connect(server: &Server, id: u64) -> Process {
        let script = "exec 3<>\"/dev/tcp/$0/$1\" && printf '%s\\r\\n' \"$2\" >&3 && echo in && exec cat <&3";
        let (address, port) = (server.users.ip().to_string(), server.users.port().to_string());
        let mut child = Command::new("bash")
            .args(["-c", script, &address, &port, &id.to_string()])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("bash, whose /dev/tcp makes a user of a process");
        let output = child.stdout.take().expect("standard output");
        let mut user = Process { child, output };
        user.expect(b"in\n");
        user
    }

    #[track_caller]
    fn expect(&mut self, wanted: &[u8]) {
        let mut got = vec![0; wanted.len()];
        self.output.read_exact(&mut got).expect("output of the user's process");
        assert!(got == wanted, "the user's process got something else");
    }

    /// Ends it with SIGKILL.
    fn kill(mut self) {
        self.child.kill().expect("a signal sent");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_user_that_is_killed_in_the_middle_of_a_write_harms_nobody() {
    if support::only_in_clear("its user is a shell, which speaks no TLS") {
        return;
    }
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let mut other = server.user(99);
    let source = server.source();
    let stream = long_broadcasts(1..=32_000, EVENT_BYTES);
    let mut victim = Process::connect(&server, 1);
    let writer = source.send_in_background(stream.clone());
    // It has read something, not at the end of an event. Then its output is full, and it reads no more.
    victim.expect(&stream[..100_500]);
    let got = other.expect_until_quiet(&stream, QUIET);
    assert!(got < stream.len(), "the victim was not being written to");
    victim.kill();
    other.expect(&stream[got..]);
    writer.join().unwrap().unwrap();
    // Its id is free.
    let (mut again, mut source) = (server.user(1), source);
    source.send("32001|B\n");
    again.expect("32001|B\n");
    other.expect("32001|B\n");
}

#[test]
fn users_that_are_killed_while_they_read_harm_nobody() {
    if support::only_in_clear("its user is a shell, which speaks no TLS") {
        return;
    }
    let server = server!(eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let mut other = server.user(99);
    let source = server.source();
    let mut random = Random::new(9);
    for round in 0..5 {
        let mut victims: Vec<_> = (1..=4).map(|id| Process::connect(&server, id)).collect();
        let stream = long_broadcasts(round * 4000 + 1..=(round + 1) * 4000, EVENT_BYTES);
        let writer = source.send_in_background(stream.clone());
        for mut victim in victims.drain(..) {
            let length = usize::try_from(random.below(200_000)).unwrap();
            victim.expect(&stream[..length]);
            victim.kill();
        }
        other.expect(&stream);
        writer.join().unwrap().unwrap();
    }
}

// Connections in a row.

#[test]
fn twenty_thousand_connections_in_a_row_leave_nothing_behind() {
    let server = server!(eventTimeoutMs = -1, maxEventSourceClients = 50, logIntervalMs = 0);
    let (mut source, mut user) = (server.source(), server.user(0));
    let mut next = 1;
    let mut come_and_go = |connections: u64| {
        for number in 0..connections {
            come_and_go_once(&server, number);
            if number % 100 == 0 {
                source.send(format!("{next}|B\n"));
                user.expect(format!("{next}|B\n"));
                next += 1;
            }
        }
        server.pass();
    };
    come_and_go(4000);
    let (files, memory) = (open_files(&server), server.status("VmRSS"));
    come_and_go(20_000);
    // A source's end is noticed in its own time.
    wait_until(|| open_files(&server) <= files);
    let grown = server.status("VmRSS").saturating_sub(memory);
    println!("20,000 connections: {files} descriptors as before, {grown} KiB more");
    assert!(grown < 2048, "grew by {grown} KiB over {memory}");
}

/// A connection is opened and closed, in one of ten ways.
fn come_and_go_once(server: &Server, number: u64) {
    let id = 1 + number % 500;
    match number % 10 {
        0 => drop(server.stranger()),
        1 => server.stranger().vanish(),
        2 => drop(server.user(id)),
        3 => server.user(id).vanish(),
        4 => {
            let mut user = server.user(id);
            user.finish();
            user.read_to_close();
        }
        5 => {
            let mut stranger = server.stranger();
            stranger.offer("no number\n");
            stranger.expect_closed();
        }
        6 => {
            let mut stranger = server.stranger();
            stranger.send("12");
            stranger.vanish();
        }
        7 => drop(server.source()),
        8 => server.source().vanish(),
        _ => {
            let mut source = server.source();
            source.offer("half an ev");
            source.vanish();
        }
    }
}

fn open_files(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("/proc").count()
}

#[track_caller]
fn wait_until(condition: impl Fn() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !condition() {
        assert!(Instant::now() < deadline, "it never happened");
        std::thread::sleep(Duration::from_millis(5));
    }
}

// Crowds of logins.

#[test]
fn thousands_of_logins_while_events_flow_miss_nothing() {
    const THREADS: u64 = 4;
    const LOGINS: u64 = 6000;
    const BATCH: u64 = 500;
    let limit = raise_own_limit();
    if limit < LOGINS + 500 {
        support::skipped(&format!("it needs {} open files, and {limit} are allowed", LOGINS + 500));
        return;
    }
    let server = server!(eventTimeoutMs = -1, maxUserClients = LOGINS + 1);
    let (mut source, mut witness) = (server.source(), server.user(0));
    // Each batch ends with a broadcast. Of those that are served it is known who must not get them any more,
    // and of those that are not yet sent, who must.
    let (sent, served) = (AtomicU64::new(0), AtomicU64::new(0));
    let mut exchange = || {
        let batch = sent.load(Ordering::SeqCst);
        let last = (batch + 1) * BATCH;
        let events = each(batch * BATCH + 1..=last - 1, |number| format!("{number}|P|9|0\n"));
        let events = events + &format!("{last}|B\n");
        sent.store(batch + 1, Ordering::SeqCst);
        source.send(&events);
        witness.expect(&events);
        served.store(batch + 1, Ordering::SeqCst);
    };
    let started = Instant::now();
    let users: Vec<(User, u64, u64)> = std::thread::scope(|scope| {
        let log_in = |id| {
            let not_before = served.load(Ordering::SeqCst);
            let user = server.user(id);
            (user, not_before, sent.load(Ordering::SeqCst))
        };
        let share = LOGINS / THREADS;
        let threads: Vec<_> = (0..THREADS)
            .map(|thread| {
                let ids = thread * share + 1..=(thread + 1) * share;
                scope.spawn(move || ids.map(log_in).collect::<Vec<_>>())
            })
            .collect();
        while !threads.iter().all(std::thread::ScopedJoinHandle::is_finished) {
            exchange();
        }
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    });
    // Now everyone is logged in.
    exchange();
    let (seconds, batches) = (started.elapsed().as_secs_f64(), sent.load(Ordering::SeqCst));
    println!(
        "{:.0} logins a second while {:.0} events a second were served",
        LOGINS as f64 / seconds,
        (batches * BATCH) as f64 / seconds
    );
    let broadcasts = |from: u64| each(from..batches, |batch| format!("{}|B\n", (batch + 1) * BATCH));
    for (mut user, not_before, at_the_latest) in users {
        let got = user.read_through(broadcasts(batches - 1));
        let exact = (not_before..=at_the_latest).any(|from| got == broadcasts(from).as_bytes());
        assert!(exact, "{}: got {}", user.name, got.escape_ascii());
    }
}

// Without descriptors.

#[test]
fn with_64_descriptors_everyone_is_served_in_turn() {
    let launch = launch!(eventTimeoutMs = -1, maxUserClients = 1000, maxEventSourceClients = 2);
    let server = launch.limit("-n 64").start();
    let (mut source, mut witness) = (server.source(), server.user(0));
    source.send("1|B\n");
    witness.expect("1|B\n");
    let waiting: Vec<User> = (1..=250).map(|id| server.user(id)).collect();
    server.wait_for_log("accepting is paused");
    // Nobody has left: accepting is at a halt, and those connected are served.
    let stop = AtomicBool::new(false);
    let next = std::thread::scope(|scope| {
        let pump = scope.spawn(|| pump(&mut source, &mut witness, &stop));
        let stopping = StopOnDrop(&stop);
        for mut user in waiting {
            let got = user.read_through("\n");
            expect_consecutive(&user, &got);
        }
        drop(stopping);
        pump.join().unwrap()
    });
    // Everything is as it was before: another source and another user get in.
    let (mut second, mut user) = (server.source(), server.user(1));
    second.send(format!("{}|B\n", next + 1));
    source.send(format!("{next}|B\n"));
    user.expect(format!("{next}|B\n{}|B\n", next + 1));
    witness.expect(format!("{next}|B\n{}|B\n", next + 1));
}

/// Ends the pump, even where the test fails before its end.
struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Sends broadcasts from number 2 on, each when the witness has got the one before. Gives the next number.
fn pump(source: &mut Source, witness: &mut User, stop: &AtomicBool) -> u64 {
    let mut next = 2;
    while !stop.load(Ordering::SeqCst) {
        source.send(format!("{next}|B\n"));
        witness.expect(format!("{next}|B\n"));
        next += 1;
    }
    next
}

/// Expects broadcasts of consecutive numbers, whatever the first one is.
#[track_caller]
fn expect_consecutive(user: &User, got: &[u8]) {
    let text = str::from_utf8(got).expect("text");
    let first: u64 = text.split('|').next().and_then(|number| number.parse().ok()).expect("a number");
    let count = text.lines().count() as u64;
    assert_eq!(text, each(first..first + count, |number| format!("{number}|B\n")), "{}", user.name);
}
