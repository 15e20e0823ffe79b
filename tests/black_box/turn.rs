//! What meets the server in one turn of its loop, in whatever order it looks at its sockets (SPEC sections 1 and 2).
//!
//! The process is frozen while clients connect, write and hang up, and then finds it all at once.

use support::stream::{Random, each};
use support::{Server, User, raise_own_limit, server};

fn broadcast(number: u64) -> String {
    format!("{number}|B\n")
}

/// A server with one source. Both have answered.
fn started(server: &Server) -> support::Source {
    let mut source = server.source();
    let mut user = server.user(1_000_000);
    source.send("1|B\n");
    user.expect("1|B\n");
    user.finish();
    user.expect_eof();
    source
}

#[test]
fn logins_that_arrived_before_an_event_are_served_before_it() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut source = started(&server);
    for round in 0..5 {
        let first = 2 + round * 201;
        let mut users = server.while_frozen(|| {
            let users: Vec<User> = (1..=200).map(|id| server.user(id)).collect();
            let private = |id: u64| format!("{}|P|9|{id}\n", first + id - 1);
            source.send(each(1..=200, private) + &broadcast(first + 200));
            users
        });
        for (id, user) in (1..).zip(&mut users) {
            user.expect(format!("{}|P|9|{id}\n", first + id - 1) + &broadcast(first + 200));
        }
    }
}

#[test]
fn so_are_more_logins_than_the_system_tells_of_at_once() {
    const USERS: u64 = 3500;
    if raise_own_limit() < USERS + 200 {
        support::skipped(&format!("it needs {} open files", USERS + 200));
        return;
    }
    let server = server!(eventTimeoutMs = -1, maxUserClients = USERS + 1);
    let mut source = started(&server);
    let mut users: Vec<User> = (0..USERS).map(|_| server.stranger()).collect();
    server.pass();
    server.while_frozen(|| {
        // The system tells of the source first, whose event comes last.
        source.send("2|");
        for (id, user) in (1..).zip(&mut users) {
            user.send(format!("{id}\n"));
        }
        source.send("B\n");
    });
    for user in &mut users {
        user.expect(broadcast(2));
    }
}

#[test]
fn a_login_and_the_first_event_of_a_new_source_may_arrive_together() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    for _ in 0..20 {
        let server = server!(eventTimeoutMs = -1);
        let (mut user, source) = server.while_frozen(|| {
            let user = server.user(7);
            let mut source = server.source();
            source.send("2|B\n1|P|9|7\n");
            (user, source)
        });
        user.expect("1|P|9|7\n2|B\n");
        source.finish();
    }
}

#[test]
fn of_two_logins_with_the_same_id_the_later_connection_takes_over() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut source = started(&server);
    for number in 2..=30 {
        let (mut first, mut second) = server.while_frozen(|| (server.user(7), server.user(7)));
        first.expect_eof();
        source.send(broadcast(number));
        second.expect(broadcast(number));
    }
}

#[test]
fn of_many_logins_with_the_same_id_the_last_connection_takes_over() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut source = started(&server);
    let mut users = server.while_frozen(|| {
        let users: Vec<User> = (0..100).map(|_| server.user(7)).collect();
        source.send("2|P|9|7\n");
        users
    });
    users.pop().unwrap().expect("2|P|9|7\n");
    for user in &mut users {
        user.expect_eof();
    }
}

#[test]
fn a_login_that_is_complete_only_later_takes_over_only_then() {
    let server = server!(eventTimeoutMs = -1);
    let mut source = started(&server);
    let (mut early, mut late) = (server.stranger(), server.stranger());
    early.send("7");
    late.send("7");
    server.pass();
    // The connection that came first logs in last.
    late.send("\n");
    server.pass();
    early.send("\n");
    late.expect_eof();
    source.send("2|B\n");
    early.expect("2|B\n");
}

#[test]
fn a_user_that_hung_up_has_made_room_for_one_that_connected_after() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1, maxUserClients = 1);
    let mut source = server.source();
    let mut user = server.user(1);
    for number in 1..=30 {
        source.send(broadcast(number));
        user.expect(broadcast(number));
        user = server.while_frozen(|| {
            drop(user);
            server.wait_for_hang_ups(server.users);
            server.user(number)
        });
    }
    source.send(broadcast(31));
    user.expect(broadcast(31));
}

#[test]
fn a_source_that_hung_up_has_made_room_for_one_that_connected_after() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    let mut source = server.source();
    for number in 1..=30 {
        source.send(broadcast(2 * number - 1));
        user.expect(broadcast(2 * number - 1));
        source = server.while_frozen(|| {
            // Its last words are not lost.
            source.send(broadcast(2 * number));
            drop(source);
            server.wait_for_hang_ups(server.sources);
            server.source()
        });
        user.expect(broadcast(2 * number));
    }
    source.send(broadcast(61));
    user.expect(broadcast(61));
}

#[test]
fn a_user_that_logged_in_and_hung_up_before_an_event_is_gone() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut source = started(&server);
    let mut witness = server.user(1);
    server.while_frozen(|| {
        for id in 2..=20 {
            drop(server.user(id));
        }
        server.user(21).vanish();
        source.send("2|B\n");
    });
    witness.expect("2|B\n");
    let mut back: Vec<_> = (2..=21).map(|id| server.user(id)).collect();
    source.send("3|B\n");
    for user in &mut back {
        user.expect("3|B\n");
    }
}

#[test]
fn a_source_that_connected_sent_and_hung_up_is_served() {
    if support::only_in_clear("a server that is frozen shakes no hands") {
        return;
    }
    let server = server!(eventTimeoutMs = -1);
    let mut user = server.user(1);
    server.while_frozen(|| {
        let mut source = server.source();
        source.send(each((1..=1000).rev(), broadcast) + "1001|B");
    });
    user.expect(each(1..=1000, broadcast));
}

#[test]
fn with_timeout_0_all_that_has_arrived_is_put_in_order() {
    let server = server!(eventTimeoutMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    let mut random = Random::new(8);
    for round in 0..10 {
        let mut numbers: Vec<u64> = (round * 1000 + 1..=(round + 1) * 1000).collect();
        random.shuffle(&mut numbers);
        server.while_frozen(|| {
            for number in numbers {
                source.send(broadcast(number));
            }
        });
        user.expect(each(round * 1000 + 1..=(round + 1) * 1000, broadcast));
    }
}

#[test]
fn with_timeout_0_what_has_arrived_from_all_sources_is_put_in_order() {
    let server = server!(eventTimeoutMs = 0, maxEventSourceClients = 4);
    let mut user = server.user(1);
    let mut sources: Vec<_> = (0..4).map(|_| server.source()).collect();
    for (number, source) in (1..).zip(&mut sources) {
        source.send(broadcast(number));
        user.expect(broadcast(number));
    }
    for round in 1..=20 {
        server.while_frozen(|| {
            for (at, source) in (1..).zip(sources.iter_mut().rev()) {
                source.send(broadcast(round * 4 + at));
            }
        });
        user.expect(each(round * 4 + 1..=round * 4 + 4, broadcast));
    }
}

#[test]
fn with_timeout_0_a_large_stream_that_has_arrived_is_put_in_order() {
    let server = server!(eventTimeoutMs = 0);
    let mut user = server.user(1);
    let mut source = server.source();
    source.send("1|B\n");
    user.expect("1|B\n");
    // As much as the socket's buffer surely holds, in the worst order.
    server.while_frozen(|| source.send(each((2..=6000).rev(), broadcast)));
    user.expect(each(2..=6000, broadcast));
}
