//! `kubectl countersign show`: all of one request.

use super::catalogue::Catalogue;
use super::failure::Failure;
use super::output::OutputArgs;
use super::request::Asked;
use super::screen;
use super::session::Session;
use super::stored::{Stored, all};
use crate::crd::JitRequest;
use crate::readable::Readable;
use crate::time::Clock;
use clap::Args;
use kube::ResourceExt as _;
use kube::api::Api;
use kube::core::ApiResource;
use std::io::Write;
use uuid::Uuid;

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The request, by its name or by its UID, which is what the agent that asked knows.
    pub name: String,
    /// How it is printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// The requests of the one namespace.
pub(super) fn requests(session: &Session) -> Result<Api<Stored>, Failure> {
    let resource = ApiResource::erase::<JitRequest>(&());
    Ok(Api::namespaced_with(session.client.clone(), session.namespace()?, &resource))
}

/// One request, by name or UID.
///
/// # Errors
/// If there is none, or it may not be read, or this version cannot.
pub(super) async fn look(session: &Session, name: &str) -> Result<(Stored, Asked), Failure> {
    let found = match Uuid::try_parse(name) {
        Ok(_) => with_uid(session, name).await?,
        Err(_) => requests(session)?.get_opt(name).await?,
    };
    read(session, name, found).await
}

/// The request that has this name now.
///
/// # Errors
/// As from [`look`].
pub(super) async fn look_again(session: &Session, name: &str) -> Result<(Stored, Asked), Failure> {
    read(session, name, requests(session)?.get_opt(name).await?).await
}

async fn read(session: &Session, name: &str, found: Option<Stored>) -> Result<(Stored, Asked), Failure> {
    let place = session.namespace()?;
    let missing = || Failure::Failed(format!("there is no request {}/{}", Readable(place), Readable(name)));
    let object = found.ok_or_else(missing)?;
    let asked = Catalogue::new(&session.client).about(&object).await.ok_or_else(|| {
        Failure::Failed(format!(
            "{}: this version of kubectl-countersign cannot read it: kubectl get -o yaml shows it",
            Readable(name)
        ))
    })?;
    Ok((object, asked))
}

/// The request of that UID. One that only has it for a name, which anybody can give it, is never meant.
async fn with_uid(session: &Session, uid: &str) -> Result<Option<Stored>, Failure> {
    let listed = all(&requests(session)?).await?;
    Ok(listed.into_iter().find(|found| found.uid().as_deref() == Some(uid)))
}

/// Prints one request.
pub(super) async fn run(session: &Session, args: &ShowArgs, clock: Clock, out: &mut dyn Write) -> Result<(), Failure> {
    let (object, asked) = look(session, &args.name).await?;
    if !args.output.object(&object, out)? {
        let width = screen::width();
        writeln!(out, "{}\n{}", asked.sheet(width, clock.now().as_second()), asked.story(width).trim_end())?;
    }
    Ok(())
}
