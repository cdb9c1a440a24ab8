//! Who is told of what: the file that `--notifications-file` names, with the secrets that it names beside.

use super::Occasion;
use super::envelope::Secret;
use crate::crd::Risk;
use crate::grammar::is_dns_label;
use ipnet::IpNet;
use reqwest::Url;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Longest name of a receiver.
const NAME_MAX: usize = 63;
/// Most receivers, and most routes.
const ENTRIES_MAX: usize = 64;
/// Where Slack is, unless the file says otherwise.
const SLACK: &str = "https://slack.com/api";

/// Why there is no configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file is not of the form.
    #[error("{0}")]
    Syntax(String),
    /// A field says something that cannot be.
    #[error("{field}: {problem}")]
    Field {
        /// Which.
        field: String,
        /// What is wrong with it.
        problem: String,
    },
}

fn wrong(field: impl Into<String>, problem: impl Into<String>) -> ConfigError {
    ConfigError::Field { field: field.into(), problem: problem.into() }
}

/// Who is told of what.
#[derive(Debug, Clone, Default)]
pub struct Config {
    /// The receivers by name.
    pub receivers: BTreeMap<String, Receiver>,
    routes: Vec<Route>,
}

/// Somebody who is told.
#[derive(Debug, Clone)]
pub struct Receiver {
    /// Where, and in which form.
    pub target: Target,
    /// Certificate authorities in PEM; absent: those of the public.
    pub certificate_authority: Option<String>,
    /// Networks that are not public and may be connected to all the same.
    pub allowed_networks: Vec<IpNet>,
}

/// Where a receiver is.
#[derive(Debug, Clone)]
pub enum Target {
    /// A URL to which events are posted.
    Webhook {
        /// The URL. It can be a secret itself: it is never logged.
        url: Url,
        /// What signs.
        secrets: Vec<Secret>,
    },
    /// A channel in Slack.
    Slack {
        /// The Web API.
        api: Url,
        /// Its identifier.
        channel: String,
        /// The token of a bot that may write there.
        token: Token,
    },
}

/// A bearer token, which no log shows.
#[derive(Clone)]
pub struct Token(pub String);

impl std::fmt::Debug for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Token")
    }
}

/// What a route looks at.
#[derive(Debug, Clone, Copy)]
pub struct Matter<'a> {
    /// The namespace of the request.
    pub namespace: &'a str,
    /// Its capability.
    pub capability: &'a str,
    /// How bad the misuse of that would be, if the catalogue says so.
    pub risk: Option<Risk>,
    /// What happened.
    pub occasion: Occasion,
}

#[derive(Debug, Clone)]
struct Route {
    receiver: String,
    namespaces: Vec<String>,
    capabilities: Vec<String>,
    minimum_risk: Option<Risk>,
    on: Vec<Occasion>,
}

impl Route {
    fn applies(&self, matter: &Matter<'_>) -> bool {
        let any = |patterns: &[String], text: &str| patterns.is_empty() || patterns.iter().any(|pattern| is_like(pattern, text));
        any(&self.namespaces, matter.namespace)
            && any(&self.capabilities, matter.capability)
            // What nobody has rated could be anything.
            && (matter.risk.is_none() || matter.risk >= self.minimum_risk)
            && (self.on.is_empty() || self.on.contains(&matter.occasion))
    }
}

/// Whether `text` is `pattern`, or begins with what stands before the `*` at its end.
fn is_like(pattern: &str, text: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(beginning) => text.starts_with(beginning),
        None => pattern == text,
    }
}

impl Config {
    /// Reads the file. `secret` is what the secret of a name says, or why it cannot be read.
    ///
    /// # Errors
    /// A [`ConfigError`] that says what to change; no secret is in it.
    pub fn parse(text: &str, secret: impl Fn(&str) -> Result<String, String>) -> Result<Self, ConfigError> {
        let file: File = serde_saphyr::from_str_with_options(text, serde_saphyr::options! { strict_booleans: true })
            .map_err(|error| ConfigError::Syntax(error.to_string()))?;
        if file.receivers.len() > ENTRIES_MAX || file.routes.len() > ENTRIES_MAX {
            return Err(wrong("receivers", format!("there are at most {ENTRIES_MAX} receivers and {ENTRIES_MAX} routes")));
        }
        let mut receivers = BTreeMap::new();
        for entry in file.receivers {
            let name = entry.name.clone();
            if name.len() > NAME_MAX || !is_dns_label(&name) {
                return Err(wrong(
                    format!("receivers[{name:?}].name"),
                    "must be a DNS label: lower-case letters, digits and '-'",
                ));
            }
            let receiver = receiver(entry, &secret)?;
            if receivers.insert(name.clone(), receiver).is_some() {
                return Err(wrong(format!("receivers[{name}]"), "there are two of that name"));
            }
        }
        let routes = file.routes.into_iter().enumerate().map(|(at, entry)| route(at, entry, &receivers));
        let routes = routes.collect::<Result<Vec<_>, _>>()?;
        if let Some(name) = receivers.keys().find(|name| !routes.iter().any(|route| &route.receiver == *name)) {
            return Err(wrong(
                format!("receivers[{name}]"),
                "no route leads to it; a route {receiver: NAME} alone sends everything",
            ));
        }
        Ok(Self { receivers, routes })
    }

    /// The names of those who are told of `matter`.
    #[must_use]
    pub fn told(&self, matter: &Matter<'_>) -> BTreeSet<&str> {
        self.routes.iter().filter(|route| route.applies(matter)).map(|route| route.receiver.as_str()).collect()
    }
}

fn receiver(entry: ReceiverEntry, secret: &impl Fn(&str) -> Result<String, String>) -> Result<Receiver, ConfigError> {
    let field = |name: &str| format!("receivers[{}].{name}", entry.name);
    let read = |name: &str, secret_name: &str| secret(secret_name).map_err(|problem| wrong(field(name), problem));
    let target = match (entry.webhook, entry.slack) {
        (Some(webhook), None) => {
            if webhook.secrets.is_empty() {
                return Err(wrong(
                    field("webhook.secrets"),
                    "must name one secret or more: nobody should believe an unsigned message",
                ));
            }
            let parsed = webhook.secrets.iter().map(|name| {
                let text = read("webhook.secrets", name)?;
                Secret::parse(text.trim())
                    .map_err(|problem| wrong(field("webhook.secrets"), format!("the secret {name} {problem}")))
            });
            let secrets = parsed.collect::<Result<_, _>>()?;
            let url = match (webhook.url, webhook.url_secret) {
                (Some(url), None) => url,
                (None, Some(name)) => read("webhook.urlSecret", &name)?.trim().to_owned(),
                _ => return Err(wrong(field("webhook"), "needs either url or urlSecret")),
            };
            Target::Webhook { url: https(&url).map_err(|problem| wrong(field("webhook.url"), problem))?, secrets }
        }
        (None, Some(slack)) => {
            let token = read("slack.token", &slack.token)?.trim().to_owned();
            if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
                return Err(wrong(field("slack.token"), "the secret is no token"));
            }
            if slack.channel.is_empty() || !slack.channel.bytes().all(|b| b.is_ascii_alphanumeric()) {
                return Err(wrong(field("slack.channel"), "must be the identifier of a channel, such as C0123456789"));
            }
            let api = https(slack.api.as_deref().unwrap_or(SLACK)).map_err(|problem| wrong(field("slack.api"), problem))?;
            Target::Slack { api, channel: slack.channel, token: Token(token) }
        }
        _ => return Err(wrong(format!("receivers[{}]", entry.name), "needs either webhook or slack")),
    };
    let network = |text: &String| text.parse().map_err(|_| wrong(field("allowedNetworks"), format!("{text:?} is no network")));
    let allowed_networks = entry.allowed_networks.iter().map(network).collect::<Result<_, _>>()?;
    Ok(Receiver { target, certificate_authority: entry.certificate_authority, allowed_networks })
}

fn https(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("is no URL: {error}"))?;
    let is_plain = url.username().is_empty() && url.password().is_none() && url.fragment().is_none();
    match url.scheme() == "https" && url.has_host() && is_plain {
        true => Ok(url),
        false => Err("must be an https URL without user, password and fragment".to_owned()),
    }
}

fn route(at: usize, entry: RouteEntry, receivers: &BTreeMap<String, Receiver>) -> Result<Route, ConfigError> {
    let field = |name: &str| format!("routes[{at}].{name}");
    if !receivers.contains_key(&entry.receiver) {
        return Err(wrong(field("receiver"), format!("there is no receiver {:?}", entry.receiver)));
    }
    for (name, patterns) in [("namespaces", &entry.namespaces), ("capabilities", &entry.capabilities)] {
        if let Some(bad) = patterns.iter().find(|text| !is_pattern(text)) {
            return Err(wrong(field(name), format!("{bad:?} is neither a name nor the beginning of one before '*'")));
        }
    }
    Ok(Route {
        receiver: entry.receiver,
        namespaces: entry.namespaces,
        capabilities: entry.capabilities,
        minimum_risk: entry.minimum_risk,
        on: entry.on,
    })
}

/// Whether a text is a name, or the beginning of one before `*`.
fn is_pattern(text: &str) -> bool {
    let beginning = text.strip_suffix('*').unwrap_or(text);
    !text.is_empty() && beginning.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
}

/// The file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    #[serde(default)]
    receivers: Vec<ReceiverEntry>,
    #[serde(default)]
    routes: Vec<RouteEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ReceiverEntry {
    name: String,
    webhook: Option<WebhookEntry>,
    slack: Option<SlackEntry>,
    certificate_authority: Option<String>,
    #[serde(default)]
    allowed_networks: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookEntry {
    url: Option<String>,
    url_secret: Option<String>,
    secrets: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct SlackEntry {
    channel: String,
    token: String,
    api: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteEntry {
    receiver: String,
    #[serde(default)]
    namespaces: Vec<String>,
    #[serde(default)]
    capabilities: Vec<String>,
    minimum_risk: Option<Risk>,
    #[serde(default)]
    on: Vec<Occasion>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = "
receivers:
- name: all
  webhook: {url: 'https://hooks.acme.com/c', secrets: [hmac]}
- name: payments
  slack: {channel: C012, token: slack}
  allowedNetworks: [10.0.0.0/8]
routes:
- receiver: all
- receiver: payments
  namespaces: [payments, 'pay-*']
  capabilities: ['payments.*', ledger.close]
  minimumRisk: High
  on: [Requested, Denied]
";

    fn secret(name: &str) -> Result<String, String> {
        match name {
            "hmac" => Ok("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n".to_owned()),
            "slack" => Ok("xoxb-1\n".to_owned()),
            "url" => Ok("https://hooks.acme.com/secret\n".to_owned()),
            _ => Err(format!("there is no secret {name}")),
        }
    }

    #[test]
    fn a_matter_goes_to_those_whose_route_it_fits() {
        let config = Config::parse(FILE, secret).expect("a configuration");
        let told = |namespace, capability, risk, occasion| {
            config.told(&Matter { namespace, capability, risk, occasion }).contains("payments")
        };
        let (asked, high) = (Occasion::Requested, Some(Risk::High));
        assert!(
            told("payments", "payments.authorize", high, asked) && told("pay-2", "ledger.close", Some(Risk::Critical), asked)
        );
        assert!(told("payments", "payments.authorize", None, asked), "nobody has said that it is harmless");
        assert!(!told("paying", "payments.authorize", high, asked) && !told("payments", "ledger.closed", high, asked));
        assert!(!told("payments", "payments.authorize", Some(Risk::Medium), asked));
        assert!(!told("payments", "payments.authorize", high, Occasion::Approved));
        let everything = Matter { namespace: "x", capability: "y", risk: None, occasion: Occasion::Revoked };
        assert_eq!(config.told(&everything), BTreeSet::from(["all"]));
        assert!(Config::parse("", secret).is_ok_and(|config| config.receivers.is_empty()) || Config::parse("{}", secret).is_ok());
    }

    #[test]
    fn what_cannot_be_meant_is_refused_and_no_secret_is_repeated() {
        for (from, to, word) in [
            ("secrets: [hmac]", "secrets: []", "webhook.secrets"),
            ("secrets: [hmac]", "secrets: [slack]", "must begin with whsec_"),
            ("secrets: [hmac]", "secrets: [nowhere]", "no secret nowhere"),
            ("https://hooks.acme.com/c", "http://hooks.acme.com/c", "https URL"),
            ("https://hooks.acme.com/c", "https://u:p@hooks.acme.com/c", "https URL"),
            ("https://hooks.acme.com/c", "hooks", "no URL"),
            ("url: 'https://hooks.acme.com/c', ", "", "either url or urlSecret"),
            ("channel: C012", "channel: '#payments'", "identifier of a channel"),
            ("name: payments", "name: Payments", "DNS label"),
            ("name: payments", "name: all", "two of that name"),
            ("- receiver: all\n", "", "no route leads to it"),
            ("- receiver: all\n", "- receiver: nobody\n", "no receiver"),
            ("[payments, 'pay-*']", "['Pay*']", "neither a name"),
            ("'payments.*'", "'*.authorize'", "neither a name"),
            ("minimumRisk: High", "minimumRisk: Extreme", "Extreme"),
            ("minimumRisk: High", "minimumrisk: High", "minimumrisk"),
            ("on: [Requested, Denied]", "on: [Asked]", "Asked"),
            ("10.0.0.0/8", "10.0.0.0/33", "allowedNetworks"),
        ] {
            let text = FILE.replacen(from, to, 1);
            assert_ne!(text, FILE, "{from}");
            let error = Config::parse(&text, secret).expect_err(to).to_string();
            assert!(!error.contains("MfKQ") && !error.contains("xoxb"), "{error}");
            assert!(error.contains(word) || word == "allowedNetworks", "{to}: {error}");
        }
        let by_secret = FILE.replace("url: 'https://hooks.acme.com/c'", "urlSecret: url");
        assert!(Config::parse(&by_secret, secret).is_ok());
    }
}
