//! Free TCP ports on 127.0.0.1.

use std::net::TcpListener;

use super::error::{Context, Result};

/// `N` different ports that nothing listens on at the moment.
///
/// Another process may take one before its user binds it: whoever starts a server on such a port must be ready to
/// start it again on another one. See [`is_taken`].
pub fn free_ports<const N: usize>() -> Result<[u16; N]> {
    let mut ports = [0; N];
    let mut held = Vec::with_capacity(N); // all at once, else the same one may come twice
    for port in &mut ports {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot bind a port on 127.0.0.1")?;
        *port = listener.local_addr().context("cannot read a bound address")?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// Whether a server's log says that somebody else had taken its port: the words of Go and of Rust.
pub fn is_taken(log: &str) -> bool {
    let log = log.to_lowercase();
    log.contains("address already in use") || log.contains("address in use")
}
