//! `maze run` passes a correct server, and reports each fault of a broken one for what it is.

mod support;

use serde_json::{Value, json};
use support::{EVENTS, Misdeed, NTH, Server, VICTIM, maze};

fn fault_of(misdeed: Misdeed, extra: &[&str]) -> Value {
    let server = Server::start(misdeed);
    let (output, json) = maze(&server, extra);
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{misdeed:?}: {told}\n{json:#}");
    assert!(told.contains("FAULT") && !told.contains("ALL NOTIFICATIONS RECEIVED"), "{told}");
    json["fault"].clone()
}

/// The fault of the victim's NTH event.
fn at_nth(misdeed: Misdeed, class: &str, extra: &[&str]) -> Value {
    let fault = fault_of(misdeed, extra);
    assert_eq!(fault["class"], class, "{fault:#}");
    assert_eq!(fault["user"], VICTIM, "{fault:#}");
    assert_eq!(fault["events_in"], NTH - 1, "{fault:#}");
    fault
}

fn number(line: &Value) -> u64 {
    line.as_str().unwrap().split('|').next().unwrap().parse().unwrap()
}

fn passes(extra: &[&str]) -> Value {
    let server = Server::start(Misdeed::Nothing);
    let (output, json) = maze(&server, extra);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{extra:?}: {told}");
    assert!(told.contains("\\o/ ALL NOTIFICATIONS RECEIVED \\o/"), "{told}");
    assert_eq!(json["passed"], true);
    json
}

#[test]
fn a_correct_server_passes() {
    let json = passes(&[]);
    assert_eq!(json["events"], EVENTS);
    assert!(json["deliveries"].as_u64().unwrap() > EVENTS);
}

#[test]
fn a_correct_server_passes_every_shape() {
    for (shape, scale) in [
        ("maze", "0.0005"),
        ("broadcast", "0.001"),
        ("dense", "0.0005"),
        ("private", "0.001"),
        ("celebrity", "0.001"),
        ("celebrity-few", "0.001"),
    ] {
        let server = Server::start(Misdeed::Nothing);
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_maze"));
        command.args(["run", "--log-level", "warn", "--shape", shape, "--scale", scale]);
        command.args(["--event-listener-port", &server.source.port().to_string()]);
        command.args(["--client-listener-port", &server.users.port().to_string()]);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{shape}: {output:?}");
    }
}

#[test]
fn swapped() {
    let fault = at_nth(Misdeed::Swap, "wrong_order", &[]);
    assert!(number(&fault["got"]) > number(&fault["expected"]));
}

#[test]
fn lost() {
    let fault = at_nth(Misdeed::Lose, "lost", &[]);
    assert!(number(&fault["got"]) > number(&fault["expected"]));
    assert_eq!(fault["detail"], "1 event missing here");
}

#[test]
fn repeated() {
    let fault = fault_of(Misdeed::Repeat, &[]);
    assert_eq!((&fault["class"], &fault["user"]), (&json!("repeated"), &json!(VICTIM)), "{fault:#}");
    assert_eq!(fault["events_in"], NTH);
    assert!(number(&fault["got"]) < number(&fault["expected"]));
}

#[test]
fn crlf_to_lf() {
    let fault = at_nth(Misdeed::CrlfToLf, "terminator", &[]);
    assert!(fault["expected"].as_str().unwrap().ends_with("\\r\\n"));
    assert!(!fault["got"].as_str().unwrap().contains("\\r"));
}

#[test]
fn lf_to_crlf() {
    at_nth(Misdeed::AddCarriageReturn, "terminator", &["--line-end", "lf"]);
}

#[test]
fn altered() {
    let fault = at_nth(Misdeed::Alter, "altered", &["--mix", "P1", "--number-of-users", "100"]);
    assert_eq!(number(&fault["got"]), number(&fault["expected"]));
}

#[test]
fn wrong_user() {
    let fault = fault_of(Misdeed::WrongUser, &[]);
    assert_eq!((&fault["class"], &fault["user"]), (&json!("wrong_user"), &json!(VICTIM)), "{fault:#}");
    assert!(fault["detail"].as_str().unwrap().starts_with("the event is for user "));
}

#[test]
fn forgotten_unfollow() {
    // Few users, so that someone is unfollowed while others look.
    let fault = fault_of(Misdeed::ForgetUnfollow, &["--number-of-users", "100"]);
    assert_eq!(fault["class"], "unfollowed", "{fault:#}");
    assert!(fault["detail"].as_str().unwrap().starts_with("the user unfollowed "));
}

#[test]
fn closed_early() {
    at_nth(Misdeed::CloseUser, "closed", &[]);
}

#[test]
fn stalled_user() {
    at_nth(Misdeed::StallUser, "stalled", &["--timeout", "300"]);
}

#[test]
fn stopped_reading() {
    // More than sockets can hold.
    let fault =
        fault_of(Misdeed::StopReading, &["--timeout", "1500", "--memory", "0", "--total-events", "50000000"]);
    assert_eq!(fault["class"], "stalled", "{fault:#}");
    assert!(fault["detail"].as_str().unwrap().contains("stopped reading"), "{fault:#}");
}

#[test]
fn too_much() {
    let fault = fault_of(Misdeed::ExtraAtEnd, &["--settle", "5000"]);
    assert_eq!((&fault["class"], &fault["user"]), (&json!("too_much"), &json!(VICTIM)), "{fault:#}");
    assert_eq!((&fault["expected"], &fault["got"]), (&Value::Null, &json!("5001|B\\r\\n")));
}

#[test]
fn source_closed() {
    let fault = fault_of(Misdeed::CloseSource, &["--total-events", "1000000"]);
    assert_eq!(fault["class"], "source_closed", "{fault:#}");
}

#[test]
fn a_closed_user_port_is_named() {
    let server = Server::start(Misdeed::Nothing);
    let port = server.users.port().to_string();
    drop(server);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_maze"));
    let output =
        command.args(["run", "--total-events", "10", "--client-listener-port", &port]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("user 1 could not connect"), "{output:?}");
}

#[test]
fn line_ends_holes_duplicates_garbage_and_sources() {
    passes(&["--line-end", "lf"]);
    passes(&["--line-end", "mixed", "--max-event-source-batch-size", "1"]);
    passes(&["--holes", "0.001"]);
    passes(&["--duplicates", "0.1", "--garbage", "0.1"]);
    passes(&["--sources", "3", "--duplicates", "0.01", "--garbage", "0.01"]);
    passes(&["--memory", "0", "--total-events", "200000"]);
    passes(&["--rate", "20000"]);
}

#[test]
fn the_second_of_two_with_the_same_number() {
    let fault = fault_of(Misdeed::SecondDuplicateWins, &["--duplicates", "0.1"]);
    assert!(["altered", "wrong_user"].contains(&fault["class"].as_str().unwrap()), "{fault:#}");
}

#[test]
fn a_number_that_is_not_used_up_costs_a_wait_but_no_event() {
    // The server skips the hole after a while: slower, not wrong.
    let server = Server::start(Misdeed::KeepBrokenLinesNumber);
    let (output, _) = maze(&server, &["--garbage", "0.002"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn users_who_come_and_go() {
    let churn = ["--churn", "10", "--churn-stay", "50", "--rate", "20000", "--total-events", "20000"];
    let json = passes(&churn);
    assert!(json["visits"].as_u64().unwrap() > 20, "{json:#}");
    assert!(json["visit_deliveries"].as_u64().unwrap() > 100, "{json:#}");
}

#[test]
fn faults_towards_users_who_come_and_go() {
    // Slowly, so that the server does not lag behind what has been sent: what it did wrong then might have been right.
    let churn = ["--churn", "10", "--churn-stay", "500", "--rate", "5000", "--total-events", "40000"];
    for (misdeed, class) in [
        (Misdeed::LateLogin, "missed_after_login"),
        (Misdeed::GapForVisitors, "lost"),
        (Misdeed::ReplayToVisitors, "repeated"),
    ] {
        let fault = fault_of(misdeed, &[&churn[..], &["--mix", "B1"]].concat());
        assert_eq!(fault["class"], class, "{misdeed:?} {fault:#}");
        assert!(fault["user"].as_u64().unwrap() > 100, "{fault:#}");
    }
}

#[test]
fn sources_and_users_that_resume() {
    let resume = ["--resume", "--churn", "10", "--churn-stay", "20", "--sources", "2", "--rate", "20000"];
    let json = passes(&[&resume[..], &["--total-events", "10000"]].concat());
    assert!(json["resumes"].as_u64().unwrap() > 20, "{json:#}");
    assert!(json["deliveries"].as_u64().unwrap() > 10_000, "{json:#}");
}

#[test]
fn faults_towards_users_that_resume() {
    let resume = ["--resume", "--churn", "10", "--churn-stay", "20", "--rate", "20000", "--mix", "B1"];
    for (misdeed, class) in [
        (Misdeed::GapAtResume, "lost"),
        (Misdeed::RepeatAtResume, "repeated"),
        (Misdeed::MarkTooFar, "lost"),
        (Misdeed::AcknowledgementGoesBack, "lost"),
    ] {
        let fault = fault_of(misdeed, &[&resume[..], &["--total-events", "20000"]].concat());
        assert_eq!(fault["class"], class, "{misdeed:?} {fault:#}");
    }
}

#[test]
fn visitors_resume_where_the_server_has_a_journal() {
    let churn = ["--journal", "--churn", "10", "--churn-stay", "20", "--rate", "20000"];
    let json = passes(&[&churn[..], &["--total-events", "20000"]].concat());
    assert!(json["resumes"].as_u64().unwrap() > 20, "{json:#}");
    for (misdeed, class) in [(Misdeed::GapAtResume, "lost"), (Misdeed::RepeatAtResume, "repeated")] {
        let fault = fault_of(misdeed, &[&churn[..], &["--total-events", "20000", "--mix", "B1"]].concat());
        assert_eq!(fault["class"], class, "{misdeed:?} {fault:#}");
    }
}

#[test]
fn slow_readers_get_everything_from_a_patient_server() {
    let json = passes(&["--slow", "3", "--slow-rate", "200000", "--slow-must-finish"]);
    assert_eq!(json["cut_off"], 0);
}

#[test]
fn a_run_of_a_given_duration_ends() {
    let json = passes(&["--duration", "0.5", "--rate", "20000"]);
    assert!(json["seconds"].as_f64().unwrap() >= 0.5);
}

#[test]
fn nonsense_is_refused_with_status_2() {
    for (arguments, name) in [
        (&["run", "--holes", "2"][..], "holes 2"),
        (&["run", "--number-of-users", "5"], "numberOfUsers 5"),
        (&["run", "--rate", "0"], "rate 0"),
        (&["run", "--mix", "Q1"], "Q1"),
        (&["run", "--sources", "0"], "sources 0"),
        (&["latency", "--garbage", "0.1"], "garbage"),
        (&["limit", "--plan", "/nonexistent"], "/nonexistent"),
    ] {
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_maze")).args(arguments).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{arguments:?}: {output:?}");
    }
}
