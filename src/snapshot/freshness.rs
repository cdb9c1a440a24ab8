//! How old the view of the cluster is: as old as the oldest of its sources.

use arc_swap::ArcSwapOption;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Something that must have been heard of lately for the view to count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The watch of Agents.
    Agents,
    /// The watch of JitRequests.
    Requests,
    /// The watch of Capabilities.
    Capabilities,
    /// The watch of TrustedIssuers.
    Issuers,
    /// The watch of Pods.
    Pods,
    /// The watch of ServiceAccounts.
    ServiceAccounts,
    /// The watch of the operator's Secret: a replica that cannot see whether a key was removed signs with none.
    Keys,
    /// The write to the operator's Lease, which also notices a stuck etcd behind an API server that still serves watches.
    Lease,
}

impl Source {
    /// Its name in messages and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Agents => "agents",
            Self::Requests => "jitrequests",
            Self::Capabilities => "capabilities",
            Self::Issuers => "trustedissuers",
            Self::Pods => "pods",
            Self::ServiceAccounts => "serviceaccounts",
            Self::Keys => "secret",
            Self::Lease => "lease",
        }
    }
}

/// Why the view cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stale {
    /// A source was silent for too long, or was never heard.
    Silent(Source, Option<Duration>),
    /// Our clock and the API server's differ by so many seconds.
    Skewed(i64),
    /// A source was read anew, and the Lease has not been written since.
    Unconfirmed,
    /// A process that knows what we do not know is at work, or was until now. It says which.
    Barred(Arc<String>),
}

impl fmt::Display for Stale {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Silent(source, None) => {
                write!(f, "the view of the cluster is not complete yet: nothing heard from {}", source.as_str())
            }
            Self::Silent(source, Some(age)) => {
                write!(f, "the view of the cluster is too old: last heard from {} {} ms ago", source.as_str(), age.as_millis())
            }
            Self::Barred(why) => f.write_str(why),
            Self::Unconfirmed => f.write_str("the view of the cluster was read anew a moment ago, and is not confirmed yet"),
            Self::Skewed(seconds) => write!(f, "the clock of this process is {seconds} s off that of the API server"),
        }
    }
}

/// When each source was last heard, on the monotonic clock, which no change of the wall clock moves.
#[derive(Debug)]
pub struct Freshness {
    start: Instant,
    bound: Duration,
    heard: Vec<Heard>,
    /// By how many seconds our wall clock is ahead of the API server's, at least; negative if behind.
    skew: AtomicI64,
    barred: ArcSwapOption<String>,
    /// When it was last begun to read a source anew, in milliseconds since `start`; 0 if never.
    listed_again: AtomicU64,
    /// Woken then.
    unconfirmed: Notify,
}

/// How far our wall clock may be off the API server's, in seconds. What expires, expires by the wall clock.
const SKEW_MAX: i64 = 5;

#[derive(Debug)]
struct Heard {
    source: Source,
    /// Milliseconds since `start`.
    at: AtomicU64,
    /// Whether a complete list has been read. Before that, an open watch proves nothing.
    complete: AtomicBool,
    /// Whether another is to be read, and nothing of it was yet.
    listing: AtomicBool,
}

impl Freshness {
    pub(super) fn new(sources: &[Source], bound: Duration) -> Self {
        let heard = |&source: &Source| Heard {
            source,
            at: AtomicU64::new(0),
            complete: AtomicBool::new(source == Source::Lease),
            listing: AtomicBool::default(),
        };
        let heard = sources.iter().map(heard).collect();
        Self {
            start: Instant::now(),
            bound,
            heard,
            skew: AtomicI64::new(0),
            barred: ArcSwapOption::empty(),
            listed_again: AtomicU64::new(0),
            unconfirmed: Notify::new(),
        }
    }

    /// Notes that `source` answered a question that was put to it at `asked`.
    pub fn heard(&self, source: Source, asked: Instant) {
        let at = self.since_start(asked);
        for entry in self.heard.iter().filter(|h| h.source == source) {
            entry.at.fetch_max(at, Ordering::Relaxed);
        }
    }

    /// Notes by how many seconds our wall clock is certainly off the API server's: its answer says `date`, in whole seconds, and
    /// was given between `asked` and `answered` on our clock. All in seconds since the epoch.
    pub fn clocks_compared(&self, date: i64, asked: i64, answered: i64) {
        let ahead = asked.saturating_sub(date.saturating_add(1)).max(0);
        let behind = date.saturating_sub(answered.saturating_add(1)).max(0);
        self.skew.store(ahead - behind, Ordering::Relaxed);
    }

    /// Makes the view unusable at once, however fresh it is, with the reason; `None` undoes it. True if that is news.
    pub fn bar(&self, why: Option<String>) -> bool {
        let why = why.map(Arc::new);
        self.barred.swap(why.clone()) != why
    }

    /// Whether our wall clock agrees with the API server's, as far as that is known.
    #[must_use]
    pub fn clocks_agree(&self) -> bool {
        self.skew.load(Ordering::Relaxed).abs() <= SKEW_MAX
    }

    /// Notes that a complete list of `source` has been read.
    pub fn complete(&self, source: Source) {
        for entry in self.heard.iter().filter(|h| h.source == source) {
            entry.complete.store(true, Ordering::Release);
        }
    }

    /// Notes that a watch is about to read all of `source`.
    pub fn listing(&self, source: Source) {
        for entry in self.heard.iter().filter(|h| h.source == source && h.complete.load(Ordering::Acquire)) {
            entry.listing.store(true, Ordering::Release);
        }
    }

    /// Notes at `now` that some of a list of `source` was read, before it is taken in. If that is not the first list, the watch was broken
    /// off, and what is read may be of an older copy of the cluster: it counts once the Lease, which shows that, was written after it.
    pub fn read_anew(&self, source: Source, now: Instant) {
        for entry in self.heard.iter().filter(|h| h.source == source) {
            if entry.listing.swap(false, Ordering::AcqRel) {
                self.listed_again.fetch_max(self.since_start(now), Ordering::Release);
                self.unconfirmed.notify_one();
            }
        }
    }

    /// Waits until something was read anew: whoever writes the Lease does it now.
    pub async fn confirmation_wanted(&self) {
        self.unconfirmed.notified().await;
    }

    /// Milliseconds since `start`. Never 0, which stands for never.
    fn since_start(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_millis().try_into().unwrap_or(u64::MAX).max(1)
    }

    /// Notes that what `source` is about is not there: until it is [complete](Self::complete) again, its watch proves nothing.
    pub fn incomplete(&self, source: Source) {
        for entry in self.heard.iter().filter(|h| h.source == source) {
            entry.complete.store(false, Ordering::Release);
        }
    }

    /// `ours`, a time on our wall clock in seconds since the epoch, on the API server's.
    #[must_use]
    pub fn corrected(&self, ours: u64) -> u64 {
        ours.saturating_add_signed(self.skew.load(Ordering::Relaxed).saturating_neg())
    }

    /// Whether the view may be used at `now`.
    ///
    /// # Errors
    /// [`Stale`] with the source that was silent for longest, with the difference of the clocks, or with what bars it.
    pub fn check(&self, now: Instant) -> Result<(), Stale> {
        if let Some(why) = self.barred.load_full() {
            return Err(Stale::Barred(why));
        }
        let skew = self.skew.load(Ordering::Relaxed);
        match self.oldest(now) {
            Some((source, age)) if age.is_none_or(|age| age > self.bound) => Err(Stale::Silent(source, age)),
            _ if skew.abs() > SKEW_MAX => Err(Stale::Skewed(skew)),
            _ if self.is_unconfirmed() => Err(Stale::Unconfirmed),
            _ => Ok(()),
        }
    }

    /// All that keeps the view from being used at `now`, where [`check`](Self::check) says but one of it.
    #[must_use]
    pub fn faults(&self, now: Instant) -> Vec<Stale> {
        let barred = self.barred.load_full().map(Stale::Barred);
        let silent = self.ages(now).filter(|(_, age)| age.is_none_or(|age| age > self.bound));
        let skew = self.skew.load(Ordering::Relaxed);
        let skewed = (skew.abs() > SKEW_MAX).then_some(Stale::Skewed(skew));
        let unconfirmed = self.is_unconfirmed().then_some(Stale::Unconfirmed);
        barred
            .into_iter()
            .chain(silent.map(|(source, age)| Stale::Silent(source, age)))
            .chain(skewed)
            .chain(unconfirmed)
            .collect()
    }

    /// Whether a list was read anew and the Lease not written since.
    fn is_unconfirmed(&self) -> bool {
        let listed = self.listed_again.load(Ordering::Acquire);
        self.heard.iter().any(|heard| heard.source == Source::Lease && heard.at.load(Ordering::Relaxed) < listed)
    }

    /// The source that was silent for longest, and for how long; `None` if it was never heard.
    #[must_use]
    pub fn oldest(&self, now: Instant) -> Option<(Source, Option<Duration>)> {
        self.ages(now).max_by_key(|(_, age)| age.unwrap_or(Duration::MAX))
    }

    /// How long each source has been silent; `None` if it was never heard.
    pub fn ages(&self, now: Instant) -> impl Iterator<Item = (Source, Option<Duration>)> {
        let elapsed = now.saturating_duration_since(self.start);
        self.heard.iter().map(move |heard| {
            let at = heard.at.load(Ordering::Relaxed);
            let is_known = at != 0 && heard.complete.load(Ordering::Acquire);
            (heard.source, is_known.then(|| elapsed.saturating_sub(Duration::from_millis(at))))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_view_is_as_old_as_its_oldest_source() {
        let freshness = Freshness::new(&[Source::Agents, Source::Lease], Duration::from_secs(10));
        let at = |seconds| freshness.start + Duration::from_secs(seconds);
        assert!(freshness.check(at(0)).is_err(), "nothing heard, nothing known");
        freshness.heard(Source::Agents, at(1));
        freshness.heard(Source::Lease, at(1));
        assert!(freshness.check(at(2)).is_err(), "an open watch is no complete list");
        freshness.complete(Source::Agents);
        assert!(freshness.check(at(11)).is_ok());
        freshness.incomplete(Source::Agents);
        assert!(freshness.check(at(11)).is_err(), "what it was about is gone");
        freshness.complete(Source::Agents);
        freshness.heard(Source::Agents, at(11));
        assert!(freshness.check(at(12)).is_err(), "a stuck etcd shows in the Lease alone");
        freshness.heard(Source::Lease, at(12));
        assert!(freshness.check(at(21)).is_ok());
        freshness.heard(Source::Lease, at(5));
        assert!(freshness.check(at(21)).is_ok(), "a late answer to an early question does not make the view older");
    }

    #[test]
    fn everything_that_is_missing_is_named() {
        let freshness = Freshness::new(&[Source::Agents, Source::Pods, Source::Lease], Duration::from_secs(10));
        let at = |seconds| freshness.start + Duration::from_secs(seconds);
        freshness.heard(Source::Lease, at(1));
        let never = |source| Stale::Silent(source, None);
        assert_eq!(freshness.faults(at(2)), [never(Source::Agents), never(Source::Pods)]);
        freshness.clocks_compared(1000, 2000, 2000);
        freshness.bar(Some("another".to_owned()));
        let silent = Stale::Silent(Source::Lease, Some(Duration::from_secs(19)));
        let barred = Stale::Barred(Arc::new("another".to_owned()));
        let all = [barred, never(Source::Agents), never(Source::Pods), silent, Stale::Skewed(999)];
        assert_eq!(freshness.faults(at(20)), all);
        for (source, now) in [(Source::Agents, 20), (Source::Pods, 20), (Source::Lease, 20)] {
            freshness.heard(source, at(now));
            freshness.complete(source);
        }
        freshness.clocks_compared(1000, 1000, 1000);
        freshness.bar(None);
        assert_eq!((freshness.faults(at(21)), freshness.check(at(21))), (Vec::new(), Ok(())));
    }

    #[test]
    fn a_view_that_is_barred_is_unusable_at_once_and_as_it_was_afterwards() {
        let freshness = Freshness::new(&[Source::Lease], Duration::from_secs(10));
        let now = freshness.start + Duration::from_secs(1);
        freshness.heard(Source::Lease, now);
        assert_eq!(freshness.check(now), Ok(()));
        assert!(freshness.bar(Some("another".to_owned())));
        assert!(!freshness.bar(Some("another".to_owned())), "no news");
        assert_eq!(freshness.check(now).map_err(|stale| stale.to_string()), Err("another".to_owned()));
        freshness.heard(Source::Lease, now);
        assert!(freshness.check(now).is_err(), "whatever is heard");
        assert!(freshness.bar(None));
        assert_eq!(freshness.check(now), Ok(()));
    }

    #[test]
    fn what_is_read_anew_counts_once_the_lease_was_written_after_it() {
        let freshness = Freshness::new(&[Source::Agents, Source::Lease], Duration::from_secs(10));
        let at = |seconds| freshness.start + Duration::from_secs(seconds);
        freshness.heard(Source::Agents, at(1));
        freshness.heard(Source::Lease, at(1));
        freshness.complete(Source::Agents);
        freshness.listing(Source::Agents);
        assert_eq!(freshness.check(at(2)), Ok(()), "what was known counts until something else was read");
        freshness.read_anew(Source::Agents, at(3));
        freshness.heard(Source::Lease, at(2));
        assert_eq!((freshness.check(at(3)), freshness.faults(at(3))), (Err(Stale::Unconfirmed), vec![Stale::Unconfirmed]));
        freshness.heard(Source::Lease, at(3));
        assert_eq!(freshness.check(at(3)), Ok(()));
        freshness.read_anew(Source::Agents, at(4));
        assert_eq!(freshness.check(at(4)), Ok(()), "the other pages are of the moment of the first");
    }

    #[test]
    fn r10_a_clock_that_is_off_makes_the_view_unusable() {
        let freshness = Freshness::new(&[], Duration::from_secs(10));
        let now = freshness.start;
        for (date, asked, answered) in [(1000, 1000, 1000), (1000, 1006, 1007), (1000, 995, 995), (1000, 990, 1002)] {
            freshness.clocks_compared(date, asked, answered);
            assert_eq!(freshness.check(now), Ok(()), "{date} {asked} {answered}");
        }
        for (date, asked, answered, skew) in
            [(1000, 1007, 1007, 6), (1000, 4600, 4600, 3599), (4600, 1000, 1000, -3599), (1000, 993, 993, -6)]
        {
            freshness.clocks_compared(date, asked, answered);
            assert_eq!(freshness.check(now), Err(Stale::Skewed(skew)));
            let corrected = freshness.corrected(answered.unsigned_abs());
            assert!(corrected.abs_diff(date.unsigned_abs()) <= 1, "{corrected} is {date}");
        }
    }
}
