//! The script of the world: it decides which events happen, and when.

use super::{
    operation::{Fault, Operation},
    world::World,
};
use crate::time::Micros;

/// Decides what happens in the world, and when.
pub trait Script {
    /// When the next thing happens; `None`: nothing will. What is due already happens at the server's next poll.
    fn next_at(&mut self, world: &World) -> Option<Micros>;

    /// Lets the next thing happen. Called when its time has come, and must get on: Afterwards [`Script::next_at`] tells
    /// of the thing after it.
    fn happen(&mut self, world: &mut World);

    /// The server is about to do something: what happens now happens in the middle of its turn, unnoticed until it asks.
    fn meanwhile(&mut self, world: &mut World, operation: Operation) {
        let _ = (world, operation);
    }

    /// The process ends before the poll returns that this happened in: it returns an error, and the server is to be dropped.
    fn ends_process(&self) -> bool {
        false
    }

    /// For how long the process is stopped between the end of a wait that has found nothing and the look at the clock: what
    /// happens meanwhile is not told.
    fn stall(&mut self) -> Micros {
        0
    }

    /// Whether something goes wrong with an operation of the server.
    fn fault(&mut self, operation: Operation) -> Option<Fault> {
        let _ = operation;
        None
    }
}
