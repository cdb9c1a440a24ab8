//! The API server's keys for ServiceAccount tokens, fetched with our own credential from a fixed path.

use super::IdentityError;
use arc_swap::ArcSwap;
use axum::http;
use jsonwebtoken::jwk::{Jwk, JwkSet, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How often an unknown `kid` may cause a fetch.
const COOLDOWN: Duration = Duration::from_secs(10);
/// How often the keys are fetched anyway, so that one which the API server has dropped is dropped here.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(2);

/// One public key, fixed to the issuer and the algorithm for which it was published.
#[derive(Debug)]
pub struct IssuerKey {
    /// Its issuer, `iss` of the tokens that it verifies.
    pub issuer: Arc<str>,
    /// The only algorithm with which it is used.
    pub algorithm: Algorithm,
    /// The key.
    pub key: DecodingKey,
}

type Keys = HashMap<String, Arc<IssuerKey>>;

/// The keys, kept current.
pub struct ApiServerKeys {
    client: kube::Client,
    current: ArcSwap<Keys>,
    /// When a fetch was last begun for an unknown `kid`; held while it runs, so that a crowd makes one fetch.
    fetched: Mutex<Option<Instant>>,
}

impl std::fmt::Debug for ApiServerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServerKeys").field("kids", &self.current.load().keys().collect::<Vec<_>>()).finish_non_exhaustive()
    }
}

impl ApiServerKeys {
    /// Keys that are fetched when they are first needed.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        Self { client, current: ArcSwap::default(), fetched: Mutex::new(None) }
    }

    /// The key `kid`. One that is not known causes a fetch, at most every 10 s whatever the number of such tokens.
    ///
    /// # Errors
    /// [`IdentityError::UnknownKey`] if the API server does not publish it, [`IdentityError::Unavailable`] if it cannot be asked
    /// and no key is known at all.
    pub async fn find(&self, kid: Option<&str>) -> Result<Arc<IssuerKey>, IdentityError> {
        let kid = kid.ok_or(IdentityError::UnknownKey)?;
        let known = |keys: &Keys| keys.get(kid).cloned();
        if let Some(key) = known(&self.current.load()) {
            return Ok(key);
        }
        let mut fetched = self.fetched.lock().await;
        if let Some(key) = known(&self.current.load()) {
            return Ok(key);
        }
        if fetched.is_some_and(|at| at.elapsed() < COOLDOWN) {
            return Err(IdentityError::UnknownKey);
        }
        *fetched = Some(Instant::now());
        match self.fetch().await {
            Ok(()) => known(&self.current.load()).ok_or(IdentityError::UnknownKey),
            Err(error) if self.current.load().is_empty() => {
                // Nothing is known yet: the next caller may try at once.
                *fetched = None;
                Err(IdentityError::Unavailable(error))
            }
            Err(error) => {
                tracing::warn!(%error, "the API server's keys could not be fetched");
                Err(IdentityError::UnknownKey)
            }
        }
    }

    /// Fetches the keys every minute, for ever.
    pub async fn keep_current(&self) {
        loop {
            let pause = match self.fetch().await {
                Ok(()) => REFRESH,
                Err(error) => {
                    tracing::warn!(%error, "the API server's keys could not be fetched");
                    Duration::from_secs(1)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn fetch(&self) -> Result<(), String> {
        let get = |path: &'static str| async move {
            let request = http::Request::get(path).body(Vec::new()).map_err(|e| e.to_string())?;
            let answer = tokio::time::timeout(FETCH_WITHIN, self.client.request_text(request)).await;
            answer
                .map_err(|_| format!("{path}: no answer within {} s", FETCH_WITHIN.as_secs()))?
                .map_err(|e| format!("{path}: {e}"))
        };
        let discovery: serde_json::Value =
            serde_json::from_str(&get("/.well-known/openid-configuration").await?).map_err(|e| format!("discovery: {e}"))?;
        let issuer = discovery.get("issuer").and_then(serde_json::Value::as_str).filter(|i| !i.is_empty());
        let issuer: Arc<str> = issuer.ok_or("the API server's discovery document names no issuer")?.into();
        // The path is ours, not the document's `jwks_uri`: nothing that we read says where we connect.
        let set: JwkSet = serde_json::from_str(&get("/openid/v1/jwks").await?).map_err(|e| format!("JWKS: {e}"))?;
        let mut keys = Keys::new();
        for jwk in &set.keys {
            match usable(jwk) {
                Some((kid, algorithm, key)) => {
                    keys.insert(kid, Arc::new(IssuerKey { issuer: Arc::clone(&issuer), algorithm, key }));
                }
                None => {
                    tracing::warn!(kid = ?jwk.common.key_id, "a key of the API server is not used: no kid, not for signing, or no known algorithm")
                }
            }
        }
        if keys.is_empty() {
            return Err("the API server publishes no usable key".to_owned());
        }
        self.current.store(Arc::new(keys));
        Ok(())
    }
}

/// The parts of a key that can verify signatures.
fn usable(jwk: &Jwk) -> Option<(String, Algorithm, DecodingKey)> {
    let kid = jwk.common.key_id.clone().filter(|kid| !kid.is_empty())?;
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let algorithm = match jwk.common.key_algorithm? {
        KeyAlgorithm::RS256 => Algorithm::RS256,
        KeyAlgorithm::RS384 => Algorithm::RS384,
        KeyAlgorithm::RS512 => Algorithm::RS512,
        KeyAlgorithm::ES256 => Algorithm::ES256,
        KeyAlgorithm::ES384 => Algorithm::ES384,
        _ => return None,
    };
    Some((kid, algorithm, DecodingKey::from_jwk(jwk).ok()?))
}
