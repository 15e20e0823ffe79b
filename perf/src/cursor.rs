//! How far a user's stream has been checked.

use crate::block::Block;
use crate::book::Book;

/// A place in what one user is owed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the block.
    pub block: u64,
    /// Offset in the user's text of that block.
    pub offset: usize,
}

/// The fault of received bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The byte at this index of the received chunk differs.
    Differs(usize),
    /// Everything owed had been received before the byte at this index.
    TooMuch(usize),
}

/// Checks one user's stream.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cursor {
    /// The first byte that has not been received.
    pub place: Place,
    /// Events in the blocks that are done.
    pub lines: u64,
    /// Bytes that were right.
    pub bytes: u64,
}

impl Cursor {
    /// Compares the next bytes received with those owed, and moves past them.
    ///
    /// # Errors
    /// The index of the first byte that is not as owed; the cursor then stands on it.
    #[inline]
    pub fn check(&mut self, book: &mut Book, slot: usize, mut got: &[u8]) -> Result<(), Wrong> {
        let whole = got.len();
        while !got.is_empty() {
            let Some(block) = book.get(self.place.block) else {
                return Err(Wrong::TooMuch(whole - got.len()));
            };
            let text = block.text(slot);
            let owed = &text.bytes[self.place.offset..];
            let length = owed.len().min(got.len());
            if owed[..length] != got[..length] {
                let same = owed.iter().zip(got).take_while(|(a, b)| a == b).count();
                self.place.offset += same;
                self.bytes += same as u64;
                return Err(Wrong::Differs(whole - got.len() + same));
            }
            self.bytes += length as u64;
            self.place.offset += length;
            got = &got[length..];
            if length == owed.len() {
                self.lines += u64::from(text.lines);
                self.place = Place { block: self.place.block + 1, offset: 0 };
            }
        }
        Ok(())
    }

    /// Moves past blocks before `sent` in which the user is owed nothing.
    pub fn skip_empty(&mut self, book: &Book, slot: usize, sent: u64) {
        while self.place.block < sent && self.place.offset == 0 {
            match book.built(self.place.block) {
                Some(block) if block.text(slot).bytes.is_empty() => self.place.block += 1,
                _ => break,
            }
        }
    }

    /// Whole events received so far.
    pub fn lines_so_far(&self, book: &Book, slot: usize) -> u64 {
        let begun =
            book.built(self.place.block).map_or(0, |b| count_lines(&b.text(slot).bytes[..self.place.offset]));
        self.lines + begun
    }
}

/// Lines that end in `bytes`.
pub fn count_lines(bytes: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', bytes).count() as u64
}

/// The number at the start of a line, if there is one.
pub fn sequence_of(line: &[u8]) -> Option<u64> {
    let digits = line.iter().take_while(|b| b.is_ascii_digit()).count();
    std::str::from_utf8(&line[..digits]).ok()?.parse().ok()
}

/// The lines of a user's text, with their offsets.
pub fn lines_of(bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', bytes).map(move |end| {
        let line = (start, &bytes[start..=end]);
        start = end + 1;
        line
    })
}

/// The first place at or after `seq` where the user of `slot` is owed something, among the blocks in memory.
pub fn first_owed_from(book: &Book, slot: usize, seq: u64) -> Option<Place> {
    let mut index = book.find(seq)?;
    while let Some(block) = book.built(index) {
        if let Some(offset) = find_line(block, slot, |number| number >= seq) {
            return Some(Place { block: index, offset });
        }
        index += 1;
    }
    None
}

/// Where the user's text in `block` has the first line whose number passes `test`.
pub fn find_line(block: &Block, slot: usize, test: impl Fn(u64) -> bool) -> Option<usize> {
    lines_of(&block.text(slot).bytes).find(|(_, line)| sequence_of(line).is_some_and(&test)).map(|(at, _)| at)
}
