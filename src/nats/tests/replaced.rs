//! Logs that are not what they were, and another sequencer in the place of the leader.

use super::*;

/// Everybody loses the connection, and the stream is what `change` makes of it.
fn replaced(seed: u64, change: impl Fn(&mut World)) -> World {
    let mut world = leading(seed);
    let until = world.now + 2 * SECOND;
    while world.now < until {
        world.step(false);
    }
    change(&mut world);
    let now = world.now;
    world.nodes.iter_mut().for_each(|node| node.lose(now, &mut Vec::new()));
    while world.now < until + 30 * SECOND {
        world.step(false);
    }
    world
}

fn expect_broken(seed: u64, world: &World) {
    // The edge keeps nothing, and begins anew with the other one.
    let broken: Vec<bool> = world.nodes.iter().map(|node| node.broken.is_some()).collect();
    assert_eq!(broken, [true, true, false], "seed {seed}");
}

#[test]
fn a_log_that_went_back_is_noticed() {
    for seed in 0..20 {
        let world = replaced(seed, |world| {
            let kept = world.stream.messages.len() - 20;
            world.stream.messages.truncate(kept);
        });
        expect_broken(seed, &world);
    }
}

#[test]
fn a_log_that_went_back_while_nobody_led_is_noticed() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let leader = (0..2).find(|&index| world.nodes[index].leads).unwrap();
        let stored = world.stream.messages.len();
        // Nothing is confirmed for too long, and then the end is not there any more.
        let until = world.now + 2 * TAKEOVER;
        world.stream.is_leaderless = true;
        while world.now < until {
            world.step(false);
        }
        assert_eq!(world.nodes[leader].deposed, 1, "seed {seed}");
        world.stream.messages.truncate(stored - 20);
        world.stream.is_leaderless = false;
        // The other one is not there, and does not notice it.
        world.nodes[1 - leader].until = Micros::MAX;
        let now = world.now;
        world.nodes[leader].lose(now, &mut Vec::new());
        while world.now < until + 30 * SECOND {
            world.step(false);
        }
        assert!(world.nodes[leader].broken.is_some() && !world.nodes[leader].leads, "seed {seed}");
    }
}

#[test]
fn a_log_that_was_replaced_is_noticed() {
    for seed in 0..20 {
        let world = replaced(seed, |world| {
            let mut other = leading(seed + 1000);
            while other.stream.messages.len() <= world.stream.messages.len() {
                other.step(false);
            }
            world.stream.messages = other.stream.messages;
        });
        expect_broken(seed, &world);
    }
}

#[test]
fn a_message_that_does_not_continue_the_chain_is_noticed() {
    for seed in 0..20 {
        let world = replaced(seed, |world| {
            let (_, last) = world.stream.messages.last().unwrap();
            let (mut header, _) = Header::open(last).unwrap();
            header.previous ^= 1;
            header.from = header.to;
            let mut block = vec![0; BLOCK_HEADER];
            header.seal(&mut block);
            world.stream.messages.push((false, block));
            let leader = world.nodes.iter_mut().find(|node| node.leads).unwrap();
            // It would say that another one leads, and is not asked.
            leader.until = Micros::MAX;
        });
        let broken = world.nodes.iter().filter(|node| node.broken.is_some()).count();
        assert_eq!(broken, 1, "seed {seed}");
    }
}

/// A block behind the last one, as another sequencer would write it that has taken over.
fn write_as_another(world: &mut World) {
    let (mut header, hash) = Header::open(&world.stream.messages.last().unwrap().1).unwrap();
    (header.previous, header.from, header.term) = (hash, header.to, header.term + 1);
    let mut block = vec![0; BLOCK_HEADER];
    header.seal(&mut block);
    world.stream.messages.push((false, block));
}

#[test]
fn a_leader_whose_place_another_has_taken_confirms_nothing_and_leaves_nothing_behind_it() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let leader = (0..2).find(|&index| world.nodes[index].leads).unwrap();
        // Several blocks wait or are on their way, and none of them has arrived.
        let moment = world.moment();
        let World { nodes, dice, .. } = &mut world;
        (0..4).for_each(|_| nodes[leader].work(moment, dice));
        let Node { conn, log, .. } = &mut nodes[leader];
        if let (Some(conn), Some(out)) = (conn, log.out()) {
            conn.input.append(out);
        }
        nodes[1 - leader].until = Micros::MAX;
        write_as_another(&mut world);
        let until = world.now + TAKEOVER / 2;
        while world.now < until {
            world.step(false);
        }
        assert_eq!((world.nodes[leader].deposed, world.nodes[leader].leads), (1, false), "seed {seed}");
        world.check();
    }
}

/// The last message is another one, and whoever had read it, or had it confirmed, connects again.
#[test]
fn another_message_in_the_place_of_the_last_one_is_noticed() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let leader = (0..2).find(|&index| world.nodes[index].leads).unwrap();
        let index = if seed % 2 == 0 { leader } else { 1 - leader };
        let has_the_last = |world: &World| {
            let log = &world.nodes[index].log;
            let number = match log.leader() {
                Some(leader) => leader.confirmed().number,
                None => log.place().map_or(0, |place| place.number),
            };
            number == world.stream.messages.len() as u64
        };
        let until = world.now + 60 * SECOND;
        while !has_the_last(&world) {
            world.step(false);
            assert!(world.now < until, "seed {seed}: there is always more");
        }
        let (_, block) = world.stream.messages.last_mut().unwrap();
        let (mut header, _) = Header::open(block).unwrap();
        header.time_ms ^= 1;
        header.seal(block);
        world.nodes[1 - index].until = Micros::MAX;
        let now = world.now;
        world.nodes[index].lose(now, &mut Vec::new());
        while world.now < now + TAKEOVER / 2 {
            world.step(false);
        }
        assert!(world.nodes[index].broken.is_some(), "seed {seed}");
    }
}

#[test]
fn a_server_that_lags_behind_is_not_taken_for_a_log_that_went_back() {
    for seed in 0..20 {
        let mut world = leading(seed);
        let now = world.now;
        world.nodes.iter_mut().for_each(|node| node.lose(now, &mut Vec::new()));
        let until = now + 20 * SECOND;
        while world.now < until {
            // Every server that they find lags behind for as long.
            world.nodes.iter_mut().filter_map(|node| node.conn.as_mut()).for_each(|conn| conn.unknown = 3);
            world.step(false);
        }
        pause(&mut world);
        let broken: Vec<_> = world.nodes.iter().filter_map(|node| node.broken.as_ref()).collect();
        assert!(broken.is_empty(), "seed {seed}: {broken:?}");
        world.check();
    }
}
