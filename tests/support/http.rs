//! The least HTTP that asking a server for its health takes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use super::error::{Context, Error, Result};

/// An answer to a GET.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The body as it came; HTTP/1.0 knows no chunks.
    pub body: String,
}

/// `GET path` over plain HTTP, answered within five seconds.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    const LIMIT: Duration = Duration::from_secs(5);
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, LIMIT)?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(answer)
    };
    let answer = exchange().context(format!("GET http://{address}{path}"))?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    match (status, answer.split_once("\r\n\r\n")) {
        (Some(status), Some((_, body))) => Ok(Answer { status, body: body.to_owned() }),
        _ => Err(Error::new(format!("GET http://{address}{path}: not an HTTP answer: {answer:?}"))),
    }
}
