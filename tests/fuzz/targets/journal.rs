//! The readers of a journal: what is made of a folder whose files are not what was written.
//!
//! An input is a list of changes of [`CHANGE`] bytes to the files of a small journal, and what is left over replaces a file. Whatever
//! that makes of it: every reader answers, or refuses with one sentence, and nothing that was not released is ever handed out.

use fortnight::internals::{
    disk::Disk,
    journal::{JournalError, Opening, Settings, Step, SyncMode, Waiting, block::BLOCK_HEADER, open, tools},
    sim::SimFolder,
    time::SECOND,
};
use fortnight::{Cursor, SequenceNumber, UserId};
use std::cell::OnceCell;

/// Bytes of a change: what is done, to which file, where (two bytes), and with what.
const CHANGE: usize = 5;
/// Changes of an input at most.
const CHANGES_MAX: usize = 16;

thread_local! {
    static WHOLE: OnceCell<(SimFolder, Vec<u8>)> = const { OnceCell::new() };
}

/// Runs the readers on one input.
pub fn run(input: &[u8]) {
    let (folder, released) = WHOLE.with(|whole| {
        let (folder, released) = whole.get_or_init(make);
        (folder.copy(), released.clone())
    });
    change(&folder, input);
    let mut disk = folder.observer();
    one_sentence(tools::check(&mut disk));
    let mut dumped = Vec::new();
    one_sentence(tools::dump(&mut disk, SequenceNumber::default(), SequenceNumber::MAX, &mut dumped));
    assert_part(&dumped, &released);
    one_sentence(tools::find_cut(&mut disk, None));
    one_sentence(tools::find_cut(&mut disk, Some(Cursor::new(5))));
    let target = SimFolder::new(7);
    if one_sentence(tools::copy(&mut disk, &mut target.disk())) {
        // What was believed once is believed again.
        let checked = tools::check(&mut target.observer());
        assert!(checked.is_ok(), "the copy of a journal is refused: {checked:?}");
    }
    let mut recovered = Vec::new();
    let opened = open(Box::new(folder.copy().disk()), &opening(), &mut |step| {
        if let Step::Lines { lines, .. } = step {
            recovered.extend_from_slice(lines);
        }
        Ok(())
    });
    one_sentence(opened);
    assert_part(&recovered, &released);
}

fn opening() -> Opening {
    let settings = Settings {
        sync: SyncMode::Always,
        interval: SECOND,
        segment_bytes: 600,
        retention_bytes: 1 << 30,
        retention_ms: None,
        snapshot_bytes_least: Settings::SNAPSHOT_BYTES_LEAST,
    };
    Opening { settings, first_sequence: Cursor::new(1), epoch: None, now: 0 }
}

/// A journal with several segments, a snapshot and events that wait; and what was released.
fn make() -> (SimFolder, Vec<u8>) {
    let folder = SimFolder::new(1);
    let mut log = open(Box::new(folder.disk()), &opening(), &mut |_| Ok(())).expect("an empty journal").log;
    let mut released = Vec::new();
    for number in 1..=12 {
        let line = format!("{number}|F|{}|{}\n", number * 3, number * 5);
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(line.as_bytes());
        released.extend_from_slice(line.as_bytes());
        log.append((block, BLOCK_HEADER), (Cursor::new(number), Cursor::new(number + 1)), 1, 0)
            .expect("an append");
        if number == 6 {
            assert!(log.begin_snapshot().expect("a snapshot"));
            (1..=6).for_each(|number| log.push_edge(UserId::new(number * 3), UserId::new(number * 5)));
            log.write_snapshot(true).expect("a snapshot");
            log.proceed(0).expect("a snapshot");
        }
    }
    let mut waiting = Waiting::default();
    waiting.push(SequenceNumber::new(20), b"20|B\n");
    log.end(waiting);
    log.proceed(0).expect("an end");
    assert!(log.has_ended());
    (folder, released)
}

/// Changes files as the input says.
fn change(folder: &SimFolder, input: &[u8]) {
    let mut disk = folder.observer();
    let names: Vec<_> = folder.names().into_iter().map(|(name, _)| name).collect();
    let mut rest = input;
    for _ in 0..CHANGES_MAX {
        let Some((&[what, file, high, low, value], behind)) = rest.split_first_chunk::<CHANGE>() else {
            break;
        };
        rest = behind;
        let name = &names[usize::from(file) % names.len()];
        let at = u64::from(u16::from_be_bytes([high, low]));
        // It may have been removed by an earlier change.
        let Ok(open) = disk.open(name) else { continue };
        let done = match what % 6 {
            0 | 1 => disk.write_at(open, at, &[value]),
            2 => disk.truncate(open, at % 1024),
            3 => disk.write_at(open, at % 1024, &vec![value; usize::from(value)]),
            4 => disk.remove(name),
            _ => {
                let with = std::mem::take(&mut rest);
                disk.truncate(open, 0).and_then(|()| disk.write_at(open, 0, with))
            }
        };
        done.expect("nothing goes wrong for whoever looks on");
        disk.close(open);
    }
}

/// Whether it went well. If not, it says why in one sentence.
fn one_sentence<T>(outcome: Result<T, JournalError>) -> bool {
    let Err(error) = outcome else { return true };
    let sentence = error.to_string();
    assert!(!sentence.is_empty() && !sentence.contains('\n'), "no sentence: {sentence:?}");
    false
}

/// What is handed out was released, in this order.
fn assert_part(lines: &[u8], released: &[u8]) {
    let is_part = lines.is_empty() || released.windows(lines.len()).any(|part| part == lines);
    assert!(is_part, "{:?} was not released so", String::from_utf8_lossy(lines));
}
