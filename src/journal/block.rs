//! Blocks: the records of the journal.
//!
//! ```text
//! magic 4 | kind 1 | zero 3 | len 4 | events 4 | from 16 | to 16 | durable 8 | time 8 | previous 8 | hash 8 | payload | zeros
//! ```
//!
//! A block ends at a multiple of 64 bytes of its file, a large one at a page. So blocks of full load begin at pages, and the kernel
//! copies them a third as fast again as into the middle of pages, and three times as fast as to an odd address, or need not copy them at
//! all. Where a large block is the first of its segment, a mark with so many zeros as payload fills the page with the segment's header.
//!
//! All numbers are little-endian. The hash covers the header before it and the padded payload, and is seeded with the journal's id and the
//! block's position: a block is valid in one journal and at one place in it only. `previous` is the hash of the block before: a chain.

#![forbid(unsafe_code)]

use super::meta::JournalId;
use crate::sequence::Cursor;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes in front of the payload.
pub const BLOCK_HEADER: usize = 80;
/// Blocks begin at multiples of this.
pub(crate) const ALIGNMENT: u64 = 64;
/// A block of this many bytes ends at a page.
const LARGE: u64 = 16 << 10;
pub(crate) const PAGE: u64 = 4096;
/// The first bytes of a block.
pub(crate) const MAGIC: [u8; 4] = *b"FNB2";
const HASHED: usize = BLOCK_HEADER - 8;

/// The purpose of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Released lines. Numbers of `from..to` without a line were given up, or rejected.
    Events,
    /// Nothing but a mark: how far the journal is durable.
    Mark,
    /// Events that waited at a graceful end: the first block of a set, which replaces any older set.
    WaitingFirst,
    /// More of the same set.
    Waiting,
}

impl Kind {
    fn code(self) -> u8 {
        match self {
            Self::Events => 1,
            Self::Mark => 2,
            Self::WaitingFirst => 3,
            Self::Waiting => 4,
        }
    }

    fn of(code: u8) -> Option<Self> {
        [Self::Events, Self::Mark, Self::WaitingFirst, Self::Waiting]
            .into_iter()
            .find(|kind| kind.code() == code)
    }
}

/// The header in front of a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The purpose of the block.
    pub kind: Kind,
    /// Bytes of the payload, without padding.
    pub len: u32,
    /// Lines in the payload.
    pub events: u32,
    /// The cursor before it.
    pub from: Cursor,
    /// The cursor behind it.
    pub to: Cursor,
    /// Up to which position the journal was durable when the block was made.
    pub durable: u64,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// The hash of the block before.
    pub previous: u64,
}

impl Header {
    /// The block ends at a page.
    pub(crate) fn is_large(&self) -> bool {
        BLOCK_HEADER as u64 + u64::from(self.len) >= LARGE
    }

    /// Bytes of the whole block, if it begins at this offset of its file.
    pub(crate) fn block_len(&self, offset: u64) -> u64 {
        let len = BLOCK_HEADER as u64 + u64::from(self.len);
        let alignment = if self.is_large() { PAGE } else { ALIGNMENT };
        offset.saturating_add(len).checked_next_multiple_of(alignment).unwrap_or(u64::MAX) - offset
    }

    /// Reads a header, and the hash that it says the block has.
    pub(crate) fn decode(bytes: &[u8; BLOCK_HEADER]) -> Option<(Self, u64)> {
        let mut fields = Fields(bytes);
        if fields.take::<4>() != MAGIC {
            return None;
        }
        let kind = Kind::of(fields.take::<1>()[0])?;
        if fields.take::<3>() != [0; 3] {
            return None;
        }
        let header = Self {
            kind,
            len: u32::from_le_bytes(fields.take()),
            events: u32::from_le_bytes(fields.take()),
            from: Cursor::new(u128::from_le_bytes(fields.take())),
            to: Cursor::new(u128::from_le_bytes(fields.take())),
            durable: u64::from_le_bytes(fields.take()),
            time_ms: u64::from_le_bytes(fields.take()),
            previous: u64::from_le_bytes(fields.take()),
        };
        let hash = u64::from_le_bytes(fields.take());
        (header.from <= header.to && header.to <= Cursor::END).then_some((header, hash))
    }

    /// Writes the header into the [`BLOCK_HEADER`] bytes of `buffer` from `start` on, which the payload stands behind, and pads the
    /// payload. Returns the hash.
    pub(crate) fn seal(
        &self,
        (buffer, start): (&mut Vec<u8>, usize),
        id: JournalId,
        offset: u64,
        position: u64,
    ) -> u64 {
        let len = self.len;
        buffer.resize(start + self.block_len(offset) as usize, 0);
        let block = &mut buffer[start..];
        let header = &mut block[..BLOCK_HEADER];
        let fields: [&[u8]; 10] = [
            &MAGIC,
            &[self.kind.code(), 0, 0, 0],
            &len.to_le_bytes(),
            &self.events.to_le_bytes(),
            &self.from.get().to_le_bytes(),
            &self.to.get().to_le_bytes(),
            &self.durable.to_le_bytes(),
            &self.time_ms.to_le_bytes(),
            &self.previous.to_le_bytes(),
            &[],
        ];
        let mut at = 0;
        for field in fields {
            header[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let hash = hash(block, id, position);
        block[HASHED..BLOCK_HEADER].copy_from_slice(&hash.to_le_bytes());
        hash
    }
}

/// The hash of a whole block, padding included.
pub(crate) fn hash(block: &[u8], id: JournalId, position: u64) -> u64 {
    let payload = xxh3_64_with_seed(&block[BLOCK_HEADER..], id.seed(position));
    xxh3_64_with_seed(&block[..HASHED], payload)
}

/// Takes fields off the front of bytes that are long enough.
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl Fields<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> [u8; N] {
        let (field, rest) = self.0.split_first_chunk().expect("the fields are as long as the header");
        self.0 = rest;
        *field
    }
}
