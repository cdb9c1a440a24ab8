//! `audit verify` and `audit verify-proof`: what needs no operator, and trusts nothing but keys.

use super::{AuditError, VerifyProofArgs};
use crate::audit::ask::AskError;
use crate::audit::ledger::LogId;
use crate::audit::ledger::note::{Checkpoint, NoteError, Vkey};
use crate::audit::ledger::proof::{Proof, ProofError};
use crate::audit::ledger::published::Published;
use crate::audit::ledger::verify::{LogCheck, Segment, Verdict, Verification};
use crate::audit::plain::json_line;
use crate::config::{DatabaseArgs, DatabaseParser};
use crate::store::{DatabaseUrl, LedgerReader, StoreError};
use clap::Args;
use memchr::{memchr_iter, memrchr};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufReader, Read as _, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// How much of an archive is read at once, in bytes, and how much one record of it may be.
const PIECE: u64 = 1 << 20;
const RECORD_MAX: usize = 16 << 20;
/// Longest proof that is read, in bytes.
const PROOF_MAX: u64 = 1 << 20;

/// Flags of `audit verify`.
#[derive(Debug, Args)]
pub struct VerifyArgs {
    /// The URL of the database, without a password: PostgreSQL, or a file of SQLite that no operator has open (a copy).
    #[arg(long, value_name = "URL", value_parser = DatabaseParser, conflicts_with = "database_file")]
    pub database: Option<DatabaseUrl>,
    /// A file that holds the URL of the database, and of PostgreSQL the password.
    #[arg(long, value_name = "FILE")]
    pub database_file: Option<PathBuf>,
    /// The directory to which ended logs were archived.
    #[arg(long, value_name = "DIR")]
    pub archive: Option<PathBuf>,
    /// Which keys are trusted, and what was published.
    #[command(flatten)]
    pub trust: TrustArgs,
}

/// What is trusted.
#[derive(Debug, Args)]
pub struct TrustArgs {
    /// A key that signed checkpoints: <name>+<8 hexadecimal digits>+<base64>. May be repeated.
    #[arg(long, value_name = "VKEY")]
    pub vkey: Vec<Vkey>,
    /// Checkpoints that were kept outside of the database: the ConfigMap as YAML or JSON, whose item vkeys has the keys; signed notes one
    /// after another; or the audit log that the operator writes. May be repeated; - for standard input.
    #[arg(long, value_name = "FILE")]
    pub checkpoints: Vec<PathBuf>,
}

impl TrustArgs {
    /// The keys, and the checkpoints.
    fn read(&self) -> Result<(Vec<Vkey>, Vec<String>), AuditError> {
        let (mut keys, mut notes) = (self.vkey.clone(), Vec::new());
        for path in &self.checkpoints {
            let unreadable = |error| AuditError::Read(path.clone(), error);
            let published = if path == Path::new("-") {
                Published::read(io::stdin().lock())
            } else {
                Published::read(BufReader::new(File::open(path).map_err(unreadable)?))
            };
            let published = published.map_err(|error| AuditError::Published(path.clone(), error))?;
            keys.extend(published.vkeys);
            notes.extend(published.notes);
        }
        if keys.is_empty() { Err(AuditError::NoKey) } else { Ok((keys, notes)) }
    }
}

/// Verifies a ledger.
pub(super) async fn run(args: &VerifyArgs, out: &mut dyn Write) -> Result<u8, AuditError> {
    let begun = Instant::now();
    let (keys, notes) = args.trust.read()?;
    if args.database.is_none() && args.database_file.is_none() && args.archive.is_none() {
        return Err(AuditError::NoLedger);
    }
    let mut verification = Verification::new(keys);
    notes.iter().for_each(|note| verification.published(note));
    let archive = args.archive.as_deref().map(Archive::open).transpose()?.unwrap_or_default();
    archive.checkpoints(&mut verification)?;
    let mut read = BTreeSet::new();
    if args.database.is_some() || args.database_file.is_some() {
        let database = DatabaseArgs { database: args.database.clone(), database_file: args.database_file.clone() };
        let url = database.url().map_err(AuditError::Database)?;
        let reader = LedgerReader::open_at_one_moment(&url).await?;
        read = database_of(&reader, url.is_file(), &archive, &mut verification).await?;
    }
    for log in archive.logs.iter().filter(|log| !read.contains(*log)) {
        let mut check = verification.log(log.clone(), None);
        archive.read(log, &mut check)?;
        verification.done(check);
    }
    let report = verification.finish();
    write!(out, "{report}")?;
    let seconds = begun.elapsed().as_secs_f64();
    writeln!(out, "{:.1} s, {:.0} records/s", seconds, report.records() as f64 / seconds.max(1e-9))?;
    out.flush()?;
    Ok(match report.verdict() {
        Verdict::Clean => 0,
        Verdict::Tampered => 1,
        Verdict::Unknown => 2,
    })
}

/// Reads all of a database. Returns the names of its logs.
///
/// What cannot be read in a file was damaged; a server may only be away.
async fn database_of(
    reader: &LedgerReader,
    is_file: bool,
    archive: &Archive,
    verification: &mut Verification,
) -> Result<BTreeSet<LogId>, AuditError> {
    let damage = |verification: &mut Verification, what: &str, error: StoreError| {
        if is_file {
            verification.unreadable(what, error.to_string());
            Ok(())
        } else {
            Err(AuditError::from(error))
        }
    };
    let mut names = BTreeSet::new();
    let logs = match reader.logs().await {
        Ok(logs) => logs,
        Err(error) => {
            damage(verification, "table logs", error)?;
            return Ok(names);
        }
    };
    let strays = match reader.strays().await {
        Ok(strays) => strays,
        Err(error) => {
            damage(verification, "tables segments and checkpoints", error)?;
            Vec::new()
        }
    };
    for log in logs.iter().map(|log| &log.id).chain(&strays) {
        if let Err(error) = checkpoints_of(reader, log, verification).await {
            damage(verification, &format!("checkpoints of log {log}"), error)?;
        }
    }
    for stray in &strays {
        verification
            .unreadable(format!("log {stray}"), "it has records or checkpoints, and no row in table logs: that was removed");
    }
    for log in &logs {
        let Some(mut check) = verification.row(log) else { continue };
        names.extend(log.id.parse());
        if check.is_archived() {
            match log.id.parse().ok().filter(|id| archive.logs.contains(id)) {
                Some(id) => archive.read(&id, &mut check)?,
                None => {
                    verification.not_at_hand(check);
                    continue;
                }
            }
        } else if let Err(error) = segments_of(reader, &log.id, &mut check).await {
            damage(verification, &format!("segments of log {} behind record {}", log.id, check.records()), error)?;
        }
        verification.done(check);
    }
    Ok(names)
}

async fn checkpoints_of(reader: &LedgerReader, log: &str, verification: &mut Verification) -> Result<(), StoreError> {
    let mut from = i64::MIN;
    loop {
        let checkpoints = reader.checkpoints(log, from).await?;
        checkpoints.iter().for_each(|checkpoint| verification.stored(log, checkpoint.size, &checkpoint.note));
        match checkpoints.last().and_then(|last| last.size.checked_add(1)) {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

async fn segments_of(reader: &LedgerReader, log: &str, check: &mut LogCheck) -> Result<(), StoreError> {
    let mut from = i64::MIN;
    loop {
        let segments = reader.segments(log, from).await?;
        segments.iter().for_each(|segment| check.stored(segment));
        match segments.last().and_then(|last| last.first.checked_add(1)) {
            Some(next) => from = next,
            None => return Ok(()),
        }
    }
}

/// A directory of ended logs: `<log>.log` with the records, `<log>.notes` with the checkpoints.
#[derive(Default)]
struct Archive {
    directory: PathBuf,
    logs: BTreeSet<LogId>,
}

impl Archive {
    fn open(directory: &Path) -> Result<Self, AuditError> {
        let unreadable = |error| AuditError::Read(directory.to_owned(), error);
        let mut logs = BTreeSet::new();
        for entry in std::fs::read_dir(directory).map_err(unreadable)? {
            let name = entry.map_err(unreadable)?.file_name();
            logs.extend(name.to_str().and_then(|name| name.strip_suffix(".log")?.parse().ok()));
        }
        Ok(Self { directory: directory.to_owned(), logs })
    }

    /// The checkpoints that were moved there. Whoever can write to the database may be able to write here.
    fn checkpoints(&self, verification: &mut Verification) -> Result<(), AuditError> {
        for log in &self.logs {
            let path = self.directory.join(format!("{log}.notes"));
            let file = match File::open(&path) {
                // A log that nobody had signed yet when it ended.
                Ok(file) if file.metadata().is_ok_and(|metadata| metadata.len() == 0) => continue,
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(AuditError::Read(path, error)),
            };
            match Published::read(BufReader::new(file)) {
                Ok(published) => {
                    for note in published.notes {
                        let size = Checkpoint::read_unverified(&note).map_or(0, |checkpoint| checkpoint.size);
                        verification.stored(log.as_str(), i64::try_from(size).unwrap_or(i64::MAX), &note);
                    }
                }
                Err(error) => verification.unreadable(path.display().to_string(), error.to_string()),
            }
        }
        Ok(())
    }

    /// The records of a log.
    fn read(&self, log: &LogId, check: &mut LogCheck) -> Result<(), AuditError> {
        let path = self.directory.join(format!("{log}.log"));
        let unreadable = |error| AuditError::Read(path.clone(), error);
        let mut file = File::open(&path).map_err(unreadable)?;
        let mut body = Vec::new();
        loop {
            let read = (&mut file).take(PIECE).read_to_end(&mut body).map_err(unreadable)?;
            let whole = if read == 0 { body.len() } else { memrchr(b'\n', &body).map_or(0, |end| end.saturating_add(1)) };
            let records = body.get(..whole).unwrap_or_default();
            if !records.is_empty() {
                let count = u64::try_from(memchr_iter(b'\n', records).count()).unwrap_or(u64::MAX);
                check.segment(&Segment { first: check.records(), count, body: records, hashes: None });
            }
            body.drain(..whole);
            if body.len() > RECORD_MAX {
                check.unreadable(path.display().to_string(), "a record is longer than any is");
                return Ok(());
            }
            if read == 0 {
                return Ok(());
            }
        }
    }
}

/// Checks a proof.
pub(super) fn proof(args: &VerifyProofArgs, out: &mut dyn Write) -> Result<u8, AuditError> {
    let (keys, _) = args.trust.read()?;
    let unreadable = |error| AuditError::Read(args.file.clone(), error);
    let mut text = String::new();
    if args.file == Path::new("-") {
        io::stdin().lock().take(PROOF_MAX).read_to_string(&mut text).map_err(unreadable)?;
    } else {
        File::open(&args.file).map_err(unreadable)?.take(PROOF_MAX).read_to_string(&mut text).map_err(unreadable)?;
    }
    let proof = Proof::parse(&text).map_err(AskError::from)?;
    let status = match proof.verify(&keys) {
        Ok(proven) => {
            let checkpoint = &proven.checkpoint;
            writeln!(out, "{}", json_line(&String::from_utf8_lossy(&proven.record)))?;
            writeln!(
                out,
                "PROVEN: this is record {} of log {} of {}, under its signed checkpoint of {} records",
                proven.index,
                checkpoint.log,
                crate::audit::plain::Plain(&checkpoint.name),
                checkpoint.size
            )?;
            0
        }
        // Another key may be the right one, and another file the proof.
        Err(error @ ProofError::Checkpoint(NoteError::UnknownKey | NoteError::Malformed(_) | NoteError::NoCheckpoint(_))) => {
            return Err(AskError::from(error).into());
        }
        Err(error) => {
            writeln!(out, "NOT PROVEN: {error}")?;
            1
        }
    };
    out.flush()?;
    Ok(status)
}
