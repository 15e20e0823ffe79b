//! Serving several users in one pass over the tape, where AVX-512 does it.

#![forbid(unsafe_code)]

use super::{
    avx512::gather::{ABREAST, Insert, Marks},
    cpu::{Avx512, Cpu},
};
use crate::engine::arch::gather::Owed;

/// Users who receive much of the tape, until there are enough of them for a pass.
#[derive(Debug)]
pub(crate) struct Abreast {
    avx512: Option<Avx512>,
    marks: Marks,
    /// Users who wait to be served.
    slots: [u32; ABREAST],
    count: usize,
    /// Their mail.
    inserts: Vec<Insert>,
}

impl Abreast {
    pub(crate) fn new(cpu: Cpu) -> Self {
        Self {
            avx512: cpu.avx512(),
            marks: Marks::default(),
            slots: [0; ABREAST],
            count: 0,
            inserts: Vec::new(),
        }
    }

    /// Begins with a new tape.
    pub(crate) fn begin(&mut self, owed: &Owed<'_>) {
        if let Some(avx512) = self.avx512 {
            let bytes = owed.len.next_multiple_of(64);
            avx512.mark(&owed.tape[owed.start..][..bytes], &mut self.marks);
        }
    }

    /// Takes a user who gets much of the tape. Says whether it has been taken.
    pub(crate) fn take(&mut self, owed: &Owed<'_>, slot: usize) -> bool {
        let mail = owed.mail.bytes_of(slot);
        // Where even all of the tape would not be worth it, there is no need to look.
        let Some(avx512) = self.avx512.filter(|_| self.marks.is_dense(owed.events, mail)) else {
            return false;
        };
        let words = owed.matrix.chunks(owed.slots).map(|group| &group[slot]);
        let count = avx512.choose(words, owed.events.div_ceil(64), self.count, &mut self.marks);
        if !self.marks.is_dense(count, mail) {
            return false;
        }
        self.slots[self.count] = slot as u32;
        self.count += 1;
        true
    }

    /// Serves the waiting users, if they are enough for a pass.
    pub(crate) fn serve_if_full(
        &mut self,
        owed: &Owed<'_>,
        scratch: &mut [u8],
        write: &mut impl FnMut(u32, &[u8]),
    ) {
        if self.count == ABREAST {
            self.serve(owed, self.slots, 0, scratch, write);
            self.count = 0;
        }
    }

    /// Serves the waiting users, one after the other.
    pub(crate) fn serve_rest(
        &mut self,
        owed: &Owed<'_>,
        scratch: &mut [u8],
        write: &mut impl FnMut(u32, &[u8]),
    ) {
        for place in 0..std::mem::take(&mut self.count) {
            self.serve(owed, [self.slots[place]], place, scratch, write);
        }
    }

    /// Hands users their events of the tape, and their mail in between; their bits have been taken as those from the place
    /// `first` on.
    fn serve<const N: usize>(
        &mut self,
        owed: &Owed<'_>,
        slots: [u32; N],
        first: usize,
        scratch: &mut [u8],
        write: &mut impl FnMut(u32, &[u8]),
    ) {
        let Some(avx512) = self.avx512 else { return };
        let Self { marks, inserts, .. } = self;
        inserts.clear();
        for (user, &slot) in slots.iter().enumerate() {
            for (before, run) in owed.mail.runs(slot as usize) {
                inserts.push(Insert::new(owed.ends[before as usize] - owed.start as u32, user, run));
            }
        }
        inserts.sort_unstable_by_key(Insert::order);
        let mut parts = scratch.chunks_exact_mut(scratch.len() / ABREAST);
        let mut outs = slots.map(|_| parts.next().unwrap_or_default());
        let mail = (&inserts[..], owed.mail.all_bytes());
        let lens = avx512.gather(&owed.tape[owed.start..], marks, first, mail, &mut outs);
        for ((slot, out), len) in slots.into_iter().zip(outs).zip(lens) {
            write(slot, &out[..len]);
        }
    }
}
