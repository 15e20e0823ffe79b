//! How it is going: what, why, and what to do. The status page says the same (`src/admin/status.html`).

use super::model::{Model, Pause, Series, Status, Stream};
use crate::{
    admin::Health,
    cli::format::{bytes, grouped, span},
    engine::event::Reject,
};
use ratatui::style::Color;
use std::time::{Duration, Instant};

/// A wait that is no longer than this is ordinary: events overtake one another all the time.
pub(super) const ORDINARY_US: u64 = 500_000;
/// A missing event is trouble from then on.
pub(super) const TROUBLE_US: u64 = 2_000_000;
/// Slow users that are named.
const NAMED: usize = 3;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Verdict {
    pub(super) colour: Color,
    /// One sentence.
    pub(super) what: String,
    /// Empty: there is nothing to be said.
    pub(super) cause: String,
    pub(super) remedy: String,
}

fn verdict(
    colour: Color,
    what: impl Into<String>,
    cause: impl Into<String>,
    remedy: impl Into<String>,
) -> Verdict {
    Verdict { colour, what: what.into(), cause: cause.into(), remedy: remedy.into() }
}

impl Verdict {
    /// How the server is.
    pub(super) fn of(model: &Model, now: Instant) -> Self {
        if let Some(failure) = &model.failure {
            let heard = model.heard_at.map_or_else(String::new, |at| {
                format!(" It was heard of {} ago.", span(now.saturating_duration_since(at)))
            });
            let what = format!("The server cannot be reached: {failure}.");
            return verdict(Color::Red, what, format!("It is asked again every second.{heard}"), "");
        }
        let Some(status) = &model.status else {
            return verdict(Color::Reset, "Asking the server.", "", "");
        };
        ill(status)
            .or_else(|| held_up(status))
            .or_else(|| missing_for_long(status))
            .or_else(|| troubled(model))
            .unwrap_or_else(|| well(model, status))
    }
}

/// The server cannot do all of its work.
fn ill(status: &Status) -> Option<Verdict> {
    let cursor = grouped(&status.cursor);
    if status.health == Health::ShuttingDown.sentence() {
        let cause = "What is owed to users is written, for a limited time.";
        return Some(verdict(Color::Yellow, "The server is shutting down.", cause, ""));
    }
    if let Some(journal) = status.journal.as_ref().filter(|journal| !journal.stall.is_empty()) {
        let cause = format!(
            "{}. Sources are not read until there is room; it is tried again every second.",
            journal.stall
        );
        let remedy =
            "Make room on the disk of journalDirectory, or let less be kept (journalRetentionBytes).";
        return Some(verdict(Color::Red, "The journal cannot be written.", cause, remedy));
    }
    if status.health == Health::RingFull.sentence() {
        let cause = format!("Number {cursor} is missing; {}.", waiting_sources(status));
        let patience = status.option("eventTimeoutMs");
        let given_up = if patience.starts_with('-') { "never" } else { "not" };
        let remedy = format!(
            "Have a source send number {cursor}. With eventTimeoutMs={patience} it is {given_up} given up."
        );
        let what = "The ring is full, and every source waits for a missing event.";
        return Some(verdict(Color::Red, what, cause, remedy));
    }
    if let Some((stream, away)) =
        status.stream.as_ref().and_then(|stream| Some((stream, stream.away_for_us?)))
    {
        let cause = format!(
            "{} has not been reached for {}. Users keep their connections and are sent nothing new.",
            stream.address,
            micros(away)
        );
        let remedy = "Look at the server that hands out the stream, and at the network between. This server \
                      connects again by itself.";
        return Some(verdict(Color::Red, "The stream is away.", cause, remedy));
    }
    if status.health != Health::Ok.sentence() {
        let remedy = if status.health == Health::SourcesSilent.sentence() {
            "End the sources that are silent, or raise maxEventSourceClients."
        } else {
            ""
        };
        let cause = format!("Its health check says: {}.", status.health);
        return Some(verdict(Color::Red, "The server cannot do all of its work.", cause, remedy));
    }
    None
}

fn waiting_sources(status: &Status) -> String {
    let waits = status.people.sources.iter().filter_map(|source| {
        let number = source.waits_with.as_ref()?;
        let who = source.name.as_ref().unwrap_or(&source.peer);
        Some(format!("{who} waits with number {}", grouped(number)))
    });
    let waits: Vec<_> = waits.collect();
    if waits.is_empty() { "sources have no room for more".to_owned() } else { waits.join(", ") }
}

/// Sources are not read, for longer than is ordinary.
fn held_up(status: &Status) -> Option<Verdict> {
    let pause = status.pauses.iter().find(|pause| pause.paused_for_us > ORDINARY_US)?;
    let Pause { reason, paused_for_us, .. } = pause;
    let paused = micros(*paused_for_us);
    let (what, cause, remedy) = match reason.as_str() {
        "slow_user" => return Some(slow_users(status)),
        "ring_full" => {
            let cause =
                format!("Number {} is missing; {}.", grouped(&status.cursor), waiting_sources(status));
            let remedy = "If this comes often, raise reorderCapacity, or look for a source that lags.";
            ("A source waits for room in the ring.", cause, remedy)
        }
        "journal" => {
            let cause = format!("Sources have not been read for {paused}, until the disk has taken more.");
            let remedy = "Look at the disk of journalDirectory: whether it is slow, or others write to it.";
            ("Sources wait for the journal.", cause, remedy)
        }
        _ => {
            let cause = format!("Sources have not been read for {paused}, until the stream has taken more.");
            ("Sources wait for the stream.", cause, "Look at the servers that keep the stream.")
        }
    };
    Some(verdict(Color::Yellow, what, cause, remedy))
}

fn slow_users(status: &Status) -> Verdict {
    let named = status.slow.iter().take(NAMED).map(|user| {
        let waiting = bytes(user.buffered_bytes);
        format!("user {} with {waiting} waiting for {}", user.id, micros(user.slow_for_us))
    });
    let named: Vec<_> = named.collect();
    let others = match status.slow_users.saturating_sub(named.len() as u64) {
        0 => String::new(),
        others => format!(" and {} more", grouped(&others)),
    };
    let cause =
        if named.is_empty() { String::new() } else { format!("They wait for {}{others}.", named.join(", ")) };
    let timeout = Duration::from_millis(status.option("slowUserTimeoutMs").parse().unwrap_or_default());
    let remedy = format!(
        "Nothing, if it passes: whoever does not catch up within {} is cut off. A journal (journalDirectory) or \
         slowUserPolicy=disconnect lets nobody hold up the others.",
        span(timeout)
    );
    verdict(Color::Yellow, "Sources are held up by slow users.", cause, remedy)
}

fn missing_for_long(status: &Status) -> Option<Verdict> {
    let hole = status.hole.as_ref().filter(|hole| hole.waited_us > TROUBLE_US)?;
    let cursor = grouped(&status.cursor);
    let (end, remedy) = match hole.given_up_in_us {
        Some(left) => (format!("It is given up in {}.", micros(left)), String::new()),
        None => (
            "It is not given up by itself.".to_owned(),
            format!("Have a source send number {cursor}, or set eventTimeoutMs to 0 or more."),
        ),
    };
    let behind = match status.waiting {
        1 => "1 event waits".to_owned(),
        waiting => format!("{} events wait", grouped(&waiting)),
    };
    let waited = micros(hole.waited_us);
    let cause = format!("Number {cursor} has been missing for {waited}; {behind} behind it. {end}");
    Some(verdict(Color::Yellow, "Events wait for a missing one.", cause, remedy))
}

/// Something that should not happen has happened in the last seconds.
fn troubled(model: &Model) -> Option<Verdict> {
    let rejected = Reject::ALL.iter().filter_map(|reason| {
        let count = model.lately(|status| status.rejected.get(reason.name()).copied().unwrap_or_default());
        (count > 0).then(|| format!("{} {}", grouped(&count), reason.name().replace('_', " ")))
    });
    let rejected: Vec<_> = rejected.collect();
    if !rejected.is_empty() {
        let cause = format!("Of late: {}.", rejected.join(", "));
        let remedy = "Look at the warnings (key o): they have the text of such lines and say who sent them.";
        return Some(verdict(Color::Yellow, "Lines that are no events are rejected.", cause, remedy));
    }
    (model.lately(|status| status.late) > 0).then(|| {
        let cause = "Their numbers had been given up, or had been released before.";
        let remedy = "Raise eventTimeoutMs if a source lags. A source that begins anew needs a new number to \
                      begin with, or resetOnSourceEof.";
        verdict(Color::Yellow, "Events come too late and are dropped.", cause, remedy)
    })
}

/// There is no reason to worry.
fn well(model: &Model, status: &Status) -> Verdict {
    let flowing = model.rate(Series::Released) > 0.0;
    let good = |what, cause: String| verdict(Color::Green, what, cause, "");
    let waits = status.hole.as_ref().filter(|hole| !flowing || hole.waited_us > ORDINARY_US);
    if let Some(hole) = waits {
        let cause =
            format!("Number {} has been missing for {}.", grouped(&status.cursor), micros(hole.waited_us));
        return verdict(Color::Reset, "Events wait for a missing one.", cause, "");
    }
    if status.catching_up > 0 {
        let (who, holds) = match status.catching_up {
            1 => ("1 user is".to_owned(), "holds"),
            users => (format!("{} users are", grouped(&users)), "hold"),
        };
        let cause = format!(
            "{who} served from the journal and {holds} up nobody. The farthest is {} numbers behind.",
            grouped(&status.farthest_behind)
        );
        return good("All is well. Some users catch up.", cause);
    }
    if flowing {
        return good("All is well. Events flow.", String::new());
    }
    match &status.stream {
        Some(Stream { leads: Some(false), .. }) => {
            let cause = "Another one leads. This one takes over when that is gone.";
            good("All is well. This sequencer stands by.", cause.to_owned())
        }
        Some(_) => good("All is well. Nothing comes from the stream.", String::new()),
        None if status.sources == 0 => {
            let port = status.option("eventSourceServerPort");
            let cause = format!("Nothing can be released until one connects to port {port}.");
            verdict(Color::Reset, "No event source is connected.", cause, "")
        }
        None => good(
            "All is well, and quiet.",
            "Sources are connected, and there is nothing to release.".to_owned(),
        ),
    }
}

fn micros(time: u64) -> String {
    span(Duration::from_micros(time))
}
