//! The network, and the server's ends of its connections.

use super::{
    disk::SimFolder,
    operation::{Fault, Operation, Peer},
    script::Script,
    world::World,
};
use crate::{
    counters::DoorCounters,
    process::Process,
    server::net::{Net, Port, Ready},
    time::Micros,
    warning::Warning,
};
use std::{
    cell::{RefCell, RefMut},
    io::{self, IoSlice, Read, Write},
    net::SocketAddr,
    rc::Rc,
};

/// The state that a [`SimNet`] and its sockets share.
#[derive(Debug)]
pub struct Shared<S> {
    /// The connections and the time.
    pub world: World,
    /// The script of the world.
    pub script: S,
    /// Whose completions wake the server.
    folder: Option<SimFolder>,
}

/// See the [module](super). A clone is another handle to the same network.
#[derive(Debug)]
pub struct SimNet<S> {
    shared: Rc<RefCell<Shared<S>>>,
}

impl<S> Clone for SimNet<S> {
    fn clone(&self) -> Self {
        Self { shared: Rc::clone(&self.shared) }
    }
}

impl<S: Script> SimNet<S> {
    /// A network with its listeners up, at time 0.
    #[must_use]
    pub fn new(script: S) -> Self {
        Self { shared: Rc::new(RefCell::new(Shared { world: World::default(), script, folder: None })) }
    }

    /// The same, for a server that keeps a journal there: what its disk has done wakes it.
    #[must_use]
    pub fn with_disk(script: S, folder: SimFolder) -> Self {
        let net = Self::new(script);
        net.shared().folder = Some(folder);
        net
    }

    /// The world and the script, between the server's turns.
    ///
    /// # Panics
    ///
    /// If what an earlier call returned is still alive.
    #[must_use]
    pub fn shared(&self) -> RefMut<'_, Shared<S>> {
        self.shared.borrow_mut()
    }

    /// The world and the fault that befalls an operation.
    fn fault(&self, operation: Operation) -> (RefMut<'_, Shared<S>>, Option<Fault>) {
        let mut shared = self.shared.borrow_mut();
        let Shared { world, script, .. } = &mut *shared;
        script.meanwhile(world, operation);
        let fault = script.fault(operation);
        (shared, fault)
    }
}

impl<S: Script> Net for SimNet<S> {
    type Socket = SimSocket<S>;

    fn poll(&mut self, wait: Option<Micros>, ready: &mut Vec<Ready>) -> io::Result<Micros> {
        let Shared { world, script, folder } = &mut *self.shared.borrow_mut();
        let deadline = wait.map(|wait| world.now().saturating_add(wait));
        loop {
            while script.next_at(world).is_some_and(|at| at <= world.now()) {
                script.happen(world);
                if script.ends_process() {
                    return Err(io::Error::other("the process ends"));
                }
            }
            world.tell(ready);
            if let Some(folder) = folder {
                folder.set_now(world.now());
                ready.extend(folder.tell().then_some(Ready::Disk));
            }
            let completion = folder.as_ref().and_then(SimFolder::next_completion);
            if !ready.is_empty() || deadline.is_some_and(|at| at <= world.now()) {
                return Ok(world.now());
            }
            match script.next_at(world).into_iter().chain(completion).chain(deadline).min() {
                Some(at) if Some(at) == deadline => {
                    world.advance_to(at);
                    let stall = script.stall();
                    if stall > 0 {
                        // The wait is over and has found nothing; before the clock is looked at, the process is stopped.
                        world.advance_to(at + stall);
                        return Ok(world.now());
                    }
                }
                Some(at) => world.advance_to(at),
                None => {
                    world.set_idle();
                    return Ok(world.now());
                }
            }
        }
    }

    fn told_to_end(&mut self) -> usize {
        self.shared.borrow().world.signals()
    }

    fn accept(&mut self, port: Port) -> io::Result<(Self::Socket, SocketAddr)> {
        if !self.shared.borrow().world.can_accept(port) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let (mut shared, fault) = self.fault(Operation::Accept(port));
        let (peer, address) = shared.world.accept(port, fault)?;
        Ok((SimSocket::new(self.clone(), peer), address))
    }

    fn backlog(&mut self, port: Port) -> usize {
        self.shared.borrow().world.backlog(port)
    }

    /// The same on every run.
    fn random(&mut self) -> u64 {
        self.shared.borrow_mut().world.random()
    }

    fn door(&self) -> DoorCounters {
        DoorCounters::default()
    }

    fn connect(&mut self, to: SocketAddr) -> io::Result<Self::Socket> {
        let peer = self.shared.borrow_mut().world.call(to);
        Ok(SimSocket::new(self.clone(), peer))
    }

    fn register(&mut self, socket: &mut Self::Socket, key: usize) -> io::Result<()> {
        let (mut shared, fault) = self.fault(Operation::Register(socket.peer()));
        shared.world.register(socket.peer(), key, fault)
    }

    fn want_write(&mut self, socket: &mut Self::Socket, key: usize, on: bool) -> io::Result<()> {
        let (mut shared, fault) = self.fault(Operation::WantWrite(socket.peer()));
        shared.world.want_write(socket.peer(), key, on, fault)
    }

    fn forget(&mut self, socket: &mut Self::Socket) {
        self.shared.borrow_mut().world.forget_key(socket.peer());
    }

    fn finish(&mut self, socket: &mut Self::Socket) {
        self.shared.borrow_mut().world.server_finished(socket.peer());
    }

    fn unread(&mut self, socket: &mut Self::Socket) -> usize {
        self.shared.borrow().world.unread(socket.peer())
    }

    fn clock(&self) -> Micros {
        self.shared.borrow().world.now()
    }

    fn warnings(&self) -> Vec<Warning> {
        Vec::new()
    }

    fn process(&mut self) -> Option<Process> {
        None
    }

    /// Time begins in 1970.
    fn time_ms(&mut self) -> u64 {
        self.shared.borrow().world.now() / crate::time::MILLISECOND
    }

    /// What is simulated always listens.
    fn listen(&mut self, _port: Port, _on: bool) -> io::Result<()> {
        Ok(())
    }

    fn peers_may_vanish(&self) -> bool {
        self.shared.borrow().world.any_vanished()
    }

    fn silence(&mut self, socket: &mut Self::Socket) -> Option<Micros> {
        self.shared.borrow().world.silence(socket.peer())
    }

    fn close_listener(&mut self, port: Port) {
        self.shared.borrow_mut().world.close_listener(port);
    }
}

/// A non-blocking virtual socket. Dropping it closes the connection.
#[derive(Debug)]
pub struct SimSocket<S: Script> {
    net: SimNet<S>,
    peer: Peer,
}

impl<S: Script> SimSocket<S> {
    pub(super) fn new(net: SimNet<S>, peer: Peer) -> Self {
        Self { net, peer }
    }

    /// The connection that this is the server's end of.
    #[must_use]
    pub fn peer(&self) -> Peer {
        self.peer
    }
}

impl<S: Script> Read for SimSocket<S> {
    fn read(&mut self, target: &mut [u8]) -> io::Result<usize> {
        let (mut shared, fault) = self.net.fault(Operation::Read(self.peer, target.len()));
        shared.world.read(self.peer, target, fault)
    }
}

impl<S: Script> Write for SimSocket<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let len = slices.iter().map(|slice| slice.len()).sum();
        let (mut shared, fault) = self.net.fault(Operation::Write(self.peer, len));
        shared.world.write(self.peer, slices, len, fault)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Script> Drop for SimSocket<S> {
    fn drop(&mut self) {
        self.net.shared().world.server_closed(self.peer);
    }
}
