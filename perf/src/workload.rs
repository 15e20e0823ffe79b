//! The workload: events and their recipients. It is the shape of a run and everything that varies it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// Relative frequencies of the event types, written `F25,U19,B1,P30,S25`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Weights of Follow, Unfollow, Broadcast, Private message and Status update.
    pub weights: [u32; 5],
}

const LETTERS: [char; 5] = ['F', 'U', 'B', 'P', 'S'];

impl Mix {
    /// The mix of the original challenge.
    pub const DEFAULT: Mix = Mix { weights: [25, 19, 1, 30, 25] };
    /// Broadcasts only.
    pub const BROADCAST: Mix = Mix { weights: [0, 0, 1, 0, 0] };
    /// Private messages only.
    pub const PRIVATE: Mix = Mix { weights: [0, 0, 0, 1, 0] };

    /// The sum of all weights.
    pub fn total(&self) -> u32 {
        self.weights.iter().sum()
    }
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Mix, String> {
        let usage = || {
            format!("`{text}` is no mix: accepted are letters of FUBPS with weights, like F25,U19,B1,P30,S25")
        };
        let mut mix = Mix { weights: [0; 5] };
        for part in text.split(',') {
            let letter = part.chars().next().ok_or_else(usage)?;
            let at = LETTERS.iter().position(|&l| l == letter).ok_or_else(usage)?;
            mix.weights[at] = part[1..].parse::<u16>().map_err(|_| usage())?.into();
        }
        if mix.total() == 0 { Err(usage()) } else { Ok(mix) }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = LETTERS.iter().zip(self.weights).filter(|(_, weight)| *weight > 0);
        let parts: Vec<String> = parts.map(|(letter, weight)| format!("{letter}{weight}")).collect();
        f.write_str(&parts.join(","))
    }
}

/// The named workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shape {
    /// 10 M events, default mix, 1,000 users of whom 100 connected
    Maze,
    /// 200 k broadcasts, 1,000 connected
    Broadcast,
    /// 2 M events, default mix, 1,000 users, all connected
    Dense,
    /// 5 M private messages, 1,000 connected
    Private,
    /// 50 k broadcasts, 10,000 connected
    Crowd,
    /// One user followed by 1 M others of whom 100 are connected; 500 k of its status updates
    Celebrity,
    /// The yardstick for `celebrity`: only the 100 connected users follow
    CelebrityFew,
}

/// The sizes that a shape stands for.
#[derive(Clone, Copy, Debug)]
pub struct Dimensions {
    /// Events to send, without the preamble.
    pub events: u64,
    /// Connected users.
    pub connected: u64,
    /// All users.
    pub users: u64,
    /// Event types.
    pub mix: Mix,
}

impl Shape {
    /// The shapes that a bench runs, in its order.
    pub const BENCH: [Shape; 7] = [
        Shape::Maze,
        Shape::Broadcast,
        Shape::Dense,
        Shape::Private,
        Shape::Crowd,
        Shape::Celebrity,
        Shape::CelebrityFew,
    ];

    /// The name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Shape::Maze => "maze",
            Shape::Broadcast => "broadcast",
            Shape::Dense => "dense",
            Shape::Private => "private",
            Shape::Crowd => "crowd",
            Shape::Celebrity => "celebrity",
            Shape::CelebrityFew => "celebrity-few",
        }
    }

    /// The full-size dimensions.
    pub fn dimensions(self) -> Dimensions {
        let of = |events, connected, users, mix| Dimensions { events, connected, users, mix };
        match self {
            Shape::Maze => of(10_000_000, 100, 1_000, Mix::DEFAULT),
            Shape::Broadcast => of(200_000, 1_000, 1_000, Mix::BROADCAST),
            Shape::Dense => of(2_000_000, 1_000, 1_000, Mix::DEFAULT),
            Shape::Private => of(5_000_000, 1_000, 1_000, Mix::PRIVATE),
            Shape::Crowd => of(50_000, 10_000, 10_000, Mix::BROADCAST),
            Shape::Celebrity | Shape::CelebrityFew => of(500_000, 100, 1_000_001, Mix::DEFAULT),
        }
    }

    /// Whether the events are the status updates of one user, after a preamble of follows.
    pub fn is_celebrity(self) -> bool {
        matches!(self, Shape::Celebrity | Shape::CelebrityFew)
    }
}

/// How lines end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LineEnd {
    /// CR LF, as the original sends
    Crlf,
    /// LF alone
    Lf,
    /// Either, at random, line by line
    Mixed,
}

/// Everything that decides the bytes of a run: two equal workloads are the same bytes.
#[derive(Clone, Debug)]
pub struct Workload {
    /// The named shape that it started from.
    pub shape: Shape,
    /// Numbers to use up, holes and garbage included; the preamble not. `u64::MAX`: until told to stop.
    pub events: u64,
    /// All users, ids 1 to this.
    pub users: u64,
    /// Users connected throughout.
    pub connected: u64,
    /// Further users, who come and go.
    pub churning: u64,
    /// Event types.
    pub mix: Mix,
    /// The seed.
    pub seed: u64,
    /// Events are shuffled within batches of at most this many.
    pub batch_max: u64,
    /// Line terminators.
    pub line_end: LineEnd,
    /// Share of numbers that are never sent.
    pub holes: f64,
    /// Share of events that are followed by another one with the same number.
    pub duplicates: f64,
    /// Share of lines that are no events.
    pub garbage: f64,
    /// Connections that the events are spread over.
    pub sources: usize,
    /// Number of the first event.
    pub first_sequence: u64,
}

impl Workload {
    /// A shape at a scale: events shrink, users stay (except the follower count of `celebrity`).
    pub fn of_shape(shape: Shape, scale: f64) -> Workload {
        let full = shape.dimensions();
        let scaled = |n: u64| ((n as f64 * scale).round() as u64).max(1);
        let users =
            if shape.is_celebrity() { scaled(full.users - 1).max(full.connected) + 1 } else { full.users };
        Workload {
            shape,
            events: scaled(full.events),
            users,
            connected: full.connected,
            churning: 0,
            mix: full.mix,
            seed: 666,
            batch_max: 100,
            line_end: LineEnd::Crlf,
            holes: 0.0,
            duplicates: 0.0,
            garbage: 0.0,
            sources: 1,
            first_sequence: 1,
        }
    }

    /// Ids of the users who are or may be connected: those connected throughout, then those who come and go.
    ///
    /// In the celebrity shapes user 1 is the celebrity, and the connected ones are spread over its followers.
    pub fn ids(&self) -> Vec<u64> {
        let wanted = self.connected + self.churning;
        let step = if self.shape.is_celebrity() { ((self.users - 1) / wanted.max(1)).max(1) } else { 1 };
        let first = if self.shape.is_celebrity() { 2 } else { 1 };
        (0..wanted).map(|n| first + n * step).collect()
    }

    /// Checks that the numbers fit together.
    ///
    /// # Errors
    /// One sentence that names the option, the value and what is accepted.
    pub fn check(&self) -> Result<(), String> {
        let wanted = self.connected + self.churning;
        let room = if self.shape.is_celebrity() { self.users.saturating_sub(1) } else { self.users };
        if wanted > room {
            return Err(format!(
                "numberOfUsers {}: accepted is at least the {wanted} who connect",
                self.users
            ));
        }
        if self.connected == 0 {
            return Err("concurrencyLevel 0: accepted is 1 or more".into());
        }
        for (name, rate) in
            [("holes", self.holes), ("duplicates", self.duplicates), ("garbage", self.garbage)]
        {
            if !(0.0..=1.0).contains(&rate) {
                return Err(format!("{name} {rate}: accepted is a share from 0 to 1"));
            }
        }
        if self.users > 50_000_000 {
            return Err(format!("numberOfUsers {}: accepted is up to 50000000", self.users));
        }
        if self.events != u64::MAX && self.first_sequence.checked_add(self.events + self.users + 1).is_none()
        {
            return Err(format!("firstSequence {}: the numbers would pass 2^64", self.first_sequence));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mix_reads_and_writes() {
        assert_eq!("F25,U19,B1,P30,S25".parse::<Mix>().unwrap(), Mix::DEFAULT);
        assert_eq!(Mix::DEFAULT.to_string(), "F25,U19,B1,P30,S25");
        assert_eq!("B1".parse::<Mix>().unwrap(), Mix::BROADCAST);
        for bad in ["", "X1", "F", "F-1", "F0", "F1,,B1", "é1"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }

    #[test]
    fn celebrity_ids_are_followers_and_distinct() {
        let load = Workload::of_shape(Shape::Celebrity, 1.0);
        let ids = load.ids();
        assert_eq!((ids.len(), ids[0]), (100, 2));
        assert!(ids.windows(2).all(|w| w[0] < w[1]) && *ids.last().unwrap() <= load.users);
        assert!(load.check().is_ok());
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        let load = Workload { users: 10, ..Workload::of_shape(Shape::Maze, 1.0) };
        assert!(load.check().unwrap_err().contains("numberOfUsers 10"));
        let load = Workload { holes: 1.5, ..Workload::of_shape(Shape::Maze, 1.0) };
        assert!(load.check().unwrap_err().contains("holes 1.5"));
    }
}
