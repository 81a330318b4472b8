//! What a gateway wants, as its operator writes it into the URL that the gateway asks.
//!
//! `/authz?consume=queries:3` names it in the query. A gateway that appends its client's path and query, as Envoy does,
//! names it in the first segment: `/authz/consume=queries:3/the/path?of=the+client`. What the client wrote is never
//! read.

use url::form_urlencoded;

/// The path that gateways ask.
pub const PATH: &str = "/authz";
/// Queries that one request may count.
const MOST: i64 = 10_000;
/// The settings there are. A first segment that begins with one of them holds settings; another one is the client's.
const NAMES: [&str; 3] = ["consume", "once", "quota_status"];

/// What is done about the plan's queries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is counted.
    Check,
    /// So many are counted.
    Consume(i64),
}

/// The header that names a request, so that it is counted once however often the gateway sends it. Only a header that
/// the gateway overwrites may be named: a client that chose it could send all of its requests as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// `X-Request-Id`.
    RequestId,
    /// `Idempotency-Key`.
    IdempotencyKey,
}

/// The statuses of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Statuses {
    /// 401 and 403 alone: nginx answers 500 for all others.
    Forbidden,
    /// Those of the tenant API, such as 429.
    Own,
}

/// What a gateway wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// What is done about the plan's queries.
    pub mode: Mode,
    /// The header that names a request.
    pub once: Option<Once>,
    /// The statuses of refusals.
    pub statuses: Statuses,
}

impl Settings {
    /// Reads them from a URL. Fails with what is wrong and how to correct it.
    pub fn of(path: &str, query: Option<&str>) -> Result<Self, &'static str> {
        let settings = match path.strip_prefix(PATH).and_then(|rest| rest.strip_prefix('/')) {
            None => query.unwrap_or_default(),
            // The rest is the client's, and so is the query.
            Some(rest) => rest.split('/').next().filter(|first| is_settings(first)).unwrap_or_default(),
        };
        Self::parse(settings)
    }

    fn parse(text: &str) -> Result<Self, &'static str> {
        let (mut mode, mut once, mut statuses) = (None, None, None);
        for (name, value) in form_urlencoded::parse(text.as_bytes()) {
            let again = match &*name {
                "consume" => mode.replace(Mode::Consume(amount(&value)?)).is_some(),
                "once" => once.replace(header_of(&value)?).is_some(),
                "quota_status" => statuses.replace(statuses_of(&value)?).is_some(),
                _ => return Err("The settings are consume, once and quota_status."),
            };
            if again {
                return Err("Name each setting once.");
            }
        }
        if once.is_some() && mode.is_none() {
            return Err("once goes with consume: a check counts nothing.");
        }
        Ok(Self { mode: mode.unwrap_or(Mode::Check), once, statuses: statuses.unwrap_or(Statuses::Forbidden) })
    }
}

fn is_settings(segment: &str) -> bool {
    segment.split_once('=').is_some_and(|(name, _)| NAMES.contains(&name))
}

/// `queries` or `queries:3`.
fn amount(value: &str) -> Result<i64, &'static str> {
    let (unit, amount) = value.split_once(':').unwrap_or((value, "1"));
    let amount = amount.parse().ok().filter(|amount| (1..=MOST).contains(amount) && unit == "queries");
    amount.ok_or("consume is queries, or queries:N with a whole number N from 1 to 10000.")
}

fn header_of(value: &str) -> Result<Once, &'static str> {
    match value {
        "x-request-id" => Ok(Once::RequestId),
        "idempotency-key" => Ok(Once::IdempotencyKey),
        _ => Err("once is x-request-id or idempotency-key."),
    }
}

fn statuses_of(value: &str) -> Result<Statuses, &'static str> {
    match value {
        "403" => Ok(Statuses::Forbidden),
        "429" => Ok(Statuses::Own),
        _ => Err("quota_status is 403 or 429."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(url: &str) -> Result<Settings, &'static str> {
        let (path, query) = url.split_once('?').map_or((url, None), |(path, query)| (path, Some(query)));
        Settings::of(path, query)
    }

    const CHECK: Settings = Settings { mode: Mode::Check, once: None, statuses: Statuses::Forbidden };

    #[test]
    fn settings_are_read_from_the_query_or_from_the_first_segment() {
        let consume = Settings { mode: Mode::Consume(3), ..CHECK };
        let all = Settings { once: Some(Once::RequestId), statuses: Statuses::Own, ..consume };
        for (url, settings) in [
            ("/authz", CHECK),
            ("/authz?", CHECK),
            ("/authz?consume=queries", Settings { mode: Mode::Consume(1), ..CHECK }),
            ("/authz?consume=queries:3", consume),
            ("/authz?consume=queries%3A3", consume),
            ("/authz?consume=queries:3&once=x-request-id&quota_status=429", all),
            ("/authz?quota_status=403", CHECK),
            ("/authz/consume=queries:3&once=x-request-id&quota_status=429/v1/query?stream=true", all),
            ("/authz/consume=queries:3", consume),
            ("/authz/consume=queries:3/", consume),
        ] {
            assert_eq!(of(url), Ok(settings), "{url}");
        }
    }

    /// A gateway that appends its client's URL passes on whatever the client wrote.
    #[test]
    fn a_client_behind_a_gateway_that_appends_its_url_changes_nothing() {
        for url in [
            "/authz/check/search?consume=queries:9999",
            "/authz/check/consume=queries:9999/search",
            "/authz/check/../consume=queries:9999",
            "/authz/check//consume=queries:9999",
            "/authz/?consume=queries:9999&nonsense",
            "/authz/a=b/c?quota_status=429",
        ] {
            assert_eq!(of(url), Ok(CHECK), "{url}");
        }
        let consume = Settings { mode: Mode::Consume(1), ..CHECK };
        for url in ["/authz/consume=queries/?consume=queries:2", "/authz/consume=queries/check/quota_status=429"] {
            assert_eq!(of(url), Ok(consume), "{url}");
        }
        assert!(of("/authz/consume=queries*").is_err(), "a path that does not begin with a slash, as of OPTIONS *");
    }

    #[test]
    fn a_mistake_in_the_url_is_refused_and_never_taken_for_a_check() {
        for url in [
            "/authz?consum=queries",
            "/authz?consume",
            "/authz?consume=tokens",
            "/authz?consume=queries:0",
            "/authz?consume=queries:-1",
            "/authz?consume=queries:1.5",
            "/authz?consume=queries:10001",
            "/authz?consume=queries:99999999999999999999",
            "/authz?consume=queries:",
            "/authz?consume=queries&consume=queries",
            "/authz?consume=queries&once=x-tenant-id",
            "/authz?once=x-request-id",
            "/authz?quota_status=500",
            "/authz/consume=queries&nonsense/search",
        ] {
            assert!(of(url).is_err(), "{url}");
        }
    }
}
