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
    ] {
        browser.wait_for(&hidden(id));
    }
    browser.wait_for(&format!("!({})", hidden("released-B")));
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
