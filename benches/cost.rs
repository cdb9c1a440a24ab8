//! What another process costs, as the kernel says.

use procfs::process::Process;

/// Memory of a process that is in RAM, in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Now.
    pub now: f64,
    /// What of that is its own: without the pages of the program, which need not stay.
    pub own: f64,
    /// The most that it ever was.
    pub peak: f64,
}

/// The memory of a process.
pub fn memory(pid: u32) -> Memory {
    let status = process(pid).status().expect("its status");
    let mib = |kib: Option<u64>| (kib.expect("a size") as f64 / 102.4).round() / 10.0;
    Memory { now: mib(status.vmrss), own: mib(status.rssanon), peak: mib(status.vmhwm) }
}

/// The CPU time that a process has spent, in seconds.
pub fn cpu_seconds(pid: u32) -> f64 {
    let stat = process(pid).stat().expect("its numbers");
    (stat.utime + stat.stime) as f64 / procfs::ticks_per_second() as f64
}

fn process(pid: u32) -> Process {
    Process::new(i32::try_from(pid).expect("a pid")).expect("the process runs")
}
