//! Faults of everything that Countersign depends on, and of itself, under load. What must hold afterwards is checked from the outside
//! (`tests/faults/check.mjs`), by what clients saw and what is in the database.
//!
//! `make faults` gives each scenario half a minute; `make test` runs some of them for a few seconds.

mod actors;
mod doctored;
mod drill;
mod history;
mod restored;
mod scenarios;

use crate::support::directory::Directory;
use actors::Stage;
use drill::{Cast, Drill, check};
use history::History;
use scenarios::{ALL, Scenario};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// For how many seconds each scenario lasts, if all of them are run.
const SECONDS: &str = "COUNTERSIGN_FAULT_SECONDS";
/// Only those whose name has this in it.
const ONLY: &str = "COUNTERSIGN_FAULT";

/// What `make test` runs: one of each kind.
const USUAL: [&str; 7] = [
    "nothing happens",
    "the API server is killed",
    "etcd is restored as its manual says, under its replicas",
    "PostgreSQL is killed",
    "PostgreSQL fails over to a standby that has everything",
    "a replica is killed every few seconds",
    "a replica's clock is an hour ahead",
];

#[test]
fn after_each_fault_everything_holds_that_must() {
    let seconds: Option<u64> = std::env::var(SECONDS).ok().map(|text| text.parse().expect(SECONDS));
    let only = std::env::var(ONLY).unwrap_or_default();
    let is_meant = |scenario: &&Scenario| match seconds {
        Some(_) => scenario.name.contains(&only),
        None => USUAL.contains(&scenario.name),
    };
    let time = Duration::from_secs(seconds.unwrap_or(6));
    let drill = Drill::start();
    let cast = Cast::enter(&drill);
    drill.leave_alone();
    let mut failures = Vec::new();
    let mut count = 0;
    for scenario in ALL.iter().filter(is_meant) {
        let directory = Directory::temporary().expect("a directory");
        let (text, holds) = perform(&drill, &cast, scenario, time, directory.path());
        count += 1;
        if scenario.name == USUAL[0] && holds {
            doctored::every_damage_is_found(directory.path());
        }
        eprintln!("{count}. {}, for {} s\n{text}", scenario.name, time.as_secs());
        if !holds {
            failures.push(format!("{}:\n{text}", scenario.name));
        }
    }
    assert!(count > 0, "no scenario is called {only:?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Plays one scenario under load, and has checked what must hold.
fn perform(drill: &Drill, cast: &Cast<'_>, scenario: &Scenario, time: Duration, directory: &Path) -> (String, bool) {
    let history = History::new(directory);
    let over = AtomicBool::new(false);
    let stage = Stage { drill, cast, history: &history, over: &over };
    std::thread::scope(|scope| {
        // Also if the scenario fails: nobody waits for actors that never end.
        let _end = End(&over);
        stage.begin(scope);
        (scenario.run)(stage, time);
        drill.recovers(cast, &history);
    });
    assert!(history.tokens() > 0, "{}: no token arrived, so nothing was shown", scenario.name);
    history.flush();
    drill.expose(directory);
    check(directory)
}

/// Ends the play when it is dropped.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
