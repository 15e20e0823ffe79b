//! What is handed out beside the program speaks of what the program has: the dashboard and the alerts of its metrics, the manual
//! of the trace format of its options, the workflows of its version.

use std::collections::BTreeSet;
use std::path::Path;
use support::{Server, server};

fn file(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The words of a text that begin like the name of a metric.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("fortnight_") || word.starts_with("process_")).collect()
}

/// The samples that this server has, by name.
fn samples(server: &Server) -> BTreeSet<String> {
    let body = server.get("/metrics").body;
    let lines = body.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.split(['{', ' ']).next()?.to_owned())).collect()
}

#[test]
fn the_dashboard_and_the_alerts_ask_for_metrics_that_there_are() {
    let folder = std::env::temp_dir().join(format!("fortnight-handed-out-{}", std::process::id()));
    let server = server!(adminPort = 0, journalDirectory = folder.display());
    let upstream = server!(adminPort = 0, streamPort = 0);
    let edge = server!(adminPort = 0, role = "edge", stream = format!("tcp://{}", upstream.stream()));
    let mut there = samples(&server);
    there.extend(samples(&edge));
    // A sequencer has these two beside; starting one takes NATS.
    there.extend(["fortnight_stream_leader", "fortnight_stream_term"].map(str::to_owned));
    let dashboard: serde_json::Value =
        serde_json::from_str(&file("packaging/grafana/fortnight.json")).unwrap();
    let mut expressions = String::new();
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            expressions += &format!("{}\n", target["expr"].as_str().unwrap());
        }
    }
    for variable in dashboard["templating"]["list"].as_array().unwrap() {
        expressions += &format!("{}\n", variable["query"]["query"].as_str().unwrap_or_default());
    }
    assert!(metrics_in(&expressions).len() > 25, "{expressions}");
    for text in [expressions, file("packaging/alerts.yml")] {
        for name in metrics_in(&text) {
            assert!(there.contains(name), "no metric {name}");
        }
    }
    drop(server);
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_manual_of_the_trace_format_names_the_options_that_a_trace_may_have() {
    let manual = file("packaging/man/fortnight-trace.5");
    let between =
        |begin: &str| manual.split(begin).nth(1).and_then(|rest| rest.split(".\\\" end\n").next()).unwrap();
    let named: BTreeSet<&str> =
        between(".\\\" options\n").split_whitespace().filter(|&word| word != ".B").collect();
    assert_eq!(named, fortnight::internals::trace::OPTIONS.into());
    // The grammar is that of the module's documentation, line for line.
    let module = file("src/trace/mod.rs");
    let rules = |text: &str| -> Vec<String> {
        let lines =
            text.lines().map(|line| line.trim_start_matches("//!").replace("\\-", "-").replace("\\e", "\\"));
        let of_rule = |line: &String| line.contains(" = ") || line.trim_start().starts_with("/ ");
        lines.map(|line| line.split(';').next().unwrap().trim().to_owned()).filter(of_rule).collect()
    };
    let without_text = |rules: Vec<String>| -> Vec<String> {
        rules.into_iter().filter(|rule| !rule.starts_with("TEXT")).collect()
    };
    assert_eq!(without_text(rules(&manual)), without_text(rules(&module)));
    assert_eq!(rules(&manual).len(), 20);
    // The example is a trace; what comes of it stands below it.
    let example = between(".\\\" example\n").replace("\\-", "-");
    let folder = std::env::temp_dir().join(format!("fortnight-manual-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("example.trace");
    std::fs::write(&path, example).unwrap();
    let finished = support::launch!().flag("replay").flag("--show").flag("all").flag(&path).run();
    assert_eq!(finished.status, 0, "{}", finished.stderr);
    for (time, line) in [("0.001200", "1|B"), ("0.501200", "3|P|60|2932"), ("0.501200", "4|P|60|2932")] {
        let is_there = |shown: &str| shown.contains(time) && shown.contains(line);
        assert!(finished.stdout.lines().any(is_there), "{time} {line} in {}", finished.stdout);
    }
    std::fs::remove_dir_all(folder).unwrap();
}

#[test]
fn the_sample_workflow_takes_this_version_and_calls_the_program_as_it_is() {
    let workflow = file("examples/workflows/replay-traces.yml");
    assert!(workflow.contains(&format!("FORTNIGHT: {}\n", env!("CARGO_PKG_VERSION"))), "another version");
    let line = workflow
        .lines()
        .find_map(|line| line.trim().strip_prefix("- run: fortnight "))
        .or_else(|| workflow.lines().find_map(|line| line.trim().strip_prefix("run: fortnight ")));
    let folder = std::env::temp_dir().join(format!("fortnight-workflow-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let report = folder.join("junit.xml");
    let mut launch = support::launch!();
    for word in line.unwrap().split_whitespace() {
        let word = match word {
            "traces" => "tests/traces".into(),
            "traces/*.trace" => "tests/traces/order.trace".into(),
            "junit.xml" => report.clone().into_os_string(),
            word => word.into(),
        };
        launch = launch.flag(word);
    }
    let finished = launch.run();
    assert_eq!(finished.status, 0, "{}{}", finished.stdout, finished.stderr);
    assert!(std::fs::read_to_string(&report).unwrap().contains("order"));
    std::fs::remove_dir_all(folder).unwrap();
}
