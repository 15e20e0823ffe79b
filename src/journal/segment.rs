//! Segments: the files that hold the blocks, one behind the other.
//!
//! ```text
//! magic 8 | journal id 16 | first 16 | base 8 | previous 8 | durable 8 | time 8 | flags 8 | zeros 40 | hash 8 | blocks
//! ```
//!
//! A segment that is not kept any more becomes the *spare* one, and the next segment is written over it: its pages are in memory
//! and its blocks on the disk, so writing copies less and a sync has no metadata to write. Before that, its new name is durable. What is left in it of the
//! old segment cannot be taken for new: hashes are seeded with positions, and blocks are chained. It is cut off when the segment is closed, and at a
//! graceful end. A start removes a spare segment: a machine that ended may have lost the new name of the file, and what was to
//! become durable. Then the next segment begins at the same position, and old blocks would continue the chain.
//!
//! A segment is named by the cursor before its first block. `base` is the *position* of the file's first byte: positions count all bytes of all
//! segments since the journal was made, so a process never uses a position twice.

#![forbid(unsafe_code)]

use super::{block::Fields, meta::JournalId};
use crate::sequence::Cursor;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes in front of the first block.
pub(crate) const SEGMENT_HEADER: usize = 128;
const MAGIC: [u8; 8] = *b"FNJSEG02";
const HASHED: usize = SEGMENT_HEADER - 8;
const SUFFIX: &str = ".fnj";
/// The name of a segment that has gone, and waits to be written over.
pub(crate) const SPARE: &str = "spare.fnj";

/// The header of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentHeader {
    pub(crate) id: JournalId,
    /// The cursor before the first block.
    pub(crate) first: Cursor,
    /// The position of the file's first byte.
    pub(crate) base: u64,
    /// The hash of the last block of the segment before.
    pub(crate) previous: u64,
    /// Up to which position the journal was durable when the segment was made.
    pub(crate) durable: u64,
    pub(crate) time_ms: u64,
    /// The follow graph is empty at `first`: the journal begins here.
    pub(crate) is_origin: bool,
    pub(crate) room: Room,
}

/// What stands in the file behind the last block of a segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    /// Nothing.
    Absent,
    /// The file belonged to an older segment before: there may be the rest of that one.
    Recycled,
    /// There may be zeros.
    Zeros,
}

impl SegmentHeader {
    pub(crate) fn encode(&self) -> [u8; SEGMENT_HEADER] {
        let mut bytes = [0; SEGMENT_HEADER];
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &self.id.0.to_le_bytes(),
            &self.first.get().to_le_bytes(),
            &self.base.to_le_bytes(),
            &self.previous.to_le_bytes(),
            &self.durable.to_le_bytes(),
            &self.time_ms.to_le_bytes(),
            &(u64::from(self.is_origin) | (self.room as u64) << 1).to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            bytes[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let hash = xxh3_64_with_seed(&bytes[..HASHED], self.id.seed(self.base));
        bytes[HASHED..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    /// Reads a header of this journal.
    pub(crate) fn decode(bytes: &[u8; SEGMENT_HEADER], id: JournalId) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.take::<8>() != MAGIC || u128::from_le_bytes(fields.take()) != id.0 {
            return None;
        }
        let mut header = Self {
            id,
            first: Cursor::new(u128::from_le_bytes(fields.take())),
            base: u64::from_le_bytes(fields.take()),
            previous: u64::from_le_bytes(fields.take()),
            durable: u64::from_le_bytes(fields.take()),
            time_ms: u64::from_le_bytes(fields.take()),
            is_origin: false,
            room: Room::Absent,
        };
        let flags = u64::from_le_bytes(fields.take());
        header.is_origin = flags & 1 == 1;
        header.room = match flags >> 1 {
            0 => Room::Absent,
            1 => Room::Recycled,
            _ => Room::Zeros,
        };
        (header.encode() == *bytes && header.first <= Cursor::END).then_some(header)
    }
}

/// The file name of the segment that begins at a cursor.
pub(crate) fn segment_name(first: Cursor) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The cursor at which the segment of this name begins.
pub(crate) fn parse_segment_name(name: &str) -> Option<Cursor> {
    let digits = name.strip_suffix(SUFFIX)?;
    super::number::parse_cursor(digits)
}
