//! What has been released so far, read from the journal as an observer sees it, and what follows from that.

use std::collections::{BTreeMap, BTreeSet};

use fortnight::SequenceNumber;
use fortnight::internals::{journal::tools, sim::SimFolder};
use support::model::{Event, event_of, number_of};

use super::temper::{IDS_MAX, Temper};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct Truth {
    lines: Vec<(u64, Vec<u8>)>,
    followers: BTreeMap<u64, BTreeSet<u64>>,
    /// For each user, the indices of its events.
    told: BTreeMap<u64, Vec<usize>>,
}

impl Truth {
    /// Everything below is known to have been appended.
    pub(crate) fn cursor(&self) -> u128 {
        self.lines.last().map_or(0, |&(number, _)| u128::from(number) + 1)
    }

    /// Adds what has been appended since, up to a cursor.
    pub(crate) fn extend(&mut self, to: u128, folder: &SimFolder, temper: &Temper) -> Result<(), String> {
        let Ok(from) = u64::try_from(self.cursor()) else { return Ok(()) };
        let Some(last) = to.checked_sub(1).filter(|&last| last >= u128::from(from)) else { return Ok(()) };
        let last = SequenceNumber::new(u64::try_from(last).unwrap_or(u64::MAX));
        let mut bytes = Vec::new();
        tools::dump(&mut folder.observer(), SequenceNumber::new(from), last, &mut bytes)
            .map_err(|error| format!("the journal cannot be read beside its server: {error}"))?;
        for line in bytes.split_inclusive(|&byte| byte == b'\n') {
            self.push(line, temper)?;
        }
        Ok(())
    }

    fn push(&mut self, line: &[u8], temper: &Temper) -> Result<(), String> {
        let text = String::from_utf8_lossy(line).trim_end().to_owned();
        let number = number_of(line).ok_or_else(|| format!("{text} is in the journal, and is no event"))?;
        if line != temper.line(number) {
            return Err(format!("{text} is in the journal, and was never sent"));
        }
        let least = self.cursor().max(u128::from(temper.config.first_sequence));
        let number_is_next = u128::from(number) == least;
        if u128::from(number) < least || (temper.is_patient() && !number_is_next) {
            return Err(format!("{number} is in the journal where {least} should be"));
        }
        self.add(number, line);
        Ok(())
    }

    fn add(&mut self, number: u64, line: &[u8]) {
        let index = self.lines.len();
        self.lines.push((number, line.to_vec()));
        let told: Vec<u64> = match event_of(line) {
            Some(Event::Follow(from, to)) => {
                self.followers.entry(to).or_default().insert(from);
                vec![to]
            }
            Some(Event::Unfollow(from, to)) => {
                self.followers.entry(to).or_default().remove(&from);
                Vec::new()
            }
            Some(Event::Broadcast) => (0..IDS_MAX).collect(),
            Some(Event::Private(_, to)) => vec![to],
            Some(Event::Status(from)) => self.followers.get(&from).into_iter().flatten().copied().collect(),
            None => Vec::new(),
        };
        for id in told {
            self.told.entry(id).or_default().push(index);
        }
    }

    /// Edges of the follow graph.
    pub(crate) fn edges(&self) -> u64 {
        self.followers.values().map(|followers| followers.len() as u64).sum()
    }

    /// What there was below a cursor.
    pub(crate) fn before(&self, cursor: u128) -> Truth {
        let mut truth = Truth::default();
        for (number, line) in self.lines.iter().take_while(|(number, _)| u128::from(*number) < cursor) {
            truth.add(*number, line);
        }
        truth
    }

    /// The journal has exactly this, as far back as it goes.
    pub(crate) fn check_journal(&self, folder: &SimFolder) -> Result<(), String> {
        let mut bytes = Vec::new();
        tools::dump(&mut folder.observer(), SequenceNumber::default(), SequenceNumber::MAX, &mut bytes)
            .map_err(|error| format!("the journal cannot be read after a start: {error}"))?;
        let kept = bytes.split_inclusive(|&byte| byte == b'\n').count();
        let from = self.lines.len().checked_sub(kept).ok_or("the journal has more than was released")?;
        let wanted: Vec<u8> = self.lines[from..].iter().flat_map(|(_, line)| line.clone()).collect();
        if bytes == wanted { Ok(()) } else { Err("the journal is not what was released".to_owned()) }
    }

    /// Checks what a user was sent, who logged in between the cursors `from` and `latest`. `is_complete`: it must have everything.
    pub(crate) fn check_stream(
        &self,
        id: u64,
        (from, latest): (u128, Option<u128>),
        received: &[u8],
        is_complete: bool,
    ) -> Result<(), String> {
        let told = self.told.get(&id).map_or(&[][..], Vec::as_slice);
        let at = |cursor: u128| told.partition_point(|&index| u128::from(self.lines[index].0) < cursor);
        let last_start = latest.map_or(told.len(), at);
        let stream = |start: usize| {
            told[start..].iter().flat_map(|&index| self.lines[index].1.iter().copied()).collect::<Vec<u8>>()
        };
        let first =
            received.split_inclusive(|&byte| byte == b'\n').next().filter(|line| line.ends_with(b"\n"));
        let start = match first.and_then(number_of) {
            Some(number) => at(u128::from(number)),
            None if is_complete => last_start,
            // Part of a line: of any of those that can be the first.
            None => {
                let is_first = |&start: &usize| stream(start).starts_with(received);
                return match (at(from)..=last_start).find(is_first) {
                    Some(_) => Ok(()),
                    None => Err(format!("user {id} was sent a part of a line that it should not have")),
                };
            }
        };
        let wanted = stream(start);
        if start < at(from) || start > last_start {
            return Err(format!("the stream of user {id} does not begin where it logged in"));
        }
        if !wanted.starts_with(received) {
            return Err(format!("the stream of user {id} is not what the journal has for it"));
        }
        if is_complete && wanted != received {
            let missing = wanted.len() - received.len();
            return Err(format!("{missing} bytes are missing at the end of the stream of user {id}"));
        }
        Ok(())
    }

    /// Checks what a user was sent that resumes: its answer, then what the journal has for it from there on, with its places in
    /// between. Returns whether that is everything.
    pub(crate) fn check_visit(&self, id: u64, received: &[u8]) -> Result<bool, String> {
        let told = self.told.get(&id).map_or(&[][..], Vec::as_slice);
        let number = |index: usize| u128::from(self.lines[told[index]].0);
        // The next one that it is owed, and the place that it was told last.
        let (mut at, mut place) = (None, 0);
        let mut is_over = false;
        for line in received.split_inclusive(|&byte| byte == b'\n') {
            let text = String::from_utf8_lossy(line);
            let wrong = |what: &str| Err(format!("user {id}, which resumes, {what}: {text:?}"));
            if is_over {
                return wrong("is sent more after the last words");
            }
            if matches!(line[0], b'+' | b'-') {
                is_over = line[0] == b'-';
                let field = text.trim_end().split('|').nth(2).and_then(|place| place.parse::<u128>().ok());
                let Some(next) = field.filter(|_| line.ends_with(b"\n")) else { continue };
                let index = *at.get_or_insert_with(|| {
                    told.partition_point(|&index| u128::from(self.lines[index].0) < next)
                });
                if next < place {
                    return wrong("is told a place below an earlier one");
                }
                if index < told.len() && number(index) < next {
                    return wrong(&format!("is told a place above {}, which has not come", number(index)));
                }
                place = next;
                continue;
            }
            let Some(index) = at.as_mut() else { return wrong("is sent something before the answer") };
            let wanted = told.get(*index).map_or(&[][..], |&index| &self.lines[index].1);
            let is_right = if line.ends_with(b"\n") { line == wanted } else { wanted.starts_with(line) };
            if !is_right {
                return wrong(&format!("is owed {:?}, and sent", String::from_utf8_lossy(wanted)));
            }
            *index += usize::from(line.ends_with(b"\n"));
        }
        Ok(at == Some(told.len()))
    }

    /// The number of the last whole or begun line of a stream.
    pub(crate) fn sent_up_to(received: &[u8]) -> Option<u64> {
        let lines: Vec<&[u8]> = received.split_inclusive(|&byte| byte == b'\n').collect();
        lines.iter().rev().find(|line| line.contains(&b'|')).and_then(|line| number_of(line))
    }
}
