//! SPEC section 5: peers that vanish without a word are noticed within two minutes, on every port.
//!
//! The clients that vanish are in a network namespace of their own, whose link goes down: no FIN and no reset reaches the server.

use std::{
    fs::File,
    net::Ipv4Addr,
    os::fd::AsFd,
    process::Command,
    time::{Duration, Instant},
};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::{http::AdminClient, server, skipped};

/// Within two minutes; and what the looks at a connection are apart from each other.
const NOTICED_WITHIN: Duration = Duration::from_secs(150);

/// A machine of its own, as far as the network goes.
struct Machine {
    name: String,
    /// Where this side of the link is. It stays up.
    near: Ipv4Addr,
    /// Where the machine is.
    far: Ipv4Addr,
}

impl Machine {
    /// `None`, with a message: that is not possible here.
    fn new() -> Option<Machine> {
        let pid = std::process::id();
        let [.., high, low] = pid.to_be_bytes();
        // A network of four addresses for each process.
        let (high, low) = (high, low & !3);
        let address = |last: u8| Ipv4Addr::new(10, 213, high, low | last);
        let machine = Machine { name: format!("fn{pid}"), near: address(1), far: address(2) };
        let (name, near, far) = (&machine.name, machine.near, machine.far);
        let made = ip(&format!("netns add {name}"))
            .and_then(|()| ip(&format!("link add {name}a type veth peer name {name}b netns {name}")))
            .and_then(|()| ip(&format!("addr add {near}/30 dev {name}a")))
            .and_then(|()| ip(&format!("link set {name}a up")))
            .and_then(|()| ip(&format!("-n {name} addr add {far}/30 dev {name}b")))
            .and_then(|()| ip(&format!("-n {name} link set {name}b up")));
        made.map_err(|why| skipped(&format!("there is no second machine here: {why}"))).ok().map(|()| machine)
    }

    /// Does something there. Sockets that are opened there stay there.
    fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let space = File::open(format!("/run/netns/{}", self.name)).expect("a network namespace");
        let work = move || {
            move_into_link_name_space(space.as_fd(), Some(LinkNameSpaceType::Network)).expect("a move");
            work()
        };
        std::thread::scope(|scope| scope.spawn(work).join().expect("what is done on the other machine"))
    }

    /// It is gone from the network.
    fn vanish(&self) {
        ip(&format!("-n {0} link set {0}b down", self.name)).expect("a link that goes down");
    }

    /// Connections of this side to it that are open, or have been closed and wait for an answer.
    fn connections(&self) -> Vec<String> {
        let far = format!(" {:08X}:", u32::from(self.far).swap_bytes());
        let table = std::fs::read_to_string("/proc/net/tcp").expect("the table of sockets");
        // 01: established.
        table.lines().filter(|line| line.contains(&far) && line.contains(" 01 ")).map(str::to_owned).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = ip(&format!("link del {}a", self.name));
        let _ = ip(&format!("netns del {}", self.name));
    }
}

fn ip(arguments: &str) -> Result<(), String> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .map_err(|error| format!("ip (Debian package iproute2): {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("ip {arguments}: {}", said.trim())) }
}

#[test]
fn peers_whose_machine_vanishes_make_room_on_every_port() {
    let Some(machine) = Machine::new() else { return };
    let near = machine.near.to_string();
    let server = server!(
        eventTimeoutMs = -1,
        maxEventSourceClients = 2,
        eventSourceBindAddress = near,
        userBindAddress = near,
        streamBindAddress = near,
        adminBindAddress = near,
        adminPort = 0,
        streamPort = 0,
    );
    let (mut source, mut witness, mut lazy) = (server.source(), server.user(1), server.narrow_user(4));
    let gone = machine.run(|| {
        let users = [server.user(2), server.user(3), server.stranger()];
        (server.source(), users, server.stream_client("*|now"), AdminClient::connect(server.admin()))
    });
    // The second source has to be there before others are turned away; one user is told something, the other one nothing.
    let mut number = 0;
    let mut send = |text: &str| {
        number += 1;
        let event = format!("{number}{text}\n");
        source.send(&event);
        event
    };
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 2.0);
    server.wait_for_metric("fortnight_users_connected", |users| users == 4.0);
    // More than the kernel takes for one that does not read: that it does not is no reason to take it for vanished.
    let long = format!("|P|{:0900}|4", 1);
    for _ in 0..1000 {
        send(&long);
    }
    machine.vanish();
    let began = Instant::now();
    while let Some(open) = Some(machine.connections()).filter(|open| !open.is_empty()) {
        assert!(began.elapsed() < NOTICED_WITHIN, "still open:\n{}", open.join("\n"));
        send("|P|9|2");
        witness.expect(send("|P|9|1"));
        std::thread::sleep(Duration::from_millis(250));
    }
    // There is room for it when it comes back, and nobody else was taken for vanished.
    let mut back = server.source();
    let event = format!("{}|P|9|1\n", number + 1);
    back.send(&event);
    witness.expect(&event);
    server.wait_for_metric("fortnight_sources_connected", |sources| sources == 2.0);
    server.wait_for_metric("fortnight_users_connected", |users| users == 2.0);
    for sent in 1..=1000 {
        lazy.expect(format!("{sent}{long}\n"));
    }
    assert_eq!(server.get("/healthz").status, 200);
    drop(gone);
}
