//! Whose an address is.

use std::net::{IpAddr, Ipv6Addr};

/// What counts as one client: an IPv6 client has a whole /64 to choose its address from.
pub fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
    }
}

/// What counts as one client where it holds room that strangers share, such as connections and bodies on their way: a
/// /56 of IPv6, which is what a provider should give a home, so 256 of the networks above.
/// <https://www.ripe.net/publications/docs/ripe-690/>
pub fn site(client: IpAddr) -> IpAddr {
    match network(client) {
        IpAddr::V4(v4) => v4.into(),
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d & 0xff00, 0, 0, 0, 0).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_networks_of_one_site_count_as_one_where_strangers_share_room() {
        let of = |ip: &str| site(ip.parse().expect("an address"));
        assert_eq!(of("2001:db8:1:2200::1"), of("2001:db8:1:22ff::2"));
        assert_ne!(of("2001:db8:1:2200::1"), of("2001:db8:1:2300::1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"), "one address in two notations");
    }
}
