//! Texts on a terminal: wrapped to its width, in columns, and without anything that acts on it.

use crate::readable::Readable;
use serde_json::Value;
use std::fmt;
use unicode_width::UnicodeWidthStr as _;

/// How wide a text becomes where nobody says how wide the terminal is.
const WIDTH: usize = 100;
/// How narrow a column of text may become.
const NARROW: usize = 20;
/// What stands between columns.
const GAP: usize = 3;

/// How wide the terminal is, if there is one, or somebody says so (`COLUMNS`).
#[must_use]
pub fn terminal_width() -> Option<usize> {
    let said = std::env::var("COLUMNS").ok().and_then(|columns| columns.parse().ok()).filter(|columns| *columns > 0);
    said.or_else(|| terminal_size::terminal_size().map(|(width, _)| width.0.into()))
}

/// How wide texts are made.
#[must_use]
pub fn width() -> usize {
    terminal_width().unwrap_or(WIDTH)
}

/// A readable text in lines of at most `width` columns, broken between words where there are words.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(NARROW);
    let (mut lines, mut line) = (Vec::new(), String::new());
    for word in text.split(' ') {
        let room = width.saturating_sub(line.width());
        if !line.is_empty() && word.width().saturating_add(1) > room {
            lines.push(std::mem::take(&mut line));
        } else if !line.is_empty() {
            line.push(' ');
        }
        // What is longer than a line goes on in the next.
        for c in word.chars() {
            if line.width().saturating_add(c.to_string().width()) > width {
                lines.push(std::mem::take(&mut line));
            }
            line.push(c);
        }
    }
    lines.push(line);
    lines
}

/// At most `columns` columns of a readable text; what is left out shows as an ellipsis.
#[must_use]
pub fn cut(text: &str, columns: usize) -> String {
    if text.width() <= columns {
        return text.to_owned();
    }
    let mut cut = String::new();
    for c in text.chars() {
        if cut.width().saturating_add(c.to_string().width()).saturating_add(1) > columns {
            break;
        }
        cut.push(c);
    }
    cut.push('…');
    cut
}

/// A value as JSON in one line: a reader of JSON sees the value, and nothing in it acts on a terminal.
#[must_use]
pub fn json(value: &Value) -> String {
    harmless(&value.to_string())
}

/// The same over several lines.
#[must_use]
pub fn pretty_json(value: &Value) -> String {
    format!("{value:#}").lines().map(harmless).collect::<Vec<_>>().join("\n")
}

/// A value as YAML; as JSON, which is YAML too, where a text in it could act on a terminal.
#[must_use]
pub fn yaml(value: &Value) -> String {
    match serde_saphyr::to_string(value) {
        Ok(text) if text.lines().all(|line| harmless(line) == line) => text.trim_end().to_owned(),
        _ => pretty_json(value),
    }
}

/// JSON with what is not readable escaped. Such characters stand in it within texts only.
pub(super) fn harmless(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c == '\\' || Readable(c.encode_utf8(&mut [0; 4])).to_string().starts_with(c) {
            text.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| text.push_str(&format!("\\u{unit:04x}")));
        }
    }
    text
}

/// Columns under a head. The cells are readable texts.
#[derive(Debug, Clone)]
pub struct Table {
    widths: Vec<usize>,
    rows: Vec<Vec<String>>,
    /// How wide a row may become, if the last column is cut.
    width: Option<usize>,
}

impl Table {
    /// One with this head.
    #[must_use]
    pub fn new(head: &[&str], width: Option<usize>) -> Self {
        let mut table = Self { widths: vec![0; head.len()], rows: Vec::new(), width };
        table.push(head.iter().map(|&name| name.to_owned()).collect());
        table
    }

    /// Adds a row.
    pub fn push(&mut self, row: Vec<String>) {
        for (width, cell) in self.widths.iter_mut().zip(&row) {
            *width = (*width).max(cell.width());
        }
        self.rows.push(row);
    }

    /// A further row in the columns as they are: for what comes when the rest stands there.
    #[must_use]
    pub fn line(&self, row: &[String]) -> String {
        let mut line = String::new();
        let last = row.len().saturating_sub(1);
        for (at, (cell, width)) in row.iter().zip(&self.widths).enumerate() {
            if at == last {
                let room = self.width.map(|width| width.saturating_sub(line.width()).max(NARROW));
                line.push_str(&room.map_or_else(|| cell.clone(), |room| cut(cell, room)));
            } else {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', width.saturating_sub(cell.width()).saturating_add(GAP)));
            }
        }
        line.trim_end().to_owned()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.rows.iter().try_for_each(|row| writeln!(f, "{}", self.line(row)))
    }
}

/// Seconds as people say them: 9m58s, 3h12m, 4d.
#[must_use]
pub fn duration(seconds: i64) -> String {
    let seconds = seconds.max(0);
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let (whole, rest) = match (days, hours, minutes) {
        (0, 0, 0) => return format!("{seconds}s"),
        (0, 0, _) => (format!("{minutes}m"), (seconds % 60, 's')),
        (0, _, _) => (format!("{hours}h"), (minutes % 60, 'm')),
        _ => (format!("{days}d"), (hours % 24, 'h')),
    };
    match rest {
        (0, _) => whole,
        (rest, unit) => format!("{whole}{rest}{unit}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn no_line_is_wider_than_the_terminal_and_nothing_is_lost() {
        for text in ["", "one two three", &"x".repeat(1000), &"李 ".repeat(300), "a  b", &format!("short {} end", "y".repeat(95))]
        {
            let lines = wrap(text, 40);
            assert!(lines.iter().all(|line| line.width() <= 40), "{lines:?}");
            assert_eq!(lines.concat().replace(' ', ""), text.replace(' ', ""));
        }
        assert_eq!(wrap("aaaaaaaaaa bbbbbbbbbb cc", 21), ["aaaaaaaaaa bbbbbbbbbb", "cc"]);
        assert_eq!((cut("abcdef", 4), cut("李李李", 4), cut("ab", 2)), ("abc…".to_owned(), "李…".to_owned(), "ab".to_owned()));
    }

    #[test]
    fn h15_json_and_yaml_are_the_value_and_act_on_no_terminal() {
        let value = json!({"a": "\u{1b}[2J\u{202e}x\u{9b}\\ \"q\" ü", "b": [1, {"\u{2028}": "\u{e0041}\n"}]});
        for text in [json(&value), pretty_json(&value), yaml(&value)] {
            let acts = |c: char| c != '\n' && (c.is_control() || crate::readable::is_invisible(c));
            assert!(!text.contains(acts), "{text:?}");
            assert_eq!(serde_saphyr::from_str::<Value>(&text).expect("YAML"), value);
        }
        assert!(yaml(&json!({"a": {"b": "c"}})).starts_with("a:"), "otherwise it is YAML as people write it");
    }

    #[test]
    fn columns_stand_under_one_another_and_the_last_is_cut() {
        let mut table = Table::new(&["NAME", "TEXT"], Some(26));
        table.push(vec!["李".to_owned(), "x".repeat(50)]);
        assert_eq!(table.to_string(), format!("NAME   TEXT\n李     {}…\n", "x".repeat(19)));
        assert_eq!(table.line(&["ab".to_owned(), "c".to_owned()]), "ab     c");
    }

    #[test]
    fn a_duration_has_two_units_at_most() {
        let said = [-5, 59, 60, 61, 3599, 3700, 7200, 90_000].map(duration);
        assert_eq!(said, ["0s", "59s", "1m", "1m1s", "59m59s", "1h1m", "2h", "1d1h"]);
    }
}
