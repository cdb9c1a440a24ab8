//! Checkpoints that were kept outside of the database, in any of the forms in which they are: the ConfigMap as YAML or JSON, notes one
//! after another, or the lines of the audit log.

use super::LogId;
use super::note::{Vkey, VkeyError};
use serde_json::Value;
use std::io::{self, BufRead, Read as _};

/// Largest file that is read as a whole, in bytes. The lines of an audit log may be more.
const WHOLE_MAX: u64 = 64 << 20;
/// Longest line of an audit log, in bytes. What is longer is no record of ours.
const LINE_MAX: u64 = 1 << 20;
/// What a line of a signature begins with.
const SIGNATURE: &str = "\u{2014} ";
/// The item of the ConfigMap with the verifier keys.
const VKEYS: &str = "vkeys";

/// Why a file holds no checkpoints.
#[derive(Debug, thiserror::Error)]
pub enum PublishedError {
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(#[from] io::Error),
    /// It has another form.
    #[error(
        "holds no checkpoints: give the ConfigMap as YAML or JSON (kubectl get configmap -o yaml), signed notes, or the audit log"
    )]
    Other,
    /// A verifier key in it is none.
    #[error("item vkeys: {0}")]
    Vkey(#[from] VkeyError),
}

/// What was found in a file. Nothing is verified.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Published {
    /// Signed notes.
    pub notes: Vec<String>,
    /// The verifier keys of a ConfigMap.
    pub vkeys: Vec<Vkey>,
}

impl Published {
    /// Reads a file.
    ///
    /// # Errors
    /// A [`PublishedError`].
    pub fn read(mut file: impl BufRead) -> Result<Self, PublishedError> {
        let mut line = Vec::new();
        while line.trim_ascii().is_empty() {
            line.clear();
            if file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Err(PublishedError::Other);
            }
        }
        if memchr::memmem::find(&line, b"\"event\":\"").is_some() {
            return Self::log(&line, file);
        }
        file.take(WHOLE_MAX).read_to_end(&mut line)?;
        let text = String::from_utf8(line).map_err(|_| PublishedError::Other)?;
        if text.lines().any(|line| line.starts_with(SIGNATURE)) {
            let notes = notes(&text);
            return if notes.is_empty() { Err(PublishedError::Other) } else { Ok(Self { notes, vkeys: Vec::new() }) };
        }
        let object = serde_json::from_str::<Value>(&text).or_else(|_| serde_saphyr::from_str::<Value>(&text));
        Self::config_map(&object.map_err(|_| PublishedError::Other)?)
    }

    /// The lines of an audit log, of which this is the first. Before each record there may be what a log shipper puts there.
    fn log(first: &[u8], mut file: impl BufRead) -> Result<Self, PublishedError> {
        let mut published = Self::default();
        let mut line = first.to_vec();
        loop {
            if memchr::memmem::find(&line, b"\"event\":\"ledger.checkpoint\"").is_some() {
                let start = line.iter().position(|b| *b == b'{').unwrap_or_default();
                let record = serde_json::from_slice::<Value>(line.get(start..).unwrap_or_default()).ok();
                published.notes.extend(record.and_then(|record| Some(record.get("note")?.as_str()?.to_owned())));
            }
            line.clear();
            if file.by_ref().take(LINE_MAX).read_until(b'\n', &mut line)? == 0 {
                return Ok(published);
            }
        }
    }

    fn config_map(object: &Value) -> Result<Self, PublishedError> {
        let data = object.get("data").and_then(Value::as_object).ok_or(PublishedError::Other)?;
        let texts = || data.iter().filter_map(|(name, value)| Some((name, value.as_str()?)));
        let vkeys = texts().filter(|(name, _)| *name == VKEYS).flat_map(|(_, text)| text.split_whitespace());
        Ok(Self {
            vkeys: vkeys.map(str::parse).collect::<Result<_, _>>()?,
            // Each under the name of its log. Other items are notes of the operator to itself.
            notes: texts().filter(|(name, _)| name.parse::<LogId>().is_ok()).map(|(_, note)| note.to_owned()).collect(),
        })
    }
}

/// Notes one after another: each ends with its last signature.
fn notes(text: &str) -> Vec<String> {
    let mut notes = Vec::new();
    let mut note = String::new();
    let mut is_signed = false;
    for line in text.lines() {
        let signs = line.starts_with(SIGNATURE);
        if is_signed && !signs {
            notes.push(std::mem::take(&mut note));
        }
        // Blank lines may stand between notes, and one belongs into each.
        if !(note.is_empty() && line.is_empty()) {
            note.push_str(line);
            note.push('\n');
        }
        is_signed = signs;
    }
    if !note.is_empty() {
        notes.push(note);
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::super::note::{Checkpoint, CheckpointKey};
    use super::*;

    fn key() -> CheckpointKey {
        CheckpointKey::from_pem("id.example", &CheckpointKey::generate_pem().expect("a key")).expect("a key")
    }

    fn read(text: &str) -> Result<Published, PublishedError> {
        Published::read(text.as_bytes())
    }

    #[test]
    fn checkpoints_are_found_in_every_form_in_which_they_are_kept() {
        let key = key();
        let log = |n: u8| format!("{n:032x}").parse().expect("a name");
        let kept = [key.sign(&log(1), 7, &[1; 32]), key.sign(&log(2), 1000, &[2; 32])];
        let indented = |note: &str| note.lines().map(|line| format!("    {line}\n")).collect::<String>();
        let yaml = format!(
            "apiVersion: v1\nkind: ConfigMap\ndata:\n  noted: |\n    a b 1\n  {}: |\n{}  {}: |\n{}  vkeys: |\n    {}\n",
            log(1),
            indented(&kept[0]),
            log(2),
            indented(&kept[1]),
            key.vkey()
        );
        let data = serde_json::json!({"vkeys": key.vkey().to_string(), log(1).as_str(): kept[0], log(2).as_str(): kept[1]});
        let json = serde_json::json!({"kind": "ConfigMap", "data": data});
        let record = |note: &str| serde_json::json!({"event": "ledger.checkpoint", "note": note}).to_string();
        let lines = format!(
            "{{\"event\":\"token.issue\"}}\n\n2026-11-24T12:00:00Z {}\nnoise\n{}",
            record(&kept[0]).replace('\u{2014}', "\\u2014"),
            record(&kept[1])
        );
        let forms = [
            yaml,
            json.to_string(),
            serde_json::to_string_pretty(&json).expect("JSON"),
            kept.concat(),
            format!("\n{}\n\n{}\n", kept[0], kept[1]),
            lines,
        ];
        for form in forms {
            let found = read(&form).unwrap_or_else(|error| panic!("{error}: {form}"));
            assert_eq!(found.notes, kept, "{form}");
            assert!(found.notes.iter().all(|note| Checkpoint::open(note, &[key.vkey()]).is_ok()));
            assert_eq!(found.vkeys.len(), usize::from(form.contains("ConfigMap")));
        }
    }

    #[test]
    fn what_holds_no_checkpoints_is_refused() {
        for bad in ["", "\n \n", "x", "[]", "{}", "{\"data\":[]}", "data: 1", "\u{2014} ", "{\"data\":{\"vkeys\":\"x\"}}"] {
            assert!(read(bad).is_err() || read(bad).is_ok_and(|found| found.notes == [bad.to_owned() + "\n"]), "{bad:?}");
        }
        assert!(Published::read(&b"\xff\xfe"[..]).is_err());
        // A log without checkpoints is one.
        assert_eq!(read("{\"event\":\"token.issue\"}\n").expect("a log"), Published::default());
    }

    proptest::proptest! {
        #[test]
        fn no_file_makes_the_reader_panic(text in "[\u{2014}\\PC\n ]{0,200}") {
            _ = read(&text);
        }
    }
}
