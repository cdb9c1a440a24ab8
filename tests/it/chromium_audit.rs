//! What was recorded, in the portal, in Chromium: `tests/portal/audit.mjs`.

use crate::chains::{Team, trusting_users_of};
use crate::federation::ready;
use crate::organisation::Organisation;
use crate::world::claims;
use serde_json::json;
use std::sync::OnceLock;

/// A team in the organisation, whose people it trusts to be who they say.
pub fn team(organisation: &'static Organisation, purpose: &str) -> Team<'static> {
    static TRUSTED: OnceLock<()> = OnceLock::new();
    TRUSTED.get_or_init(|| {
        organisation.world.apply(&trusting_users_of(&organisation.provider, "acme-idp")).expect("the TrustedIssuer is accepted");
        ready(&organisation.world, "acme-idp");
    });
    Team::start_in(&organisation.world, purpose)
}

/// The `jti` of the token that search has, called by bot for alice.
pub fn chain(organisation: &Organisation, team: &Team<'_>) -> String {
    let id_token = organisation.provider.log_in("research-app", "alice").expect("logged in").id_token;
    let token = team.reads("search", &team.called(&id_token)).expect(200).text("access_token");
    claims(&token)["jti"].as_str().expect("a jti").to_owned()
}

fn reads(purpose: &str, scripts: bool) {
    let organisation = Organisation::shared();
    organisation.alice_audits();
    let team = team(organisation, purpose);
    let settings = json!({
        "javaScriptEnabled": scripts,
        "tokens": organisation.tokens(&["alice", "dana"]),
        "jti": chain(organisation, &team),
        "user": "alice@acme.example",
        "boxes": ["alice@acme.example", format!("{}/bot", team.namespace), format!("{}/search", team.namespace)],
        "dropped": ["document.write"],
    });
    let jti = settings["jti"].clone();
    let mut scenario = organisation.scenario("audit.mjs", "the chain of a token", settings);
    scenario.reaches("read").expect("read");
    let records = organisation.world.operator.audit_lines().expect("the audit log");
    let readings = records.iter().filter(|record| {
        record["reader"] == "oidc:alice@acme.example" && record.to_string().contains(jti.as_str().expect("text"))
    });
    assert!(readings.count() >= 2, "each reading is recorded: the search and the trace");
    scenario.answer(&json!({}));
    scenario.ends().expect("it ends well");
}

#[test]
fn whoever_may_read_the_records_finds_a_token_and_sees_its_chain() {
    reads("traced", true);
}

#[test]
fn without_scripts_the_chain_of_a_token_is_seen_too() {
    reads("traced-plain", false);
}
