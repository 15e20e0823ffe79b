//! A script that is written down beforehand.

use super::{script::Script, world::World};
use crate::time::Micros;
use std::{collections::BTreeMap, fmt};

type Action = Box<dyn FnOnce(&mut World)>;

/// Things that happen at given times; those of the same time in the order in which they were scheduled.
#[derive(Default)]
pub struct Schedule {
    actions: BTreeMap<(Micros, usize), Action>,
    scheduled: usize,
}

impl Schedule {
    /// Schedules an action.
    pub fn at(&mut self, time: Micros, action: impl FnOnce(&mut World) + 'static) {
        self.actions.insert((time, self.scheduled), Box::new(action));
        self.scheduled += 1;
    }
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Schedule").field("actions", &self.actions.keys()).finish_non_exhaustive()
    }
}

impl Script for Schedule {
    fn next_at(&mut self, _: &World) -> Option<Micros> {
        self.actions.first_key_value().map(|(&(at, _), _)| at)
    }

    fn happen(&mut self, world: &mut World) {
        if let Some((_, action)) = self.actions.pop_first() {
            action(world);
        }
    }
}
