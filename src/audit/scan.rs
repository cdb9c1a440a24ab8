//! Reads the records of all logs in the order of their time, a page at a time.
//!
//! There is no index: what is read is searched. A log is at most a day or a million records long, and a search for something rare
//! passes over about a gigabyte in a second.

use super::ledger::LogId;
use super::{Entry, Filter};
use crate::store::{LedgerReader, StoreError, StoredLog, StoredSegment};
use k8s_openapi::jiff::Timestamp;
use memchr::memchr_iter;
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

/// Most records of a page.
pub const PAGE_MAX: usize = 1000;
/// By how much a record's time may be behind that of one before it, in seconds: clocks are set, and those of machines differ.
const SLACK: i64 = 600;
/// How exactly a beginning is looked for, in records.
const NEAR: i64 = 4096;
/// How many logs a cursor may name.
const CURSOR_MAX: usize = 256;

/// Where to go on: for each log that is not read to its end, the number of its next record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Logs that were begun earlier, in seconds since the epoch, and are not named were read to their end. Those that were begun then
    /// or later and are not named are still to come.
    floor: i64,
    next: BTreeMap<String, i64>,
}

/// A text that is no cursor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("after must be what was given as next with a page before")]
pub struct NoCursor;

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.floor)?;
        self.next.iter().try_for_each(|(log, next)| write!(f, "_{log}-{next}"))
    }
}

impl FromStr for Cursor {
    type Err = NoCursor;

    fn from_str(text: &str) -> Result<Self, NoCursor> {
        let mut parts = text.split('_');
        let number = |text: &str| text.parse::<i64>().ok().filter(|number| *number >= 0).ok_or(NoCursor);
        let floor = number(parts.next().unwrap_or_default())?;
        let position = |part: &str| {
            let (log, next) = part.split_once('-').ok_or(NoCursor)?;
            Ok((log.parse::<LogId>().map_err(|_| NoCursor)?.to_string(), number(next)?))
        };
        let next = parts.map(position).collect::<Result<BTreeMap<_, _>, _>>()?;
        if next.len() > CURSOR_MAX { Err(NoCursor) } else { Ok(Self { floor, next }) }
    }
}

/// How much of the ledger one page may search. It searches something in any case, so that one page after another leads to the end.
#[derive(Debug, Clone, Copy)]
pub struct Budget {
    /// For how long.
    pub time: Duration,
    /// How many records the page may have.
    pub records: usize,
}

/// A page of records.
#[derive(Debug)]
pub struct Page {
    /// The records, as near to the order of their time as the clocks allow.
    pub entries: Vec<Entry>,
    /// Where to go on; at the end of the ledger with what will be written.
    pub next: Cursor,
    /// Whether the end of the ledger was not reached.
    pub is_more: bool,
}

/// A log while it is read.
struct Reading {
    log: String,
    /// When it was begun, in seconds since the epoch.
    created: i64,
    /// The number of the next record that was not looked at.
    next: i64,
    /// From where on segments are still to be read; `None` before the first.
    from: Option<i64>,
    /// What was found and is not on the page yet.
    found: VecDeque<(i64, Entry)>,
    /// No record that comes has an earlier time, in milliseconds, clocks permitting.
    frontier: i64,
    is_at_end: bool,
}

impl Reading {
    /// When its next record is, as far as that is known; `None` at its end.
    fn head(&self) -> Option<i64> {
        match self.found.front() {
            Some((time, _)) => Some(*time),
            None if self.is_at_end => None,
            None => Some(self.frontier),
        }
    }

    /// From which record on to read it the next time.
    fn position(&self) -> i64 {
        self.found.front().and_then(|(_, entry)| i64::try_from(entry.seq()).ok()).unwrap_or(self.next)
    }

    /// Reads the next piece.
    async fn read(&mut self, reader: &LedgerReader, filter: &Filter) -> Result<(), StoreError> {
        let from = match self.from {
            Some(from) => from,
            None => reader.segment_of(&self.log, self.next).await?.unwrap_or(self.next),
        };
        let segments = reader.segments(&self.log, from).await?;
        let Some(last) = segments.last() else {
            self.is_at_end = true;
            return Ok(());
        };
        self.from = Some(last.first.saturating_add(1));
        for segment in &segments {
            self.search(segment, filter);
        }
        Ok(())
    }

    fn search(&mut self, segment: &StoredSegment, filter: &Filter) {
        let log = self.log.clone();
        let is_candidate = filter.may_match(&segment.body);
        let (mut seq, mut start, mut last) = (segment.first, 0, &[][..]);
        for end in memchr_iter(b'\n', &segment.body) {
            let line = segment.body.get(start..end).unwrap_or_default();
            start = end.saturating_add(1);
            if seq >= self.next {
                last = line;
                if is_candidate && filter.may_match(line) {
                    let entry = Entry::read(&log, u64::try_from(seq).unwrap_or_default(), line);
                    if filter.matches(&entry) {
                        self.found.push_back((milliseconds(entry.time()).unwrap_or(self.frontier), entry));
                    }
                }
            }
            seq = seq.saturating_add(1);
        }
        self.next = self.next.max(seq);
        if let Some(time) = milliseconds(Entry::read(&log, 0, last).time()) {
            self.frontier = self.frontier.max(time);
        }
    }
}

fn milliseconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_millisecond)
}

/// The records after `cursor` to which `filter` applies.
///
/// # Errors
/// If the database does not answer.
pub async fn page(reader: &LedgerReader, filter: &Filter, cursor: &Cursor, budget: Budget) -> Result<Page, StoreError> {
    let begun = Instant::now();
    let logs = reader.logs().await?;
    let is_wanted = |log: &&StoredLog| filter.since_second().is_none_or(|since| log.touched_at.saturating_add(SLACK) >= since);
    let mut waiting: VecDeque<&StoredLog> =
        logs.iter().filter(|log| log.created_at >= cursor.floor || cursor.next.contains_key(&log.id)).filter(is_wanted).collect();
    let mut readings: Vec<Reading> = Vec::new();
    let mut entries = Vec::new();
    // A page that is over before it has come anywhere would be asked for again for ever.
    let mut has_moved = false;
    let is_more = loop {
        if entries.len() >= budget.records || has_moved && begun.elapsed() >= budget.time {
            break true;
        }
        let first = readings.iter_mut().filter(|reading| reading.head().is_some()).min_by_key(|reading| reading.head());
        let head = first.as_ref().and_then(|reading| reading.head());
        if let Some(log) = waiting.front().filter(|log| head.is_none_or(|head| log.created_at.saturating_mul(1000) <= head)) {
            let next = match cursor.next.get(&log.id) {
                Some(next) => *next,
                None => begin(reader, log, filter).await?,
            };
            let frontier = log.created_at.saturating_mul(1000);
            let log_id = log.id.clone();
            readings.push(Reading {
                log: log_id,
                created: log.created_at,
                next,
                from: None,
                found: VecDeque::new(),
                frontier,
                is_at_end: false,
            });
            waiting.pop_front();
            continue;
        }
        let Some(first) = first else { break false };
        match first.found.pop_front() {
            Some((_, entry)) => {
                entries.push(entry);
                has_moved = true;
                // What follows the last record of a page begins the next one, and is not to be sorted behind it.
                if first.found.is_empty() {
                    first.frontier = first.frontier.max(head.unwrap_or_default());
                }
            }
            None => {
                let before = first.next;
                first.read(reader, filter).await?;
                has_moved |= first.found.is_empty() && first.next > before;
            }
        }
    };
    Ok(Page { next: go_on(cursor, &readings, &logs), entries, is_more })
}

/// Where to go on after these.
fn go_on(cursor: &Cursor, readings: &[Reading], logs: &[StoredLog]) -> Cursor {
    let floor = readings.iter().map(|reading| reading.created).fold(cursor.floor, i64::max);
    let is_sealed = |id: &str| logs.iter().any(|log| log.id == id && log.sealed_by.is_some());
    // One that may grow is never read to its end, and another may have been begun in the same second.
    let is_open = |reading: &&Reading| reading.head().is_some() || reading.created >= floor || !is_sealed(&reading.log);
    let open = readings.iter().filter(is_open).map(|reading| (reading.log.clone(), reading.position()));
    // Those that were not begun anew keep their place.
    let kept = cursor.next.iter().filter(|(log, _)| !readings.iter().any(|reading| reading.log == **log));
    Cursor { floor, next: open.chain(kept.map(|(log, next)| (log.clone(), *next))).collect() }
}

/// With which record to begin to read a log.
async fn begin(reader: &LedgerReader, log: &StoredLog, filter: &Filter) -> Result<i64, StoreError> {
    let Some(since) = filter.since_second() else { return Ok(0) };
    let wanted = since.saturating_sub(SLACK).saturating_mul(1000);
    let (mut low, mut high) = (0, log.size.max(0));
    while high.saturating_sub(low) > NEAR {
        let middle = low.saturating_add(high.saturating_sub(low) / 2);
        let Some(first) = reader.segment_of(&log.id, middle).await? else { return Ok(0) };
        let segments = reader.segments(&log.id, first).await?;
        let line = segments.first().and_then(|segment| segment.body.split(|b| *b == b'\n').next()).unwrap_or_default();
        match milliseconds(Entry::read(&log.id, 0, line).time()) {
            Some(time) if time < wanted => low = middle,
            Some(_) => high = middle,
            None => return Ok(0),
        }
    }
    Ok(low)
}

/// Where the last records begin: at least `count` of them, if there are as many.
///
/// # Errors
/// If the database does not answer.
pub async fn last(reader: &LedgerReader, count: u32) -> Result<Cursor, StoreError> {
    let count = i64::from(count);
    let mut logs = reader.logs().await?;
    logs.sort_by_key(|log| (log.touched_at, log.created_at));
    let floor = logs.iter().map(|log| log.created_at).max().unwrap_or_default();
    let (mut next, mut taken) = (BTreeMap::new(), 0i64);
    for log in logs.iter().rev() {
        let is_needed = log.sealed_by.is_none() || log.created_at >= floor || taken < count;
        if is_needed && next.len() < CURSOR_MAX {
            next.insert(log.id.clone(), log.size.saturating_sub(count).max(0));
            taken = taken.saturating_add(log.size.min(count));
        }
    }
    Ok(Cursor { floor, next })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_reads_back_and_nothing_else_is_one() {
        let next = BTreeMap::from([("0".repeat(32), 7), ("f".repeat(32), 0)]);
        for cursor in [Cursor::default(), Cursor { floor: 1_795_521_902, next }] {
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
        for bad in ["", "x", "-1", "1_", "1_x-1", &format!("1_{}", "0".repeat(32)), &format!("1_{}-x", "0".repeat(32)), "1__"] {
            assert_eq!(bad.parse::<Cursor>(), Err(NoCursor), "{bad}");
        }
        let many: String = (0..300).map(|n| format!("_{n:032x}-1")).collect();
        assert!(format!("1{many}").parse::<Cursor>().is_err());
    }
}
