//! Waiting until the operator has done its part, for a while.

use super::failure::Failure;
use clap::{ArgAction, Args};
use std::time::Duration;
use tokio::time::Instant;

/// How often is looked.
const EVERY: Duration = Duration::from_millis(150);

/// The flags.
#[derive(Debug, Clone, Copy, Args)]
pub struct WaitArgs {
    /// Whether to wait until the operator has acted on it. --wait=false does not.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    pub wait: bool,
    /// For how long: 30s, 2m.
    #[arg(long, default_value = "30s", value_parser = duration, value_name = "TIME")]
    pub timeout: Duration,
}

/// Some time: so long and no longer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    begun: Instant,
    limit: Duration,
}

impl WaitArgs {
    pub(super) fn begin(self) -> Patience {
        Patience { begun: Instant::now(), limit: self.timeout }
    }
}

impl Patience {
    /// Waits a moment.
    ///
    /// # Errors
    /// What is still pending, if it has been waited long enough.
    pub(super) async fn pause(self, pending: impl FnOnce() -> String) -> Result<(), Failure> {
        if self.begun.elapsed() >= self.limit {
            return Err(Failure::Pending(format!("{} within {} s", pending(), self.limit.as_secs())));
        }
        tokio::time::sleep(EVERY).await;
        Ok(())
    }
}

/// A time on the command line.
fn duration(text: &str) -> Result<Duration, String> {
    let units = [("s", 1), ("m", 60), ("h", 3600)];
    let seconds = units.iter().find_map(|(unit, factor)| Some(u64::from(text.strip_suffix(unit)?.parse::<u32>().ok()?) * factor));
    seconds.map(Duration::from_secs).ok_or_else(|| "must be a time such as 30s or 2m".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit() {
        assert_eq!(duration("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "30", "s", "-1s", "1.5m", "99999999999s"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
