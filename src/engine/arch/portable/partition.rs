//! Partitions a run, event by event, without a branch on the type of the event.

#![forbid(unsafe_code)]

use crate::engine::{
    arch::partition::{Partition, RUN},
    event::Kind,
    packed::Packed,
    user_slot::NO_SLOT,
};

const FOLLOW: u8 = Kind::Follow as u8;
const UNFOLLOW: u8 = Kind::Unfollow as u8;
const BROADCAST: u8 = Kind::Broadcast as u8;
const PRIVATE: u8 = Kind::Private as u8;
const STATUS: u8 = Kind::Status as u8;

/// Takes a run apart. `slot_of` says at which slot the user of an id is connected.
#[inline(always)]
pub(crate) fn partition(run: &[Packed], slot_of: impl Fn(u64) -> u32, partition: &mut Partition) {
    let (mut edge_count, mut due_count) = (0, 0);
    // A byte for each kind: counts in memory, one for each kind, would have to wait for one another. Two, so that even a
    // run that is all of a kind fits.
    const { assert!(RUN / 2 <= u8::MAX as usize) };
    let mut kinds = [0u64; 2];
    for (place, event) in (0..).zip(run) {
        let kind = event.kind();
        kinds[place as usize % 2] += 1 << (8 * (kind & 7));
        partition.edges[edge_count % RUN] = place;
        edge_count += usize::from(kind <= UNFOLLOW);
        let one = (1 << FOLLOW | 1 << PRIVATE) >> kind & 1 != 0;
        let many = (1 << BROADCAST | 1 << STATUS) >> kind & 1 != 0;
        // Kinds without `to` may have anything there.
        let target = slot_of(event.to() & u64::from(one).wrapping_neg());
        partition.due[due_count % RUN] = place;
        partition.targets[due_count % RUN] = target;
        due_count += usize::from(many | (one & (target != NO_SLOT)));
    }
    (partition.edge_count, partition.due_count) = (edge_count, due_count);
    for kinds in kinds {
        for (count, more) in partition.kinds.iter_mut().zip(kinds.to_le_bytes()) {
            *count += u64::from(more);
        }
    }
}
