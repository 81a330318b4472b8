//! The key that the operator's parts show the ledger.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::header::AUTHORIZATION;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use subtle::ConstantTimeEq;

use super::Shared;
use super::answers::ServiceProblem;

/// 32 bytes that only the operator's parts know.
#[derive(Clone)]
pub struct LedgerKey([u8; 32]);

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read.
    #[error("cannot read the ledger's key from {path}: {error}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// The file holds something else.
    #[error("{0} must hold the 32 bytes of the ledger's key, or 64 lower-case hexadecimal digits")]
    NoKey(PathBuf),
}

impl From<[u8; 32]> for LedgerKey {
    fn from(key: [u8; 32]) -> Self {
        Self(key)
    }
}

impl LedgerKey {
    /// Reads the key from a file: 32 bytes, as a Secret is mounted, or 64 lower-case hexadecimal digits.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let bytes = std::fs::read(path).map_err(|error| KeyError::Unreadable { path: path.to_owned(), error })?;
        let digits = || {
            // Clients send the digits, so there is one way to write them.
            let digits = bytes.trim_ascii();
            let decoded = hex::decode(digits).ok().filter(|decoded| hex::encode(decoded).as_bytes() == digits);
            decoded.and_then(|decoded| decoded.try_into().ok())
        };
        let key = <[u8; 32]>::try_from(bytes.as_slice()).ok().or_else(digits);
        key.map(Self).ok_or_else(|| KeyError::NoKey(path.to_owned()))
    }

    /// The key's hexadecimal digits, as a file may hold them.
    pub fn digits(&self) -> String {
        hex::encode(self.0)
    }

    /// What a client sends: `Bearer` and the digits.
    pub fn authorization(&self) -> String {
        format!("Bearer {}", self.digits())
    }
}

impl std::fmt::Debug for LedgerKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LedgerKey")
    }
}

/// Lets a request through that shows the key.
pub async fn check(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    let shown = request.headers().get(AUTHORIZATION).map_or(&[][..], |value| value.as_bytes());
    if bool::from(shown.ct_eq(shared.key.authorization().as_bytes())) {
        next.run(request).await
    } else {
        ServiceProblem::unauthorized().into_response()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_32_bytes_or_their_digits() {
        let folder = std::env::temp_dir().join(format!("ledger-key-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let read = |bytes: &[u8]| {
            let path = folder.join("key");
            std::fs::write(&path, bytes).expect("a file");
            LedgerKey::read(&path)
        };
        let raw = read(&[7; 32]).expect("a key");
        assert_eq!(raw.authorization(), format!("Bearer {}", "07".repeat(32)));
        assert_eq!(read(format!("{}\n", "07".repeat(32)).as_bytes()).expect("a key").0, raw.0);
        for wrong in [&b""[..], &[7; 31], &[7; 33], "zz".repeat(32).as_bytes(), "AB".repeat(32).as_bytes()] {
            assert!(matches!(read(wrong), Err(KeyError::NoKey(_))), "{wrong:?}");
        }
        std::fs::remove_dir_all(&folder).expect("removed");
        assert!(matches!(LedgerKey::read(&folder), Err(KeyError::Unreadable { .. })));
        assert_eq!(format!("{raw:?}"), "LedgerKey");
    }
}
