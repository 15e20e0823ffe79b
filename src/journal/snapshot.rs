//! Snapshots of the follow graph: `A-B.fns`.
//!
//! The edges were collected while the server went on, from cursor A to cursor B. Replaying the blocks from A to B over them makes the
//! graph of B exactly: the last follow or unfollow of a pair wins. From then on the snapshot replaces the whole journal before it.
//!
//! ```text
//! piece:   count 8 | hash 8 | pairs of follower 8 and followed 8
//! trailer: the same with count 0, then  magic 8 | from 16 | to 16 | position 8 | edges 8 | hash 8
//! ```
//!
//! Hashes are seeded with the journal's id and the piece's offset. A file is written under a temporary name, and gets its own when it and the
//! journal up to B are durable.

#![forbid(unsafe_code)]

use super::{JournalError, block::Fields, meta::JournalId};
use crate::disk::{Disk, FileId, ReadAhead};
use crate::sequence::Cursor;
use crate::user_id::UserId;
use std::io;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Most edges of one piece.
pub(crate) const PIECE_EDGES: usize = 16 << 10;
/// The name of a snapshot that is being written.
pub(crate) const TEMPORARY: &str = "snapshot.tmp";
const PIECE_HEADER: usize = 16;
const EDGE: usize = 16;
const TRAILER: usize = 64;
const MAGIC: [u8; 8] = *b"FNSNAP01";
const SUFFIX: &str = ".fns";

/// A snapshot: its cursors, and where the journal was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SnapshotInfo {
    /// Blocks from here on are replayed over it.
    pub from: Cursor,
    /// It is exact from here on.
    pub to: Cursor,
    /// Bytes of the file.
    pub len: u64,
}

impl SnapshotInfo {
    /// The file's name.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{:020}-{:020}{SUFFIX}", self.from, self.to)
    }

    /// Reads a file's name.
    pub(crate) fn parse(name: &str, len: u64) -> Option<Self> {
        let (from, to) = name.strip_suffix(SUFFIX)?.split_once('-')?;
        let (from, to) = (super::number::parse_cursor(from)?, super::number::parse_cursor(to)?);
        (from <= to).then_some(Self { from, to, len })
    }
}

/// The summary that a whole snapshot carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trailer {
    /// Its cursors.
    pub from: Cursor,
    /// It is exact from here on.
    pub to: Cursor,
    /// The journal was durable up to this position.
    pub position: u64,
    /// Edges in it.
    pub edges: u64,
}

/// Makes the bytes of a snapshot, piece by piece.
#[derive(Debug)]
pub(crate) struct SnapshotWriter {
    id: JournalId,
    from: Cursor,
    edges: u64,
    offset: u64,
    piece: Vec<u8>,
}

impl SnapshotWriter {
    pub(crate) fn new(id: JournalId, from: Cursor) -> Self {
        Self { id, from, edges: 0, offset: 0, piece: vec![0; PIECE_HEADER] }
    }

    pub(crate) fn from(&self) -> Cursor {
        self.from
    }

    pub(crate) fn len(&self) -> u64 {
        self.offset
    }

    pub(crate) fn push(&mut self, follower: UserId, followed: UserId) {
        self.piece.extend_from_slice(&follower.get().to_le_bytes());
        self.piece.extend_from_slice(&followed.get().to_le_bytes());
        self.edges += 1;
    }

    /// The pieces that are full are written. A few edges stay for the next.
    pub(crate) fn write_full(&mut self, disk: &mut dyn Disk, file: FileId) -> io::Result<()> {
        if self.piece.len() < PIECE_HEADER + PIECE_EDGES * EDGE {
            return Ok(());
        }
        self.write_pieces(disk, file)
    }

    fn write_pieces(&mut self, disk: &mut dyn Disk, file: FileId) -> io::Result<()> {
        let edges = std::mem::replace(&mut self.piece, vec![0; PIECE_HEADER]);
        for chunk in edges[PIECE_HEADER..].chunks(PIECE_EDGES * EDGE) {
            self.write_piece(disk, file, chunk, &[])?;
        }
        Ok(())
    }

    fn write_piece(
        &mut self,
        disk: &mut dyn Disk,
        file: FileId,
        edges: &[u8],
        behind: &[u8],
    ) -> io::Result<()> {
        let mut piece = Vec::with_capacity(PIECE_HEADER + edges.len() + behind.len());
        piece.extend_from_slice(&((edges.len() / EDGE) as u64).to_le_bytes());
        piece.extend_from_slice(&xxh3_64_with_seed(edges, self.id.seed(self.offset)).to_le_bytes());
        piece.extend_from_slice(edges);
        piece.extend_from_slice(behind);
        disk.write_at(file, self.offset, &piece)?;
        self.offset += piece.len() as u64;
        Ok(())
    }

    /// Writes the rest and the trailer.
    pub(crate) fn finish(
        &mut self,
        disk: &mut dyn Disk,
        file: FileId,
        to: Cursor,
        position: u64,
    ) -> io::Result<()> {
        self.write_pieces(disk, file)?;
        let trailer = Trailer { from: self.from, to, position, edges: self.edges };
        let bytes = trailer.encode(self.id, self.offset);
        self.write_piece(disk, file, &[], &bytes)
    }
}

impl Trailer {
    fn encode(&self, id: JournalId, offset: u64) -> [u8; TRAILER] {
        let mut bytes = [0; TRAILER];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..24].copy_from_slice(&self.from.get().to_le_bytes());
        bytes[24..40].copy_from_slice(&self.to.get().to_le_bytes());
        bytes[40..48].copy_from_slice(&self.position.to_le_bytes());
        bytes[48..56].copy_from_slice(&self.edges.to_le_bytes());
        let hash = xxh3_64_with_seed(&bytes[..56], id.seed(offset));
        bytes[56..].copy_from_slice(&hash.to_le_bytes());
        bytes
    }

    fn decode(bytes: &[u8; TRAILER], id: JournalId, offset: u64) -> Option<Self> {
        let mut fields = Fields(bytes);
        if fields.take::<8>() != MAGIC {
            return None;
        }
        let trailer = Self {
            from: Cursor::new(u128::from_le_bytes(fields.take())),
            to: Cursor::new(u128::from_le_bytes(fields.take())),
            position: u64::from_le_bytes(fields.take()),
            edges: u64::from_le_bytes(fields.take()),
        };
        (trailer.encode(id, offset) == *bytes).then_some(trailer)
    }
}

/// Up to where the journal was durable, as the end of a snapshot says that is damaged elsewhere. 0: the end does not prove itself.
pub(crate) fn read_mark(disk: &mut dyn Disk, id: JournalId, info: SnapshotInfo) -> Result<u64, JournalError> {
    let Some(at) = info.len.checked_sub((PIECE_HEADER + TRAILER) as u64) else { return Ok(0) };
    let name = info.name();
    let file = disk.open(&name).map_err(|error| JournalError::io("cannot open", &name, &error))?;
    let mut bytes = [0; TRAILER];
    let whole = read(disk, file, at + PIECE_HEADER as u64, &mut bytes, true);
    disk.close(file);
    let whole = whole.map_err(|error| JournalError::io("cannot read", &name, &error))?;
    let trailer = Trailer::decode(&bytes, id, at).filter(|trailer| whole && trailer.to == info.to);
    Ok(trailer.map_or(0, |trailer| trailer.position))
}

/// How a step of reading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnapshotRead {
    /// Here are some edges.
    Edges,
    /// The next part is not in memory yet: come back next turn.
    Later,
    /// All edges have been handed out.
    Done(Trailer),
}

/// Reads a snapshot, piece by piece, and believes none that its hash does not prove.
#[derive(Debug)]
pub struct SnapshotReader {
    id: JournalId,
    name: String,
    file: FileId,
    info: SnapshotInfo,
    offset: u64,
    edges: u64,
    bytes: Vec<u8>,
}

impl SnapshotReader {
    pub(crate) fn open(disk: &mut dyn Disk, id: JournalId, info: SnapshotInfo) -> Result<Self, JournalError> {
        let name = info.name();
        let file = disk.open(&name).map_err(|error| JournalError::io("cannot open", &name, &error))?;
        Ok(Self { id, name, file, info, offset: 0, edges: 0, bytes: Vec::new() })
    }

    /// The snapshot that it reads.
    #[must_use]
    pub fn info(&self) -> SnapshotInfo {
        self.info
    }

    pub(crate) fn close(self, disk: &mut dyn Disk) {
        disk.close(self.file);
    }

    /// Replaces the contents of `edges` by the next edges, (follower, followed). `wait`: it may wait for the disk.
    pub(crate) fn next(
        &mut self,
        disk: &mut dyn Disk,
        wait: bool,
        edges: &mut Vec<(UserId, UserId)>,
    ) -> Result<SnapshotRead, JournalError> {
        edges.clear();
        let left = self.info.len.saturating_sub(self.offset);
        if left < (PIECE_HEADER + TRAILER) as u64 {
            return Err(self.damaged());
        }
        let wanted = left.min((PIECE_HEADER + PIECE_EDGES * EDGE) as u64) as usize;
        let mut bytes = std::mem::take(&mut self.bytes);
        bytes.resize(wanted, 0);
        let read = read(disk, self.file, self.offset, &mut bytes, wait);
        self.bytes = bytes;
        match read {
            Ok(true) => {}
            Ok(false) => return Err(self.damaged()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(SnapshotRead::Later),
            Err(error) => return Err(JournalError::io("cannot read", &self.name, &error)),
        }
        self.decode(edges)
    }

    fn decode(&mut self, edges: &mut Vec<(UserId, UserId)>) -> Result<SnapshotRead, JournalError> {
        let mut fields = Fields(&self.bytes);
        let count = u64::from_le_bytes(fields.take());
        let hash = u64::from_le_bytes(fields.take());
        let rest = fields.0;
        let pairs = usize::try_from(count)
            .ok()
            .filter(|&count| count <= PIECE_EDGES)
            .and_then(|count| rest.get(..count * EDGE));
        let Some(pairs) = pairs.filter(|pairs| xxh3_64_with_seed(pairs, self.id.seed(self.offset)) == hash)
        else {
            return Err(self.damaged());
        };
        if count > 0 {
            let id = |fields: &mut Fields<'_>| UserId::new(u64::from_le_bytes(fields.take()));
            edges.extend(pairs.chunks_exact(EDGE).map(|pair| {
                let mut fields = Fields(pair);
                (id(&mut fields), id(&mut fields))
            }));
            self.edges += count;
            self.offset += (PIECE_HEADER + pairs.len()) as u64;
            return Ok(SnapshotRead::Edges);
        }
        let trailer = rest.first_chunk().and_then(|bytes| Trailer::decode(bytes, self.id, self.offset));
        let fits = |trailer: &Trailer| {
            (trailer.from, trailer.to, trailer.edges) == (self.info.from, self.info.to, self.edges)
        };
        trailer.filter(fits).map(SnapshotRead::Done).ok_or_else(|| self.damaged())
    }

    fn damaged(&self) -> JournalError {
        JournalError::damage(
            &self.name,
            self.offset,
            "the piece of the snapshot there is not what was written",
        )
    }
}

/// Fills `bytes`. False: the file ends before.
pub(crate) fn read(
    disk: &mut dyn Disk,
    file: FileId,
    offset: u64,
    bytes: &mut [u8],
    wait: bool,
) -> io::Result<bool> {
    // Nobody writes to it any more.
    let (filled, result) =
        fill(disk, file, offset, bytes, (wait, ReadAhead { end: u64::MAX, is_long: false }));
    result.map(|()| filled == bytes.len())
}

/// Fills `bytes`, to the end of the file or until something fails. Returns how many it has filled.
pub(crate) fn fill(
    disk: &mut dyn Disk,
    file: FileId,
    offset: u64,
    bytes: &mut [u8],
    (wait, ahead): (bool, ReadAhead),
) -> (usize, io::Result<()>) {
    if wait {
        return match disk.read_at(file, offset, bytes) {
            Ok(filled) => (filled, Ok(())),
            Err(error) => (0, Err(error)),
        };
    }
    let mut filled = 0;
    while filled < bytes.len() {
        match disk.read_now(file, offset + filled as u64, &mut bytes[filled..], ahead) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) => return (filled, Err(error)),
        }
    }
    (filled, Ok(()))
}
