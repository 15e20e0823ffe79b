//! A trace for people to read.

use super::{
    reader::{Reader, TraceError},
    record::{Action, ConnectionId, Machine, OPTIONS, Record},
    text::escaped,
};
use crate::{
    config::Config,
    engine::event::{Event, Kind, parse_line},
    options,
    resume::{Login, Start},
    time::Micros,
};
use hashbrown::HashMap;
use std::io::{self, Read, Write};

/// Longest line that is shown in full. The column of lines is so wide.
const LINE_BYTES: usize = 100;
const LINE_WIDTH: usize = 28;
/// Bytes of an unfinished line that are kept to explain it.
const OPEN_BYTES_MAX: usize = 1 << 20;

/// Writes the trace as a timeline. A row has the time, the time since the row before, the connection, the record, and
/// its meaning.
///
/// # Errors
///
/// If `output` cannot be written to; inside, if the trace is damaged. Up to there it is shown.
pub fn show(input: impl Read, output: &mut impl Write) -> io::Result<Result<(), TraceError>> {
    let mut reader = match Reader::new(input) {
        Ok(reader) => reader,
        Err(error) => return Ok(Err(error)),
    };
    show_options(reader.config(), output)?;
    let mut timeline = Timeline { last_at: 0, open: HashMap::new() };
    let mut data = Vec::new();
    loop {
        match reader.next(&mut data) {
            Ok(Some((at, record))) => timeline.show(at, record, &data, output)?,
            outcome => {
                output.flush()?;
                return Ok(outcome.map(|_| ()));
            }
        }
    }
}

/// The options that have not their defaults.
fn show_options(config: &Config, output: &mut impl Write) -> io::Result<()> {
    for name in OPTIONS {
        let value = options::get(config, name);
        if value != options::get(&Config::default(), name) {
            writeln!(output, "option {name} {}", value.unwrap_or_default())?;
        }
    }
    Ok(())
}

struct Timeline {
    last_at: Micros,
    /// The beginning of a line that each connection has sent. After a user's login nothing is kept.
    open: HashMap<ConnectionId, Open>,
}

#[derive(Default)]
struct Open {
    line: Vec<u8>,
    /// Its first line has come.
    has_begun: bool,
}

impl Timeline {
    fn show(&mut self, at: Micros, record: Record, data: &[u8], output: &mut impl Write) -> io::Result<()> {
        let since = at - self.last_at;
        self.last_at = at;
        let since = if since == 0 { String::new() } else { format!("+{}", seconds(since)) };
        write!(output, "{:>14} {since:>14}  ", seconds(at))?;
        let (id, action) = match record {
            Record::Signal => return writeln!(output, "the server is told to end"),
            Record::Machine(what) => return writeln!(output, "{}", explain_machine(what)),
            Record::Connection { id, action } => (id, action),
        };
        write!(output, "{:<12} ", id.to_string())?;
        match action {
            Action::Sends => {
                writeln!(output, "sends {} bytes", data.len())?;
                return self.show_data(id, data, output);
            }
            Action::Takes(u64::MAX) => writeln!(output, "takes everything from now on"),
            Action::Takes(bytes) => writeln!(output, "takes no more than {bytes} bytes in all"),
            _ => writeln!(output, "{action}"),
        }?;
        match action {
            Action::Connects => {
                self.open.insert(id, Open::default());
            }
            Action::Closes | Action::Resets => {
                self.open.remove(&id);
            }
            _ => {}
        }
        Ok(())
    }

    fn show_data(&mut self, id: ConnectionId, data: &[u8], output: &mut impl Write) -> io::Result<()> {
        let open = self.open.entry(id).or_default();
        for piece in data.split_inclusive(|&byte| byte == b'\n') {
            let began_before = !open.line.is_empty();
            if open.line.len() < OPEN_BYTES_MAX {
                open.line.extend_from_slice(piece);
            }
            let mut shown = String::from(if began_before { "…" } else { "" });
            shown.push_str(&printable(piece));
            if !piece.ends_with(b"\n") {
                writeln!(output, "{:31}{shown}…", "")?;
                continue;
            }
            let content = open.line.strip_suffix(b"\n").unwrap_or(&open.line);
            let content = content.strip_suffix(b"\r").unwrap_or(content);
            let is_first = !std::mem::replace(&mut open.has_begun, true);
            let meaning = match id {
                ConnectionId::Source(_) if is_first && is_question(content) => {
                    "asks for acknowledgements".to_owned()
                }
                ConnectionId::Source(_) => explain_event(content),
                ConnectionId::User(_) if is_first => explain_login(content),
                ConnectionId::User(_) => "is thrown away".to_owned(),
            };
            writeln!(output, "{:31}{shown:LINE_WIDTH$} {meaning}", "")?;
            open.line.clear();
        }
        Ok(())
    }
}

fn explain_machine(what: Machine) -> String {
    match what {
        Machine::Killed => "the process ends; what it has written is there".to_owned(),
        Machine::PowerFails => "the machine ends; of what was not synced any part is there".to_owned(),
        Machine::Starts => "the server starts on what is there".to_owned(),
        Machine::DiskTakes(0) => "the disk does everything at once from now on".to_owned(),
        Machine::DiskTakes(time) => format!("the disk takes up to {time} µs from now on"),
        Machine::DiskIsFull => "the disk is full from now on".to_owned(),
        Machine::DiskHasRoom => "the disk has room from now on".to_owned(),
    }
}

fn seconds(time: Micros) -> String {
    format!("{}.{:06}", time / 1_000_000, time % 1_000_000)
}

fn printable(bytes: &[u8]) -> String {
    let mut text = escaped(&bytes[..bytes.len().min(LINE_BYTES)]);
    if bytes.len() > LINE_BYTES {
        text.push('…');
    }
    text
}

fn explain_event(line: &[u8]) -> String {
    if line.is_empty() {
        return "an empty line, ignored".to_owned();
    }
    match parse_line(line) {
        Ok(Event { kind, from, to, .. }) => match kind {
            Kind::Follow => format!("{from} follows {to}"),
            Kind::Unfollow => format!("{from} stops following {to}"),
            Kind::Broadcast => "for everyone".to_owned(),
            Kind::Private => format!("from {from} to {to}"),
            Kind::Status => format!("status of {from}"),
            Kind::Void => String::new(),
        },
        Err(rejected) => format!("no event: {}", rejected.reason.name()),
    }
}

/// A source's first line may be none of the events.
fn is_question(line: &[u8]) -> bool {
    line == b"?|ack" || line.starts_with(b"?|ack|")
}

fn explain_login(line: &[u8]) -> String {
    let Some(Login { id, start, .. }) = Login::parse(line, false) else {
        return "no login".to_owned();
    };
    match start {
        Start::Plain => format!("logs in as {id}"),
        Start::Now => format!("logs in as {id}, from now on"),
        Start::Oldest => format!("logs in as {id}, from the oldest event that is kept on"),
        Start::At(next, epoch) => format!("logs in as {id}, from number {next} of epoch {epoch} on"),
    }
}
