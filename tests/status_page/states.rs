//! The page in seven states, on a large screen and on a phone, by day and by night.
//!
//! `make screenshots` keeps pictures of them for `docs/status-page.md`: the variable `FORTNIGHT_SCREENSHOTS` names the folder.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use data_encoding::BASE64;
use serde_json::{Value, json};
use support::nats::Nats;
use support::stream::{Random, long_broadcasts};
use support::{Server, Signal, Source, User, server};

use super::{POOR_CONTRAST, browse, expect_no_complaints};
use crate::browser::Browser;

/// Whether pictures are wanted: then more happens, so that there is something to be seen.
fn folder() -> Option<String> {
    std::env::var("FORTNIGHT_SCREENSHOTS").ok()
}

/// The page says so, can be read by everybody on every screen, and has its picture taken if that is wanted.
fn show(browser: &mut Browser, name: &str, sentence: &str) {
    browser.wait_for(&format!("document.getElementById('state').textContent === '{sentence}'"));
    for (width, height, scheme) in [(390, 844, "dark"), (1280, 900, "dark"), (1280, 900, "light")] {
        browser.look(width, height, scheme);
        browser.wait_for(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
        // Nothing is wider than the screen.
        let wide = format!(
            "[innerWidth, ...[...document.querySelectorAll('body *')].filter((at) => at.getBoundingClientRect().right > {width} \
             && !at.closest('.wide')).map((at) => `${{at.tagName}} ${{at.id}} ${{at.textContent.slice(0, 80)}}`)].join()"
        );
        let deadline = Instant::now() + support::DEADLINE;
        while browser.evaluate(&wide).as_str() != Some(&width.to_string()) {
            assert!(Instant::now() < deadline, "{name}, {width}: {}", browser.evaluate(&wide));
            thread::sleep(Duration::from_millis(50));
        }
        browser.wait_for(&format!("document.documentElement.scrollWidth <= {width}"));
        // Nor is a table cut.
        let cut = "[...document.querySelectorAll('.wide')].filter((at) => at.scrollWidth > at.clientWidth).map((at) => at.innerText)";
        assert_eq!(browser.evaluate(cut), Value::Array(Vec::new()), "{name}, {width}");
        assert_eq!(browser.evaluate(POOR_CONTRAST), Value::Array(Vec::new()), "{name}, {width}, {scheme}");
        let is_wanted = scheme == "light" || name == "load";
        if let Some(folder) = folder().filter(|_| is_wanted) {
            let look = match (width, scheme) {
                (390, _) => "-phone",
                (_, "dark") => "-dark",
                _ => "",
            };
            picture(browser, &Path::new(&folder).join(format!("{name}{look}.webp")), width);
        }
    }
    expect_no_complaints(browser);
}

fn picture(browser: &mut Browser, path: &Path, width: u32) {
    // What has just changed its size is drawn within a refresh.
    thread::sleep(Duration::from_millis(1500));
    let height = browser.evaluate("document.documentElement.scrollHeight");
    let clip = json!({"x": 0, "y": 0, "width": width, "height": height, "scale": 1});
    let wanted = json!({"format": "webp", "quality": 82, "captureBeyondViewport": true, "clip": clip});
    let taken = browser.call("Page.captureScreenshot", wanted);
    let bytes = BASE64.decode(taken["data"].as_str().unwrap().as_bytes()).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// How much happens under load.
#[derive(Clone, Copy)]
struct Load {
    users: u64,
    /// Events that are sent at once, on average.
    events: f64,
    /// The time from one sending to the next.
    every: Duration,
}

impl Load {
    /// A picture shows a busy server. A test leaves the machine to the others.
    fn new() -> Load {
        match folder() {
            Some(_) => Load { users: 200, events: 450.0, every: Duration::from_millis(5) },
            None => Load { users: 60, events: 400.0, every: Duration::from_millis(20) },
        }
    }
}

/// Events of all types, a little out of order, for as long as `goes_on`.
fn send_all_types(mut source: Source, Load { users, events, every }: Load, goes_on: &AtomicBool) {
    let mut random = Random::new(7);
    let mut next: u64 = 1;
    let (began, mut due) = (Instant::now(), Instant::now());
    while goes_on.load(Ordering::Relaxed) {
        let swell = 1.0 + 0.4 * (began.elapsed().as_secs_f64() / 8.0).sin();
        let mut lines: Vec<String> = (0..(events * swell) as u64)
            .map(|step| {
                let (from, to) = (1 + random.below(users), 1 + random.below(users).min(random.below(users)));
                match random.below(100) {
                    0 => format!("{}|B\n", next + step),
                    1..20 => format!("{}|F|{from}|{to}\n", next + step),
                    20..25 => format!("{}|U|{from}|{to}\n", next + step),
                    25..60 => format!("{}|P|{from}|{to}\n", next + step),
                    _ => format!("{}|S|{to}\n", next + step),
                }
            })
            .collect();
        next += lines.len() as u64;
        for pair in lines.chunks_exact_mut(2).step_by(3) {
            pair.swap(0, 1);
        }
        source.send(lines.concat());
        // What is late is not made up for: it would come all at once.
        due = Instant::now().max(due + every);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

/// Users that read until their connections end.
fn read_all(users: Vec<User>) -> Vec<thread::JoinHandle<()>> {
    users.into_iter().map(|mut user| thread::spawn(move || read_off(&mut user))).collect()
}

/// Ends what goes on, also if the test fails.
struct Until<'a>(&'a AtomicBool);

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// Nothing of it is kept: it may be much.
fn read_off(user: &mut User) {
    let mut target = vec![0; 1 << 16];
    while user.read_some(&mut target).is_some_and(|length| length > 0) {}
}

fn wait_while_pictures_are_taken(seconds: u64) {
    if folder().is_some() {
        thread::sleep(Duration::from_secs(seconds));
    }
}

#[test]
fn idle() {
    let server = server!(adminPort = 0);
    let Some(mut browser) = browse(&server) else { return };
    show(&mut browser, "idle", "No event source is connected.");
    let _source = server.source();
    browser.wait_for("document.getElementById('state').textContent === 'All is well, and quiet.'");
}

#[test]
fn under_load() {
    let load = Load::new();
    let server = server!(adminPort = 0, maxUserClients = load.users, eventTimeoutMs = 5000);
    let Some(mut browser) = browse(&server) else { return };
    let readers = read_all((1..=load.users).map(|id| server.user(id)).collect());
    let source = server.source();
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let _until = Until(&goes_on);
        scope.spawn(|| send_all_types(source, load, &goes_on));
        wait_while_pictures_are_taken(100);
        show(&mut browser, "load", "All is well. Events flow.");
        browser.wait_for("document.querySelectorAll('#user-list tbody tr').length === 12");
        let shown = format!("The 12 users that stand out most, of {}.", load.users);
        browser
            .wait_for(&format!("document.getElementById('users-shown').textContent.startsWith('{shown}')"));
    });
    drop(server);
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn a_hole() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    let (_user, mut source) = (server.user(1), server.source());
    source.send("1|B\n2|B\n4|B\n5|B\n6|B\n");
    browser.wait_for("/^Have a source send number 3/.test(document.getElementById('remedy').textContent)");
    browser.wait_for("/^Number 3 has been missing for .* 3 events wait/.test(document.getElementById('detail').textContent)");
    show(&mut browser, "hole", "Events wait for a missing one.");
    // The health check passes; that is no praise.
    let pill =
        "document.getElementById('health').textContent + ', ' + document.getElementById('health').className";
    assert_eq!(browser.evaluate(pill), "health check passes, pill ");
    assert_eq!(server.get("/healthz").status, 200);
    // What was missing comes: all is well again.
    source.send("3|B\n");
    browser.wait_for("document.getElementById('banner').className.includes('good')");
    assert_eq!(browser.evaluate(pill), "healthy, pill good");
}

#[test]
fn slow_users() {
    let server =
        server!(adminPort = 0, eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let Some(mut browser) = browse(&server) else { return };
    let slow = (server.narrow_user(77), server.narrow_user(78));
    let readers = read_all((1..=5).map(|id| server.user(id)).collect());
    let source = server.source();
    let writer = source.send_in_background(long_broadcasts(1..=32_000, 1000));
    browser.wait_for("/^They wait for user 7[78] with /.test(document.getElementById('detail').textContent)");
    show(&mut browser, "slow-users", "Sources are held up by slow users.");
    drop((server, slow, source));
    let _ = writer.join().unwrap();
    for reader in readers {
        reader.join().unwrap();
    }
}

#[test]
fn catching_up() {
    let folder = std::env::temp_dir().join(format!("fortnight-page-catching-up-{}", std::process::id()));
    let server: Server = server!(
        adminPort = 0,
        eventTimeoutMs = -1,
        journalDirectory = folder.display(),
        userBufferBytes = 65_536,
        slowUserTimeoutMs = 600_000
    );
    let Some(mut browser) = browse(&server) else { return };
    let mut source = server.source();
    source.send(long_broadcasts(1..=20_000, 1000));
    server.wait_for_metric("fortnight_cursor", |cursor| cursor == 20_001.0);
    // It reads nothing for now.
    let mut away = server.stranger();
    away.send("6|oldest\n");
    browser.wait_for("Number(document.getElementById('catching_up').value) > 0");
    browser
        .wait_for("/^1 user is served from the journal/.test(document.getElementById('detail').textContent)");
    show(&mut browser, "catching-up", "All is well. Some users catch up.");
    drop((away, server));
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn an_edge_without_its_stream() {
    let upstream = server!(adminPort = 0, streamPort = 0);
    let edge = server!(adminPort = 0, role = "edge", stream = format!("tcp://{}", upstream.stream()));
    let Some(mut browser) = browse(&edge) else { return };
    let _user = edge.user(1);
    browser.wait_for("document.getElementById('stream-state').textContent.startsWith('up')");
    upstream.stop();
    browser.wait_for("/has not been reached for/.test(document.getElementById('detail').textContent)");
    show(&mut browser, "edge-alone", "The stream is away.");
    // What is 0 and says nothing is not there.
    let zeros = "[...document.querySelectorAll('dl > div')].filter((at) => at.checkVisibility() && /^0( |$)/.test(at.querySelector('dd').textContent)).map((at) => at.textContent)";
    assert_eq!(browser.evaluate(zeros), Value::Array(Vec::new()));
    let hidden = "['source-card', 'releases', 'ring-row'].every((id) => !document.getElementById(id).checkVisibility())";
    browser.wait_for(hidden);
}

#[test]
fn a_sequencer_whose_stream_does_not_confirm() {
    let Some(nats) = Nats::start(1) else { return };
    let server = server!(
        adminPort = 0,
        role = "sequencer",
        stream = nats.stream("held"),
        streamReplicas = 1,
        streamRetentionBytes = 64 << 20,
        streamTakeoverMs = 60_000,
        eventTimeoutMs = -1
    );
    server.wait_for_log("this sequencer leads");
    let Some(mut browser) = browse(&server) else { return };
    let mut source = server.source();
    source.send("1|B\n");
    server.wait_for_metric("fortnight_stream_cursor", |cursor| cursor == 2.0);
    let goes_on = AtomicBool::new(true);
    thread::scope(|scope| {
        let _until = Until(&goes_on);
        // Most of the time it stands still, as on a disk that is far too slow. It is never away.
        scope.spawn(|| {
            while goes_on.load(Ordering::Relaxed) {
                nats.signal(0, Signal::STOP);
                thread::sleep(Duration::from_millis(1300));
                nats.signal(0, Signal::CONT);
                thread::sleep(Duration::from_millis(100));
            }
        });
        scope.spawn(|| {
            for number in (2..).take_while(|_| goes_on.load(Ordering::Relaxed)) {
                source.send(format!("{number}|B\n"));
                thread::sleep(Duration::from_millis(10));
            }
        });
        browser.wait_for("/ has confirmed every number below [0-9,]+, /.test(document.getElementById('detail').textContent)");
        browser.wait_for("document.getElementById('paused-stream').checkVisibility()");
        wait_while_pictures_are_taken(10);
        show(&mut browser, "stream-lags", "Sources wait for the stream.");
    });
    browser.wait_for("document.getElementById('banner').className.includes('good')");
}
