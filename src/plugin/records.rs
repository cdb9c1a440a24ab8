//! `kubectl countersign trace`, `tree` and `audit`: the ledger of the running operator, asked as `countersign audit` asks it.

use super::failure::Failure;
use super::operator::{Installed, Way};
use super::session::Session;
use crate::audit::ledger::LogId;
use crate::cli::audit::{
    AuditError, QueryQuestion, Server, Source, TailQuestion, TraceQuestion, prove, query, record, tail, trace, tree,
};
use crate::readable::Readable;
use crate::time::Clock;
use axum::http::header::AUTHORIZATION;
use axum::http::{Request, Response};
use clap::{Args, Subcommand};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use kube::client::{Body, ConfigExt as _};
use std::cell::RefCell;
use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use tower::{BoxError, Layer as _, ServiceExt as _, service_fn};

/// How long a token lives with which records are read, in seconds: the shortest that there is.
const TOKEN_SECONDS: i64 = 600;

/// Where the operator is, and who asks it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Operator")]
pub struct PlaceArgs {
    /// The URL of its token service. By default kubectl port-forward to its Service.
    #[arg(long, value_name = "URL", value_parser = crate::config::issuer)]
    pub server: Option<String>,
    /// The namespace of the operator. By default it is looked for.
    #[arg(long, value_name = "NAME")]
    pub operator_namespace: Option<String>,
    /// The CA of its certificate (PEM). By default what it has published in its ConfigMap, or the system's.
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// A file with the Kubernetes token to ask with. By default the token of the kubeconfig.
    #[arg(long, value_name = "FILE", conflicts_with = "service_account")]
    pub token_file: Option<PathBuf>,
    /// Ask with a token of this ServiceAccount, made for that: namespace/name. It takes the right to make one.
    #[arg(long, value_name = "NAMESPACE/NAME")]
    pub service_account: Option<String>,
}

/// Flags of `trace` and `tree`.
#[derive(Debug, Args)]
pub struct TraceCommand {
    /// What is asked.
    #[command(flatten)]
    pub question: TraceQuestion,
    /// Of whom.
    #[command(flatten)]
    pub place: PlaceArgs,
}

/// Flags of `audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// What is asked.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// What can be asked of the ledger.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Print the newest records, and with -f those that follow.
    Tail {
        /// How many records.
        #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=1000))]
        lines: u32,
        /// What is asked.
        #[command(flatten)]
        question: TailQuestion,
        /// Of whom.
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print the records to which all filters apply, from the oldest on.
    Query {
        /// What is asked.
        #[command(flatten)]
        question: QueryQuestion,
        /// Of whom.
        #[command(flatten)]
        place: PlaceArgs,
    },
    /// Print the proof that a record is in the ledger, for somebody who has nothing but the verifier key.
    Prove {
        /// The record: <log>/<number>, as query and trace print it.
        #[arg(value_parser = record)]
        record: (LogId, u64),
        /// Of whom.
        #[command(flatten)]
        place: PlaceArgs,
    },
}

/// Who really did this?
pub(super) async fn run_trace(session: &Session, args: &TraceCommand, clock: Clock, out: &mut dyn Write) -> Result<u8, Failure> {
    let place = Place::new(session, &args.place);
    answered(trace(&args.question, place.open(), clock, out).await)
}

/// What led to what?
pub(super) async fn run_tree(session: &Session, args: &TraceCommand, clock: Clock, out: &mut dyn Write) -> Result<u8, Failure> {
    let place = Place::new(session, &args.place);
    answered(tree(&args.question, place.open(), clock, out).await)
}

/// The records.
pub(super) async fn run(session: &Session, args: &AuditArgs, clock: Clock, out: &mut dyn Write) -> Result<u8, Failure> {
    match &args.command {
        AuditCommand::Tail { lines, question, place } => {
            let place = Place::new(session, place);
            answered(tail(question, *lines, place.open(), out).await)
        }
        AuditCommand::Query { question, place } => {
            let place = Place::new(session, place);
            answered(query(question, place.open(), clock, out).await)
        }
        AuditCommand::Prove { record, place } => {
            let place = Place::new(session, place);
            answered(prove(record, place.open(), out).await)
        }
    }
}

/// The status of an answer, or why there is none.
fn answered(answered: Result<u8, AuditError>) -> Result<u8, Failure> {
    answered.map_err(|error| match error {
        AuditError::Print(error) => Failure::Print(error),
        AuditError::Forbidden(_) => Failure::Refused(Readable(&error.to_string()).to_string()),
        error => Failure::failed(error.to_string()),
    })
}

/// The operator, once it is asked, and the way to it.
struct Place<'a> {
    session: &'a Session,
    args: &'a PlaceArgs,
    /// Open as long as answers are read.
    way: RefCell<Option<Way>>,
}

impl<'a> Place<'a> {
    const fn new(session: &'a Session, args: &'a PlaceArgs) -> Self {
        Self { session, args, way: RefCell::new(None) }
    }

    async fn open(&self) -> Result<Source, AuditError> {
        self.reach().await.map_err(|failure| match failure {
            Failure::Refused(text) => AuditError::Forbidden(text),
            failure => AuditError::Server(failure.to_string()),
        })
    }

    async fn reach(&self) -> Result<Source, Failure> {
        let token = self.token().await?;
        let given = match &self.args.ca {
            Some(path) => {
                let unreadable = |error| Failure::failed(format!("{}: cannot be read: {error}", path.display()));
                Some(std::fs::read(path).map_err(unreadable)?)
            }
            None => None,
        };
        let (url, authority, at) = match &self.args.server {
            Some(url) => (url.clone(), given.or(self.published().await), None),
            None => {
                let installed = Installed::find(self.session, self.args.operator_namespace.as_deref()).await?;
                let authority = match given {
                    Some(pem) => Some(pem),
                    None => installed.authority(self.session).await?.map(String::into_bytes),
                };
                let way = Way::open(&installed, &self.session.args).await?;
                let at = way.at;
                self.way.replace(Some(way));
                (format!("https://{}.{}.svc:{}", installed.name, installed.namespace, at.port()), authority, Some(at))
            }
        };
        let server = Server::new(url, authority.as_deref(), &token, at).map_err(|error| Failure::failed(error.to_string()))?;
        Ok(Source::Server(server))
    }

    /// The authority that the operator has published, if whoever asks may read it.
    async fn published(&self) -> Option<Vec<u8>> {
        let installed = Installed::find(self.session, self.args.operator_namespace.as_deref()).await.ok()?;
        installed.authority(self.session).await.ok()?.map(String::into_bytes)
    }

    /// The token with which the operator is asked.
    async fn token(&self) -> Result<Vec<u8>, Failure> {
        if let Some(path) = &self.args.token_file {
            return std::fs::read(path).map_err(|error| Failure::failed(format!("{}: cannot be read: {error}", path.display())));
        }
        if let Some(account) = &self.args.service_account {
            let (namespace, name) =
                account.split_once('/').ok_or_else(|| Failure::Failed("--service-account must be namespace/name".to_owned()))?;
            let api: Api<ServiceAccount> = Api::namespaced(self.session.client.clone(), namespace);
            let spec = TokenRequestSpec { expiration_seconds: Some(TOKEN_SECONDS), ..TokenRequestSpec::default() };
            let request = TokenRequest { spec, ..TokenRequest::default() };
            let made = api.create_token_request(name, &PostParams::default(), &request).await?;
            return Ok(made.status.map(|status| status.token.into_bytes()).unwrap_or_default());
        }
        if self.session.config.auth_info.impersonate.is_some() {
            let problem =
                "the operator cannot be told whom somebody acts as: say with --token-file or --service-account who asks it";
            return Err(Failure::Failed(problem.to_owned()));
        }
        own_token(self.session).await?.ok_or_else(|| {
            let problem =
                "the operator knows people by tokens, and this kubeconfig has none: give --token-file, or --service-account";
            Failure::Failed(problem.to_owned())
        })
    }
}

/// The token that the kubeconfig has, or that its plugin makes: what would be sent to the API server.
async fn own_token(session: &Session) -> Result<Option<Vec<u8>>, Failure> {
    let unusable = |error: &(dyn std::error::Error + 'static)| Failure::failed(crate::error_chain(error));
    let Some(layer) = session.config.auth_layer().map_err(|error| unusable(&error))? else { return Ok(None) };
    let sent = Arc::new(Mutex::new(None));
    let seen = Arc::clone(&sent);
    let service = layer.layer(service_fn(move |request: Request<Body>| {
        let header = request.headers().get(AUTHORIZATION).map(|value| value.as_bytes().to_vec());
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = header;
        std::future::ready(Ok::<_, BoxError>(Response::new(())))
    }));
    let request = Request::new(Body::empty());
    service.oneshot(request).await.map_err(|error| Failure::failed(error.to_string()))?;
    let header = sent.lock().unwrap_or_else(PoisonError::into_inner).take();
    Ok(header.and_then(|header| header.strip_prefix(b"Bearer ").map(<[u8]>::to_vec)))
}
