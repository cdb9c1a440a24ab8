//! A model of the whole life of one request, searched exhaustively: three replicas that read stale versions, write by
//! compare-and-swap and crash at any point, an agent that polls and completes at any of them, and persons who approve and deny at any
//! moment. What each does is decided by the very functions that the operator runs; only the API server, time and crashes are modelled.
//!
//! A model that finds nothing proves nothing, so faults can be planted ([`Fault`]), and each must be found.

use super::status::seconds;
use super::tests::{Fixture, decide, request, signers};
use super::{Claim, NewToken, Request, Step, claim, complete, redeem, step};
use crate::crd::{JitRequestStatus, Phase, Verdict};
use std::collections::{HashMap, HashSet, VecDeque};

/// How many replicas there are.
const REPLICAS: usize = 3;
/// How often replicas crash in one run.
const CRASHES: u8 = 2;
/// How many token identifiers the replicas make in one run.
const IDENTIFIERS: u8 = 4;
/// The moments: the request is new at 0, must be decided by 600; what is approved at 10 must be redeemed by 610 and at 500 by 1100.
const MOMENTS: [i64; 5] = [10, 15, 500, 700, 2000];

/// A fault that can be planted. This is a switch of the test alone: nothing in the operator knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// A status is written over whatever is there.
    BlindWrite,
    /// Whoever redeems does not look at a denial that the controller has not processed.
    DenialOverlooked,
    /// Whoever hands out a token again makes a new one.
    FreshTokenAgain,
    /// The controller clears a decision without recording it.
    DecisionDropped,
}

/// What a replica has computed and is about to write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Write {
    status: usize,
    /// Whether it was made from what is stored now.
    current: bool,
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Kind {
    Step,
    Redeem,
    Complete,
}

/// One replica: what it has seen, and what it is about to write. Versions are told apart by one thing alone: whether they are current.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Replica {
    view: usize,
    current: bool,
    write: Option<Write>,
}

/// One state of the world. Statuses are numbers into a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct World {
    stored: usize,
    replicas: [Replica; REPLICAS],
    moment: usize,
    crashes: u8,
    identifiers: u8,
    /// Who has written a decision.
    approved: bool,
    denied: bool,
    /// Identifiers of tokens that an agent has in hand, as bits.
    tokens: u8,
    /// How many callers were told that they completed the operation.
    completions: u8,
    /// Whether a denial was accepted before a token was fixed.
    denial_stands: bool,
}

/// What a replica could do with what it sees.
#[derive(Debug, Clone, Copy)]
struct Options {
    step: Option<usize>,
    complete: Option<usize>,
    /// The status with a fresh token, if there is an approval to redeem.
    redeem: Option<usize>,
    /// Whether there is a token to be handed out again.
    again: bool,
}

/// The search.
struct Search {
    fixture: Fixture,
    template: Request,
    fault: Option<Fault>,
    statuses: Vec<JitRequestStatus>,
    numbers: HashMap<String, usize>,
    /// By view, moment and the identifier that a new token would have: each function is asked once for each question.
    options: HashMap<(usize, usize, u8), Options>,
}

impl Search {
    fn new(fault: Option<Fault>) -> Self {
        Self {
            fixture: Fixture::new(),
            template: request(),
            fault,
            statuses: Vec::new(),
            numbers: HashMap::new(),
            options: HashMap::new(),
        }
    }

    fn number(&mut self, status: JitRequestStatus) -> usize {
        let text = serde_json::to_string(&status).expect("JSON");
        let next = self.statuses.len();
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.statuses.push(status);
        }
        number
    }

    /// What a replica that sees `view` could do.
    fn options(&mut self, view: usize, moment: usize, identifier: u8) -> Options {
        if let Some(known) = self.options.get(&(view, moment, identifier)) {
            return *known;
        }
        let (before, now) = (Request { status: self.statuses[view].clone(), ..self.template.clone() }, MOMENTS[moment]);
        let step = match step(&before, &self.fixture.facts(), now) {
            Step::Write(change) => Some(self.by_controller(&before, change.status)),
            Step::Wait(_) | Step::Remove => None,
        };
        let decision = before.status.decision.clone();
        let mut seen = before;
        if self.fault == Some(Fault::DenialOverlooked) {
            seen.status.decision = None;
        }
        let jti = seen.status.jti.clone();
        let completed = jti.and_then(|jti| complete(&seen, &jti, now).ok());
        let complete = completed.map(|change| self.number(change.status));
        let (mut redeemed, mut again) = (None, false);
        match claim(&seen, &self.fixture.evidence, now) {
            Ok(Claim::Redeemable(approval)) => {
                let token =
                    NewToken { jti: identifier.to_string(), signers: signers(), credential_expires_at: 9000, confirmation: None };
                let change =
                    redeem(&approval, &self.fixture.agent, &self.fixture.world().view(), &self.fixture.evidence, token, now);
                let status = change.expect("the agent stands").0.status;
                redeemed = Some(JitRequestStatus { decision, ..status });
            }
            Ok(Claim::Again(_)) => again = true,
            Err(_) => {}
        }
        let redeem = redeemed.map(|status| self.number(status));
        let options = Options { step, complete, redeem, again };
        self.options.insert((view, moment, identifier), options);
        options
    }

    /// What the controller writes.
    fn by_controller(&mut self, before: &Request, mut status: JitRequestStatus) -> usize {
        if self.fault == Some(Fault::DecisionDropped) && before.status.decision.is_some() {
            status.approvals.clone_from(&before.status.approvals);
            status.evidence = self.fixture.evidence.attest(&before.uid, &status);
        }
        self.number(status)
    }

    /// All states that can follow.
    fn next(&mut self, world: &World) -> Vec<World> {
        let mut found = Vec::new();
        if world.moment + 1 < MOMENTS.len() {
            found.push(World { moment: world.moment + 1, ..*world });
        }
        self.persons(world, &mut found);
        for r in 0..REPLICAS {
            let replica = world.replicas[r];
            if !replica.current && replica.write.is_none() {
                found.push(with(world, r, Replica { view: world.stored, current: true, write: None }));
            }
            match replica.write {
                None => self.begin(world, r, &mut found),
                Some(write) => {
                    self.commit(world, r, write, &mut found);
                    if world.crashes > 0 {
                        // Before the write reaches the API server; what was seen is read anew.
                        let fresh = Replica { view: world.stored, current: true, write: None };
                        found.push(World { crashes: world.crashes - 1, ..with(world, r, fresh) });
                    }
                }
            }
        }
        found
    }

    /// Persons decide, as far as admission lets them.
    fn persons(&mut self, world: &World, found: &mut Vec<World>) {
        let status = self.statuses[world.stored].clone();
        let open = status.phase == Some(Phase::Pending) && status.digest.is_some();
        if !world.approved && open && status.decision.is_none() {
            let next = JitRequestStatus { decision: Some(decide(Verdict::Approved, "bob")), ..status.clone() };
            found.push(World { approved: true, ..self.write_by_person(world, next) });
        }
        let replaceable = status.decision.as_ref().is_none_or(|d| d.verdict == Verdict::Approved);
        if !world.denied && (open || status.phase == Some(Phase::Approved)) && replaceable {
            let next = JitRequestStatus { decision: Some(decide(Verdict::Denied, "carol")), ..status };
            let denial_stands = self.statuses[world.stored].jti.is_none();
            found.push(World { denied: true, denial_stands, ..self.write_by_person(world, next) });
        }
    }

    fn write_by_person(&mut self, world: &World, status: JitRequestStatus) -> World {
        let number = self.number(status);
        self.store(world, number)
    }

    /// A replica acts on what it sees: as controller, for an agent that polls, or for one that completes.
    fn begin(&mut self, world: &World, r: usize, found: &mut Vec<World>) {
        let Replica { view, current, .. } = world.replicas[r];
        let options = self.options(view, world.moment, world.identifiers);
        // What it saw does not matter any more: after the write it reads anew.
        let will_write = |status, kind| {
            let write = Some(self.compact(Write { status, current, kind }));
            with(world, r, Replica { view: 0, current: false, write })
        };
        found.extend(options.step.map(|status| will_write(status, Kind::Step)));
        found.extend(options.complete.map(|status| will_write(status, Kind::Complete)));
        let fresh = world.identifiers < IDENTIFIERS;
        if let Some(status) = options.redeem.filter(|_| fresh) {
            found.push(World { identifiers: world.identifiers + 1, ..will_write(status, Kind::Redeem) });
        }
        // What was issued a moment ago is handed out again, by any replica that sees it live.
        if options.again && current {
            match self.fault {
                Some(Fault::FreshTokenAgain) if fresh => found.push(World {
                    identifiers: world.identifiers + 1,
                    tokens: world.tokens | 1 << world.identifiers,
                    ..*world
                }),
                _ => found.push(World { tokens: world.tokens | bit(&self.statuses[view]), ..*world }),
            }
        }
    }

    /// A write that was made from an old version fails, whatever it says.
    fn compact(&self, write: Write) -> Write {
        if write.current || self.fault == Some(Fault::BlindWrite) {
            return write;
        }
        Write { status: 0, current: false, kind: Kind::Step }
    }

    /// The world with another status stored: whatever anybody has seen or made before is not current any more.
    fn store(&self, world: &World, status: usize) -> World {
        let stale = |replica: Replica| Replica {
            current: false,
            write: replica.write.map(|write| self.compact(Write { current: false, ..write })),
            ..replica
        };
        World { stored: status, replicas: world.replicas.map(stale), ..*world }
    }

    /// The API server takes the write, or finds that it was made from an older version.
    fn commit(&mut self, world: &World, r: usize, write: Write, found: &mut Vec<World>) {
        let idle = |world: &World| {
            let fresh = Replica { view: world.stored, current: true, write: None };
            with(world, r, fresh)
        };
        if !write.current && self.fault != Some(Fault::BlindWrite) {
            found.push(idle(world));
            return;
        }
        let stored = idle(&self.store(world, write.status));
        match write.kind {
            Kind::Step => found.push(stored),
            Kind::Redeem => {
                let tokens = stored.tokens | bit(&self.statuses[write.status]);
                found.push(World { tokens, ..stored });
                if world.crashes > 0 {
                    // Between the write and the reply.
                    found.push(World { crashes: world.crashes - 1, ..stored });
                }
            }
            Kind::Complete => found.push(World { completions: world.completions + 1, ..stored }),
        }
    }

    /// What must hold between two states.
    fn check(&self, before: &World, after: &World) -> Result<(), String> {
        let (old, new) = (&self.statuses[before.stored], &self.statuses[after.stored]);
        if !forward(old.phase, new.phase) {
            return Err(format!("the phase went from {:?} to {:?}", old.phase, new.phase));
        }
        for (name, was, is) in [
            ("jti", old.jti.is_some(), old.jti == new.jti),
            ("digest", old.digest.is_some(), old.digest == new.digest),
            ("redeemBy", old.redeem_by.is_some(), old.redeem_by == new.redeem_by),
        ] {
            if was && !is {
                return Err(format!("{name} changed"));
            }
        }
        if !old.approvals.iter().all(|approval| new.approvals.contains(approval)) {
            return Err("an approval was removed".to_owned());
        }
        if let Some(decision) = &old.decision
            && new.decision.is_none()
            && !new.approvals.iter().any(|a| Some(&a.by) == decision.by.as_ref() && a.verdict == decision.verdict)
        {
            return Err("a decision was undone".to_owned());
        }
        if after.tokens.count_ones() > 1 {
            return Err("two tokens of one approval".to_owned());
        }
        if after.denial_stands && new.jti.is_some() {
            return Err("a token after a denial".to_owned());
        }
        if after.completions > 1 {
            return Err("completed twice".to_owned());
        }
        if new.jti.is_some() {
            let approved = new.approvals.iter().any(|a| a.verdict == Verdict::Approved && a.void.is_none());
            let in_time = seconds(new.issued_at.as_ref()) < seconds(new.redeem_by.as_ref());
            if !approved || !in_time {
                return Err("a token without an approval in time".to_owned());
            }
        }
        Ok(())
    }

    /// Searches every state that can be reached. Returns how many there are, or what is wrong with the first that must not be.
    fn run(&mut self) -> Result<(usize, HashSet<Option<Phase>>), String> {
        let new = self.number(JitRequestStatus::default());
        let replica = Replica { view: new, current: true, write: None };
        let start = World {
            stored: new,
            replicas: [replica; REPLICAS],
            moment: 0,
            crashes: CRASHES,
            identifiers: 0,
            approved: false,
            denied: false,
            tokens: 0,
            completions: 0,
            denial_stands: false,
        };
        let (mut seen, mut queue, mut phases) = (HashSet::from([start]), VecDeque::from([start]), HashSet::new());
        while let Some(world) = queue.pop_front() {
            phases.insert(self.statuses[world.stored].phase);
            for mut next in self.next(&world) {
                self.check(&world, &next)?;
                // Replicas have no names: which of them is where makes no difference.
                next.replicas.sort_unstable();
                if seen.insert(next) {
                    queue.push_back(next);
                }
            }
        }
        Ok((seen.len(), phases))
    }
}

fn with(world: &World, r: usize, replica: Replica) -> World {
    let mut next = *world;
    next.replicas[r] = replica;
    next
}

fn bit(status: &JitRequestStatus) -> u8 {
    status.jti.as_ref().map_or(0, |jti| 1 << jti.parse::<u8>().expect("a number"))
}

/// The rule of the schema, written a second time.
fn forward(from: Option<Phase>, to: Option<Phase>) -> bool {
    use Phase::{Approved, Cancelled, Completed, Denied, Expired, Issued, Pending, Revoked};
    from == to
        || match from {
            None => matches!(to, Some(Pending | Denied | Expired | Revoked)),
            Some(Pending) => matches!(to, Some(Approved | Denied | Expired | Cancelled | Revoked)),
            Some(Approved) => matches!(to, Some(Issued | Denied | Expired | Cancelled | Revoked)),
            Some(Issued) => matches!(to, Some(Completed | Expired | Revoked)),
            Some(Denied | Expired | Cancelled | Completed | Revoked) => false,
        }
}

#[test]
fn a10_over_three_replicas_an_approval_makes_one_token_nothing_is_undone_and_deny_wins() {
    let (states, phases) = Search::new(None).run().unwrap_or_else(|violation| panic!("{violation}"));
    println!("{states} states");
    assert!(states > 10_000, "the search is not one: {states} states");
    for phase in [Phase::Pending, Phase::Approved, Phase::Denied, Phase::Expired, Phase::Issued, Phase::Completed] {
        assert!(phases.contains(&Some(phase)), "{phase:?} is never reached");
    }
}

#[test]
fn the_model_finds_each_fault_that_is_planted() {
    for (fault, expected) in [
        (Fault::BlindWrite, "changed|two tokens|phase|undone|removed"),
        (Fault::DenialOverlooked, "a token after a denial"),
        (Fault::FreshTokenAgain, "two tokens"),
        (Fault::DecisionDropped, "undone|without an approval"),
    ] {
        let violation = Search::new(Some(fault)).run().err().unwrap_or_else(|| panic!("{fault:?} was not found"));
        println!("{fault:?}: {violation}");
        assert!(expected.split('|').any(|sign| violation.contains(sign)), "{fault:?}: {violation}");
    }
}
