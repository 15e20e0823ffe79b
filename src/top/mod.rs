//! `fortnight top`: what the status page shows, in a terminal (SPEC section 6).
//!
//! One loop, without threads. Keys, signals and the socket are looked at in turn, and none is waited for longer than a
//! [`TICK`]. [`Fetch`] asks the server, [`model`] keeps the answers, [`view`] draws them.

mod model;
mod options;
mod order;
mod people;
mod verdict;
mod view;

use crate::http_client::{AdminUrl, Answer, Fetch};
use model::{Model, Shown};
use order::Order;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM},
    low_level::pipe,
};
use std::{
    io::{self, IsTerminal, Read, Write},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::{Duration, Instant},
};

/// Longest wait for a key before everything else gets a look.
const TICK: Duration = Duration::from_millis(50);
/// Time between two questions.
const PERIOD: Duration = Duration::from_secs(1);

/// Shows the server's numbers until the user has seen enough.
pub(crate) fn run(admin: &AdminUrl) -> ExitCode {
    if !io::stdin().is_terminal() || !io::stdout().is_terminal() {
        let _ = writeln!(
            io::stderr(),
            "fortnight: top needs a terminal; for scripts there are {admin}/metrics and {admin}/status.json"
        );
        return ExitCode::from(2);
    }
    let outcome = signals().and_then(|signals| {
        // From here on a panic restores the terminal too.
        let mut terminal = ratatui::try_init()?;
        let outcome = watch(&mut terminal, signals, admin);
        ratatui::try_restore()?;
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(io::stderr(), "fortnight: top: the terminal failed: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Has a byte for every signal that ends the program. The program then ends as it does by a key, and leaves the
/// terminal in order.
fn signals() -> io::Result<UnixStream> {
    let (reader, writer) = UnixStream::pair()?;
    reader.set_nonblocking(true)?;
    for signal in [SIGTERM, SIGINT, SIGHUP, SIGQUIT] {
        pipe::register(signal, writer.try_clone()?)?;
    }
    Ok(reader)
}

fn watch(terminal: &mut DefaultTerminal, mut signals: UnixStream, admin: &AdminUrl) -> io::Result<()> {
    let mut model = Model::new(admin.to_string());
    let mut fetch: Option<Fetch> = None;
    let mut ask_at = Instant::now();
    loop {
        terminal.draw(|frame| view::draw(frame, &model, Instant::now()))?;
        match wait_for_key()? {
            Keys::None => {}
            Keys::Some => {
                while event::poll(Duration::ZERO)? {
                    let event = event::read()?;
                    if is_enough(&event) {
                        return Ok(());
                    }
                    heed(&event, &mut model);
                }
            }
            Keys::Gone => return Ok(()),
        }
        if signals.read(&mut [0]).is_ok() {
            return Ok(());
        }
        let now = Instant::now();
        if let Some(asking) = &mut fetch
            && let Some(outcome) = asking.step(now)
        {
            // After the history comes the present, at once.
            ask_at = if asking.path == model::HISTORY && outcome.is_ok() { now } else { ask_at + PERIOD };
            model.take(&asking.path, outcome.and_then(body), now);
            fetch = None;
        }
        if fetch.is_none() && now >= ask_at {
            ask_at = ask_at.max(now - TICK);
            fetch = Some(Fetch::new(admin, model.next_question(), now));
        }
    }
}

/// The body of an answer that has what was asked for.
fn body(answer: Answer) -> Result<Vec<u8>, String> {
    match answer.status {
        200 => Ok(answer.body),
        status => Err(format!("it answers with status {status}")),
    }
}

/// Keys that change what is shown.
fn heed(event: &Event, model: &mut Model) {
    let Event::Key(key) = event else { return };
    let KeyCode::Char(letter) = key.code else { return };
    if key.kind != KeyEventKind::Press {
        return;
    }
    match letter {
        'c' => model.show(Shown::People),
        'o' => model.show(Shown::Options),
        _ if model.shown == Shown::People => {
            if let Some(order) = Order::of_key(letter) {
                model.sort_by(order);
            }
        }
        _ => {}
    }
}

/// Input from the keyboard.
enum Keys {
    None,
    Some,
    /// The terminal has gone. It must not be read any more: crossterm would wait for a key for ever.
    Gone,
}

/// Waits for a key, for a [`TICK`] at most.
fn wait_for_key() -> io::Result<Keys> {
    let stdin = io::stdin();
    let mut waiting = [PollFd::new(&stdin, PollFlags::IN)];
    let tick = Timespec { tv_sec: 0, tv_nsec: i64::from(TICK.subsec_nanos()) };
    match poll(&mut waiting, Some(&tick)) {
        Ok(0) | Err(Errno::INTR) => Ok(Keys::None),
        Ok(_) if waiting[0].revents().intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) => {
            Ok(Keys::Gone)
        }
        Ok(_) => Ok(Keys::Some),
        Err(error) => Err(error.into()),
    }
}

fn is_enough(event: &Event) -> bool {
    let Event::Key(key) = event else { return false };
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (control_c || matches!(key.code, KeyCode::Char('q' | 'Q') | KeyCode::Esc))
}
