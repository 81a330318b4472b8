//! Wrong admin tokens are slowed down: those of one address, and those of all together, so that many addresses guess no
//! faster. The right one never waits, and sessions go on.

use std::net::IpAddr;
use std::time::Duration;

use crate::serve::client::network;
use crate::web::serving::limits::Allowance;

/// The name under which all addresses count.
const ALL: &str = "all";

/// How many wrong tokens came lately.
#[derive(Debug)]
pub struct Attempts {
    by_address: Allowance,
    all: Allowance,
}

impl Default for Attempts {
    fn default() -> Self {
        Self { by_address: Allowance::of_wrong_tokens(), all: Allowance::of_all_wrong_tokens() }
    }
}

impl Attempts {
    /// Whether a wrong token of this address is answered; the wait where it is not.
    pub fn check(&self, client: IpAddr) -> Result<(), Duration> {
        self.by_address.check(&network(client).to_string()).and_then(|()| self.all.check(ALL))
    }

    /// A wrong token came from this address.
    pub fn note(&self, client: IpAddr) {
        self.by_address.note(&network(client).to_string());
        self.all.note(ALL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        [192, 0, 2, last].into()
    }

    #[test]
    fn an_address_that_guesses_waits_and_others_do_not() {
        let attempts = Attempts::default();
        for _ in 0..10 {
            assert_eq!(attempts.check(address(1)), Ok(()));
            attempts.note(address(1));
        }
        let wait = attempts.check(address(1)).expect_err("too many");
        assert!(wait > Duration::ZERO && wait <= Duration::from_secs(3), "{wait:?}");
        assert_eq!(attempts.check(address(2)), Ok(()));
    }

    #[test]
    fn many_addresses_guess_no_faster_than_all_together_may() {
        let attempts = Attempts::default();
        for i in 0..100 {
            assert_eq!(attempts.check(address(i)), Ok(()));
            attempts.note(address(i));
        }
        assert!(attempts.check(address(200)).is_err());
    }
}
