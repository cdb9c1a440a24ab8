//! Which of the credentials that an Agent lists can be used, and what stands in the way of the others.

use crate::agent::{Admission, FederatedIdentity, Holding, RegisteredAgent, RegisteredKey};
use crate::crd::Provides;
use crate::grammar::AgentId;
use crate::issuer::RegisteredIssuer;
use crate::snapshot::{AgentIndex, Snapshot};

/// The ServiceAccount under which every pod runs that names no other.
const DEFAULT_SERVICE_ACCOUNT: &str = "default";

/// What was found about the credentials of an Agent.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// What stands in the way of some of them, in the order of the spec.
    pub findings: Vec<Finding>,
    /// Whether at least one can be used, or could at any time.
    pub usable: bool,
    /// The thumbprints of the keys that can be used.
    pub thumbprints: Vec<String>,
    /// What is not wrong but should be another way.
    pub warning: Option<String>,
    /// When this will be another answer without anything being written, in seconds since the epoch.
    pub until: Option<u64>,
}

/// Why a credential cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Finding {
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// What it means for the Agent.
    pub weight: Weight,
}

/// What it means for an Agent that one of its credentials cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// Nothing: what is missing may come at any time, and nothing has to be changed then. A ServiceAccount often comes with the pod.
    Awaited,
    /// It is not Ready if it has no other.
    Lost,
    /// It is not Ready, whatever else of it works: somebody must mend the spec.
    Mistake,
}

impl Resolved {
    /// Looks at each credential of `agent` at `now`, in seconds since the epoch. `is_ours` knows the thumbprints of our own keys.
    pub(super) fn of(agent: &RegisteredAgent, snapshot: &Snapshot, is_ours: impl Fn(&str) -> bool, now: u64) -> Self {
        let mut resolved = Self::default();
        let agents = snapshot.agents();
        for name in &agent.credentials.service_accounts {
            resolved.add(service_account(agent, name, &agents, snapshot), None);
            if name == DEFAULT_SERVICE_ACCOUNT {
                let warning = "every pod of the namespace that names no other ServiceAccount runs under 'default' and is this agent: \
                    give the agent a ServiceAccount of its own";
                resolved.warning = Some(warning.to_owned());
            }
        }
        for (index, entry) in agent.credentials.keys.iter().enumerate() {
            let thumbprint = entry.key.as_ref().ok().map(|key| key.thumbprint().to_owned());
            resolved.add(key(agent, index, entry, &agents, &is_ours, now), thumbprint);
            let ends = entry.not_after.filter(|end| *end > now);
            resolved.until = [resolved.until, ends].into_iter().flatten().min();
        }
        for identity in &agent.credentials.federated {
            resolved.add(federated(agent, identity, &agents, snapshot), None);
        }
        resolved
    }

    fn add(&mut self, outcome: Result<(), Finding>, thumbprint: Option<String>) {
        match outcome {
            Ok(()) => {
                self.usable = true;
                self.thumbprints.extend(thumbprint.filter(|thumbprint| !self.thumbprints.contains(thumbprint)));
            }
            Err(finding) => {
                self.usable |= finding.weight == Weight::Awaited;
                self.findings.push(finding);
            }
        }
    }

    /// The condition IdentityResolved: status, reason and message.
    pub(super) fn condition(&self) -> (&'static str, &'static str, String) {
        match (self.findings.first(), &self.warning) {
            (None, None) => ("True", "Resolved", "every credential that the Agent lists can be used".to_owned()),
            (None, Some(warning)) => ("True", "DefaultServiceAccount", warning.clone()),
            (Some(first), _) => {
                let more = match self.findings.len() {
                    1 => String::new(),
                    all => format!(" (and {} more of the Agent's credentials cannot be used)", all - 1),
                };
                ("False", first.reason, format!("{}{more}", first.message))
            }
        }
    }

    /// Why the Agent is not Ready, if its credentials are why.
    pub(super) fn obstacle(&self) -> Option<&Finding> {
        let mistake = self.findings.iter().find(|finding| finding.weight == Weight::Mistake);
        mistake.or_else(|| self.findings.first().filter(|_| !self.usable))
    }
}

/// The older agent that has what `agent` lists, if one has.
fn older(agent: &RegisteredAgent, holding: &Holding, agents: &AgentIndex) -> Option<AgentId> {
    agents
        .owner_of(holding)
        .filter(|owner| owner.id != agent.id && owner.seniority() < agent.seniority())
        .map(|owner| owner.id.clone())
}

fn service_account(agent: &RegisteredAgent, name: &str, agents: &AgentIndex, snapshot: &Snapshot) -> Result<(), Finding> {
    let namespace = agent.id.namespace();
    if let Some(owner) = older(agent, &Holding::service_account(namespace, name), agents) {
        let message = format!(
            "ServiceAccount {name} belongs to {owner}, which is older: a ServiceAccount belongs to one Agent; remove it from one of them"
        );
        return Err(Finding { reason: "ServiceAccountTaken", message, weight: Weight::Mistake });
    }
    if snapshot.workloads().has_service_account(namespace, name) == Some(false) {
        let message = format!("there is no ServiceAccount {name} in namespace {namespace}: create it, or correct the name");
        return Err(Finding { reason: "ServiceAccountNotFound", message, weight: Weight::Awaited });
    }
    Ok(())
}

fn key(
    agent: &RegisteredAgent,
    index: usize,
    entry: &RegisteredKey,
    agents: &AgentIndex,
    is_ours: impl Fn(&str) -> bool,
    now: u64,
) -> Result<(), Finding> {
    let called = entry.kid.as_ref().map_or_else(|| format!("spec.identity.keys[{index}]"), |kid| format!("key {kid}"));
    let refused = |why: &str| Finding { reason: "KeyRefused", message: format!("{called}: {why}"), weight: Weight::Mistake };
    let key = entry.key.as_ref().map_err(|error| refused(error))?;
    if is_ours(key.thumbprint()) {
        return Err(refused(
            "this is a key with which this service signs tokens: give the agent a key of its own (countersign keygen)",
        ));
    }
    if let Some(owner) = older(agent, &Holding::Key(key.thumbprint().to_owned()), agents) {
        let message = format!(
            "{called} belongs to {owner}, which is older: a key belongs to one Agent; make another for this one (countersign keygen)"
        );
        return Err(Finding { reason: "KeyTaken", message, weight: Weight::Mistake });
    }
    if entry.is_over(now) {
        let message = format!("{called} has reached its notAfter: remove it, and add another if the agent has none left");
        return Err(Finding { reason: "KeyExpired", message, weight: Weight::Lost });
    }
    Ok(())
}

fn federated(
    agent: &RegisteredAgent,
    identity: &FederatedIdentity,
    agents: &AgentIndex,
    snapshot: &Snapshot,
) -> Result<(), Finding> {
    let FederatedIdentity { issuer, subject, .. } = identity;
    let rival = agents.claimants(&identity.holding()).find(|rival| {
        rival.id != agent.id
            && rival.seniority() < agent.seniority()
            && rival.credentials.federated.iter().any(|theirs| theirs.contests(identity))
    });
    if let Some(rival) = rival {
        let message = format!(
            "{subject} of {issuer} belongs to {}, which is older: pin different values of one claim in both, or remove it from one of them",
            rival.id
        );
        return Err(Finding { reason: "FederatedIdentityTaken", message, weight: Weight::Mistake });
    }
    let unresolved = |reason, message| Err(Finding { reason, message, weight: Weight::Lost });
    let issuers = snapshot.issuers();
    let counts =
        |found: &RegisteredIssuer| issuers.with_url(&found.url, found.provides).is_some_and(|first| first.uid == found.uid);
    match issuers.get(issuer) {
        None => {
            unresolved("TrustedIssuerNotFound", format!("there is no TrustedIssuer {issuer}: create it, or correct the name"))
        }
        Some(found) if found.provides == Provides::Users => Err(Finding {
            reason: "TrustedIssuerNotForWorkloads",
            message: format!("TrustedIssuer {issuer} provides users, not workloads"),
            weight: Weight::Mistake,
        }),
        Some(found) if found.stopped || found.admission == Admission::Unproven || found.rules.is_err() || !counts(&found) => {
            unresolved("TrustedIssuerNotReady", format!("TrustedIssuer {issuer} is suspended or not Ready: see its conditions"))
        }
        Some(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd;
    use serde_json::{Value, json};
    use std::time::Duration;

    const JWK: &str = r#"{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
    const THUMBPRINT: &str = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k";

    fn agent(name: &str, created: &str, identity: &Value) -> RegisteredAgent {
        let object = json!({"apiVersion": "countersign.dev/v1alpha1", "kind": "Agent",
            "metadata": {"namespace": "ns", "name": name, "uid": name, "creationTimestamp": created},
            "spec": {"owner": "team@acme.com", "identity": identity, "capabilities": []}});
        RegisteredAgent::parse(&serde_json::from_value::<crd::Agent>(object).expect("an Agent")).expect("a name")
    }

    fn resolve(agents: Vec<RegisteredAgent>, of: &str) -> Resolved {
        let snapshot = Snapshot::new(&[], Duration::from_secs(10));
        let wanted = agents.iter().find(|a| a.id.name() == of).expect("one of them").clone();
        agents.into_iter().for_each(|agent| drop(snapshot.update_agents(|index| index.insert(agent))));
        Resolved::of(&wanted, &snapshot, |thumbprint| thumbprint == "ours", 1000)
    }

    #[test]
    fn j19_of_two_agents_with_one_key_the_younger_is_told_whose_it_is() {
        let keys = json!({"keys": [{"kid": "k", "publicKey": JWK}]});
        let both = || vec![agent("old", "2026-01-01T00:00:00Z", &keys), agent("young", "2026-01-02T00:00:00Z", &keys)];
        let old = resolve(both(), "old");
        assert_eq!((old.condition().0, old.thumbprints.as_slice()), ("True", [THUMBPRINT.to_owned()].as_slice()));
        assert!(old.obstacle().is_none());
        let young = resolve(both(), "young");
        let (status, reason, message) = young.condition();
        assert_eq!((status, reason), ("False", "KeyTaken"));
        assert!(message.contains("key k") && message.contains("agent:ns/old"), "{message}");
        assert!(young.obstacle().is_some() && young.thumbprints.is_empty());
    }

    #[test]
    fn j19_our_own_key_and_a_key_that_is_none_are_refused() {
        let snapshot = Snapshot::new(&[], Duration::from_secs(10));
        let mine = agent("a", "2026-01-01T00:00:00Z", &json!({"keys": [{"publicKey": JWK}]}));
        let resolved = Resolved::of(&mine, &snapshot, |thumbprint| thumbprint == THUMBPRINT, 1000);
        assert_eq!(resolved.condition().1, "KeyRefused");
        let bad = resolve(
            vec![agent(
                "a",
                "2026-01-01T00:00:00Z",
                &json!({"serviceAccounts": [{"name": "sa"}], "keys": [{"publicKey": "{}"}]}),
            )],
            "a",
        );
        assert_eq!(bad.condition().1, "KeyRefused");
        assert!(bad.usable && bad.obstacle().is_some(), "a mistake is to be mended although the ServiceAccount works");
    }

    #[test]
    fn a_key_that_has_ended_is_no_mistake_while_another_counts() {
        let keys = json!({"keys": [{"kid": "a", "publicKey": JWK, "notAfter": "1970-01-01T00:10:00Z"}]});
        let over = resolve(vec![agent("a", "2026-01-01T00:00:00Z", &keys)], "a");
        assert_eq!((over.condition().1, over.obstacle().map(|f| f.reason)), ("KeyExpired", Some("KeyExpired")));
        let beside = json!({"serviceAccounts": [{"name": "sa"}], "keys": keys["keys"]});
        assert!(resolve(vec![agent("a", "2026-01-01T00:00:00Z", &beside)], "a").obstacle().is_none());
        let later = json!({"keys": [{"publicKey": JWK, "notAfter": "1970-01-01T01:00:00Z"}]});
        assert_eq!(resolve(vec![agent("a", "2026-01-01T00:00:00Z", &later)], "a").until, Some(3600));
    }

    #[test]
    fn an_identity_of_nobody_who_is_trusted_is_named() {
        let federated = json!({"federated": [{"issuer": "aws", "subject": "arn"}]});
        let alone = resolve(vec![agent("a", "2026-01-01T00:00:00Z", &federated)], "a");
        assert_eq!(alone.condition().1, "TrustedIssuerNotFound");
        let both = vec![agent("old", "2026-01-01T00:00:00Z", &federated), agent("young", "2026-01-02T00:00:00Z", &federated)];
        assert_eq!(resolve(both, "young").condition().1, "FederatedIdentityTaken");
    }

    #[test]
    fn a_service_account_that_is_not_there_yet_is_awaited() {
        let bot = agent("a", "2026-01-01T00:00:00Z", &json!({"serviceAccounts": [{"name": "bot"}]}));
        let snapshot = Snapshot::new(&[], Duration::from_secs(10));
        let resolve = || Resolved::of(&bot, &snapshot, |_| false, 1000);
        assert_eq!(resolve().condition().1, "Resolved", "nobody knows before the first list");
        snapshot.update_workloads(|workloads| {
            workloads.service_account_names.begin();
            workloads.service_account_names.complete()
        });
        assert_eq!((resolve().condition().1, resolve().obstacle()), ("ServiceAccountNotFound", None));
        snapshot
            .update_workloads(|workloads| workloads.service_account_names.applied(("ns".to_owned(), "bot".to_owned()), false));
        assert_eq!(resolve().condition().0, "True");
    }

    #[test]
    fn the_default_service_account_draws_a_warning() {
        let resolved = resolve(vec![agent("a", "2026-01-01T00:00:00Z", &json!({"serviceAccounts": [{"name": "default"}]}))], "a");
        assert_eq!((resolved.condition().0, resolved.condition().1), ("True", "DefaultServiceAccount"));
    }
}
