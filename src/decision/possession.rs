//! Must its token be bound to a key? Asked when one is issued, and of those that were.

use super::standing::rights;
use super::{Denial, Reason};
use crate::agent::RegisteredAgent;

/// Whether `agent` may have a token, which is bound to a key or is not.
///
/// # Errors
/// If it must be and is not.
pub(crate) fn proved(agent: &RegisteredAgent, is_bound: bool) -> Result<(), Denial> {
    if is_bound || !rights(agent)?.possession_required {
        return Ok(());
    }
    let message =
        format!("the tokens of {} are bound to a key: a request for one needs a proof in the header DPoP (RFC 9449)", agent.id);
    Err(Denial::new(Reason::PossessionUnproved, message))
}

#[cfg(test)]
mod tests {
    use super::super::world::{World, agent, token};
    use super::super::{Ask, Grants, Issued, Subject, stands};
    use super::*;
    use crate::dpop::Confirmation;

    fn bound() -> Option<Confirmation> {
        Some(Confirmation { jkt: "thumbprint".to_owned() })
    }

    fn demanding(name: &str, demands: bool) -> RegisteredAgent {
        let mut agent = agent(name, &["a.read"], &["https://docs"]);
        agent.rights.as_mut().expect("rights").possession_required = demands;
        agent
    }

    fn ask(audience: &str) -> Ask {
        Ask { audience: Some(audience.to_owned()), ..Ask::default() }
    }

    #[test]
    fn a_token_is_bound_to_the_key_that_was_shown_and_must_be_if_the_agent_says_so() {
        for (demands, confirmation, expected) in [
            (false, None, Ok(None)),
            (false, bound(), Ok(bound())),
            (true, None, Err(Reason::PossessionUnproved)),
            (true, bound(), Ok(bound())),
        ] {
            let agent = demanding("bot", demands);
            let permit =
                World::of(&[&agent]).decide_with(&agent, &Subject::Itself, &ask("https://docs"), 2000, confirmation.clone());
            let outcome = permit.map(|permit| permit.confirmation().cloned()).map_err(|denial| denial.reason);
            assert_eq!(outcome, expected, "{demands} {confirmation:?}");
        }
    }

    #[test]
    fn a_bearer_token_dies_when_its_agent_begins_to_demand_a_key() {
        for (demands, is_bound, reason) in
            [(false, false, None), (false, true, None), (true, true, None), (true, false, Some(Reason::PossessionUnproved))]
        {
            let (before, now) = (demanding("bot", false), demanding("bot", demands));
            let permit = World::of(&[&before]).decide(&before, &Subject::Itself, &ask("https://docs"), 2000).expect("issued");
            let grants = Grants::Capabilities(permit.capabilities());
            let issued = Issued { jti: "j", chain: permit.chain(), grants, audience: "https://docs", is_bound };
            let ended = stands(&issued, &World::of(&[&now]).view(), 1000).err().map(|denial| denial.reason);
            assert_eq!(ended, reason, "{demands} {is_bound}");
        }
    }

    #[test]
    fn each_agent_of_a_chain_proves_a_key_of_its_own_and_none_that_of_its_caller() {
        let mut search = demanding("search", true);
        let bot = demanding("bot", false);
        search.rights.as_mut().expect("rights").delegation.callers = vec![bot.id.clone()];
        let world = World::of(&[&bot, &search]);
        let call = |key| world.decide_with(&bot, &Subject::Itself, &ask("agent:research/search"), 2000, key).expect("called");
        let other = || Some(Confirmation { jkt: "of search".to_owned() });
        for parent in [None, bound()] {
            let subject = Subject::Token(Box::new(token(&call(parent), "j1")));
            let refused = world.decide_with(&search, &subject, &ask("https://docs"), 2000, None).expect_err("no key");
            assert_eq!(refused.reason, Reason::PossessionUnproved);
            let permit = world.decide_with(&search, &subject, &ask("https://docs"), 2000, other()).expect("its own key");
            assert_eq!(permit.confirmation().cloned(), other());
        }
        // The token with which it is called must be bound if the caller's must.
        let bearer = Subject::Token(Box::new(token(&call(None), "j1")));
        let world = World::of(&[&demanding("bot", true), &search]);
        let refused = world.decide_with(&search, &bearer, &ask("https://docs"), 2000, other()).expect_err("a bearer token");
        assert_eq!(refused.reason, Reason::ChainEnded);
    }
}
