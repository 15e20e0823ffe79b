//! Taking a run apart, sixteen events at a time.
//!
//! The same as the [portable loop](crate::engine::arch::portable::partition), with masks instead of conditions.

#![forbid(unsafe_code)]

use super::super::{
    features::for_avx512,
    vector::{POSITIONS, load, lookup_second, padded, store, words_of},
};
use crate::engine::{arch::partition::Partition, event::Kind, packed::Packed, user_slot::NO_SLOT};
use std::{arch::x86_64::*, array};

/// Events that are done at once.
const LANES: usize = 16;

for_avx512! {
    /// Takes a run apart. `users` are the nodes of ids and their slots, if `is_all`, of all that are known. Returns false, with
    /// nothing done, if there is an id whose slot is elsewhere.
    pub(crate) fn partition(run: &[Packed], users: &[[u32; 2]], is_all: bool, partition: &mut Partition) -> bool {
        let (mut edge_count, mut due_count) = (0, 0);
        let mut kinds = [0; 8];
        let nobody = _mm512_set1_epi32(NO_SLOT.cast_signed());
        let mut places = words_of(load(&POSITIONS));
        for events in run.chunks(LANES) {
            let present = u16::MAX >> (LANES - events.len());
            let (to, kind) = parts(events);
            let masks: [u16; 8] = array::from_fn(|of| {
                _mm512_mask_cmpeq_epi32_mask(present, kind, _mm512_set1_epi32(of as i32))
            });
            for (count, mask) in kinds.iter_mut().zip(masks) {
                *count += u64::from(mask.count_ones());
            }
            let of = |kind: Kind| masks[kind as usize];
            let edge = of(Kind::Follow) | of(Kind::Unfollow);
            let one = of(Kind::Follow) | of(Kind::Private);
            let many = of(Kind::Broadcast) | of(Kind::Status);

            let len = _mm512_set1_epi32(i32::try_from(users.len()).unwrap_or(i32::MAX));
            if _mm512_mask_cmpge_epu32_mask(one, to, len) != 0 && !is_all {
                return false;
            }
            let target = lookup_second(users, to, one, nobody);
            let due = many | _mm512_mask_cmpneq_epi32_mask(one, target, nobody);

            push(&mut partition.edges[edge_count..], edge, places);
            push(&mut partition.due[due_count..], due, places);
            push(&mut partition.targets[due_count..], due, target);
            edge_count += edge.count_ones() as usize;
            due_count += due.count_ones() as usize;
            places = _mm512_add_epi32(places, _mm512_set1_epi32(LANES as i32));
        }
        (partition.edge_count, partition.due_count, partition.kinds) = (edge_count, due_count, kinds);
        true
    }

    /// Recipient and kind of each of up to sixteen events.
    fn parts(events: &[Packed]) -> (__m512i, __m512i) {
        let mut room = [Packed::default(); LANES];
        let events = padded(events, &mut room);
        let quarters: [__m512i; 4] = array::from_fn(|quarter| load(&events.as_chunks::<4>().0[quarter]));
        let third = _mm512_add_epi32(_mm512_slli_epi32::<2>(words_of(load(&POSITIONS))), _mm512_set1_epi32(2));
        let fourth = _mm512_add_epi32(third, _mm512_set1_epi32(1));
        let pick = |which| {
            let low = _mm512_permutex2var_epi32(quarters[0], which, quarters[1]);
            let high = _mm512_permutex2var_epi32(quarters[2], which, quarters[3]);
            _mm512_inserti64x4::<1>(low, _mm512_castsi512_si256(high))
        };
        let kind = _mm512_and_si512(_mm512_srli_epi32::<16>(pick(fourth)), _mm512_set1_epi32(0xFF));
        (pick(third), kind)
    }

    /// Writes the lanes of `mask` to the beginning of `target`, and anything behind them.
    fn push(target: &mut [u32], mask: u16, lanes: __m512i) {
        if let Some(target) = target.first_chunk_mut::<LANES>() {
            store(target, _mm512_maskz_compress_epi32(mask, lanes));
        }
    }
}
