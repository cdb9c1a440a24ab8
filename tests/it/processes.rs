//! What starts and stops the processes of these tests: nothing that they start may outlive them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::directory::Directory;
use crate::support::process::{Guarded, clean_env};
use crate::world::wait_until;

/// Names the directory for [`holder`], which does nothing without it.
const HOLDER_DIRECTORY: &str = "COUNTERSIGN_TEST_HOLDER";

/// Longer than any child here takes to start or to end of its own.
const SOON: Duration = Duration::from_secs(4);

fn spawn(directory: &Directory, script: &str) -> Guarded {
    let args = ["-c".to_owned(), script.to_owned()];
    let env = clean_env(directory.path());
    Guarded::spawn(directory.path(), "child", Path::new("/bin/sh"), &args, &env).expect("the child starts")
}

/// Whether a process of that id exists; a zombie, which has only its exit status left, does not.
fn runs(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(')').next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with(" Z"))
}

#[test]
fn the_end_of_a_child_is_seen_with_its_exit_code_and_its_output() {
    let directory = Directory::temporary().expect("a directory");
    let child = spawn(&directory, "echo to stdout; echo to stderr >&2; exit 7");
    assert_eq!(child.wait(SOON).expect("it ends").code(), Some(7));
    assert_eq!(child.log(), "to stdout\nto stderr\n");
    assert!(!directory.path().join("child.pid").exists(), "the pid file goes with the process");
}

#[test]
fn a_killed_child_is_seen() {
    let directory = Directory::temporary().expect("a directory");
    let child = spawn(&directory, "exec sleep 600");
    assert!(child.exited().is_none());
    child.signal("KILL").expect("it can be killed");
    assert_eq!(child.wait(SOON).expect("it ends").code(), Some(128 + 9));
}

#[test]
fn a_program_that_does_not_exist_has_exited_and_its_log_says_why() {
    let directory = Directory::temporary().expect("a directory");
    let program = Path::new("/nonexistent/program");
    let child = Guarded::spawn(directory.path(), "child", program, &[], &clean_env(directory.path()));
    let child = child.expect("the watchdog starts");
    assert_eq!(child.wait(SOON).expect("it ends").code(), Some(127));
    assert!(child.log().contains("/nonexistent/program"), "{}", child.log());
}

#[test]
fn a_child_sees_only_the_environment_it_is_given() {
    let directory = Directory::temporary().expect("a directory");
    let child = spawn(&directory, "env");
    child.wait(SOON).expect("it ends");
    let log = child.log();
    let mut names: Vec<&str> = log.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    names.retain(|name| !["PWD", "SHLVL", "OLDPWD", "_"].contains(name)); // the shell's own
    names.sort_unstable();
    assert_eq!(names, ["HOME", "PATH"]);
}

#[test]
fn a_frozen_child_can_be_stopped() {
    let directory = Directory::temporary().expect("a directory");
    let child = spawn(&directory, "exec sleep 600");
    let pid = child.pid();
    child.signal("STOP").expect("it can be frozen");
    let begun = Instant::now();
    child.stop();
    assert!(!runs(pid));
    assert!(begun.elapsed() < SOON, "it was continued, not left to the SIGKILL");
}

#[test]
fn a_child_that_ignores_sigterm_is_killed() {
    let directory = Directory::temporary().expect("a directory");
    let child = spawn(&directory, "trap '' TERM; echo ready; while :; do sleep 1; done");
    wait_until("the trap is set", SOON, || child.log().contains("ready"));
    let pid = child.pid();
    child.stop();
    assert!(!runs(pid));
}

/// Not a test: the process that the next one kills. The test binary runs itself with only this in it.
#[test]
fn holder() {
    let Some(path) = std::env::var_os(HOLDER_DIRECTORY) else {
        return;
    };
    let directory = Directory::kept(Path::new(&path)).expect("a directory");
    let _child = spawn(&directory, "exec sleep 600");
    std::thread::sleep(Duration::from_secs(600));
}

#[test]
fn nothing_outlives_a_holder_that_is_killed() {
    let directory = Directory::temporary().expect("a directory");
    let (_, module) = module_path!().split_once("::").expect("a path within the crate");
    let mut holder = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", &format!("{module}::holder")])
        .env(HOLDER_DIRECTORY, directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("this binary runs");
    let pid_file = directory.path().join("child.pid");
    wait_until("the child starts", Duration::from_secs(20), || pid_file.exists());
    let pid = fs::read_to_string(&pid_file).expect("a pid file").trim().parse().expect("a pid");
    assert!(runs(pid));

    holder.kill().expect("SIGKILL");
    holder.wait().expect("it ends");
    wait_until("the child ends", SOON, || !runs(pid) && !pid_file.exists());
}

#[test]
fn a_temporary_directory_is_removed() {
    let directory = Directory::temporary().expect("a directory");
    let path = directory.path().to_owned();
    fs::write(path.join("file"), "").expect("a file");
    drop(directory);
    let kept = std::env::var_os("COUNTERSIGN_TEST_KEEP").is_some();
    assert_eq!(path.exists(), kept);
}
