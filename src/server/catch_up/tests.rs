//! The share, the windows, the waits and the holds of catching up, without a journal.

use super::*;

const SLICE_NS: u64 = 150_000;

#[test]
fn a_turn_is_lent_a_share_of_the_last_one_or_a_slice() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    // It has waited for long: that was no work.
    assert_eq!(catch_up.budget(0, true, SECOND), 0);
    let mut now = SECOND;
    assert_eq!(catch_up.budget(0, false, now), SLICE_NS as i64);
    catch_up.is_idle = false;
    catch_up.spend(SLICE_NS);
    let mut turn = |elapsed, spent| {
        now += elapsed;
        let budget = catch_up.budget(0, true, now);
        catch_up.spend(spent);
        budget
    };
    // Of each turn a share is lent. A slice of it is used at once, and the rest later.
    assert_eq!(turn(MILLISECOND, SLICE_NS), SLICE_NS as i64);
    assert_eq!(turn(0, 0), (MILLISECOND * SHARE - SLICE_NS) as i64);
    // The turn was long, though nobody was caught up with: its share is used at once.
    assert_eq!(turn(21 * MILLISECOND, 0), (21 * MILLISECOND * SHARE) as i64);
}

#[test]
fn a_pass_that_does_not_come_nearer_gets_more_and_more() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    let shares = |catch_up: &CatchUp| [0, 1, 2, 3, 4, 60].map(|age| catch_up.share(age * SECOND));
    assert_eq!(shares(&catch_up), [SHARE; 6]);
    catch_up.owed = 1;
    assert_eq!(shares(&catch_up), [SHARE, 320, 640, 640, 900, 900]);
}

#[test]
fn a_crowd_is_handed_less_at_first_and_who_has_taken_all_of_it_more() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    let limit = catch_up.limit;
    let first_of = |catch_up: &mut CatchUp, users: u64| {
        catch_up.by_id = (1..=users).map(|id| (UserId::new(id), UserKey::new(0))).collect();
        catch_up.first_window()
    };
    assert_eq!([0, 1, 128].map(|users| first_of(&mut catch_up, users)), [limit; 3]);
    assert_eq!(first_of(&mut catch_up, 1024), 512 << 10);
    assert_eq!(first_of(&mut catch_up, 100_000), FIRST_WINDOW_MIN);
    let mut behind = Behind::new(Cursor::START, 0);
    let windows = [(0, 1), (1, 1), (0, 2), (7, 2), (0, 4), (0, 7), (0, 7)].map(|(waiting, wanted)| {
        behind.open_window(1 << 20, waiting, 7 << 20);
        (behind.window, wanted << 20)
    });
    assert!(windows.iter().all(|(window, wanted)| window == wanted), "{windows:?}");
    // Whoever was live fills its buffer anyway.
    catch_up.fall_behind(UserKey::new(7), UserId::new(7), &mut behind, 0);
    assert_eq!(behind.window, limit);
    catch_up.limit = 4096;
    assert_eq!(first_of(&mut catch_up, 100_000), 4096);
}

#[test]
fn a_rest_ends_with_the_stream_and_no_newcomer_waits_for_it() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    catch_up.waiting.insert((Cursor::new(1), UserKey::new(1)));
    (catch_up.rest_until, catch_up.live_at) = (60 * SECOND, 2 * SECOND);
    assert_eq!(catch_up.deadline(2 * SECOND), Some(2 * SECOND + IDLE));
    assert!(!catch_up.has_work(2 * SECOND + IDLE - 1) && catch_up.has_work(2 * SECOND + IDLE));
    // Events go on.
    catch_up.live_at = 59 * SECOND + IDLE + 1;
    assert_eq!(catch_up.deadline(59 * SECOND + IDLE + 1), Some(60 * SECOND));
    let (key, mut user) = (UserKey::new(2), Behind::new(Cursor::new(1), 7 * SECOND));
    catch_up.enter((key, UserId::new(2)), &mut user, 1, 1 << 30, 7 * SECOND);
    assert_eq!(catch_up.deadline(7 * SECOND), Some(7 * SECOND + COLLECTING));
    // It leaves before the pass: the others rest on.
    catch_up.forget(key, UserId::new(2), &mut user);
    assert_eq!(catch_up.deadline(7 * SECOND), Some(60 * SECOND));
}

#[test]
fn logins_are_collected_for_longer_where_much_is_to_be_read() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    let mut begins_after = |distance: u128, now: Micros| {
        let (key, mut user) = (UserKey::new(1), Behind::new(Cursor::new(1), now));
        catch_up.enter((key, UserId::new(1)), &mut user, distance, 8 << 30, now);
        catch_up.deadline(now).map(|at| at - now)
    };
    assert_eq!(begins_after(1, 0), Some(COLLECTING));
    // 100 million events are read in two seconds.
    assert_eq!(begins_after(100_000_000, 0), Some(2 * SECOND / 100));
    assert_eq!(begins_after(1, SECOND), Some(2 * SECOND / 100));
    assert_eq!(begins_after(1, 2 * SECOND - 7), Some(7));
    // Most of these numbers were given up.
    assert_eq!(begins_after(1 << 80, 0), Some(5 * SECOND / 100));
    assert_eq!(begins_after(1, 5 * SECOND - 7), Some(7));
    // Little is kept: reading it takes no time.
    let (key, mut user) = (UserKey::new(1), Behind::new(Cursor::new(1), 0));
    let mut small = CatchUp::new(&Config::default(), Pace::default());
    for _ in 0..200 {
        small.enter((key, UserId::new(1)), &mut user, 1 << 80, 4096, SECOND / 10);
    }
    assert_eq!(small.deadline(0), Some(SECOND / 10 + COLLECTING));
    // All of them have gone: the next one begins to be waited for.
    for _ in 0..200 {
        user.waits = true;
        small.forget(key, UserId::new(1), &mut user);
    }
    small.enter((key, UserId::new(1)), &mut user, 1, 4096, 9 * SECOND);
    assert_eq!(small.deadline(0), Some(9 * SECOND + COLLECTING));
}

#[test]
fn a_pass_waits_for_those_whose_sockets_take_bytes() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    catch_up.waiting.insert((Cursor::START, UserKey::new(9)));
    (catch_up.members, catch_up.full) = (2, vec![UserKey::new(1), UserKey::new(2)]);
    assert!(!catch_up.is_stopped(SECOND), "both take nothing");
    catch_up.full_and_fast = 1;
    assert!(catch_up.is_stopped(SECOND) && catch_up.is_stopped(SECOND + PATIENCE - 1));
    assert!(!catch_up.is_stopped(SECOND + PATIENCE));
    // Nobody else wants anything.
    (catch_up.full_and_fast, catch_up.waiting) = (0, BTreeSet::new());
    assert!(catch_up.is_stopped(2 * SECOND) && catch_up.is_stopped(3 * SECOND));
}

#[test]
fn a_pass_that_does_not_keep_up_holds_up_sources() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    let hold = |catch_up: &mut CatchUp, now| {
        catch_up.hold(true, now);
        catch_up.holds_sources()
    };
    catch_up.owed = OWED_HOLDS;
    catch_up.hold(false, HOLDS_FROM);
    assert!(!catch_up.holds_sources(), "there is no pass");
    assert!(!hold(&mut catch_up, HOLDS_FROM - 1), "it has just begun");
    assert!(hold(&mut catch_up, HOLDS_FROM));
    // Whatever happens meanwhile, there is a turn at the end of that time.
    assert_eq!(catch_up.deadline(HOLDS_FROM), Some(HOLDS_FROM + HOLD_MAX));
    assert!(hold(&mut catch_up, HOLDS_FROM + HOLD_MAX - 1));
    assert!(!hold(&mut catch_up, HOLDS_FROM + HOLD_MAX), "for a turn");
    assert!(hold(&mut catch_up, HOLDS_FROM + HOLD_MAX));
    // It waits for users.
    catch_up.stopped_since = Some(0);
    assert!(!hold(&mut catch_up, HOLDS_FROM + HOLD_MAX));
    catch_up.stopped_since = None;
    catch_up.owed = OWED_HOLDS - 1;
    assert!(!hold(&mut catch_up, HOLDS_FROM + HOLD_MAX));
    catch_up.at_end_since = Some(HOLDS_FROM);
    assert!(!hold(&mut catch_up, HOLDS_FROM + END_PATIENCE - 1));
    assert!(hold(&mut catch_up, HOLDS_FROM + END_PATIENCE));
}

#[test]
fn who_has_worked_too_much_rests() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    catch_up.queue.push_back(UserKey::new(0));
    let rest_after = |catch_up: &mut CatchUp, work| {
        catch_up.credit_ns = 0;
        catch_up.spend(work);
        catch_up.rest(true, SECOND);
        catch_up.deadline(SECOND).map(|until| until - SECOND)
    };
    assert_eq!(rest_after(&mut catch_up, 800_000 - 1), Some(5 * MILLISECOND));
    assert!(!catch_up.has_work(SECOND) && catch_up.has_work(SECOND + 5 * MILLISECOND));
    // The process was stopped for an hour: that is not made up for.
    let longest = rest_after(&mut catch_up, 3600 * 1_000_000_000);
    assert!(longest <= Some(101 * MILLISECOND), "{longest:?}");
    // Where no events flow, nothing is owed.
    catch_up.rest(false, SECOND);
    assert!(catch_up.has_work(SECOND));
    assert_eq!(catch_up.budget(0, false, SECOND), SLICE_NS as i64);
}

#[test]
fn steps_are_as_small_as_a_slice_asks_for() {
    let mut catch_up = CatchUp::new(&Config::default(), Pace::default());
    for _ in 0..20 {
        catch_up.measure_piece(catch_up.piece_bytes, 2 * catch_up.piece_bytes);
        catch_up.measure_users(catch_up.users_at_once, 1500 * catch_up.users_at_once);
    }
    assert_eq!(catch_up.piece_bytes, SLICE_NS / 4);
    assert_eq!(catch_up.users_at_once, 50);
    // Many users come, and get much.
    for _ in 0..20 {
        catch_up.measure_piece(catch_up.piece_bytes, 1000 * catch_up.piece_bytes);
        catch_up.measure_users(catch_up.users_at_once, SLICE_NS * catch_up.users_at_once);
    }
    assert_eq!(catch_up.piece_bytes, *PIECE_BYTES.start());
    assert_eq!(catch_up.users_at_once, 1);
}
