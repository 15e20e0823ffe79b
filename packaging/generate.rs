//! Writes the man pages and shell completions of `fortnight` into a directory: `cargo run --example generate -- DIR`.
//! They follow from the option definitions, and the server's own binary knows nothing of them.

use std::{fs, io, path::Path};

use clap_complete::{Shell, generate_to};

fn main() -> io::Result<()> {
    let Some(directory) = std::env::args_os().nth(1) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "expected the directory to write to"));
    };
    let directory = Path::new(&directory);
    let man = directory.join("man/man1");
    fs::create_dir_all(&man)?;
    let synopsis = "fortnight [OPTIONS]\nfortnight <COMMAND>";
    clap_mangen::generate_to(fortnight::internals::cli::command().override_usage(synopsis), man)?;
    let completions = directory.join("completions");
    fs::create_dir_all(&completions)?;
    for shell in [Shell::Bash, Shell::Fish, Shell::Zsh] {
        generate_to(shell, &mut fortnight::internals::cli::command(), "fortnight", &completions)?;
    }
    Ok(())
}
