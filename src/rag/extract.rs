//! The text of an uploaded file. A PDF is read by a process of its own, with little memory, little time and no
//! environment: a hostile one ends that process and nothing else.

use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;
use tokio::sync::Semaphore;

use super::text;

/// Memory of that process. It is part of the pod's, so that a pod must have room for [`AT_ONCE`] of them.
const MEMORY: u64 = 192 << 20;
/// PDFs that are read at the same time.
const AT_ONCE: usize = 2;
/// Its processor time, in seconds.
const CPU: u64 = 20;
/// How long it may take in all.
const LIMIT: Duration = Duration::from_secs(30);
/// The longest text of a document, in bytes.
pub const LONGEST_TEXT: usize = 10 << 20;

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ExtractError {
    /// It is neither a PDF nor plain text.
    #[error("This file is neither a PDF nor plain text. Save it as one of them and upload it again.")]
    UnknownKind,
    /// It needs a password.
    #[error("This PDF is protected by a password. Save it without one and upload it again.")]
    Encrypted,
    /// There is nothing in it.
    #[error("This file holds no text. If it is a scan, run it through text recognition (OCR) first.")]
    Empty,
    /// It is broken, or made to do harm.
    #[error("This PDF cannot be read. Open it, print it to a new PDF, and upload that.")]
    Unreadable,
    /// It takes more than a document may.
    #[error("This PDF takes too long or too much memory to read. Split it and upload the parts.")]
    TooComplex,
    /// The text is too long.
    #[error("This document holds more than 10 MB of text. Split it and upload the parts.")]
    TooLong,
    /// The process could not be started: our own fault.
    #[error("The file could not be read at the moment. Please try again.")]
    Unavailable,
}

impl ExtractError {
    /// Names the kind of error; it never changes.
    pub const fn code(self) -> &'static str {
        match self {
            Self::UnknownKind => "unknown_kind",
            Self::Encrypted => "encrypted",
            Self::Empty => "no_text",
            Self::Unreadable => "unreadable",
            Self::TooComplex => "too_complex",
            Self::TooLong => "too_long",
            Self::Unavailable => "unavailable",
        }
    }
}

static READERS: Semaphore = Semaphore::const_new(AT_ONCE);

/// The text of a file.
pub async fn extract(bytes: &[u8]) -> Result<String, ExtractError> {
    let text = match Kind::of(bytes) {
        Kind::Text => text::decode(bytes).ok_or(ExtractError::UnknownKind)?,
        Kind::Pdf => text::tidy(&pdf(bytes).await?),
    };
    if text.trim().is_empty() {
        return Err(ExtractError::Empty);
    }
    if text.len() > LONGEST_TEXT { Err(ExtractError::TooLong) } else { Ok(text) }
}

/// Exit codes of the process; others are a crash.
const ENCRYPTED: i32 = 3;
const UNREADABLE: i32 = 4;

async fn pdf(bytes: &[u8]) -> Result<String, ExtractError> {
    let unavailable = |error: std::io::Error| {
        tracing::error!(%error, "the process that reads PDFs");
        ExtractError::Unavailable
    };
    let _reader = READERS.acquire().await.map_err(|_| ExtractError::Unavailable)?;
    let program = std::env::current_exe().map_err(unavailable)?;
    let mut command = Command::new(program);
    command.arg("pdf-text").env_clear().current_dir("/").kill_on_drop(true);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().map_err(unavailable)?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let work = async {
        let send = async {
            if let Some(mut stdin) = stdin {
                // It may end before it has read everything; its exit code says why.
                drop(stdin.write_all(bytes).await);
            }
        };
        let mut text = Vec::new();
        let receive = async {
            match stdout {
                Some(stdout) => stdout.take(LONGEST_TEXT as u64 + 1).read_to_end(&mut text).await.map(drop),
                None => Ok(()),
            }
        };
        let ((), received) = tokio::join!(send, receive);
        received.map_err(unavailable)?;
        if text.len() > LONGEST_TEXT {
            return Err(ExtractError::TooLong);
        }
        let status = child.wait().await.map_err(unavailable)?;
        match status.code() {
            Some(0) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Some(ENCRYPTED) => Err(ExtractError::Encrypted),
            Some(UNREADABLE | 101) => Err(ExtractError::Unreadable),
            // Killed by its limits: SIGXCPU, or SIGABRT when memory ran out.
            _ => Err(ExtractError::TooComplex),
        }
    };
    let done = tokio::time::timeout(LIMIT, work).await;
    if done.is_err() {
        drop(child.kill().await);
    }
    done.unwrap_or(Err(ExtractError::TooComplex))
}

/// What that process does: limits itself, reads a PDF from its standard input and prints the text. Answers the exit code.
pub fn print_text() -> u8 {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limits = [(Resource::As, MEMORY), (Resource::Cpu, CPU), (Resource::Fsize, 0), (Resource::Nproc, 0)];
    for (resource, limit) in limits {
        // Without its limits it must not read anything.
        if setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) }).is_err() {
            return 1;
        }
    }
    let mut bytes = Vec::new();
    let read = std::io::Read::read_to_end(&mut std::io::stdin().lock(), &mut bytes);
    if read.is_err() {
        return 1;
    }
    let code = match pdf_extract::extract_text_from_mem(&bytes) {
        Ok(text) => {
            return u8::from(std::io::Write::write_all(&mut std::io::stdout().lock(), text.as_bytes()).is_err());
        }
        Err(pdf_extract::OutputError::PdfError(error)) if is_encrypted(&error) => ENCRYPTED,
        Err(_) if bytes.windows(8).any(|w| w == b"/Encrypt") => ENCRYPTED,
        Err(_) => UNREADABLE,
    };
    u8::try_from(code).unwrap_or(1)
}

fn is_encrypted(error: &pdf_extract::Error) -> bool {
    matches!(error, pdf_extract::Error::Decryption(_))
}
