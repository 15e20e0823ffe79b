//! The lines that were rejected, for the log.

#![forbid(unsafe_code)]

use super::event::Reject;
use crate::sequence::SequenceNumber;
use smallvec::SmallVec;

/// Lines of each reason that are kept until somebody asks.
const KEPT_MAX: u64 = 5;
/// Bytes of a line that are kept.
const TEXT_BYTES_MAX: usize = 80;

/// A line that was no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RejectedLine {
    /// The reason of the rejection.
    pub reason: Reject,
    /// Its number, if that could be read.
    pub seq: Option<SequenceNumber>,
    /// How it begins, without its end.
    pub text: SmallVec<[u8; TEXT_BYTES_MAX]>,
    /// There is more of it.
    pub is_cut: bool,
}

/// The lines that were rejected since somebody last asked: the first few for each reason, and how many there were.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rejects {
    /// The first ones.
    pub lines: Vec<RejectedLine>,
    counts: [u64; Reject::ALL.len()],
}

impl Rejects {
    #[cold]
    pub(crate) fn add(&mut self, reason: Reject, seq: Option<SequenceNumber>, line: &[u8]) {
        let count = &mut self.counts[reason as usize];
        *count += 1;
        if *count <= KEPT_MAX {
            let text = SmallVec::from_slice(&line[..line.len().min(TEXT_BYTES_MAX)]);
            self.lines.push(RejectedLine { reason, seq, text, is_cut: line.len() > TEXT_BYTES_MAX });
        }
    }

    /// How many lines had that wrong with them and are not among those kept.
    #[must_use]
    pub fn not_kept(&self, reason: Reject) -> u64 {
        self.counts[reason as usize].saturating_sub(KEPT_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_of_each_reason_are_kept_and_all_are_counted() {
        let mut rejects = Rejects::default();
        for number in 0..100 {
            rejects.add(Reject::Type, Some(SequenceNumber::new(number)), format!("{number}|X").as_bytes());
        }
        rejects.add(Reject::TooLong, None, &[b'x'; 100]);
        assert_eq!(rejects.lines.len(), 6);
        assert_eq!((&rejects.lines[4].text[..], rejects.lines[4].is_cut), (&b"4|X"[..], false));
        assert_eq!((rejects.lines[5].text.len(), rejects.lines[5].is_cut), (80, true));
        let not_kept = [Reject::Type, Reject::TooLong, Reject::Fields].map(|reason| rejects.not_kept(reason));
        assert_eq!(not_kept, [95, 0, 0]);
    }
}
