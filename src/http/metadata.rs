//! What others need to know about us: the metadata documents and the public keys. They are served whatever the state of
//! the cluster, and say the same whatever Host a request names.

use super::App;
use super::poll::CIBA;
use super::token::{CLIENT_CREDENTIALS, JWT_BEARER, PATH as TOKEN, TOKEN_EXCHANGE};
use crate::crd::SigningAlgorithm;
use crate::dpop::ALGORITHMS;
use crate::token::OPERATION_DETAILS;
use axum::Json;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use std::sync::Arc;

/// Algorithms of client assertions: those of agents' own keys under both names (RFC 8037 and RFC 9864), and those with which API servers
/// and other issuers sign tokens.
const ASSERTION_ALGORITHMS: [&str; 7] = ["EdDSA", "Ed25519", "RS256", "RS384", "RS512", "ES256", "ES384"];

/// The metadata of RFC 8414, also served as OpenID discovery for clients that know only that.
pub(super) async fn document(State(app): State<Arc<App>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", app.issuer);
    Json(json!({
        "issuer": app.issuer,
        "token_endpoint": at(TOKEN),
        "jwks_uri": at("/oauth2/jwks"),
        "introspection_endpoint": at("/oauth2/introspect"),
        "revocation_endpoint": at("/oauth2/revoke"),
        "backchannel_authentication_endpoint": at("/oauth2/bc-authorize"),
        "backchannel_token_delivery_modes_supported": ["poll"],
        "backchannel_user_code_parameter_supported": false,
        "authorization_details_types_supported": [OPERATION_DETAILS],
        // Ours: where an approved operation is reported as done.
        "countersign_completion_endpoint": at("/jit/complete"),
        // Ours: what verifiers that work offline have to know.
        "countersign_revocations_endpoint": at("/revocations"),
        "grant_types_supported": [CLIENT_CREDENTIALS, JWT_BEARER, TOKEN_EXCHANGE, CIBA],
        "token_endpoint_auth_methods_supported": ["private_key_jwt", "none"],
        "token_endpoint_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
        "introspection_endpoint_auth_methods_supported": ["private_key_jwt", "Bearer"],
        "introspection_endpoint_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
        "revocation_endpoint_auth_methods_supported": ["private_key_jwt"],
        "revocation_endpoint_auth_signing_alg_values_supported": ASSERTION_ALGORITHMS,
        "dpop_signing_alg_values_supported": ALGORITHMS,
        // There is no authorization endpoint. RFC 8414 section 2 requires the member and forbids it to be empty.
        "response_types_supported": ["none"],
        // OpenID Discovery requires these; no ID token is issued.
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": SigningAlgorithm::ALL.map(SigningAlgorithm::as_str),
    }))
}

/// The metadata of AuthZEN 1.0 section 9.
pub(super) async fn access(State(app): State<Arc<App>>) -> Json<Value> {
    let at = |path: &str| format!("{}{path}", app.issuer);
    Json(json!({
        "policy_decision_point": app.issuer,
        "access_evaluation_endpoint": at("/access/v1/evaluation"),
        "access_evaluations_endpoint": at("/access/v1/evaluations"),
        "search_action_endpoint": at("/access/v1/search/action"),
        // Ours: the same in plain words.
        "countersign_ask_endpoint": at("/ask"),
    }))
}

/// The public keys (RFC 7517).
pub(super) async fn jwks(State(app): State<Arc<App>>) -> Response {
    let mut response = Json(app.keys.current().jwks()).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/jwk-set+json"));
    if let Ok(value) = HeaderValue::from_str(&format!("public, max-age={}", app.keys_max_age)) {
        headers.insert(header::CACHE_CONTROL, value);
    }
    response
}
