//! The whole engine against a model that is obviously right, in its portable version and in those for this processor.

mod released;

use super::{
    arch::Cpu,
    event::{Reject, parse_line},
    *,
};
use crate::time::Micros;
use crate::user_id::UserId;
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

/// One line of a stream, and where among the others it comes.
#[derive(Clone, Debug)]
struct Line {
    kind: char,
    from: u64,
    to: u64,
    /// Zeros in front of the number.
    zeros: usize,
    end: &'static str,
    /// How many places later than its number says.
    late: u64,
}

impl Line {
    fn text(&self, seq: u64) -> String {
        let Self { kind, from, to, zeros, end, .. } = self;
        let seq = format!("{}{seq}", "0".repeat(*zeros));
        match kind {
            'B' => format!("{seq}|B{end}"),
            'S' => format!("{seq}|S|{from}{end}"),
            _ => format!("{seq}|{kind}|{from}|{to}{end}"),
        }
    }
}

/// Ids: few, so that users meet; now and then one that is not looked up in an array, or does not fit a slot.
fn id() -> impl Strategy<Value = u64> {
    prop_oneof![30 => 0..20u64, 1 => 1_000_000..1_000_010u64, 1 => 99_999_999..100_000_002u64, 1 => u64::MAX - 2..=u64::MAX]
}

fn line() -> impl Strategy<Value = Line> {
    // X is a type that there is not: the line uses up its number and does nothing.
    let kind = prop_oneof![25 => Just('F'), 19 => Just('U'), 3 => Just('B'), 30 => Just('P'), 25 => Just('S'), 1 => Just('X')];
    let zeros = prop_oneof![40 => Just(0usize), 1 => 1..8usize, 1 => 30..60usize, 1 => 200..400usize];
    let end = prop_oneof![Just("\n"), Just("\r\n")];
    (kind, id(), id(), zeros, end, 0..100u64).prop_map(|(kind, from, to, zeros, end, late)| Line {
        kind,
        from,
        to,
        zeros,
        end,
        late,
    })
}

/// An action between two chunks.
#[derive(Clone, Debug)]
struct Pause {
    bytes: usize,
    comes: Option<u64>,
    goes: Option<u64>,
}

fn pause() -> impl Strategy<Value = Pause> {
    let bytes = prop_oneof![1..40usize, 1..3_000usize, 3_000..20_000usize];
    (bytes, prop::option::of(id()), prop::option::weighted(0.2, id()))
        .prop_map(|(bytes, comes, goes)| Pause { bytes, comes, goes })
}

/// The bytes that each user has received, over all its connections.
type Received = BTreeMap<u64, Vec<u8>>;

/// An engine with somebody who feeds it and takes down what it delivers.
struct Subject {
    engine: Engine,
    users: BTreeMap<u64, UserSlot>,
    received: Received,
    carry: Vec<u8>,
    /// Users that are handed their bytes at once.
    at_once: usize,
}

impl Subject {
    fn deliver(&mut self) {
        let ids: BTreeMap<UserSlot, u64> = self.users.iter().map(|(&id, &slot)| (slot, id)).collect();
        loop {
            let mut served = Vec::new();
            let is_done = self.engine.deliver_some(self.at_once, |slot, bytes| {
                self.received.entry(ids[&slot]).or_default().extend_from_slice(bytes);
                served.push(slot);
            });
            assert!(served.len() <= self.at_once);
            assert!(served.into_iter().all(|slot| !self.engine.owes(slot)), "nobody is served twice");
            if is_done {
                return;
            }
            self.at_once = self.at_once * 3 % 257 + 1;
        }
    }

    fn feed(&mut self, bytes: &[u8]) {
        let chunk = [&[b'9'; BEFORE], &self.carry[..], bytes, &[b'9'; AFTER]].concat();
        let mut range = BEFORE..chunk.len() - AFTER;
        loop {
            let (at, stop) = self.engine.feed(&chunk, range.clone());
            range.start = at;
            self.engine.settle(&chunk, 0, 0);
            match stop {
                Stop::TurnFull => self.deliver(),
                Stop::Drained => break,
                Stop::Overlong | Stop::Blocked(_) => panic!("{stop:?} of a stream that has no such thing"),
            }
        }
        self.carry = chunk[range].to_vec();
        while self.engine.release_waiting() {
            self.deliver();
        }
    }

    fn pause(&mut self, pause: &Pause) {
        self.deliver();
        if let Some(id) = pause.goes
            && let Some(slot) = self.users.remove(&id)
        {
            self.engine.disconnect(UserId::new(id), slot);
        }
        if let Some(id) = pause.comes
            && !self.users.contains_key(&id)
        {
            self.users.insert(id, self.engine.connect(UserId::new(id)));
        }
    }
}

/// Applies one event after the other.
#[derive(Default)]
struct Model {
    next: usize,
    edges: BTreeSet<(u64, u64)>,
    users: BTreeSet<u64>,
    received: Received,
}

impl Model {
    fn release(&mut self, lines: &[Line], upto: usize) {
        for (seq, line) in lines.iter().enumerate().take(upto).skip(self.next) {
            let followers = self.edges.iter().filter(|&&(_, to)| to == line.from).map(|&(from, _)| from);
            let concerned: Vec<u64> = match line.kind {
                'F' | 'P' => vec![line.to],
                'B' => self.users.iter().copied().collect(),
                'S' => followers.collect(),
                _ => Vec::new(),
            };
            match line.kind {
                'F' => _ = self.edges.insert((line.from, line.to)),
                'U' => _ = self.edges.remove(&(line.from, line.to)),
                _ => {}
            }
            for id in concerned.into_iter().filter(|id| self.users.contains(id)) {
                self.received.entry(id).or_default().extend(line.text(seq as u64).bytes());
            }
        }
        self.next = upto;
    }

    fn pause(&mut self, pause: &Pause) {
        if let Some(id) = pause.goes {
            self.users.remove(&id);
        }
        self.users.extend(pause.comes);
    }
}

fn compare(
    cpu: Cpu,
    lines: &[Line],
    pauses: &[Pause],
    limits: (usize, usize),
    is_large: bool,
) -> Result<(), TestCaseError> {
    let mut order: Vec<(u64, usize)> =
        lines.iter().enumerate().map(|(seq, line)| (seq as u64 + line.late, seq)).collect();
    order.sort_unstable();
    let stream: String = order.iter().map(|&(_, seq)| lines[seq].text(seq as u64)).collect();
    let config = EngineConfig {
        capacity: 256,
        first_sequence: 0,
        timeout: None,
        event_bytes_max: 1024,
        turn_bytes_max: limits.0,
        turn_bytes_mean: limits.1,
        max_sequence_jump: None,
        instruction_set: InstructionSet::default(),
    };
    let mut subject = Subject {
        engine: Engine::on(&config, cpu),
        users: BTreeMap::new(),
        received: Received::new(),
        carry: Vec::new(),
        at_once: lines.len() % 130,
    };
    if is_large {
        subject.engine.graph.become_large(true, true);
    }
    let mut model = Model::default();
    let mut rest = stream.as_bytes();
    for pause in pauses {
        subject.pause(pause);
        model.release(lines, subject.engine.cursor().get() as usize);
        model.pause(pause);
        let (now, later) = rest.split_at(pause.bytes.min(rest.len()));
        subject.feed(now);
        rest = later;
    }
    subject.feed(rest);
    subject.deliver();
    model.release(lines, lines.len());
    prop_assert_eq!(subject.engine.cursor().get() as usize, lines.len());
    prop_assert_eq!(subject.engine.follow_edges(), model.edges.len() as u64);
    prop_assert_eq!(subject.engine.counters.events_received, lines.len() as u64);
    for (id, expected) in &model.received {
        let got = subject.received.get(id).cloned().unwrap_or_default();
        prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected), "user {}", id);
    }
    let deliveries = |received: &Received| received.values().flatten().filter(|&&byte| byte == b'\n').count();
    prop_assert_eq!(deliveries(&subject.received), deliveries(&model.received));
    prop_assert_eq!(subject.engine.counters.deliveries as usize, deliveries(&model.received));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn everyone_gets_what_the_model_gives(
        lines in prop::collection::vec(line(), 1..1500),
        pauses in prop::collection::vec(pause(), 0..40),
        limits in prop_oneof![Just((4096, 64)), Just((4096, 4096)), Just((20_000, 2_000)), Just((512 << 10, 56 << 10))],
        // With so many users, what is for one of them does not get a row.
        crowd in prop_oneof![2 => Just(0), 1 => 120..250u64],
        is_large in any::<bool>(),
    ) {
        let arrivals = (1_000..1_000 + crowd).map(|id| Pause { bytes: 0, comes: Some(id), goes: None });
        let pauses: Vec<Pause> = arrivals.chain(pauses).collect();
        for cpu in Cpu::all() {
            compare(cpu, &lines, &pauses, limits, is_large)?;
        }
    }
}

#[test]
fn three_hundred_users_with_forty_followers_each_get_everything() {
    // More words per row than one, more blocks than a group, more than one turn.
    let users: Vec<u64> = (0..300).collect();
    let follow = |from: u64, to| Line { kind: 'F', from, to, zeros: 0, end: "\n", late: from % 7 };
    let mut lines: Vec<Line> =
        (0..300).flat_map(|to| (0..40).map(move |from| follow((from * 7 + to) % 300, to))).collect();
    lines.extend((0..9000).map(|event| Line {
        kind: ['S', 'S', 'B', 'P'][event as usize % 4],
        from: event * 11 % 300,
        to: event * 13 % 300,
        zeros: 0,
        end: "\r\n",
        late: event * 31 % 100,
    }));
    let pauses: Vec<Pause> =
        users.iter().map(|&id| Pause { bytes: 1, comes: Some(id), goes: None }).collect();
    for cpu in Cpu::all() {
        for is_large in [false, true] {
            compare(cpu, &lines, &pauses, (512 << 10, 56 << 10), is_large).unwrap();
        }
    }
}
