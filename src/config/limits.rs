//! The flags that say how much one caller may ask.

use crate::http::Rates;
use clap::Args;

/// How many requests are taken in a second.
#[derive(Debug, Clone, Args)]
pub struct RateArgs {
    /// How many requests an agent may make in a second, and twice as many at once; beyond it gets 429. 0 is without limit.
    #[arg(long, env = "COUNTERSIGN_AGENT_REQUESTS_PER_SECOND", default_value_t = 500)]
    pub agent_requests_per_second: u32,
    /// The same of a caller that is no agent: a resource server, which asks about each request that it gets itself.
    #[arg(long, env = "COUNTERSIGN_RESOURCE_SERVER_REQUESTS_PER_SECOND", default_value_t = 5000)]
    pub resource_server_requests_per_second: u32,
    /// How many requests of callers who proved no identity may be refused in a second from one address, and twice as many at once. Beyond,
    /// nothing that comes from there is read: it gets 429. 0 is without limit.
    #[arg(long, env = "COUNTERSIGN_SOURCE_REFUSALS_PER_SECOND", default_value_t = 100)]
    pub source_refusals_per_second: u32,
}

impl RateArgs {
    /// As the token service takes them.
    #[must_use]
    pub const fn rates(&self) -> Rates {
        Rates {
            agent: self.agent_requests_per_second,
            resource_server: self.resource_server_requests_per_second,
            source: self.source_refusals_per_second,
        }
    }
}
