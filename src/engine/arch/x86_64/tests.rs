//! The ways to read lines by the batch against the portable one.

use super::{
    Cpu,
    lines::{Lines, PIECE, WINDOW},
};
use crate::engine::{
    arch::{
        batch::BATCH_LINES,
        scan::{AFTER, BEFORE, scan_line, window},
    },
    event::Kind,
    packed::{FRESH, ORDINARY, Packed},
};
use proptest::prelude::*;

type Scan = fn(Cpu, &[u8], usize, &mut Lines) -> usize;

/// All ways to read lines by the batch that there are on this processor.
fn ways() -> Vec<(Cpu, Scan)> {
    let columns: Scan =
        |cpu, chunk, at, lines| cpu.scan_by_columns(chunk, at, lines).expect("it reads by the batch");
    let best: Scan = |cpu, chunk, at, lines| cpu.scan(chunk, at, lines).expect("it reads by the batch");
    let all = Cpu::all().into_iter();
    let ways = |cpu: Cpu| [cpu.has_avx2.then_some((cpu, columns)), cpu.avx512.map(|_| (cpu, best))];
    all.flat_map(ways).flatten().collect()
}

/// Ordinary lines most of the time, and all kinds of others.
fn line() -> impl Strategy<Value = String> {
    let number = || prop_oneof![6 => "[0-9]{1,4}", 2 => "[0-9]{5,8}", 1 => "[0-9]{9,21}"];
    let end = || prop_oneof!["\n", "\r\n"];
    prop_oneof![
        20 => (number(), "[FUP]", number(), number(), end()).prop_map(|(seq, kind, from, to, end)| format!("{seq}|{kind}|{from}|{to}{end}")),
        8 => (number(), number(), end()).prop_map(|(seq, from, end)| format!("{seq}|S|{from}{end}")),
        4 => (number(), end()).prop_map(|(seq, end)| format!("{seq}|B{end}")),
        1 => ("[0-9|FUBPSX\r]{0,40}", end()).prop_map(|(line, end)| format!("{line}{end}")),
        1 => (number(), "[FUBPSX|]{1,2}", number(), end()).prop_map(|(seq, kind, from, end)| format!("{seq}|{kind}|{from}{end}")),
    ]
}

/// What the portable scan makes of the line at a position.
fn read_alone(chunk: &[u8], at: usize) -> Option<(u64, Packed, usize)> {
    let line = scan_line(window(chunk, at)?)?;
    let slot = Packed::new(line.kind, FRESH, line.from, line.to, at as u32, line.len as u16);
    Some((line.seq, slot, at + line.len))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]
    #[test]
    fn it_reads_what_the_portable_scan_reads(
        lines in prop::collection::vec(line(), 0..600),
        noise in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2),
        rest in 0..100usize,
    ) {
        let mut chunk = vec![b'9'; BEFORE];
        chunk.extend(lines.concat().bytes());
        for (index, byte) in noise {
            if chunk.len() > BEFORE {
                let at = BEFORE + index.index(chunk.len() - BEFORE);
                chunk[at] = byte;
            }
        }
        chunk.extend(vec![b'8'; rest]);
        // The portable scan wants more room behind a line.
        let padded = [&chunk[..], &[b'8'; AFTER]].concat();
        for (cpu, scan) in ways() {
            let mut batch = Lines::default();
            let mut at = BEFORE;
            loop {
                let next = scan(cpu, &chunk, at, &mut batch);
                let mut alone = at;
                for (seq, slot) in batch.iter() {
                    let (own_seq, own_slot, end) = read_alone(&padded, alone).expect("no ordinary line");
                    prop_assert_eq!(seq, own_seq);
                    prop_assert_eq!((slot.kind(), slot.len(), slot.text()), (own_slot.kind(), own_slot.len(), own_slot.text()));
                    prop_assert!(slot.has(FRESH) && slot.has(ORDINARY) && !slot.has(!(FRESH | ORDINARY)));
                    // Fields that a kind has not are anything.
                    if slot.kind() != Kind::Broadcast as u8 {
                        prop_assert_eq!(slot.from(), own_slot.from());
                        if slot.kind() != Kind::Status as u8 {
                            prop_assert_eq!(slot.to(), own_slot.to());
                        }
                    }
                    alone = end;
                }
                prop_assert_eq!(alone, next, "it says how far it has come");
                if batch.len() < BATCH_LINES && next + WINDOW + AFTER + 2 * PIECE < chunk.len() {
                    prop_assert!(read_alone(&padded, next).is_none(), "it stops where the portable scan stops");
                }
                // On behind the line that it did not take.
                at = match chunk[next..].iter().position(|&byte| byte == b'\n') {
                    Some(newline) => next + newline + 1,
                    None => break,
                };
            }
        }
    }
}

#[test]
fn a_batch_is_full_at_some_point_and_goes_on() {
    let mut chunk = vec![b'9'; BEFORE];
    chunk.extend((0..1000).flat_map(|seq| format!("{seq}|P|{seq}|7\r\n").into_bytes()));
    chunk.extend([b'9'; AFTER + PIECE]);
    for (cpu, scan) in ways() {
        let (mut batch, mut at, mut seqs) = (Lines::default(), BEFORE, Vec::new());
        loop {
            at = scan(cpu, &chunk, at, &mut batch);
            seqs.extend(batch.iter().map(|(seq, slot)| (seq, slot.from(), slot.to())));
            if batch.len() < BATCH_LINES {
                break;
            }
        }
        assert_eq!(seqs, (0..1000).map(|seq| (seq, seq, 7)).collect::<Vec<_>>());
    }
}

#[test]
fn there_is_no_batch_where_there_is_no_room() {
    for (cpu, scan) in ways() {
        let mut batch = Lines::default();
        for (len, at) in [(0, 0), (0, 16), (15, 15), (16, 16), (20, 64), (100, 3)] {
            let chunk = vec![b'\n'; len];
            assert_eq!(scan(cpu, &chunk, at, &mut batch), at, "{len} bytes, from {at} on");
            assert_eq!(batch.len(), 0);
        }
    }
}
