//! Puts each user's bytes together, one user after the other, in memory that stays in the cache.

#![forbid(unsafe_code)]

use super::arch::{
    ABREAST, Abreast, Cpu,
    gather::{Owed, SLACK},
};

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Gatherer {
    cpu: Cpu,
    /// Users that get much of the tape. Several of them are served at a time where the processor can.
    abreast: Abreast,
    scratch: Vec<u8>,
}

impl Gatherer {
    pub(crate) fn new(cpu: Cpu) -> Self {
        Self { cpu, abreast: Abreast::new(cpu), scratch: Vec::new() }
    }

    /// Begins with a turn in which no user gets more than `user_bytes`.
    pub(crate) fn begin(&mut self, owed: &Owed<'_>, user_bytes: usize) {
        self.abreast.begin(owed);
        // Not a power of two, so that the users' parts of it are not at odds over the same lines of the cache.
        let part = user_bytes + SLACK + 17 * 64;
        if self.scratch.len() < ABREAST * part {
            // Memory that is all zeros is not there until it is written to.
            self.scratch = vec![0; ABREAST * part];
        }
    }

    /// Hands a user its bytes, now or later.
    pub(crate) fn gather(&mut self, owed: &Owed<'_>, slot: usize, write: &mut impl FnMut(u32, &[u8])) {
        if self.abreast.take(owed, slot) {
            self.abreast.serve_if_full(owed, &mut self.scratch, write);
        } else {
            let len = self.cpu.gather(owed, slot, &mut self.scratch);
            write(slot as u32, &self.scratch[..len]);
        }
    }

    /// Hands those their bytes who have not got them yet.
    pub(crate) fn finish(&mut self, owed: &Owed<'_>, write: &mut impl FnMut(u32, &[u8])) {
        self.abreast.serve_rest(owed, &mut self.scratch, write);
    }
}
