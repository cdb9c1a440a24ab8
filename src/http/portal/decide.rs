//! A person decides: one patch of the status, with the person's own token, of which admission makes what it makes of one by kubectl.

use super::super::error::Refusal;
use super::super::form::Form;
use super::super::kubernetes::{refused, whoami};
use super::page::{encoded, see_other};
use super::{Place, Visit};
use crate::audit::{Outcome, Record};
use crate::crd::{JitRequest, Verdict};
use crate::jit::decision_patch;
use axum::response::Response;
use kube::api::{Api, Patch, PatchParams, ValidationDirective};
use std::time::Duration;

/// How long the page waits for the operator to take the decision in, so that it shows what came of it.
const TAKEN_IN_WITHIN: Duration = Duration::from_secs(2);
/// How often it looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Approves or denies.
pub(super) async fn decide(visit: &Visit, place: &Place, form: &Form, record: &mut Record) -> Result<Response, Refusal> {
    let said = form.require("verdict")?;
    let verdict = match said {
        "Approved" => Verdict::Approved,
        "Denied" => Verdict::Denied,
        _ => return Err(Refusal::malformed("verdict must be Approved or Denied")),
    };
    let digest = form.require("digest")?;
    let comment = form.raw("comment").map(str::trim).filter(|comment| !comment.is_empty());
    record.text("jit_request", format!("{}/{}", place.namespace, place.name)).text("verdict", said).text("digest", digest);
    let by = whoami(&visit.client).await?;
    record.text("by", by.username.as_str());
    let patch = decision_patch(verdict, comment, digest, &by);
    let api: Api<JitRequest> = Api::namespaced(visit.client.clone(), &place.namespace);
    let strictly = PatchParams { field_validation: Some(ValidationDirective::Strict), ..PatchParams::default() };
    api.patch_status(&place.name, &strictly, &Patch::Merge(patch)).await.map_err(refused)?;
    record.conclude(Outcome::Allow, "decided");
    _ = tokio::time::timeout(TAKEN_IN_WITHIN, taken_in(&api, &place.name)).await;
    see_other(&format!("/portal/requests/{}/{}", encoded(&place.namespace), encoded(&place.name)))
}

/// Returns when the operator has taken the decision in, or nobody can tell.
async fn taken_in(api: &Api<JitRequest>, name: &str) {
    while let Ok(request) = api.get_status(name).await {
        if request.status.is_none_or(|status| status.decision.is_none()) {
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
