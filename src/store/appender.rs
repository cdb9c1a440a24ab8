//! Appends records to the log of this process, whatever happens to the database meanwhile: none twice, and none lost of which somebody
//! was told that it is there.

use super::connection::Connection;
use super::packed::Packer;
use super::writing::Predecessor;
use crate::audit::ledger::LogId;
use crate::audit::ledger::log::{Batch, Head, Log};
use crate::audit::ledger::opening::{Break, Discontinuity, Opening, opened};
use k8s_openapi::jiff::Timestamp;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// How often a log that does not grow is touched, so that nobody takes its writer for dead.
const TOUCH_EVERY: Duration = Duration::from_secs(10);
/// How often an append is tried on one connection when others are in the way.
const ATTEMPTS: usize = 4;

/// A record that waits to be appended.
#[derive(Debug)]
pub(crate) struct Entry {
    /// The members of its JSON object from the event on, with the closing brace.
    pub(crate) members: Vec<u8>,
    /// Told when it is in the ledger. Dropped if nobody knows.
    pub(crate) written: oneshot::Sender<()>,
}

/// A log that is ours.
#[derive(Debug)]
struct Own {
    log: Log,
    begun: Instant,
    touched: Instant,
}

/// An append of which it is not known whether it was done. It is sent again as it is: the tree tells one that was from one that was not.
#[derive(Debug)]
struct Pending {
    batch: Batch,
    /// Its records as they are stored.
    packed: Vec<u8>,
    entries: Vec<Entry>,
}

/// Appends.
#[derive(Debug)]
pub(super) struct Appender {
    opening: Opening,
    own: Option<Own>,
    pending: Option<Pending>,
    packer: Packer,
    /// Logs of ours that may be there and are not sealed, as far as we know.
    left: Vec<String>,
    /// Why the next log will be begun.
    reason: &'static str,
    closed: bool,
}

impl Appender {
    pub(super) fn new(opening: Opening) -> Self {
        let packer = Packer::new();
        Self { opening, own: None, pending: None, packer, left: Vec::new(), reason: "started", closed: false }
    }

    /// Whether an append waits to be settled.
    pub(super) const fn is_unsettled(&self) -> bool {
        self.pending.is_some()
    }

    /// Appends `entries` and settles what came before. After an error nothing is known, and it is all to be settled on the next connection.
    pub(super) async fn append(&mut self, connection: &mut Connection, mut entries: Vec<Entry>) -> sqlx::Result<()> {
        self.settle(connection, &mut entries).await?;
        for _ in 0..ATTEMPTS {
            // Who gave up before anything was written has done nothing that wants a record.
            entries.retain(|entry| !entry.written.is_closed());
            if entries.is_empty() || self.closed {
                return Ok(());
            }
            if !self.opening.copy.has_room() {
                tracing::error!("the audit log is not taken away fast enough: nothing is issued until it is");
                return Ok(());
            }
            if self.own.as_ref().is_none_or(|own| self.is_full(own)) {
                self.begin(connection).await?;
            }
            let Some(own) = &self.own else { continue };
            let batch = own.log.batch(entries.iter().map(|entry| entry.members.as_slice()), self.opening.clock.now());
            let packed = self.packer.pack(&batch.body);
            self.pending = Some(Pending { batch, packed, entries: std::mem::take(&mut entries) });
            self.try_pending(connection).await?;
            self.settle(connection, &mut entries).await?;
        }
        Err(sqlx::Error::Protocol("the ledger's log is sealed again and again".to_owned()))
    }

    /// Looks after the log when nothing else is to be done: it is touched, and ends when it is old or when there are logs that want a
    /// successor.
    pub(super) async fn look_after(&mut self, connection: &mut Connection) -> sqlx::Result<()> {
        self.settle(connection, &mut Vec::new()).await?;
        let Some(own) = &mut self.own else {
            return if self.closed { Ok(()) } else { self.begin(connection).await };
        };
        if own.touched.elapsed() < TOUCH_EVERY {
            return Ok(());
        }
        let (is_ours, are_left) = connection.touch(own.log.id()).await?;
        own.touched = Instant::now();
        if !is_ours {
            self.lose();
        }
        match &self.own {
            Some(own) if !are_left && !self.is_full(own) => Ok(()),
            _ => self.begin(connection).await,
        }
    }

    /// Seals the log, and takes no more records. Returns how it ended.
    pub(super) async fn close(&mut self, connection: &mut Connection) -> sqlx::Result<Option<Head>> {
        self.settle(connection, &mut Vec::new()).await?;
        self.closed = true;
        let Some(own) = self.own.take() else { return Ok(None) };
        let head = own.log.batch([], self.opening.clock.now()).head;
        self.opening.heads.lost();
        Ok(connection.seal(&head).await?.then_some(head))
    }

    fn is_full(&self, own: &Own) -> bool {
        own.log.size() >= self.opening.limits.records || own.begun.elapsed() >= self.opening.limits.age
    }

    /// Tries the append that is pending once.
    async fn try_pending(&mut self, connection: &mut Connection) -> sqlx::Result<()> {
        if let Some(pending) = &self.pending
            && connection.append(&pending.batch, &pending.packed).await?
        {
            self.done();
        }
        Ok(())
    }

    /// Finds out what became of the append that is pending, and does it if it was not done. If the log is not ours any more, its records
    /// come before `entries` again.
    async fn settle(&mut self, connection: &mut Connection, entries: &mut Vec<Entry>) -> sqlx::Result<()> {
        for _ in 0..ATTEMPTS {
            let Some(pending) = &self.pending else { return Ok(()) };
            let head = &pending.batch.head;
            let state = connection.log_state(&head.log).await?;
            let is = |size: u64| state.as_ref().is_some_and(|(stored, ..)| u64::try_from(*stored) == Ok(size));
            if is(head.size) && state.as_ref().is_some_and(|(_, root, _)| *root == head.root) {
                self.done();
            } else if is(pending.batch.first) && state.as_ref().is_some_and(|(.., sealed)| !sealed) {
                self.try_pending(connection).await?;
            } else {
                let is_adopted = state.as_ref().is_some_and(|(.., sealed)| *sealed);
                let state = state.map(|(size, root, _)| (size, root));
                let Some(Pending { entries: again, .. }) = self.pending.take() else { return Ok(()) };
                if is_adopted {
                    entries.splice(0..0, again);
                } else {
                    // What was consumed may be forgotten too: what is under way was decided on nothing, and is not answered.
                    self.report(state);
                }
                self.lose();
            }
        }
        match self.pending {
            None => Ok(()),
            Some(_) => Err(sqlx::Error::Protocol("the outcome of an append cannot be found out".to_owned())),
        }
    }

    /// The append that was pending is done.
    fn done(&mut self) {
        let Some(Pending { batch, entries, .. }) = self.pending.take() else { return };
        if let Some(own) = &mut self.own {
            own.log.take_in(&batch);
            own.touched = Instant::now();
        }
        self.opening.heads.grown(batch.head);
        self.copy(batch.body);
        for entry in entries {
            // Who waited may have given up; the record stands.
            _ = entry.written.send(());
        }
    }

    /// Passes lines on to the copy.
    fn copy(&self, text: Vec<u8>) {
        if !self.opening.copy.pass_on(text) {
            tracing::error!("records that are in the ledger are missing in the audit log, which is not taken away");
        }
    }

    /// Our log is not as it was left.
    fn report(&self, stored: Option<(i64, Vec<u8>)>) {
        let Some(own) = &self.own else { return };
        let was = own.log.batch([], self.opening.clock.now()).head;
        let size = stored.map(|(size, _)| u64::try_from(size).unwrap_or_default());
        let kind = match size {
            None => Break::Missing,
            Some(size) if size < was.size => Break::Shorter,
            Some(_) => Break::OtherRoot,
        };
        self.opening.heads.broken(Discontinuity { was, kind, size });
    }

    /// Our log has been sealed by another, or is not ours any more in another way.
    fn lose(&mut self) {
        self.opening.heads.lost();
        if let Some(own) = self.own.take() {
            tracing::warn!(log = %own.log.id(), "the log is not ours any more; a new one is begun");
            self.left.push(own.log.id().to_string());
            self.reason = "adopted";
        }
    }

    /// Begins a log, which follows ours and all that nobody writes any more.
    async fn begin(&mut self, connection: &mut Connection) -> sqlx::Result<()> {
        let id = LogId::random().ok_or_else(|| sqlx::Error::Protocol("no random bytes from the operating system".to_owned()))?;
        let before = self.own.as_ref().map(|own| own.log.batch([], self.opening.clock.now()).head);
        let last = self.own.as_ref().and_then(|own| own.log.last());
        if let Some(before) = &before {
            self.left.push(before.log.to_string());
            self.reason = "continued";
        }
        // Before it is tried: it may be there though we never hear of it.
        let own = [self.left.as_slice(), &[id.to_string()]].concat();
        let (opening, reason, is_file) = (&self.opening, self.reason, connection.is_file());
        let mut made = None;
        self.left.push(id.to_string());
        let opened = |predecessors: &[Predecessor]| {
            let of = |p: &Predecessor| (p.id.clone(), u64::try_from(p.size).unwrap_or_default(), p.root.clone());
            let records = opened(opening, reason, predecessors.iter().map(of));
            // The clock of a file is ours, that of a server is not.
            let touched = predecessors.iter().map(|p| p.touched_at).max().filter(|_| is_file);
            let last = last.or_else(|| Timestamp::from_second(touched?).ok());
            let log = Log::new(id.clone(), last);
            let batch = log.batch(records.iter().map(Vec::as_slice), opening.clock.now());
            made.insert((log, batch)).1.clone()
        };
        let predecessors = connection.begin_log(&id, &opening.writer, &own, opened).await?;
        let Some((mut log, batch)) = made else { return Ok(()) };
        self.left.clear();
        if let Some(before) = before {
            let adopted = predecessors.iter().find(|p| p.id == before.log.as_str());
            match adopted {
                Some(p) if u64::try_from(p.size) == Ok(before.size) && p.root == before.root => self.opening.heads.ended(before),
                Some(p) => self.report(Some((p.size, p.root.clone()))),
                None => tracing::warn!(log = %before.log, "the log was adopted by another process"),
            }
        }
        let now = Instant::now();
        log.take_in(&batch);
        tracing::info!(log = %id, predecessors = predecessors.len(), "a log of the ledger begins");
        self.own = Some(Own { log, begun: now, touched: now });
        self.opening.heads.grown(batch.head);
        self.copy(batch.body);
        Ok(())
    }
}
