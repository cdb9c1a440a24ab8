//! Can it ever? Which capabilities an agent can bring about, through whichever agents it may hand a task to.
//!
//! Pure: the agents, whom each lets call it, what each holds and under which rule, in; the shortest chain that leads to a capability, or
//! the cut that keeps it away, out.

use crate::agent::{Granted, RegisteredAgent};
use crate::decision::{View, approval_rule};
use crate::grammar::{AgentId, CapabilityName, Resource};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

/// What is asked.
#[derive(Debug, Clone)]
pub struct Query {
    /// The agent that begins.
    pub agent: AgentId,
    /// The capability.
    pub capability: CapabilityName,
    /// On this resource; not said: on any.
    pub resource: Option<Resource>,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// There is a chain that leads there.
    Path(Path),
    /// There is none.
    Cut(Cut),
}

/// The shortest chain to an agent that holds the capability.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The agents, first the one that was asked about, last the one that holds it.
    pub chain: Vec<AgentId>,
    /// What opens it.
    pub opens: Opening,
    /// The resources to which the last one is limited.
    pub resources: Option<Vec<String>>,
    /// The conditions along the chain, each with its agent: whether they are ever met is not known here.
    pub conditions: Vec<(AgentId, String)>,
}

/// What stands between a chain and the use of the capability at its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Opening {
    /// Nothing: a token for it goes all the way.
    Nothing,
    /// So many persons with the verb `approve` on it.
    Approval(usize),
    /// No token carries it all the way, because these do not hold it. The last agent can use it by its own right whenever it is handed a
    /// task; granting it to these would carry it. With so many persons that must approve each use.
    OwnRight {
        /// Who does not hold it.
        missing: Vec<AgentId>,
        /// How many persons must approve.
        approvals: usize,
    },
}

/// Why there is no chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// Whom the agent can hand a task to, be it through others; itself among them.
    pub reached: BTreeSet<AgentId>,
    /// Who holds the capability.
    pub holders: BTreeSet<AgentId>,
    /// Who can hand a task to one of those, be it through others.
    pub leads_there: BTreeSet<AgentId>,
    /// Agents that are out of use and would connect the two, with why.
    pub out_of_use: BTreeMap<AgentId, &'static str>,
    /// Whether a chain would be there if it could be longer.
    pub too_long: bool,
}

/// Looks for the shortest chain.
#[must_use]
pub fn reach(query: &Query, view: &View<'_>) -> Reach {
    let graph = Graph::of(view);
    let Some(start) = view.agents.look_up(&query.agent) else {
        let cut = graph.cut(query, view, BTreeSet::new(), false);
        return Reach::Cut(cut);
    };
    let mut queue = VecDeque::from([vec![start]]);
    // The longest that a chain through an agent may still grow, as far as it was found. A chain that is longer and may grow less finds
    // nothing that this one does not.
    let mut left: BTreeMap<&AgentId, usize> = BTreeMap::new();
    let (mut found, mut too_long): (Option<Path>, bool) = (None, false);
    while let Some(chain) = queue.pop_front() {
        if found.as_ref().is_some_and(|found| found.chain.len() < chain.len()) {
            break;
        }
        let Some(last) = chain.last().copied() else { continue };
        if !in_use(last) {
            continue;
        }
        if let Some(path) = arrives(&chain, query, view)
            && found.as_ref().is_none_or(|found| rank(&path.opens) < rank(&found.opens))
        {
            found = Some(path);
        }
        let depth = chain.iter().map(|agent| depth_of(agent)).min().unwrap_or(0);
        for next in graph.callees(&last.id).iter().filter_map(|id| view.agents.look_up(id)) {
            let limit = depth.min(depth_of(next));
            if chain.iter().any(|agent| agent.id == next.id) {
                continue;
            }
            if chain.len() >= limit {
                too_long = true;
                continue;
            }
            let growth = limit - chain.len();
            if left.get(&next.id).is_none_or(|before| *before < growth) {
                left.insert(&next.id, growth);
                queue.push_back(chain.iter().copied().chain([next]).collect());
            }
        }
    }
    match found {
        Some(path) => Reach::Path(path),
        None => Reach::Cut(graph.cut(query, view, graph.spread([query.agent.clone()], Graph::callees), too_long)),
    }
}

/// Whether the last of a chain can use the capability, and what for.
fn arrives(chain: &[&Arc<RegisteredAgent>], query: &Query, view: &View<'_>) -> Option<Path> {
    let (last, before) = chain.split_last()?;
    let held = holds(last, query)?;
    // Nobody can use what needs a rule that is missing or cannot be read.
    let rule = approval_rule(held, view.catalogue).ok()?;
    let approvals = rule.map_or(0, |rule| rule.approvals);
    // An approved operation is the last agent's own; anything else every agent before must hold too, and use without asking.
    let mut missing = Vec::new();
    let mut common = held.clone();
    for agent in before {
        let theirs = holds(agent, query).filter(|held| matches!(approval_rule(held, view.catalogue), Ok(None)));
        match theirs.and_then(|theirs| common.narrowed(theirs)) {
            Some(both) => common = both,
            None => missing.push(agent.id.clone()),
        }
    }
    let opens = match (missing.is_empty(), approvals) {
        (true, 0) => Opening::Nothing,
        (_, 1..) if rule.is_some() => Opening::Approval(approvals),
        _ => Opening::OwnRight { missing, approvals },
    };
    let conditions =
        chain.iter().filter_map(|agent| Some((agent.id.clone(), holds(agent, query)?.when.as_ref()?.text().to_owned())));
    Some(Path {
        chain: chain.iter().map(|agent| agent.id.clone()).collect(),
        opens,
        resources: held.resources.as_ref().map(|list| list.iter().map(|r| r.as_str().to_owned()).collect()),
        conditions: conditions.collect(),
    })
}

const fn rank(opens: &Opening) -> u8 {
    match opens {
        Opening::Nothing => 0,
        Opening::Approval(_) => 1,
        Opening::OwnRight { .. } => 2,
    }
}

/// The capability as the agent holds it, if that extends to the resource.
fn holds<'a>(agent: &'a RegisteredAgent, query: &Query) -> Option<&'a Granted> {
    let rights = agent.rights.as_ref().ok()?;
    let held = rights.capabilities.iter().find(|held| held.name == query.capability)?;
    query.resource.as_ref().is_none_or(|resource| held.allows(Some(resource))).then_some(held)
}

fn depth_of(agent: &RegisteredAgent) -> usize {
    agent.rights.as_ref().map_or(0, |rights| rights.delegation.max_depth)
}

fn in_use(agent: &RegisteredAgent) -> bool {
    out_of_use(agent).is_none()
}

fn out_of_use(agent: &RegisteredAgent) -> Option<&'static str> {
    if agent.deleting {
        Some("it is being deleted")
    } else if agent.suspended {
        Some("it is suspended")
    } else if agent.admission == crate::agent::Admission::Unproven {
        Some("it was written without the admission policies")
    } else if agent.rights.is_err() {
        Some("its spec is invalid")
    } else {
        None
    }
}

/// Who lets whom call it.
struct Graph {
    callees: BTreeMap<AgentId, BTreeSet<AgentId>>,
    callers: BTreeMap<AgentId, BTreeSet<AgentId>>,
}

impl Graph {
    fn of(view: &View<'_>) -> Self {
        let mut graph = Self { callees: BTreeMap::new(), callers: BTreeMap::new() };
        for agent in view.agents.iter() {
            let callers = agent.rights.iter().flat_map(|rights| &rights.delegation.callers);
            for caller in callers.filter(|caller| view.agents.look_up(caller).is_some()) {
                graph.callees.entry(caller.clone()).or_default().insert(agent.id.clone());
                graph.callers.entry(agent.id.clone()).or_default().insert(caller.clone());
            }
        }
        graph
    }

    fn callees(&self, of: &AgentId) -> &BTreeSet<AgentId> {
        static NONE: BTreeSet<AgentId> = BTreeSet::new();
        self.callees.get(of).unwrap_or(&NONE)
    }

    fn callers(&self, of: &AgentId) -> &BTreeSet<AgentId> {
        static NONE: BTreeSet<AgentId> = BTreeSet::new();
        self.callers.get(of).unwrap_or(&NONE)
    }

    /// All that is reached from `from` by `step`.
    fn spread<'a>(
        &'a self,
        from: impl IntoIterator<Item = AgentId>,
        step: impl Fn(&'a Self, &AgentId) -> &'a BTreeSet<AgentId>,
    ) -> BTreeSet<AgentId> {
        let mut open: Vec<AgentId> = from.into_iter().collect();
        let mut reached = BTreeSet::new();
        while let Some(id) = open.pop() {
            if reached.insert(id.clone()) {
                open.extend(step(self, &id).iter().filter(|next| !reached.contains(*next)).cloned());
            }
        }
        reached
    }

    fn cut(&self, query: &Query, view: &View<'_>, reached: BTreeSet<AgentId>, too_long: bool) -> Cut {
        let holders: BTreeSet<AgentId> =
            view.agents.iter().filter(|agent| holds(agent, query).is_some()).map(|agent| agent.id.clone()).collect();
        let leads_there = self.spread(holders.iter().cloned(), Self::callers);
        let both = reached.intersection(&leads_there).filter_map(|id| Some((id.clone(), out_of_use(view.agents.look_up(id)?)?)));
        Cut { out_of_use: both.collect(), reached, holders, leads_there, too_long }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::Rule;
    use crate::crd::CapabilitySpec;
    use crate::decision::world::{World, agent};

    fn id(name: &str) -> AgentId {
        AgentId::new("research", name).expect("an agent")
    }

    fn called_by(mut callee: RegisteredAgent, callers: &[&str]) -> RegisteredAgent {
        callee.rights.as_mut().expect("rights").delegation.callers = callers.iter().map(|name| id(name)).collect();
        callee
    }

    fn ask(world: &World, from: &str) -> Reach {
        let capability = CapabilityName::parse("payments.authorize").expect("a name");
        reach(&Query { agent: id(from), capability, resource: None }, &world.view())
    }

    fn path(reach: Reach) -> Path {
        match reach {
            Reach::Path(path) => path,
            Reach::Cut(cut) => panic!("{cut:?}"),
        }
    }

    const PAY: &[&str] = &["payments.authorize"];

    fn chain(cut: bool) -> World {
        World::of(&[
            &agent("desk", &[], &["https://a"]),
            &called_by(agent("planner", &[], &["https://a"]), &["desk"]),
            &called_by(agent("treasurer", &[], &["https://a"]), if cut { &[] } else { &["planner"] }),
            &called_by(agent("payer", PAY, &["https://a"]), &["treasurer", "other"]),
            &agent("other", PAY, &["https://a"]),
        ])
    }

    #[test]
    fn a_chain_of_three_hops_is_found_and_gone_when_one_edge_is_cut() {
        let found = path(ask(&chain(false), "desk"));
        assert_eq!(found.chain, ["desk", "planner", "treasurer", "payer"].map(id));
        let missing = ["desk", "planner", "treasurer"].map(id).to_vec();
        assert_eq!(found.opens, Opening::OwnRight { missing, approvals: 0 });
        let Reach::Cut(cut) = ask(&chain(true), "desk") else { panic!("a chain") };
        assert_eq!(cut.reached, ["desk", "planner"].map(id).into());
        assert_eq!(cut.holders, ["payer", "other"].map(id).into());
        assert_eq!(cut.leads_there, ["payer", "other", "treasurer"].map(id).into());
        assert!(!cut.too_long && cut.out_of_use.is_empty());
    }

    #[test]
    fn the_shortest_chain_is_the_answer_and_of_two_the_one_that_needs_less() {
        assert_eq!(path(ask(&chain(false), "other")).chain, [id("other")]);
        let world = World::of(&[
            &agent("desk", PAY, &[]),
            &called_by(agent("a", &[], &[]), &["desk"]),
            &called_by(agent("b", PAY, &[]), &["desk"]),
        ]);
        assert_eq!(path(ask(&world, "desk")).opens, Opening::Nothing);
        assert_eq!(path(ask(&world, "desk")).chain.len(), 1);
    }

    #[test]
    fn an_approval_opens_what_the_catalogue_guards() {
        let mut world = chain(false);
        let spec: CapabilitySpec = serde_json::from_value(serde_json::json!({"approval": {"approvals": 2}})).expect("a spec");
        let name = CapabilityName::parse("payments.authorize").expect("a name");
        world.catalogue.insert(name, Rule::parse(&spec).map_err(|e| crate::capability::Unusable::Invalid(e.to_string())));
        assert_eq!(path(ask(&world, "desk")).opens, Opening::Approval(2));
    }

    #[test]
    fn who_is_out_of_use_or_too_far_leads_nowhere() {
        let mut world = chain(false);
        let mut treasurer = (*world.agents.get(&id("treasurer")).expect("there")).clone();
        treasurer.suspended = true;
        world.agents.insert(treasurer);
        let Reach::Cut(cut) = ask(&world, "desk") else { panic!("a chain") };
        assert_eq!(cut.out_of_use.get(&id("treasurer")), Some(&"it is suspended"));
        let mut world = chain(false);
        let mut planner = (*world.agents.get(&id("planner")).expect("there")).clone();
        planner.rights.as_mut().expect("rights").delegation.max_depth = 3;
        world.agents.insert(planner);
        let Reach::Cut(cut) = ask(&world, "desk") else { panic!("a chain") };
        assert!(cut.too_long);
        let Reach::Cut(cut) = ask(&world, "nobody") else { panic!("a chain") };
        assert!(cut.reached.is_empty());
    }

    #[test]
    fn agents_that_call_one_another_in_a_circle_end_the_search() {
        let world = World::of(&[
            &called_by(agent("a", &[], &[]), &["b", "a"]),
            &called_by(agent("b", &[], &[]), &["a"]),
            &agent("c", PAY, &[]),
        ]);
        assert!(matches!(ask(&world, "a"), Reach::Cut(_)));
    }
}
