//! Telling sources what is dealt with, and closing those that wait for their last acknowledgement (`docs/SPEC.md` section 9).

use super::Sources;
use crate::{
    epoch::Epoch,
    sequence::Cursor,
    server::{key::SourceKey, net::Net, source::Source},
    time::Micros,
};
use smallvec::SmallVec;
use std::io::Write;

impl<S> Sources<S> {
    /// When the first connection is closed that waits for its last acknowledgement, or is on trial.
    pub(in crate::server) fn acknowledgement_deadline(&self) -> Option<Micros> {
        let deadline = |source: &Source<S>| {
            let half_closed = source.half_closed.as_ref().map(|half| half.until);
            half_closed.into_iter().chain(source.trial_until).min()
        };
        self.entries
            .iter()
            .filter(|(_, source)| !source.ended)
            .filter_map(|(_, source)| deadline(source))
            .min()
    }

    /// A source on trial whose time is up.
    pub(in crate::server) fn overdue_trial(&self, now: Micros) -> Option<SourceKey> {
        let is_overdue = |source: &Source<S>| source.trial_until.is_some_and(|until| until <= now);
        let mut entries = self.entries.iter();
        entries
            .find(|(_, source)| !source.ended && is_overdue(source))
            .map(|(index, _)| SourceKey::new(index))
    }

    /// Whether any source only waits for its last acknowledgement.
    pub(in crate::server) fn wait_for_acknowledgements(&self) -> bool {
        self.entries.iter().any(|(_, source)| !source.ended && source.half_closed.is_some())
    }

    /// Sources that have each sent a whole line other than the question.
    pub(in crate::server) fn heard(&self) -> usize {
        let heard = |source: &Source<S>| source.is_counted && source.has_sent_a_line;
        self.entries.iter().filter(|(_, source)| heard(source)).count()
    }
}

impl<S: Write> Sources<S> {
    /// Tells those who asked that every number below `number` is dealt with; closes those who have been told all.
    /// `is_last`: this number is the last one.
    pub(in crate::server) fn acknowledge<N: Net<Socket = S>>(
        &mut self,
        (epoch, number): (Epoch, Cursor),
        is_last: bool,
        net: &mut N,
        now: Micros,
    ) {
        let mut closed: SmallVec<[SourceKey; 4]> = SmallVec::new();
        for (index, source) in &mut self.entries {
            let Some(asked) = source.asked.as_mut().filter(|_| !source.ended) else { continue };
            let key = SourceKey::new(index);
            let waited = asked.waits();
            let outcome = asked.tell(epoch, number, &mut source.socket).and_then(|()| {
                if asked.waits() == waited {
                    return Ok(());
                }
                net.want_write(&mut source.socket, key.number(), asked.waits())
            });
            let is_over = source.half_closed.as_ref().is_some_and(|half| {
                let all = is_last || number >= half.all_below;
                half.until <= now || source.is_replaced || (all && asked.have_told(number))
            });
            // A socket that fails while it is still read is found to have failed by reading it.
            if is_over || (outcome.is_err() && source.half_closed.is_some()) {
                net.finish(&mut source.socket);
                closed.push(key);
            }
        }
        closed.into_iter().for_each(|key| self.close(key));
    }

    /// Older connections whose name another one has given: what has arrived of them is read, and no more. One that waits for room in
    /// the ring keeps what it has sent, but only as many as there are places: a source that comes again and again sends it again.
    pub(in crate::server) fn retire_replaced<N: Net<Socket = S>>(&mut self, net: &mut N) {
        if !std::mem::take(&mut self.any_replaced) {
            return;
        }
        let replaced = self.entries.iter().filter(|(_, source)| source.is_replaced && !source.ended).count();
        let mut too_many = replaced.saturating_sub(self.places);
        let mut closed: SmallVec<[SourceKey; 4]> = SmallVec::new();
        for (index, source) in &mut self.entries {
            let key = SourceKey::new(index);
            if !source.is_replaced || source.ended {
                continue;
            }
            if std::mem::replace(&mut source.is_retired, true) {
                if source.blocked.is_some() && too_many > 0 {
                    too_many -= 1;
                    closed.push(key);
                }
                continue;
            }
            source.arrived = net.unread(&mut source.socket);
            // Reading it finds its end. One that waits for room in the ring is read after that.
            source.readable = true;
            if source.blocked.is_none() && !std::mem::replace(&mut source.queued, true) {
                self.readable.push_back(key);
            }
        }
        closed.into_iter().for_each(|key| self.close(key));
    }
}
