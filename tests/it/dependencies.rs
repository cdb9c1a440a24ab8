//! Dependencies that must not get in: `deny.toml` keeps them out. `make lint` runs the same program on what there is; here it meets what is
//! wrong. It installs the program, too: where it is not, nothing is shown.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The folder of the advisory database below the one that `db-path` names, for the address that cargo-deny has when none is given.
const DATABASE: &str = "advisory-db-3157b0e258782691";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Where `make lint` puts cargo-deny, or in `PATH`.
fn cargo_deny() -> Option<PathBuf> {
    let home = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let cache = home("COUNTERSIGN_CACHE")
        .or_else(|| home("XDG_CACHE_HOME").map(|cache| cache.join("countersign")))
        .or_else(|| home("HOME").map(|home| home.join(".cache/countersign")));
    let in_path = std::env::var_os("PATH").into_iter().flat_map(|path| std::env::split_paths(&path).collect::<Vec<_>>());
    let found = cache.into_iter().map(|cache| cache.join("tools/bin")).chain(in_path).map(|dir| dir.join("cargo-deny"));
    let found = found.into_iter().find(|program| program.is_file());
    if found.is_none() {
        eprintln!("NOT RUN: there is no cargo-deny; `make lint` installs it");
    }
    found
}

/// Whether a check of the package at `manifest` passes by `deny.toml` with some of its text replaced, and what it says.
fn check(program: &Path, manifest: &Path, replaced: (&str, &str), what: &str) -> (bool, String) {
    let scratch = tempfile::tempdir().expect("a directory");
    let rules = fs::read_to_string(repository().join("deny.toml")).expect("deny.toml");
    assert!(rules.contains(replaced.0), "{}", replaced.0);
    let config = scratch.path().join("deny.toml");
    fs::write(&config, rules.replacen(replaced.0, replaced.1, 1)).expect("written");
    let mut command = Command::new(program);
    command.arg("--manifest-path").arg(manifest).arg("--config").arg(&config).arg("--log-level=error");
    if manifest.starts_with(repository()) {
        command.args(["--locked", "--offline"]);
    }
    let output = command.args(["check", "--hide-inclusion-graph", what]).output().expect("cargo-deny runs");
    let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
    (output.status.success(), text)
}

/// Makes a folder a repository with one commit, and returns that.
fn commit(folder: &Path) -> String {
    let git = |arguments: &[&str]| {
        let who = ["-c", "user.name=test", "-c", "user.email=test@example.com"];
        let output = Command::new("git").args(who).args(arguments).current_dir(folder).output().expect("git runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
    };
    git(&["init", "--quiet", "--initial-branch=main"]);
    git(&["add", "--all"]);
    git(&["commit", "--quiet", "--message=test"]);
    git(&["rev-parse", "HEAD"])
}

/// A package with these dependencies.
fn package(folder: &Path, name: &str, dependencies: &str) -> PathBuf {
    fs::create_dir_all(folder.join("src")).expect("a directory");
    fs::write(folder.join("src/lib.rs"), "").expect("written");
    let manifest = folder.join("Cargo.toml");
    let text = format!(
        "[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2021\"\nlicense = \"MIT\"\npublish = false\n\n[dependencies]\n{dependencies}\n"
    );
    fs::write(&manifest, text).expect("written");
    manifest
}

#[test]
fn s1_an_advisory_about_a_dependency_is_an_error() {
    let Some(program) = cargo_deny() else { return };
    let databases = tempfile::tempdir().expect("a directory");
    let folder = databases.path().join(DATABASE);
    let file = folder.join("crates/serde/RUSTSEC-2026-9999.md");
    fs::create_dir_all(file.parent().expect("a directory")).expect("a directory");
    let own = format!("[advisories]\ndb-path = \"{}\"", databases.path().display());
    let said = |patched: &str| {
        let advisory = format!(
            "```toml\n[advisory]\nid = \"RUSTSEC-2026-9999\"\npackage = \"serde\"\ndate = \"2026-01-01\"\n\n[versions]\npatched = [\"{patched}\"]\n```\n\n# Of a test\n\nNothing.\n"
        );
        fs::write(&file, advisory).expect("written");
        commit(&folder);
        check(&program, &repository().join("Cargo.toml"), ("[advisories]", &own), "advisories")
    };
    let (passes, text) = said(">= 999.0.0");
    assert!(!passes && text.contains("RUSTSEC-2026-9999"), "{text}");
    let (_, text) = said(">= 0.0.1");
    assert!(!text.contains("RUSTSEC-2026-9999"), "{text}");
}

#[test]
fn s2_a_dependency_from_elsewhere_and_a_build_script_that_nobody_has_read_are_errors() {
    let Some(program) = cargo_deny() else { return };
    let scratch = tempfile::tempdir().expect("a directory");
    let elsewhere = scratch.path().join("elsewhere");
    package(&elsewhere, "elsewhere", "");
    fs::write(elsewhere.join("build.rs"), "fn main() {}\n").expect("written");
    let revision = commit(&elsewhere);
    let dependency = format!("elsewhere = {{ git = \"file://{}\", rev = \"{revision}\" }}", elsewhere.display());
    let manifest = package(&scratch.path().join("package"), "package", &dependency);
    let unchanged = ("[bans]", "[bans]");
    for (what, error) in [("sources", "source-not-allowed"), ("bans", "build-script-not-allowed")] {
        let (passes, text) = check(&program, &manifest, unchanged, what);
        assert!(!passes && text.contains(error), "{what}: {text}");
    }
    // And of what there is, each one that is not listed.
    let (passes, text) = check(&program, &repository().join("Cargo.toml"), ("\"aws-lc-sys\", ", ""), "bans");
    assert!(!passes && text.contains("crate 'aws-lc-sys"), "{text}");
    let (passes, text) = check(&program, &repository().join("Cargo.toml"), unchanged, "bans");
    assert!(passes, "{text}");
}

/// The actions in a workflow that are not named by a commit: a tag or a branch is whatever its owner says today.
fn unpinned(workflow: &str) -> Vec<&str> {
    let used = workflow.lines().filter_map(|line| line.trim_start().trim_start_matches("- ").strip_prefix("uses:"));
    let used = used.map(|action| action.split('#').next().unwrap_or_default().trim().trim_matches(['"', '\'']));
    let is_pinned = |action: &str| {
        let revision = action.rsplit_once('@').map_or("", |(_, revision)| revision);
        let is_commit = revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit());
        let is_digest = revision.strip_prefix("sha256:").is_some_and(|digest| digest.len() == 64);
        action.starts_with("./") || is_commit || is_digest
    };
    used.filter(|action| !is_pinned(action)).collect()
}

#[test]
fn s3_no_step_of_continuous_integration_is_named_by_a_tag() {
    let commit = "a".repeat(40);
    let text = format!(
        "steps:\n- uses: good/one@{commit} # v1\n  - uses: ./here\n- uses: bad/tag@v4\n  uses: \"bad/branch@main\"\n- uses: bad/none\n"
    );
    assert_eq!(unpinned(&text), ["bad/tag@v4", "bad/branch@main", "bad/none"]);
    let listed = Command::new("git").args(["ls-files"]).current_dir(repository()).output().expect("git runs");
    let listed = String::from_utf8(listed.stdout).expect("UTF-8");
    let is_workflow = |name: &&str| [".github/", ".gitlab", ".ci/", ".forgejo/"].iter().any(|place| name.starts_with(place));
    let workflows: Vec<&str> = listed.lines().filter(is_workflow).collect();
    assert!(!workflows.is_empty(), "where is continuous integration?");
    for name in workflows {
        let text = fs::read_to_string(repository().join(name)).expect(name);
        assert_eq!(unpinned(&text), Vec::<&str>::new(), "{name}");
    }
}

#[test]
fn s6_every_library_that_takes_its_cryptography_from_another_has_one_and_that_is_aws_lc() {
    // Without one, or with two, they compile, and panic at their first use.
    let arguments = ["metadata", "--locked", "--offline", "--format-version=1", "--manifest-path"];
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).arg(repository().join("Cargo.toml")).output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let nodes = metadata["resolve"]["nodes"].as_array().expect("nodes");
    for library in ["jsonwebtoken", "rustls", "tokio-rustls", "rcgen", "rustls-webpki"] {
        let is_it = |node: &&serde_json::Value| node["id"].as_str().is_some_and(|id| id.contains(&format!("#{library}@")));
        let found: Vec<_> = nodes.iter().filter(is_it).collect();
        assert!(!found.is_empty(), "{library} is not there any more");
        for node in found {
            let features: Vec<String> = serde_json::from_value(node["features"].clone()).expect("features");
            let has = |names: &[&str]| features.iter().any(|feature| names.contains(&feature.as_str()));
            assert!(has(&["aws_lc_rs", "aws-lc-rs"]), "{library}: {features:?}");
            assert!(!has(&["ring", "rust_crypto"]), "{library}: {features:?}");
        }
    }
}
