//! May this one operation be asked for, and is a token for it still good? The same rules when an agent asks, when its approval is
//! turned into a token, and at every introspection of that token.

use super::attempt::{Attempt, Usage, usable};
use super::standing::{chain_stands, rights, standing};
use super::{Decision, Denial, Permit, Reason, SignWith, View, audience, holding, proved};
use crate::agent::{EXPIRATION_MAX, Granted, RegisteredAgent};
use crate::capability::{Catalogue, Rule};
use crate::chain::Chain;
use crate::crd::SigningAlgorithm;
use crate::dpop::Confirmation;
use crate::operation::Operation;

/// An operation that the agent may ask a person to approve, and under which rule.
#[derive(Debug, Clone, Copy)]
pub struct Approvable<'a> {
    /// The rule of the catalogue.
    pub rule: &'a Rule,
    /// Longest life of the token, in seconds: the strictest of Agent and rule.
    pub max_expiration_seconds: u32,
    /// How a token for its audience is signed.
    pub signing_algorithm: SigningAlgorithm,
}

/// An approval that is turned into a token: everything about the token that was fixed when it was.
#[derive(Debug, Clone)]
pub struct Redemption {
    /// What was approved.
    pub grant: OperationGrant,
    /// On whose behalf and through whom, the agent itself at the end: its registration for which it was approved, and its revocation
    /// epoch when the approval was turned into a token.
    pub chain: Chain,
    /// When that was, in seconds since the epoch.
    pub issued_at: u64,
    /// When the token ends, in seconds since the epoch.
    pub expires_at: u64,
    /// The name of the key that signs it.
    pub key_id: String,
    /// To which key it is bound, if it is.
    pub confirmation: Option<Confirmation>,
}

/// The one operation for which a token is good.
#[derive(Debug, Clone, PartialEq)]
pub struct OperationGrant {
    /// What.
    pub operation: Operation,
    /// The approval, if it needed one.
    pub approval: Option<Approval>,
}

/// That a person has approved an operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The digest that was approved.
    pub digest: String,
    /// UID of the JitRequest.
    pub request_uid: String,
}

/// Whether `agent`, at the end of `chain`, may ask a person to approve `operation`.
///
/// # Errors
/// The rule that says no.
pub fn may_request<'a>(
    agent: &RegisteredAgent,
    chain: &Chain,
    catalogue: &'a Catalogue,
    operation: &Operation,
) -> Result<Approvable<'a>, Denial> {
    standing(agent)?;
    covered(agent, chain, catalogue, operation)
}

/// Whether the operation is within what the agent holds and the catalogue allows, whatever its standing.
pub(super) fn covered<'a>(
    agent: &RegisteredAgent,
    chain: &Chain,
    catalogue: &'a Catalogue,
    operation: &Operation,
) -> Result<Approvable<'a>, Denial> {
    let rights = rights(agent)?;
    let name = &operation.capability;
    let held = holding(agent, &rights.capabilities, name)?;
    let attempt = Attempt::of(operation);
    let Some(rule) = usable(agent, held, Usage { acting: agent, chain, attempt: Some(&attempt) }, catalogue)? else {
        let message = format!("{name} needs no approval: obtain a token with scope={name}");
        return Err(Denial::new(Reason::ApprovalNotNeeded, message));
    };
    let signing_algorithm = audience(agent, &rights.audiences, Some(operation.audience.as_str()))?.signing_algorithm;
    let max = rule.max_expiration_seconds.unwrap_or(u32::MAX).min(rights.expiration_seconds);
    Ok(Approvable { rule, max_expiration_seconds: max, signing_algorithm })
}

/// Decides whether an approval that is being turned into a token, or was within the last seconds, gets that token. Everything is
/// asked again: what was approved a minute ago may be forbidden by now.
pub fn permit_operation(agent: &RegisteredAgent, view: &View<'_>, redemption: &Redemption, now: u64) -> Decision {
    permit(agent, view, redemption, now).into()
}

fn permit(agent: &RegisteredAgent, view: &View<'_>, redemption: &Redemption, now: u64) -> Result<Permit, Denial> {
    let operation = &redemption.grant.operation;
    if redemption.chain.acting().is_none_or(|link| link.agent != agent.id) {
        return Err(Denial::new(Reason::Revoked, format!("what was approved is not for {}", agent.id)));
    }
    chain_stands(&redemption.chain, None, view, now)?;
    may_request(agent, &redemption.chain, view.catalogue, operation)?;
    proved(agent, redemption.confirmation.is_some())?;
    let life = redemption.expires_at.saturating_sub(redemption.issued_at);
    if redemption.expires_at <= now || life == 0 || life > EXPIRATION_MAX.into() {
        return Err(Denial::new(
            Reason::CredentialSpent,
            "nothing is left of the token's life, or it would live longer than any may",
        ));
    }
    Ok(Permit {
        chain: redemption.chain.clone(),
        capabilities: vec![Granted { name: operation.capability.clone(), resources: None, approval_required: true, when: None }],
        audience: operation.audience.clone(),
        may_act: None,
        sign_with: SignWith::Key(redemption.key_id.clone()),
        issued_at: redemption.issued_at,
        expires_at: redemption.expires_at,
        confirmation: redemption.confirmation.clone(),
        operation: Some(Box::new(redemption.grant.clone())),
    })
}
