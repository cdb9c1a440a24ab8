//! Signing in to the portal at an OpenID Provider whose ID tokens the API server accepts: the flow as it should be, and every way in which
//! somebody bends it. The provider is the test issuer, which says whatever a test wants.

use crate::portal_browser::{Browser, Page};
use crate::support::cluster::ClusterOptions;
use crate::support::issuer::behaviour::Behaviour;
use crate::support::issuer::{Document, Issuer, RSA};
use crate::world::{PATIENCE, World, wait_until};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::Url;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::sync::OnceLock;

const CLIENT: &str = "portal app";
const SECRET: &str = "s%cret +/";

struct Organisation {
    issuer: Issuer,
    world: World,
    _directory: tempfile::TempDir,
}

/// A cluster whose API server accepts the ID tokens of a provider, and a portal at which people sign in there.
fn organisation() -> &'static Organisation {
    static SHARED: OnceLock<Organisation> = OnceLock::new();
    SHARED.get_or_init(|| {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            std::fs::write(&path, text).expect("written");
            path.display().to_string()
        };
        let issuer = Issuer::start("/org").expect("an issuer");
        let config = json!({
            "apiVersion": "apiserver.config.k8s.io/v1beta1",
            "kind": "AuthenticationConfiguration",
            "jwt": [{
                "issuer": {"url": issuer.url(), "certificateAuthority": issuer.ca_pem(), "audiences": [CLIENT]},
                "claimMappings": {"username": {"claim": "sub", "prefix": "acme:"}, "groups": {"claim": "groups", "prefix": "acme:"}},
            }],
        });
        let flags = vec![format!("--authentication-config={}", write("authentication.json", &config.to_string()))];
        let options = ClusterOptions { api_server_flags: flags, ..ClusterOptions::default() };
        let args = [
            format!("--portal-oidc-issuer={}", issuer.url()),
            format!("--portal-oidc-client-id={CLIENT}"),
            format!("--portal-oidc-client-secret-file={}", write("secret", &format!("{SECRET}\n"))),
            format!("--portal-oidc-ca-file={}", write("ca.crt", issuer.ca_pem())),
            "--portal-oidc-scopes=openid groups".to_owned(),
        ];
        let world = World::start_on(&options, 4, &[], &args.each_ref().map(String::as_str));
        Organisation { issuer, world, _directory: directory }
    })
}

/// A browser that has been sent to the provider, and what was asked there.
struct Begun<'a> {
    browser: Browser<'a>,
    asked: HashMap<String, String>,
}

fn begin<'a>(organisation: &'a Organisation, next: &str) -> Begun<'a> {
    let mut browser = Browser::new(&organisation.world);
    let to = browser.get(&format!("/portal/sign-in/provider?next={}", next.replace('/', "%2F"))).leads_to().to_owned();
    let url = Url::parse(&to).expect("a URL");
    assert_eq!(
        format!("{}{}", url.origin().ascii_serialization(), url.path()),
        format!("{}/authorize", organisation.issuer.url())
    );
    Begun { browser, asked: url.query_pairs().into_owned().collect() }
}

impl Begun<'_> {
    /// The claims of the ID token that answers it, with some replaced; null removes one.
    fn claims(&self, organisation: &Organisation, change: &Value) -> Value {
        let now = crate::federation::now();
        let mut claims = json!({"iss": organisation.issuer.url(), "aud": CLIENT, "sub": "alice", "groups": ["staff"],
            "nonce": self.asked["nonce"], "iat": now, "exp": now + 600});
        for (name, value) in change.as_object().expect("members") {
            match value {
                Value::Null => _ = claims.as_object_mut().expect("an object").remove(name),
                value => claims[name] = value.clone(),
            }
        }
        claims
    }

    /// Back at the portal, with these parameters.
    fn back(&mut self, parameters: &[(&str, &str)]) -> Page {
        let query: Vec<String> = parameters
            .iter()
            .map(|(name, value)| {
                format!("{name}={}", percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC))
            })
            .collect();
        let request = self.browser.request("GET", &format!("/portal/callback?{}", query.join("&")));
        self.browser.send(request.header("sec-fetch-site", "cross-site"))
    }

    fn state(&self) -> String {
        self.asked["state"].clone()
    }
}

/// The provider gives this ID token from now on.
fn gives(organisation: &Organisation, claims: &Value) {
    let token = organisation.issuer.sign(&json!({"alg": "RS256", "kid": RSA}), claims).expect("signed");
    let reply = json!({"access_token": "x", "token_type": "Bearer", "id_token": token});
    organisation.issuer.behave(Document::Token, Behaviour::Text(reply.to_string()));
}

/// One at a time: what the provider says next is one thing.
fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// Nobody was let in, for this reason.
#[track_caller]
fn refused(organisation: &Organisation, begun: &Begun<'_>, page: Page, reason: &str) {
    let page = page.expect(401);
    let record = page.record(&organisation.world);
    assert_eq!((&record["event"], &record["reason"]), (&json!("portal.sign_in"), &json!(reason)), "{record}");
    assert!(begun.browser.cookies.is_empty(), "{:?}", begun.browser.cookies.keys());
    assert!(!page.element("problem").is_empty());
}

#[test]
fn a_person_signs_in_at_the_provider_and_is_who_the_api_server_says() {
    let (organisation, _turn) = (organisation(), turn());
    let page = Browser::new(&organisation.world).get("/portal/sign-in?next=%2Fportal%2Fagents").expect(200);
    assert!(
        page.words().contains("Sign in at 127.0.0.1") && page.text.contains("/portal/sign-in/provider?next=%2Fportal%2Fagents")
    );
    let mut begun = begin(organisation, "/portal/agents");
    let asked = &begun.asked;
    for (name, value) in [
        ("response_type", "code"),
        ("client_id", CLIENT),
        ("scope", "openid groups"),
        ("code_challenge_method", "S256"),
        ("redirect_uri", &format!("{}/portal/callback", organisation.world.operator.issuer())),
    ] {
        assert_eq!(asked[name], value);
    }
    gives(organisation, &begun.claims(organisation, &json!({})));
    let (state, issuer) = (begun.state(), organisation.issuer.url());
    let page = begun.back(&[("code", "c/de"), ("state", &state), ("iss", issuer)]);
    assert_eq!(page.leads_to(), "/portal/agents");
    assert_eq!(begun.browser.cookies.keys().collect::<Vec<_>>(), ["__Host-countersign-session"], "the other one is gone");
    let record = page.record(&organisation.world);
    assert_eq!(
        (&record["outcome"], &record["by"], &record["signed_in_with"]),
        (&json!("allow"), &json!("acme:alice"), &json!("openid_connect"))
    );
    let (authorization, body) = organisation.issuer.bodies(Document::Token).pop().expect("a token request");
    let credentials =
        base64::engine::general_purpose::STANDARD.decode(authorization.strip_prefix("Basic ").expect("Basic")).expect("base64");
    assert_eq!(credentials, b"portal%20app:s%25cret%20%2B%2F");
    let sent: HashMap<String, String> =
        Url::parse(&format!("https://a/?{body}")).expect("a query").query_pairs().into_owned().collect();
    assert_eq!((sent["grant_type"].as_str(), sent["code"].as_str()), ("authorization_code", "c/de"));
    let challenge =
        URL_SAFE_NO_PAD.encode(aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, sent["code_verifier"].as_bytes()));
    assert_eq!(challenge, begun.asked["code_challenge"], "RFC 7636");
    // What she may is what the API server gives to her and her groups.
    let page = begun.browser.get("/portal").expect(403);
    assert!(page.words().contains("Signed in as acme:alice"));
    let namespace = organisation.world.namespace("portal-oidc");
    let group = json!({"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "acme:staff"});
    organisation.world.bind_cluster_role(&namespace, "staff", "countersign-approver", &[group]);
    begun.browser.get(&format!("/portal?namespace={namespace}")).expect(200);
    // The session ends with the token.
    let mut hasty = begin(organisation, "/portal");
    gives(organisation, &hasty.claims(organisation, &json!({"exp": crate::federation::now() + 10})));
    let state = hasty.state();
    assert_eq!(hasty.back(&[("code", "c"), ("state", &state)]).leads_to(), "/portal");
    hasty.browser.get("/portal").expect(403);
    wait_until("the session has ended", PATIENCE, || hasty.browser.get("/portal").status == 303);
    assert!(hasty.browser.get("/portal").leads_to().starts_with("/portal/sign-in"));
}

#[test]
fn an_answer_that_belongs_to_another_sign_in_lets_nobody_in() {
    let (organisation, _turn) = (organisation(), turn());
    let other = begin(organisation, "/portal");
    let mine = || {
        let begun = begin(organisation, "/portal");
        gives(organisation, &begun.claims(organisation, &json!({})));
        begun
    };
    for state in [String::new(), "x".to_owned(), other.state()] {
        let mut begun = mine();
        let page = begun.back(&[("code", "c"), ("state", &state)]);
        refused(organisation, &begun, page, "state_wrong");
    }
    let mut begun = mine();
    let page = begun.back(&[("code", "c")]);
    refused(organisation, &begun, page, "state_wrong");
    // Another browser, as when somebody is sent a link with an attacker's code.
    let mut begun = mine();
    let state = begun.state();
    begun.browser.cookies.clear();
    let page = begun.back(&[("code", "c"), ("state", &state)]);
    refused(organisation, &begun, page, "sign_in_unknown");
    // Of another provider (RFC 9207), or of two.
    let mut begun = mine();
    let state = begun.state();
    let page = begun.back(&[("code", "c"), ("state", &state), ("iss", "https://evil.example.com")]);
    refused(organisation, &begun, page, "issuer_wrong");
    for twice in ["code", "state", "iss"] {
        let mut begun = mine();
        let state = begun.state();
        let page = begun.back(&[("code", "c"), ("state", &state), ("iss", organisation.issuer.url()), (twice, "x")]);
        refused(organisation, &begun, page, "answer_malformed");
    }
    // The provider says no.
    let mut begun = mine();
    let state = begun.state();
    let page = begun.back(&[("error", "access_denied<script>"), ("state", &state)]);
    assert!(!page.text.contains("<script>") && page.words().contains("access_denied<script>"));
    refused(organisation, &begun, page, "provider_refused");
    assert_eq!(organisation.issuer.bodies(Document::Token).iter().filter(|(_, body)| body.contains("evil")).count(), 0);
}

#[test]
fn a_code_is_used_once() {
    let (organisation, _turn) = (organisation(), turn());
    let mut begun = begin(organisation, "/portal");
    gives(organisation, &begun.claims(organisation, &json!({})));
    let (state, cookies) = (begun.state(), begun.browser.cookies.clone());
    begun.back(&[("code", "c"), ("state", &state)]).leads_to();
    // With all that the browser had: the answer was used.
    begun.browser.cookies = cookies;
    let page = begun.back(&[("code", "c"), ("state", &state)]);
    refused(organisation, &begun, page, "answer_replayed");
    // The back button: the cookie is gone.
    let page = begun.back(&[("code", "c"), ("state", &state)]);
    refused(organisation, &begun, page, "sign_in_unknown");
    // A code that the provider knows to be used.
    let mut begun = begin(organisation, "/portal");
    organisation.issuer.behave(Document::Token, Behaviour::Status(400, json!({"error": "invalid_grant"}).to_string()));
    let state = begun.state();
    let page = begun.back(&[("code", "c"), ("state", &state)]);
    let detail = page.record(&organisation.world)["detail"].as_str().expect("a detail").to_owned();
    assert!(detail.contains("invalid_grant"), "{detail}");
    refused(organisation, &begun, page, "code_refused");
}

#[test]
fn an_id_token_that_answers_something_else_lets_nobody_in() {
    let (organisation, _turn) = (organisation(), turn());
    let now = crate::federation::now();
    for (change, reason) in [
        (json!({"nonce": "another"}), "id_token_refused"),
        (json!({"nonce": null}), "id_token_refused"),
        (json!({"iss": "https://evil.example.com"}), "id_token_refused"),
        (json!({"aud": "other-app"}), "id_token_refused"),
        (json!({"aud": [CLIENT, "other-app"]}), "id_token_refused"),
        (json!({"azp": "other-app"}), "id_token_refused"),
        (json!({"exp": now - 60}), "id_token_refused"),
        (json!({"iat": now + 600}), "id_token_refused"),
        (json!({"sub": null}), "id_token_refused"),
    ] {
        let mut begun = begin(organisation, "/portal");
        gives(organisation, &begun.claims(organisation, &change));
        let state = begun.state();
        let page = begun.back(&[("code", "c"), ("state", &state)]);
        refused(organisation, &begun, page, reason);
    }
    // Whose signature is not the provider's: the API server sees to that.
    let other = Issuer::start("/org").expect("another issuer");
    let mut begun = begin(organisation, "/portal");
    let claims = begun.claims(organisation, &json!({}));
    let token = other.sign(&json!({"alg": "RS256", "kid": RSA}), &claims).expect("signed");
    let state = begun.state();
    organisation.issuer.behave(Document::Token, Behaviour::Text(json!({"id_token": token}).to_string()));
    let page = begun.back(&[("code", "c"), ("state", &state)]);
    assert!(page.words().contains("the API server does not accept its ID tokens"), "{}", page.words());
    refused(organisation, &begun, page, "id_token_unaccepted");
    for (behaviour, reason) in [
        (Behaviour::Text("{}".to_owned()), "code_refused"),
        (Behaviour::Text("[]".to_owned()), "code_refused"),
        (Behaviour::Text(json!({"id_token": "a.b.c"}).to_string()), "id_token_unreadable"),
        (Behaviour::Text(r#"{"id_token":"a.b.c","id_token":"a.b.c"}"#.to_owned()), "code_refused"),
        (Behaviour::Redirect("https://evil.example.com/".to_owned()), "code_refused"),
        (Behaviour::Huge, "code_refused"),
        (Behaviour::Close, "code_refused"),
        (Behaviour::Silent, "code_refused"),
    ] {
        let mut begun = begin(organisation, "/portal");
        let state = begun.state();
        organisation.issuer.behave(Document::Token, behaviour.clone());
        let page = begun.back(&[("code", "c"), ("state", &state)]);
        refused(organisation, &begun, page, reason);
    }
}
