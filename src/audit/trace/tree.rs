//! An answer as a tree alone: who called whom, a line for each token.

use super::hop::Hop;
use super::show::{name, plain_user};
use super::tell::Trace;
use crate::audit::plain::Plain;
use k8s_openapi::jiff::Timestamp;
use std::fmt;

/// The tree of an answer. Everything from outside is escaped.
#[derive(Debug, Clone, Copy)]
pub struct Tree<'a>(&'a Trace);

impl Trace {
    /// What led to what, and nothing else.
    #[must_use]
    pub const fn tree(&self) -> Tree<'_> {
        Tree(self)
    }
}

impl fmt::Display for Tree<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for hop in &self.0.hops {
            if let Some(txn) = &hop.txn {
                writeln!(f, "chain {}", Plain(txn))?;
            }
            let user = hop.user.as_deref().map(plain_user);
            let indent = if let Some(user) = user {
                writeln!(f, "{user}")?;
                "  "
            } else {
                ""
            };
            branch(f, hop, indent, "")?;
        }
        if self.0.hops.is_empty() {
            writeln!(f, "no token")?;
        }
        if self.0.left_out > 0 {
            writeln!(f, "{} older records are left out", self.0.left_out)?;
        }
        Ok(())
    }
}

/// One hop and all below it: `lead` stands before its name, `indent` before those of its children.
fn branch(f: &mut fmt::Formatter<'_>, hop: &Hop, indent: &str, lead: &str) -> fmt::Result {
    let agent = hop.agent.as_deref().map_or_else(|| "unknown".to_owned(), |agent| name(hop.agent_name.as_deref(), agent));
    write!(f, "{indent}{lead}{agent}")?;
    if hop.is_issued() {
        write!(f, "  token {}", Plain(hop.jti.as_deref().unwrap_or_default()))?;
        if let Some(scope) = &hop.scope {
            write!(f, "  {}", Plain(scope))?;
        }
        if let Some(at) = hop.expires_at.and_then(|at| Timestamp::from_second(i64::try_from(at).ok()?).ok()) {
            write!(f, "  expires {at}")?;
        }
    } else {
        write!(f, "  {} ({})", Plain(&hop.outcome), Plain(&hop.reason))?;
    }
    if let Some(by) = &hop.approved_by {
        write!(f, "  approved by {}", Plain(by))?;
    }
    writeln!(f)?;
    let inner = if lead.is_empty() { indent.to_owned() } else { format!("{indent}   ") };
    hop.children.iter().try_for_each(|child| branch(f, child, &inner, "+- "))
}
