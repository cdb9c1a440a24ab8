//! The test issuer is what it says: a good issuer to a strict client, and a bad server in every way that the tests of
//! federation rely on. Without these tests, a hostile mode that does nothing would let them all pass.

use crate::support::certificates::Certificate;
use crate::support::issuer::behaviour::{Behaviour, HUGE};
use crate::support::issuer::{Document, ED25519, Issuer, P256, P384, RSA, hostile};
use crate::support::trap::Trap;
use crate::world::{PATIENCE, wait_until};
use jsonwebtoken::jwk::JwkSet;
use jsonwebtoken::{DecodingKey, Validation};
use reqwest::blocking::{Client, Response};
use serde_json::{Value, json};
use std::io::{Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn client(issuer: &Issuer, patience: Duration) -> Client {
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(issuer.ca_pem().as_bytes()).expect("a certificate")])
        .redirect(reqwest::redirect::Policy::none())
        .timeout(patience)
        .build()
        .expect("a client")
}

fn get(issuer: &Issuer, document: Document) -> reqwest::Result<Response> {
    client(issuer, PATIENCE).get(issuer.url_of(document)).send()
}

#[test]
fn a_client_that_knows_only_its_url_and_authority_verifies_its_tokens() {
    for path in ["", "/id/0A1B", "/tenant/"] {
        let issuer = Issuer::start(path).expect("an issuer");
        let discovery: Value = get(&issuer, Document::Discovery).expect("an answer").json().expect("JSON");
        assert_eq!(discovery["issuer"], issuer.url());
        let keys_url = discovery["jwks_uri"].as_str().expect("an address");
        let keys: JwkSet = client(&issuer, PATIENCE).get(keys_url).send().expect("an answer").json().expect("a key set");
        for name in [RSA, P256, P384, ED25519] {
            let header = json!({"alg": issuer.algorithm(name).expect("a key"), "kid": name});
            let token = issuer.sign(&header, &json!({"iss": issuer.url(), "aud": "me", "exp": 4_000_000_000_u64}));
            let key = DecodingKey::from_jwk(keys.find(name).expect("published")).expect("a key");
            let algorithm = header["alg"].as_str().expect("a text").parse().expect("an algorithm");
            let mut rules = Validation::new(algorithm);
            rules.set_audience(&["me"]);
            rules.set_issuer(&[issuer.url()]);
            jsonwebtoken::decode::<Value>(token.expect("a token"), &key, &rules).expect(name);
        }
        assert_eq!((issuer.requests(Document::Discovery).len(), issuer.requests(Document::Keys).len()), (1, 1));
        assert_eq!(issuer.connections(), 2);
    }
}

#[test]
fn keys_come_and_go() {
    let issuer = Issuer::start("").expect("an issuer");
    let names = || -> Vec<String> {
        let set: Value = get(&issuer, Document::Keys).expect("an answer").json().expect("JSON");
        set["keys"].as_array().expect("keys").iter().map(|key| key["kid"].as_str().expect("a kid").to_owned()).collect()
    };
    assert_eq!(names(), [RSA, P256, P384, ED25519]);
    issuer.add_key("next", "ES256".parse().expect("an algorithm")).expect("added");
    issuer.publish(RSA, false).expect("withdrawn");
    assert_eq!(names(), [P256, P384, ED25519, "next"]);
    issuer.sign(&json!({"alg": "RS256", "kid": RSA}), &json!({})).expect("it still signs");
    let before = issuer.document(Document::Keys);
    issuer.replace_key("next", "ES256".parse().expect("an algorithm")).expect("replaced");
    assert_ne!(issuer.document(Document::Keys), before);
}

#[test]
fn a_strict_client_trusts_no_certificate_but_the_good_one() {
    let issuer = Issuer::start("").expect("an issuer");
    for certificate in [Certificate::OfAnotherAuthority, Certificate::ForAnotherHost, Certificate::Expired] {
        issuer.present(certificate);
        let error = get(&issuer, Document::Keys).expect_err("not trusted");
        assert!(error.is_connect(), "{certificate:?}: {error:?}");
    }
    assert!(issuer.requests(Document::Keys).is_empty(), "nothing was asked");
    issuer.mend();
    get(&issuer, Document::Keys).expect("trusted");
    assert_eq!(issuer.connections(), 4);
}

#[test]
fn a_server_that_keeps_a_client_waiting_does_so_until_it_hangs_up() {
    let issuer = Issuer::start("").expect("an issuer");
    for behaviour in [Behaviour::Silent, Behaviour::Drip] {
        issuer.behave(Document::Keys, behaviour.clone());
        let start = Instant::now();
        let hasty = client(&issuer, Duration::from_secs(2));
        let result = hasty.get(issuer.url_of(Document::Keys)).send().and_then(Response::bytes);
        assert!(result.expect_err("no answer").is_timeout(), "{behaviour:?}");
        assert!(start.elapsed() >= Duration::from_secs(2), "{behaviour:?}");
        wait_until("it hung up", PATIENCE, || issuer.requests(Document::Keys).iter().all(|request| request.ended.is_some()));
    }
    let sent: Vec<usize> = issuer.requests(Document::Keys).iter().map(|request| request.sent).collect();
    assert_eq!(sent[0], 0, "silence");
    assert!(sent[1] > 0 && sent[1] < 300, "a head and a few bytes, not {}", sent[1]);
    issuer.behave(Document::Keys, Behaviour::Close);
    get(&issuer, Document::Keys).expect_err("no answer");
}

#[test]
fn a_server_that_sends_too_much_sends_as_much_as_is_read() {
    let issuer = Issuer::start("").expect("an issuer");
    let keys = issuer.document(Document::Keys);
    // What a careless reader would take is the right document.
    let careless = |read: &[u8]| serde_json::from_slice::<Value>(read).expect("JSON") == keys;

    issuer.behave(Document::Keys, Behaviour::Huge);
    let whole = client(&issuer, PATIENCE).get(issuer.url_of(Document::Keys)).send().expect("an answer").bytes().expect("a body");
    assert!(whole.len() == HUGE && careless(&whole), "{} bytes", whole.len());

    issuer.behave(Document::Keys, Behaviour::Endless);
    let mut start = vec![0; HUGE];
    let mut endless = client(&issuer, PATIENCE).get(issuer.url_of(Document::Keys)).send().expect("an answer");
    endless.read_exact(&mut start).expect("more and more");
    drop(endless);
    assert!(careless(&start));
    wait_until("it stops", PATIENCE, || issuer.requests(Document::Keys).iter().all(|request| request.ended.is_some()));

    issuer.behave(Document::Keys, Behaviour::gzip_bomb(&keys).expect("a bomb"));
    let bomb = get(&issuer, Document::Keys).expect("an answer");
    assert_eq!(bomb.headers()["content-encoding"], "gzip");
    let bomb = bomb.bytes().expect("a body");
    assert!(bomb.len() < HUGE / 500, "{} bytes", bomb.len());
    let exploded = gunzip(bomb.to_vec());
    assert!(exploded.len() > HUGE && careless(&exploded), "{} bytes", exploded.len());
}

fn gunzip(bytes: Vec<u8>) -> Vec<u8> {
    let mut gunzip =
        Command::new("gzip").arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("gzip is installed");
    let mut stdin = gunzip.stdin.take().expect("a pipe");
    let writer = std::thread::spawn(move || stdin.write_all(&bytes).expect("written"));
    let output = gunzip.wait_with_output().expect("gzip ends");
    writer.join().expect("written");
    output.stdout
}

#[test]
fn every_hostile_document_differs_from_the_right_one() {
    let issuer = Issuer::start("/a").expect("an issuer");
    let trap = Trap::set().expect("a trap");
    let served = |document: Document, behaviour: Behaviour| {
        issuer.behave(document, behaviour);
        let answer = client(&issuer, PATIENCE).get(issuer.url_of(document)).send().expect("an answer");
        (answer.status().as_u16(), answer.headers().clone(), answer.text().expect("text"))
    };
    let documents = [(Document::Keys, hostile::key_sets()), (Document::Discovery, hostile::discoveries(&trap.url()))];
    for (document, flaws) in documents {
        let right = issuer.document(document).to_string();
        for (flaw, behaviour) in flaws {
            let (status, headers, text) = served(document, behaviour);
            assert_ne!(text, right, "{flaw}");
            match status {
                200 => {}
                302 => assert!(headers["location"].to_str().expect("ASCII").starts_with(&trap.url()), "{flaw}"),
                _ => panic!("{flaw}: {status}"),
            }
        }
        issuer.mend();
        assert_eq!(served(document, Behaviour::Honest).2, right);
    }
    let (status, _, text) = served(Document::Keys, hostile::error("canary"));
    assert!(status == 500 && text.len() > 200 << 10 && text.matches("canary").count() == 3 && text.contains("\r\n"));
    assert!(trap.caught().expect("a trap").is_empty());
}

#[test]
fn a_trap_remembers_who_came() {
    let trap = Trap::set().expect("a trap");
    assert!(trap.caught().expect("a trap").is_empty());
    let mut visitor = std::net::TcpStream::connect(trap.address()).expect("connected");
    visitor.write_all(b"hello").expect("written");
    drop(visitor);
    drop(std::net::TcpStream::connect(trap.address()).expect("connected"));
    assert_eq!(trap.caught().expect("a trap"), ["hello", ""]);
}
