//! Events for one or a few users: each user's own chain of small chunks.
//!
//! With thousands of connected users, an event for one of them would be an almost empty row of bits. Such an event is
//! copied to the end of its user's chain instead. Events with nothing of the tape between them make up a *run*, headed
//! by its place among the events of the tape, so that the two merge in order.

#![forbid(unsafe_code)]

use super::text::Text;
use std::ops::Range;

const CHUNK_BYTES: usize = 256;
const HEADER_BYTES: usize = 6;
/// Longest text that fits a chunk.
pub(crate) const TEXT_MAX: usize = CHUNK_BYTES - HEADER_BYTES;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
struct Chain {
    first: u32,
    last: u32,
    /// Place of the last run.
    place: u32,
    /// Bytes used in the last chunk.
    used: u16,
    /// Where the last run's header is in the last chunk.
    run: u16,
    chunks: u32,
}

const EMPTY: Chain =
    Chain { first: NONE, last: NONE, place: NONE, used: CHUNK_BYTES as u16, run: 0, chunks: 0 };

/// The chains of all users for one turn.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    chains: Vec<Chain>,
    chunks: Vec<[u8; CHUNK_BYTES]>,
    /// Per chunk: the next of its chain, and the bytes used.
    links: Vec<(u32, u32)>,
    taken: usize,
}

impl Mail {
    /// Makes room for users up to slot `slots` - 1.
    pub(crate) fn set_slots(&mut self, slots: usize) {
        self.chains.resize(slots, EMPTY);
    }

    /// Bytes of all chains.
    pub(crate) fn bytes(&self) -> usize {
        self.taken * CHUNK_BYTES
    }

    /// Bytes of one chain.
    pub(crate) fn bytes_of(&self, slot: usize) -> usize {
        self.chains[slot].chunks as usize * CHUNK_BYTES
    }

    pub(crate) fn is_empty(&self, slot: usize) -> bool {
        self.chains[slot].first == NONE
    }

    /// Appends a text of at most [`TEXT_MAX`] bytes that comes before the event `place` of the tape.
    #[inline(always)]
    pub(crate) fn push(&mut self, slot: usize, place: u32, text: Text<'_>) {
        let chain = &self.chains[slot];
        if chain.place != place || usize::from(chain.used) + text.len > CHUNK_BYTES {
            self.begin_run(slot, place, text.len);
        }
        let chain = &mut self.chains[slot];
        let chunk = &mut self.chunks[chain.last as usize];
        text.copy_to(chunk, usize::from(chain.used));
        chain.used += text.len as u16;
        let len = chain.used - chain.run - HEADER_BYTES as u16;
        let header = usize::from(chain.run) % CHUNK_BYTES;
        if let Some(field) = chunk.get_mut(header + 4..header + 6) {
            field.copy_from_slice(&len.to_le_bytes());
        }
    }

    #[inline(never)]
    fn begin_run(&mut self, slot: usize, place: u32, text_len: usize) {
        if usize::from(self.chains[slot].used) + HEADER_BYTES + text_len > CHUNK_BYTES {
            self.add_chunk(slot);
        }
        let chain = &mut self.chains[slot];
        chain.place = place;
        chain.run = chain.used;
        chain.used += HEADER_BYTES as u16;
        let header = usize::from(chain.run);
        self.chunks[chain.last as usize][header..header + 4].copy_from_slice(&place.to_le_bytes());
    }

    fn add_chunk(&mut self, slot: usize) {
        let chunk = self.taken as u32;
        self.taken += 1;
        if self.chunks.len() < self.taken {
            self.chunks.push([0; CHUNK_BYTES]);
            self.links.push((NONE, 0));
        }
        let chain = &mut self.chains[slot];
        if chain.first == NONE {
            chain.first = chunk;
        } else {
            self.links[chain.last as usize] = (chunk, u32::from(chain.used));
        }
        self.links[chunk as usize].0 = NONE;
        chain.last = chunk;
        chain.used = 0;
        chain.chunks += 1;
    }

    /// The place of every run in a user's chain, and where in [`Mail::all_bytes`] its bytes are.
    #[inline(always)]
    pub(crate) fn runs(&self, slot: usize) -> Runs<'_> {
        let chain = &self.chains[slot];
        Runs { mail: self, chain, chunk: NONE, following: chain.first, at: 0, used: 0 }
    }

    /// The bytes of all runs, and others in between. Of a user's runs, later ones are farther behind.
    pub(crate) fn all_bytes(&self) -> &[u8] {
        self.chunks.as_flattened()
    }

    /// Empties a user's chain.
    pub(crate) fn clear(&mut self, slot: usize) {
        self.chains[slot] = EMPTY;
    }

    /// Takes back the chunks of all chains; every chain must have been cleared.
    pub(crate) fn reset(&mut self) {
        self.taken = 0;
    }
}

/// See [`Mail::runs`].
#[derive(Debug)]
pub(crate) struct Runs<'a> {
    mail: &'a Mail,
    chain: &'a Chain,
    chunk: u32,
    following: u32,
    /// Where in the chunk the next run begins.
    at: usize,
    /// Bytes used in the chunk.
    used: usize,
}

impl Iterator for Runs<'_> {
    type Item = (u32, Range<usize>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.at == self.used {
            if self.following == NONE {
                return None;
            }
            self.chunk = self.following;
            let (following, used) = self.mail.links[self.chunk as usize];
            self.following = following;
            self.used = if following == NONE { self.chain.used.into() } else { used as usize };
            self.at = 0;
        }
        let header = &self.mail.chunks[self.chunk as usize][self.at..self.at + HEADER_BYTES];
        let place = u32::from_le_bytes([header[0], header[1], header[2], header[3]]);
        let len = usize::from(u16::from_le_bytes([header[4], header[5]]));
        let start = self.chunk as usize * CHUNK_BYTES + self.at + HEADER_BYTES;
        self.at += HEADER_BYTES + len;
        Some((place, start..start + len))
    }
}
