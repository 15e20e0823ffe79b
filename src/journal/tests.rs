//! The journal on a simulated disk: appended events are there again after every end of the process or the machine.

use super::{
    JournalError, Log, Opening, Read, Reader, Recovered, Settings, Step, SyncMode, Waiting,
    block::BLOCK_HEADER, open, tools,
};
use crate::{
    disk::Disk,
    epoch::Epoch,
    sequence::{Cursor, SequenceNumber},
    sim::{DiskFaults, SimFolder},
    time::SECOND,
    user_id::UserId,
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
};

fn settings(sync: SyncMode) -> Settings {
    Settings {
        sync,
        interval: SECOND,
        segment_bytes: 2000,
        retention_bytes: 1 << 30,
        retention_ms: None,
        snapshot_bytes_least: Settings::SNAPSHOT_BYTES_LEAST,
    }
}

/// What a journal says that there was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    edges: BTreeSet<(UserId, UserId)>,
    cursor: Cursor,
    lines: Vec<u8>,
    waiting: Vec<(u64, Vec<u8>)>,
}

impl State {
    fn apply(&mut self, step: Step<'_>) {
        match step {
            Step::Edges(edges) => self.edges.extend(edges),
            Step::Cursor(cursor) => self.cursor = cursor,
            Step::Lines { from, to, lines } => {
                assert_eq!(from, self.cursor);
                self.cursor = to;
                self.lines.extend_from_slice(lines);
            }
            Step::Waiting(number, line) => self.waiting.push((number.get(), line.to_vec())),
        }
    }
}

fn reopen(folder: &SimFolder, settings: Settings) -> Result<(Recovered, State), JournalError> {
    let mut state = State::default();
    let opening = Opening { settings, first_sequence: Cursor::new(1), epoch: None, now: 0 };
    folder.set_now(0);
    let recovered = open(Box::new(folder.disk()), &opening, &mut |step| {
        state.apply(step);
        Ok(())
    })?;
    Ok((recovered, state))
}

fn line_of(number: u64) -> Vec<u8> {
    format!("{number}|B|{}\n", "x".repeat((number % 300) as usize)).into_bytes()
}

fn append(log: &mut Log, number: u64, now: u64) -> Result<Vec<u8>, JournalError> {
    let line = line_of(number);
    let mut bytes = vec![0; BLOCK_HEADER];
    bytes.extend_from_slice(&line);
    log.append(
        (bytes, BLOCK_HEADER),
        (Cursor::before(SequenceNumber::new(number)), Cursor::behind(SequenceNumber::new(number))),
        1,
        now,
    )?;
    Ok(line)
}

fn proceed_until(log: &mut Log, done: impl Fn(&Log) -> bool) {
    for _ in 0..100 {
        log.proceed(0).unwrap();
        if done(log) {
            return;
        }
    }
    panic!("the journal does not come to rest: {log:?}");
}

#[test]
fn where_users_wait_for_syncs_a_file_has_room_which_is_nothing_torn() {
    let folder = SimFolder::new(1);
    let settings = Settings { segment_bytes: 1 << 22, ..settings(SyncMode::Always) };
    let len = |folder: &SimFolder| {
        let names = folder.names();
        names.into_iter().find(|(name, _)| name.ends_with(".fnj")).map_or(0, |(_, len)| len)
    };
    let mut all = Vec::new();
    for life in 0..3 {
        let (recovered, state) = reopen(&folder, settings).unwrap();
        assert_eq!((recovered.report.cut_bytes, &state.lines), (0, &all), "life {life}");
        let mut log = recovered.log;
        for number in life * 100 + 1..=life * 100 + 100 {
            all.extend(append(&mut log, number, 0).unwrap());
            proceed_until(&mut log, Log::is_open);
        }
        let room = len(&folder) - log.bytes();
        assert!(room > 1 << 19, "there is room for more blocks: {room}");
        if life == 2 {
            log.end(Waiting::default());
            proceed_until(&mut log, Log::has_ended);
            assert_eq!(len(&folder), log.bytes(), "at the end the room is cut off");
        }
        drop(log);
        folder.end_process();
    }
    let mut log = reopen(&folder, settings).unwrap().0.log;
    append(&mut log, 301, 0).unwrap();
    proceed_until(&mut log, Log::is_open);
    // What is torn stands in the room, and is told: these bytes, without the zeros behind them.
    let (name, _) = folder.names().into_iter().find(|(name, _)| name.ends_with(".fnj")).unwrap();
    let mut disk = folder.disk();
    let file = disk.open(&name).unwrap();
    disk.write_at(file, log.bytes(), &[7; 500]).unwrap();
    drop(log);
    folder.end_process();
    assert_eq!(reopen(&folder, settings).unwrap().0.report.cut_bytes, 500);
}

#[test]
fn what_was_appended_is_there_after_the_process_has_ended() {
    let folder = SimFolder::new(1);
    let (recovered, state) = reopen(&folder, settings(SyncMode::Never)).unwrap();
    assert!(recovered.report.is_new && recovered.report.is_empty);
    assert_eq!(state.cursor, Cursor::new(1));
    let mut log = recovered.log;
    let epoch = log.epoch();
    let mut all = Vec::new();
    for number in 1..100 {
        all.extend(append(&mut log, number, 0).unwrap());
        assert!(log.is_open());
    }
    drop(log);
    folder.end_process();
    let (recovered, state) = reopen(&folder, settings(SyncMode::Never)).unwrap();
    assert_eq!((state.cursor, &state.lines), (Cursor::new(100), &all));
    assert_eq!(recovered.log.epoch(), epoch);
    assert!(folder.names().len() > 5, "the journal has several segments");
    // A reader finds the same.
    let mut log = recovered.log;
    let mut reader = Reader::new(Cursor::new(50));
    let mut read = Vec::new();
    while reader.next(&mut log).unwrap() == Read::Block {
        read.extend_from_slice(reader.lines());
    }
    reader.close(&mut log);
    assert!(read.starts_with(b"50|B|") && all.ends_with(&read));
}

#[test]
fn a_reader_at_the_end_sees_everything_once_it_is_written() {
    for sync in [SyncMode::Never, SyncMode::Always] {
        let folder = SimFolder::new(7);
        let settings = Settings { segment_bytes: 40_000, ..settings(sync) };
        let mut log = reopen(&folder, settings).unwrap().0.log;
        // From now on what is read has been fetched ahead, up to where the journal ends.
        folder.set_faults(DiskFaults { not_in_memory: 5000, delay_max: 300, ..DiskFaults::default() });
        let mut reader = Reader::new(Cursor::new(1));
        let (mut all, mut read) = (Vec::new(), Vec::new());
        let mut read_on = |log: &mut Log| loop {
            match reader.next(log).unwrap() {
                Read::Block => read.extend_from_slice(reader.lines()),
                Read::Later | Read::Part => {}
                Read::End => return read.len(),
            }
        };
        for number in 1..=600 {
            all.extend(append(&mut log, number, 0).unwrap());
            log.proceed(0).unwrap();
            // While it is being written.
            assert!(read_on(&mut log) <= all.len());
            while !log.is_open() {
                folder.set_now(folder.next_completion().expect("something is under way"));
                log.proceed(0).unwrap();
            }
            assert_eq!(read_on(&mut log), all.len(), "{sync:?}: number {number}");
        }
        assert!(read == all, "{sync:?}");
        assert!(folder.counts().not_in_memory > 20 && folder.names().len() > 3);
        reader.close(&mut log);
    }
}

#[test]
fn events_that_wait_are_kept_until_something_is_released() {
    let folder = SimFolder::new(2);
    let (recovered, _) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
    let mut log = recovered.log;
    append(&mut log, 1, 0).unwrap();
    let mut waiting = Waiting::default();
    waiting.push(SequenceNumber::new(5), b"5|B\n");
    waiting.push(SequenceNumber::new(7), b"");
    log.end(waiting);
    log.proceed(0).unwrap();
    assert!(log.has_ended());
    drop(log);
    folder.end_machine();
    for _ in 0..2 {
        let (_, state) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
        assert_eq!(state.waiting, [(5, b"5|B\n".to_vec()), (7, Vec::new())]);
        assert_eq!(state.cursor, Cursor::new(2));
    }
    let (recovered, _) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
    let mut log = recovered.log;
    append(&mut log, 2, 0).unwrap();
    drop(log);
    let (_, state) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
    assert_eq!(state.waiting, []);
}

#[test]
fn a_flipped_bit_below_a_mark_is_damage_and_is_named() {
    let folder = SimFolder::new(3);
    let (recovered, _) = reopen(&folder, settings(SyncMode::Always)).unwrap();
    let mut log = recovered.log;
    for number in 1..60 {
        append(&mut log, number, 0).unwrap();
    }
    log.end(Waiting::default());
    log.proceed(0).unwrap();
    assert!(log.has_ended());
    drop(log);
    let files = folder.names();
    let segments: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".fnj")).collect();
    // Everything but the last block, which is the mark itself.
    for (index, (name, len)) in segments.iter().enumerate() {
        let end =
            if index + 1 == segments.len() { len - BLOCK_HEADER.next_multiple_of(64) as u64 } else { *len };
        for bit in (0..end * 8).step_by(101) {
            folder.flip(name, bit);
            let error = reopen(&folder, settings(SyncMode::Always)).map(|_| ()).unwrap_err();
            assert_eq!(error.damage_place().map(|(file, _)| file), Some(name.as_str()), "bit {bit}: {error}");
            folder.flip(name, bit);
        }
    }
    reopen(&folder, settings(SyncMode::Always)).unwrap();
}

#[test]
fn a_start_cuts_off_what_stands_behind_a_segment_that_is_followed() {
    let folder = SimFolder::new(1);
    let mut log = reopen(&folder, settings(SyncMode::Never)).unwrap().0.log;
    for number in 1..60 {
        append(&mut log, number, 0).unwrap();
    }
    log.end(Waiting::default());
    proceed_until(&mut log, Log::has_ended);
    drop(log);
    let names: Vec<_> = folder.names().into_iter().filter(|(name, _)| name.ends_with(".fnj")).collect();
    let [.., (before, len), (last, _)] = &names[..] else { panic!("one segment only: {names:?}") };
    // It was cut off, but the machine ended before that was durable.
    let mut disk = folder.disk();
    let file = disk.open(before).unwrap();
    disk.write_at(file, *len, &[0; 4096]).unwrap();
    disk.close(file);
    reopen(&folder, settings(SyncMode::Never)).unwrap();
    assert_eq!(folder.names().iter().find(|(name, _)| name == before).map(|(_, len)| len), Some(len));
    // The header of the last segment says where the one before it ends.
    folder.flip(last, 240);
    let error = reopen(&folder, settings(SyncMode::Never)).map(|_| ()).unwrap_err();
    assert_eq!(error.damage_place(), Some((last.as_str(), 0)), "{error}");
}

#[test]
fn a_start_reads_all_that_may_not_have_been_durable() {
    let folder = SimFolder::new(1);
    let mut log = reopen(&folder, settings(SyncMode::Interval)).unwrap().0.log;
    for number in 1..=13 {
        append(&mut log, number, 0).unwrap();
    }
    assert!(log.begin_snapshot().unwrap());
    log.write_snapshot(true).unwrap();
    log.proceed(SECOND).unwrap();
    // A mark, which nothing waits for. Then the next segment begins, and the machine ends: it has kept that, and not the mark.
    let before = log.bytes();
    folder.set_faults(DiskFaults { delay_max: 1000, ..DiskFaults::default() });
    for now in [10 * SECOND, 10 * SECOND + 1000] {
        folder.set_now(now);
        log.proceed(now).unwrap();
    }
    let mark = log.bytes() - before;
    append(&mut log, 14, 10 * SECOND + 1000).unwrap();
    folder.set_now(11 * SECOND);
    log.proceed(11 * SECOND).unwrap();
    assert_eq!(log.appended_cursor(), Cursor::new(15));
    drop(log);
    folder.set_faults(DiskFaults::default());
    folder.end_process();
    let mut disk = folder.disk();
    let (name, len) = &folder.names()[0];
    let file = disk.open(name).unwrap();
    disk.write_at(file, len - mark, &vec![0; mark as usize]).unwrap();
    disk.close(file);
    let (_, state) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
    assert_eq!((state.cursor, dump(&folder)), (Cursor::new(14), (1..=13).flat_map(line_of).collect()));
}

/// A machine that loses the name of a segment may leave its blocks in the file that was to be written over. The next start goes on at the
/// same position, where these blocks would continue the chain.
#[test]
fn a_segment_whose_name_was_lost_does_not_come_back() {
    for seed in 0..10 {
        let folder = SimFolder::new(seed);
        let mut log = reopen(&folder, settings(SyncMode::Never)).unwrap().0.log;
        for number in 1..60 {
            append(&mut log, number, 0).unwrap();
        }
        drop(log);
        let (name, _) = folder.names().into_iter().rfind(|(name, _)| name.ends_with(".fnj")).unwrap();
        folder.disk().rename(&name, "spare.fnj").unwrap();
        let (recovered, State { cursor, .. }) = reopen(&folder, settings(SyncMode::Never)).unwrap();
        let number = SequenceNumber::new(cursor.get() as u64);
        let behind = Cursor::behind(number);
        assert!(behind < Cursor::new(60), "one event only was in {name}");
        // The process ends while its block is on its way to the disk.
        folder.set_faults(DiskFaults { delay_max: SECOND, ..DiskFaults::default() });
        let mut log = recovered.log;
        append(&mut log, number.get(), 0).unwrap();
        drop(log);
        folder.end_process();
        let found = reopen(&folder, settings(SyncMode::Never)).unwrap().1.cursor;
        assert!([cursor, behind].contains(&found), "seed {seed}: {found:?}, not {cursor:?}");
    }
}

/// Everything, as whoever reads it from the beginning gets it.
fn dump(folder: &SimFolder) -> Vec<u8> {
    let mut all = Vec::new();
    tools::dump(&mut folder.disk(), SequenceNumber::default(), SequenceNumber::MAX, &mut all).unwrap();
    all
}

#[test]
fn a_full_disk_stalls_and_goes_on() {
    let folder = SimFolder::new(4);
    let (recovered, _) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
    let mut log = recovered.log;
    folder.set_faults(DiskFaults { room: Some(10), ..DiskFaults::default() });
    append(&mut log, 1, 0).unwrap();
    assert!(!log.is_open());
    assert!(log.stalled().is_some());
    assert_eq!(log.next_deadline(), Some(SECOND));
    folder.set_faults(DiskFaults::default());
    log.proceed(SECOND).unwrap();
    assert!(log.is_open() && log.stalled().is_none());
    assert_eq!(log.appended_cursor(), Cursor::new(2));
}

#[test]
fn a_snapshot_replaces_what_came_before_it() {
    let folder = SimFolder::new(5);
    let small = Settings { retention_bytes: 6000, ..settings(SyncMode::Interval) };
    let (recovered, _) = reopen(&folder, small).unwrap();
    let mut log = recovered.log;
    let mut snapshots = 0;
    for number in 1..3000 {
        append(&mut log, number, number * 1000).unwrap();
        if log.wants_snapshot() {
            assert!(log.begin_snapshot().unwrap());
            log.push_edge(UserId::new(1), UserId::new(number));
            log.write_snapshot(true).unwrap();
            snapshots += 1;
        }
    }
    assert!(snapshots > 3);
    assert!(log.bytes() < 200_000, "{} bytes are kept", log.bytes());
    let first = log.first();
    assert!(first > Cursor::new(1000));
    assert_eq!(log.start_for(Cursor::new(first.get() - 1)), None);
    assert!(log.start_for(first).is_some());
    log.proceed(4 * SECOND).unwrap();
    drop(log);
    folder.end_process();
    let (recovered, state) = reopen(&folder, small).unwrap();
    assert_eq!(state.cursor, Cursor::new(3000));
    assert_eq!(state.edges.len(), 1);
    assert!(recovered.report.snapshot.is_some());
}

#[test]
fn a_snapshot_that_replaces_one_of_the_same_cursors_stays() {
    let folder = SimFolder::new(6);
    let small = Settings { retention_bytes: 0, ..settings(SyncMode::Interval) };
    let (recovered, _) = reopen(&folder, small).unwrap();
    let mut log = recovered.log;
    for number in 1..50 {
        append(&mut log, number, number * SECOND).unwrap();
    }
    for _ in 0..2 {
        assert!(log.begin_snapshot().unwrap());
        log.write_snapshot(true).unwrap();
        log.proceed(100 * SECOND).unwrap();
    }
    append(&mut log, 50, 200 * SECOND).unwrap();
    log.proceed(300 * SECOND).unwrap();
    drop(log);
    folder.end_process();
    let (recovered, state) = reopen(&folder, small).unwrap();
    assert!(recovered.report.snapshot.is_some());
    assert_eq!(state.cursor, Cursor::new(51));
}

#[test]
fn a_journal_that_has_nothing_to_do_wants_no_turn() {
    let folder = SimFolder::new(7);
    let (recovered, _) = reopen(&folder, settings(SyncMode::Never)).unwrap();
    let mut log = recovered.log;
    for now in [0, SECOND, 2 * SECOND] {
        log.proceed(now).unwrap();
        assert!(log.next_deadline().is_none_or(|at| at > now), "at {now}");
    }
    // While a write that had found no room is tried again, there is nothing to do either.
    folder.set_faults(DiskFaults { room: Some(10), ..DiskFaults::default() });
    append(&mut log, 1, 3 * SECOND).unwrap();
    folder.set_faults(DiskFaults { delay_max: SECOND, ..DiskFaults::default() });
    log.proceed(5 * SECOND).unwrap();
    assert!(!log.is_open());
    assert!(log.next_deadline().is_none_or(|at| at > 5 * SECOND));
}

fn snapshot_now_and_then(log: &mut Log, number: u64) -> Result<(), JournalError> {
    if number.is_multiple_of(17) && log.is_open() && log.begin_snapshot()? {
        log.write_snapshot(true)?;
    }
    Ok(())
}

/// Runs a journal on a faulty disk until something ends it. Returns all lines, and how many events were durable.
fn live(folder: &SimFolder, sync: SyncMode, first: u64, events: u64) -> (Vec<Vec<u8>>, Cursor) {
    let mut lines = Vec::new();
    let Ok((recovered, _)) = reopen(folder, settings(sync)) else { return (lines, Cursor::START) };
    let mut log = recovered.log;
    let mut now = 0;
    for number in first..first + events {
        while !log.is_open() {
            now += 1000;
            folder.set_now(now);
            if log.proceed(now).is_err() {
                return (lines, log.durable_cursor());
            }
        }
        now += 70_000;
        folder.set_now(now);
        lines.push(line_of(number));
        if append(&mut log, number, now).is_err() {
            return (lines, log.durable_cursor());
        }
        // The server ends at the first error, whatever it was doing.
        if snapshot_now_and_then(&mut log, number).and_then(|()| log.proceed(now)).is_err() {
            return (lines, log.durable_cursor());
        }
    }
    (lines, log.durable_cursor())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// After the end of a machine there is a prefix of the appended events, with all durable ones.
    #[test]
    fn a_prefix_survives_the_machine(seed: u64, mode in 0..3, events in 1..80_u64, slow: bool, fails: bool) {
        let sync = [SyncMode::Always, SyncMode::Interval, SyncMode::Never][mode as usize];
        let folder = SimFolder::new(seed);
        reopen(&folder, settings(sync)).unwrap();
        let error = if fails { 400 } else { 0 };
        folder.set_faults(DiskFaults {
            short_write: 8000,
            write_error: error,
            sync_error: error,
            rename_error: error,
            open_error: error,
            delay_max: if slow { 5000 } else { 0 },
            ..DiskFaults::default()
        });
        let (lines, durable) = live(&folder, sync, 1, events);
        folder.end_machine();
        let (recovered, state) = reopen(&folder, settings(sync)).unwrap();
        prop_assert!(state.cursor >= durable, "{} was durable, {} is left", durable, state.cursor);
        let whole = lines.concat();
        prop_assert!(whole.starts_with(&state.lines) || recovered.report.snapshot.is_some());
        prop_assert!(state.cursor.get() as usize <= lines.len() + 1);
        // Whoever reads it from the beginning gets as far as the server: nothing is missing in the middle.
        prop_assert_eq!(dump(&folder), lines[..state.cursor.get() as usize - 1].concat());
        // It goes on from there, and that survives a second end.
        drop(recovered);
        folder.end_machine();
        let (_, again) = reopen(&folder, settings(sync)).unwrap();
        prop_assert_eq!(again.cursor, state.cursor);
    }

    /// Whatever a segment contains, it is read or refused.
    #[test]
    fn arbitrary_bytes_are_refused(seed: u64, flips in prop::collection::vec(any::<u64>(), 1..20)) {
        let folder = SimFolder::new(seed);
        live(&folder, SyncMode::Interval, 1, 60);
        for flip in flips {
            let names = folder.names();
            let (name, len) = &names[flip as usize % names.len()];
            if *len > 0 {
                folder.flip(name, (flip >> 8) % (len * 8));
            }
        }
        if let Err(error) = reopen(&folder, settings(SyncMode::Interval)) {
            prop_assert!(!error.to_string().is_empty());
        }
    }
}

/// Whoever reads a dump slowly, while the server goes on and keeps little.
struct SlowReader<'a> {
    log: &'a mut Log,
    /// The next number to append, and the last one.
    next: u64,
    last: u64,
    read: Vec<u8>,
}

impl std::io::Write for SlowReader<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.read.extend_from_slice(bytes);
        while self.next <= self.last {
            append(self.log, self.next, self.next * SECOND).unwrap();
            self.log.proceed(self.next * SECOND).unwrap();
            if self.log.wants_snapshot() && self.log.begin_snapshot().unwrap() {
                self.log.write_snapshot(true).unwrap();
            }
            self.log.proceed(self.next * SECOND).unwrap();
            self.next += 1;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_dump_that_retention_overtakes_says_so_and_leaves_nothing_out() {
    let folder = SimFolder::new(3);
    let little =
        Settings { retention_bytes: 20_000, snapshot_bytes_least: 1000, ..settings(SyncMode::Interval) };
    let (Recovered { mut log, .. }, _) = reopen(&folder, little).unwrap();
    for number in 1..=60 {
        append(&mut log, number, number * SECOND).unwrap();
        log.proceed(number * SECOND).unwrap();
    }
    let mut reader = SlowReader { log: &mut log, next: 61, last: 600, read: Vec::new() };
    let error = tools::dump(&mut folder.observer(), SequenceNumber::new(1), SequenceNumber::MAX, &mut reader)
        .unwrap_err()
        .to_string();
    assert!(error.contains("retention was faster than the dump: from number "), "{error}");
    let lines: Vec<&[u8]> = reader.read.split_inclusive(|&byte| byte == b'\n').collect();
    for (line, number) in lines.iter().zip(1..) {
        assert_eq!(*line, line_of(number));
    }
    assert!((1..600).contains(&lines.len()), "{} lines", lines.len());
    reader.read.clear();
    tools::dump(&mut folder.observer(), SequenceNumber::new(1), SequenceNumber::MAX, &mut reader).unwrap();
    assert!(reader.read.ends_with(&line_of(600)));
}

/// Appends so much with little kept that segments go, and says what is left of that after the end of the process.
fn go_on_with_little(folder: &SimFolder, mut log: Log, first: u64, events: u64) -> State {
    for number in first..first + events {
        append(&mut log, number, number * SECOND).unwrap();
        log.proceed(number * SECOND).unwrap();
        if log.wants_snapshot() && log.begin_snapshot().unwrap() {
            log.push_edge(UserId::new(1), UserId::new(number));
            log.write_snapshot(true).unwrap();
        }
        log.proceed(number * SECOND).unwrap();
    }
    drop(log);
    folder.end_process();
    reopen(folder, settings(SyncMode::Interval)).unwrap().1
}

#[test]
fn a_new_beginning_that_is_cut_short_leaves_one_journal_and_no_snapshot_of_the_other() {
    let (mut old, mut new) = (0, 0);
    for ends_after in 0.. {
        let folder = SimFolder::new(ends_after);
        let little =
            Settings { retention_bytes: 0, snapshot_bytes_least: 1000, ..settings(SyncMode::Interval) };
        let (Recovered { mut log, .. }, _) = reopen(&folder, little).unwrap();
        for number in 1..=20 {
            append(&mut log, number, 0).unwrap();
        }
        folder.set_faults(DiskFaults { ends_after: Some(ends_after), ..DiskFaults::default() });
        let ended = catch_unwind(AssertUnwindSafe(|| {
            log.found(Epoch::new(7), Cursor::new(1000), |push| push(UserId::new(3), UserId::new(4))).unwrap();
        }));
        drop(log);
        folder.end_process();
        let (recovered, state) = reopen(&folder, little).unwrap();
        let (first, edges) = if recovered.log.is_founded() {
            (1000, vec![(UserId::new(3), UserId::new(4))])
        } else {
            (21, vec![])
        };
        *(if first == 21 { &mut old } else { &mut new }) += 1;
        assert_eq!(state.cursor, Cursor::new(first.into()), "it ended after {ends_after} operations");
        assert_eq!(state.edges, BTreeSet::from_iter(edges));
        let is_foreign = |name: &str| name.ends_with(".fns") && !name.starts_with(&format!("{first:020}-"));
        let names = folder.names();
        assert!(!names.iter().any(|(name, _)| is_foreign(name)), "{names:?}");
        let state = go_on_with_little(&folder, recovered.log, first, 50);
        assert_eq!(state.cursor, Cursor::new(u128::from(first) + 50));
        if ended.is_ok() {
            break;
        }
    }
    assert!(old > 3 && new > 3, "{old} ended with the old journal, {new} with the new one");
}

#[test]
fn retention_does_not_rely_on_a_damaged_snapshot() {
    let folder = SimFolder::new(5);
    let all = settings(SyncMode::Interval);
    let (Recovered { mut log, .. }, _) = reopen(&folder, all).unwrap();
    for number in 1..=60 {
        append(&mut log, number, 0).unwrap();
        if number == 40 {
            assert!(log.begin_snapshot().unwrap());
            log.write_snapshot(true).unwrap();
            log.proceed(2 * SECOND).unwrap();
            log.proceed(2 * SECOND).unwrap();
        }
    }
    drop(log);
    folder.end_process();
    let (name, len) = folder.names().into_iter().find(|(name, _)| name.ends_with(".fns")).unwrap();
    folder.flip(&name, len * 4);
    let little = Settings { retention_bytes: 0, snapshot_bytes_least: 1 << 20, ..all };
    let (recovered, state) = reopen(&folder, little).unwrap();
    assert_eq!(recovered.report.damaged_snapshots, [name]);
    let state_then = go_on_with_little(&folder, recovered.log, 61, 50);
    assert_eq!(state.cursor, Cursor::new(61));
    assert_eq!(state_then.cursor, Cursor::new(111));
    assert!(state_then.lines.starts_with(&state.lines));
}

/// Otherwise a server whose disk is slow would turn without end, and wait for nothing.
#[test]
fn a_deadline_that_has_passed_is_met_or_is_none() {
    for seed in 0..20 {
        let folder = SimFolder::new(seed);
        let (Recovered { mut log, .. }, _) = reopen(&folder, settings(SyncMode::Interval)).unwrap();
        let faults = DiskFaults { delay_max: SECOND / 2, short_write: 20_000, ..DiskFaults::default() };
        folder.set_faults(faults);
        let mut number = 0;
        for step in 0..2000 {
            let now = step * SECOND / 100;
            folder.set_now(now);
            log.proceed(now).unwrap();
            if log.is_open() && step % 70 < 3 {
                number += 1;
                append(&mut log, number, now).unwrap();
            }
            log.proceed(now).unwrap();
            assert!(log.next_deadline().is_none_or(|at| at > now), "seed {seed}, step {step}");
        }
    }
}
