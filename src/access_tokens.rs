//! Tokens that give access to the owner's own side: of services that report usage, and of admins. There are several while
//! one is replaced.

use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret, SecretString};
use sha2::{Digest, Sha256};
use subtle::{Choice, ConstantTimeEq};

/// The shortest token, in characters.
const SHORTEST: usize = 32;

/// The tokens that are accepted. With none of them, every request is refused.
#[derive(Clone, Debug, Default)]
pub struct AccessTokens(Vec<SecretString>);

/// Why a token cannot be used. It is not shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It could be guessed.
    #[error(
        "number {number} of {setting} is shorter than {SHORTEST} characters and could be guessed: use the output of \
         `openssl rand -hex 32`, for example"
    )]
    Short {
        /// Where the tokens are set.
        setting: &'static str,
        /// Which of them, from 1 on.
        number: usize,
    },
    /// No header can hold it.
    #[error("number {number} of {setting} holds a space or a character beyond visible ASCII: no client can send it")]
    Unsendable {
        /// Where the tokens are set.
        setting: &'static str,
        /// Which of them, from 1 on.
        number: usize,
    },
}

impl AccessTokens {
    /// Checks the tokens of a setting, whose name errors tell. An empty one is none; a Secret that was made from a file ends with a newline.
    pub fn new(setting: &'static str, tokens: Vec<SecretString>) -> Result<Self, TokenError> {
        let tokens = tokens.into_iter().map(|token| SecretString::from(token.expose_secret().trim()));
        let tokens: Vec<_> = tokens.filter(|token| !token.expose_secret().is_empty()).collect();
        for (i, token) in tokens.iter().enumerate() {
            let (token, number) = (token.expose_secret(), i + 1);
            if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
                return Err(TokenError::Unsendable { setting, number });
            }
            if token.len() < SHORTEST {
                return Err(TokenError::Short { setting, number });
            }
        }
        Ok(Self(tokens))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether this is one of them. How long it takes says nothing of how much of it is right: digests are compared,
    /// with each of the tokens.
    pub fn knows(&self, shown: &str) -> bool {
        let digest = |token: &str| Sha256::digest(token.as_bytes());
        let shown = digest(shown);
        let same = |token: &SecretString| digest(token.expose_secret()).as_slice().ct_eq(shown.as_slice());
        self.0.iter().fold(Choice::from(0), |any, token| any | same(token)).into()
    }
}

/// The token of a request. Two are none: a proxy and web could read different ones.
pub fn shown(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().filter(|_| values.next().is_none())?;
    value.to_str().ok()?.strip_prefix("Bearer ")
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn tokens(all: &[&str]) -> Result<AccessTokens, TokenError> {
        AccessTokens::new("TOKEN", all.iter().map(|token| (*token).into()).collect())
    }

    #[test]
    fn a_token_that_could_be_guessed_or_not_be_sent_is_refused_with_its_place_and_not_shown() {
        let (good, other) = ("a".repeat(32), "b".repeat(64));
        let both = tokens(&[&format!("{good}\n"), "", &other]).expect("an empty one is none");
        assert!(both.knows(&good) && both.knows(&other) && !both.is_empty());
        for wrong in ["", "a", &good[1..], &format!("{good}a"), &good.to_uppercase()] {
            assert!(!both.knows(wrong), "{wrong}");
        }
        let none = tokens(&[""]).expect("none");
        assert!(none.is_empty() && !none.knows(""));
        let short = tokens(&[&good, &other[..31]]).expect_err("it is short");
        assert_eq!(short, TokenError::Short { setting: "TOKEN", number: 2 });
        assert!(!short.to_string().contains("bbb"), "{short}");
        assert_eq!(
            tokens(&[&format!("{good} x")]).expect_err("a space"),
            TokenError::Unsendable { setting: "TOKEN", number: 1 }
        );
        assert!(!format!("{both:?}").contains("aaa"));
    }

    #[test]
    fn a_token_comes_in_one_header() {
        let mut headers = HeaderMap::new();
        assert_eq!(shown(&headers), None);
        headers.append("authorization", HeaderValue::from_static("Bearer x"));
        assert_eq!(shown(&headers), Some("x"));
        headers.append("authorization", HeaderValue::from_static("Bearer y"));
        assert_eq!(shown(&headers), None);
    }
}
