//! What the sender's domain says of its e-mails. Without these records, many mail servers reject them or call them
//! spam: <https://support.google.com/a/answer/81126>.

use futures::FutureExt;
use futures::future::BoxFuture;

use super::{Check, CheckOutcome, Target};
use crate::providers::dns::{Dns, DnsError};

pub const CHECKS: &[Check] = &[
    Check {
        name: "mail/spf",
        blocks_start: false,
        title: "SPF says who may send as FROM_EMAIL",
        about: "The domain of FROM_EMAIL needs one SPF record (RFC 7208) that names your mail server.",
        needs: None,
        writes: false,
        run: |target| with_domain(target, |dns, domain, _| spf(dns, domain).boxed()).boxed(),
    },
    Check {
        name: "mail/dkim",
        blocks_start: false,
        title: "DKIM's key can be found",
        about: "Your mail server signs e-mails with a key that receivers look up at SELECTOR._domainkey.DOMAIN (RFC 6376). \
                Name the selectors with --dkim-selectors.",
        needs: None,
        writes: false,
        run: |target| with_domain(target, |dns, domain, selectors| dkim(dns, domain, selectors).boxed()).boxed(),
    },
    Check {
        name: "mail/dmarc",
        blocks_start: false,
        title: "DMARC says what happens to forgeries",
        about: "Receivers of many e-mails ask for a DMARC record (RFC 7489) at _dmarc.DOMAIN or above.",
        needs: None,
        writes: false,
        run: |target| with_domain(target, |dns, domain, _| dmarc(dns, domain).boxed()).boxed(),
    },
];

/// Reserved domains, which cannot send e-mails (RFC 2606 and 6761).
const RESERVED: [&str; 9] =
    ["example.com", "example.net", "example.org", "example", "test", "invalid", "localhost", "local", "internal"];

type Look = for<'a> fn(&'a Dns, &'a str, &'a [String]) -> BoxFuture<'a, Result<CheckOutcome, DnsError>>;

async fn with_domain(target: &Target, look: Look) -> CheckOutcome {
    let Some(domain) = target.from_email.rsplit_once('@').map(|(_, domain)| domain.trim_end_matches('>')) else {
        return CheckOutcome::Skipped("FROM_EMAIL is not an e-mail address".into());
    };
    let domain = domain.to_lowercase();
    let within = |of: &str| domain == of || domain.strip_suffix(of).is_some_and(|rest| rest.ends_with('.'));
    if target.dns_server.is_none() && RESERVED.into_iter().any(within) {
        return CheckOutcome::Skipped(format!(
            "{domain} is reserved for examples: set FROM_EMAIL to an address of yours"
        ));
    }
    let found = match Dns::new(target.dns_server) {
        Ok(dns) => look(&dns, &domain, &target.dkim_selectors).await,
        Err(error) => Err(error),
    };
    found.unwrap_or_else(|error| {
        CheckOutcome::warning(error.to_string(), "Check this pod's name servers, or name one with --dns-server")
    })
}

/// Records of one kind: their first word is the version.
fn of_version<'a>(records: &'a [String], version: &str) -> Vec<&'a str> {
    let is =
        |record: &&str| record.split([';', ' ']).next().is_some_and(|word| word.trim().eq_ignore_ascii_case(version));
    records.iter().map(|record| record.trim()).filter(is).collect()
}

/// The value of a tag in a list such as `v=DMARC1; p=none`.
fn tag<'a>(record: &'a str, name: &str) -> Option<&'a str> {
    record.split(';').filter_map(|part| part.split_once('=')).find(|(key, _)| key.trim() == name).map(|(_, v)| v.trim())
}

async fn spf(dns: &Dns, domain: &str) -> Result<CheckOutcome, DnsError> {
    let records = dns.txt(domain).await?;
    Ok(match of_version(&records, "v=spf1")[..] {
        [] => CheckOutcome::warning(
            format!("{domain} has no SPF record"),
            format!("Publish a TXT record at {domain} as your mail provider says, such as v=spf1 include:... ~all"),
        ),
        [record] if record.split_whitespace().any(|term| term == "+all" || term == "all") => CheckOutcome::failed(
            format!("the SPF record of {domain} lets every server send as you: {record}"),
            "End it with ~all or -all",
        ),
        [record] => CheckOutcome::Ok(format!("{domain}: {record}")),
        ref several => CheckOutcome::failed(
            format!("{domain} has {} SPF records, so receivers accept none of them", several.len()),
            "Merge them into one: RFC 7208, section 4.5",
        ),
    })
}

async fn dkim(dns: &Dns, domain: &str, selectors: &[String]) -> Result<CheckOutcome, DnsError> {
    if selectors.is_empty() {
        return Ok(CheckOutcome::Skipped("name your mail provider's selectors with --dkim-selectors".into()));
    }
    for selector in selectors {
        let name = format!("{selector}._domainkey.{domain}");
        let records = dns.txt(&name).await?;
        // The version is optional in a key record, the key is not; an empty one is a key that was revoked.
        match records.iter().find_map(|record| tag(record, "p")) {
            None => {
                let fix =
                    "Publish the record that your mail provider shows for this selector, or correct --dkim-selectors";
                return Ok(CheckOutcome::warning(format!("{name} has no DKIM key"), fix));
            }
            Some("") => {
                return Ok(CheckOutcome::failed(
                    format!("the DKIM key at {name} was revoked"),
                    "Let your mail provider sign with another selector, and name that one",
                ));
            }
            Some(_) => {}
        }
    }
    Ok(CheckOutcome::Ok(selectors.join(", ")))
}

/// Looks at the domain itself and, as receivers do, at those above it.
async fn dmarc(dns: &Dns, domain: &str) -> Result<CheckOutcome, DnsError> {
    let mut at = domain;
    while at.contains('.') {
        let records = dns.txt(&format!("_dmarc.{at}")).await?;
        match of_version(&records, "v=DMARC1")[..] {
            [] => at = at.split_once('.').map_or("", |(_, above)| above),
            [record] if matches!(tag(record, "p"), Some("none" | "quarantine" | "reject")) => {
                return Ok(CheckOutcome::Ok(format!("_dmarc.{at}: {record}")));
            }
            [record] => {
                return Ok(CheckOutcome::failed(
                    format!("the DMARC record at _dmarc.{at} has no valid policy: {record}"),
                    "Give it p=none, p=quarantine or p=reject",
                ));
            }
            ref several => {
                return Ok(CheckOutcome::failed(
                    format!("_dmarc.{at} has {} DMARC records, so receivers ignore them", several.len()),
                    "Leave one",
                ));
            }
        }
    }
    Ok(CheckOutcome::warning(
        format!("_dmarc.{domain} has no DMARC record"),
        format!("Publish a TXT record at _dmarc.{domain}, to begin with: v=DMARC1; p=none; rua=mailto:..."),
    ))
}
