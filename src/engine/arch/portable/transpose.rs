//! Transposing blocks of 64×64 bits.

#![forbid(unsafe_code)]

use super::gather::GROUP;

/// The destination of the words of a transposed block.
pub(crate) struct Transposed<'a> {
    /// The words of each user.
    pub(crate) users: &'a mut [[u64; GROUP]],
    /// Which of these is the block's.
    pub(crate) block: usize,
    /// Bit per user: something is for it.
    pub(crate) owed: &'a mut [u64],
    /// Bit per user: all is for it.
    pub(crate) all: &'a mut [u64],
}

/// Gives each user the word that says which `events` of a block are for it.
#[inline(always)]
pub(crate) fn transpose_block(rows: &mut [[u64; 64]], events: usize, to: &mut Transposed<'_>) {
    let users = to.users.as_chunks_mut::<64>().0;
    let sums = to.owed.iter_mut().zip(&mut *to.all);
    for ((row, users), (owed, all)) in rows.iter_mut().zip(users).zip(sums) {
        // The rows that the last block has not got belong to nobody.
        row[events..].fill(0);
        *owed |= row.iter().fold(0, |union, word| union | word);
        *all &= row[..events].iter().fold(u64::MAX, |common, word| common & word);
        transpose(row);
        for (user, &word) in users.iter_mut().zip(row.iter()) {
            user[to.block % GROUP] = word;
        }
    }
}

/// Turns row *i*, bit *j* into row *j*, bit *i* (Warren, *Hacker's Delight*, section 7-3): six rounds that each swap the
/// off-diagonal quarters of ever smaller squares, 64 bits at a time.
#[inline(always)]
pub(crate) fn transpose(rows: &mut [u64; 64]) {
    round::<32>(rows, 0x0000_0000_FFFF_FFFF);
    round::<16>(rows, 0x0000_FFFF_0000_FFFF);
    round::<8>(rows, 0x00FF_00FF_00FF_00FF);
    round::<4>(rows, 0x0F0F_0F0F_0F0F_0F0F);
    round::<2>(rows, 0x3333_3333_3333_3333);
    round::<1>(rows, 0x5555_5555_5555_5555);
}

/// The distance is a constant so that the compiler turns each round into straight vector code.
#[inline(always)]
fn round<const DISTANCE: usize>(rows: &mut [u64; 64], mask: u64) {
    for square in rows.chunks_exact_mut(2 * DISTANCE) {
        let (upper, lower) = square.split_at_mut(DISTANCE);
        for (above, below) in upper.iter_mut().zip(lower) {
            let swapped = ((*above >> DISTANCE) ^ *below) & mask;
            *above ^= swapped << DISTANCE;
            *below ^= swapped;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_bit_changes_sides(rows in prop::collection::vec(any::<u64>(), 64)) {
            let mut turned: [u64; 64] = rows.clone().try_into().unwrap();
            transpose(&mut turned);
            for (i, row) in rows.iter().enumerate() {
                for (j, column) in turned.iter().enumerate() {
                    prop_assert_eq!(row >> j & 1, column >> i & 1);
                }
            }
        }
    }
}
