//! Lines of documents fit the width that CONTRIBUTING.md names.

use super::{expect_none, files};

const WIDTH_MAX: usize = 120;

/// What `maze bench` writes.
const MADE: &str = "perf/results/";

/// The lines of a Markdown text that are too long, tables and code excepted.
fn too_wide(path: &str, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        let may_be_wide = in_code || line.starts_with("    ") || line.trim_start().starts_with('|');
        let width = line.chars().count();
        if width > WIDTH_MAX && !may_be_wide {
            found.push(format!("{path}:{}: {width} characters", index + 1));
        }
    }
    found
}

#[test]
fn lines_of_documents_have_at_most_120_characters() {
    let mut found = Vec::new();
    for (path, text) in files(".", "md").iter().filter(|(path, _)| !path.starts_with(MADE)) {
        found.extend(too_wide(path, text));
    }
    expect_none("lines that are too wide", &found);
}

#[test]
fn a_line_that_is_too_wide_is_seen() {
    let fits = "é".repeat(WIDTH_MAX);
    let wide = "a".repeat(WIDTH_MAX + 1);
    assert_eq!(too_wide("a.md", &format!("{fits}\n{wide}\n")), ["a.md:2: 121 characters"]);
    assert_eq!(too_wide("a.md", &format!("| {wide} |\n    {wide}\n```\n{wide}\n```\n")), [""; 0]);
}
