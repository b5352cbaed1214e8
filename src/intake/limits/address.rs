//! Where a request comes from: the peer's address, or what a proxy of ours says of it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use axum::{
    extract::{ConnectInfo, FromRequestParts},
    http::{Extensions, HeaderMap, request::Parts},
};
use ipnet::IpNet;

use super::super::Intake;

/// Where a request comes from. IPv6 counts by its /64, the smallest network that is given to a customer (RFC 6177).
pub(in super::super) struct ClientAddress(pub(in super::super) IpAddr);

impl FromRequestParts<Intake> for ClientAddress {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, intake: &Intake) -> Result<Self, Self::Rejection> {
        Ok(Self(client_address(&intake.proxies, &parts.headers, &parts.extensions)))
    }
}

/// Where the request with these headers comes from.
pub(super) fn client_address(proxies: &Proxies, headers: &HeaderMap, extensions: &Extensions) -> IpAddr {
    let peer = extensions.get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |info| info.0.ip());
    let forwarded = if proxies.contain(peer) { forwarded_for(headers, proxies) } else { None };
    network_of(forwarded.unwrap_or(peer))
}

/// The networks of our own proxies, `intake.proxies`.
#[derive(Debug, Default)]
pub(in super::super) struct Proxies(Vec<IpNet>);

impl Proxies {
    /// Of networks as the settings have them; they have been checked there.
    pub(in super::super) fn new(networks: &[String]) -> Self {
        Self(networks.iter().filter_map(|network| network.parse().ok()).collect())
    }

    /// Whether this is one of them.
    pub(in super::super) fn contain(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The last address of `X-Forwarded-For` that is no proxy of ours: the one that our outermost proxy saw. Those before it
/// are the client's word.
pub(in super::super) fn forwarded_for(headers: &HeaderMap, proxies: &Proxies) -> Option<IpAddr> {
    let mut hops =
        headers.get_all("x-forwarded-for").iter().rev().flat_map(|line| line.to_str().unwrap_or("").rsplit(','));
    // A hop that is no address hides whatever stands before it.
    hops.find_map(|hop| match hop.trim().parse() {
        Ok(address) if proxies.contain(address) => None,
        hop => Some(hop.ok()),
    })?
}

pub(in super::super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from(u128::from(v6) & !u128::from(u64::MAX))),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderName;

    use super::*;

    fn from(peer: &str, lines: &[&str]) -> String {
        let proxies = Proxies::new(&["10.0.0.0/8".to_owned(), "2001:db8:ff::/48".to_owned()]);
        let (mut headers, mut extensions) = (HeaderMap::new(), Extensions::new());
        headers.extend(lines.iter().map(|line| (HeaderName::from_static("x-forwarded-for"), line.parse().unwrap())));
        extensions.insert(ConnectInfo(SocketAddr::new(peer.parse().unwrap(), 1)));
        client_address(&proxies, &headers, &extensions).to_string()
    }

    #[test]
    fn only_the_word_of_our_own_proxies_counts() {
        assert_eq!(from("192.0.2.1", &["1.1.1.1"]), "192.0.2.1", "no proxy of ours");
        for peer in ["10.1.2.3", "::ffff:10.1.2.3", "2001:db8:ff::1"] {
            assert_eq!(from(peer, &["1.1.1.1, 2.2.2.2", "3.3.3.3,192.0.2.7"]), "192.0.2.7", "{peer}");
            assert_eq!(from(peer, &["1.1.1.1, 192.0.2.7, 10.9.9.9", "10.0.0.1"]), "192.0.2.7", "through more of them");
            assert_eq!(from(peer, &["2001:db8:1:2::3"]), "2001:db8:1:2::");
        }
        for nothing in [&[][..], &[""], &["1.1.1.1, unknown"], &["10.0.0.2"], &["1.1.1.1, x, 10.0.0.2"]] {
            assert_eq!(from("10.1.2.3", nothing), "10.1.2.3", "{nothing:?}");
        }
    }

    #[test]
    fn an_ipv6_network_is_one_address() {
        let networks: Vec<_> = ["2001:db8:1:2::3", "2001:db8:1:2:ffff::", "::ffff:192.0.2.1"]
            .map(|text| network_of(text.parse().unwrap()).to_string())
            .into();
        assert_eq!(networks, ["2001:db8:1:2::", "2001:db8:1:2::", "192.0.2.1"]);
    }
}
