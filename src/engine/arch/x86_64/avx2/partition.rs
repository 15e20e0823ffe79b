//! Taking a run apart, eight events at a time.
//!
//! The same as the [portable loop](crate::engine::arch::portable::partition), with masks instead of conditions. What is to be kept of eight
//! lanes is moved to the front by a permutation, which is looked up by the mask.

#![forbid(unsafe_code)]

use super::super::{
    features::for_avx2,
    vector::{load_ymm, lookup_second_of_eight, padded, store_ymm, widen_eight},
};
use crate::engine::{
    arch::partition::{Partition, RUN},
    event::Kind,
    packed::Packed,
    user_slot::NO_SLOT,
};
use std::arch::x86_64::*;

/// Events that are done at once.
const LANES: usize = 8;
/// Bits for how many events of a kind there are in a lane.
const COUNT_BITS: usize = 6;
/// What events of a kind do, as bits of its entry in [`DOES`].
const EDGE: u8 = 1;
const FOR_ONE: u8 = 2;
const FOR_MANY: u8 = 4;

const DOES: [u8; 32] = {
    let mut table = [0; 32];
    let mut half = 0;
    // A permutation of bytes stays within a half.
    while half < table.len() {
        table[half + Kind::Follow as usize] = EDGE | FOR_ONE;
        table[half + Kind::Unfollow as usize] = EDGE;
        table[half + Kind::Broadcast as usize] = FOR_MANY;
        table[half + Kind::Private as usize] = FOR_ONE;
        table[half + Kind::Status as usize] = FOR_MANY;
        half += 16;
    }
    table
};

/// For each mask, which lanes it has.
static LANES_OF: [[u8; LANES]; 1 << LANES] = {
    let mut table = [[0; LANES]; 1 << LANES];
    let mut mask = 0;
    while mask < table.len() {
        let (mut lane, mut count) = (0, 0);
        while lane < LANES {
            if mask >> lane & 1 != 0 {
                table[mask][count] = lane as u8;
                count += 1;
            }
            lane += 1;
        }
        mask += 1;
    }
    table
};

for_avx2! {
    /// Takes a run apart. `users` are the nodes of ids and their slots, if `is_all`, of all that are known. Returns false, with
    /// nothing counted, if there is an id whose slot may be elsewhere.
    pub(crate) fn partition(run: &[Packed], users: &[[u32; 2]], is_all: bool, partition: &mut Partition) -> bool {
        const { assert!(RUN / LANES < 1 << COUNT_BITS && 5 * COUNT_BITS <= 32) };
        let len = splat(u32::try_from(users.len()).unwrap_or(u32::MAX));
        let nobody = splat(NO_SLOT);
        let (mut edge_count, mut due_count) = (0, 0);
        let mut counts = splat(0);
        for (first, events) in (0..).step_by(LANES).zip(run.chunks(LANES)) {
            let (to, kind) = parts(events);
            // Of a lane without an event, -1: it is shifted out.
            let kind_before = _mm256_sub_epi32(kind, splat(1));
            let field = _mm256_mullo_epi16(kind_before, splat(COUNT_BITS as u32));
            counts = _mm256_add_epi32(counts, _mm256_sllv_epi32(splat(1), field));

            let does = _mm256_shuffle_epi8(load_ymm(&DOES), kind);
            let one = lanes_that(does, FOR_ONE);
            let outside = _mm256_cmpeq_epi32(_mm256_max_epu32(to, len), to);
            if mask_of(_mm256_and_si256(one, outside)) != 0 && !is_all {
                return false;
            }
            let target = lookup_second_of_eight(users, to, one, nobody);
            let edge = mask_of(lanes_that(does, EDGE));
            let due = mask_of(lanes_that(does, FOR_MANY)) | !mask_of(_mm256_cmpeq_epi32(target, nobody)) & 0xFF;

            let first = splat(first);
            push(&mut partition.edges[edge_count..], _mm256_add_epi32(first, lanes_of(edge)));
            push(&mut partition.due[due_count..], _mm256_add_epi32(first, lanes_of(due)));
            push(&mut partition.targets[due_count..], _mm256_permutevar8x32_epi32(target, lanes_of(due)));
            edge_count += edge.count_ones() as usize;
            due_count += due.count_ones() as usize;
        }
        (partition.edge_count, partition.due_count) = (edge_count, due_count);
        let mut lanes = [0; LANES];
        store_ymm(&mut lanes, counts);
        let mut others = run.len() as u64;
        for (kind, count) in partition.kinds.iter_mut().enumerate().skip(1).take(5) {
            let of_lane = |lane: &u32| u64::from(lane >> (COUNT_BITS * (kind - 1)) & ((1 << COUNT_BITS) - 1));
            *count = lanes.iter().map(of_lane).sum();
            others -= *count;
        }
        partition.kinds[Kind::Void as usize] = others;
        true
    }

    /// Recipient and kind of each of up to eight events; 0 for those that there are not.
    fn parts(events: &[Packed]) -> (__m256i, __m256i) {
        let mut room = [Packed::default(); LANES];
        let events = padded(events, &mut room);
        let [a, b, c, d] = [0, 1, 2, 3].map(|pair| load_ymm(&events.as_chunks::<2>().0[pair]));
        // The second words of the events 0 and 2, 1 and 3; 4 and 6, 5 and 7.
        let first = _mm256_castsi256_ps(_mm256_unpackhi_epi64(a, b));
        let second = _mm256_castsi256_ps(_mm256_unpackhi_epi64(c, d));
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        let low = _mm256_castps_si256(_mm256_shuffle_ps::<0b10_00_10_00>(first, second));
        let high = _mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(first, second));
        let kind = _mm256_and_si256(_mm256_srli_epi32::<16>(high), splat(0xFF));
        (_mm256_permutevar8x32_epi32(low, order), _mm256_permutevar8x32_epi32(kind, order))
    }

    /// The lanes in which a bit is set, all of their bits.
    fn lanes_that(does: __m256i, bit: u8) -> __m256i {
        let bit = splat(bit.into());
        _mm256_cmpeq_epi32(_mm256_and_si256(does, bit), bit)
    }

    fn mask_of(lanes: __m256i) -> u32 {
        _mm256_movemask_ps(_mm256_castsi256_ps(lanes)).cast_unsigned()
    }

    /// The lanes of a mask, from the first one on.
    fn lanes_of(mask: u32) -> __m256i {
        widen_eight(&LANES_OF[mask as usize % LANES_OF.len()])
    }

    /// Writes all lanes to the beginning of `target`.
    fn push(target: &mut [u32], lanes: __m256i) {
        if let Some(target) = target.first_chunk_mut::<LANES>() {
            store_ymm(target, lanes);
        }
    }

    fn splat(word: u32) -> __m256i {
        _mm256_set1_epi32(word.cast_signed())
    }
}
