//! `kubectl countersign requests`: who waits for a decision, the most urgent first.

use super::catalogue::Catalogue;
use super::failure::Failure;
use super::output::OutputArgs;
use super::request::Asked;
use super::screen::{Table, duration, terminal_width};
use super::session::Session;
use super::stored::{Stored, all};
use crate::crd::JitRequest;
use crate::readable::Readable;
use crate::time::Clock;
use clap::Args;
use futures::TryStreamExt as _;
use kube::ResourceExt as _;
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch};
use std::collections::HashMap;
use std::io::Write;
use std::pin::pin;

/// Flags of `requests`.
#[derive(Debug, Args)]
pub struct RequestsArgs {
    /// Print what is there, and then whatever changes, until it is interrupted.
    #[arg(short, long)]
    pub watch: bool,
    /// Print those that have ended too.
    #[arg(long)]
    pub all: bool,
    /// How they are printed.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Lists requests.
pub(super) async fn run(session: &Session, args: &RequestsArgs, clock: Clock, out: &mut dyn Write) -> Result<(), Failure> {
    if args.watch {
        return follow(session, args, clock, out).await;
    }
    let mut catalogue = Catalogue::new(&session.client);
    let objects = all(&session.listed::<JitRequest>()).await?;
    catalogue.read().await;
    let mut rows = Vec::new();
    for object in objects {
        let asked = catalogue.about(&object).await;
        if args.all || asked.as_ref().is_none_or(|asked| !asked.is_finished()) {
            rows.push((object, asked));
        }
    }
    rows.sort_by_key(|(object, asked)| urgency(object, asked.as_ref()));
    let objects: Vec<Stored> = rows.iter().map(|(object, _)| object.clone()).collect();
    if args.output.list(&objects, out)? {
        return Ok(());
    }
    if rows.is_empty() {
        let place = if session.args.all_namespaces { "the cluster" } else { session.namespace()? };
        writeln!(out, "no {}requests in {}", if args.all { "" } else { "open " }, Readable(place))?;
        return Ok(());
    }
    let view = View::of(session, args);
    let mut table = view.table();
    let now = clock.now().as_second();
    rows.iter().for_each(|(object, asked)| table.push(view.row(object, asked.as_ref(), now)));
    write!(out, "{table}")?;
    Ok(())
}

/// Those that end first come first; what has ended comes last, the newest first.
fn urgency(object: &Stored, asked: Option<&Asked>) -> (bool, i64, String) {
    let name = format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
    match asked {
        None => (false, i64::MAX, name),
        Some(asked) if asked.is_finished() => {
            let finished = asked.status().finished_at.map_or(0, |at| at.0.as_second());
            (true, finished.saturating_neg(), name)
        }
        Some(asked) => (false, asked.expires().unwrap_or(i64::MAX), name),
    }
}

/// Which columns there are.
#[derive(Debug, Clone, Copy)]
struct View {
    namespaces: bool,
    wide: bool,
}

impl View {
    fn of(session: &Session, args: &RequestsArgs) -> Self {
        Self { namespaces: session.args.all_namespaces, wide: args.output.is_wide() }
    }

    fn table(self) -> Table {
        let mut head = Vec::new();
        head.extend(self.namespaces.then_some("NAMESPACE"));
        head.extend(["NAME", "PHASE", "RISK", "APPROVALS", "LEFT"]);
        head.extend(self.wide.then_some(["AGENT", "CAPABILITY", "RESOURCE", "AGE"]).into_iter().flatten());
        head.push("REQUEST");
        Table::new(&head, if self.wide { None } else { terminal_width() })
    }

    fn row(self, object: &Stored, asked: Option<&Asked>, now: i64) -> Vec<String> {
        let text = |text: &str| Readable(text).to_string();
        let mut row = Vec::new();
        row.extend(self.namespaces.then(|| text(&object.namespace().unwrap_or_default())));
        row.push(text(&object.name_any()));
        let Some(asked) = asked else {
            row.extend(["?", "?", "?", "?"].map(str::to_owned));
            row.extend(self.wide.then(|| ["?", "?", "?", "?"].map(str::to_owned)).into_iter().flatten());
            row.push("(this version of kubectl-countersign cannot read it)".to_owned());
            return row;
        };
        row.extend([asked.phase(), asked.risk(), asked.approvals(), asked.left(now)]);
        if self.wide {
            let spec = &asked.object.spec;
            let age = object.creation_timestamp().map(|at| duration(now.saturating_sub(at.0.as_second())));
            row.extend([
                text(&spec.agent.name),
                text(&spec.operation.capability),
                text(spec.operation.resource.as_deref().unwrap_or("-")),
                age.unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        row.push(asked.headline());
        row
    }
}

/// What was printed of a request: it is printed again when this changes.
type Shown = (String, String, bool);

/// Prints what is there, and then each change.
async fn follow(session: &Session, args: &RequestsArgs, clock: Clock, out: &mut dyn Write) -> Result<(), Failure> {
    let api = session.listed::<JitRequest>();
    // A watch tries for ever; whoever may not look should learn it at once.
    all(&api).await?;
    let mut catalogue = Catalogue::new(&session.client);
    catalogue.read().await;
    let view = View::of(session, args);
    let mut printer = Printer { view, args, clock, table: view.table(), known: HashMap::new() };
    let mut events = pin!(watch(api, watcher::Config::default()).default_backoff());
    let mut first = Some(Vec::new());
    loop {
        let event = match events.try_next().await {
            Ok(Some(event)) => event,
            Ok(None) => return Ok(()),
            // It connects again by itself.
            Err(_) if first.is_none() => continue,
            Err(error) => return Err(Failure::failed(crate::error_chain(&error))),
        };
        match event {
            Event::Init => {}
            Event::InitApply(object) if first.is_some() => {
                let asked = catalogue.about(&object).await;
                first.as_mut().into_iter().for_each(|first| first.push((object.clone(), asked.clone())));
            }
            Event::InitDone => {
                let Some(mut rows) = first.take() else { continue };
                rows.sort_by_key(|(object, asked)| urgency(object, asked.as_ref()));
                printer.begin(rows, out)?;
            }
            Event::InitApply(object) | Event::Apply(object) => {
                let asked = catalogue.about(&object).await;
                printer.changed(&object, asked.as_ref(), out)?;
            }
            Event::Delete(object) => {
                let asked = catalogue.about(&object).await;
                printer.gone(&object, asked.as_ref(), out)?;
            }
        }
    }
}

struct Printer<'a> {
    view: View,
    args: &'a RequestsArgs,
    clock: Clock,
    table: Table,
    known: HashMap<String, Shown>,
}

impl Printer<'_> {
    fn begin(&mut self, rows: Vec<(Stored, Option<Asked>)>, out: &mut dyn Write) -> Result<(), Failure> {
        let now = self.clock.now().as_second();
        for (object, asked) in rows {
            if !self.args.all && asked.as_ref().is_some_and(Asked::is_finished) {
                continue;
            }
            self.known.insert(object.uid().unwrap_or_default(), shown(asked.as_ref()));
            if !self.args.output.line(&object, out)? {
                self.table.push(self.view.row(&object, asked.as_ref(), now));
            }
        }
        if matches!(self.args.output.output, None | Some(super::output::Format::Wide)) {
            write!(out, "{}", self.table)?;
        }
        Ok(out.flush()?)
    }

    fn changed(&mut self, object: &Stored, asked: Option<&Asked>, out: &mut dyn Write) -> Result<(), Failure> {
        let (uid, now) = (object.uid().unwrap_or_default(), shown(asked));
        let known = self.known.get(&uid);
        // What ends while somebody looks is told; what had ended before is not.
        let is_news = known != Some(&now) && (known.is_some() || self.args.all || asked.is_none_or(|asked| !asked.is_finished()));
        if !is_news {
            return Ok(());
        }
        self.known.insert(uid, now);
        self.print(object, asked, None, out)
    }

    fn gone(&mut self, object: &Stored, asked: Option<&Asked>, out: &mut dyn Write) -> Result<(), Failure> {
        match self.known.remove(&object.uid().unwrap_or_default()) {
            // That an ended one is cleaned up is no news.
            Some(_) if asked.is_some_and(|asked| !asked.is_finished()) => self.print(object, asked, Some("Deleted"), out),
            _ => Ok(()),
        }
    }

    fn print(&self, object: &Stored, asked: Option<&Asked>, phase: Option<&str>, out: &mut dyn Write) -> Result<(), Failure> {
        if !self.args.output.line(object, out)? {
            let mut row = self.view.row(object, asked, self.clock.now().as_second());
            let column = if self.view.namespaces { 2 } else { 1 };
            if let (Some(phase), Some(cell)) = (phase, row.get_mut(column)) {
                phase.clone_into(cell);
            }
            writeln!(out, "{}", self.table.line(&row))?;
        }
        Ok(out.flush()?)
    }
}

fn shown(asked: Option<&Asked>) -> Shown {
    asked.map_or_else(
        || (String::new(), String::new(), false),
        |asked| (asked.phase(), asked.approvals(), asked.status().decision.is_some()),
    )
}
