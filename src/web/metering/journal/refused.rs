//! The file of entries that the ledger refuses for good: a line of JSON for each, with the reason. A person decides
//! about them.

use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use super::JournalError;

fn file(folder: &Path) -> PathBuf {
    folder.join("refused.jsonl")
}

/// How many lines the file has.
pub fn lines(folder: &Path) -> Result<u64, JournalError> {
    match fs::read(file(folder)) {
        Ok(bytes) => Ok(bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).count() as u64),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(0),
        Err(error) => Err(JournalError::at(&file(folder))(error)),
    }
}

/// Adds a line, and returns when it is on the disk. If it does not fit, the file stays as it was.
pub fn append(folder: &Path, line: &str) -> Result<(), JournalError> {
    let path = file(folder);
    let failed = |error: std::io::Error| match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => JournalError::Full,
        _ => JournalError::at(&path)(error),
    };
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(&path).map_err(failed)?;
    let length = file.seek(SeekFrom::End(0)).map_err(failed)?;
    let written = write(&mut file, length, line);
    if written.is_err() {
        // What is left of the line is cut off here, or ended by the next line.
        drop(file.set_len(length));
    }
    written.map_err(failed)?;
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(failed)
}

fn write(file: &mut File, length: u64, line: &str) -> std::io::Result<()> {
    let mut last = [b'\n'];
    if length > 0 {
        file.seek(SeekFrom::Start(length - 1))?;
        file.read_exact(&mut last)?;
    }
    // A power cut left part of a line: it ends here.
    let begin = if last == *b"\n" { "" } else { "\n" };
    file.write_all(format!("{begin}{line}\n").as_bytes())?;
    file.sync_all()
}
