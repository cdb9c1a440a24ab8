//! An address that nobody must connect to, and that remembers who did.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use super::error::{Context, Result};

/// A port on 127.0.0.1 where every connection is one too many.
#[derive(Debug)]
pub struct Trap {
    address: SocketAddr,
    caught: Arc<Mutex<Vec<String>>>,
    ending: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Trap {
    /// Sets it.
    pub fn set() -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).context("cannot bind a port on 127.0.0.1")?;
        let address = listener.local_addr().context("cannot read a bound address")?;
        let caught: Arc<Mutex<Vec<String>>> = Arc::default();
        let ending = Arc::new(AtomicBool::new(false));
        let (shared, end) = (Arc::clone(&caught), Arc::clone(&ending));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if end.load(Ordering::SeqCst) {
                    return;
                }
                let first = stream.map_or_else(|error| error.to_string(), |stream| first_bytes(&stream));
                shared.lock().unwrap_or_else(PoisonError::into_inner).push(first);
            }
        });
        Ok(Self { address, caught, ending, thread: Some(thread) })
    }

    /// `https://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Who came: for each connection the first bytes that it sent, if it sent any at once.
    ///
    /// A connection of our own goes first, so that all that were opened before this call have been seen.
    pub fn caught(&self) -> Result<Vec<String>> {
        let mut probe = TcpStream::connect(self.address).context("the trap does not listen")?;
        probe.write_all(PROBE).context("the trap does not listen")?;
        loop {
            let mut caught = self.caught.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(at) = caught.iter().position(|first| first.as_bytes() == PROBE) {
                caught.remove(at);
                return Ok(caught.clone());
            }
            drop(caught);
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// What [`Trap::caught`] sends, so that it knows itself.
const PROBE: &[u8] = b"who is there?";

fn first_bytes(mut stream: &TcpStream) -> String {
    let mut buffer = [0; 64];
    _ = stream.set_read_timeout(Some(Duration::from_millis(200)));
    let read = stream.read(&mut buffer).unwrap_or(0);
    String::from_utf8_lossy(buffer.get(..read).unwrap_or_default()).into_owned()
}

impl Drop for Trap {
    fn drop(&mut self) {
        self.ending.store(true, Ordering::SeqCst);
        _ = TcpStream::connect(self.address); // wakes the thread
        if let Some(thread) = self.thread.take() {
            _ = thread.join();
        }
    }
}
