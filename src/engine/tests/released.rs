//! The released stream, replaying it, snapshots, and the rules for holes.

use super::*;
use crate::{
    sequence::{Cursor, SequenceNumber},
    user_id::UserId,
};

/// An engine that is fed chunk by chunk.
fn engine(config: &EngineConfig) -> Engine {
    Engine::on(config, Cpu::up_to(InstructionSet::default()))
}

fn small_config() -> EngineConfig {
    EngineConfig {
        capacity: 256,
        first_sequence: 0,
        timeout: None,
        event_bytes_max: 1024,
        turn_bytes_max: 4096,
        turn_bytes_mean: 4096,
        max_sequence_jump: None,
        instruction_set: InstructionSet::default(),
    }
}

/// Feeds whole lines at a time, and takes what is released whenever the turn is full.
fn feed(engine: &mut Engine, bytes: &[u8], now: Micros, taken: &mut Vec<Taken>) -> Stop {
    let chunk = [&[b'9'; BEFORE], bytes, &[b'9'; AFTER]].concat();
    let mut range = BEFORE..chunk.len() - AFTER;
    loop {
        let (at, stop) = engine.feed(&chunk, range.clone());
        range.start = at;
        engine.settle(&chunk, now, now);
        if stop != Stop::TurnFull {
            release(engine, taken);
            return stop;
        }
        take(engine, taken);
        engine.deliver(|_, _| {});
    }
}

fn release(engine: &mut Engine, taken: &mut Vec<Taken>) {
    while engine.release_waiting() {
        take(engine, taken);
        engine.deliver(|_, _| {});
    }
    take(engine, taken);
    engine.deliver(|_, _| {});
}

/// What the record had: from, to, events, lines.
#[derive(Debug, PartialEq)]
struct Taken(u128, u128, u64, String);

fn take(engine: &mut Engine, taken: &mut Vec<Taken>) {
    let mut block = Released::default();
    if engine.take_released(&mut block) {
        let lines = String::from_utf8_lossy(block.lines()).into_owned();
        taken.push(Taken(block.from.get(), block.to.get(), block.events, lines));
    }
}

/// The numbers and the texts of a stream without what does not count as an event.
fn released_lines(lines: &[Line]) -> Vec<String> {
    let events = (0..).zip(lines).filter(|(_, line)| line.kind != 'X');
    events.map(|(seq, line)| line.text(seq)).collect()
}

fn arrival_order(lines: &[Line]) -> String {
    let mut order: Vec<(u64, usize)> =
        lines.iter().enumerate().map(|(seq, line)| (seq as u64 + line.late, seq)).collect();
    order.sort_unstable();
    order.iter().map(|&(_, seq)| lines[seq].text(seq as u64)).collect()
}

/// The edges after so many lines.
fn edges_after(lines: &[Line], upto: usize) -> BTreeSet<(u64, u64)> {
    let mut edges = BTreeSet::new();
    for line in &lines[..upto] {
        match line.kind {
            'F' => _ = edges.insert((line.from, line.to)),
            'U' => _ = edges.remove(&(line.from, line.to)),
            _ => {}
        }
    }
    edges
}

fn walk(engine: &mut Engine, budget: usize, mut between: impl FnMut(&mut Engine)) -> Vec<(u64, u64)> {
    let mut edges = Vec::new();
    engine.begin_snapshot();
    while !engine.walk_snapshot(budget, |from, to| edges.push((from.get(), to.get()))) {
        between(engine);
    }
    edges
}

fn all_edges(engine: &mut Engine) -> BTreeSet<(u64, u64)> {
    let edges = walk(engine, 1_000_000, |_| ());
    let set: BTreeSet<_> = edges.iter().copied().collect();
    assert_eq!(set.len(), edges.len(), "a walk at rest hands out each edge once");
    set
}

/// Replays a block piece by piece into an engine with users; returns what each has received.
fn replay(
    engine: &mut Engine,
    users: &BTreeMap<UserSlot, u64>,
    block: &[u8],
    to: u128,
    received: &mut Received,
) {
    let mut at = 0;
    loop {
        let (next, end) = engine.replay(block, at..block.len(), Cursor::new(to)).unwrap();
        at = next;
        engine.deliver(|slot, bytes| received.entry(users[&slot]).or_default().extend_from_slice(bytes));
        if end == Replay::Done {
            assert_eq!((at, engine.cursor()), (block.len(), Cursor::new(to)));
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn the_record_has_every_event_and_replaying_it_gives_the_same(
        lines in prop::collection::vec(line(), 1..1200),
        users in prop::collection::btree_set(id(), 0..12),
        cuts in prop::collection::vec(1..6000usize, 1..5),
        bytes_max in prop_oneof![Just(1usize), 100..2000usize, Just(1 << 20)],
        headroom in prop_oneof![Just(0usize), Just(64)],
        is_large in any::<bool>(),
    ) {
        for cpu in Cpu::all() {
            let mut live = Engine::on(&small_config(), cpu);
            live.record(bytes_max, headroom);
            let mut slots = BTreeMap::new();
            for &id in &users {
                slots.insert(live.connect(UserId::new(id)), id);
            }
            let (mut model, mut received, mut taken) = (Model::default(), Received::new(), Vec::new());
            let stream = arrival_order(&lines);
            let mut rest = stream.as_bytes();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = *cuts.next().unwrap();
                let end = rest[..cut.min(rest.len())].iter().rposition(|&byte| byte == b'\n').map_or_else(
                    || rest.iter().position(|&byte| byte == b'\n').unwrap() + 1, |last| last + 1);
                prop_assert_eq!(feed(&mut live, &rest[..end], 0, &mut taken), Stop::Drained);
                rest = &rest[end..];
            }
            prop_assert_eq!(live.cursor().get(), lines.len() as u128);
            // Without gaps, in order, and all of it.
            let mut cursor = 0;
            for Taken(from, to, events, text) in &taken {
                prop_assert_eq!(*from, cursor);
                prop_assert_eq!(*events as usize, text.lines().count());
                cursor = *to;
            }
            prop_assert_eq!(cursor, lines.len() as u128);
            let expected = released_lines(&lines).concat();
            let got: String = taken.iter().map(|taken| &taken.3[..]).collect();
            prop_assert_eq!(&got, &expected);

            // The same engine again, from the blocks.
            let mut second = Engine::on(&EngineConfig { capacity: 1, event_bytes_max: 64, ..small_config() }, cpu);
            if is_large {
                second.graph.become_large(true, true);
            }
            let mut slots = BTreeMap::new();
            for &id in &users {
                slots.insert(second.connect(UserId::new(id)), id);
            }
            for Taken(_, to, _, text) in &taken {
                replay(&mut second, &slots, text.as_bytes(), *to, &mut received);
            }
            for &id in &users {
                model.users.insert(id);
            }
            model.release(&lines, lines.len());
            for (id, expected) in &model.received {
                let got = received.get(id).cloned().unwrap_or_default();
                prop_assert_eq!(String::from_utf8_lossy(&got), String::from_utf8_lossy(expected), "user {}", id);
            }
            prop_assert_eq!(second.counters.events_released[1..6].to_vec(), live.counters.events_released[1..6].to_vec());
            prop_assert_eq!(second.counters.deliveries, live.counters.deliveries);
            prop_assert_eq!(all_edges(&mut second), edges_after(&lines, lines.len()));
        }
    }

    #[test]
    fn a_walk_and_the_log_over_it_are_the_graph(
        lines in prop::collection::vec(line(), 100..1500),
        begins in any::<prop::sample::Index>(),
        budget in 1..40usize,
        step in 1..40usize,
        is_large in any::<bool>(),
        users in prop::collection::btree_set(id(), 0..6),
    ) {
        let mut engine = engine(&small_config());
        if is_large {
            engine.graph.become_large(true, true);
        }
        let texts: Vec<String> = (0..).zip(&lines).map(|(seq, line)| line.text(seq)).collect();
        let begins = begins.index(lines.len());
        let mut unused = Vec::new();
        feed(&mut engine, texts[..begins].concat().as_bytes(), 0, &mut unused);
        for &id in &users {
            engine.connect(UserId::new(id));
        }
        let mut fed = begins;
        let mut edges = Vec::new();
        prop_assert_eq!(engine.begin_snapshot().get(), begins as u128);
        while !engine.walk_snapshot(budget, |from, to| edges.push((from.get(), to.get()))) {
            let next = lines.len().min(fed + step);
            feed(&mut engine, texts[fed..next].concat().as_bytes(), 0, &mut unused);
            fed = next;
        }
        let mut restored = super::released::engine(&small_config());
        for (from, to) in edges {
            restored.add_edge(UserId::new(from), UserId::new(to));
        }
        restored.set_cursor(Cursor::new(begins as u128));
        let log: String = texts[begins..fed].iter().zip(&lines[begins..]).filter(|(_, line)| line.kind != 'X').map(|(text, _)| &text[..]).collect();
        replay(&mut restored, &BTreeMap::new(), log.as_bytes(), fed as u128, &mut Received::new());
        prop_assert_eq!(all_edges(&mut restored), edges_after(&lines, fed));
        prop_assert_eq!(restored.follow_edges(), engine.follow_edges());
    }

    #[test]
    fn damaged_lines_are_refused(
        lines in prop::collection::vec(line(), 1..400),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        from in 0..3u128,
        less in 0..3u128,
        margin in prop_oneof![Just(0usize), Just(BEFORE)],
    ) {
        let mut bytes = vec![b'9'; margin];
        bytes.extend(released_lines(&lines).concat().bytes());
        for (index, byte) in noise {
            if bytes.len() > margin {
                let at = margin + index.index(bytes.len() - margin);
                bytes[at] = byte;
            }
        }
        let to = (lines.len() as u128).saturating_sub(less);
        // What a reader without haste makes of it.
        let mut least = from;
        let mut good = Vec::new();
        let mut bad = to < from;
        for line in bytes[margin..].split_inclusive(|&byte| byte == b'\n') {
            let content = line.strip_suffix(b"\n");
            let content = content.map(|content| content.strip_suffix(b"\r").unwrap_or(content));
            match content.map(parse_line) {
                Some(Ok(event)) if u128::from(event.seq.get()) >= least && u128::from(event.seq.get()) < to && !bad => {
                    least = u128::from(event.seq.get()) + 1;
                    good.push(event);
                }
                _ => {
                    bad = true;
                    break;
                }
            }
        }
        for cpu in Cpu::all() {
            let mut engine = Engine::on(&small_config(), cpu);
            engine.set_cursor(Cursor::new(from));
            let mut at = margin;
            let result = loop {
                match engine.replay(&bytes, at..bytes.len(), Cursor::new(to)) {
                    Ok((_, Replay::Done)) => break Ok(()),
                    Ok((next, Replay::TurnFull)) => at = next,
                    Err(damage) => break Err(damage),
                }
            };
            prop_assert_eq!(result.is_err(), bad, "{:?}", result);
            prop_assert_eq!(engine.counters.events_released_total(), good.len() as u64);
            prop_assert_eq!(engine.cursor().get(), if bad { least } else { to });
        }
    }
}

#[test]
fn numbers_given_up_are_between_the_ends_of_a_block_and_a_new_run_is_told() {
    let mut engine = engine(&EngineConfig { first_sequence: 5, ..small_config() });
    let mut taken = Vec::new();
    engine.record(1 << 20, 8);
    feed(&mut engine, b"7|U|1|2\n9|X\n5|S|1\n", 0, &mut taken);
    engine.skip_all_holes();
    release(&mut engine, &mut taken);
    let expected = [Taken(5, 6, 1, "5|S|1\n".into()), Taken(6, 10, 1, "7|U|1|2\n".into())];
    assert_eq!(taken, expected);
    assert_eq!(engine.take_given_up().to_string(), "6, 8");
    let mut block = Released::default();
    assert!(!engine.take_released(&mut block), "nothing has been released since");
    engine.restart();
    assert!(engine.take_released(&mut block));
    assert!(
        block.restarted
            && block.lines().is_empty()
            && (block.from, block.to) == (Cursor::new(5), Cursor::new(5))
    );
    assert_eq!(block.with_headroom(), &[0; 8]);
    feed(&mut engine, b"5|B\n", 0, &mut taken);
    engine.skip_to(Cursor::END);
    release(&mut engine, &mut taken);
    assert_eq!(taken[2..], [Taken(5, 6, 1, "5|B\n".into()), Taken(6, 1 << 64, 0, String::new())]);
    assert_eq!(engine.take_given_up().numbers, u64::MAX - 5);
}

#[test]
fn an_event_longer_than_the_configuration_allows_is_replayed() {
    let long = format!("{}7|B\n", "0".repeat(9000));
    let lines = format!("5|B\n{long}8|P|1|2\n");
    let mut engine = engine(&EngineConfig { event_bytes_max: 16, ..small_config() });
    let users = BTreeMap::from([(engine.connect(UserId::new(2)), 2)]);
    let mut received = Received::new();
    replay(&mut engine, &users, lines.as_bytes(), 1 << 64, &mut received);
    assert_eq!(received[&2], lines.as_bytes());
}

#[test]
fn while_holes_are_held_none_is_given_up() {
    let mut engine = engine(&EngineConfig { timeout: Some(100), ..small_config() });
    let mut taken = Vec::new();
    feed(&mut engine, b"2|B\n", 0, &mut taken);
    assert_eq!(engine.next_deadline(), Some(100));
    engine.hold_gaps(true, 50);
    feed(&mut engine, b"4|B\n6|B\n", 60, &mut taken);
    assert_eq!(engine.next_deadline(), None);
    engine.expire(10_000);
    assert!(!engine.skip_hole(Some(SequenceNumber::new(9))));
    engine.skip_all_holes();
    release(&mut engine, &mut taken);
    assert_eq!(engine.cursor(), Cursor::new(0));
    // Waits in a source that is blocked.
    engine.set_deadline(SequenceNumber::new(900), 70);
    engine.hold_gaps(false, 1000);
    assert_eq!(engine.next_deadline(), Some(1100));
    engine.expire(1100);
    release(&mut engine, &mut taken);
    assert_eq!(engine.cursor(), Cursor::new(900));
    assert_eq!(engine.take_given_up().to_string(), "0-1, 3, 5, 7-899");
    engine.hold_gaps(true, 1200);
    engine.skip_to(Cursor::new(1000));
    release(&mut engine, &mut taken);
    assert_eq!(engine.cursor(), Cursor::new(1000), "who asks for it by number gets it");
}

#[test]
fn a_number_beyond_the_jump_uses_up_nothing() {
    for (jump, capacity) in [(10, 256), (1000, 256), (300, 256)] {
        let config =
            EngineConfig { max_sequence_jump: Some(jump), capacity, event_bytes_max: 200, ..small_config() };
        let mut engine = engine(&config);
        let mut taken = Vec::new();
        let far = jump + 1;
        let overlong = format!("{far}|S|{}\n", "1".repeat(500));
        let lines = format!("{far}|B\n{far}|X\n{overlong}18446744073709551615|B\r\n0|B\n");
        assert_eq!(feed(&mut engine, lines.as_bytes(), 0, &mut taken), Stop::Drained);
        assert_eq!((engine.cursor(), engine.waiting()), (Cursor::new(1), 0));
        assert_eq!(engine.counters.events_rejected[Reject::TooFar as usize], 4);
        assert_eq!(engine.take_rejects().lines.last().unwrap().seq, Some(SequenceNumber::MAX));
        assert_eq!(engine.counters.events_received, 5);
        // The cursor is at 1 now: the number is within reach of the jump.
        let stop = feed(&mut engine, format!("{far}|B\n").as_bytes(), 0, &mut taken);
        if far < capacity as u64 {
            assert_eq!((stop, engine.waiting()), (Stop::Drained, 1));
        } else {
            assert_eq!(stop, Stop::Blocked(SequenceNumber::new(far)), "too far for the ring only");
        }
        // In order, any number of lines of one chunk is within it.
        let many: String = (1..=900).map(|seq| format!("{seq}|B\n")).collect();
        feed(&mut engine, many.as_bytes(), 0, &mut taken);
        assert_eq!(engine.cursor(), Cursor::new(901));
        assert_eq!(engine.counters.events_rejected.iter().sum::<u64>(), 4);
    }
}

#[test]
fn what_waits_can_be_kept_and_put_back() {
    let mut engine = engine(&small_config());
    let mut taken = Vec::new();
    let long = format!("9|S|{}\n", "1".repeat(15) + "2");
    let longer = format!("{}11|S|2\r\n", "0".repeat(60));
    feed(&mut engine, format!("5|P|1|2\r\n{long}7|X\n{longer}0|B\n").as_bytes(), 0, &mut taken);
    let kept: Vec<(SequenceNumber, Vec<u8>)> =
        engine.waiting_lines().map(|(seq, line)| (seq, line.to_vec())).collect();
    let expected = [(5, "5|P|1|2\r\n"), (7, ""), (9, &long[..]), (11, &longer)];
    assert_eq!(kept, expected.map(|(seq, line)| (SequenceNumber::new(seq), line.as_bytes().to_vec())));
    let mut second = super::released::engine(&small_config());
    second.set_cursor(engine.cursor());
    for (seq, line) in kept {
        if line.is_empty() {
            second.use_up(seq);
        } else {
            feed(&mut second, &line, 0, &mut taken);
        }
    }
    assert_eq!((second.cursor(), second.waiting()), (Cursor::new(1), 4));
    assert_eq!(second.counters.events_rejected.iter().sum::<u64>(), 0);
}

#[test]
fn an_engine_can_begin_behind_the_last_number() {
    let mut engine = engine(&small_config());
    engine.set_cursor(Cursor::END);
    let mut taken = Vec::new();
    feed(&mut engine, b"18446744073709551615|B\n", 0, &mut taken);
    assert_eq!((engine.cursor(), engine.counters.events_late), (Cursor::END, 1));
    assert_eq!(engine.replay(b"", 0..0, Cursor::END), Ok((0, Replay::Done)));
    engine.set_cursor(Cursor::before(SequenceNumber::MAX));
    assert_eq!(engine.replay(b"18446744073709551615|B\n", 0..23, Cursor::END), Ok((23, Replay::Done)));
    let beyond = engine.replay(b"", 0..0, Cursor::new((1 << 64) + 1));
    assert_eq!(beyond, Err(Damage { at: 0, reason: DamageReason::WrongEnd(Cursor::new((1 << 64) + 1)) }));
}
