//! Byte streams to send, and repeatable random numbers.

/// A broadcast with this number whose line, terminator included, is `length` bytes long, by leading zeros.
///
/// # Panics
///
/// If the number does not fit.
pub fn long_broadcast(number: u64, length: usize) -> Vec<u8> {
    let line = format!("{number}|B\n").into_bytes();
    let zeros = length.checked_sub(line.len()).expect("a length that the number fits into");
    [vec![b'0'; zeros], line].concat()
}

/// Broadcasts with all the numbers of a range, in order, each line `length` bytes long.
pub fn long_broadcasts(numbers: std::ops::RangeInclusive<u64>, length: usize) -> Vec<u8> {
    numbers.flat_map(|number| long_broadcast(number, length)).collect()
}

/// The lines of a stream, each with its terminator; the last one may lack it.
pub fn lines(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    stream.split_inclusive(|&byte| byte == b'\n')
}

/// One line for each number, made by `line`.
pub fn each(numbers: impl IntoIterator<Item = u64>, line: impl Fn(u64) -> String) -> String {
    numbers.into_iter().map(line).collect()
}

/// The first `done` bytes of a stream, for a person: how many, and the end of them.
pub fn excerpt(stream: &[u8], done: usize) -> String {
    let end = &stream[done.saturating_sub(80)..done];
    format!("{done} of {} bytes, the last of them \"{}\"", stream.len(), end.escape_ascii())
}

/// Random numbers that are the same on every run: SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of this seed.
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// The next number, any of 64 bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// The next number, below `bound`.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }

    /// Puts the items in a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, usize::try_from(self.below(last as u64 + 1)).expect("an index"));
        }
    }
}
