//! What is no good request gets the standard's error, a description that helps, one record, and no panic.

use crate::world::{CLIENT_ASSERTION, Reply, TOKEN_EXCHANGE, TYPE_JWT, World};

const POSTED: [&str; 2] = ["/oauth2/token", "/oauth2/introspect"];

fn send(world: &World, method: &str, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Reply {
    let method = method.parse().expect("a method");
    let mut request = world.http.request(method, format!("{}{path}", world.operator.url())).body(body);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.send().expect("an answer").into()
}

const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");

#[test]
fn h7_an_endpoint_answers_only_to_its_method() {
    let world = World::shared();
    for path in POSTED {
        for method in ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "FOO"] {
            let reply = send(world, method, path, &[], vec![]).refused(405, "invalid_request");
            assert_eq!(reply.headers["allow"], "POST", "{method} {path}");
            assert_eq!(world.record_of(&reply)["reason"], "method_not_allowed");
        }
    }
    for path in
        ["/oauth2/jwks", "/.well-known/oauth-authorization-server", "/.well-known/openid-configuration", "/healthz", "/readyz"]
    {
        let reply = send(world, "POST", path, &[FORM], b"a=b".to_vec()).refused(405, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "method_not_allowed");
    }
}

#[test]
fn h7_a_token_in_the_query_is_refused_and_not_recorded() {
    let world = World::shared();
    for method in ["GET", "POST"] {
        let reply = send(world, method, "/oauth2/token?grant_type=x&subject_token=canary-in-query", &[FORM], vec![]);
        assert!(matches!(reply.status, 400 | 405), "{}", reply.status);
        assert!(!world.record_of(&reply).to_string().contains("canary-in-query"));
    }
    assert!(!world.operator.process().log().contains("canary-in-query"));
}

#[test]
fn h13_a_path_is_exactly_itself() {
    let world = World::shared();
    for path in [
        "/oauth2//token",
        "//oauth2/token",
        "/oauth2/token/",
        "/oauth2/token;x",
        "/OAUTH2/TOKEN",
        "/oauth2/%74oken2",
        "/",
        "/oauth2",
        "/metrics",
        "/.well-known/oauth-authorization-server/x",
    ] {
        let reply = send(world, "POST", path, &[FORM], b"grant_type=client_credentials".to_vec()).refused(404, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "not_found", "{path}");
    }
}

#[test]
fn h5_h7_a_body_is_a_plain_form_in_utf8() {
    let world = World::shared();
    for path in POSTED {
        for (expected, headers) in [
            (400, vec![]),
            (400, vec![("content-type", "application/json")]),
            (400, vec![("content-type", "multipart/form-data; boundary=x")]),
            (400, vec![("content-type", "application/x-www-form-urlencoded; charset=utf-7")]),
            (400, vec![FORM, ("content-type", "application/json")]),
            (415, vec![FORM, ("content-encoding", "gzip")]),
            (415, vec![FORM, ("content-encoding", "identity, br")]),
        ] {
            let reply = send(world, "POST", path, &headers, b"grant_type=client_credentials&token=x".to_vec());
            // Introspection may find first that nobody is authenticated; it never gets as far as an answer.
            let reply = reply.refused(expected, "invalid_request");
            assert_eq!(world.record_of(&reply)["outcome"], "deny", "{headers:?}");
        }
    }
}

#[test]
fn h6_parameters_are_named_once_and_say_something() {
    let world = World::shared();
    let malformed = [
        &b"grant_type=client_credentials&grant_type=client_credentials"[..],
        b"grant_type=client_credentials&grant%5Ftype=x",
        b"grant_type=",
        b"",
        b"&&&",
        b"scope=a",
        b"grant_type=%ff",
        b"grant_type=%00",
        b"grant_type=%zz",
        b"grant_type=client_credentials&scope=a%0d%0ab",
        b"\xff\xfe=1",
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer",
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Ajwt-bearer&assertion=",
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange",
        b"grant_type=urn%3Aietf%3Aparams%3Aoauth%3Agrant-type%3Atoken-exchange&subject_token=x",
    ];
    for body in malformed {
        let reply = send(world, "POST", "/oauth2/token", &[FORM], body.to_vec()).refused(400, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "request_malformed", "{:?}", String::from_utf8_lossy(body));
    }
    let many: String = (0..100_000).map(|i| format!("{i:x}&")).collect();
    let reply = send(world, "POST", "/oauth2/token", &[FORM], many.into_bytes());
    assert!(matches!(reply.status, 400 | 413), "{}", reply.status);
}

#[test]
fn h4_a_body_beyond_64_kib_is_not_read() {
    let world = World::shared();
    for path in POSTED {
        let body = |length: usize| {
            let mut body = b"grant_type=x&pad=".to_vec();
            body.resize(length, b'a');
            body
        };
        let reply = send(world, "POST", path, &[FORM], body(64 * 1024 + 1)).refused(413, "invalid_request");
        assert_eq!(world.record_of(&reply)["reason"], "request_malformed");
        let whole = send(world, "POST", path, &[FORM], body(64 * 1024));
        assert_ne!(whole.status, 413, "exactly 64 KiB is read");
    }
}

#[test]
fn a_grant_that_is_not_offered_is_named_as_such() {
    let world = World::shared();
    for grant in [
        "password",
        "authorization_code",
        "refresh_token",
        "implicit",
        "urn:ietf:params:oauth:grant-type:device_code",
        "CLIENT_CREDENTIALS",
    ] {
        let reply = world.request(&[("grant_type", grant)]).refused(400, "unsupported_grant_type");
        assert_eq!(world.record_of(&reply)["grant_type"], grant);
    }
}

#[test]
fn a_client_authenticates_by_assertion_or_not_at_all() {
    let world = World::shared();
    let tenant = world.tenant("client-auth");
    let credentials = ("grant_type", "client_credentials");
    world.request(&[credentials]).refused(401, "invalid_client");
    world.request(&[credentials, ("client_id", "x"), ("client_secret", "y")]).refused(401, "invalid_client");
    world.request(&[credentials, ("client_assertion", &tenant.token)]).refused(400, "invalid_request");
    world.request(&[credentials, ("client_assertion_type", CLIENT_ASSERTION)]).refused(400, "invalid_request");
    let other = "urn:ietf:params:oauth:client-assertion-type:saml2-bearer";
    world
        .request(&[credentials, ("client_assertion_type", other), ("client_assertion", &tenant.token)])
        .refused(401, "invalid_client");

    let by_header =
        world.http.post(format!("{}/oauth2/token", world.operator.url())).basic_auth("x", Some("y")).form(&[credentials]);
    let reply = Reply::from(by_header.send().expect("an answer")).refused(401, "invalid_client");
    assert!(reply.headers.contains_key("www-authenticate"), "RFC 6749 section 5.2");
    let plain = world.request(&[credentials]);
    assert!(!plain.headers.contains_key("www-authenticate"), "no challenge to a client that used no header");
}

#[test]
fn x5_the_types_of_an_exchange_are_what_they_say() {
    let tenant = World::shared().tenant("types");
    let ask = |more: &[(&str, &str)]| {
        let mut form = vec![("grant_type", TOKEN_EXCHANGE), ("subject_token", tenant.token.as_str())];
        form.extend_from_slice(more);
        tenant.world.request(&form)
    };
    let urn = |kind: &str| format!("urn:ietf:params:oauth:token-type:{kind}");
    for kind in ["access_token", "refresh_token", "id_token", "saml1", "saml2", "txn_token"] {
        ask(&[("subject_token_type", &urn(kind))]).refused(400, "invalid_request");
    }
    let jwt = ("subject_token_type", TYPE_JWT);
    ask(&[jwt, ("requested_token_type", &urn("access_token"))]).expect(200);
    for kind in ["refresh_token", "id_token", "saml2"] {
        ask(&[jwt, ("requested_token_type", &urn(kind))]).refused(400, "invalid_request");
    }
    ask(&[jwt, ("actor_token_type", TYPE_JWT)]).refused(400, "invalid_request");
    ask(&[jwt, ("actor_token", &tenant.token), ("actor_token_type", TYPE_JWT)]).refused(400, "invalid_request");
    ask(&[jwt, ("authorization_details", "[]")]).refused(400, "invalid_authorization_details");
    // X6: a client has no say about the chain.
    for parameter in ["act", "may_act", "claims"] {
        ask(&[jwt, (parameter, r#"{"sub":"agent:a/b"}"#)]).refused(400, "invalid_request");
    }
}

#[test]
fn garbage_is_refused_wherever_a_token_is_expected() {
    let world = World::shared();
    let long = "a".repeat(9 * 1024);
    for garbage in
        ["x", "a.b.c", "....", "eyJhbGciOiJub25lIn0.e30.", "🦀.🦀.🦀", "null", &long, "%2e%2e%2f", "{\"payload\":\"e30\"}"]
    {
        world.exchange(garbage).refused(400, "invalid_request");
        world.request(&[("grant_type", crate::world::JWT_BEARER), ("assertion", garbage)]).refused(400, "invalid_grant");
        let form =
            [("grant_type", "client_credentials"), ("client_assertion_type", CLIENT_ASSERTION), ("client_assertion", garbage)];
        let reply = world.request(&form).refused(401, "invalid_client");
        assert_eq!(world.record_of(&reply)["reason"], "credential_malformed_or_forged");
    }
}

#[test]
fn h12_h11_no_header_says_who_we_are() {
    let world = World::shared();
    let document = |headers: &[(&str, &str)]| {
        send(world, "GET", "/.well-known/oauth-authorization-server", headers, vec![]).expect(200).body
    };
    let plain = document(&[]);
    assert_eq!(plain["issuer"], world.operator.issuer());
    for header in ["host", "x-forwarded-host", "x-forwarded-proto", "x-original-url", "forwarded"] {
        assert_eq!(document(&[(header, "evil.example")]), plain, "{header}");
    }
    let reply =
        send(world, "POST", "/oauth2/token", &[FORM, ("x-forwarded-for", "203.0.113.9"), ("x-real-ip", "203.0.113.9")], vec![]);
    assert_eq!(world.record_of(&reply)["client_address"], "127.0.0.1");
}

#[test]
fn h14_nothing_that_was_sent_made_anything_panic() {
    let world = World::shared();
    // A deterministic storm of broken forms.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..200 {
        let mut body = b"grant_type=client_credentials&client_assertion=".to_vec();
        for _ in 0..64 {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            body.extend_from_slice(&state.to_le_bytes());
        }
        assert_eq!(send(world, "POST", "/oauth2/token", &[FORM], body).status, 400);
    }
    assert!(!world.operator.process().log().contains("panicked"));
    assert_eq!(world.operator.get("/healthz").expect("an answer").status, 200);
}
