//! Who is connected, charts, percentiles, warnings and options on the page.

use std::time::Duration;

use serde_json::{Value, json};
use support::server;
use support::stream::each;

use super::{browse, expect_no_complaints};
use crate::browser::Browser;

/// The first cells of the rows of a table.
fn first_cells(browser: &mut Browser, table: &str) -> Vec<String> {
    let cells =
        format!("[...document.querySelectorAll('#{table} tbody tr')].map((row) => row.cells[0].textContent)");
    serde_json::from_value(browser.evaluate(&cells)).unwrap()
}

#[test]
fn tables_are_sorted_by_what_is_clicked() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1, maxEventSourceClients = 2);
    let Some(mut browser) = browse(&server) else { return };
    let (mut one, mut two, mut ten) = (server.user(1), server.user(2), server.user(10));
    let mut source = server.source();
    source.send(each(1..=9, |number| {
        format!("{number}|P|7|{}\n", [1, 10, 10, 10, 10, 10, 2, 2, 2][number as usize - 1])
    }));
    for (user, last) in [(&mut one, "1|P|7|1\n"), (&mut ten, "6|P|7|10\n"), (&mut two, "9|P|7|2\n")] {
        user.read_through(last);
    }
    browser.wait_for("document.querySelectorAll('#user-list tbody tr').length === 3");
    let click = |browser: &mut Browser, by: &str| {
        browser.evaluate(&format!("document.querySelector('#user-list button[data-sort={by}]').click()"));
    };
    let sorted = |browser: &mut Browser| {
        browser.evaluate("document.querySelector('#user-list th[aria-sort]').textContent + ' ' + document.querySelector('#user-list th[aria-sort]').ariaSort")
    };
    browser.wait_for("[...document.querySelectorAll('#user-list tbody tr')].every((row) => row.cells[4].textContent !== '–')");
    click(&mut browser, "bytes");
    assert_eq!(first_cells(&mut browser, "user-list"), ["10", "2", "1"]);
    assert_eq!(sorted(&mut browser), "bytes descending");
    click(&mut browser, "bytes");
    assert_eq!(first_cells(&mut browser, "user-list"), ["1", "2", "10"]);
    assert_eq!(sorted(&mut browser), "bytes ascending");
    // Ids are numbers.
    click(&mut browser, "id");
    assert_eq!(first_cells(&mut browser, "user-list"), ["1", "2", "10"]);
    // By keyboard, and it stays so when new numbers come.
    browser.evaluate("document.querySelector('#user-list button[data-sort=bytes]').focus()");
    browser.call(
        "Input.dispatchKeyEvent",
        json!({"type": "keyDown", "key": "Enter", "code": "Enter", "text": "\r"}),
    );
    browser.call("Input.dispatchKeyEvent", json!({"type": "keyUp", "key": "Enter", "code": "Enter"}));
    browser.evaluate("document.querySelector('#user-list').seen = last.now_us");
    browser.wait_for("last.now_us > document.querySelector('#user-list').seen");
    assert_eq!(first_cells(&mut browser, "user-list"), ["10", "2", "1"]);
    // The source is there with what it has sent.
    let row = "document.querySelector('#source-list tbody tr').cells";
    browser.wait_for(&format!("{row}[2].textContent === '9'"));
    expect_no_complaints(&mut browser);
}

#[test]
fn what_is_ordinary_is_calm_and_zeros_are_hidden() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    let (mut user, mut source) = (server.user(1), server.source());
    // Events overtake one another all the time.
    let mut next = 1;
    for _ in 0..60 {
        source.send(format!("{}|B\n{}|B\n", next + 1, next + 2));
        std::thread::sleep(Duration::from_millis(20));
        source.send(format!("{next}|B\n"));
        user.expect(each(next..next + 3, |number| format!("{number}|B\n")));
        next += 3;
        let alarmed = "[...document.querySelectorAll('.warn, .bad')].filter((at) => at.getClientRects().length).map((at) => at.textContent)";
        assert_eq!(browser.evaluate(alarmed), Value::Array(Vec::new()));
    }
    browser.wait_for("document.getElementById('state').textContent === 'All is well. Events flow.'");
    let hidden = |id: &str| format!("document.getElementById('{id}').closest('[hidden]') !== null");
    for id in [
        "rejections",
        "disconnections",
        "late",
        "duplicate",
        "skipped",
        "paused-slow_user",
        "released-F",
        "slow_users",
        "remedy",
        "buffered_bytes",
        "follow_edges",
        "paused-stream",
    ] {
        browser.wait_for(&hidden(id));
    }
    browser.wait_for(&format!("!({})", hidden("released-B")));
    browser.wait_for(&format!("!({})", hidden("received")));
    // One line that is no event: now there is something to be said.
    source.send("nonsense\n");
    browser.wait_for(
        "document.getElementById('state').textContent === 'Lines that are no events are rejected.'",
    );
    browser.wait_for("/^Of late: 1 no sequence number/.test(document.getElementById('detail').textContent)");
    browser.wait_for(&format!("!({})", hidden("rejections")));
    browser.wait_for(
        "/nonsense/.test(document.querySelector('#warnings li.warn span, #warnings li span').textContent)",
    );
    expect_no_complaints(&mut browser);
}

#[test]
fn the_past_of_a_chart_does_not_change_and_the_pointer_reads_it() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    let (mut user, mut source) = (server.user(1), server.source());
    let mut next = 1;
    let mut flow = |rounds: u64| {
        for _ in 0..rounds {
            source.send(each(next..next + 10, |number| format!("{number}|B\n")));
            user.expect(each(next..next + 10, |number| format!("{number}|B\n")));
            next += 10;
            std::thread::sleep(Duration::from_millis(30));
        }
    };
    flow(100);
    // What is known of each second of the server's time.
    let told = "(() => { const { list, end } = seconds(); return list.map((second) => [end - second.ago, second[1], second[2]]); })()";
    let before = browser.evaluate(told);
    flow(70);
    let after = browser.evaluate(told);
    let rate_of = |told: &Value, second: &Value| -> Option<Value> {
        let known = told.as_array()?.iter().find(|known| known[0] == *second)?;
        Some(known.clone())
    };
    let mut compared = 0;
    for known in before.as_array().unwrap().iter().filter(|known| !known[1].is_null()) {
        assert_eq!(
            rate_of(&after, &known[0]).unwrap()[1],
            known[1],
            "second {} of the chart has changed",
            known[0]
        );
        compared += 1;
    }
    assert!(compared > 0 && before != after, "{before}");
    // Now is at the right end.
    let right = "Math.max(...[...document.querySelector('#events-plot .curve').getAttribute('d').matchAll(/[ML]?([0-9.]+) /g)].map((at) => Number(at[1])))";
    let edge = "document.getElementById('events-plot').clientWidth - 6";
    browser.wait_for(&format!("Math.abs(({right}) - ({edge})) < 2"));
    // The pointer reads all charts at the same moment.
    let place = browser.evaluate("(() => { const at = document.getElementById('events-plot').getBoundingClientRect(); return [at.right - 8, at.top + 60]; })()");
    browser.call("Input.dispatchMouseEvent", json!({"type": "mouseMoved", "x": place[0], "y": place[1]}));
    browser.wait_for("document.querySelectorAll('.plot .tip').length === 3");
    browser.wait_for(
        "/per second, (now|[0-9.]+ s ago)$/.test(document.querySelector('#events-plot .tip').textContent)",
    );
    browser.wait_for(
        "/^half within .*, 99 of 100 within /.test(document.querySelector('#delay-plot .tip').textContent)",
    );
    let cut = "[...document.querySelectorAll('.plot text')].filter((at) => { const box = at.getBBox(), plot = at.ownerSVGElement; return box.x < 0 || box.x + box.width > plot.clientWidth; }).map((at) => at.textContent)";
    assert_eq!(browser.evaluate(cut), Value::Array(Vec::new()), "labels that are cut off");
    // Percentiles of the last moments.
    browser.wait_for(
        "/[0-9] (µs|ms|s)$/.test(document.getElementById('latency-delivery').cells[3].textContent)",
    );
    browser.wait_for("document.getElementById('delay-p99').value > 0");
    expect_no_complaints(&mut browser);
}

/// What a screen reader is told of the chart of events: the value, its limits, and its words.
fn told(browser: &mut Browser) -> (i64, i64, i64, String) {
    let told = "(() => { const at = document.getElementById('events-plot'); \
                return [at.ariaValueNow, at.ariaValueMin, at.ariaValueMax].map(Number).concat(at.ariaValueText); })()";
    serde_json::from_value(browser.evaluate(told)).unwrap()
}

/// Waits for the page's next answers.
fn wait_for_answers(browser: &mut Browser, seconds: u64) {
    browser.evaluate("window.seen = Plot.end");
    browser.wait_for(&format!("Plot.end >= window.seen + {seconds}"));
}

#[test]
fn a_chart_is_read_by_keyboard_and_stays_at_its_second() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    let (mut user, mut source) = (server.user(1), server.source());
    source.send(each(1..=5000, |number| format!("{number}|B\n")));
    user.read_through("\n5000|B\n");
    wait_for_answers(&mut browser, 3);
    browser.press("Tab");
    browser.wait_for("document.activeElement.id === 'events-plot'");
    let (now, least, most, words) = told(&mut browser);
    assert!(
        now == most && least == most - 299 && words.ends_with(" at most"),
        "{now} {least} {most} {words}"
    );
    // Whoever has not pointed at anything yet is not disturbed.
    wait_for_answers(&mut browser, 2);
    assert_eq!(told(&mut browser), (now, least, most, words));
    // Nor is whoever has: the second stays the same, while the charts go on.
    browser.press("ArrowLeft");
    browser.press("ArrowLeft");
    let pointed = told(&mut browser);
    assert_eq!(pointed.0, pointed.2 - 2);
    let words = "/^[0-9,.]+ per second, at [0-9]{2}:[0-9]{2}:[0-9]{2}$/.test(document.getElementById('events-plot').ariaValueText)";
    browser.wait_for(words);
    let place = "Number(document.querySelector('#events-plot .mark').getAttribute('x1'))";
    let before = browser.evaluate(place).as_f64().unwrap();
    wait_for_answers(&mut browser, 2);
    assert_eq!(told(&mut browser), pointed);
    assert!(browser.evaluate(place).as_f64().unwrap() < before, "the mark moves with its second");
    browser.wait_for("/, [4-9]\\.0 s ago$/.test(document.querySelector('#events-plot .tip').textContent)");
    // The others show the same second.
    let same = "[...document.querySelectorAll('.plot')].every((at) => at.ariaValueNow === document.activeElement.ariaValueNow)";
    browser.wait_for(same);
    for (key, place) in [("Home", -299), ("PageUp", -269), ("ArrowUp", -268), ("PageDown", -298), ("End", 0)]
    {
        browser.press(key);
        let (now, least, most, _) = told(&mut browser);
        // Seconds may have passed since the key before.
        assert!((place - 5..=place).contains(&(now - most)) && now >= least, "{key}: {least} {now} {most}");
    }
    browser.press("Escape");
    browser.wait_for("document.querySelector('.plot .tip') === null");
    // Out of focus it goes on.
    browser.press("Tab");
    browser.wait_for("document.activeElement.id === 'deliveries-plot'");
    let (left, ..) = told(&mut browser);
    wait_for_answers(&mut browser, 1);
    assert!(told(&mut browser).0 > left);
    expect_no_complaints(&mut browser);
}

#[test]
fn options_in_force_are_listed_and_those_that_were_changed_come_first() {
    let server = server!(adminPort = 0, eventTimeoutMs = 1234);
    let Some(mut browser) = browse(&server) else { return };
    browser.wait_for("document.querySelectorAll('#options div').length > 40");
    browser.evaluate("document.querySelector('summary').click()");
    let changed = "[...document.querySelectorAll('#options .changed')].map((at) => at.textContent)";
    let changed: Vec<String> = serde_json::from_value(browser.evaluate(changed)).unwrap();
    assert!(changed.contains(&"eventTimeoutMs1234".to_owned()), "{changed:?}");
    browser.wait_for("document.querySelector('#options div').className === 'changed'");
    browser.wait_for("/ eventTimeoutMs/.test(document.getElementById('options-changed').textContent)");
    expect_no_complaints(&mut browser);
}

/// What the page says of its last answer with these changes: the kind, and the sentence.
fn state_with(browser: &mut Browser, changes: &str) -> String {
    let said = format!("state({{ ...last, ...{changes} }}, true, '', false).slice(0, 2).join(': ')");
    browser.evaluate(&said).as_str().unwrap().to_owned()
}

#[test]
fn a_pause_is_trouble_when_it_is_long_or_comes_again_and_again() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    browser.wait_for("troubles.length > 0");
    for (reason, sentence) in [
        ("slow_user", "warn: Sources are held up by slow users."),
        ("stream", "warn: Sources wait for the stream."),
    ] {
        let stream = "stream: { address: 'nats://a', leads: true, cursor: '8' }";
        let mut state = |now: u64, of_late: u64| {
            let pauses = format!("pauses: [{{ reason: '{reason}', sources: 1, paused_for_us: {now} }}]");
            let paused = format!("paused_us: {{ ...last.paused_us, {reason}: {of_late} }}");
            state_with(&mut browser, &format!("{{ {pauses}, {paused}, {stream} }}"))
        };
        assert_eq!(state(400_000, 1_900_000), "good: All is well. Events flow.", "{reason}");
        assert_eq!(state(600_000, 600_000), sentence);
        assert_eq!(state(100_000, 2_100_000), sentence);
    }
    // The list of users says so no sooner.
    for (slow_for, is_hidden) in [(400_000, true), (600_000, false)] {
        browser.evaluate(&format!(
            "renderTrouble({{ ...last, slow_users: 1, slow: [{{ id: '7', buffered_bytes: 9, slow_for_us: {slow_for} }}] }})"
        ));
        assert_eq!(browser.evaluate("document.getElementById('slow-note').hidden"), is_hidden);
    }
}
