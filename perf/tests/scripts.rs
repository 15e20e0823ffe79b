//! The scripts of `perf/` without the tools that they want: one sentence, before anything is built.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Scripts, and the tools that each looks for, in this order.
const SCRIPTS: [(&str, &[&str]); 3] = [
    ("perf/flamegraph", &["perf", "taskset"]),
    ("perf/perf-stat", &["perf", "taskset"]),
    ("perf/instructions", &["valgrind"]),
];

/// A folder to be all of `PATH`. It goes with the test.
struct Tools(PathBuf);

impl Tools {
    /// What a script needs to find out what is missing, and stand-ins for `more`, which may not be installed here.
    fn new(name: &str, more: &[&str]) -> Tools {
        let folder = std::env::temp_dir().join(format!("maze-scripts-{}-{name}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let tools = Tools(folder);
        for tool in ["bash", "dirname"] {
            tools.add(tool, &installed(tool));
        }
        for tool in more {
            tools.add(tool, &installed("false"));
        }
        tools
    }

    fn add(&self, name: &str, program: &Path) {
        symlink(program, self.0.join(name)).unwrap();
    }

    fn run(&self, script: &str, arguments: &[&str]) -> Output {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(script);
        // Not even cargo, whose path is in `CARGO` here.
        Command::new(script).args(arguments).env_clear().env("PATH", &self.0).output().unwrap()
    }
}

impl Drop for Tools {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn installed(tool: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap();
    let mut places = std::env::split_paths(&path).map(|folder| folder.join(tool));
    places.find(|place| place.is_file()).unwrap_or_else(|| panic!("{tool} is not installed"))
}

fn assert_refused(output: &Output, sentence: &str) {
    assert_eq!(String::from_utf8_lossy(&output.stderr), format!("{sentence}\n"));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "", "{sentence}");
    assert_eq!(output.status.code(), Some(1), "{sentence}");
}

#[test]
fn scripts_name_the_tool_that_is_missing() {
    for (script, wanted) in SCRIPTS {
        for (at, missing) in wanted.iter().enumerate() {
            let tools = Tools::new(&format!("{}-{missing}", script.replace('/', "-")), &wanted[..at]);
            let output = tools.run(script, &[]);
            assert_refused(&output, &format!("{script} needs {missing}, which is not installed."));
        }
    }
}

#[test]
fn flamegraph_names_a_commit_that_is_not_there() {
    // In the place of git a program that fails: to fetch and build without git must still be possible.
    let tools = Tools::new("commit", &["perf", "taskset", "git"]);
    assert_refused(&tools.run("perf/flamegraph", &["maze", "1", "nowhere"]), "DIFF=nowhere names no commit.");
}

#[test]
fn mutants_can_be_listed_and_other_arguments_are_refused() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/mutants/run");
    let output = Command::new(&script).arg("--list").output().unwrap();
    let list = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success());
    let names: Vec<&str> = list.lines().map(|line| line.split(' ').next().unwrap()).collect();
    let files = fs::read_dir(script.parent().unwrap()).unwrap().map(|file| file.unwrap().file_name());
    let mut patches: Vec<String> =
        files.filter_map(|name| name.to_str().unwrap().strip_suffix(".patch").map(str::to_owned)).collect();
    patches.sort();
    assert_eq!(names, patches);
    let unknown = Command::new(&script).arg("--lsit").output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert_eq!(
        String::from_utf8_lossy(&unknown.stderr),
        "tests/mutants/run: --lsit is not known; expected --check, --list or nothing\n"
    );
}

#[test]
fn tests_that_did_nothing_are_told_at_the_end() {
    // In the place of cargo a program that skips tests, and one that skips none.
    let folder = std::env::temp_dir().join(format!("maze-skipped-{}", std::process::id()));
    fs::create_dir(&folder).unwrap();
    let run = |body: &str| {
        let cargo = folder.join("cargo");
        fs::write(&cargo, format!("{body}\n")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/all");
        let cargo = format!("bash {}", cargo.display());
        Command::new(script).env("CARGO", cargo).output().unwrap()
    };
    let some = run("echo tested; printf 'b: no c\\na: no d\\n' >> \"$FORTNIGHT_SKIPPED_TESTS\"; exit 7");
    let none = run("[ \"$*\" = 'test --workspace' ]");
    let _ = fs::remove_dir_all(&folder);
    assert_eq!(some.status.code(), Some(7));
    assert_eq!(
        String::from_utf8_lossy(&some.stdout),
        "tested\n2 tests passed without doing anything:\n  a: no d\n  b: no c\n"
    );
    assert_eq!(String::from_utf8_lossy(&none.stdout), "no test was skipped\n");
    assert!(none.status.success());
}
