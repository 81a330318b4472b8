//! DNS, for what a sender's domain says of its e-mails.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use hickory_resolver::TokioResolver;
use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolverConfig};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::rr::RData;

/// Looks names up.
pub struct Dns(TokioResolver);

/// A name server did not answer, or none is set.
#[derive(Debug, thiserror::Error)]
#[error("DNS: {0}")]
pub struct DnsError(Box<hickory_resolver::net::NetError>);

/// The name servers of `/etc/resolv.conf`, and whether they are asked with EDNS. A line that it cannot read is left
/// out, as the system's own resolver does.
fn system() -> io::Result<(Vec<NameServerConfig>, bool)> {
    let (config, _) = resolv_conf::Config::parse_with_errors(&std::fs::read("/etc/resolv.conf")?);
    let servers = config.nameservers;
    if servers.is_empty() {
        return Err(io::Error::other("/etc/resolv.conf names no server"));
    }
    Ok((servers.iter().map(|ip| NameServerConfig::udp_and_tcp(ip.into())).collect(), config.edns0))
}

impl Dns {
    /// Asks `server`, or the name servers of `/etc/resolv.conf`.
    pub fn new(server: Option<SocketAddr>) -> Result<Self, DnsError> {
        let fail = |e| DnsError(Box::new(e));
        let (servers, edns0) = match server {
            None => system().map_err(|e| fail(e.into()))?,
            Some(server) => {
                let connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()].map(|mut connection| {
                    connection.port = server.port();
                    connection
                });
                (vec![NameServerConfig::new(server.ip(), true, connections.into())], true)
            }
        };
        let config = ResolverConfig::from_name_servers(servers);
        let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
        builder.options_mut().edns0 = edns0;
        builder.options_mut().timeout = Duration::from_secs(2);
        builder.options_mut().attempts = 1;
        Ok(Self(builder.build().map_err(fail)?))
    }

    /// The TXT records of a name. Empty if the name does not exist. The parts of a record are joined, as RFC 7208 (3.3)
    /// and RFC 6376 (3.6.2.2) require.
    pub async fn txt(&self, name: &str) -> Result<Vec<String>, DnsError> {
        // With the dot at the end, no search domain is appended.
        let answer = match self.0.txt_lookup(format!("{name}.")).await {
            Ok(answer) => answer,
            Err(error) if error.is_no_records_found() || error.is_nx_domain() => return Ok(Vec::new()),
            Err(error) => return Err(DnsError(Box::new(error))),
        };
        let text = |data: &RData| match data {
            RData::TXT(txt) => Some(String::from_utf8_lossy(&txt.txt_data.concat()).into_owned()),
            _ => None,
        };
        Ok(answer.answers().iter().filter_map(|record| text(&record.data)).collect())
    }
}
