//! Who is signed in: a cookie in the browser, and a row that only this cookie opens.
//!
//! The cookie is 32 random bytes. The row is found by their digest, and what is in it, the person's own Kubernetes token, is sealed under
//! a key that is derived from them. So whoever has the database has no token, and whoever has the cookie loses it with the row: when its
//! owner signs out, after half an hour of silence, and when the token expires.

use super::super::App;
use super::super::error::Refusal;
use crate::crd::User;
use crate::store::StoredSession;
use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::rand;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

/// The cookie. Its prefix lets no other host, path or plain connection set it (RFC 6265bis section 4.1.3.2).
const COOKIE: &str = "__Host-countersign-session";
/// How long a session lasts at most, in seconds.
pub(super) const SECONDS_MAX: u64 = 8 * 3600;
/// How many bytes a secret has.
const SECRET: usize = 32;

/// Random bytes of a browser, from which everything else is derived.
pub(super) struct Secret([u8; SECRET]);

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// If the operating system has no random bytes.
    pub(super) fn random() -> Result<Self, Refusal> {
        let mut bytes = [0; SECRET];
        rand::fill(&mut bytes).map_err(|_| Refusal::unavailable("no_random_bytes", "random bytes cannot be had"))?;
        Ok(Self(bytes))
    }

    /// The one in a cookie's value.
    pub(super) fn parse(text: &str) -> Option<Self> {
        URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(Self)
    }

    /// As a cookie's value.
    pub(super) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode(self.0)
    }

    /// 32 bytes for one purpose, which say nothing of the secret and nothing of those for another (RFC 5869).
    pub(super) fn derive(&self, purpose: &str) -> Result<[u8; SECRET], Refusal> {
        let broken = |_| Refusal::unavailable("key_underivable", "a key cannot be derived");
        let key = Salt::new(HKDF_SHA256, b"countersign portal").extract(&self.0);
        let mut derived = [0; SECRET];
        key.expand(&[purpose.as_bytes()], Length).and_then(|okm| okm.fill(&mut derived)).map_err(broken)?;
        Ok(derived)
    }

    /// The same as text.
    pub(super) fn derive_text(&self, purpose: &str) -> Result<String, Refusal> {
        self.derive(purpose).map(|derived| URL_SAFE_NO_PAD.encode(derived))
    }

    /// Under which a session is stored.
    fn id(&self) -> String {
        URL_SAFE_NO_PAD.encode(digest(&SHA256, &self.0))
    }
}

struct Length;

impl KeyType for Length {
    fn len(&self) -> usize {
        SECRET
    }
}

/// How somebody signed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Way {
    /// With a token of their own.
    Token,
    /// At the organisation's OpenID Provider.
    Provider,
}

impl Way {
    /// Its name in records.
    pub(super) const fn code(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Provider => "openid_connect",
        }
    }
}

/// What is sealed.
#[derive(Serialize, Deserialize)]
struct Content {
    token: String,
    user: User,
    way: Way,
}

/// Somebody who is signed in.
pub(super) struct Session {
    /// Under which it is stored.
    pub(super) id: String,
    /// Who it is, as the API server said at the sign-in.
    pub(super) user: User,
    /// Their Kubernetes token.
    pub(super) token: String,
    /// What every form of theirs has, and no other page knows.
    pub(super) form_token: String,
    /// When it ends at the latest, in seconds since the epoch.
    pub(super) expires_at: u64,
}

/// Begins a session. Returns the cookie.
///
/// # Errors
/// If it cannot be stored.
pub(super) async fn begin(
    app: &App,
    user: User,
    token: String,
    way: Way,
    expires_at: u64,
    now: u64,
) -> Result<HeaderValue, Refusal> {
    let secret = Secret::random()?;
    let id = secret.id();
    let sealed = seal(&secret, &Content { token, user, way }, &id, expires_at)?;
    let stored = app.store.begin_session(StoredSession { id, sealed, expires_at }, now).await;
    stored.map_err(|error| Refusal::unavailable("store_unavailable", error.to_string()))?;
    cookie(COOKIE, &secret.text(), "")
}

/// The session of the request's cookie, if there is one. `is_use` is false for what the browser asks for by itself.
///
/// # Errors
/// If the store does not answer.
pub(super) async fn find(app: &App, headers: &HeaderMap, is_use: bool, now: u64) -> Result<Option<Session>, Refusal> {
    let Some(secret) = cookie_of(headers, COOKIE).and_then(Secret::parse) else { return Ok(None) };
    let stored = app.store.session(&secret.id(), now, is_use).await;
    let stored = stored.map_err(|error| Refusal::unavailable("store_unavailable", error.to_string()))?;
    let Some(stored) = stored.filter(|stored| stored.expires_at > now) else { return Ok(None) };
    // What does not open was changed by somebody, and is nobody's session.
    let Some(Content { token, user, .. }) = open(&secret, &stored) else { return Ok(None) };
    let form_token = secret.derive_text("form")?;
    Ok(Some(Session { id: stored.id, user, token, form_token, expires_at: stored.expires_at }))
}

/// Whether the session that is stored under `id` has not ended.
pub(super) async fn lives(app: &App, id: &str) -> bool {
    let now = app.clock.seconds();
    app.store.session(id, now, false).await.is_ok_and(|stored| stored.is_some_and(|stored| stored.expires_at > now))
}

/// Ends the session of the request's cookie, if there is one.
///
/// # Errors
/// If it is not known whether it has ended.
pub(super) async fn end(app: &App, headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(secret) = cookie_of(headers, COOKIE).and_then(Secret::parse) else { return Ok(()) };
    let ended = app.store.end_session(&secret.id()).await;
    ended.map_err(|error| Refusal::unavailable("store_unavailable", error.to_string()))
}

/// The header that removes the cookie.
pub(super) fn forget() -> Result<HeaderValue, Refusal> {
    cookie(COOKIE, "", "; Max-Age=0")
}

/// A `Set-Cookie` that only this host, over TLS, and no script ever sees.
pub(super) fn cookie(name: &str, value: &str, more: &str) -> Result<HeaderValue, Refusal> {
    HeaderValue::from_str(&format!("{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax{more}"))
        .map_err(|_| Refusal::unavailable("reply_unwritable", "a cookie cannot be written"))
}

/// The value of a cookie that was sent once.
pub(super) fn cookie_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let mut ours = all.filter_map(|pair| pair.trim().split_once('=')).filter(|(known, _)| *known == name);
    match (ours.next(), ours.next()) {
        (Some((_, value)), None) => Some(value),
        _ => None,
    }
}

/// What seals bind: neither the row's name nor its end can be that of another.
fn bound(id: &str, expires_at: u64) -> Aad<String> {
    Aad::from(format!("{id} {expires_at}"))
}

fn seal(secret: &Secret, content: &Content, id: &str, expires_at: u64) -> Result<Vec<u8>, Refusal> {
    let broken = || Refusal::unavailable("session_unsealable", "a session cannot be sealed");
    let mut text = serde_json::to_vec(content).map_err(|_| broken())?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &secret.derive("seal")?).map_err(|_| broken())?;
    let nonce = key.seal_in_place_append_tag(bound(id, expires_at), &mut text).map_err(|_| broken())?;
    Ok([nonce.as_ref().as_slice(), &text].concat())
}

fn open(secret: &Secret, stored: &StoredSession) -> Option<Content> {
    let (nonce, sealed) = stored.sealed.split_at_checked(NONCE_LEN)?;
    let key = RandomizedNonceKey::new(&AES_256_GCM, &secret.derive("seal").ok()?).ok()?;
    let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
    let mut text = sealed.to_vec();
    let text = key.open_in_place(nonce, bound(&stored.id, stored.expires_at), &mut text).ok()?;
    serde_json::from_slice(text).ok()
}

/// Without a session there is nothing to be seen.
pub(super) fn needed() -> Refusal {
    Refusal::new("login_required", "session_missing", "sign in first: there is no session, or it has ended")
        .status(StatusCode::UNAUTHORIZED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn content() -> Content {
        let user = User { username: "alice".to_owned(), uid: None, groups: vec!["staff".to_owned()] };
        Content { token: "a.b.c".to_owned(), user, way: Way::Token }
    }

    fn stored(secret: &Secret, expires_at: u64) -> StoredSession {
        let id = secret.id();
        StoredSession { sealed: seal(secret, &content(), &id, expires_at).expect("sealed"), id, expires_at }
    }

    #[test]
    fn a_stolen_database_opens_no_session() {
        let (mine, other) = (Secret::random().expect("random"), Secret::random().expect("random"));
        let row = stored(&mine, 100);
        assert_eq!(open(&mine, &row).expect("its cookie opens it").token, "a.b.c");
        assert!(!row.sealed.windows(5).any(|part| part == b"a.b.c") && !row.id.contains(&mine.text()));
        assert!(open(&other, &row).is_none(), "another cookie");
        assert!(open(&mine, &StoredSession { expires_at: 101, ..row.clone() }).is_none(), "another end");
        assert!(open(&mine, &StoredSession { id: other.id(), ..row.clone() }).is_none(), "another row");
        let mut sealed = row.sealed.clone();
        sealed[20] ^= 1;
        assert!(open(&mine, &StoredSession { sealed, ..row.clone() }).is_none(), "another content");
        assert!(open(&mine, &StoredSession { sealed: Vec::new(), ..row }).is_none());
    }

    #[test]
    fn what_is_derived_for_two_purposes_is_two_things() {
        let secret = Secret::parse(&Secret::random().expect("random").text()).expect("its own text");
        let one = secret.derive_text("form").expect("derived");
        assert_eq!(one, secret.derive_text("form").expect("derived"));
        assert_ne!(one, secret.derive_text("seal").expect("derived"));
        assert!(Secret::parse("").is_none() && Secret::parse("YQ").is_none());
    }

    #[test]
    fn a_cookie_that_is_there_twice_is_none() {
        let headers = |value: &str| HeaderMap::from_iter([(header::COOKIE, value.parse().expect("a value"))]);
        assert_eq!(cookie_of(&headers("a=1; __Host-x=2;b=3"), "__Host-x"), Some("2"));
        assert_eq!(cookie_of(&headers("__Host-x=2; __Host-x=3"), "__Host-x"), None);
        assert_eq!(cookie_of(&headers("a__Host-x=2"), "__Host-x"), None);
        let set = cookie(COOKIE, "v", "").expect("a header");
        assert_eq!(set, "__Host-countersign-session=v; Path=/; Secure; HttpOnly; SameSite=Lax");
    }
}
