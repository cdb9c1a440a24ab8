//! `countersign keygen` and `countersign assert`, run as people run them, with tools of others on the other end.

use crate::support::repository;
use crate::world::{World, binary};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use countersign::agent_key::{AgentKey, AgentSecretKey};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

const AGENT: &str = "agent:research/laptop";
const ISSUER: &str = "https://countersign.example.com";

/// A directory in which commands run.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect(name)
    }

    fn write(&self, name: &str, text: &str, mode: u32) {
        fs::write(self.path(name), text).expect(name);
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(mode)).expect(name);
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path(name)).expect(name).permissions().mode() & 0o7777
    }

    fn files(&self) -> Vec<String> {
        let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("an entry").file_name().to_string_lossy().into_owned();
        fs::read_dir(self.0.path()).expect("the directory").map(name).collect()
    }

    fn command(&self, program: impl AsRef<Path>, args: &[&str]) -> Output {
        Command::new(program.as_ref()).args(args).current_dir(self.0.path()).output().expect("it runs")
    }

    /// Standard output of a command that succeeds.
    fn run(&self, program: impl AsRef<Path>, args: &[&str]) -> String {
        let output = self.command(program, args);
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        text(&output.stdout)
    }

    /// Standard error of ours, which must fail and print nothing else.
    fn refusal(&self, args: &[&str]) -> String {
        let output = self.command(binary(), args);
        assert!(!output.status.success() && output.stdout.is_empty(), "{args:?} was not refused");
        text(&output.stderr)
    }

    fn assert(&self, file: &str, more: &[&str]) -> String {
        let args = ["assert", "--private-key", file, "--client-id", AGENT, "--issuer", ISSUER];
        self.run(binary(), &[&args, more].concat())
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).expect("text")
}

/// The one entry that keygen printed.
fn entry(printed: &str) -> Value {
    let entries: Value = serde_saphyr::from_str(printed).expect("YAML");
    assert_eq!(entries.as_array().map(Vec::len), Some(1), "{printed}");
    entries[0].clone()
}

fn public_key(entry: &Value) -> AgentKey {
    AgentKey::parse(entry["publicKey"].as_str().expect("a key")).expect("a good key")
}

/// Header and claims, unverified.
fn parts(assertion: &str) -> [Value; 2] {
    let part = |at: usize| {
        let part = assertion.trim_end().split('.').nth(at).expect("a part");
        serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64url")).expect("JSON")
    };
    [part(0), part(1)]
}

#[test]
fn a_private_key_is_for_its_owner_alone_and_openssl_reads_both_halves() {
    let desk = Desk::new();
    // Whatever the umask says.
    let script = "umask 000; exec \"$0\" keygen --private-key key.pem";
    let printed = desk.run("sh", &["-c", script, binary().to_str().expect("text")]);
    assert_eq!(desk.mode("key.pem"), 0o600);
    assert!(!printed.contains("PRIVATE"), "{printed}");

    let entry = entry(&printed);
    let key = public_key(&entry);
    assert_eq!(entry["kid"], key.thumbprint());
    assert_eq!(entry.as_object().expect("an object").len(), 2, "{entry}");
    assert_eq!(AgentSecretKey::from_pem(&desk.read("key.pem")).expect("a key").public(), key);
    assert_eq!(desk.run("openssl", &["pkey", "-in", "key.pem", "-pubout"]), key.to_pem());
    assert_eq!(desk.run("openssl", &["pkey", "-in", "key.pem"]), desk.read("key.pem"));
    desk.write("public.pem", &key.to_pem(), 0o644);
    assert!(desk.run("openssl", &["pkey", "-pubin", "-in", "public.pem", "-noout", "-text"]).starts_with("ED25519 Public-Key"));
}

#[test]
fn the_entry_carries_the_name_and_the_end_that_were_asked_for() {
    let desk = Desk::new();
    let printed =
        desk.run(binary(), &["keygen", "--private-key", "a.pem", "--kid", "2026-11-01", "--not-after", "2099-03-01T00:00:00Z"]);
    let entry = entry(&printed);
    assert_eq!(entry["kid"], "2026-11-01");
    assert_eq!(entry["notAfter"], "2099-03-01T00:00:00Z");
    assert!(printed.starts_with("# Paste this under spec.identity.keys of the Agent:\n"), "{printed}");
    // One in 64 thumbprints begins like a flag.
    desk.run(binary(), &["keygen", "--private-key", "b.pem", "--kid", "-dash"]);
    assert_eq!(parts(&desk.assert("b.pem", &["--kid", "-dash"]))[0]["kid"], "-dash");
}

#[test]
fn the_printed_command_adds_the_key_to_an_agent() {
    let world = World::shared();
    let (desk, tenant) = (Desk::new(), world.tenant("keygen"));
    for (file, end) in [("first.pem", "90d"), ("second.pem", "2099-03-01T00:00:00Z")] {
        let printed = desk.run(binary(), &["keygen", "--private-key", file, "--not-after", end]);
        let command = printed.lines().find_map(|line| line.strip_prefix("#   kubectl ")).expect("a command");
        let filled = command.replace("agent NAME", "agent bot").replace("NAMESPACE", &tenant.namespace);
        // A shell reads it, as a person's would.
        let script = format!("kubectl --kubeconfig \"$0\" {filled}");
        let kubeconfig = world.kubectl().kubeconfig().to_str().expect("text").to_owned();
        desk.run("sh", &["-c", &script, &kubeconfig]);
        let agent = world.kubectl().get_json(&["get", "agent", "bot", "--namespace", &tenant.namespace]).expect("the Agent");
        let keys = agent["spec"]["identity"]["keys"].as_array().expect("keys");
        assert_eq!(keys.last(), Some(&entry(&printed)));
        assert_eq!(keys.len(), 1 + usize::from(file == "second.pem"));
    }
}

#[test]
fn keygen_never_overwrites_anything() {
    let desk = Desk::new();
    desk.write("key.pem", "precious", 0o644);
    symlink("nowhere", desk.path("link.pem")).expect("a link");
    for target in ["key.pem", "link.pem", "."] {
        for args in [vec!["keygen", "--private-key", target], vec!["keygen", "--secret", target, "--secret-name", "a"]] {
            let error = desk.refusal(&args);
            assert!(error.starts_with(&format!("countersign: {target}: exists already")), "{error}");
        }
    }
    assert_eq!((desk.read("key.pem").as_str(), desk.mode("key.pem")), ("precious", 0o644));
    assert!(!desk.path("nowhere").exists(), "a link was followed");
}

#[test]
fn a_file_that_cannot_be_written_whole_does_not_stay() {
    let desk = Desk::new();
    // The file may be made, but have no bytes.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" keygen --private-key key.pem";
    let output = desk.command("sh", &["-c", script, binary().to_str().expect("text")]);
    let error = text(&output.stderr);
    assert!(!output.status.success() && output.stdout.is_empty());
    assert!(error.starts_with("countersign: key.pem: cannot be written: File too large"), "{error}");
    assert!(desk.files().is_empty(), "{:?}", desk.files());
    let error = desk.refusal(&["keygen", "--private-key", "no/such/key.pem"]);
    assert!(error.starts_with("countersign: no/such/key.pem: cannot be written: No such file or directory"), "{error}");
}

#[test]
fn a_secret_can_be_piped_into_kubectl_and_what_is_in_it_signs() {
    let world = World::shared();
    let (desk, namespace, kubectl) = (Desk::new(), world.namespace("keygen"), world.kubectl());
    let output = desk.command(
        binary(),
        &["keygen", "--secret", "-", "--secret-name", "laptop-key", "--secret-namespace", &namespace, "--kid", "1.10"],
    );
    assert!(output.status.success());
    let (manifest, entry) = (text(&output.stdout), entry(&text(&output.stderr)));
    assert!(!text(&output.stderr).contains("PRIVATE"));
    assert!(desk.files().is_empty(), "nothing is left on the disk");

    kubectl.run_with_input(&["apply", "--dry-run=client", "-f", "-"], &manifest).expect("kubectl reads it");
    kubectl.run_with_input(&["create", "-f", "-"], &manifest).expect("created");
    let again = kubectl.run_with_input(&["create", "-f", "-"], &manifest).expect_err("create overwrites nothing");
    assert!(again.stderr.contains("AlreadyExists"), "{again}");
    let secret = kubectl.get_json(&["get", "secret", "laptop-key", "--namespace", &namespace]).expect("the Secret");
    assert_eq!(secret["type"], "Opaque");
    let data = secret["data"].as_object().expect("data");
    assert_eq!(data.keys().collect::<Vec<_>>(), ["private-key.pem"]);
    let pem = text(&STANDARD.decode(data["private-key.pem"].as_str().expect("text")).expect("base64"));
    assert_eq!(AgentSecretKey::from_pem(&pem).expect("a key").public(), public_key(&entry));
    assert_eq!(entry["kid"], "1.10");

    let printed = desk.run(binary(), &["keygen", "--secret", "secret.yaml", "--secret-name", "laptop-key"]);
    assert_eq!(desk.mode("secret.yaml"), 0o600);
    assert!(!printed.contains("PRIVATE") && desk.read("secret.yaml").contains("PRIVATE"));
    let dry_run = ["apply", "--dry-run=client", "-f", desk.path("secret.yaml").to_str().expect("text")].map(str::to_owned);
    kubectl.run(&dry_run.each_ref().map(String::as_str)).expect("kubectl reads it");
}

#[test]
fn keygen_wants_one_target_and_sensible_flags() {
    let desk = Desk::new();
    for args in [
        vec![],
        vec!["--secret", "-"],
        vec!["--secret-name", "a"],
        vec!["--private-key", "a.pem", "--secret", "b.yaml", "--secret-name", "b"],
        vec!["--private-key", "a.pem", "--secret-name", "b"],
        vec!["--private-key", "a.pem", "--secret-namespace", "b"],
        vec!["--private-key", "-"],
        vec!["--secret", "b.yaml", "--secret-name", "B"],
        vec!["--secret", "b.yaml", "--secret-name", "a\"\ndata:"],
        vec!["--secret", "b.yaml", "--secret-name", "b", "--secret-namespace", "b.c"],
        vec!["--private-key", "a.pem", "--kid", ""],
        vec!["--private-key", "a.pem", "--kid", "a b"],
        vec!["--private-key", "a.pem", "--kid", "a'"],
        vec!["--private-key", "a.pem", "--kid", &"k".repeat(65)],
        vec!["--private-key", "a.pem", "--not-after", "2020-01-01T00:00:00Z"],
        vec!["--private-key", "a.pem", "--not-after", "soon"],
    ] {
        desk.refusal(&[&["keygen"], args.as_slice()].concat());
        assert!(desk.files().is_empty(), "{args:?} left something");
    }
}

#[test]
fn an_assertion_verifies_with_jose_and_openssl_and_says_what_rfc_7523_wants() {
    let desk = Desk::new();
    let key = public_key(&entry(&desk.run(binary(), &["keygen", "--private-key", "key.pem"])));
    let assertion = desk.assert("key.pem", &["--kid", "2026-11"]);
    assert!(assertion.ends_with('\n'));
    desk.write("public.pem", &key.to_pem(), 0o644);
    desk.write("assertion", &assertion, 0o600);

    let mut jose = Command::new("node");
    jose.arg(repository().join("tests/clients/assertion.mjs"))
        .env("PUBLIC_KEY_FILE", desk.path("public.pem"))
        .env("ASSERTION_FILE", desk.path("assertion"))
        .env("AGENT", AGENT)
        .env("AUDIENCE", ISSUER);
    let output = jose.output().expect("node");
    assert!(output.status.success(), "{} (run `make clients` if a package is missing)", text(&output.stderr));
    let verified: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let [header, claims] = parts(&assertion);
    assert_eq!((&verified["protectedHeader"], &verified["payload"]), (&header, &claims));
    assert_eq!(header, serde_json::json!({"alg": "EdDSA", "typ": "client-authentication+jwt", "kid": "2026-11"}));
    let mut names: Vec<&String> = claims.as_object().expect("claims").keys().collect();
    names.sort();
    assert_eq!(names, ["aud", "exp", "iat", "iss", "jti", "sub"]);
    assert_eq!(claims["exp"].as_u64().expect("exp") - claims["iat"].as_u64().expect("iat"), 60);
    assert_eq!(URL_SAFE_NO_PAD.decode(claims["jti"].as_str().expect("jti")).expect("base64url").len(), 16);

    let (signed, signature) = assertion.trim_end().rsplit_once('.').expect("three parts");
    desk.write("signed", signed, 0o600);
    fs::write(desk.path("signature"), URL_SAFE_NO_PAD.decode(signature).expect("base64url")).expect("written");
    let verify = ["pkeyutl", "-verify", "-rawin", "-pubin", "-inkey", "public.pem", "-in", "signed", "-sigfile", "signature"];
    desk.run("openssl", &verify);

    // The next is another, and lives as long as it was told to.
    let [header, next] = parts(&desk.assert("key.pem", &["--lifetime", "10s"]));
    assert_eq!(header.get("kid"), None);
    assert_ne!(next["jti"], claims["jti"]);
    assert_eq!(next["exp"].as_u64().expect("exp") - next["iat"].as_u64().expect("iat"), 10);
}

#[test]
fn a_key_that_openssl_made_signs_too() {
    let desk = Desk::new();
    desk.run("openssl", &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]);
    fs::set_permissions(desk.path("key.pem"), fs::Permissions::from_mode(0o600)).expect("its mode");
    let public = AgentKey::parse(&desk.run("openssl", &["pkey", "-in", "key.pem", "-pubout"])).expect("a key");
    let assertion = desk.assert("key.pem", &[]);
    let (signed, signature) = assertion.trim_end().rsplit_once('.').expect("three parts");
    assert!(public.verify(signed.as_bytes(), &URL_SAFE_NO_PAD.decode(signature).expect("base64url")));
}

#[test]
fn a_private_key_that_others_may_read_is_not_used() {
    let desk = Desk::new();
    desk.run(binary(), &["keygen", "--private-key", "key.pem"]);
    let pem = desk.read("key.pem");
    let secret = pem.lines().nth(1).expect("base64");
    symlink("key.pem", desk.path("link.pem")).expect("a link");
    let assert = |file| ["assert", "--private-key", file, "--client-id", AGENT, "--issuer", ISSUER];
    for mode in [0o640, 0o604, 0o660, 0o644, 0o620, 0o602, 0o610, 0o601, 0o440, 0o777] {
        fs::set_permissions(desk.path("key.pem"), fs::Permissions::from_mode(mode)).expect("its mode");
        for file in ["key.pem", "link.pem"] {
            let error = desk.refusal(&assert(file));
            assert!(error.starts_with(&format!("countersign: {file}: its mode is {mode:04o}")), "{error}");
            assert!(error.contains("chmod 600") && !error.contains(secret), "{error}");
        }
    }
    for mode in [0o400, 0o600, 0o700] {
        fs::set_permissions(desk.path("key.pem"), fs::Permissions::from_mode(mode)).expect("its mode");
        desk.assert("link.pem", &[]);
    }
}

#[test]
fn what_is_no_private_key_is_named_and_not_shown() {
    let desk = Desk::new();
    let key = AgentSecretKey::generate().expect("a key");
    let seed = key.to_pem().lines().nth(1).expect("base64").to_owned();
    desk.run("openssl", &["genpkey", "-algorithm", "RSA", "-out", "rsa"]);
    desk.run("openssl", &["genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:x", "-out", "encrypted"]);
    for file in ["rsa", "encrypted"] {
        fs::set_permissions(desk.path(file), fs::Permissions::from_mode(0o600)).expect("its mode");
    }
    fs::create_dir(desk.path("folder")).expect("a folder");
    fs::set_permissions(desk.path("folder"), fs::Permissions::from_mode(0o700)).expect("its mode");
    desk.write("public", &key.public().to_pem(), 0o600);
    desk.write("empty", "", 0o600);
    desk.write("twice", &key.to_pem().repeat(2), 0o600);
    desk.write("der", "", 0o600);
    fs::write(desk.path("der"), STANDARD.decode(&seed).expect("base64")).expect("written");
    desk.write("huge", &key.to_pem().repeat(10_000), 0o600);
    for (file, reason) in [
        ("rsa", "this is a private key of the kind RSA"),
        ("encrypted", "the private key is encrypted"),
        ("public", "this is the public key"),
        ("empty", "no Ed25519 private key in PKCS#8 PEM"),
        ("twice", "no Ed25519 private key in PKCS#8 PEM"),
        ("der", "no Ed25519 private key in PKCS#8 PEM"),
        ("huge", "no Ed25519 private key in PKCS#8 PEM"),
        ("missing", "cannot be read: No such file or directory"),
        ("folder", "cannot be read: Is a directory"),
    ] {
        let error = desk.refusal(&["assert", "--private-key", file, "--client-id", AGENT, "--issuer", ISSUER]);
        assert!(error.starts_with(&format!("countersign: {file}: {reason}")), "{error}");
        assert!(!error.contains(&seed), "{error}");
    }
}

#[test]
fn an_assertion_is_for_one_agent_and_one_issuer() {
    let desk = Desk::new();
    desk.run(binary(), &["keygen", "--private-key", "key.pem"]);
    let good = ["--client-id", AGENT, "--issuer", ISSUER, "--lifetime", "60s", "--kid", "a"];
    for (flag, bad) in [
        ("--client-id", "research/laptop"),
        ("--client-id", "agent:Research/laptop"),
        ("--client-id", ""),
        ("--issuer", "http://countersign.example.com"),
        ("--issuer", "https://countersign.example.com/"),
        ("--lifetime", "61s"),
        ("--lifetime", "0s"),
        ("--kid", "a b"),
    ] {
        let mut args = good.to_vec();
        let at = args.iter().position(|arg| *arg == flag).expect("the flag");
        args[at + 1] = bad;
        let error = desk.refusal(&[&["assert", "--private-key", "key.pem"], args.as_slice()].concat());
        assert!(error.contains(flag), "{error}");
    }
    assert!(desk.refusal(&["assert", "--private-key", "key.pem", "--issuer", ISSUER]).contains("--client-id"));
    assert!(desk.refusal(&["assert", "--private-key", "key.pem", "--client-id", AGENT]).contains("--issuer"));
}
