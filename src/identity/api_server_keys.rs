//! The API server's keys for ServiceAccount tokens, fetched with our own credential from a fixed path.

use super::IdentityError;
use super::jwks::KeySet;
use super::key_cache::{COOLDOWN, KeyCache, Pace};
use crate::public_key::PublicKey;
use arc_swap::ArcSwapOption;
use axum::http;
use jsonwebtoken::Algorithm;
use std::sync::Arc;
use std::time::Duration;

/// How often the keys are fetched anyway, so that one which the API server has dropped is dropped here.
const REFRESH: Duration = Duration::from_secs(60);
/// How long a fetch may take.
const FETCH_WITHIN: Duration = Duration::from_secs(2);
/// What API servers sign with.
const ALGORITHMS: [Algorithm; 5] = [Algorithm::RS256, Algorithm::RS384, Algorithm::RS512, Algorithm::ES256, Algorithm::ES384];

/// The issuer of this cluster's ServiceAccount tokens and its keys, kept current.
pub struct ApiServerKeys {
    client: kube::Client,
    issuer: ArcSwapOption<String>,
    cache: KeyCache,
}

impl std::fmt::Debug for ApiServerKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiServerKeys").field("issuer", &self.issuer.load()).finish_non_exhaustive()
    }
}

impl ApiServerKeys {
    /// Keys that are fetched when they are first needed.
    #[must_use]
    pub fn new(client: kube::Client) -> Self {
        // Fetched by our own client from the server that we trust with everything: they grow old with the view of the cluster.
        let cache = KeyCache::new(Pace { max_age: None, eager: true });
        Self { client, issuer: ArcSwapOption::empty(), cache }
    }

    /// The issuer of the cluster's ServiceAccount tokens; `None` before it is known.
    #[must_use]
    pub fn issuer(&self) -> Option<Arc<String>> {
        self.issuer.load_full()
    }

    /// The key `kid`. One that is not known causes a fetch, at most every 10 s whatever the number of such tokens.
    ///
    /// # Errors
    /// [`IdentityError::UnknownKey`] if the API server does not publish it, [`IdentityError::Unavailable`] if it cannot be asked
    /// and no key is known at all.
    pub async fn find(&self, kid: Option<&str>) -> Result<Arc<PublicKey>, IdentityError> {
        self.cache.find(kid, || self.fetch()).await
    }

    /// The key `kid`, if it is known.
    #[must_use]
    pub fn known(&self, kid: &str) -> Option<Arc<PublicKey>> {
        self.cache.look(kid)
    }

    /// Fetches the keys every minute, for ever.
    pub async fn keep_current(&self) {
        loop {
            let pause = match (self.cache.refresh(|| self.fetch()).await, &self.cache.known().failure) {
                (true, _) => REFRESH,
                (false, None) => COOLDOWN,
                (false, Some(error)) => {
                    tracing::warn!(%error, "the API server's keys could not be fetched");
                    if self.cache.is_usable() { COOLDOWN } else { Duration::from_secs(1) }
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn fetch(&self) -> Result<KeySet, String> {
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
        let issuer = issuer.ok_or("the API server's discovery document names no issuer")?;
        // The path is ours, not the document's `jwks_uri`: nothing that we read says where we connect.
        let keys = KeySet::parse(get("/openid/v1/jwks").await?.as_bytes(), &ALGORITHMS).map_err(|e| format!("JWKS: {e}"))?;
        self.issuer.store(Some(Arc::new(issuer.to_owned())));
        Ok(keys)
    }
}
