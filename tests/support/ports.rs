//! Free TCP ports on 127.0.0.1.

use std::hash::{BuildHasher, RandomState};
use std::net::TcpListener;

use super::error::{Context, Result};

/// The first of the ports that are picked here.
const FIRST: u16 = 15_000;

/// `N` different ports that nothing listens on at the moment, and that no outgoing connection takes, not even while a server that has to
/// come back on its port is gone.
///
/// Another server may take one before its user binds it: whoever starts a server on such a port must be ready to
/// start it again on another one. See [`is_taken`].
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N); // all at once, else the same one may come twice
    for port in &mut ports {
        let picked = std::iter::repeat_with(pick).take(100).find_map(|port| TcpListener::bind(("127.0.0.1", port)).ok());
        let listener = match picked {
            Some(listener) => listener,
            None => TcpListener::bind(("127.0.0.1", 0)).context("cannot bind a port on 127.0.0.1")?,
        };
        *port = listener.local_addr().context("cannot read a bound address")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Some port below those of outgoing connections; 0, which is any, where it is not known which those are.
fn pick() -> u16 {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let lowest = range.split_whitespace().next().and_then(|lowest| lowest.parse::<u16>().ok()).unwrap_or_default();
    let some = RandomState::new().hash_one(std::process::id());
    let offset = some.checked_rem(u64::from(lowest.saturating_sub(FIRST))).and_then(|offset| u16::try_from(offset).ok());
    offset.map_or(0, |offset| FIRST + offset)
}

/// Whether a server's log says that somebody else had taken its port: the words of Go and of Rust.
pub fn is_taken(log: &str) -> bool {
    let log = log.to_lowercase();
    log.contains("address already in use") || log.contains("address in use")
}
