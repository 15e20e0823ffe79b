//! Modules form a graph without cycles: what a module uses can be read, tested and changed without it.
//!
//! An arrow leads from a file to every file of the same crate whose names it uses: in a `use`, or in a path that begins with
//! `crate::`. A name that a module only passes on (`pub use`) is taken from where it comes from. Tests may use anything.

use super::{expect_none, files};
use std::collections::{BTreeMap, BTreeSet};

/// A module, as the path from the root of its crate, which is the empty one.
type Path = Vec<String>;

/// The files of a crate, by module.
struct Crate {
    /// The name that its own program uses it by.
    name: &'static str,
    texts: BTreeMap<Path, String>,
    /// Where the names come from that a module passes on.
    passed_on: BTreeMap<(Path, String), Path>,
}

impl Crate {
    fn new(name: &'static str, files: Vec<(String, String)>) -> Self {
        let texts: BTreeMap<Path, String> =
            files.into_iter().filter_map(|(path, text)| Some((module(&path)?, code(&text)))).collect();
        let mut this = Self { name, texts, passed_on: BTreeMap::new() };
        let mut passed_on = BTreeMap::new();
        for (module, text) in &this.texts {
            for (is_public, path) in uses(text) {
                if is_public && let Some(path) = this.absolute(module, &path) {
                    let name = path.last().cloned().unwrap_or_default();
                    passed_on.insert((module.clone(), name), path);
                }
            }
        }
        this.passed_on = passed_on;
        this
    }

    /// A path from the root of the crate. `None`: it leads to another crate.
    fn absolute(&self, module: &[String], path: &[String]) -> Option<Path> {
        let mut base: Path = Vec::new();
        let rest = match path[0].as_str() {
            "crate" => &path[1..],
            name if name == self.name => &path[1..],
            "self" => {
                base = module.to_vec();
                &path[1..]
            }
            "super" => {
                let count = path.iter().take_while(|word| *word == "super").count();
                base = module[..module.len().checked_sub(count)?].to_vec();
                &path[count..]
            }
            child => {
                base = module.to_vec();
                base.push(child.to_owned());
                if !self.texts.contains_key(&base) {
                    return None;
                }
                base.pop();
                path
            }
        };
        base.extend_from_slice(rest);
        Some(base)
    }

    /// The module that a path from the root leads to.
    fn resolve(&self, path: &[String]) -> Option<Path> {
        let len = (0..=path.len()).rev().find(|&len| self.texts.contains_key(&path[..len]))?;
        let (module, rest) = path.split_at(len);
        let passed_on = rest.first().and_then(|name| self.passed_on.get(&(module.to_vec(), name.clone())));
        match passed_on {
            Some(origin) if origin[..] != path[..len + 1] => {
                self.resolve(&[&origin[..], &rest[1..]].concat())
            }
            _ => Some(module.to_vec()),
        }
    }

    fn arrows(&self) -> BTreeMap<Path, BTreeSet<Path>> {
        let mut arrows = BTreeMap::new();
        for (module, text) in &self.texts {
            let named = uses(text).into_iter().map(|(_, path)| path).chain(inline_paths(text));
            let mut targets: BTreeSet<Path> = named
                .filter_map(|path| self.absolute(module, &path))
                .filter_map(|path| self.resolve(&path))
                .collect();
            targets.remove(module);
            arrows.insert(module.clone(), targets);
        }
        arrows
    }

    /// The modules of each cycle.
    fn cycles(&self) -> Vec<String> {
        cycles_in(&self.arrows())
    }
}

/// The modules of each cycle of these arrows.
fn cycles_in(arrows: &BTreeMap<Path, BTreeSet<Path>>) -> Vec<String> {
    let reached: BTreeMap<&Path, BTreeSet<&Path>> =
        arrows.keys().map(|module| (module, reachable(arrows, module))).collect();
    let mut found = BTreeSet::new();
    for module in arrows.keys().filter(|&module| reached[module].contains(module)) {
        let circle = reached[module].iter().filter(|other| reached[**other].contains(module));
        let names: Vec<String> = circle.map(|other| name(other)).collect();
        found.insert(names.join(", "));
    }
    found.into_iter().collect()
}

fn reachable<'a>(arrows: &'a BTreeMap<Path, BTreeSet<Path>>, from: &Path) -> BTreeSet<&'a Path> {
    let mut reached = BTreeSet::new();
    let mut open: Vec<&Path> = arrows[from].iter().collect();
    while let Some(module) = open.pop() {
        if reached.insert(module) {
            open.extend(&arrows[module]);
        }
    }
    reached
}

fn name(module: &[String]) -> String {
    if module.is_empty() { "the root".to_owned() } else { module.join("::") }
}

/// The module that a file is. `None`: it is one of tests, or the root, which only lists the modules.
fn module(file: &str) -> Option<Path> {
    let path = file.split_once("src/")?.1.strip_suffix(".rs")?;
    let mut module: Path = path.split('/').map(str::to_owned).collect();
    match module.last()?.as_str() {
        "tests" | "lib" => return None,
        "mod" => drop(module.pop()),
        _ => {}
    }
    Some(module)
}

/// A file without comments and without its tests, which stand at its end.
fn code(text: &str) -> String {
    let end = text.find("#[cfg(test)]\nmod tests {").unwrap_or(text.len());
    let lines = text[..end].lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.map(|line| format!("{line}\n")).collect()
}

/// The paths of the `use` statements, and whether each is passed on.
fn uses(text: &str) -> Vec<(bool, Path)> {
    let mut found = Vec::new();
    let mut rest = text;
    let mut begins_line = true;
    while let Some(line_end) = rest.find('\n') {
        let line = rest[..line_end].trim_start();
        let is_public = line.starts_with("pub");
        let statement = match line.split_once("use ") {
            Some((before, _)) if before.is_empty() || (is_public && !before.trim_end().contains(' ')) => {
                let start = rest.find("use ").unwrap_or_default() + 4;
                rest.find(';').filter(|_| begins_line).map(|end| (start, end))
            }
            _ => None,
        };
        begins_line = true;
        if let Some((start, end)) = statement {
            let mut paths = Vec::new();
            expand("", &rest[start..end].replace(char::is_whitespace, " "), &mut paths);
            found.extend(paths.into_iter().map(|path| (is_public, path)));
            rest = &rest[end + 1..];
            begins_line = false;
        } else {
            rest = &rest[line_end + 1..];
        }
    }
    found
}

/// `a::{b, c::{self, d as e}}` becomes `a::b`, `a::c` and `a::c::d`.
fn expand(prefix: &str, tree: &str, paths: &mut Vec<Path>) {
    let tree = tree.trim();
    if let Some((head, inside)) = tree.split_once('{') {
        let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
        let mut depth = 0;
        let is_comma = |letter: char| {
            depth += i32::from(letter == '{') - i32::from(letter == '}');
            letter == ',' && depth == 0
        };
        for part in inside.split(is_comma).filter(|part| !part.trim().is_empty()) {
            expand(&format!("{prefix}{head}"), part, paths);
        }
        return;
    }
    let tree = tree.split(" as ").next().unwrap_or(tree).trim();
    let path = format!("{prefix}{tree}");
    let mut path: Path = path.split("::").map(|word| word.trim().to_owned()).collect();
    if path.len() > 1 && path.last().is_some_and(|last| last == "self" || last == "*") {
        path.pop();
    }
    paths.push(path);
}

/// Paths that begin with `crate::`, `super::` or `self::`, wherever they stand.
fn inline_paths(text: &str) -> Vec<Path> {
    let mut found = Vec::new();
    for start in ["crate::", "super::", "self::"] {
        for (at, _) in text.match_indices(start) {
            if text[..at].ends_with(|letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':')
            {
                continue;
            }
            // Who may use something is no use of it.
            if text[..at].ends_with("pub(in ") {
                continue;
            }
            let is_of_path = |letter: char| letter.is_alphanumeric() || letter == '_' || letter == ':';
            let path: String = text[at..].chars().take_while(|&letter| is_of_path(letter)).collect();
            // What ends so goes on with a brace: it stands in a `use`.
            if !path.ends_with(':') {
                found.push(path.split("::").map(str::to_owned).collect());
            }
        }
    }
    found
}

/// The methods of a type that stand in several files: which file has which, and which files' methods each file calls.
fn arrows_of_methods(texts: &BTreeMap<Path, String>, name: &str) -> BTreeMap<Path, BTreeSet<Path>> {
    let mut homes: BTreeMap<&str, &Path> = BTreeMap::new();
    let mut bodies: Vec<(&Path, &str)> = Vec::new();
    let head = format!("> {name}<");
    for (module, text) in texts {
        for (at, _) in text.match_indices(&head) {
            let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
            if !text[line..].starts_with("impl<") || text[line..at].contains(" for ") {
                continue;
            }
            let end = text[at..].find("\n}\n").map_or(text.len(), |end| at + end);
            let body = &text[at..end];
            bodies.push((module, body));
            for (at, _) in body.match_indices("fn ") {
                let is_of_name = |letter: char| letter.is_alphanumeric() || letter == '_';
                let len = body[at + 3..].find(|letter| !is_of_name(letter)).unwrap_or(0);
                homes.insert(&body[at + 3..at + 3 + len], module);
            }
        }
    }
    let mut arrows: BTreeMap<Path, BTreeSet<Path>> =
        bodies.iter().map(|(module, _)| ((*module).clone(), BTreeSet::new())).collect();
    for (module, body) in bodies {
        for (at, _) in body.match_indices("self.") {
            let called = body[at + 5..].split_once('(').map_or("", |(name, _)| name);
            if let Some(home) = homes.get(called).filter(|&&home| home != module) {
                arrows.entry(module.clone()).or_default().insert((*home).clone());
            }
        }
    }
    arrows
}

#[test]
fn a_cycle_of_methods_is_found() {
    let low =
        "impl<N: Net> Server<N> {\n    pub(super) fn low(&mut self) {\n        self.high();\n    }\n}\n";
    let high = "impl<N: Net> Server<N> {\n    fn high(&mut self) {\n        self.low();\n    }\n}\n";
    let texts = |low: &str| {
        let texts = [("low", low), ("high", high)];
        BTreeMap::from(texts.map(|(path, text)| (vec![path.to_owned()], text.to_owned())))
    };
    assert_eq!(cycles_in(&arrows_of_methods(&texts(low), "Server")), ["high, low"]);
    let calls_nothing = low.replace("self.high();", "");
    assert_eq!(cycles_in(&arrows_of_methods(&texts(&calls_nothing), "Server")), [""; 0]);
}

#[test]
fn methods_of_the_server_call_only_those_below() {
    let server = Crate::new("fortnight", files("src", "rs"));
    let mut found = Vec::new();
    for name in ["Server", "Users", "Sources"] {
        let arrows = arrows_of_methods(&server.texts, name);
        assert!(arrows.len() > 1, "{name} has its methods in several files");
        found.extend(cycles_in(&arrows));
    }
    expect_none("cycles of methods", &found);
}

#[test]
fn modules_have_no_cycles() {
    for (name, folder) in [("fortnight", "src"), ("maze", "perf/src")] {
        let cycles = Crate::new(name, files(folder, "rs")).cycles();
        expect_none(&format!("cycles of modules in {folder}"), &cycles);
    }
}

/// The cycles of a crate of these files.
fn cycles_of(files: &[(&str, &str)]) -> Vec<String> {
    let files = files.iter().map(|&(path, text)| (path.to_owned(), text.to_owned())).collect();
    Crate::new("x", files).cycles()
}

#[test]
fn a_cycle_is_seen() {
    let b = ("src/b.rs", "fn f() { crate::a::c::g() }\n");
    assert_eq!(
        cycles_of(&[("src/a/mod.rs", ""), ("src/a/c.rs", "use crate::{\n    b::f,\n};\n"), b]),
        ["a::c, b"]
    );
    assert_eq!(
        cycles_of(&[("src/a/mod.rs", "mod c;\nuse c::g;\n"), ("src/a/c.rs", "use super::A;\n"), b]),
        ["a, a::c"]
    );
}

#[test]
fn a_name_that_is_passed_on_comes_from_its_origin() {
    let a = ("src/a/mod.rs", "mod c;\nmod d;\npub use c::G;\npub(crate) use d::D;\n");
    assert_eq!(cycles_of(&[a, ("src/a/c.rs", "use super::D;\n"), ("src/a/d.rs", "")]), [] as [&str; 0]);
    assert_eq!(
        cycles_of(&[a, ("src/a/c.rs", "use super::D;\n"), ("src/a/d.rs", "use x::a::G;\n")]),
        ["a::c, a::d"]
    );
}

#[test]
fn tests_and_comments_make_no_arrows() {
    let a = "use crate::b::B;\n";
    let b = "//! [`a`](crate::a)\n// use crate::a;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}\n";
    assert_eq!(cycles_of(&[("src/a.rs", a), ("src/b.rs", b), ("src/a/tests.rs", a)]), [] as [&str; 0]);
}
