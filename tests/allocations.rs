//! In the steady state the engine allocates nothing: its hot path works in memory that it has.

use fortnight::engine::{Engine, EngineConfig, Stop};

const USERS: u64 = 200;
const CONNECTED: u64 = 100;
const CHUNK_BYTES: usize = 64 << 10;
const MARGIN: usize = 64;
/// All numbers have the same length.
const FIRST: u64 = 5_000_000;
/// Enough for every pair of users to have changed ten times: by then the graph is as dense as it gets.
const WARM_UP_CHUNKS: usize = 300;
const CHUNKS: usize = 300;

/// Steele, Lea, Flood: "Fast splittable pseudorandom number generators".
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % bound
    }
}

/// Chunks of lines in the default mix, each batch of a hundred numbers in random order: some always wait at the end of
/// a chunk, and `settle` saves them.
fn chunks(count: usize) -> Vec<Vec<u8>> {
    let mut random = SplitMix(666);
    let mut chunks = vec![vec![b' '; MARGIN]];
    for first in (FIRST..).step_by(100) {
        let mut batch: Vec<u64> = (first..first + 100).collect();
        for at in (1..batch.len()).rev() {
            batch.swap(at, random.below(at as u64 + 1) as usize);
        }
        for seq in batch {
            let (from, to) = (random.below(USERS) + 1, random.below(USERS) + 1);
            let line = match random.below(100) {
                0..25 => format!("{seq}|F|{from}|{to}\r\n"),
                25..44 => format!("{seq}|U|{from}|{to}\r\n"),
                44 => format!("{seq}|B\r\n"),
                45..75 => format!("{seq}|P|{from}|{to}\r\n"),
                _ => format!("{seq}|S|{from}\r\n"),
            };
            let last = chunks.len() - 1;
            chunks[last].extend_from_slice(line.as_bytes());
            if chunks[last].len() > CHUNK_BYTES {
                chunks[last].resize(CHUNK_BYTES + 2 * MARGIN, b' ');
                if chunks.len() == count {
                    return chunks;
                }
                chunks.push(vec![b' '; MARGIN]);
            }
        }
    }
    chunks
}

/// Feeds the chunks from time `now` on and delivers turn by turn; returns turns and bytes delivered.
fn drive(engine: &mut Engine, chunks: &[Vec<u8>], mut now: u64) -> (usize, usize) {
    let (mut turns, mut bytes) = (0, 0);
    for chunk in chunks {
        let end = chunk.iter().rposition(|&byte| byte == b'\n').map_or(MARGIN, |at| at + 1);
        let mut unread = MARGIN..end;
        loop {
            let (at, stop) = engine.feed(chunk, unread.clone());
            unread.start = at;
            engine.deliver(|_, piece| bytes += piece.len());
            turns += 1;
            if stop != Stop::TurnFull {
                break;
            }
        }
        engine.settle(chunk, now);
        // As the server does before it sleeps.
        assert!(engine.next_deadline().is_none_or(|deadline| deadline > now));
        now += 1000;
    }
    (turns, bytes)
}

#[test]
fn nothing_is_allocated_in_the_steady_state() {
    let chunks = chunks(WARM_UP_CHUNKS + CHUNKS);
    let mut engine = Engine::new(&EngineConfig {
        capacity: 65_536,
        first_sequence: FIRST,
        timeout: Some(1_000_000),
        event_bytes_max: 1024,
        turn_bytes_max: 512 << 10,
        turn_bytes_mean: 64 << 10,
    });
    for id in 1..=CONNECTED {
        engine.connect(id * (USERS / CONNECTED));
    }
    let (warm_up, steady) = chunks.split_at(WARM_UP_CHUNKS);
    // That it counts at all: the first chunks need memory.
    let at_first = allocation_counter::measure(|| {
        drive(&mut engine, warm_up, 0);
    });
    assert!(at_first.count_total > 0);

    let (mut turns, mut bytes) = (0, 0);
    let then = allocation_counter::measure(|| (turns, bytes) = drive(&mut engine, steady, 1_000_000));
    assert!(turns >= CHUNKS && bytes > CHUNKS * CHUNK_BYTES, "{turns} turns, {bytes} bytes");
    assert!(engine.waiting() < 100);
    assert_eq!(then.count_total, 0, "{then:?} in {turns} turns");
}
