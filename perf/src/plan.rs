//! How many bytes each user gets in all, and how many the source sends: all that `maze limit` knows.

use std::collections::HashMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::block::{Block, Builder, Expect};
use crate::book::Book;
use crate::workload::Workload;

/// A part of a run in which each user's share of the bytes is constant: the preamble, or the rest.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Stage {
    /// Bytes that the sources send.
    pub source_bytes: u64,
    /// Bytes that each user gets, by position in [`Plan::ids`].
    pub user_bytes: Vec<u64>,
}

/// A whole run in bytes.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The users' ids.
    pub ids: Vec<u64>,
    /// The parts, one after the other.
    pub stages: Vec<Stage>,
}

impl Plan {
    /// The plan of a run whose blocks are all in memory.
    pub fn of_book(load: &Workload, book: &Book) -> Plan {
        let mut plan = Plan { ids: load.ids(), stages: Vec::new() };
        let mut preamble = None;
        (0..book.end())
            .filter_map(|index| book.built(index))
            .for_each(|block| plan.add(block, &mut preamble));
        plan
    }

    /// The plan of any run, worked out by going through it once.
    pub fn of_workload(load: &Workload) -> Plan {
        let mut builder = Builder::new(load, Expect::Protocol, false);
        let mut plan = Plan { ids: load.ids(), stages: Vec::new() };
        let mut preamble = None;
        while let Some(block) = builder.next_block() {
            plan.add(&block, &mut preamble);
        }
        plan
    }

    fn add(&mut self, block: &Block, preamble: &mut Option<bool>) {
        if preamble.replace(block.preamble) != Some(block.preamble) {
            self.stages.push(Stage { source_bytes: 0, user_bytes: vec![0; self.ids.len()] });
        }
        let Some(stage) = self.stages.last_mut() else { return };
        stage.source_bytes += block.wires.iter().map(|wire| wire.bytes.len() as u64).sum::<u64>();
        for (slot, bytes) in stage.user_bytes.iter_mut().enumerate() {
            *bytes += block.text(slot).bytes.len() as u64;
        }
    }

    /// The position of each id.
    pub fn positions(&self) -> HashMap<u64, usize> {
        self.ids.iter().enumerate().map(|(position, id)| (*id, position)).collect()
    }

    /// How many bytes the user at `position` is due when the source has sent `received` bytes.
    pub fn due(&self, position: usize, received: u64) -> u64 {
        let mut left = received;
        let mut due = 0;
        for stage in &self.stages {
            let part = left.min(stage.source_bytes);
            left -= part;
            let whole = u128::from(stage.user_bytes[position]) * u128::from(part);
            due += (whole / u128::from(stage.source_bytes.max(1))) as u64;
        }
        due
    }

    /// Reads a plan.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub fn load(path: &Path) -> Result<Plan, String> {
        let text = std::fs::read_to_string(path).map_err(|e| format!("plan {}: {e}", path.display()))?;
        let plan: Plan = serde_json::from_str(&text).map_err(|e| format!("plan {}: {e}", path.display()))?;
        match plan.stages.iter().all(|stage| stage.user_bytes.len() == plan.ids.len()) {
            true => Ok(plan),
            false => Err(format!("plan {}: a stage has not as many users as there are ids", path.display())),
        }
    }

    /// Writes it.
    ///
    /// # Errors
    /// One sentence that names the file.
    pub fn store(&self, path: &Path) -> Result<(), String> {
        let text = serde_json::to_string(self).map_err(|e| format!("plan: {e}"))?;
        std::fs::write(path, text).map_err(|e| format!("plan {}: {e}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::Shape;

    #[test]
    fn shares_add_up() {
        for shape in [Shape::Maze, Shape::Celebrity] {
            let load = Workload::of_shape(shape, 0.01);
            let plan = Plan::of_workload(&load);
            assert_eq!(plan.stages.len(), if shape == Shape::Celebrity { 2 } else { 1 });
            let all: u64 = plan.stages.iter().map(|stage| stage.source_bytes).sum();
            for position in [0, 57, 99] {
                let total = plan.stages.iter().map(|stage| stage.user_bytes[position]).sum::<u64>();
                assert_eq!(plan.due(position, 0), 0);
                assert_eq!(plan.due(position, all), total);
                assert_eq!(plan.due(position, u64::MAX), total);
                let dues: Vec<u64> = (0..100).map(|part| plan.due(position, all / 100 * part)).collect();
                assert!(dues.is_sorted() && dues[50] > 0);
            }
        }
    }
}
