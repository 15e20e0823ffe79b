//! What the server must do, in the plainest way: sort, then loop over plain sets.
//!
//! The model knows no sockets, no time and no limits. Its user says in which order users come, events are
//! released and users go; [`Model`] says what each user gets. [`in_order`] is the order of SPEC section 2
//! when no event is late.

use std::collections::{BTreeMap, HashMap, HashSet};

/// What an event line says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Event {
    /// The first user follows the second.
    Follow(u64, u64),
    /// The first user stops following the second.
    Unfollow(u64, u64),
    /// Told to every connected user.
    Broadcast,
    /// From the first user to the second.
    Private(u64, u64),
    /// Told to the followers of the user.
    Status(u64),
}

/// The sequence number of a line, its terminator included, if it can be read.
pub fn number_of(line: &[u8]) -> Option<u64> {
    number(fields_of(line)[0])
}

/// The event of a line, its terminator included. `None`: the line is not an event.
pub fn event_of(line: &[u8]) -> Option<Event> {
    let fields = fields_of(line);
    number(fields[0])?;
    match fields[1..] {
        [b"F", from, to] => Some(Event::Follow(number(from)?, number(to)?)),
        [b"U", from, to] => Some(Event::Unfollow(number(from)?, number(to)?)),
        [b"B"] => Some(Event::Broadcast),
        [b"P", from, to] => Some(Event::Private(number(from)?, number(to)?)),
        [b"S", from] => Some(Event::Status(number(from)?)),
        _ => None,
    }
}

/// The lines whose number can be read, in the order of their numbers, the first of each number.
pub fn in_order<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> Vec<&'a [u8]> {
    let mut sorted = BTreeMap::new();
    for line in lines {
        if let Some(number) = number_of(line) {
            sorted.entry(number).or_insert(line);
        }
    }
    sorted.into_values().collect()
}

/// Who follows whom, who is connected, and what each connected user has been told.
#[derive(Clone, Debug, Default)]
pub struct Model {
    followers: HashMap<u64, HashSet<u64>>,
    told: HashMap<u64, Vec<u8>>,
}

impl Model {
    /// Nobody is connected and nobody follows anybody.
    pub fn new() -> Model {
        Model::default()
    }

    /// A user connects. If it was connected already, the new connection takes over, and this gives
    /// what the old one had been told.
    pub fn login(&mut self, user: u64) -> Option<Vec<u8>> {
        self.told.insert(user, Vec::new())
    }

    /// A user goes. Gives what it had been told, or `None` if it was not connected.
    pub fn logout(&mut self, user: u64) -> Option<Vec<u8>> {
        self.told.remove(&user)
    }

    /// What a user has been told since it connected, or `None` if it is not connected.
    pub fn told(&self, user: u64) -> Option<&[u8]> {
        self.told.get(&user).map(Vec::as_slice)
    }

    /// The connected users, in no order.
    pub fn connected(&self) -> impl Iterator<Item = u64> {
        self.told.keys().copied()
    }

    /// Releases the event of a line, its terminator included. A line that is not an event does nothing.
    pub fn release(&mut self, line: &[u8]) {
        match event_of(line) {
            None => {}
            Some(Event::Follow(from, to)) => {
                self.followers.entry(to).or_default().insert(from);
                self.tell(to, line);
            }
            Some(Event::Unfollow(from, to)) => {
                self.followers.entry(to).or_default().remove(&from);
            }
            Some(Event::Broadcast) => {
                for told in self.told.values_mut() {
                    told.extend_from_slice(line);
                }
            }
            Some(Event::Private(_, to)) => self.tell(to, line),
            Some(Event::Status(from)) => {
                for follower in self.followers.get(&from).cloned().unwrap_or_default() {
                    self.tell(follower, line);
                }
            }
        }
    }

    /// Forgets who follows whom. Connected users stay.
    pub fn forget_graph(&mut self) {
        self.followers.clear();
    }

    fn tell(&mut self, user: u64, line: &[u8]) {
        if let Some(told) = self.told.get_mut(&user) {
            told.extend_from_slice(line);
        }
    }
}

fn fields_of(line: &[u8]) -> Vec<&[u8]> {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    line.split(|&byte| byte == b'|').collect()
}

fn number(field: &[u8]) -> Option<u64> {
    let digits = !field.is_empty() && field.iter().all(u8::is_ascii_digit);
    if digits { std::str::from_utf8(field).ok()?.parse().ok() } else { None }
}
