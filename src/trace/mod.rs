//! Recorded traces (SPEC section 7): what reached a server, and when, as a text file.
//!
//! A trace is written by a running server ([`Recorder`], `--record-trace FILE`) or by hand, and played to the real server
//! code on a [simulated network](crate::sim) (`fortnight replay`). What every user received and what was counted is the
//! [`Outcome`]; an [`Expectation`] is an outcome that was stored to be compared with.
//!
//! # The format
//!
//! ```text
//! fortnight trace 1
//! option eventTimeoutMs 500
//! # Times are microseconds since the start.
//! 0 user 1 connects
//! 0 user 1 sends
//! =2932
//! 1000 source 1 connects
//! 1200 source 1 sends
//! =1|F|60|2932
//! -2|P|60|2932
//! +3|P|60|29
//! 1900 source 1 sends
//! =32
//! 2000 user 1 takes 0
//! 2500000 user 1 takes all
//! 3000000 source 1 closes
//! 4000000 signal
//! ```
//!
//! It is read line by line; every line ends with LF, the last one too.
//!
//! ```text
//! trace   = "fortnight trace 1" LF *(option / note) *(record / note)
//! option  = "option " NAME " " VALUE LF
//! record  = TIME " " WHO " connects" LF
//!         / TIME " " WHO " sends" LF *(data / note)
//!         / TIME " " WHO " sends " NUMBER " bytes" LF block LF
//!         / TIME " " WHO " finishes" LF
//!         / TIME " " WHO " closes" LF
//!         / TIME " " WHO " resets" LF
//!         / TIME " user " NUMBER " takes " (NUMBER / "all") LF
//!         / TIME " signal" LF
//!         / TIME " " machine LF
//! machine = "killed" / "power fails" / "starts" / "disk takes " NUMBER / "disk is full" / "disk has room"
//! data    = ("=" / "-" / "+") *(TEXT / ESCAPE) LF
//! block   = *BYTE                         ; as many as its record says
//! note    = "#" *BYTE LF / LF
//! WHO     = ("source " / "user ") NUMBER
//! TIME    = NUMBER                        ; microseconds since the start, never less than the one before, below 2^63
//! NUMBER  = 1*DIGIT                       ; below 2^64
//! TEXT    = %x20-5B / %x5D-7E             ; ASCII that can be printed, but no backslash
//! ESCAPE  = "\r" / "\n" / "\t" / "\\" / "\x" 2HEXDIG
//! ```
//!
//! - **option** is an option of the server by the name of its variable. The others have their defaults. Only options
//!   that make a difference to a replay are allowed: [`OPTIONS`]. `busyPoll` is not: in virtual time nobody spins. It
//!   changes when users are sent something, and not what they are sent.
//! - **connects**: the connection has reached the server. Sources and users are numbered separately, and a number is
//!   used once. The number stands for a connection. The user's id is in the bytes that it sends, as on the wire.
//! - **sends**: these bytes have reached the server together. Each data line is one piece of them. Its first character
//!   says how the piece ended: `=` with CR LF, `-` with LF alone, `+` without a line end. A *block* has the bytes
//!   themselves instead of data lines. The bytes of a busy source are recorded as blocks, because that costs least.
//!   `fortnight trace cut` turns blocks into lines that can be edited.
//! - **finishes**: the client sends nothing more, but still receives. **closes**: the client has gone. **resets**: the
//!   connection has broken.
//! - **takes**: how many bytes the connection takes from the server, counted from its beginning. `takes 0`: nothing
//!   more from now on, whatever it has taken so far. `takes 5000`: it stops at 5,000. `takes all`: everything at once,
//!   as every connection does at the start.
//! - **signal**: the server is told to end (SIGTERM).
//! - **killed**: the server's process ends between two turns, in whatever way. Its connections are gone, and nobody can connect.
//!   **power fails**: its machine ends. Of what was not synced any part is there, the same part in every replay. **starts**: the
//!   server starts on what is there, after one of these or after it was told to end. **disk takes**: from now on
//!   a submitted write or sync takes up to so many microseconds. **disk is full**, **disk has room**: from now on.
//!   These records need the option `journalDirectory`, which in a trace says no more than that there is a journal: a
//!   replay keeps it in memory, and begins with an empty one. The counters of all lives are added up.
//!
//! Records of one time have reached the server together. Users are served first, as always. After the last record the
//! time goes on until nothing is left to happen, for a [day](replay::TIME_AFTER_END) at most.
//!
//! A trace is damaged if its last line has no end. It is replayed up to that line.

mod cut;
mod expectation;
mod file;
mod outcome;
mod player;
mod reader;
mod record;
mod recorder;
pub mod replay;
mod show;
mod stream;
#[cfg(test)]
mod tests;
mod text;

pub use cut::cut;
pub use expectation::{Difference, Expectation};
pub use outcome::Outcome;
pub(crate) use outcome::Report;
pub use player::Player;
pub use reader::{Reader, TraceError};
pub use record::{Action, ConnectionId, OPTIONS, Record};
pub use recorder::{RecordedSocket, Recorder, Recording};
pub use replay::{Replayed, replay};
pub use show::show;
pub use stream::{Content, Keep, Shown, Stream};
