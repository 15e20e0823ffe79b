//! The file that a trace is recorded in.

use rustix::{
    fs::{CWD, FlockOperation, OFlags, RenameFlags, flock, renameat_with},
    io::Errno,
};
use std::{
    ffi::OsString,
    fs::{File, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

/// How often another server may come in between.
const ATTEMPTS: usize = 100;

/// Creates a file that is this server's alone. An earlier trace at this place is kept under another name: the trace of a
/// crash must survive the restart.
///
/// Only regular files are accepted: they never make the server wait.
pub(super) fn create(path: &Path) -> io::Result<File> {
    for _ in 0..ATTEMPTS {
        if let Some(file) = open(path)? {
            return Ok(file);
        }
    }
    Err(ErrorKind::ResourceBusy.into())
}

/// `None`: another process was faster, or an earlier trace has been moved away.
fn open(path: &Path) -> io::Result<Option<File>> {
    // A pipe that nobody reads must not be waited for.
    let flags = OFlags::NONBLOCK.bits() as i32;
    let mut options = OpenOptions::new();
    options.read(true).write(true).custom_flags(flags);
    let file = match options.open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => match options.create_new(true).open(path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(None),
            created => created?,
        },
        opened => opened?,
    };
    let status = file.metadata()?;
    if !status.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => return Err(io::Error::other("another server writes it")),
        locked => locked?,
    }
    if status.len() == 0 {
        return Ok(Some(file));
    }
    keep(path)?;
    Ok(None)
}

/// Renames a file to the first name that is free.
fn keep(path: &Path) -> io::Result<()> {
    for number in 1_u64.. {
        let mut name = OsString::from(path);
        name.push(format!(".{number}"));
        let kept = PathBuf::from(name);
        match renameat_with(CWD, path, CWD, &kept, RenameFlags::NOREPLACE) {
            Err(Errno::EXIST) => {}
            renamed => {
                renamed?;
                log::warn!(kept = kept.display().to_string(); "recordTrace: the file had a trace, which is kept under another name");
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    /// A folder that goes away with the test.
    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("fortnight-trace-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(folder)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_recorded_before_is_kept() {
        let folder = Folder::new("kept");
        let path = folder.0.join("a.trace");
        for text in ["first", "second", "third"] {
            create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        }
        let read = |name: &str| fs::read_to_string(folder.0.join(name)).unwrap();
        assert_eq!([read("a.trace.1"), read("a.trace.2"), read("a.trace")], ["first", "second", "third"]);
    }

    #[test]
    fn a_file_belongs_to_one_server() {
        let folder = Folder::new("one");
        let path = folder.0.join("a.trace");
        let first = create(&path).unwrap();
        assert_eq!(create(&path).unwrap_err().to_string(), "another server writes it");
        drop(first);
        assert!(create(&path).is_ok());
    }

    #[test]
    fn what_could_make_the_server_wait_is_refused() {
        let folder = Folder::new("fifo");
        let path = folder.0.join("pipe");
        rustix::fs::mknodat(
            CWD,
            &path,
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
            0,
        )
        .unwrap();
        for path in [path.as_path(), Path::new("/dev/full"), Path::new("/dev/null")] {
            assert_eq!(create(path).unwrap_err().to_string(), "it is not a regular file", "{path:?}");
        }
    }
}
