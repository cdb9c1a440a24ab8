//! When somebody is told.

use crate::crd::Phase;
use crate::jit::{Request, approvers};
use serde::Deserialize;

/// How long after the end of a request its end is still news, in seconds: an operator that finds it later, after an outage or with an empty
/// database, tells nobody.
const NEWS_SECONDS: i64 = 3600;

/// What happened to a request. One request has each at most once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub enum Occasion {
    /// An agent asks, and a person is to decide.
    Requested,
    /// One of two persons has approved.
    ApprovedByOne,
    /// Enough persons have approved.
    Approved,
    /// A person said no.
    Denied,
    /// Nobody decided in time, or the approval or its token was not used in time.
    Expired,
    /// The agent withdrew it.
    Cancelled,
    /// The agent was stopped, or lost what it asked for.
    Revoked,
}

impl Occasion {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Requested, Self::ApprovedByOne, Self::Approved, Self::Denied, Self::Expired, Self::Cancelled, Self::Revoked];

    /// What is to be told of `request` as it is at `now`, in seconds since the epoch, if anything. What was refused before anybody was
    /// asked is told to nobody: an agent could call people with it.
    #[must_use]
    pub fn of(request: &Request, now: i64) -> Option<Self> {
        request.status.digest.as_ref()?;
        let ended = request.status.finished_at.as_ref().map(|at| at.0.as_second());
        if ended.is_some_and(|ended| now.saturating_sub(ended) > NEWS_SECONDS) {
            return None;
        }
        match request.status.phase? {
            Phase::Pending if approvers(request).next().is_some() => Some(Self::ApprovedByOne),
            Phase::Pending => Some(Self::Requested),
            Phase::Approved | Phase::Issued => Some(Self::Approved),
            // It went on as approved; the end of its token is no news for people.
            Phase::Completed => None,
            Phase::Expired if request.status.issued_at.is_some() => None,
            Phase::Denied => Some(Self::Denied),
            Phase::Expired => Some(Self::Expired),
            Phase::Cancelled => Some(Self::Cancelled),
            Phase::Revoked => Some(Self::Revoked),
        }
    }

    /// Its name in identifiers and in the type of an event.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::ApprovedByOne => "approved-by-one",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
            Self::Cancelled => "cancelled",
            Self::Revoked => "revoked",
        }
    }

    /// The order in which a receiver is told of one request.
    #[must_use]
    pub const fn ordinal(self) -> i64 {
        match self {
            Self::Requested => 0,
            Self::ApprovedByOne => 1,
            Self::Approved => 2,
            Self::Denied | Self::Expired | Self::Cancelled | Self::Revoked => 3,
        }
    }
}
