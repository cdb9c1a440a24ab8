//! The harness of the tests that drive Chromium: it sees what must not happen.

use crate::support::browser::Scenario;
use crate::support::certificates;
use serde_json::json;

#[test]
fn the_browser_finds_what_must_not_happen_and_trusts_nobody_else() {
    let directory = tempfile::tempdir().expect("a directory");
    certificates::write_files(directory.path()).expect("a certificate");
    let settings = json!({"portal": "https://127.0.0.1", "certificate": directory.path()});
    let authority = directory.path().join("ca.crt");
    for (name, authorities) in
        [("what must not happen is found", &[authority.as_path()][..]), ("a server of another authority is not trusted", &[])]
    {
        let scenario = Scenario::start("harness.mjs", name, authorities, &settings).expect("started");
        scenario.ends().expect("it ends well");
    }
}
