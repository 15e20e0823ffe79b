//! Writes into a directory what follows from the option definitions: man pages, shell completions, and a commented sample of
//! the service's environment file. `cargo run --example generate -- DIR`. The server's own binary knows nothing of them.

use std::{fmt::Write, fs, io, path::Path};

use clap_complete::{Shell, generate_to};
use fortnight::{
    Config,
    internals::{cli, options},
};

/// Longest line of the sample.
const LINE_MAX: usize = 100;
const HEAD: &str = "\
# Options of the fortnight service. Each line sets one environment variable. Every option stands here with its default:
# take away the `#` in front of one to change it, and restart the service. fortnight(1) has the same list.
";

fn main() -> io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the directory to write to"));
    };
    let directory = Path::new(&directory);
    let man = directory.join("man/man1");
    fs::create_dir_all(&man)?;
    let synopsis = "fortnight [OPTIONS]\nfortnight <COMMAND>";
    clap_mangen::generate_to(cli::command().override_usage(synopsis), man)?;
    let formats = directory.join("man/man5");
    fs::create_dir_all(&formats)?;
    fs::write(formats.join("fortnight-trace.5"), include_str!("man/fortnight-trace.5"))?;
    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut cli::command(), "fortnight", &completions)?;
    }
    fs::create_dir_all(directory.join("systemd"))?;
    fs::write(directory.join("systemd/fortnight.conf"), sample())
}

/// The environment file: every option with its help and its default, commented out.
fn sample() -> String {
    let mut sample = HEAD.to_owned();
    let mut heading = String::new();
    let command = cli::command();
    let defaults: Vec<_> = options::all(&Config::default()).collect();
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env().and_then(|name| name.to_str()) else { continue };
        let under = argument.get_help_heading().unwrap_or_default();
        if under != heading {
            under.clone_into(&mut heading);
            let _ = write!(sample, "\n### {heading}\n");
        }
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        sample.push('\n');
        for line in wrapped(&help) {
            let _ = writeln!(sample, "# {line}");
        }
        let default =
            defaults.iter().find(|(name, _)| *name == variable).and_then(|(_, value)| value.clone());
        let _ = writeln!(sample, "#{variable}={}", default.unwrap_or_default());
    }
    sample
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let line = lines.len() - 1;
        if !lines[line].is_empty() && lines[line].len() + 1 + word.len() > LINE_MAX {
            lines.push(word.to_owned());
        } else {
            let space = if lines[line].is_empty() { "" } else { " " };
            let _ = write!(lines[line], "{space}{word}");
        }
    }
    lines
}
