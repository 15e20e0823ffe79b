//! The stream that the benchmarks feed: shape `maze`, the same on every run.

/// The number of the first event: all have seven digits.
pub(crate) const FIRST: u64 = 5_000_000;
/// Users, connected or not; their ids start at 1.
const USERS: u64 = 1000;
/// Those who are connected.
const CONNECTED: u64 = 100;
/// Bytes of a chunk, give or take a line.
const CHUNK_BYTES: usize = 256 << 10;
/// Room on both sides of a chunk's lines.
pub(crate) const MARGIN: usize = 64;

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

/// The ids of the connected users.
pub(crate) fn connected() -> Vec<u64> {
    (1..=CONNECTED).map(|id| id * (USERS / CONNECTED)).collect()
}

/// Events in the default mix, in batches of random size up to `batch`, each in random order.
pub(crate) fn lines(first: u64, events: usize, batch: u64) -> Vec<String> {
    let mut random = SplitMix(666);
    let mut lines: Vec<String> = (first..)
        .take(events)
        .map(|seq| {
            let (from, to) = (random.below(USERS) + 1, random.below(USERS) + 1);
            match random.below(100) {
                0..25 => format!("{seq}|F|{from}|{to}\r\n"),
                25..44 => format!("{seq}|U|{from}|{to}\r\n"),
                44 => format!("{seq}|B\r\n"),
                45..75 => format!("{seq}|P|{from}|{to}\r\n"),
                _ => format!("{seq}|S|{from}\r\n"),
            }
        })
        .collect();
    let mut rest = &mut lines[..];
    while !rest.is_empty() {
        let len = (random.below(batch) + 1).min(rest.len() as u64) as usize;
        let (now, later) = rest.split_at_mut(len);
        for at in (1..len).rev() {
            now.swap(at, random.below(at as u64 + 1) as usize);
        }
        rest = later;
    }
    lines
}

/// Cuts lines into chunks with room on both sides.
pub(crate) fn cut<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Vec<Vec<u8>> {
    let mut chunks = vec![vec![b' '; MARGIN]];
    for line in lines {
        let last = chunks.len() - 1;
        chunks[last].extend_from_slice(line);
        if chunks[last].len() > CHUNK_BYTES {
            chunks.push(vec![b' '; MARGIN]);
        }
    }
    for chunk in &mut chunks {
        chunk.resize(chunk.len() + MARGIN, b' ');
    }
    chunks
}
