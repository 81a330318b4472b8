//! A client of `clickhouse://user:password@host:8123/database`, with TLS by `clickhouses://` or `?secure=true`.

use std::time::Duration;

use clickhouse::Client;
use hyper_util::client::legacy::Client as HyperClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use percent_encoding::percent_decode_str;
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::ledger::events::EventsError;
use crate::ledger::store::postgres::tls;

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(5);
/// After which an idle connection is not used again. `ClickHouse` closes it after 3 seconds by default.
const IDLE: Duration = Duration::from_secs(2);

/// The ports of `ClickHouse` for HTTP, without TLS and with it.
const PORTS: [u16; 2] = [8123, 8443];

/// What a URL says.
struct Parts {
    base: String,
    user: Option<String>,
    password: Option<String>,
    database: String,
    secure: bool,
}

/// The client. Its errors repeat nothing of the URL, which holds the password.
pub fn client(url: &SecretString) -> Result<Client, EventsError> {
    let Parts { base, user, password, database, secure } = parts(url.expose_secret())?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_connect_timeout(Some(CONNECT));
    http.set_keepalive(Some(Duration::from_mins(1)));
    let mut pool = HyperClient::builder(TokioExecutor::new());
    pool.pool_idle_timeout(IDLE);
    let client = if secure {
        let https = hyper_rustls::HttpsConnectorBuilder::new().with_tls_config(tls());
        Client::with_http_client(pool.build(https.https_only().enable_http1().wrap_connector(http)))
    } else {
        Client::with_http_client(pool.build(http))
    };
    let client = client.with_url(base).with_database(database);
    let client = user.into_iter().fold(client, Client::with_user);
    Ok(password.into_iter().fold(client, Client::with_password))
}

fn parts(url: &str) -> Result<Parts, EventsError> {
    let refused = |why: &str| EventsError::Url(why.into());
    let url = Url::parse(url).map_err(|error| EventsError::Url(error.to_string()))?;
    let mut secure = match url.scheme() {
        "clickhouse" => false,
        "clickhouses" => true,
        _ => return Err(refused("its scheme is not clickhouse")),
    };
    for (name, value) in url.query_pairs() {
        match (&*name, &*value) {
            ("secure", "true" | "1") => secure = true,
            ("secure", "false" | "0") => secure = false,
            _ => return Err(refused("of what follows the question mark, only secure=true is known")),
        }
    }
    let host = url.host_str().filter(|host| !host.is_empty()).ok_or_else(|| refused("it names no host"))?;
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8().map_err(|_| refused("it is not UTF-8"))?;
        Ok::<_, EventsError>(Some(text.into_owned()).filter(|text| !text.is_empty()))
    };
    let database = decoded(url.path().trim_matches('/'))?.ok_or_else(|| refused("it names no database"))?;
    let (user, password) = (decoded(url.username())?, decoded(url.password().unwrap_or_default())?);
    let port = url.port().unwrap_or(PORTS[usize::from(secure)]);
    let scheme = if secure { "https" } else { "http" };
    Ok(Parts { base: format!("{scheme}://{host}:{port}"), user, password, database, secure })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_where_and_as_whom() {
        let said = |url: &str| {
            let parts = parts(url).expect(url);
            (parts.base, parts.user.unwrap_or_default(), parts.password.unwrap_or_default(), parts.database)
        };
        let wanted = |base: &str, user: &str, password: &str, database: &str| {
            (base.to_owned(), user.to_owned(), password.to_owned(), database.to_owned())
        };
        assert_eq!(said("clickhouse://host/events"), wanted("http://host:8123", "", "", "events"));
        assert_eq!(
            said("clickhouses://u:p%40ss@h:9440/e"),
            wanted("https://h:9440", "u", "p@ss", "e"),
            "a password is percent-encoded"
        );
        assert_eq!(said("clickhouse://u@[::1]/e?secure=true"), wanted("https://[::1]:8443", "u", "", "e"));
    }

    #[test]
    fn what_is_no_url_is_refused_without_its_password() {
        for url in [
            "postgres://u:hunter2@h/d",
            "clickhouse://u:hunter2@h",
            "clickhouse://u:hunter2@h/d?compress=true",
            "clickhouse:u:hunter2",
            "clickhouse://u:hunter2@h:port/d",
        ] {
            let said = parts(url).err().expect(url).to_string();
            assert!(said.contains("clickhouse://user:password@host") && !said.contains("hunter2"), "{said}");
        }
    }
}
