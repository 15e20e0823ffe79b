//! The events that sources send: numbered, shuffled, lost, sent twice, and lines that are no events at all.

use std::collections::VecDeque;

use fortnight::internals::config::Config;

use crate::{dice::Dice, options::Temper};

/// An endless supply of lines, for all sources together.
pub(crate) struct Deck {
    dice: Dice,
    temper: Temper,
    first: u64,
    next: Option<u64>,
    longest: u64,
    ready: VecDeque<Vec<u8>>,
    /// Numbers that have been left out.
    lost: Vec<u64>,
}

impl Deck {
    pub(crate) fn new(dice: Dice, temper: &Temper, config: &Config) -> Deck {
        Deck {
            dice,
            temper: temper.clone(),
            first: config.first_sequence,
            next: Some(config.first_sequence),
            longest: config.max_event_bytes as u64,
            ready: VecDeque::new(),
            lost: Vec::new(),
        }
    }

    /// Begins again with the first number.
    pub(crate) fn restart(&mut self) {
        self.next = Some(self.first);
        self.ready.clear();
        self.lost.clear();
    }

    /// The next line, with its end.
    pub(crate) fn line(&mut self) -> Vec<u8> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return line;
            }
            self.refill();
        }
    }

    fn refill(&mut self) {
        let mut lines = Vec::new();
        for _ in 0..self.temper.window {
            self.number(&mut lines);
        }
        self.dice.shuffle(&mut lines);
        self.ready.extend(lines);
    }

    fn number(&mut self, lines: &mut Vec<Vec<u8>>) {
        if self.dice.in_1000(self.temper.garbage) {
            lines.push(self.garbage());
        }
        if !self.lost.is_empty() && self.dice.in_1000(100) {
            let lost = self.lost.swap_remove(self.dice.below(self.lost.len() as u64) as usize);
            lines.push(self.event(lost));
        }
        let Some(number) = self.next else {
            // There are no more numbers: whatever comes is late.
            lines.push(self.event(u64::MAX));
            return;
        };
        self.next = number.checked_add(1);
        if self.dice.in_1000(self.temper.lost) {
            self.lost.push(number);
            return;
        }
        let line = if self.dice.in_1000(self.temper.garbage) { self.bad(number) } else { self.event(number) };
        lines.push(line);
        if self.dice.in_1000(self.temper.twice) {
            lines.push(self.event(number));
        }
        if self.dice.in_1000(self.temper.twice / 2) {
            let back = self.dice.below(200);
            lines.push(self.event(number.saturating_sub(back)));
        }
    }

    fn id(&mut self) -> String {
        let id = match self.dice.below(40) {
            0 => u64::MAX,
            1 => 1 << 32,
            2 => (1 << 20) + self.dice.below(3),
            _ => self.dice.below(self.temper.ids),
        };
        if self.dice.in_1000(30) {
            let zeros = self.dice.length(60) as usize;
            return format!("{id:0zeros$}");
        }
        id.to_string()
    }

    fn number_text(&mut self, number: u64) -> String {
        if self.dice.in_1000(30) {
            let zeros = self.dice.length(self.longest.min(80)) as usize;
            return format!("{number:0zeros$}");
        }
        number.to_string()
    }

    fn end(&mut self) -> &'static str {
        self.dice.pick(&["\n", "\r\n"])
    }

    fn event(&mut self, number: u64) -> Vec<u8> {
        let number = self.number_text(number);
        let (from, to, end) = (self.id(), self.id(), self.end());
        let content = match self.dice.below(20) {
            0..=5 => format!("F|{from}|{to}"),
            6 => format!("U|{from}|{to}"),
            7..=10 => "B".to_owned(),
            11..=14 => format!("P|{from}|{to}"),
            _ => format!("S|{from}"),
        };
        format!("{number}|{content}{end}").into_bytes()
    }

    /// No event, but its number can be read, most of the time.
    fn bad(&mut self, number: u64) -> Vec<u8> {
        let (id, end) = (self.id(), self.end());
        let number = self.number_text(number);
        let content = match self.dice.below(9) {
            0 => "|X".to_owned(),
            1 => String::new(),
            2 => "|".to_owned(),
            3 => format!("|S|-{id}"),
            4 => format!("|P|{id}|"),
            5 => format!("|S|{id}|{id}"),
            6 => "|B|".to_owned(),
            7 => format!("|F|{id}|99999999999999999999"),
            _ => format!("|P|{id}|{}", "7".repeat(self.dice.length(2 * self.longest) as usize)),
        };
        format!("{number}{content}{end}").into_bytes()
    }

    /// No event, and no number either, most of the time.
    fn garbage(&mut self) -> Vec<u8> {
        let mut line = match self.dice.below(7) {
            0 => Vec::new(),
            1 => b"|B".to_vec(),
            2 => b"-1|B".to_vec(),
            3 => b"99999999999999999999|B".to_vec(),
            4 => vec![b'0'; self.dice.length(3 * self.longest) as usize],
            _ => (0..self.dice.length(30)).map(|_| self.dice.below(256) as u8).collect(),
        };
        line.extend_from_slice(self.end().as_bytes());
        line
    }
}
