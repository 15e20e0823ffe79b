//! Bits of words, one after the other.

#![forbid(unsafe_code)]

/// Sets the bit of a member, or clears it; says how many members more there are.
#[inline(always)]
pub(crate) fn set_bit(word: &mut u64, id: u32, member: bool) -> i32 {
    let was = *word >> (id % 64) & 1;
    *word ^= (was ^ u64::from(member)) << (id % 64);
    i32::from(member) - was as i32
}

/// Calls `f` with the index of every bit that is set.
#[inline]
pub(crate) fn for_each_bit(words: &[u64], mut f: impl FnMut(usize)) {
    for (at, &word) in words.iter().enumerate() {
        let mut rest = word;
        while rest != 0 {
            f(at * 64 + rest.trailing_zeros() as usize);
            rest &= rest - 1;
        }
    }
}

/// Takes the lowest bits off, at most this number.
pub(crate) fn take_bits(words: &mut Vec<u64>, most: usize) -> Vec<u64> {
    if most >= words.len() * 64 {
        return std::mem::take(words);
    }
    let mut left = most;
    words
        .iter_mut()
        .map(|word| {
            let mut rest = *word;
            for _ in 0..left.min(word.count_ones() as usize) {
                rest &= rest - 1;
                left -= 1;
            }
            std::mem::replace(word, rest) ^ rest
        })
        .collect()
}

/// Calls `f` with the index of every bit that is set, from `first` on, as long as there are steps left: one for each word and one
/// for each bit. Returns where to go on, or nothing if those were all.
pub(crate) fn for_each_bit_from(
    words: &[u64],
    first: u32,
    left: &mut usize,
    mut f: impl FnMut(u32),
) -> Option<u32> {
    let mut from = first;
    while let Some(&word) = words.get(from as usize / 64) {
        if *left == 0 {
            return Some(from);
        }
        let rest = word & u64::MAX << (from % 64);
        let base = from & !63;
        for_each_bit(&[rest], |bit| f(base + bit as u32));
        *left = left.saturating_sub(1 + rest.count_ones() as usize);
        from = base.checked_add(64)?;
    }
    None
}
