//! E-mail addresses as people type them, and the one way in which they are compared.

use email_address::{EmailAddress, Options};

/// Why an address is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// Not an address of a mailbox on the internet.
    #[error("must be an e-mail address, such as ada@example.com")]
    Malformed,
    /// Characters that cannot be seen, or that no mailbox has.
    #[error("must have one @, and no quotes, spaces or invisible characters")]
    Characters,
    /// The part behind the @ is no domain.
    #[error("must end with a valid domain, such as example.com")]
    Domain,
}

/// The address with its domain in ASCII and lower case: what is stored and written to.
pub fn parse(typed: &str) -> Result<String, EmailError> {
    let typed = typed.trim();
    if typed.len() > 254 {
        return Err(EmailError::Malformed);
    }
    let (local, domain) = typed.rsplit_once('@').ok_or(EmailError::Malformed)?;
    // Letters and digits of every script, and the marks that RFC 5321 allows without quotes. Zero-width characters and
    // controls are neither.
    let odd = |c: char| !c.is_alphanumeric() && !".!#$%&'*+/=?^_`{|}~-".contains(c);
    if local.contains(odd) {
        return Err(EmailError::Characters);
    }
    // IDNA would drop some invisible characters without a word.
    if domain.contains(|c: char| !c.is_alphanumeric() && !"-.".contains(c)) {
        return Err(EmailError::Domain);
    }
    let domain = idna::domain_to_ascii_strict(domain).map_err(|_| EmailError::Domain)?;
    let address = format!("{local}@{domain}");
    let options = Options::default().with_required_tld().without_domain_literal().without_display_text();
    EmailAddress::parse_with_options(&address, options).map_err(|_| EmailError::Malformed)?;
    Ok(address)
}

/// The same for every way to write an address.
pub fn normalize(address: &str) -> String {
    parse(address).unwrap_or_else(|_| address.trim().to_owned()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_taken_and_their_domains_normalized() {
        let cases = [
            ("ada@example.com", "ada@example.com"),
            (" Ada.Lovelace+rag@Example.COM ", "Ada.Lovelace+rag@example.com"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
            ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
            ("jörg@example.com", "jörg@example.com"),
            ("o'brien@example.co.uk", "o'brien@example.co.uk"),
        ];
        for (typed, wanted) in cases {
            assert_eq!(parse(typed).as_deref(), Ok(wanted), "{typed}");
        }
        assert_eq!(normalize("ADA@Bücher.example"), normalize("ada@xn--bcher-kva.example"));
        assert_ne!(
            normalize("ada@example.com"),
            normalize("ad\u{0430}@example.com"),
            "a Cyrillic letter is another one"
        );
    }

    #[test]
    fn everything_else_is_refused() {
        for typed in [
            "",
            "@",
            "ada",
            "ada@",
            "@example.com",
            "ada@localhost",
            "a@b.c,d@e.f",
            "ada lovelace@example.com",
            "\"ada\"@example.com",
            "ada@[127.0.0.1]",
            "Ada <ada@example.com>",
            "ada@@example.com",
            "ada@example..com",
            ".ada@example.com",
            "ada@-example.com",
            "ada\0@example.com",
            "ada@exam\0ple.com",
            "ada\r\nbcc:x@example.com",
            "ada\u{200b}@example.com",
            "ada@exa\u{200b}mple.com",
            "ada\u{202e}@example.com",
            "ada@exam ple.com",
            "ada\u{7f}@example.com",
        ] {
            assert!(parse(typed).is_err(), "{typed:?} was taken as {:?}", parse(typed));
        }
        assert!(parse(&format!("{}@example.com", "a".repeat(65))).is_err(), "a local part has at most 64 characters");
        assert!(parse(&format!("a@{}.com", "b".repeat(250))).is_err());
    }
}
