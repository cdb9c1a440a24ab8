//! The API server as somebody else sees it: with their token, and with nothing of ours.
//!
//! What comes in over the registration API and the portal is asked of the API server with the credential of whoever sent it, so that it
//! may exactly what its sender may. There is no way from here to the operator's own rights: the connections know no client certificate,
//! no token and no impersonation, only whom they connect to.

use super::CONNECT_WITHIN;
use axum::http::{HeaderValue, header};
use kube::client::{Body, ClientBuilder};
use kube::config::AuthInfo;
use std::time::Duration;
use tower::timeout::TimeoutLayer;

/// How long the API server may take to begin an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(4);
/// Longest token, in bytes.
pub const TOKEN_MAX: usize = 16 << 10;

/// Connections to the API server that are nobody's.
#[derive(Clone)]
pub struct OnBehalf {
    anonymous: kube::Client,
}

impl std::fmt::Debug for OnBehalf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("OnBehalf").finish_non_exhaustive()
    }
}

impl OnBehalf {
    /// Connects to where `config` says, and takes nothing else of it but by which authority the API server is known.
    ///
    /// # Errors
    /// If the configuration cannot be used.
    pub fn new(mut config: kube::Config) -> Result<Self, kube::Error> {
        config.auth_info = AuthInfo::default();
        config.headers = Vec::new();
        config.connect_timeout = Some(CONNECT_WITHIN);
        // Whoever asked is told at once, and asks again if they like.
        config.default_retry = false;
        let anonymous = ClientBuilder::try_from(config)?.with_layer(&TimeoutLayer::new(ANSWER_WITHIN)).build();
        Ok(Self { anonymous })
    }

    /// A client that shows `token` with every request. `None` if it is nothing that could be sent as a token.
    #[must_use]
    pub fn client(&self, token: &str) -> Option<kube::Client> {
        let is_sendable = !token.is_empty() && token.len() <= TOKEN_MAX && token.bytes().all(|b| b.is_ascii_graphic());
        let mut bearer = HeaderValue::from_str(&format!("Bearer {token}")).ok().filter(|_| is_sendable)?;
        bearer.set_sensitive(true);
        let anonymous = self.anonymous.clone();
        let namespace = anonymous.default_namespace().to_owned();
        let service = tower::service_fn(move |mut request: axum::http::Request<Body>| {
            request.headers_mut().insert(header::AUTHORIZATION, bearer.clone());
            let anonymous = anonymous.clone();
            async move { anonymous.send(request).await }
        });
        Some(kube::Client::new(service, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_no_token_is_not_sent() {
        let config = kube::Config::new("https://127.0.0.1:1".parse().expect("a URI"));
        let nobody = OnBehalf::new(config).expect("a client");
        assert!(nobody.client("a.b-c_d~+/=").is_some());
        for bad in ["", "a b", "a\r\nImpersonate-User: admin", "é", &"a".repeat(TOKEN_MAX + 1)] {
            assert!(nobody.client(bad).is_none(), "{bad:?}");
        }
    }
}
