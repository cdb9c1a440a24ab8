//! `kubectl countersign`: reads the command line and calls the library.

use countersign::plugin;
use std::process::ExitCode;

fn main() -> ExitCode {
    plugin::main(std::env::args_os())
}
