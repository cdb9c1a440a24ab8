//! The flags of the portal.

use clap::{ArgAction, Args};
use std::path::PathBuf;

/// Whether and how people are let in to the pages.
#[derive(Debug, Clone, Args)]
pub struct PortalArgs {
    /// Serve pages for people at /portal: requests to decide on, agents, and what was recorded. Whoever signs in does and sees with their
    /// own Kubernetes credential what they may, and nothing else.
    #[arg(
        long,
        env = "COUNTERSIGN_PORTAL",
        value_name = "BOOL",
        default_value_t = true,
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true"
    )]
    pub portal: bool,
    /// The URL at which people reach the portal, by default the issuer's with /portal behind it.
    #[arg(long, env = "COUNTERSIGN_PORTAL_URL", value_parser = url)]
    pub portal_url: Option<String>,
    /// The OpenID Provider at which people sign in: one whose ID tokens the API server accepts. Without it people sign in with a token.
    #[arg(long, env = "COUNTERSIGN_PORTAL_OIDC_ISSUER", value_name = "URL", value_parser = super::value::issuer_of_others, requires = "portal_oidc_client_id")]
    pub portal_oidc_issuer: Option<String>,
    /// The portal's client identifier there, which is the audience of the ID tokens.
    #[arg(long, env = "COUNTERSIGN_PORTAL_OIDC_CLIENT_ID", value_name = "ID", requires = "portal_oidc_issuer")]
    pub portal_oidc_client_id: Option<String>,
    /// A file with the client's secret, if it has one. It is read at each sign-in.
    #[arg(long, env = "COUNTERSIGN_PORTAL_OIDC_CLIENT_SECRET_FILE", value_name = "FILE", requires = "portal_oidc_client_id")]
    pub portal_oidc_client_secret_file: Option<PathBuf>,
    /// What is asked of the provider, separated by spaces: openid, and what the API server needs in the ID token.
    #[arg(long, env = "COUNTERSIGN_PORTAL_OIDC_SCOPES", value_name = "SCOPES", default_value = "openid email profile", value_parser = scopes)]
    pub portal_oidc_scopes: String,
    /// The certificate authority of the provider (PEM), if it is not a public one.
    #[arg(long, env = "COUNTERSIGN_PORTAL_OIDC_CA_FILE", value_name = "FILE", requires = "portal_oidc_issuer")]
    pub portal_oidc_ca_file: Option<PathBuf>,
}

impl PortalArgs {
    /// The URL at which people reach the portal, which otherwise is below that of the issuer.
    #[must_use]
    pub fn url(&self, issuer: &str) -> String {
        self.portal_url.clone().unwrap_or_else(|| format!("{issuer}/portal"))
    }
}

fn url(text: &str) -> Result<String, String> {
    let url = super::issuer(text)?;
    if url.ends_with("/portal") { Ok(url) } else { Err("must end with /portal, where the pages are".to_owned()) }
}

fn scopes(text: &str) -> Result<String, String> {
    let is_scope = |scope: &str| scope.bytes().all(|b| matches!(b, b'!' | b'#'..=b'[' | b']'..=b'~'));
    let scopes: Vec<&str> = text.split_ascii_whitespace().collect();
    if scopes.contains(&"openid") && scopes.iter().all(|scope| is_scope(scope)) {
        Ok(scopes.join(" "))
    } else {
        Err("must be scopes separated by spaces, and openid among them".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{Cli, Command};
    use clap::Parser as _;

    fn portal(flags: &[&str]) -> Result<super::PortalArgs, String> {
        let usual = ["countersign", "serve", "--issuer=https://a", "--namespace=a", "--database=sqlite:///a"];
        match Cli::try_parse_from(usual.iter().chain(flags)).map_err(|e| e.to_string())?.command {
            Command::Serve(args) => Ok(args.portal),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_portal_is_on_unless_it_is_switched_off() {
        assert!(portal(&[]).expect("accepted").portal && portal(&["--portal"]).expect("accepted").portal);
        assert!(!portal(&["--portal=false"]).expect("accepted").portal);
    }

    #[test]
    fn a_provider_has_a_client_and_a_client_has_a_provider() {
        let issuer = "--portal-oidc-issuer=https://idp.example.com/";
        assert!(portal(&[issuer, "--portal-oidc-client-id=x"]).is_ok(), "an issuer may end with a slash");
        for bad in [
            &[issuer][..],
            &["--portal-oidc-client-id=x"],
            &["--portal-oidc-ca-file=/a"],
            &["--portal-oidc-issuer=http://a", "--portal-oidc-client-id=x"],
            &["--portal-oidc-scopes=email"],
            &["--portal-url=https://a/b"],
        ] {
            portal(bad).expect_err(&format!("{bad:?}"));
        }
    }
}
