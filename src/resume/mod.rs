//! Users that resume: what they say, what they are answered, and where they go on (`docs/SPEC.md` section 10).
//!
//! Pure: bytes in, decisions and bytes out. Three steps lead from a login line to its answer:
//!
//! ```text
//!  bytes ── [`login`] ──▶ Start ── [`place`] ──▶ Answer ── [`line`] ──▶ bytes
//! ```
//!
//! A position is the *next* number that is wanted, from 0 to 2^64: a [`Cursor`](crate::sequence::Cursor).

pub mod line;
pub mod login;
pub mod place;

pub use line::{Line, Terminator, end_line, place_line};
pub use login::{Login, Start, parse_start};
pub use place::{Answer, History};
