//! `countersign keygen`: a new key pair. The private half goes into a file or a Secret, the public half is printed as what an Agent
//! needs of it.

use super::{CliError, private_file};
use crate::agent_key::{AgentKey, AgentSecretKey, is_kid};
use crate::config::{namespace, object_name};
use crate::time;
use clap::Args;
use ed25519_dalek::pkcs8::spki::der::zeroize::Zeroizing;
use k8s_openapi::jiff::Timestamp;
use serde_json::{Map, json};
use std::io::Write;
use std::path::{Path, PathBuf};

/// The key of the Secret's data under which the private key stands.
pub const SECRET_DATA_KEY: &str = "private-key.pem";

/// Where the private key goes: to exactly one place.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Target {
    /// Write the private key to this new file, as PKCS#8 PEM, with mode 0600.
    #[arg(long, value_name = "FILE", value_parser = file)]
    pub private_key: Option<PathBuf>,
    /// Write the manifest of a Kubernetes Secret with the private key to this new file, with mode 0600; or to standard output, if
    /// FILE is -, and what to paste then to standard error: countersign keygen --secret - --secret-name NAME | kubectl create -f -
    #[arg(long, value_name = "FILE", requires = "secret_name")]
    pub secret: Option<PathBuf>,
}

/// Flags of `keygen`.
#[derive(Debug, Args)]
pub struct KeygenArgs {
    /// Where the private key goes.
    #[command(flatten)]
    pub target: Target,
    /// The name of the Secret.
    #[arg(long, value_name = "NAME", value_parser = object_name, conflicts_with = "private_key")]
    pub secret_name: Option<String>,
    /// The namespace of the Secret. By default the manifest names none.
    #[arg(long, value_name = "NAMESPACE", value_parser = namespace, conflicts_with = "private_key")]
    pub secret_namespace: Option<String>,
    /// The key's name within the Agent: 1 to 64 letters, digits, '.', '_' and '-'. By default its thumbprint (RFC 7638).
    #[arg(long, value_parser = kid, allow_hyphen_values = true)]
    pub kid: Option<String>,
    /// When the key ends: a time with zone, such as 2027-03-01T00:00:00Z, or a time from now, such as 90d or 36h. By default it
    /// ends when it is taken out of the Agent.
    #[arg(long, value_name = "TIME", value_parser = not_after)]
    pub not_after: Option<NotAfter>,
}

/// When a key ends, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotAfter {
    /// Then, since the epoch.
    At(i64),
    /// So long from now.
    In(i64),
}

/// Makes a key pair at `now`, in seconds since the epoch. Nothing secret goes to `out` unless the manifest was asked for there.
///
/// # Errors
/// A [`CliError`]. If a file could not be written, there is none.
pub fn run(args: &KeygenArgs, now: i64, out: &mut dyn Write, err: &mut dyn Write) -> Result<(), CliError> {
    let not_after = args.not_after.map(|end| end.resolve(now)).transpose()?;
    let key = AgentSecretKey::generate()?;
    let public = key.public();
    let entry = entry(&public, args.kid.as_deref().unwrap_or(public.thumbprint()), not_after.as_deref());
    let print = |to: &mut dyn Write, text: &str| to.write_all(text.as_bytes()).and_then(|()| to.flush()).map_err(CliError::Print);
    if let Some(path) = &args.target.private_key {
        private_file::create(path, &key.to_pem())?;
    }
    if let (Some(path), Some(name)) = (&args.target.secret, &args.secret_name) {
        let manifest = secret_manifest(&key, name, args.secret_namespace.as_deref());
        if path == Path::new("-") {
            print(out, &manifest)?;
            return print(err, &entry);
        }
        private_file::create(path, &manifest)?;
    }
    print(out, &entry)
}

impl NotAfter {
    /// The time in RFC 3339.
    fn resolve(self, now: i64) -> Result<String, CliError> {
        let at = match self {
            Self::At(at) => at,
            Self::In(seconds) => now.saturating_add(seconds),
        };
        let text = Timestamp::from_second(at).map(|at| at.to_string()).unwrap_or_default();
        if at > now { Ok(text) } else { Err(CliError::Ended(text)) }
    }
}

/// What an Agent needs of a key, as YAML, and how it gets there.
fn entry(key: &AgentKey, kid: &str, not_after: Option<&str>) -> String {
    // Quoted: 1.10 and 2026-11-01 are texts, which YAML would take for a number and a date.
    let not_after_line = not_after.map(|end| format!("      notAfter: \"{end}\"\n")).unwrap_or_default();
    let mut value = Map::from_iter([("kid".to_owned(), kid.into()), ("publicKey".to_owned(), key.to_pem().into())]);
    if let Some(end) = not_after {
        value.insert("notAfter".to_owned(), end.into());
    }
    // Neither a kid nor PEM nor a time has a quote that would end the shell's.
    let patch = json!([{"op": "add", "path": "/spec/identity/keys/-", "value": value}]);
    format!(
        "# Paste this under spec.identity.keys of the Agent:\n    - kid: \"{kid}\"\n      publicKey: |\n{}{not_after_line}\
         # Or add it to the keys that the Agent has:\n#   kubectl patch agent NAME --namespace=NAMESPACE --type=json --patch='{patch}'\n",
        indented(&key.to_pem(), 8).as_str()
    )
}

/// A Secret with the key. `kubectl create` refuses it where one is, `kubectl apply` replaces that.
fn secret_manifest(key: &AgentSecretKey, name: &str, namespace: Option<&str>) -> Zeroizing<String> {
    let pem = indented(&key.to_pem(), 4);
    let head = ["apiVersion: v1\nkind: Secret\nmetadata:\n  name: \"", name, "\"\n"];
    let place = namespace.map(|namespace| ["  namespace: \"", namespace, "\"\n"]).unwrap_or_default();
    let data = ["type: Opaque\nstringData:\n  ", SECRET_DATA_KEY, ": |\n", &pem];
    let parts = [head.as_slice(), place.as_slice(), data.as_slice()].concat();
    // Enough room at once: a text that grows leaves copies behind.
    let mut manifest = Zeroizing::new(String::with_capacity(parts.iter().map(|part| part.len()).sum()));
    for part in parts {
        manifest.push_str(part);
    }
    manifest
}

/// The lines of `text`, each behind so many spaces.
fn indented(text: &str, spaces: usize) -> Zeroizing<String> {
    let mut result = Zeroizing::new(String::with_capacity(text.len() + text.lines().count() * (spaces + 1)));
    for line in text.lines() {
        result.extend(std::iter::repeat_n(' ', spaces));
        result.push_str(line);
        result.push('\n');
    }
    result
}

fn file(text: &str) -> Result<PathBuf, String> {
    if text == "-" { Err("a private key is not printed, except as a Secret: --secret -".to_owned()) } else { Ok(text.into()) }
}

/// Parses the name of a key.
pub(super) fn kid(text: &str) -> Result<String, String> {
    if is_kid(text) { Ok(text.to_owned()) } else { Err("must be 1 to 64 letters, digits, '.', '_' and '-'".to_owned()) }
}

fn not_after(text: &str) -> Result<NotAfter, String> {
    if let Some(at) = time::parse(text) {
        return Ok(NotAfter::At(at));
    }
    let units = [("d", 86_400), ("h", 3600)];
    let seconds = units.iter().find_map(|(unit, factor)| text.strip_suffix(unit)?.parse::<u32>().ok()?.checked_mul(*factor));
    match seconds {
        Some(seconds @ 1..=315_360_000) => Ok(NotAfter::In(i64::from(seconds))),
        _ => {
            Err("must be a time with zone, such as 2027-03-01T00:00:00Z, or 1h to 3650d from now, such as 90d or 36h".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn the_end_of_a_key_is_a_time_or_a_time_from_now() {
        let end = |text| not_after(text).expect("a time").resolve(1_795_484_831);
        assert_eq!(end("90d").expect("later"), "2027-02-22T01:47:11Z");
        assert_eq!(end("36h").expect("later"), "2026-11-25T13:47:11Z");
        assert_eq!(end("2027-03-01T01:00:00+01:00").expect("later"), "2027-03-01T00:00:00Z");
        for past in ["2026-01-01T00:00:00Z", "2026-11-24T01:47:11Z"] {
            assert!(matches!(end(past), Err(CliError::Ended(_))), "{past}");
        }
        for bad in
            ["", "d", "0d", "-1d", "90", "1.5d", "90 d", "4000d", "99999999999d", "2027-03-01", "2027-03-01T00:00:00", "tomorrow"]
        {
            assert!(not_after(bad).is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn a_name_that_yaml_takes_for_something_else_stays_a_name() {
        let key = AgentSecretKey::generate().expect("a key");
        for name in ["1.10", "2026-11-01", "0x1f", "null", "true", "1e3", "-"] {
            let entries: Value = serde_saphyr::from_str(&entry(&key.public(), name, Some("2027-03-01T00:00:00Z"))).expect("YAML");
            assert_eq!(entries[0]["kid"], name);
            assert_eq!(entries[0]["notAfter"], "2027-03-01T00:00:00Z");
            let secret: Value = serde_saphyr::from_str(&secret_manifest(&key, name, Some(name))).expect("YAML");
            assert_eq!((&secret["metadata"]["name"], &secret["metadata"]["namespace"]), (&name.into(), &name.into()));
            assert_eq!(secret["stringData"][SECRET_DATA_KEY], key.to_pem().as_str());
        }
    }

    #[test]
    fn without_an_end_and_a_namespace_neither_is_named() {
        let key = AgentSecretKey::generate().expect("a key");
        assert!(!entry(&key.public(), "a", None).contains("notAfter"));
        assert!(!secret_manifest(&key, "a", None).contains("namespace"));
    }
}
