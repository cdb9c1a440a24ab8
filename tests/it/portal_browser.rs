//! What the tests of the portal share: a browser without scripts, which keeps cookies and says where a form comes from.

use crate::world::World;
use reqwest::blocking::{RequestBuilder, Response};
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::collections::BTreeMap;

/// Every answer has these, whatever it is.
const HEADERS: [(&str, &str); 6] = [
    (
        "content-security-policy",
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; form-action 'self'; \
         frame-ancestors 'none'; base-uri 'none'",
    ),
    ("x-frame-options", "DENY"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// A page, or what was said in place of one.
#[derive(Debug)]
pub struct Page {
    pub status: u16,
    pub text: String,
    pub headers: HeaderMap,
}

impl Page {
    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", self.words());
        self
    }

    /// Where it leads.
    #[track_caller]
    pub fn leads_to(&self) -> &str {
        assert_eq!(self.status, 303, "{}", self.words());
        self.headers["location"].to_str().expect("text")
    }

    /// The value of the first field of this name.
    #[track_caller]
    pub fn field(&self, name: &str) -> String {
        let after =
            self.text.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name} in {}", self.text)).1;
        unescaped(after.split('"').next().expect("a value"))
    }

    /// What stands in the element of this id, as a person reads it.
    #[track_caller]
    pub fn element(&self, id: &str) -> String {
        let (_, after) = self.text.split_once(&format!("id=\"{id}\"")).unwrap_or_else(|| panic!("no #{id} in {}", self.text));
        let inside = after.split_once('>').expect("a tag").1;
        unescaped(
            inside
                .split("</p>")
                .next()
                .expect("text")
                .split('<')
                .map(|part| part.split_once('>').map_or(part, |(_, t)| t))
                .collect::<String>()
                .trim(),
        )
    }

    /// All of it as a person reads it.
    pub fn words(&self) -> String {
        let body = self.text.split_once("<body>").map_or(self.text.as_str(), |(_, body)| body);
        unescaped(&body.split('<').map(|part| part.split_once('>').map_or(part, |(_, text)| text)).collect::<String>())
    }

    /// The record of what was done.
    pub fn record(&self, world: &World) -> Value {
        world.record_of_request(self.headers["x-request-id"].to_str().expect("text"))
    }
}

/// A browser.
pub struct Browser<'a> {
    world: &'a World,
    base: String,
    pub cookies: BTreeMap<String, String>,
}

impl<'a> Browser<'a> {
    pub fn new(world: &'a World) -> Self {
        Self::at(world, world.operator.url())
    }

    /// One that goes to another operator of this world.
    pub fn at(world: &'a World, base: String) -> Self {
        Self { world, base, cookies: BTreeMap::new() }
    }

    /// One in which somebody has signed in with a token of theirs.
    pub fn of(world: &'a World, user: &str) -> Self {
        let token = world.cluster.token(user).expect("a user");
        Self::with_token(world, &token)
    }

    pub fn with_token(world: &'a World, token: &str) -> Self {
        let mut browser = Self::new(world);
        let page = browser.post("/portal/sign-in", &[("token", token), ("next", "/portal")]);
        assert_eq!(page.leads_to(), "/portal");
        assert!(browser.cookies.contains_key("__Host-countersign-session"));
        browser
    }

    fn cookie_header(&self) -> String {
        self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// A request with the cookies, and nothing else.
    pub fn request(&self, method: &str, path: &str) -> RequestBuilder {
        let method = method.parse().expect("a method");
        let request = self.world.http.request(method, format!("{}{path}", self.base));
        if self.cookies.is_empty() { request } else { request.header("cookie", self.cookie_header()) }
    }

    /// Sends it and keeps the cookies.
    pub fn send(&mut self, request: RequestBuilder) -> Page {
        let response = request.send().expect("an answer");
        self.keep_cookies(&response);
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        for (name, value) in HEADERS {
            assert_eq!(headers.get(name).map(|v| v.to_str().expect("text")), Some(value), "{name}");
        }
        let text = response.text().expect("a body");
        if !headers.get("content-type").is_some_and(|t| t.to_str().is_ok_and(|t| t.contains("javascript") || t.contains("css"))) {
            assert_eq!(headers["cache-control"], "no-store");
            assert!(!text.contains(" style=") && !text.contains("<style") && !text.contains(" onclick"), "nothing inline");
        }
        Page { status, text, headers }
    }

    fn keep_cookies(&mut self, response: &Response) {
        for cookie in response.headers().get_all("set-cookie") {
            let text = cookie.to_str().expect("text");
            let (name, rest) = text.split_once('=').expect("a cookie");
            let (value, attributes) = rest.split_once(';').expect("attributes");
            assert!(name.starts_with("__Host-"), "{text}");
            for attribute in ["Secure", "HttpOnly", "SameSite=Lax", "Path=/"] {
                assert!(attributes.split("; ").any(|a| a.trim() == attribute), "{attribute} in {text}");
            }
            if attributes.contains("Max-Age=0") {
                self.cookies.remove(name);
            } else {
                self.cookies.insert(name.to_owned(), value.to_owned());
            }
        }
    }

    pub fn get(&mut self, path: &str) -> Page {
        let request = self.request("GET", path);
        self.send(request)
    }

    /// Searches the records for a page with `wanted`, page after page: the log of a world that many share is long. Returns the last.
    pub fn search(&mut self, path: &str, wanted: &str) -> Page {
        let mut page = self.get(path).expect(200);
        while !page.words().contains(wanted)
            && let Some((_, after)) = page.text.split_once("id=\"later\" href=\"")
        {
            let is_empty = page.text.contains("id=\"empty\"");
            assert!(!is_empty || page.element("empty").contains("so far"), "{}", page.words());
            let next = unescaped(after.split('"').next().expect("an address"));
            page = self.get(&next).expect(200);
        }
        page
    }

    /// Sends a form as a browser does that is on a page of the portal.
    pub fn post(&mut self, path: &str, form: &[(&str, &str)]) -> Page {
        let request =
            self.request("POST", path).header("origin", self.base.as_str()).header("sec-fetch-site", "same-origin").form(form);
        self.send(request)
    }
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&#60;", "<").replace("&#62;", ">").replace("&#34;", "\"").replace("&#39;", "'");
    text.replace("&#38;", "&")
}
