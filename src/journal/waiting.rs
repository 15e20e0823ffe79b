//! Events that wait when the server ends gracefully, as the payload of a block.
//!
//! ```text
//! number 8 | len 4 | the line
//! ```
//!
//! An empty line belongs to a rejected event that has used up its number.

#![forbid(unsafe_code)]

use super::block::BLOCK_HEADER;
use crate::sequence::SequenceNumber;

/// Bytes of lines after which the next block begins.
const BLOCK_BYTES: usize = 1 << 20;

/// Builds the blocks of a set.
#[derive(Debug)]
pub struct Waiting {
    /// A block each: room for the header, then the payload; and how many lines it has.
    pub(crate) blocks: Vec<(Vec<u8>, u32)>,
}

impl Default for Waiting {
    fn default() -> Self {
        Self { blocks: vec![(vec![0; BLOCK_HEADER], 0)] }
    }
}

impl Waiting {
    /// Adds a line. Numbers may come in any order.
    pub fn push(&mut self, number: SequenceNumber, line: &[u8]) {
        if self.blocks.last().is_none_or(|(block, _)| block.len() > BLOCK_BYTES) {
            self.blocks.push((vec![0; BLOCK_HEADER], 0));
        }
        let Some((block, lines)) = self.blocks.last_mut() else { return };
        block.extend_from_slice(&number.get().to_le_bytes());
        block.extend_from_slice(&(line.len() as u32).to_le_bytes());
        block.extend_from_slice(line);
        *lines += 1;
    }

    /// How many lines there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.iter().map(|&(_, lines)| lines as usize).sum()
    }

    /// There are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Reads the payload of a block of waiting events. Ends early at bytes that [`Waiting`] would not write.
#[derive(Clone, Debug)]
pub struct WaitingLines<'a>(pub(crate) &'a [u8]);

impl<'a> WaitingLines<'a> {
    /// Reads a payload.
    #[must_use]
    pub fn new(payload: &'a [u8]) -> Self {
        Self(payload)
    }
}

impl<'a> Iterator for WaitingLines<'a> {
    type Item = (SequenceNumber, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (number, rest) = self.0.split_first_chunk()?;
        let (len, rest) = rest.split_first_chunk()?;
        let (line, rest) = rest.split_at_checked(u32::from_le_bytes(*len) as usize)?;
        self.0 = rest;
        Some((SequenceNumber::new(u64::from_le_bytes(*number)), line))
    }
}
