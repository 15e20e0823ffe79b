//! The status page (SPEC section 6) in a real browser: what it shows is what `/metrics` says.
//!
//! Skipped where Chromium is not installed; `make test` says so at its end.

mod browser;
mod states;
mod tables;

use std::collections::HashMap;
use std::time::{Duration, Instant};

use browser::Browser;
use serde_json::Value;
use support::line::authority_of;
use support::stream::{each, long_broadcasts};
use support::{DEADLINE, Server, launch, private_address, server};

/// Elements of the page, and the metrics that they show.
const SHOWN: [(&str, &str); 35] = [
    ("cursor", "cursor"),
    ("waiting", "reorder_waiting"),
    ("capacity", "reorder_capacity"),
    ("skipped", "sequence_skipped_total"),
    ("late", "events_late_total"),
    ("duplicate", "events_duplicate_total"),
    ("follow_edges", "follow_edges"),
    ("users", "users_connected"),
    ("sources", "sources_connected"),
    ("received", "events_received_total"),
    ("deliveries", "deliveries_total"),
    ("delivered_bytes", "delivered_bytes_total"),
    ("buffered_bytes", "output_buffered_bytes"),
    ("released-F", "events_released_total{type=\"F\"}"),
    ("released-U", "events_released_total{type=\"U\"}"),
    ("released-B", "events_released_total{type=\"B\"}"),
    ("released-P", "events_released_total{type=\"P\"}"),
    ("released-S", "events_released_total{type=\"S\"}"),
    ("rejected-sequence", "events_rejected_total{reason=\"sequence\"}"),
    ("rejected-type", "events_rejected_total{reason=\"type\"}"),
    ("rejected-fields", "events_rejected_total{reason=\"fields\"}"),
    ("rejected-user_id", "events_rejected_total{reason=\"user_id\"}"),
    ("rejected-too_long", "events_rejected_total{reason=\"too_long\"}"),
    ("rejected-truncated", "events_rejected_total{reason=\"truncated\"}"),
    ("disconnected-closed", "users_disconnected_total{reason=\"closed\"}"),
    ("disconnected-left", "users_disconnected_total{reason=\"left\"}"),
    ("disconnected-slow", "users_disconnected_total{reason=\"slow\"}"),
    ("disconnected-replaced", "users_disconnected_total{reason=\"replaced\"}"),
    ("disconnected-login_timeout", "users_disconnected_total{reason=\"login_timeout\"}"),
    ("disconnected-bad_login", "users_disconnected_total{reason=\"bad_login\"}"),
    ("disconnected-error", "users_disconnected_total{reason=\"error\"}"),
    ("paused-slow_user", "source_paused_seconds_total{reason=\"slow_user\"}"),
    ("paused-ring_full", "source_paused_seconds_total{reason=\"ring_full\"}"),
    ("paused-journal", "source_paused_seconds_total{reason=\"journal\"}"),
    ("paused-stream", "source_paused_seconds_total{reason=\"stream\"}"),
];

/// The address of a server's page.
fn home(server: &Server) -> String {
    let scheme = if authority_of(server.admin()).is_some() { "https" } else { "http" };
    format!("{scheme}://{}/", server.admin())
}

/// A browser that looks at the server's page, if there is one.
pub(crate) fn browse(server: &Server) -> Option<Browser> {
    let mut browser = Browser::start()?;
    browser.open(&home(server));
    browser.wait_for("document.readyState === 'complete' && document.getElementById('cursor')?.value > ''");
    Some(browser)
}

/// Waits until the page shows the server's numbers, which must not change meanwhile.
#[track_caller]
fn expect_match(browser: &mut Browser, server: &Server) {
    let metrics = server.metrics();
    let deadline = Instant::now() + DEADLINE;
    loop {
        let differences = differences(browser, &metrics);
        if differences.is_empty() {
            return;
        }
        assert!(Instant::now() < deadline, "the page never shows what the metrics say: {differences:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Where the page shows something else than the metrics say, as a value or as it is read.
fn differences(browser: &mut Browser, metrics: &HashMap<String, f64>) -> Vec<String> {
    let shown = browser.evaluate(
        "Object.fromEntries([...document.querySelectorAll('data[id]')].map((at) => [at.id, [at.value, at.textContent]]))",
    );
    let shown: HashMap<String, (String, String)> = serde_json::from_value(shown).unwrap();
    let differs = |(id, name): &(&str, &str)| {
        let (value, text) = shown.get(*id)?;
        let wanted = metrics[&format!("fortnight_{name}")];
        let scale = if id.starts_with("paused-") { 1e6 } else { 1.0 };
        let is_plain = !id.ends_with("_bytes") && scale == 1.0;
        let same = value.parse() == Ok(wanted * scale) && (!is_plain || text.replace(',', "") == *value);
        (!same).then(|| format!("{id}: {value} shown as {text:?} for {wanted}"))
    };
    let missing = SHOWN.iter().filter(|(id, _)| !shown.contains_key(*id)).map(|(id, _)| format!("no {id}"));
    SHOWN.iter().filter_map(differs).chain(missing).collect()
}

#[track_caller]
pub(crate) fn expect_no_complaints(browser: &mut Browser) {
    browser.evaluate("0");
    assert!(browser.complaints.is_empty(), "the page complains: {:?}", browser.complaints);
}

#[test]
fn numbers_move_and_match_the_metrics() {
    let server = server!(adminPort = 0, eventTimeoutMs = 200, maxEventBytes = 64);
    let Some(mut browser) = browse(&server) else { return };
    expect_match(&mut browser, &server);
    let (mut one, mut two) = (server.user(1), server.user(2));
    let mut source = server.source();
    // Every type; late and duplicate events; a hole; lines that are no events.
    source.send("1|F|2|1\n2|F|3|1\n3|U|3|1\n4|P|2|1\n5|S|1\n6|B\n2|B\n8|B\n8|B\nx|B\n9|X\n10|B|\n11|P|a|b\n");
    source.send(format!("12|{}\n", "x".repeat(80)));
    one.expect("1|F|2|1\n2|F|3|1\n4|P|2|1\n6|B\n8|B\n");
    two.expect("5|S|1\n6|B\n8|B\n");
    let mut bad = server.stranger();
    bad.send("nobody\n");
    bad.expect_closed();
    let mut again = server.user(2);
    two.expect_eof();
    source.send("13|B\n14|B");
    again.expect("13|B\n");
    source.finish();
    expect_match(&mut browser, &server);
    // And on they move: rates are more than nothing, and the charts have a curve that changes.
    let curve = "document.querySelector('#deliveries-plot .curve')?.getAttribute('d') ?? ''";
    let before = browser.evaluate(curve);
    let mut source = server.source();
    source.send(each(14..=100_000, |number| format!("{number}|B\n")));
    again.read_through("\n100000|B\n");
    for chart in ["events", "deliveries"] {
        let peak = format!(
            "document.getElementById('{chart}-plot').ariaValueText.match(/([0-9,.]+) at most/)?.[1] ?? '0'"
        );
        browser.wait_for(&format!("Number(({peak}).replaceAll(',', '')) > 1000"));
    }
    assert_ne!(browser.evaluate(curve), before);
    let cut = "[...document.querySelectorAll('.plot text')].filter((at) => at.getBBox().x < 0).map((at) => at.textContent)";
    assert_eq!(browser.evaluate(cut), Value::Array(Vec::new()), "labels that are cut off");
    one.finish();
    one.read_to_close();
    server.wait_for_metric("fortnight_users_disconnected_total{reason=\"left\"}", |left| left == 1.0);
    expect_match(&mut browser, &server);
    expect_no_complaints(&mut browser);
}

#[test]
fn the_charts_begin_with_the_last_minutes() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let (mut user, mut source) = (server.user(1), server.source());
    source.send(each(1..=5000, |number| format!("{number}|B\n")));
    user.read_through("\n5000|B\n");
    // The server takes note of it within a second.
    while !server.get("/history.json").body.contains(",5000,5000,") {
        std::thread::sleep(Duration::from_millis(50));
    }
    let Some(mut browser) = browse(&server) else { return };
    browser.wait_for("/ [1-9][0-9.,]* at most$/.test(document.getElementById('events-plot').ariaValueText)");
}

#[test]
fn trouble_is_said_in_words() {
    let server = server!(
        adminPort = 0,
        eventTimeoutMs = -1,
        userBufferBytes = 65_536,
        slowUserTimeoutMs = 600_000,
        reorderCapacity = 16
    );
    let Some(mut browser) = browse(&server) else { return };
    browser.wait_for("document.getElementById('state').textContent === 'No event source is connected.'");
    // A hole.
    let (slow, mut fast) = (server.narrow_user(77), server.user(2));
    let mut source = server.source();
    source.send("2|B\n");
    browser.wait_for("document.getElementById('state').textContent === 'Events wait for a missing one.'");
    browser.wait_for(
        "/^Waits for number 1, for .* It is not given up/.test(document.getElementById('hole').textContent)",
    );
    // A full ring.
    source.send("20|B\n");
    browser.wait_for("document.getElementById('health').textContent === 'waiting on a full ring'");
    browser.wait_for("/^The ring is full/.test(document.getElementById('state').textContent)");
    browser.wait_for("/^1 source waits for room/.test(document.getElementById('pauses').textContent)");
    drop(source);
    // Slow users.
    let server_2 =
        server!(adminPort = 0, eventTimeoutMs = -1, userBufferBytes = 65_536, slowUserTimeoutMs = 600_000);
    let (slow_2, source) = (server_2.narrow_user(77), server_2.source());
    let writer = source.send_in_background(long_broadcasts(1..=32_000, 1000));
    browser.open(&home(&server_2));
    browser
        .wait_for("document.getElementById('state')?.textContent === 'Sources are held up by slow users.'");
    browser.wait_for(
        "/^1 source is not read because of slow users/.test(document.getElementById('pauses').textContent)",
    );
    browser.wait_for("document.querySelector('#user-list tbody th')?.textContent === '77'");
    browser.wait_for(
        "/KiB · holds up all$/.test(document.querySelector('#user-list tbody tr').cells[2].textContent)",
    );
    browser.wait_for(
        "/^They wait for user 77 with .* waiting/.test(document.getElementById('detail').textContent)",
    );
    browser.wait_for("/^Nothing, if it passes/.test(document.getElementById('remedy').textContent)");
    browser.wait_for("document.getElementById('slow_users').value === '1'");
    // On a phone nothing is wider than the screen.
    for scheme in ["light", "dark"] {
        browser.look(390, 844, scheme);
        browser.wait_for("innerWidth === 390");
        browser.wait_for("document.documentElement.scrollWidth <= 390");
    }
    expect_no_complaints(&mut browser);
    drop((slow_2, slow));
    let _ = writer.join().unwrap();
    fast.finish();
}

#[test]
fn it_says_when_the_server_cannot_be_reached_and_recovers() {
    let address = private_address();
    let start = |port: u16| launch!(adminPort = port, adminBindAddress = address, firstSequence = 7).start();
    let first = start(0);
    let port = first.admin().port();
    let Some(mut browser) = browse(&first) else { return };
    browser.wait_for("document.getElementById('health').textContent === 'healthy'");
    first.stop();
    browser.wait_for("document.getElementById('state').textContent === 'The server cannot be reached.'");
    browser.wait_for("/^Last heard of .* ago/.test(document.getElementById('detail').textContent)");
    assert_eq!(browser.evaluate("document.getElementById('health').textContent"), "no answer");
    let _second = start(port);
    browser.wait_for("document.getElementById('health').textContent === 'healthy'");
}

#[test]
fn the_page_is_complete_in_itself_and_runs_nothing_else() {
    let server = server!(adminPort = 0);
    let Some(mut browser) = browse(&server) else { return };
    browser.wait_for("document.getElementById('health').textContent === 'healthy'");
    let own = home(&server);
    for request in &browser.requests {
        assert!(request.starts_with(&own) || request.starts_with("data:"), "asks for {request}");
    }
    expect_no_complaints(&mut browser);
    // What somebody might smuggle in does not run.
    browser.evaluate(
        "document.head.append(Object.assign(document.createElement('script'), { textContent: 'window.smuggled = 1' }));
         document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"window.smuggled = 1\">');
         document.head.append(Object.assign(document.createElement('style'), { textContent: 'body { color: red }' }));",
    );
    browser.wait_for("document.images[0].complete");
    assert_eq!(browser.evaluate("typeof window.smuggled"), "undefined");
    assert_ne!(browser.evaluate("getComputedStyle(document.body).color"), "rgb(255, 0, 0)");
    browser.evaluate("0");
    assert!(browser.complaints.iter().any(|text| text.contains("Content Security Policy")));
}

#[test]
fn it_is_shown_over_tls() {
    let server = launch!(adminPort = 0, eventTimeoutMs = -1).over_tls().start();
    let Some(mut browser) = browse(&server) else { return };
    assert_eq!(browser.evaluate("location.protocol"), "https:");
    let (mut source, mut user) = (server.source(), server.user(7));
    source.send("1|B\n2|P|1|7\n4|B\n");
    user.expect("1|B\n2|P|1|7\n");
    expect_match(&mut browser, &server);
    browser.wait_for("document.getElementById('cursor').value === '3'");
    expect_no_complaints(&mut browser);
}

/// WCAG 2.1, 1.4.3: the contrast of every text with what is behind it; those below 4.5.
pub(crate) const POOR_CONTRAST: &str = r"(() => {
  const parse = (css) => css.match(/[\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => c / 255).map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  const ground = (at) => { for (; at; at = at.parentElement) { const c = parse(getComputedStyle(at).backgroundColor); if (c[3] !== 0) return c; } return [255, 255, 255]; };
  return [...document.querySelectorAll('body *')].filter((at) => !['SCRIPT', 'STYLE', 'NOSCRIPT'].includes(at.tagName)
      && [...at.childNodes].some((node) => node.nodeType === 3 && node.data.trim()) && at.getClientRects().length)
    .map((at) => { const style = getComputedStyle(at), svg = at instanceof SVGElement;
      const [a, b] = [light(parse(svg ? style.fill : style.color)), light(ground(at))].sort((x, y) => y - x);
      return [at.id || at.className.baseVal || at.textContent, (a + .05) / (b + .05)]; })
    .filter(([, contrast]) => contrast < 4.5);
})()";

#[test]
fn everyone_can_read_it() {
    let server = server!(adminPort = 0, eventTimeoutMs = -1);
    let Some(mut browser) = browse(&server) else { return };
    let (_user, mut source) = (server.user(1), server.source());
    let mut bad = server.stranger();
    bad.send("nobody\n");
    bad.expect_closed();
    source.send("2|B\n");
    browser.wait_for("document.getElementById('state').textContent === 'Events wait for a missing one.'");
    browser.wait_for("document.querySelector('#user-list tbody th')?.textContent === '1'");
    browser.wait_for("!document.getElementById('disconnections').hidden");
    for scheme in ["light", "dark"] {
        browser.look(1280, 900, scheme);
        browser.wait_for(&format!("matchMedia('(prefers-color-scheme: {scheme})').matches"));
        assert_eq!(browser.evaluate(POOR_CONTRAST), Value::Array(Vec::new()), "{scheme}");
    }
    // What a screen reader is told.
    browser.call("Accessibility.enable", serde_json::json!({}));
    let tree = browser.call("Accessibility.getFullAXTree", serde_json::json!({}));
    let nodes = tree["nodes"].as_array().unwrap();
    let named = |role: &str, name: &str| {
        nodes.iter().any(|node| {
            node["role"]["value"] == role
                && node["name"]["value"].as_str().is_some_and(|said| said.contains(name))
        })
    };
    for (role, name) in [
        ("slider", "Events released"),
        ("slider", "Time until delivery"),
        ("heading", "Fortnight"),
        ("heading", "Disconnections, by reason"),
        ("region", "Order"),
        ("region", "Users"),
        ("rowheader", "login was no user id"),
        ("rowheader", "Turn of the loop"),
        ("button", "waiting"),
        ("group", "Event sources"),
        ("link", "Metrics for Prometheus"),
    ] {
        assert!(named(role, name), "no {role} named {name}");
    }
    let described = |text: &str| nodes.iter().any(|node| node["description"]["value"] == text);
    assert!(described(
        "Chart of the last five minutes. The arrow keys point at a second, and Escape points at none."
    ));
    assert!(nodes.iter().any(|node| node["role"]["value"] == "main"));
    assert!(nodes.iter().any(|node| node["role"]["value"] == "status"));
}

#[test]
fn the_journal_is_shown_where_there_is_one() {
    let folder = std::env::temp_dir().join(format!("fortnight-page-{}", std::process::id()));
    let server = server!(adminPort = 0, journalDirectory = folder.display(), journalSyncIntervalMs = 1);
    let Some(mut browser) = browse(&server) else { return };
    let (mut source, mut user) = (server.source(), server.user(1));
    source.send("1|B\n");
    user.expect("1|B\n");
    browser.wait_for("!document.getElementById('journal').hidden");
    browser.wait_for("document.getElementById('journal-durable_cursor').value === '2'");
    browser.wait_for("document.getElementById('journal-note').textContent === 'Everything is durable.'");
    expect_no_complaints(&mut browser);
    drop(server);
    std::fs::remove_dir_all(folder).unwrap();
}
