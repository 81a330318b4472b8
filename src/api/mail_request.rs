//! E-mails that a customer asked for on a page. Web writes the request into an annotation; the controller sends the
//! e-mail.

use std::fmt;
use std::str::FromStr;

use strum::{EnumIter, EnumString, IntoStaticStr};

use super::Timestamp;

/// What kind of link a customer asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, EnumIter, EnumString, IntoStaticStr)]
#[strum(serialize_all = "kebab-case")]
pub enum LinkKind {
    /// Confirms the e-mail address.
    VerifyEmail,
    /// Logs in without a password.
    LoginLink,
    /// Sets a new password.
    PasswordReset,
    /// Sets the first password of a customer whom an admin invited.
    Invitation,
}

impl LinkKind {
    /// The name in annotations, Message-IDs and templates.
    pub fn name(self) -> &'static str {
        self.into()
    }

    /// How long such a link is good, in seconds.
    pub const fn life(self) -> i64 {
        match self {
            Self::VerifyEmail => 24 * 3600,
            Self::LoginLink => 15 * 60,
            Self::PasswordReset => 60 * 60,
            Self::Invitation => 7 * 24 * 3600,
        }
    }

    /// The page that a link of this kind opens.
    pub const fn page(self) -> &'static str {
        match self {
            Self::VerifyEmail => "/verify-email",
            Self::LoginLink => "/login/link",
            Self::PasswordReset => "/password/new",
            Self::Invitation => "/invitation",
        }
    }
}

/// A request for an e-mail with a link, as `login-link.1764108000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct MailRequest {
    /// What kind of link.
    pub kind: LinkKind,
    /// When it was asked for. The life of the link begins here.
    pub at: Timestamp,
}

impl MailRequest {
    /// Whether the link would still be good.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now.since(self.at) < self.kind.life()
    }
}

impl fmt::Display for MailRequest {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}.{}", self.kind.name(), self.at.as_second())
    }
}

/// The requests in an annotation, one of each kind at most. Leaves out an entry that is not a request.
pub fn mail_requests(annotation: &str) -> Vec<MailRequest> {
    annotation.split(',').filter_map(|text| text.parse().ok()).collect()
}

/// Not a request that web writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a request for an e-mail")]
pub struct NotARequest;

impl FromStr for MailRequest {
    type Err = NotARequest;

    fn from_str(text: &str) -> Result<Self, NotARequest> {
        let (name, at) = text.split_once('.').ok_or(NotARequest)?;
        let kind = name.parse().map_err(|_| NotARequest)?;
        let at = at.parse().ok().filter(|at| (0..253_402_300_800).contains(at)).ok_or(NotARequest)?;
        Ok(Self { kind, at: Timestamp::from_second(at) })
    }
}

#[cfg(test)]
mod tests {
    use strum::IntoEnumIterator;

    use super::*;

    #[test]
    fn a_request_is_read_as_it_was_written() {
        for kind in LinkKind::iter() {
            let request = MailRequest { kind, at: Timestamp::from_second(1_764_108_000) };
            assert_eq!(request.to_string().parse(), Ok(request));
            let at = |seconds: i64| request.at.plus(seconds);
            assert!(request.is_open(at(kind.life() - 1)) && !request.is_open(at(kind.life())));
        }
        for odd in
            ["", "login-link", "login-link.", "login-link.x", "other.1", "login-link.-1", "login-link.99999999999999"]
        {
            assert_eq!(odd.parse::<MailRequest>(), Err(NotARequest), "{odd}");
        }
    }
}
