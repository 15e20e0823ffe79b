//! Functions fit a screen.

use super::{expect_none, files};

const LINES_MAX: usize = 70;

/// The functions of a file with more lines than allowed. The file is formatted: a function ends with a brace that is
/// indented as its first line is.
fn too_long(path: &str, text: &str) -> Vec<String> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let indent = &line[..line.len() - line.trim_start().len()];
        if !is_function(line) || line.ends_with(['}', ';']) {
            continue;
        }
        let is_end = |line: &&str| line.strip_prefix(indent).is_some_and(|rest| rest == "}" || rest == ";");
        let len = lines[start..].iter().position(is_end).map_or(1, |len| len + 1);
        if len > LINES_MAX {
            found.push(format!("{path}:{}: {len} lines", start + 1));
        }
    }
    found
}

fn is_function(line: &str) -> bool {
    let words = ["pub", "const", "async", "unsafe", "extern", "pub(crate)", "pub(super)", "\"C\""];
    let mut rest = line.trim_start().split(' ').skip_while(|word| words.contains(word));
    rest.next() == Some("fn")
}

#[test]
fn functions_have_at_most_70_lines() {
    let mut found = Vec::new();
    for folder in ["src", "perf"] {
        for (path, text) in files(folder, "rs") {
            found.extend(too_long(&path, &text));
        }
    }
    expect_none("functions that are too long", &found);
}

#[test]
fn a_function_that_is_too_long_is_seen() {
    let body = "        work();\n".repeat(LINES_MAX);
    let text = format!("impl A {{\n    pub(super) fn b() {{\n{body}    }}\n    fn c() {{}}\n}}\n");
    assert_eq!(too_long("a.rs", &text), ["a.rs:2: 72 lines"]);
}
