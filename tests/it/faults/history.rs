//! What clients saw, as lines of JSON for who checks it.

use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds since the epoch, on the clock of this process, which no scenario shifts.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    now.as_millis().try_into().expect("before the year 500 million")
}

/// Where all clients write.
pub struct History {
    file: Mutex<BufWriter<File>>,
    tokens: AtomicUsize,
}

impl History {
    pub fn new(directory: &Path) -> Self {
        let file = File::create(directory.join("history.jsonl")).expect("a file");
        Self { file: Mutex::new(BufWriter::new(file)), tokens: AtomicUsize::new(0) }
    }

    /// Notes an event.
    pub fn note(&self, kind: &str, mut event: Value) {
        event["kind"] = json!(kind);
        let mut file = self.file.lock().expect("a lock");
        writeln!(file, "{event}").expect("written");
        if kind == "token" {
            self.tokens.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many tokens have arrived.
    pub fn tokens(&self) -> usize {
        self.tokens.load(Ordering::Relaxed)
    }

    /// Everything is in the file.
    pub fn flush(&self) {
        self.file.lock().expect("a lock").flush().expect("written");
    }
}
