//! Listening on every address of a pod. In: an address. Out: a bound listener. Left to others: what is served on it.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::net::TcpListener;

/// Listens on this address. The unspecified IPv6 address means both families, as Linux has it (`net.ipv6.bindv6only` is 0); where the node has no IPv6, it
/// means IPv4 alone.
///
/// # Errors
/// When the port is taken, or not this process's to have.
pub async fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(_) if address.is_ipv6() && address.ip().is_unspecified() => TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await,
        bound => bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv6Addr};
    use tokio::net::TcpStream;

    #[tokio::test]
    async fn calls_over_either_family_are_taken() {
        let listener = bind(SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0))).await.unwrap();
        let bound = listener.local_addr().unwrap();
        let mut families = vec![IpAddr::from(Ipv4Addr::LOCALHOST)];
        if bound.is_ipv6() {
            families.push(IpAddr::from(Ipv6Addr::LOCALHOST));
        }
        for family in families {
            let (accepted, connected) = tokio::join!(listener.accept(), TcpStream::connect((family, bound.port())));
            assert!(accepted.is_ok() && connected.is_ok(), "{family}");
        }
    }

    #[tokio::test]
    async fn a_taken_port_is_an_error_and_not_another_address() {
        let first = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await.unwrap();
        assert!(bind(first.local_addr().unwrap()).await.is_err());
    }
}
