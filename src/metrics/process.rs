//! What the kernel says of this process, under the names that Prometheus gives it
//! (<https://prometheus.io/docs/instrumenting/writing_clientlibs/#process-metrics>).

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use std::fmt;

/// Reads the process's own entry in `/proc` whenever the metrics are read. What cannot be read is left out.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Ok(process) = procfs::process::Process::myself() else { return Ok(()) };
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: u64| {
            let gauge = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
            gauge.encode(encoder.encode_descriptor(name, help, unit, gauge.metric_type())?)
        };
        if let Ok(memory) = process.statm() {
            let resident = memory.resident.saturating_mul(procfs::page_size());
            gauge("process_resident_memory", "Memory that is in RAM", Some(&Unit::Bytes), resident)?;
        }
        if let Ok(open) = process.fd_count() {
            gauge("process_open_fds", "Open file descriptors", None, open.try_into().unwrap_or(u64::MAX))?;
        }
        if let Ok(limits) = process.limits()
            && let procfs::process::LimitValue::Value(most) = limits.max_open_files.soft_limit
        {
            gauge("process_max_fds", "Most file descriptors that may be open", None, most)?;
        }
        if let Ok(stat) = process.stat() {
            gauge("process_threads", "Threads", None, stat.num_threads.try_into().unwrap_or_default())?;
            let ticks = u32::try_from(stat.utime.saturating_add(stat.stime)).unwrap_or(u32::MAX);
            let per_second = u32::try_from(procfs::ticks_per_second()).unwrap_or(100);
            let spent = ConstCounter::new(f64::from(ticks) / f64::from(per_second));
            let help = "CPU time that was spent, in user and system mode";
            spent.encode(encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), spent.metric_type())?)?;
        }
        Ok(())
    }
}
