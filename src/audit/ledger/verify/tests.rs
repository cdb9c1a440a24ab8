use super::super::note::CheckpointKey;
use super::super::tree::{Tree, leaf_hash};
use super::*;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use std::sync::OnceLock;

/// A database, as somebody finds it.
#[derive(Debug, Clone)]
struct Database {
    logs: Vec<StoredLog>,
    segments: Vec<(String, StoredSegment)>,
    checkpoints: Vec<(String, i64, String)>,
}

fn key() -> &'static CheckpointKey {
    static KEY: OnceLock<CheckpointKey> = OnceLock::new();
    KEY.get_or_init(new_key)
}

fn new_key() -> CheckpointKey {
    CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key")
}

fn log(n: u8) -> LogId {
    format!("{n:032x}").parse().expect("a name")
}

/// The lines of a log.
fn lines(log: &LogId, opened: &str, count: u64) -> Vec<String> {
    let line = |seq: u64| {
        let event = if seq == 0 { "ledger.opened" } else { "token.issue" };
        let more = if seq == 0 { opened } else { "" };
        format!(r#"{{"log":"{log}","seq":{seq},"time":"2026-11-24T12:00:00.000Z","event":"{event}"{more},"jti":"{log}-{seq}"}}"#)
    };
    (0..count).map(line).collect()
}

fn root(lines: &[String]) -> Hash {
    let mut tree = Tree::new();
    lines.iter().for_each(|line| tree.append(leaf_hash(line.as_bytes())));
    tree.root()
}

impl Database {
    /// A log of 40 records that another of 30 took over from, which is still written. Checkpoints at 20 and 40, and at 10 and 20.
    fn usual() -> Self {
        let mut database = Self { logs: Vec::new(), segments: Vec::new(), checkpoints: Vec::new() };
        let first = lines(&log(1), "", 40);
        let opened = format!(
            r#","predecessor":"{}","predecessor_size":40,"predecessor_root":"{}""#,
            log(1),
            STANDARD.encode(root(&first))
        );
        database.write(key(), &log(1), &first, &[20, 40], Some(&log(2)));
        database.write(key(), &log(2), &lines(&log(2), &opened, 30), &[10, 20], None);
        database
    }

    /// Writes a log, ten records at once.
    fn write(&mut self, key: &CheckpointKey, log: &LogId, lines: &[String], checkpoints: &[usize], sealed_by: Option<&LogId>) {
        self.logs.push(StoredLog {
            id: log.to_string(),
            created_at: 0,
            touched_at: 0,
            writer: "w".to_owned(),
            size: lines.len().try_into().expect("a size"),
            root: root(lines).into(),
            sealed_by: sealed_by.map(ToString::to_string),
            sealed_at: None,
            archived_at: None,
        });
        for (at, batch) in lines.chunks(10).enumerate() {
            let segment = segment(i64::try_from(at * 10).expect("a number"), batch);
            self.segments.push((log.to_string(), segment));
        }
        for size in checkpoints {
            let note = key.sign(log, *size as u64, &root(&lines[..*size]));
            self.checkpoints.push((log.to_string(), i64::try_from(*size).expect("a size"), note));
        }
    }

    fn notes(&self) -> Vec<String> {
        self.checkpoints.iter().map(|(.., note)| note.clone()).collect()
    }

    fn verify(&self, published: &[String]) -> Report {
        self.verify_with(vec![key().vkey()], published)
    }

    fn verify_with(&self, keys: Vec<Vkey>, published: &[String]) -> Report {
        let mut verification = Verification::new(keys);
        published.iter().for_each(|note| verification.published(note));
        self.checkpoints.iter().for_each(|(log, size, note)| verification.stored(log, *size, note));
        for row in &self.logs {
            let Some(mut check) = verification.row(row) else { continue };
            if check.is_archived() {
                verification.not_at_hand(check);
                continue;
            }
            let mut segments: Vec<_> = self.segments.iter().filter(|(log, _)| *log == row.id).collect();
            segments.sort_by_key(|(_, segment)| segment.first);
            segments.iter().for_each(|(_, segment)| check.stored(segment));
            verification.done(check);
        }
        for (stray, _) in self.segments.iter().filter(|(log, _)| !self.logs.iter().any(|row| row.id == *log)) {
            verification.unreadable(format!("segments of log {stray}"), "there is no such log");
        }
        verification.finish()
    }

    fn body(&mut self, at: usize) -> &mut Vec<u8> {
        &mut self.segments[at].1.body
    }

    /// Makes the hashes of a segment fit its records.
    fn rehash(&mut self, at: usize) {
        let lines: Vec<String> = String::from_utf8(self.body(at).clone()).expect("text").lines().map(str::to_owned).collect();
        let first = self.segments[at].1.first;
        self.segments[at].1 = segment(first, &lines);
    }

    /// Makes size and root of a log fit its records.
    fn reroot(&mut self, log: &LogId) {
        let mut tree = Tree::new();
        for (_, segment) in self.segments.iter().filter(|(of, _)| *of == log.to_string()) {
            segment.hashes.as_chunks::<32>().0.iter().for_each(|hash| tree.append(*hash));
        }
        let row = self.logs.iter_mut().find(|row| row.id == log.to_string()).expect("a row");
        (row.size, row.root) = (tree.size().try_into().expect("a size"), tree.root().into());
    }
}

fn segment(first: i64, lines: &[String]) -> StoredSegment {
    let body: String = lines.iter().map(|line| format!("{line}\n")).collect();
    let hashes = lines.iter().flat_map(|line| leaf_hash(line.as_bytes())).collect();
    StoredSegment { first, count: lines.len().try_into().expect("a count"), body: body.into_bytes(), hashes }
}

/// The first record that a report names.
fn first(report: &Report) -> Option<String> {
    report.findings.iter().find_map(|finding| finding.first_record().map(|(log, seq)| format!("{log}/{seq}")))
}

fn named(n: u8, seq: u64) -> Option<String> {
    Some(format!("{}/{seq}", log(n)))
}

#[test]
fn what_was_written_is_clean_and_what_no_checkpoint_covers_is_counted() {
    let database = Database::usual();
    let report = database.verify(&database.notes());
    assert_eq!(report.verdict(), Verdict::Clean, "{report}");
    assert_eq!((report.records(), report.uncovered(), report.published), (70, 10, 4));
    // Older ones cover less; none cover nothing.
    assert_eq!(database.verify(&database.notes()[..1]).uncovered(), 50);
    let report = database.verify(&[]);
    assert_eq!((report.verdict(), report.uncovered()), (Verdict::Clean, 70));
    assert!(report.to_string().contains("WARNING: no published checkpoint"));
}

#[test]
fn l5_a_byte_that_was_changed_is_found_with_its_record() {
    let mut database = Database::usual();
    let at = database.body(1).len() / 2;
    database.body(1)[at] ^= 1;
    let report = database.verify(&database.notes());
    assert_eq!(first(&report), named(1, 15));
    assert!(report.findings[0].to_string().ends_with("the record was changed after it was written"), "{report}");
    // Behind the last checkpoint nobody can tell which of the two was changed.
    let mut database = Database::usual();
    let at = database.body(6).len() / 2;
    database.body(6)[at] ^= 1;
    let report = database.verify(&database.notes());
    assert_eq!(first(&report), named(2, 25));
    let mut database = Database::usual();
    database.segments[1].1.hashes[32 * 5] ^= 1;
    let report = database.verify(&database.notes());
    assert!(report.findings[0].to_string().contains("15: the hash that is stored with the record was changed"), "{report}");
}

#[test]
fn l5_two_records_that_were_exchanged_are_found() {
    let mut database = Database::usual();
    let text = String::from_utf8(database.body(1).clone()).expect("text");
    let mut lines: Vec<&str> = text.lines().collect();
    lines.swap(3, 6);
    *database.body(1) = lines.iter().flat_map(|line| [line, "\n"]).collect::<String>().into_bytes();
    assert_eq!(first(&database.verify(&database.notes())), named(1, 13));
    // With the hashes exchanged too, the numbers in the records tell.
    database.rehash(1);
    let report = database.verify(&database.notes());
    assert_eq!(first(&report), named(1, 13));
    assert!(report.findings[0].to_string().contains("stands another"), "{report}");
}

#[test]
fn l5_records_that_were_removed_or_inserted_are_found() {
    let notes = Database::usual().notes();
    // A segment.
    let mut database = Database::usual();
    database.segments.remove(1);
    let report = database.verify(&notes);
    assert_eq!(first(&report), named(1, 10));
    assert!(
        report.findings[0].to_string().contains("/10 to 00000000000000000000000000000001/19: these records were removed"),
        "{report}"
    );
    // A record within one.
    let mut database = Database::usual();
    let line = database.body(1).iter().position(|b| *b == b'\n').expect("a line");
    database.body(1).drain(..=line);
    assert_eq!(first(&database.verify(&notes)), named(1, 10));
    database.rehash(1);
    database.reroot(&log(1));
    assert_eq!(first(&database.verify(&notes)), named(1, 10), "with everything made to fit");
    // A forged record, in a segment of its own or within one.
    let mut database = Database::usual();
    let forged = lines(&log(1), "", 16).pop().expect("a line").replace("token.issue", "token.forged");
    database.segments.push((log(1).to_string(), segment(15, std::slice::from_ref(&forged))));
    let report = database.verify(&notes);
    assert_eq!(first(&report), named(1, 15));
    assert!(report.findings[0].to_string().contains("inserted under numbers that others have"), "{report}");
    let mut database = Database::usual();
    let text = format!("{forged}\n");
    database.body(1).splice(0..0, text.into_bytes());
    database.rehash(1);
    database.reroot(&log(1));
    assert_eq!(first(&database.verify(&notes)), named(1, 10));
}

#[test]
fn l5_an_end_or_a_log_that_was_removed_is_found() {
    let notes = Database::usual().notes();
    let mut database = Database::usual();
    database.segments.truncate(5);
    database.checkpoints.truncate(3);
    database.reroot(&log(2));
    let report = database.verify(&notes);
    assert_eq!(first(&report), named(2, 10));
    assert!(report.to_string().contains("a published checkpoint of 20 records shows them"), "{report}");
    assert_eq!(database.verify(&[]).verdict(), Verdict::Clean, "without published checkpoints nobody can tell");
    // The last log: only who has seen a checkpoint of it knows.
    let mut database = Database::usual();
    database.logs.truncate(1);
    database.segments.truncate(4);
    database.checkpoints.truncate(2);
    database.logs[0].sealed_by = None;
    let report = database.verify(&notes);
    assert!(report.to_string().contains("00000000000000000000000000000002: the whole log was removed"), "{report}");
    assert_eq!(database.verify(&[]).verdict(), Verdict::Clean);
    // The first: its successor names it.
    let mut database = Database::usual();
    database.logs.remove(0);
    database.segments.drain(..4);
    database.checkpoints.drain(..2);
    let report = database.verify(&[]);
    assert!(report.to_string().contains("the first records of its successor"), "{report}");
    // That it has one: its row names none, or itself as after a clean end.
    for sealed_by in [None, Some(log(1).to_string())] {
        let mut database = Database::usual();
        database.logs[0].sealed_by = sealed_by;
        let report = database.verify(&[]);
        assert_eq!(report.verdict(), Verdict::Tampered, "{report}");
        assert!(report.findings.contains(&Finding::NotSealed { log: log(1), successor: log(2) }), "{report}");
    }
    // The end of the first, with everything in the database made to fit.
    let mut database = Database::usual();
    database.segments.remove(3);
    database.checkpoints.remove(1);
    database.reroot(&log(1));
    assert_eq!(first(&database.verify(&[])), named(1, 30));
}

#[test]
fn l7_everything_rewritten_is_found_by_a_checkpoint_from_before() {
    let published = Database::usual().notes();
    let forge = |key: &CheckpointKey| {
        let mut database = Database { logs: Vec::new(), segments: Vec::new(), checkpoints: Vec::new() };
        let forged: Vec<String> = lines(&log(1), "", 40).iter().map(|line| line.replace("-15", "-xx")).collect();
        let opened = format!(
            r#","predecessor":"{}","predecessor_size":40,"predecessor_root":"{}""#,
            log(1),
            STANDARD.encode(root(&forged))
        );
        database.write(key, &log(1), &forged, &[20, 40], Some(&log(2)));
        database.write(key, &log(2), &lines(&log(2), &opened, 30), &[10, 20], None);
        database
    };
    // Without the key: the forger's own is not known.
    let database = forge(&new_key());
    assert_eq!(database.verify(&[]).verdict(), Verdict::Unknown, "never clean");
    let report = database.verify(&published);
    assert_eq!((report.verdict(), first(&report)), (Verdict::Tampered, named(1, 0)), "{report}");
    // With the stolen key the database is perfect, and what was published convicts it.
    let database = forge(key());
    assert_eq!(database.verify(&[]).verdict(), Verdict::Clean);
    let report = database.verify(&published[..1]);
    assert_eq!(first(&report), named(1, 0));
    assert!(report.findings.contains(&Finding::TwoHistories { log: log(1), size: 20 }), "{report}");
    assert!(report.to_string().contains("the root of the published checkpoint of 20 records is another"), "{report}");
}

#[test]
fn a_checkpoint_narrows_down_where_everything_was_made_to_fit() {
    let mut database = Database::usual();
    let text = String::from_utf8(database.body(3).clone()).expect("text").replace("-35", "-xx");
    *database.body(3) = text.into_bytes();
    database.rehash(3);
    database.reroot(&log(1));
    let report = database.verify(&database.notes());
    assert!(
        report.findings.contains(&Finding::Rewritten { log: log(1), from: 20, to: 39, source: Source::Published }),
        "{report}"
    );
}

#[test]
fn l13_checkpoints_of_an_older_key_still_hold() {
    let older = new_key();
    let database = Database::usual();
    let note = older.sign(&log(1), 20, &root(&lines(&log(1), "", 40)[..20]));
    let mut notes = database.notes();
    notes.push(note);
    assert_eq!(database.verify(&notes).verdict(), Verdict::Unknown, "its key was not given");
    let report = database.verify_with(vec![key().vkey(), older.vkey()], &notes);
    assert_eq!(report.verdict(), Verdict::Clean, "{report}");
}

#[test]
fn a_key_speaks_for_the_logs_of_its_own_issuer() {
    let other = CheckpointKey::from_pem("other.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key");
    let database = Database::usual();
    let note = other.sign(&log(1), 40, &[7; 32]);
    let report = database.verify_with(vec![key().vkey()], &[note]);
    assert_eq!(report.verdict(), Verdict::Unknown);
}

#[test]
fn what_is_no_checkpoint_or_archived_elsewhere_leaves_a_gap() {
    let mut database = Database::usual();
    assert_eq!(database.verify(&["nonsense".to_owned()]).verdict(), Verdict::Unknown);
    database.logs[0].archived_at = Some(1);
    database.segments.drain(..4);
    let report = database.verify(&database.notes());
    assert_eq!(report.verdict(), Verdict::Unknown, "{report}");
    assert!(report.to_string().contains("its 40 records were archived: give the directory with --archive"), "{report}");
    // Its row cannot lie about where it ended all the same.
    database.logs[0].size = 39;
    assert_eq!(database.verify(&database.notes()).verdict(), Verdict::Tampered);
}

#[test]
fn l10_a_report_is_plain_text_whatever_is_in_the_database() {
    let mut database = Database::usual();
    database.segments[1].1 = segment(10, &["\u{1b}[31m\u{202e}x".to_owned()]);
    database.checkpoints[0].0 = "\u{1b}]0;x".to_owned();
    database.logs[1].id = "\u{9b}\n".to_owned();
    let text = database.verify(&["\u{1b}[0m".to_owned()]).to_string();
    assert!(text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{text}");
}

#[test]
fn of_endless_findings_a_few_are_shown_and_all_are_counted() {
    let mut database = Database::usual();
    for at in 0..4 {
        database.segments[at].1.hashes.fill(0);
    }
    let report = database.verify(&[]);
    assert_eq!((report.findings.len(), report.more), (16, 24));
}

/// Where a byte of the database can be changed.
#[derive(Debug, Clone, Copy)]
enum Place {
    Body(usize),
    Hashes(usize),
    First(usize),
    Count(usize),
    SegmentLog(usize),
    Root(usize),
    Size(usize),
    SealedBy,
    LogName(usize),
    Note(usize),
    NoteSize(usize),
    NoteLog(usize),
}

fn place() -> impl Strategy<Value = Place> {
    prop_oneof![
        8 => (0..7usize).prop_map(Place::Body),
        4 => (0..7usize).prop_map(Place::Hashes),
        1 => (0..7usize).prop_map(Place::First),
        1 => (0..7usize).prop_map(Place::Count),
        1 => (0..7usize).prop_map(Place::SegmentLog),
        1 => (0..2usize).prop_map(Place::Root),
        1 => (0..2usize).prop_map(Place::Size),
        1 => Just(Place::SealedBy),
        1 => (0..2usize).prop_map(Place::LogName),
        2 => (0..4usize).prop_map(Place::Note),
        1 => (0..4usize).prop_map(Place::NoteSize),
        1 => (0..4usize).prop_map(Place::NoteLog),
    ]
}

/// Another byte at one place of a text.
fn bend(text: &mut String, at: prop::sample::Index, to: u8) {
    let mut bytes = std::mem::take(text).into_bytes();
    let at = at.index(bytes.len());
    bytes[at] = if bytes[at] == to { to ^ 1 } else { to };
    *text = String::from_utf8_lossy(&bytes).into_owned();
}

fn bend_bytes(bytes: &mut [u8], at: prop::sample::Index, by: u8) {
    let at = at.index(bytes.len());
    bytes[at] ^= by;
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn l5_any_byte_that_was_changed_anywhere_is_found(place in place(), at in any::<prop::sample::Index>(), by in 1u8..) {
        let mut database = Database::usual();
        let published = database.notes();
        let bit = i64::from(by);
        match place {
            Place::Body(n) => bend_bytes(database.body(n), at, by),
            Place::Hashes(n) => bend_bytes(&mut database.segments[n].1.hashes, at, by),
            Place::First(n) => database.segments[n].1.first ^= bit,
            Place::Count(n) => database.segments[n].1.count ^= bit,
            Place::SegmentLog(n) => bend(&mut database.segments[n].0, at, by & 0x7f),
            Place::Root(n) => bend_bytes(&mut database.logs[n].root, at, by),
            Place::Size(n) => database.logs[n].size ^= bit,
            Place::SealedBy => bend(database.logs[0].sealed_by.as_mut().expect("sealed"), at, by & 0x7f),
            Place::LogName(n) => bend(&mut database.logs[n].id, at, by & 0x7f),
            Place::Note(n) => bend(&mut database.checkpoints[n].2, at, by & 0x7f),
            Place::NoteSize(n) => database.checkpoints[n].1 ^= bit,
            Place::NoteLog(n) => bend(&mut database.checkpoints[n].0, at, by & 0x7f),
        }
        let report = database.verify(&published);
        prop_assert_ne!(report.verdict(), Verdict::Clean, "{}", report);
        if let Place::Body(_) | Place::Hashes(_) = place {
            prop_assert_eq!(report.verdict(), Verdict::Tampered);
            prop_assert!(first(&report).is_some());
        }
    }

    #[test]
    fn no_segment_makes_the_verification_panic(
        first in any::<i64>(), count in any::<i64>(),
        body in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..64),
        hashes in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut database = Database::usual();
        database.segments[1].1 = StoredSegment { first, count, body, hashes };
        prop_assert_ne!(database.verify(&database.notes()).verdict(), Verdict::Clean);
    }
}
