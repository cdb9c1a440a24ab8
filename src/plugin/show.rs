//! `kubectl countersign show`: all of one request.

use super::catalogue::Catalogue;
use super::failure::Failure;
use super::output::OutputArgs;
use super::request::Asked;
use super::screen;
use super::session::Session;
use super::stored::Stored;
use crate::crd::JitRequest;
use crate::readable::Readable;
use crate::time::Clock;
use clap::Args;
use kube::api::Api;
use kube::core::ApiResource;
use std::io::Write;

/// Flags of `show`.
#[derive(Debug, Args)]
pub struct ShowArgs {
    /// The request.
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

/// One request.
///
/// # Errors
/// If there is none of that name, or it may not be read, or this version cannot.
pub(super) async fn look(session: &Session, name: &str) -> Result<(Stored, Asked), Failure> {
    let found = requests(session)?.get_opt(name).await?;
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

/// Prints one request.
pub(super) async fn run(session: &Session, args: &ShowArgs, clock: Clock, out: &mut dyn Write) -> Result<(), Failure> {
    let (object, asked) = look(session, &args.name).await?;
    if !args.output.object(&object, out)? {
        let width = screen::width();
        writeln!(out, "{}\n{}", asked.sheet(width, clock.now().as_second()), asked.story(width).trim_end())?;
    }
    Ok(())
}
