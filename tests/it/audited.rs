//! What the tests of the ledger share: a whole ledger read from its database, held against itself.

use crate::support::install::NAMESPACE;
use crate::world::World;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use countersign::audit::ledger::log::Head;
use countersign::audit::ledger::note::{Checkpoint, Vkey};
use countersign::audit::ledger::tree::{Tree, leaf_hash};
use countersign::store::{LedgerReader, StoredCheckpoint, StoredLog};
use serde_json::Value;
use std::collections::BTreeMap;

/// A log as it is stored.
pub struct Log {
    pub row: StoredLog,
    pub records: Vec<Value>,
    pub checkpoints: Vec<StoredCheckpoint>,
}

/// A ledger as it is stored, the oldest log first.
pub struct Ledger {
    pub logs: Vec<Log>,
    /// The root of each log at each of its sizes, from none to all.
    roots: BTreeMap<String, Vec<[u8; 32]>>,
}

impl Ledger {
    /// Reads all of it. Fails unless each log is whole: numbers without a gap, the stored hashes those of the records, the stored root that
    /// over them, and the end of each log in the first records of its successor.
    pub async fn read(url: &str) -> Self {
        let reader = LedgerReader::open(&url.parse().expect("a URL")).await.expect("it opens");
        assert_eq!(reader.strays().await.expect("an answer"), Vec::<String>::new());
        let (mut logs, mut roots) = (Vec::new(), BTreeMap::new());
        for row in reader.logs().await.expect("an answer") {
            let (mut tree, mut records, mut next) = (Tree::new(), Vec::new(), 0);
            let mut all = vec![tree.root()];
            loop {
                let segments = reader.segments(&row.id, next).await.expect("an answer");
                let Some(last) = segments.last() else { break };
                next = last.first + 1;
                for segment in segments {
                    assert_eq!(segment.first, i64::try_from(records.len()).expect("small"), "{}", row.id);
                    let body = String::from_utf8(segment.body).expect("text");
                    let lines: Vec<&str> = body.split_terminator('\n').collect();
                    assert!(body.ends_with('\n') && lines.len() == usize::try_from(segment.count).expect("small"));
                    for (line, hash) in lines.iter().zip(segment.hashes.chunks_exact(32)) {
                        let record: Value = serde_json::from_str(line).expect("JSON");
                        assert_eq!((&record["log"], &record["seq"]), (&row.id.as_str().into(), &records.len().into()));
                        let leaf = leaf_hash(line.as_bytes());
                        assert_eq!(hash, leaf, "{line}");
                        tree.append(leaf);
                        all.push(tree.root());
                        records.push(record);
                    }
                    assert_eq!(segment.hashes.len(), 32 * lines.len());
                }
            }
            assert_eq!(
                (row.size, &row.root),
                (i64::try_from(records.len()).expect("small"), &tree.root().to_vec()),
                "{}",
                row.id
            );
            let checkpoints = reader.checkpoints(&row.id, 0).await.expect("an answer");
            roots.insert(row.id.clone(), all);
            logs.push(Log { row, records, checkpoints });
        }
        let ledger = Self { logs, roots };
        ledger.check_successions();
        ledger
    }

    /// Each log that ended is named by its successor, as it ended, and no other.
    fn check_successions(&self) {
        for log in &self.logs {
            let Some(by) = log.row.sealed_by.as_ref().filter(|by| **by != log.row.id) else { continue };
            let next = self.log(by);
            let named: Vec<&Value> = next.records.iter().filter(|r| r["predecessor"] == log.row.id.as_str()).collect();
            let [named] = named[..] else { panic!("{} is named {} times by {by}", log.row.id, named.len()) };
            assert_eq!(named["event"], "ledger.opened");
            assert_eq!(
                (&named["predecessor_size"], &named["predecessor_root"]),
                (&log.row.size.into(), &STANDARD.encode(&log.row.root).into())
            );
        }
    }

    pub fn log(&self, id: &str) -> &Log {
        self.logs.iter().find(|log| log.row.id == id).unwrap_or_else(|| panic!("there is no log {id}"))
    }

    /// All records of all logs.
    pub fn records(&self) -> impl Iterator<Item = &Value> {
        self.logs.iter().flat_map(|log| &log.records)
    }

    /// How often there is a record with this text.
    pub fn count(&self, field: &str, value: &str) -> usize {
        self.records().filter(|record| record[field] == value).count()
    }

    /// Fails unless every checkpoint, stored or of `published`, is signed with one of `keys` and true.
    pub fn check(&self, keys: &[Vkey], published: &[Head]) {
        let stored = self.logs.iter().flat_map(|log| {
            log.checkpoints.iter().map(|stored| {
                let Checkpoint { log: id, size, root, .. } = Checkpoint::open(&stored.note, keys).expect("a checkpoint");
                assert_eq!((id.as_str(), i64::try_from(size).expect("small")), (log.row.id.as_str(), stored.size));
                Head { log: id, size, root }
            })
        });
        for head in stored.chain(published.iter().cloned()) {
            let roots = self.roots.get(head.log.as_str()).unwrap_or_else(|| panic!("there is no log {}", head.log));
            let root = roots.get(usize::try_from(head.size).expect("small"));
            assert_eq!(root, Some(&head.root), "{} at {}", head.log, head.size);
        }
    }
}

/// What is published: the keys, and the newest checkpoint of each log.
pub fn published(world: &World) -> (Vec<Vkey>, Vec<Head>) {
    let data = published_items(world);
    let keys: Vec<Vkey> = data["vkeys"].as_str().unwrap_or_default().lines().map(|line| line.parse().expect("a key")).collect();
    let notes = data.as_object().into_iter().flatten().filter(|(name, _)| name.len() == 32);
    let open = |(name, note): (&String, &Value)| {
        let Checkpoint { log, size, root, .. } = Checkpoint::open(note.as_str().expect("text"), &keys).expect("a checkpoint");
        assert_eq!(log.as_str(), name);
        Head { log, size, root }
    };
    let heads = notes.map(open).collect();
    (keys, heads)
}

/// The items of the ConfigMap.
pub fn published_items(world: &World) -> Value {
    let config_map =
        world.kubectl().get_json(&["get", "configmap", "countersign-audit", "-n", NAMESPACE]).expect("the ConfigMap");
    config_map["data"].clone()
}

/// A number among the metrics of the operator.
pub fn metric(world: &World, name: &str) -> u64 {
    world.operator.metric(name).expect("a number")
}
