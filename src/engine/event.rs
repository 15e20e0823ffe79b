//! One event line: its grammar (SPEC section 1.1), and the parser that every line can take.
//!
//! [`parse_line`] walks a line byte by byte. For a bad line it names the exact fault.
//! `scan` recognises ordinary lines many bytes at a time and leaves the rest to it.

#![forbid(unsafe_code)]

use crate::sequence::SequenceNumber;
use crate::user_id::UserId;

/// The kind of line that occupies a slot of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// `seq|F|from|to`: `from` follows `to`, who is told.
    Follow = 1,
    /// `seq|U|from|to`: `from` stops following `to`. No user is told.
    Unfollow = 2,
    /// `seq|B`: everyone connected is told.
    Broadcast = 3,
    /// `seq|P|from|to`: `to` is told.
    Private = 4,
    /// `seq|S|from`: the followers of `from` are told.
    Status = 5,
    /// A rejected line with a readable number. The number is used up, and no user is told.
    Void = 6,
}

impl Kind {
    /// The kinds that are events, with the letters of the protocol, in the order of SPEC section 6.
    pub const EVENTS: [(Self, char); 5] = [
        (Self::Follow, 'F'),
        (Self::Unfollow, 'U'),
        (Self::Broadcast, 'B'),
        (Self::Private, 'P'),
        (Self::Status, 'S'),
    ];

    /// Whether a kind as a number is that of an event.
    pub(crate) fn is_event(kind: u8) -> bool {
        kind <= Self::Status as u8
    }
}

/// Why a line is no event: the `reason` of `fortnight_events_rejected_total`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reject {
    /// The first field is no unsigned 64-bit decimal number.
    Sequence,
    /// The second field is none of F, U, B, P, S.
    Type,
    /// The type is known, but it has more or fewer fields.
    Fields,
    /// A user id is no unsigned 64-bit decimal number.
    UserId,
    /// Longer than `maxEventBytes`.
    TooLong,
    /// The source disconnected in the middle of the line.
    Truncated,
    /// Its number is farther above the cursor than `maxSequenceJump`: nothing is used up.
    TooFar,
}

impl Reject {
    /// Every reason, in the order in which they are numbered.
    pub const ALL: [Self; 7] = [
        Self::Sequence,
        Self::Type,
        Self::Fields,
        Self::UserId,
        Self::TooLong,
        Self::Truncated,
        Self::TooFar,
    ];

    /// The reason as it appears in metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sequence => "sequence",
            Self::Type => "type",
            Self::Fields => "fields",
            Self::UserId => "user_id",
            Self::TooLong => "too_long",
            Self::Truncated => "truncated",
            Self::TooFar => "too_far",
        }
    }
}

/// The fields of a valid line. Fields that its kind does not have are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Sequence number.
    pub seq: SequenceNumber,
    /// Type.
    pub kind: Kind,
    /// The user who acts.
    pub from: UserId,
    /// The user acted upon.
    pub to: UserId,
}

/// A line that is no event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its number, if that could be read: it is used up.
    pub seq: Option<SequenceNumber>,
    /// The fault of the line.
    pub reason: Reject,
}

/// Parses a line without its terminator.
///
/// # Errors
///
/// The first thing, from left to right, that makes the line no event.
pub fn parse_line(line: &[u8]) -> Result<Event, Rejected> {
    let mut fields = line.split(|&byte| byte == b'|');
    let Some(seq) = fields.next().and_then(parse_number).map(SequenceNumber::new) else {
        return Err(Rejected { seq: None, reason: Reject::Sequence });
    };
    let rejected = |reason| Rejected { seq: Some(seq), reason };
    let (kind, users) = match fields.next() {
        Some(b"F") => (Kind::Follow, 2),
        Some(b"U") => (Kind::Unfollow, 2),
        Some(b"B") => (Kind::Broadcast, 0),
        Some(b"P") => (Kind::Private, 2),
        Some(b"S") => (Kind::Status, 1),
        Some(_) => return Err(rejected(Reject::Type)),
        None => return Err(rejected(Reject::Fields)),
    };
    let mut ids = [UserId::default(); 2];
    for id in &mut ids[..users] {
        let field = fields.next().ok_or(rejected(Reject::Fields))?;
        *id = parse_user_id(field).ok_or(rejected(Reject::UserId))?;
    }
    if fields.next().is_some() {
        return Err(rejected(Reject::Fields));
    }
    Ok(Event { seq, kind, from: ids[0], to: ids[1] })
}

/// Reads the number at the start of a prefix of a line. A prefix without a separator has no number, because its last
/// digits may be missing.
#[must_use]
pub fn leading_number(prefix: &[u8]) -> Option<SequenceNumber> {
    parse_number(&prefix[..memchr::memchr(b'|', prefix)?]).map(SequenceNumber::new)
}

/// Parses the id of a user.
#[must_use]
pub fn parse_user_id(digits: &[u8]) -> Option<UserId> {
    parse_number(digits).map(UserId::new)
}

/// Parses a decimal unsigned 64-bit integer: digits only, at least one, leading zeros allowed.
#[must_use]
pub fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_protocol_table() {
        let event = |seq, kind, from, to| {
            Ok(Event { seq: SequenceNumber::new(seq), kind, from: UserId::new(from), to: UserId::new(to) })
        };
        assert_eq!(parse_line(b"666|F|60|50"), event(666, Kind::Follow, 60, 50));
        assert_eq!(parse_line(b"1|U|12|9"), event(1, Kind::Unfollow, 12, 9));
        assert_eq!(parse_line(b"542532|B"), event(542_532, Kind::Broadcast, 0, 0));
        assert_eq!(parse_line(b"43|P|32|56"), event(43, Kind::Private, 32, 56));
        assert_eq!(parse_line(b"634|S|32"), event(634, Kind::Status, 32, 0));
    }

    #[test]
    fn what_is_wrong_is_named() {
        let cases: [(&[u8], Option<u64>, Reject); 12] = [
            (b"", None, Reject::Sequence),
            (b"|B", None, Reject::Sequence),
            (b"-1|B", None, Reject::Sequence),
            (b"18446744073709551616|B", None, Reject::Sequence),
            (b"7", Some(7), Reject::Fields),
            (b"7|", Some(7), Reject::Type),
            (b"7|BB", Some(7), Reject::Type),
            (b"7|B|", Some(7), Reject::Fields),
            (b"7|S", Some(7), Reject::Fields),
            (b"7|P|1|", Some(7), Reject::UserId),
            (b"7|P|1|+2", Some(7), Reject::UserId),
            (b"7|F|1|2|3", Some(7), Reject::Fields),
        ];
        for (line, seq, reason) in cases {
            assert_eq!(
                parse_line(line),
                Err(Rejected { seq: seq.map(SequenceNumber::new), reason }),
                "{}",
                line.escape_ascii()
            );
        }
    }

    #[test]
    fn a_number_without_an_end_is_none() {
        assert_eq!(leading_number(b"1234"), None);
        assert_eq!(leading_number(b"1234|"), Some(SequenceNumber::new(1234)));
        assert_eq!(leading_number(b"|"), None);
    }

    #[test]
    fn numbers_end_at_the_largest() {
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        assert_eq!(parse_number(b"00000000000000000000000000007"), Some(7));
        assert_eq!(parse_number(b"18446744073709551616"), None);
    }
}
