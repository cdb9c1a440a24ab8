//! The chain of a token as a picture: who called whom from left to right, and what each hop let go of.
//!
//! Pure: records in, places of boxes and lines out. The template draws them.

use super::page::Text;
use crate::audit::trace::Hop;
use crate::readable::shortened;
use std::collections::BTreeSet;

/// Size of a box.
const WIDTH: u32 = 230;
const HEIGHT: u32 = 104;
/// Room between boxes.
const GAP_X: u32 = 150;
const GAP_Y: u32 = 24;
/// Most boxes. Of more the first.
const NODES_MAX: usize = 200;
/// Longest line in a box, in characters: a wide font has room for no more.
const LINE: usize = 28;
/// Most capabilities that are named at a line.
const DROPPED_MAX: usize = 4;

/// A picture.
#[derive(Debug, Default)]
pub(super) struct Picture {
    pub(super) width: u32,
    pub(super) height: u32,
    pub(super) nodes: Vec<Node>,
    pub(super) edges: Vec<Edge>,
    pub(super) is_cut: bool,
}

/// A box.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) x: u32,
    pub(super) y: u32,
    pub(super) class: &'static str,
    /// All of it, for whoever points at it or hears it.
    pub(super) whole: Text,
    pub(super) title: Text,
    /// Each with how far below the top it stands.
    pub(super) lines: Vec<(u32, Text)>,
}

/// A line between boxes, with what was not handed on.
#[derive(Debug)]
pub(super) struct Edge {
    pub(super) path: String,
    pub(super) x: u32,
    pub(super) dropped: Vec<(u32, Text)>,
}

impl Picture {
    /// Whether it is wider than a small screen: it then keeps a size at which it can be read.
    pub(super) const fn is_wide(&self) -> bool {
        self.width > 680
    }

    pub(super) const fn node_width() -> u32 {
        WIDTH
    }

    pub(super) const fn node_height() -> u32 {
        HEIGHT
    }

    /// Of the tokens, and below each what was obtained with it.
    pub(super) fn of(hops: &[Hop]) -> Self {
        let mut picture = Self::default();
        let mut row = 0;
        for hop in hops {
            let Some(user) = &hop.user else {
                picture.add(hop, 0, &mut row);
                continue;
            };
            let first = picture.add(hop, 1, &mut row);
            if let Some((x, y)) = first {
                let name = user.strip_prefix("user:").unwrap_or(user);
                let lines = vec![line(0, "the user for whom it is done")];
                let at = (column(0), y);
                picture.nodes.push(node(at, "node node-user", name, &format!("user {name}"), lines));
                picture.edges.push(edge(at, (x, y), &[]));
            }
        }
        let ends = |of: fn(&Node) -> u32, size: u32| picture.nodes.iter().map(of).max().map_or(0, |end| end + size + 10);
        (picture.width, picture.height) = (ends(|node| node.x, WIDTH), ends(|node| node.y, HEIGHT));
        picture
    }

    /// Adds a hop and all below it. Returns where it stands.
    fn add(&mut self, hop: &Hop, depth: u32, row: &mut u32) -> Option<(u32, u32)> {
        if self.nodes.len() >= NODES_MAX {
            self.is_cut = true;
            return None;
        }
        let at = (column(depth), 10 + *row * (HEIGHT + GAP_Y));
        self.nodes.push(node_of(hop, at));
        for (number, child) in hop.children.iter().enumerate() {
            if number > 0 {
                *row += 1;
            }
            if let Some(to) = self.add(child, depth + 1, row) {
                self.edges.push(edge(at, to, &dropped(hop, child)));
            }
        }
        if depth <= 1 && hop.user.is_some() == (depth == 1) {
            *row += 1;
        }
        Some(at)
    }
}

const fn column(depth: u32) -> u32 {
    10 + depth * (WIDTH + GAP_X)
}

fn line(number: u32, text: &str) -> (u32, Text) {
    (44 + number * 18, Text::of(&shortened(text, LINE)))
}

fn node((x, y): (u32, u32), class: &'static str, title: &str, whole: &str, lines: Vec<(u32, Text)>) -> Node {
    Node { x, y, class, title: Text::of(&shortened(title, LINE)), whole: Text::of(whole), lines }
}

fn node_of(hop: &Hop, at: (u32, u32)) -> Node {
    let agent = hop.agent.as_deref().unwrap_or("unknown");
    let title = agent.strip_prefix("agent:").unwrap_or(agent);
    let scope = hop.scope.as_deref().unwrap_or("no capability");
    let audience = hop.audience.as_deref().unwrap_or_default();
    let state = if hop.is_issued() { "token issued".to_owned() } else { format!("refused: {}", hop.reason) };
    let lines = vec![line(0, &state), line(1, scope), line(2, audience)];
    let whole = format!("{agent}: {state}; {scope} at {audience}, {}", hop.time);
    node(at, if hop.is_issued() { "node" } else { "node node-no" }, title, &whole, lines)
}

/// The capabilities of a token that are not in the one that was obtained with it.
fn dropped(parent: &Hop, child: &Hop) -> Vec<String> {
    let words = |hop: &Hop| -> BTreeSet<String> {
        hop.scope.iter().flat_map(|scope| scope.split(' ')).filter(|word| !word.is_empty()).map(str::to_owned).collect()
    };
    let kept = words(child);
    words(parent).into_iter().filter(|word| child.is_issued() && !kept.contains(word)).collect()
}

fn edge(from: (u32, u32), to: (u32, u32), dropped: &[String]) -> Edge {
    let (x1, y1) = (from.0 + WIDTH, from.1 + HEIGHT / 2);
    let (x2, y2) = (to.0, to.1 + HEIGHT / 2);
    let middle = x1 + (x2.saturating_sub(x1)) / 2;
    let mut names: Vec<String> = dropped.iter().take(DROPPED_MAX).map(|name| shortened(name, 24)).collect();
    if dropped.len() > DROPPED_MAX {
        names.push(format!("and {} more", dropped.len() - DROPPED_MAX));
    }
    let lines = (0..).zip(names).map(|(number, name): (u32, String)| (y2 + 18 + number * 16, Text::of(&name))).collect();
    Edge { path: format!("M {x1} {y1} C {middle} {y1}, {middle} {y2}, {x2} {y2}"), x: middle, dropped: lines }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::Entry;

    fn hop(agent: &str, scope: &str, user: Option<&str>, children: Vec<Hop>) -> Hop {
        let user = user.map(|user| format!(r#","user":"{user}""#)).unwrap_or_default();
        let record = format!(
            r#"{{"log":"l","seq":1,"time":"2026-11-24T12:00:00.000Z","event":"token.issue","outcome":"allow","reason":"granted","subject":"{agent}","scope":"{scope}","jti":"j"{user}}}"#
        );
        let entry = Entry::read("l", 1, record.as_bytes());
        Hop { children, ..crate::audit::trace::hop_of(&entry) }
    }

    #[test]
    fn each_hop_stands_right_of_the_one_before_and_says_what_it_let_go_of() {
        let last = hop("agent:a/c", "x", None, Vec::new());
        let middle = hop("agent:a/b", "x y", None, vec![last.clone(), last]);
        let picture = Picture::of(&[hop("agent:a/a", "x y z", Some("user:alice"), vec![middle])]);
        assert_eq!((picture.nodes.len(), picture.edges.len()), (5, 4));
        let columns: BTreeSet<u32> = picture.nodes.iter().map(|node| node.x).collect();
        assert_eq!(columns.len(), 4, "alice, a, b, and both c");
        let places: BTreeSet<(u32, u32)> = picture.nodes.iter().map(|node| (node.x, node.y)).collect();
        assert_eq!(places.len(), 5, "no box on another");
        let let_go: Vec<String> = picture.edges.iter().flat_map(|edge| &edge.dropped).map(|(_, name)| name.to_string()).collect();
        assert_eq!(let_go, ["y", "y", "z"]);
        assert!(picture.width > 4 * WIDTH && picture.height > 2 * HEIGHT);
        assert_eq!(Picture::of(&[]).nodes.len(), 0);
    }

    #[test]
    fn a_picture_of_very_much_is_cut() {
        let many = vec![hop("agent:a/b", "x", None, Vec::new()); NODES_MAX + 1];
        let picture = Picture::of(&many);
        assert!(picture.is_cut && picture.nodes.len() == NODES_MAX);
    }
}
