//! Citations of the contract, links between documents, and the paths that documents name lead somewhere.

use super::{expect_none, files, root};
use std::{collections::HashSet, fs, path::Path};

/// The numbers of the sections of a document: `4` for a line `## 4. Configuration`, `1.2` for `### 1.2 Users`.
fn sections(text: &str) -> HashSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let number = |heading: &str| {
        let word = heading.trim_start_matches('#').split_whitespace().next()?;
        let word = word.trim_end_matches('.');
        word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.').then(|| word.to_owned())
    };
    headings.filter_map(number).collect()
}

/// The sections of the contract that a text cites: `SPEC section 4`, `docs/SPEC.md, section 1.2`, `SPEC sections 2 to 5`.
fn citations(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for (at, _) in line.match_indices("SPEC") {
            let rest = line[at + 4..].trim_start_matches(".md").trim_start_matches(['`', ')', ',', ' ']);
            let Some(rest) = rest.strip_prefix("section") else { continue };
            for word in rest.trim_start_matches('s').split_whitespace() {
                let number: String =
                    word.chars().take_while(|letter| letter.is_ascii_digit() || *letter == '.').collect();
                match number.trim_end_matches('.') {
                    "" if ["and", "to"].contains(&word) => continue,
                    "" => break,
                    number => found.push((index + 1, number.to_owned())),
                }
                if !word.ends_with(',') && word.len() != number.len() {
                    break;
                }
            }
        }
    }
    found
}

/// Where the links of a Markdown text lead: `[text](target)`, outside of code.
fn targets(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code {
            continue;
        }
        for (at, _) in line.match_indices("](") {
            let rest = &line[at + 2..];
            if let Some(end) = rest.find(')') {
                found.push((index + 1, rest[..end].to_owned()));
            }
        }
    }
    found
}

/// The folders that a path in a document begins with. Others are not of this project.
const FOLDERS: [&str; 8] =
    [".ci/", "src/", "tests/", "perf/", "docs/", "packaging/", "examples/", "benches/"];

/// What is not committed, because a command makes it.
const MADE: &str = "perf/out";

/// The paths of this project that a Markdown text names in code within a sentence: `src/lib.rs`. Patterns and names to be
/// filled in are none: `arch/*/scan.rs`, `<file>`, `SHAPE.svg`, `…`.
fn paths(text: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut in_code = false;
    for (index, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_code = !in_code;
        }
        if in_code || line.starts_with("    ") {
            continue;
        }
        for code in line.split('`').skip(1).step_by(2) {
            for word in code.split([' ', '\'', '"', '=', ':']) {
                let is_pattern = word.contains(['*', '<', '…']) || word.starts_with(MADE);
                if FOLDERS.iter().any(|folder| word.starts_with(folder)) && !is_pattern {
                    found.extend(alternatives(word).into_iter().map(|path| (index + 1, path)));
                }
            }
        }
    }
    found
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn alternatives(path: &str) -> Vec<String> {
    let parts = path.split_once('{').and_then(|(head, rest)| Some((head, rest.split_once('}')?)));
    let Some((head, (inside, tail))) = parts else { return vec![path.to_owned()] };
    inside.split(',').map(|part| format!("{head}{part}{tail}")).collect()
}

/// Whether a document names a path from the root of the project, or from the document's own folder.
fn is_there(from: &str, path: &str) -> bool {
    let own = root().join(from).parent().unwrap_or(root()).join(path);
    own.exists() || root().join(path).exists()
}

/// The name by which GitHub links to a heading.
fn anchor(heading: &str) -> String {
    let heading = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}

fn has_anchor(text: &str, wanted: &str) -> bool {
    text.lines().any(|line| line.starts_with('#') && anchor(line) == wanted)
}

/// Why a link leads nowhere.
fn broken(from: &str, text: &str, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, wanted) = target.split_once('#').unwrap_or((target, ""));
    let path = root().join(from).parent().unwrap_or(Path::new("")).join(file);
    if !file.is_empty() && !path.exists() {
        return Some(format!("{target}: there is no such file"));
    }
    let there = if file.is_empty() { text.to_owned() } else { fs::read_to_string(path).unwrap_or_default() };
    if wanted.is_empty() || has_anchor(&there, wanted) {
        return None;
    }
    Some(format!("{target}: there is no such heading"))
}

#[test]
fn every_citation_of_the_contract_resolves() {
    let known = sections(&fs::read_to_string(root().join("docs/SPEC.md")).unwrap());
    let mut found = Vec::new();
    let sources = ["src", "tests", "perf"].map(|folder| files(folder, "rs"));
    for (path, text) in sources.into_iter().flatten().chain(files(".", "md")) {
        for (line, section) in citations(&text) {
            if !known.contains(&section) {
                found.push(format!("{path}:{line}: section {section}"));
            }
        }
    }
    expect_none("sections that docs/SPEC.md does not have", &found);
}

#[test]
fn every_link_of_the_documents_resolves() {
    let mut found = Vec::new();
    for (path, text) in files(".", "md") {
        for (line, target) in targets(&text) {
            found.extend(broken(&path, &text, &target).map(|reason| format!("{path}:{line}: {reason}")));
        }
    }
    expect_none("links that lead nowhere", &found);
}

#[test]
fn every_path_in_the_documents_is_there() {
    let mut found = Vec::new();
    for (document, text) in files(".", "md") {
        let missing = paths(&text).into_iter().filter(|(_, path)| !is_there(&document, path));
        found.extend(missing.map(|(line, path)| format!("{document}:{line}: {path}")));
    }
    expect_none("paths of files that are not there", &found);
}

#[test]
fn paths_are_found() {
    let text = "`src/lib.rs` and `FOLDER=tests/a make b`, `perf/out/c.svg`, `src/*/d.rs`\n```\n`src/e.rs`\n```\n`docs/{f,g}.md`";
    let found: Vec<_> = paths(text).into_iter().map(|(line, path)| format!("{line} {path}")).collect();
    assert_eq!(found, ["1 src/lib.rs", "1 tests/a", "5 docs/f.md", "5 docs/g.md"]);
    assert!(is_there("README.md", "src/lib.rs") && is_there("perf/README.md", "tests/faults.rs"));
    assert!(!is_there("README.md", "tests/faults.rs"));
}

#[test]
fn citations_and_links_are_found() {
    let numbers = |text| citations(text).into_iter().map(|(_, section)| section).collect::<Vec<_>>();
    assert_eq!(numbers("as SPEC section 1.2 says. `docs/SPEC.md`, section 7."), ["1.2", "7"]);
    assert_eq!(numbers("SPEC sections 2 and 4, and 5 users (docs/SPEC.md section 6)"), ["2", "4", "5", "6"]);
    assert_eq!(sections("# A\n## 4. B\n### 1.2 C\n"), HashSet::from(["4".to_owned(), "1.2".to_owned()]));
    assert_eq!(targets("[a](b.md#c)\n```\n[d](e)\n```\n"), [(1, "b.md#c".to_owned())]);
    assert_eq!(anchor("## 4. What, and Why"), "4-what-and-why");
    assert!(broken("README.md", "# A b\n", "#a-b").is_none());
    assert!(broken("README.md", "# A b\n", "#a").is_some());
    assert!(broken("README.md", "", "none.md").is_some());
}
