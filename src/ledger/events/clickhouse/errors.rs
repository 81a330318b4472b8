//! What `ClickHouse` refuses, in words with a fix.

use clickhouse::error::Error;

use crate::ledger::events::EventsError;

/// The number of the server's error: `Code: 516. DB::Exception: ...`.
fn code(words: &str) -> Option<u32> {
    let (_, rest) = words.split_once("Code: ")?;
    let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

/// The first line of what the server says, without its version and stack.
fn short(words: &str) -> String {
    let line = words.lines().next().unwrap_or_default();
    let line = line.split(" (version ").next().unwrap_or_default();
    line.chars().take(300).collect()
}

impl From<Error> for EventsError {
    fn from(error: Error) -> Self {
        let words = match &error {
            Error::BadResponse(words) => words.clone(),
            // The client's own words say only that the network failed.
            Error::Network(cause) => return Self::Away(causes(cause.as_ref())),
            Error::TimedOut => return Self::Away("it took too long".into()),
            other => return Self::Failed(other.to_string()),
        };
        let said = short(&words);
        // https://github.com/ClickHouse/ClickHouse/blob/master/src/Common/ErrorCodes.cpp
        match code(&words) {
            Some(81) => Self::NoDatabase(said),
            // An unknown user, a wrong password, no right, a server or user that only reads, another form of login.
            Some(192 | 193 | 194 | 497 | 516 | 164 | 291) => Self::Refused(said),
            // No space, a quota of space, too many parts of a table.
            Some(243 | 382 | 252) => Self::Full(said),
            // Too many statements, no memory, too slow, a network or a socket, a table that is read only.
            Some(202 | 241 | 159 | 209 | 210 | 242) => Self::Away(said),
            _ => Self::Failed(said),
        }
    }
}

fn causes(error: &dyn std::error::Error) -> String {
    let mut said = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        said = format!("{said}: {cause}");
        source = cause.source();
    }
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_server_refuses_has_a_kind_and_one_line() {
        let refused = |words: &str| EventsError::from(Error::BadResponse(words.into()));
        let said =
            "Code: 516. DB::Exception: acme: Authentication failed. (AUTHENTICATION_FAILED) (version 26.9.2.1)\nstack";
        let error = refused(said);
        assert!(matches!(error, EventsError::Refused(_)), "{error}");
        assert!(!error.to_string().contains("version") && !error.to_string().contains('\n'), "{error}");
        assert!(matches!(refused("Code: 81. DB::Exception: Database x does not exist."), EventsError::NoDatabase(_)));
        assert!(matches!(refused("Code: 243. DB::Exception: Cannot reserve 1.00 MiB"), EventsError::Full(_)));
        assert!(matches!(refused("Code: 62. DB::Exception: Syntax error"), EventsError::Failed(_)));
        assert!(matches!(refused("502 Bad Gateway"), EventsError::Failed(_)));
    }
}
