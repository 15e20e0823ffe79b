//! Blocks: the messages of the log.
//!
//! ```text
//! magic 4 | kind 1 | zero 3 | term 8 | epoch 8 | from 16 | to 16 | time 8 | previous 8 | hash 8 | payload
//! ```
//!
//! All numbers are little-endian. The hash covers everything else, and is seeded with the epoch. `previous` is the hash of the block before.

use crate::epoch::Epoch;
use crate::sequence::Cursor;
use crate::user_id::UserId;
use std::fmt;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Bytes in front of the payload.
pub const BLOCK_HEADER: usize = 80;
const MAGIC: [u8; 4] = *b"FNL1";
const HASHED: usize = BLOCK_HEADER - 8;
/// Bytes of an edge in a payload: follower and followed.
pub const EDGE_BYTES: usize = 16;

/// The purpose of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Released lines. Numbers of `from..to` without a line were given up, or rejected.
    Events = 1,
    /// The leader is there. The first of a term has random bits as its payload.
    Mark = 2,
    /// A snapshot of the follow graph begins: it is the graph at this place.
    GraphFirst = 3,
    /// Edges of it.
    Graph = 4,
    /// It is whole. The payload is the number of the message that it began with.
    GraphLast = 5,
    /// The leader ends: another sequencer may lead at once.
    Resigned = 6,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        [Self::Events, Self::Mark, Self::GraphFirst, Self::Graph, Self::GraphLast, Self::Resigned]
            .into_iter()
            .find(|kind| *kind as u8 == code)
    }
}

/// The header in front of a block's payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The purpose of the block.
    pub kind: Kind,
    /// The term of the leader that has published it.
    pub term: u64,
    /// The name of the sequence of events.
    pub epoch: Epoch,
    /// The cursor before it.
    pub from: Cursor,
    /// The cursor behind it.
    pub to: Cursor,
    /// When it was made, in milliseconds since 1970.
    pub time_ms: u64,
    /// The hash of the block before; 0 for the first one.
    pub previous: u64,
}

/// Why bytes are no block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoBlock {
    /// They do not begin like one.
    Foreign,
    /// The hash is wrong.
    Damaged,
}

impl fmt::Display for NoBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Foreign => "it holds messages that no Fortnight of this version has published",
            Self::Damaged => "a block of it is damaged",
        })
    }
}

impl Header {
    /// Writes the header into the first [`BLOCK_HEADER`] bytes of `block`, which the payload stands behind. Returns the hash.
    ///
    /// # Panics
    ///
    /// If the block is shorter than a header.
    pub fn seal(&self, block: &mut [u8]) -> u64 {
        let fields: [&[u8]; 8] = [
            &MAGIC,
            &[self.kind as u8, 0, 0, 0],
            &self.term.to_le_bytes(),
            &self.epoch.bits().to_le_bytes(),
            &self.from.get().to_le_bytes(),
            &self.to.get().to_le_bytes(),
            &self.time_ms.to_le_bytes(),
            &self.previous.to_le_bytes(),
        ];
        let mut at = 0;
        for field in fields {
            block[at..at + field.len()].copy_from_slice(field);
            at += field.len();
        }
        let hash = hash(block, self.epoch);
        block[HASHED..BLOCK_HEADER].copy_from_slice(&hash.to_le_bytes());
        hash
    }

    /// Reads a whole block: its header and its hash.
    ///
    /// # Errors
    ///
    /// Why it is none.
    pub fn open(block: &[u8]) -> Result<(Self, u64), NoBlock> {
        if block.len() < BLOCK_HEADER || block[..4] != MAGIC {
            return Err(NoBlock::Foreign);
        }
        let mut at = 8;
        let mut take = |len: usize| {
            at += len;
            let mut bytes = [0; 16];
            bytes[..len].copy_from_slice(&block[at - len..at]);
            u128::from_le_bytes(bytes)
        };
        let kind = Kind::of(block[4]).ok_or(NoBlock::Damaged)?;
        let term = take(8) as u64;
        let epoch = Epoch::new(take(8) as u64);
        let (from, to) = (Cursor::new(take(16)), Cursor::new(take(16)));
        let (time_ms, previous) = (take(8) as u64, take(8) as u64);
        let found = take(8) as u64;
        if hash(block, epoch) != found || block[5..8] != [0; 3] || from > to || to > Cursor::END {
            return Err(NoBlock::Damaged);
        }
        Ok((Self { kind, term, epoch, from, to, time_ms, previous }, found))
    }
}

fn hash(block: &[u8], epoch: Epoch) -> u64 {
    let payload = xxh3_64_with_seed(&block[BLOCK_HEADER..], epoch.bits());
    xxh3_64_with_seed(&block[..HASHED], payload)
}

/// Appends an edge to a payload.
pub fn push_edge(payload: &mut Vec<u8>, follower: UserId, followed: UserId) {
    payload.extend_from_slice(&follower.get().to_le_bytes());
    payload.extend_from_slice(&followed.get().to_le_bytes());
}

/// The edges of a payload.
pub fn edges(payload: &[u8]) -> impl Iterator<Item = (UserId, UserId)> {
    let id =
        |bytes: &[u8]| UserId::new(bytes.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)));
    payload.chunks_exact(EDGE_BYTES).map(move |edge| (id(&edge[..8]), id(&edge[8..])))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            kind: Kind::Events,
            term: 3,
            epoch: Epoch::new(0xabc),
            from: Cursor::new(7),
            to: Cursor::END,
            time_ms: 1234,
            previous: 99,
        }
    }

    #[test]
    fn what_is_sealed_is_opened_and_every_flipped_bit_is_noticed() {
        let mut block = vec![0; BLOCK_HEADER];
        block.extend_from_slice(b"7|B\n");
        let hash = header().seal(&mut block);
        assert_eq!(Header::open(&block), Ok((header(), hash)));
        for at in 0..block.len() * 8 {
            let mut flipped = block.clone();
            flipped[at / 8] ^= 1 << (at % 8);
            Header::open(&flipped).unwrap_err();
        }
        for len in 0..block.len() {
            Header::open(&block[..len]).unwrap_err();
        }
    }

    #[test]
    fn edges_are_read_as_they_were_written() {
        let mut payload = Vec::new();
        let written = [(1, u64::MAX), (1 << 40, 0)].map(|(from, to)| (UserId::new(from), UserId::new(to)));
        for (follower, followed) in written {
            push_edge(&mut payload, follower, followed);
        }
        assert_eq!(edges(&payload).collect::<Vec<_>>(), written);
    }
}
