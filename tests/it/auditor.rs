//! What the tests of reading share: somebody who may read the ledger, and the command with which they do.

use crate::world::{Reply, World, binary};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// What a command did.
#[derive(Debug)]
pub struct Ran {
    pub status: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Ran {
    /// What it printed; fails unless it ended with this status.
    #[track_caller]
    pub fn expect(self, status: i32) -> String {
        assert_eq!(self.status, Some(status), "{}{}", self.out, self.err);
        self.out
    }

    /// The records that it printed as JSON.
    #[track_caller]
    pub fn records(self) -> Vec<Value> {
        let out = self.expect(0);
        out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
    }
}

/// Runs `countersign audit`.
pub fn audit(args: &[&str]) -> Ran {
    let mut command = Command::new(binary());
    let output = command.arg("audit").args(args).env_clear().stdin(Stdio::null()).output().expect("it runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    let ran = Ran { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) };
    // L10, whatever it was asked.
    for text in [&ran.out, &ran.err] {
        let proof = text.starts_with("c2sp.org/");
        assert!(proof || text.bytes().all(|b| matches!(b, b' '..=b'~' | b'\n')), "{text}");
    }
    ran
}

/// A ServiceAccount that may read the ledger.
pub struct Auditor<'a> {
    world: &'a World,
    pub name: String,
    pub token: String,
    directory: tempfile::TempDir,
}

impl<'a> Auditor<'a> {
    pub fn of(world: &'a World, purpose: &str) -> Self {
        let auditor = Self::without_right(world, purpose);
        let namespace = auditor.name.split(':').nth(2).expect("a namespace");
        let subject = json!({"kind": "ServiceAccount", "name": "auditor", "namespace": namespace});
        world.bind_cluster_role_everywhere(namespace, "countersign-auditor", &[subject]);
        auditor
    }

    /// One who may not.
    pub fn without_right(world: &'a World, purpose: &str) -> Self {
        let namespace = world.namespace(purpose);
        let kubectl = world.kubectl();
        crate::support::workload::create_service_account(&kubectl, &namespace, "auditor").expect("a ServiceAccount");
        let token = kubectl.run(&["create", "token", "auditor", "-n", &namespace]).expect("a token").trim().to_owned();
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join("token"), format!("{token}\n")).expect("written");
        Self { world, name: format!("system:serviceaccount:{namespace}:auditor"), token, directory }
    }

    /// Runs `countersign audit` against the operator.
    pub fn audit(&self, args: &[&str]) -> Ran {
        let token = self.directory.path().join("token");
        let place = [
            format!("--server={}", self.world.operator.url()),
            format!("--ca={}", self.world.operator.ca_file().display()),
            format!("--token-file={}", token.display()),
        ];
        let place: Vec<&str> = place.iter().map(String::as_str).collect();
        audit(&[args, &place].concat())
    }

    /// GETs what is below `/audit/v1/`.
    pub fn get(&self, path: &str) -> Reply {
        get(self.world, path, Some(&self.token))
    }

    /// A file for it to read.
    pub fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.directory.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }
}

/// GETs what is below `/audit/v1/` with this token.
pub fn get(world: &World, path: &str, token: Option<&str>) -> Reply {
    let request = world.http.get(format!("{}/audit/v1/{path}", world.operator.url()));
    let request = token
        .map_or_else(|| request.try_clone().expect("no body"), |token| request.try_clone().expect("no body").bearer_auth(token));
    request.send().expect("an answer").into()
}
