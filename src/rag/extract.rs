//! The text of an uploaded file, cut into passages. A process of its own reads, decodes and cuts each file, with little
//! memory, little time and no environment. A hostile file ends that process and nothing else, and takes no time from
//! the threads that answer questions.

use std::io::{Read, Write};
use std::ops::Range;
use std::process::Stdio;
use std::time::Duration;

use strum::IntoStaticStr;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::sync::Semaphore;

use super::passages::cut;
use super::text;
use crate::api::tenant::Chunking;

/// Memory of that process. It is part of the pod's, so that a pod must have room for [`AT_ONCE`] of them.
const MEMORY: u64 = 192 << 20;
/// Files that are read at the same time.
const AT_ONCE: usize = 2;
/// Its processor time, in seconds.
const CPU: u64 = 20;
/// How long it may take in all. On a busy machine it waits for the processor: it is nicer than what answers questions.
const LIMIT: Duration = Duration::from_mins(1);
/// How much nicer (<https://man7.org/linux/man-pages/man2/nice.2.html>).
const NICE: i32 = 10;
/// The longest text of a document, in bytes.
pub const LONGEST_TEXT: usize = 10 << 20;
/// The most passages of a document.
pub const MOST_PASSAGES: usize = 120_000;

/// What a file is, by its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A PDF.
    Pdf,
    /// Plain text.
    Text,
}

impl Kind {
    /// What the file begins like. Readers look for the mark of a PDF in the first kilobyte.
    pub fn of(bytes: &[u8]) -> Self {
        let head = &bytes[..bytes.len().min(1024)];
        if head.windows(5).any(|w| w == b"%PDF-") { Self::Pdf } else { Self::Text }
    }

    /// Its media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Pdf => "application/pdf",
            Self::Text => "text/plain",
        }
    }
}

/// A file that gives no text. The messages are for the customer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum ExtractError {
    /// It is neither a PDF nor plain text.
    #[error("This file is neither a PDF nor plain text. Save it as one of them and upload it again.")]
    UnknownKind,
    /// It needs a password.
    #[error("This PDF is protected by a password. Save it without one and upload it again.")]
    Encrypted,
    /// There is nothing in it.
    #[error("This file holds no text. If it is a scan, run it through text recognition (OCR) first.")]
    #[strum(serialize = "no_text")]
    Empty,
    /// It is broken, or made to do harm.
    #[error("This PDF cannot be read. Open it, print it to a new PDF, and upload that.")]
    Unreadable,
    /// It takes more than a document may.
    #[error("This file takes too long or too much memory to read. Split it and upload the parts.")]
    TooComplex,
    /// The text is too long.
    #[error("This document holds more than 10 MB of text. Split it and upload the parts.")]
    TooLong,
    /// It is cut into too many passages.
    #[error(
        "This document has more than 120,000 passages. Split it and upload the parts, or choose longer passages in the settings."
    )]
    TooManyPassages,
    /// The process could not be started: our own fault.
    #[error("The file could not be read at the moment. Please try again.")]
    Unavailable,
}

impl ExtractError {
    /// Names the kind of error; it never changes.
    pub fn code(self) -> &'static str {
        self.into()
    }
}

/// The text of a document and its passages.
#[derive(Debug, PartialEq, Eq)]
pub struct Extract {
    text: String,
    passages: Vec<Range<usize>>,
}

impl Extract {
    /// The passages, in their order.
    pub fn passages(&self) -> Vec<&str> {
        self.passages.iter().filter_map(|range| self.text.get(range.clone())).collect()
    }
}

static READERS: Semaphore = Semaphore::const_new(AT_ONCE);

/// Why the process refuses a file, by its exit code. Other codes are a crash.
const REFUSALS: [(u8, ExtractError); 7] = [
    (3, ExtractError::Encrypted),
    (4, ExtractError::Unreadable),
    (5, ExtractError::UnknownKind),
    (6, ExtractError::Empty),
    (7, ExtractError::TooLong),
    (8, ExtractError::TooManyPassages),
    // A panic of the PDF reader.
    (101, ExtractError::Unreadable),
];

fn unavailable(error: impl std::fmt::Display) -> ExtractError {
    tracing::error!(%error, "the process that reads files failed");
    ExtractError::Unavailable
}

/// Reads a file, and cuts its text into passages.
pub async fn extract(bytes: &[u8], chunking: Chunking) -> Result<Extract, ExtractError> {
    let _reader = READERS.acquire().await.map_err(unavailable)?;
    let program = std::env::current_exe().map_err(unavailable)?;
    let mut command = Command::new(program);
    command.args(["read-file", &chunking.max_characters.to_string(), &chunking.overlap_characters.to_string()]);
    command.env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(unavailable)?;
    let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
        return Err(ExtractError::Unavailable);
    };
    let done = tokio::time::timeout(LIMIT, converse(&mut child, (stdin, stdout), bytes)).await;
    if done.is_err() {
        drop(child.kill().await);
    }
    done.unwrap_or(Err(ExtractError::TooComplex))
}

/// Sends the file, and receives the text and where it is cut.
async fn converse(
    child: &mut Child,
    (mut stdin, stdout): (ChildStdin, ChildStdout),
    bytes: &[u8],
) -> Result<Extract, ExtractError> {
    let send = async move {
        // The process may end before it has read everything; its exit code says why.
        drop(stdin.write_all(bytes).await);
        drop(stdin);
    };
    let ((), received) = tokio::join!(send, receive(stdout));
    let status = child.wait().await.map_err(unavailable)?;
    match status.code() {
        Some(0) => received.map_err(unavailable),
        // It could not limit itself, or not print.
        Some(1) => Err(unavailable("it ended with 1")),
        Some(code) => {
            let refusal = REFUSALS.into_iter().find(|(known, _)| i32::from(*known) == code);
            Err(refusal.map_or(ExtractError::TooComplex, |(_, error)| error))
        }
        // Killed by its limits: SIGXCPU, or SIGABRT when memory ran out.
        None => Err(ExtractError::TooComplex),
    }
}

/// Reads what [`print_passages`] writes. Nothing of it is trusted: the process read a stranger's file.
async fn receive(mut from: impl AsyncRead + Unpin) -> std::io::Result<Extract> {
    let broken = |what: &str| std::io::Error::new(std::io::ErrorKind::InvalidData, what.to_owned());
    let length = usize::try_from(from.read_u32_le().await?).unwrap_or(usize::MAX);
    if length > LONGEST_TEXT {
        return Err(broken("a text that is too long"));
    }
    let mut text = vec![0; length];
    from.read_exact(&mut text).await?;
    let text = String::from_utf8(text).map_err(|_| broken("a text that is not UTF-8"))?;
    let mut ends = Vec::new();
    from.take(8 * MOST_PASSAGES as u64 + 1).read_to_end(&mut ends).await?;
    let mut passages = Vec::with_capacity(ends.len() / 8);
    for pair in ends.chunks(8) {
        let pair: [u8; 8] = pair.try_into().map_err(|_| broken("half a passage"))?;
        let both = u64::from_le_bytes(pair);
        let half = |bits: u64| usize::try_from(bits).map_err(|_| broken("a passage that is not in the text"));
        let (start, end) = (half(both & u64::from(u32::MAX))?, half(both >> 32)?);
        if start >= end || text.get(start..end).is_none() {
            return Err(broken("a passage that is not in the text"));
        }
        passages.push(start..end);
    }
    Ok(Extract { text, passages })
}

/// The work of the process: limits itself, reads a file from its standard input, and prints its text and where it is
/// cut. Answers the exit code.
pub fn print_passages(chunking: Chunking) -> u8 {
    use rustix::process::{Resource, Rlimit, nice, setrlimit};
    let limits = [(Resource::As, MEMORY), (Resource::Cpu, CPU), (Resource::Fsize, 0), (Resource::Nproc, 0)];
    for (resource, limit) in limits {
        // Without its limits it must not read anything.
        if setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).is_err() {
            return 1;
        }
    }
    // Without this it works all the same.
    let _ = nice(NICE);
    let mut bytes = Vec::new();
    if std::io::stdin().lock().read_to_end(&mut bytes).is_err() {
        return 1;
    }
    let printed = text_of(bytes).and_then(|text| {
        let passages = cut(&text, chunking, MOST_PASSAGES).ok_or(ExtractError::TooManyPassages)?;
        Ok(print(&mut std::io::stdout().lock(), &text, &passages))
    });
    match printed {
        Ok(printed) => u8::from(printed.is_err()),
        Err(error) => REFUSALS.into_iter().find(|(_, known)| *known == error).map_or(1, |(code, _)| code),
    }
}

fn print(to: &mut impl Write, text: &str, passages: &[Range<usize>]) -> std::io::Result<()> {
    let number = |n: usize| u32::try_from(n).map(u32::to_le_bytes).map_err(std::io::Error::other);
    to.write_all(&number(text.len())?)?;
    to.write_all(text.as_bytes())?;
    let mut ends = Vec::with_capacity(8 * passages.len());
    for passage in passages {
        ends.extend(number(passage.start)?);
        ends.extend(number(passage.end)?);
    }
    to.write_all(&ends)?;
    to.flush()
}

/// The text of a file, in this process.
fn text_of(bytes: Vec<u8>) -> Result<String, ExtractError> {
    let text = match Kind::of(&bytes) {
        Kind::Text => text::decode(&bytes).ok_or(ExtractError::UnknownKind)?,
        Kind::Pdf => text::tidy(&pdf(&bytes)?),
    };
    drop(bytes);
    if text.trim().is_empty() {
        return Err(ExtractError::Empty);
    }
    if text.len() > LONGEST_TEXT { Err(ExtractError::TooLong) } else { Ok(text) }
}

fn pdf(bytes: &[u8]) -> Result<String, ExtractError> {
    match pdf_extract::extract_text_from_mem(bytes) {
        Ok(text) => Ok(text),
        Err(pdf_extract::OutputError::PdfError(pdf_extract::Error::Decryption(_))) => Err(ExtractError::Encrypted),
        Err(_) if bytes.windows(8).any(|w| w == b"/Encrypt") => Err(ExtractError::Encrypted),
        Err(_) => Err(ExtractError::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(bytes: &[u8]) -> Option<Extract> {
        receive(bytes).await.ok()
    }

    #[tokio::test]
    async fn what_the_process_prints_is_read_and_nothing_that_is_not_in_the_text() {
        let text = "Überall gilt: dreißig Tage.";
        let mut printed = Vec::new();
        print(&mut printed, text, &[0..9, 9..text.len()]).expect("printed");
        let read = received(&printed).await.expect("read");
        assert_eq!(read.passages(), [&text[..9], &text[9..]]);
        for (what, passage) in [("half a character", 1..4), ("beyond the end", 0..99), ("nothing", 3..3)] {
            let mut printed = Vec::new();
            print(&mut printed, text, &[passage]).expect("printed");
            assert_eq!(received(&printed).await, None, "{what}");
        }
        assert_eq!(received(&printed[..printed.len() - 3]).await, None, "half a passage");
        assert_eq!(received(&printed[..20]).await, None, "half a text");
        assert_eq!(received(&u32::MAX.to_le_bytes()).await, None, "a text without an end");
    }

    #[test]
    fn what_is_refused_has_an_exit_code_of_its_own() {
        for (code, error) in &REFUSALS[..6] {
            assert_eq!(REFUSALS.iter().filter(|(_, other)| other == error).map(|(c, _)| c).min(), Some(code));
        }
        assert_eq!(text_of(b" \n".to_vec()), Err(ExtractError::Empty));
        assert_eq!(text_of(vec![1, 2, 3, 4]), Err(ExtractError::UnknownKind));
    }
}
