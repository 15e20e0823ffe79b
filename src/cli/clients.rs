//! `fortnight clients`: the connections of a running server, sources first.

use std::{cmp::Reverse, ffi::OsString, thread::sleep, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde::{Deserialize, Serialize};

use super::{
    admin,
    exit::{Exit, refuse},
    format::{bytes, grouped, span},
    output::{DIFFERENT, complain, print},
    value::{AnyValue, flag},
};
use crate::http_client::{AdminUrl, ask};

pub(super) const NAME: &str = "clients";
const SORT: &str = "sort";
const LIMIT: &str = "limit";
const JSON: &str = "json";

/// Words that [`SORT`] accepts.
const ORDERS: [&str; 6] = ["rate", "waiting", "behind", "bytes", "age", "id"];
const EXPECTED_ORDER: &str = "rate, waiting, behind, bytes, age or id";
const EXPECTED_LIMIT: &str = "a number of users, 1 or more";
/// The server is asked twice, this far apart: so it knows how fast everybody is now.
const BETWEEN: Duration = Duration::from_secs(1);

/// What `fortnight clients` is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clients {
    admin: AdminUrl,
    order: &'static str,
    limit: usize,
    as_json: bool,
}

pub(super) fn command() -> Command {
    Command::new(NAME)
        .about("List a running server's event sources and users, with what each takes and what waits for it")
        .long_about(
            "List a running server's event sources and users, with what each takes and what waits for it. \
             It takes a second: the server is asked twice, so that it knows how fast everybody is now.",
        )
        .after_help("Exit status: 0, 1 if the server cannot be asked, 2 if a value is not accepted.")
        .args(admin::arguments())
        .arg(flag(SORT).value_name("BY").value_parser(AnyValue { choices: &ORDERS }).help(
            "Which users come first: rate (bytes a second), waiting, behind, bytes, age or id; default: rate",
        ))
        .arg(flag(LIMIT).value_name("N").help("List so many users at most; default: all"))
        .arg(Arg::new(JSON).long(JSON).action(ArgAction::SetTrue).help("Print JSON, for programs"))
}

/// The accepted values of a flag of this subcommand.
pub(super) fn expected(flag: &str) -> Option<&'static str> {
    match flag {
        "--sort" => Some(EXPECTED_ORDER),
        "--limit" => Some(EXPECTED_LIMIT),
        _ => None,
    }
}

impl Clients {
    pub(super) fn from_matches(
        matches: &ArgMatches,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Exit> {
        let order = match matches.get_one::<OsString>(SORT) {
            None => ORDERS[0],
            Some(word) => *ORDERS
                .iter()
                .find(|order| word == **order)
                .ok_or_else(|| refuse("--sort", word, EXPECTED_ORDER))?,
        };
        let limit = match matches.get_one::<OsString>(LIMIT) {
            None => usize::MAX,
            Some(word) => word
                .to_str()
                .and_then(|word| word.parse().ok())
                .filter(|&limit| limit > 0)
                .ok_or_else(|| refuse("--limit", word, EXPECTED_LIMIT))?,
        };
        Ok(Self { admin: admin::url(matches, variable)?, order, limit, as_json: matches.get_flag(JSON) })
    }
}

/// A page of `/clients.json`, or all of them together.
#[derive(Debug, Default, Deserialize, Serialize)]
struct Answer {
    sources: Vec<Source>,
    users: Vec<User>,
    #[serde(skip_serializing)]
    next: Option<usize>,
}

#[derive(Debug, Deserialize, Serialize)]
struct Source {
    peer: String,
    name: Option<String>,
    age_us: u64,
    silent_for_us: Option<u64>,
    bytes: u64,
    lines: u64,
    byte_rate: u64,
    line_rate: u64,
    waits_with: Option<String>,
    has_finished: bool,
}

#[derive(Debug, Deserialize, Serialize)]
struct User {
    id: Option<String>,
    peer: String,
    age_us: u64,
    bytes: u64,
    byte_rate: u64,
    waiting_bytes: u64,
    behind: Option<String>,
    is_slow: bool,
}

impl User {
    fn behind(&self) -> u128 {
        self.behind.as_deref().and_then(|behind| behind.parse().ok()).unwrap_or(0)
    }

    fn number(&self) -> u64 {
        self.id.as_deref().and_then(|id| id.parse().ok()).unwrap_or(u64::MAX)
    }
}

/// Asks, and prints. Returns the exit status.
#[must_use]
pub(crate) fn run(options: &Clients) -> u8 {
    let answer = all(&options.admin).and_then(|_| {
        sleep(BETWEEN);
        all(&options.admin)
    });
    match answer {
        Ok(answer) => print(&text(answer, options)),
        Err(sentence) => complain(DIFFERENT, &format!("{}/clients.json: {sentence}", options.admin)),
    }
}

/// All pages.
fn all(admin: &AdminUrl) -> Result<Answer, String> {
    let mut all = Answer::default();
    let mut from = Some(0);
    while let Some(place) = from {
        let answer = ask(admin, &format!("/clients.json?from={place}"))?;
        if answer.status != 200 {
            return Err(format!("status {}; is it a server of this version?", answer.status));
        }
        let page: Answer = serde_json::from_slice(&answer.body)
            .map_err(|_| "what answers is no admin interface of this version".to_owned())?;
        all.sources.extend(page.sources);
        all.users.extend(page.users);
        // A server that goes in circles is none.
        from = page.next.filter(|&next| next > place);
    }
    Ok(all)
}

fn text(mut answer: Answer, options: &Clients) -> String {
    let users = &mut answer.users;
    match options.order {
        "waiting" => users.sort_by_key(|user| Reverse(user.waiting_bytes)),
        "behind" => users.sort_by_key(|user| Reverse(user.behind())),
        "bytes" => users.sort_by_key(|user| Reverse(user.bytes)),
        "age" => users.sort_by_key(|user| Reverse(user.age_us)),
        "id" => users.sort_by_key(User::number),
        _ => users.sort_by_key(|user| Reverse(user.byte_rate)),
    }
    let left_out = users.len().saturating_sub(options.limit);
    users.truncate(options.limit);
    if options.as_json {
        return serde_json::to_string_pretty(&answer).unwrap_or_default() + "\n";
    }
    let mut text = table(
        ["SOURCE", "NAME", "EVENTS/S", "BYTES/S", "EVENTS", "BYTES", "CONNECTED", "HEARD"],
        answer.sources.iter().map(source_cells),
    );
    text += "\n";
    text += &table(
        ["USER", "FROM", "BYTES/S", "WAITING", "BEHIND", "BYTES", "CONNECTED", "STATE"],
        answer.users.iter().map(user_cells),
    );
    if left_out > 0 {
        text += &format!("and {} more\n", grouped(&left_out));
    }
    text
}

fn micros(time: u64) -> String {
    span(Duration::from_micros(time))
}

fn source_cells(source: &Source) -> [String; 8] {
    let heard = match (&source.waits_with, source.silent_for_us) {
        (Some(number), _) => format!("waits with {}", grouped(number)),
        _ if source.has_finished => "has finished".to_owned(),
        (None, None) => "never".to_owned(),
        (None, Some(silence)) => format!("{} ago", micros(silence)),
    };
    [
        source.peer.clone(),
        source.name.clone().unwrap_or_else(|| "-".to_owned()),
        grouped(&source.line_rate),
        bytes(source.byte_rate),
        grouped(&source.lines),
        bytes(source.bytes),
        micros(source.age_us),
        heard,
    ]
}

fn user_cells(user: &User) -> [String; 8] {
    let state = match (&user.id, user.is_slow, user.behind()) {
        (None, ..) => "logs in",
        (_, true, _) => "holds up all",
        (_, _, 1..) => "catches up",
        _ => "live",
    };
    [
        user.id.clone().unwrap_or_else(|| "-".to_owned()),
        user.peer.clone(),
        bytes(user.byte_rate),
        bytes(user.waiting_bytes),
        grouped(&user.behind()),
        bytes(user.bytes),
        micros(user.age_us),
        state.to_owned(),
    ]
}

/// Lines of columns that are as wide as they have to be: the first two and the last begin at the left, the others end at the right.
fn table<const N: usize>(head: [&str; N], rows: impl Iterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(str::to_owned)];
    lines.extend(rows.map(|row| row.map(|cell| printable(&cell))));
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate().map(|(column, (cell, &width))| {
            if column < 2 || column == N - 1 { format!("{cell:<width$}") } else { format!("{cell:>width$}") }
        });
        text += cells.collect::<Vec<_>>().join("  ").trim_end();
        text.push('\n');
    }
    text
}

/// A name that a client has chosen, without what would command a terminal.
fn printable(text: &str) -> String {
    text.chars().map(|letter| if letter.is_control() { '?' } else { letter }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(id: &str, byte_rate: u64, waiting_bytes: u64) -> User {
        let peer = "192.0.2.1:5".to_owned();
        let id = Some(id.to_owned());
        User {
            id,
            peer,
            age_us: 61_000_000,
            bytes: 1536,
            byte_rate,
            waiting_bytes,
            behind: None,
            is_slow: false,
        }
    }

    fn listed(order: &'static str, limit: usize) -> String {
        let answer = Answer {
            users: vec![user("7", 5, 0), user("10", 0, 2048), user("9", 9, 1)],
            ..Answer::default()
        };
        let admin = "http://127.0.0.1:9095".parse().unwrap();
        text(answer, &Clients { admin, order, limit, as_json: false })
    }

    #[test]
    fn users_stand_in_the_order_that_was_asked_for() {
        let ids = |text: &str| -> Vec<String> {
            let lines = text.lines().skip_while(|line| !line.starts_with("USER")).skip(1);
            lines.filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect()
        };
        assert_eq!(ids(&listed("rate", 10)), ["9", "7", "10"]);
        assert_eq!(ids(&listed("waiting", 10)), ["10", "9", "7"]);
        assert_eq!(ids(&listed("id", 2)), ["7", "9", "and"]);
    }

    #[test]
    fn columns_are_as_wide_as_they_have_to_be() {
        let text = listed("id", 1);
        let users = text.split_once("\n\n").unwrap().1;
        assert_eq!(
            users,
            "USER  FROM         BYTES/S  WAITING  BEHIND    BYTES   CONNECTED  STATE\n\
             7     192.0.2.1:5      5 B      0 B       0  1.5 KiB  1 min 01 s  live\n\
             and 2 more\n"
        );
    }

    #[test]
    fn names_command_no_terminal() {
        assert_eq!(printable("a\u{1b}[2J"), "a?[2J");
    }
}
