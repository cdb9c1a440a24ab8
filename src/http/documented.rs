//! The manual has every code and every path that is in the source.

use regex_lite::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    std::fs::read_to_string(repository().join("docs").join(name)).expect("a page")
}

/// The sources below a folder with their texts, without tests.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            let text = std::fs::read_to_string(&path).expect("a source");
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default().to_owned();
            found.push((path, text));
        }
    }
    found
}

/// All that the groups of a pattern match.
fn groups<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
    let pattern = Regex::new(pattern).expect("a pattern");
    pattern
        .captures_iter(text)
        .flat_map(|found| found.iter().skip(1).flatten().map(|group| group.as_str()).collect::<Vec<_>>())
        .collect()
}

/// Every error code and every reason that the source writes as a literal, in one of the ways in which it does.
fn codes() -> BTreeSet<String> {
    // Where a function that names what it returns has them as arms.
    const NAMED: [&str; 6] =
        ["decision/reason.rs", "identity/mod.rs", "dpop/proof.rs", "jit/status.rs", "ask/mod.rs", "audit/ledger/opening.rs"];
    let mut codes = BTreeSet::new();
    for (path, text) in sources(&repository().join("src")) {
        let mut take = |pattern: &str| codes.extend(groups(pattern, &text).into_iter().map(str::to_owned));
        take(r#"Refusal::(?:new|unauthenticated|unavailable|limited)\(\s*"([a-z_]+)"(?:,\s*"([a-z_]+)")?"#);
        take(r#"conclude\([^;"\n]*"([a-z_]+)"(?: \} else \{ "([a-z_]+)" \})?"#);
        take(r#"Self::new\("([a-z_]+)", "([a-z_]+)""#);
        take(r#"\bend\([^;"\n]*"([a-z_]+)""#);
        if NAMED.iter().any(|named| path.ends_with(named)) {
            take(r#"=> "([a-z_]+)""#);
            take(r#"=> \("[A-Za-z]+", "([a-z_]+)"\)"#);
        }
        if path.components().any(|part| part.as_os_str() == "http") {
            take(r#"\b(?:refused|refusal|refusal_of_proof|refuse|foreign|no|ok_or|Err)\(\s*"([a-z]+_[a-z_]+)""#);
            take(r#"\bbeyond\("[a-z_]+", "([a-z_]+)""#);
            take(r#"=> \("([a-z_]+)", "([a-z_]+)"\)"#);
            take(r#"malformed = "([a-z_]+)""#);
            take(r#"Refusal::new\([a-z_.]+, "([a-z_]+)""#);
            take(r#"Self \{ error: "([a-z_]+)""#);
        }
    }
    codes
}

#[test]
fn every_error_and_reason_is_explained() {
    let codes = codes();
    for known in [
        "invalid_scope",
        "approver_lost_right",
        "agent_rate_limited",
        "state_wrong",
        "caller_may_not_evaluate",
        "in_force",
        "evidence_missing",
    ] {
        assert!(codes.contains(known), "the source is written in a way that this test does not find: {known}");
    }
    let page = page("errors.md");
    let unexplained: Vec<_> = codes.iter().filter(|code| !page.contains(&format!("`{code}`"))).collect();
    assert!(unexplained.is_empty(), "docs/errors.md does not explain {unexplained:?}");
}

#[test]
fn every_path_is_on_the_page_of_endpoints() {
    let page = page("reference-api.md");
    let mut paths = BTreeSet::new();
    for (_, text) in sources(&repository().join("src")) {
        paths.extend(groups(r#"\.route\("([^"]+)""#, &text).into_iter().map(str::to_owned));
    }
    paths.extend([
        super::token::PATH.to_owned(),
        "/api/v1/agents/{namespace}/{name}".to_owned(),
        "/api/v1/openapi.json".to_owned(),
    ]);
    assert!(paths.len() > 20, "{paths:?}");
    // All below the portal is one row.
    let missing: Vec<_> = paths.iter().filter(|path| !path.starts_with("/portal/") && !page.contains(path.as_str())).collect();
    assert!(missing.is_empty(), "docs/reference-api.md does not have {missing:?}");
}
