//! The server of the test issuer: HTTP/1.1 over TLS, one request for a connection, written by hand so that it can be wrong in
//! every way.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

use super::behaviour::{Behaviour, HUGE};
use super::{Request, Shared};

/// Longest request head that is read.
const HEAD_MAX: usize = 16 << 10;

/// Takes connections until the runtime ends.
pub async fn run(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::SeqCst);
        tokio::spawn(connection(stream, Arc::clone(&shared)));
    }
}

/// One connection. Whatever the client does to it, be it that it hangs up or sends nonsense, is no failure of the server's.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let config = shared.authority.config(shared.certificate());
    let Ok(mut stream) = TlsAcceptor::from(config).accept(stream).await else { return };
    let Some(parts) = request(&mut stream).await else { return };
    let request = shared.begin(parts);
    _ = answer(&mut Counted { stream: &mut stream, request: &request }, &request.path, &shared).await;
    _ = stream.shutdown().await;
    *request.ended.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Instant::now());
}

/// The path, Authorization header and body of a request, once it has been read.
async fn request(stream: &mut (impl AsyncRead + Unpin)) -> Option<[String; 3]> {
    let mut head = Vec::new();
    while !is_whole(&head) {
        let mut buffer = [0; 1024];
        let read = stream.read(&mut buffer).await.ok()?;
        if read == 0 || head.len() > HEAD_MAX {
            return None;
        }
        head.extend_from_slice(buffer.get(..read)?);
    }
    let text = String::from_utf8(head).ok()?;
    let (head, body) = text.split_once("\r\n\r\n")?;
    let authorization = header(head, "authorization").unwrap_or_default();
    Some([head.split(' ').nth(1)?.to_owned(), authorization.to_owned(), body.to_owned()])
}

/// Whether this is a whole request: its head, and a body as long as that says.
fn is_whole(read: &[u8]) -> bool {
    let text = String::from_utf8_lossy(read);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = header(head, "content-length").and_then(|length| length.parse::<usize>().ok()).unwrap_or(0);
    body.len() >= length
}

/// The value of a header.
fn header<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(known, _)| known.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

/// A stream that notes how much went into it.
struct Counted<'a, S> {
    stream: &'a mut S,
    request: &'a Request,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Counted<'_, S> {
    async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        // In small pieces, so that what is noted is what left, not what was meant to.
        for piece in bytes.chunks(16 << 10) {
            self.stream.write_all(piece).await?;
            self.stream.flush().await?;
            self.request.sent.fetch_add(piece.len(), Ordering::SeqCst);
        }
        Ok(())
    }

    /// A whole reply.
    async fn reply(&mut self, status: u16, headers: &str, body: &[u8]) -> std::io::Result<()> {
        self.head(status, &format!("{headers}Content-Length: {}\r\n", body.len())).await?;
        self.send(body).await
    }

    async fn head(&mut self, status: u16, headers: &str) -> std::io::Result<()> {
        self.send(format!("HTTP/1.1 {status} Test\r\nConnection: close\r\n{headers}\r\n").as_bytes()).await
    }
}

const JSON: &str = "Content-Type: application/json\r\n";

async fn answer(
    client: &mut Counted<'_, impl AsyncRead + AsyncWrite + Unpin>,
    path: &str,
    shared: &Shared,
) -> std::io::Result<()> {
    let Some(which) = shared.at(path) else {
        return client.reply(404, "", b"").await;
    };
    let document = shared.right(which);
    let text = document.to_string();
    match shared.behaviour(which) {
        Behaviour::Honest => client.reply(200, JSON, text.as_bytes()).await,
        Behaviour::Altered(change) => client.reply(200, JSON, change(document).to_string().as_bytes()).await,
        Behaviour::Text(text) => client.reply(200, JSON, text.as_bytes()).await,
        Behaviour::Status(status, text) => client.reply(status, JSON, text.as_bytes()).await,
        Behaviour::Redirect(target) => client.reply(302, &format!("Location: {target}\r\n"), b"").await,
        Behaviour::Silent => {
            // Until the client hangs up.
            while client.stream.read(&mut [0]).await? > 0 {}
            Ok(())
        }
        Behaviour::Drip => {
            client.head(200, &format!("{JSON}Content-Length: {}\r\n", text.len())).await?;
            for byte in text.as_bytes() {
                tokio::time::sleep(Duration::from_secs(1)).await;
                client.send(&[*byte]).await?;
            }
            Ok(())
        }
        Behaviour::Huge => {
            client.head(200, &format!("{JSON}Content-Length: {HUGE}\r\n")).await?;
            client.send(text.as_bytes()).await?;
            let spaces = vec![b' '; 1 << 20];
            let mut left = HUGE.saturating_sub(text.len());
            while left > 0 {
                let piece = left.min(spaces.len());
                client.send(spaces.get(..piece).unwrap_or_default()).await?;
                left -= piece;
            }
            Ok(())
        }
        Behaviour::Endless => {
            client.head(200, &format!("{JSON}Transfer-Encoding: chunked\r\n")).await?;
            client.send(&chunk(text.as_bytes())).await?;
            let spaces = chunk(&[b' '; 4096]);
            loop {
                client.send(&spaces).await?;
            }
        }
        Behaviour::GzipBomb(bomb) => client.reply(200, &format!("{JSON}Content-Encoding: gzip\r\n"), &bomb).await,
        Behaviour::Close => Ok(()),
    }
}

/// A chunk (RFC 9112 section 7.1).
fn chunk(bytes: &[u8]) -> Vec<u8> {
    let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
    chunk.extend_from_slice(bytes);
    chunk.extend_from_slice(b"\r\n");
    chunk
}
