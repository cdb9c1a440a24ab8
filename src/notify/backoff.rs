//! When a notification that did not arrive is sent again.

/// How long a notification is tried, in seconds.
const GIVE_UP_AFTER: i64 = 86_400;
/// How long after each failed attempt the next follows, in seconds; the last for all further ones.
const WAITS: [i64; 8] = [5, 15, 60, 300, 900, 1800, 3600, 7200];
/// Longest wait that a receiver may ask for, in seconds.
const ASKED_MAX: i64 = 3600;

/// When to try again what was queued at `created` and failed for the `attempts`th time at `now`, all in seconds since the epoch; `None` if
/// not any more. `asked` is how long the receiver asked to be left alone (Retry-After), and `spread`, 0 to 255, is random: it moves the time
/// by a fifth at most, so that what failed together does not come together again.
#[must_use]
pub fn next_attempt(created: i64, attempts: i64, now: i64, asked: Option<i64>, spread: u8) -> Option<i64> {
    let step = usize::try_from(attempts.saturating_sub(1)).unwrap_or(usize::MAX).min(WAITS.len() - 1);
    let wait = WAITS.get(step).copied().unwrap_or(ASKED_MAX).max(asked.unwrap_or(0).min(ASKED_MAX));
    let at = now.saturating_add(wait).saturating_add(wait * i64::from(spread) / (5 * 256));
    (at < created.saturating_add(GIVE_UP_AFTER)).then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_become_rarer_and_end_after_a_day() {
        let (mut now, mut attempts, mut waits) = (0, 1, Vec::new());
        while let Some(next) = next_attempt(0, attempts, now, None, 0) {
            waits.push(next - now);
            (now, attempts) = (next, attempts + 1);
        }
        assert!(waits.starts_with(&WAITS) && waits.is_sorted(), "{waits:?}");
        assert!(now < GIVE_UP_AFTER && now > GIVE_UP_AFTER - 7200 && attempts < 30, "{now} {attempts}");
    }

    #[test]
    fn a_receiver_may_ask_for_time_but_not_for_all_of_it() {
        assert_eq!(next_attempt(0, 1, 100, Some(120), 0), Some(220));
        assert_eq!(next_attempt(0, 1, 100, Some(i64::MAX), 0), Some(100 + ASKED_MAX));
        assert_eq!(next_attempt(0, 1, 100, Some(-5), 0), Some(105));
        assert!(next_attempt(0, 4, 100, None, 255).is_some_and(|at| (400..=460).contains(&at)));
        assert_eq!(next_attempt(0, i64::MAX, GIVE_UP_AFTER, None, 0), None);
    }
}
