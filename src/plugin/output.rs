//! How objects are printed: as they are (`-o json`, `-o yaml`), by name, or as a table.

use super::failure::Failure;
use super::screen;
use super::stored::Stored;
use crate::readable::Readable;
use clap::{Args, ValueEnum};
use kube::ResourceExt as _;
use serde_json::{Value, json};
use std::io::Write;

/// The flag.
#[derive(Debug, Clone, Copy, Args)]
pub struct OutputArgs {
    /// How to print it. By default for people.
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    pub output: Option<Format>,
}

/// How something is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// The objects as they are.
    Json,
    /// The objects as they are.
    Yaml,
    /// For people, with more columns.
    Wide,
    /// The names alone, as kubectl takes them.
    Name,
}

impl OutputArgs {
    /// Whether more columns are wanted.
    #[must_use]
    pub fn is_wide(self) -> bool {
        self.output == Some(Format::Wide)
    }

    /// Prints a list of objects, unless people are to read it.
    pub(super) fn list(self, objects: &[Stored], out: &mut dyn Write) -> Result<bool, Failure> {
        match self.output {
            None | Some(Format::Wide) => return Ok(false),
            Some(Format::Name) => objects.iter().try_for_each(|object| writeln!(out, "{}", name(object)))?,
            Some(format) => {
                let list = json!({"apiVersion": "v1", "kind": "List", "metadata": {}, "items": objects});
                writeln!(out, "{}", text(&list, format))?;
            }
        }
        Ok(true)
    }

    /// Prints one object, unless people are to read it.
    pub(super) fn object(self, object: &Stored, out: &mut dyn Write) -> Result<bool, Failure> {
        match self.output {
            None | Some(Format::Wide) => return Ok(false),
            Some(Format::Name) => writeln!(out, "{}", name(object))?,
            Some(format) => writeln!(out, "{}", text(&object.value(), format))?,
        }
        Ok(true)
    }

    /// Prints one of many objects, a line for each where that is possible.
    pub(super) fn line(self, object: &Stored, out: &mut dyn Write) -> Result<bool, Failure> {
        match self.output {
            Some(Format::Json) => writeln!(out, "{}", screen::json(&object.value()))?,
            Some(Format::Yaml) => writeln!(out, "---\n{}", screen::yaml(&object.value()))?,
            _ => return self.object(object, out),
        }
        Ok(true)
    }
}

fn text(value: &Value, format: Format) -> String {
    if format == Format::Yaml { screen::yaml(value) } else { screen::pretty_json(value) }
}

/// As kubectl names an object.
fn name(object: &Stored) -> String {
    let kind = object.value().get("kind").and_then(Value::as_str).unwrap_or("object").to_lowercase();
    format!("{}.{}/{}", Readable(&kind), crate::crd::GROUP, Readable(&object.name_any()))
}
