//! Users that resume: what they say, what they are answered, and where they go on (`docs/SPEC.md` section 10).
//!
//! Pure: bytes in, decisions and bytes out. Three steps lead from a login line to its answer:
//!
//! ```text
//!  bytes ── [`login`] ──▶ Start ── [`place`] ──▶ Answer ── [`line`] ──▶ bytes
//! ```
//!
//! A position is the *next* number that is wanted, from 0 to 2^64. It is kept as a `u128`, so that the position
//! behind the last number is one like any other.

pub mod line;
pub mod login;
pub mod place;
mod position;

pub use line::{Line, Terminator, end_line, place_line};
pub use login::{Login, Start, parse_start};
pub use place::{Answer, History};
pub use position::POSITION_MAX;
