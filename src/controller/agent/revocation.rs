//! The records of instructions to revoke that were carried out.

use super::life;
use crate::admission::enforcement::Verdict;
use crate::agent::RegisteredAgent;
use crate::audit::{Outcome, Record};
use crate::controller::given_by;
use crate::crd::AgentRevocation;
use crate::revocation::{Target, target};

/// The record of an instruction that was carried out on `agent`, and of who gave it.
pub(super) fn record(agent: &RegisteredAgent, instruction: &AgentRevocation, verdict: &Verdict) -> Record {
    let mut record = match target(instruction) {
        Target::All => life("agent.revoked", agent),
        Target::Token(jti) => {
            let mut record = life("token.revoked", agent);
            record.text("jti", jti);
            record
        }
        Target::Chain(txn) => {
            let mut record = life("chain.revoked", agent);
            record.text("txn", txn);
            record
        }
    };
    given_by(&mut record, instruction.by.as_ref(), instruction.reason.as_deref(), verdict);
    record.conclude(Outcome::Allow, "revoked");
    record
}
