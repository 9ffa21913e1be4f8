//! The trees that routes are looked up in, laid out for few cache misses: all nodes side by side
//! in one array, half a cache line each, their texts in another, and one hash table for the
//! branches of all nodes.
//!
//! [`Grove`](super::grove::Grove) makes it.

use super::super::expression::steps::{Follows, Run};
use super::slots::{Slots, hash};
use regex::bytes::Regex;

/// In place of the number of a node, and the like: there is none.
pub(super) const NONE: u32 = u32::MAX;
/// In place of the only child of a node: there are several, to be found by hash.
pub(super) const SEVERAL: u32 = u32::MAX - 1;
/// Told from a parent's number where the child is a stem and no whole segment.
pub(super) const STEM: u32 = 1 << 31;
/// Below what hosts are hashed: exact names, and names that stand for all below them.
pub(super) const EXACT: u32 = 0;
pub(super) const BELOW: u32 = 1;

/// All trees.
#[derive(Debug)]
pub(super) struct Forest {
    pub(super) hosts: Box<[Host]>,
    pub(super) host_slots: Slots,
    /// Whether any host stands for all below it.
    pub(super) below: bool,
    pub(super) any: Tree,
    pub(super) nodes: Box<[Node]>,
    /// By the number of a node and the text of a branch, its child.
    pub(super) slots: Slots,
    pub(super) pieces: Box<[Pieces]>,
    pub(super) asks: Box<[Ask]>,
    /// What pieces match, each once.
    pub(super) compiled: Box<[Piece]>,
    /// Lists of rules where there is more than one: their number, then they themselves.
    pub(super) lists: Box<[u32]>,
    pub(super) texts: Box<[u8]>,
}

/// The routes of one host, in the order they are looked at: nodes, then those that take every
/// path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tree {
    pub(super) patterns: u32,
    pub(super) expressions: u32,
    pub(super) all: Ends,
}

/// A host with routes.
#[derive(Debug)]
#[repr(align(32))]
pub(super) struct Host {
    pub(super) name: Text,
    /// [`EXACT`] or [`BELOW`].
    pub(super) kind: u32,
    pub(super) tree: Tree,
}

/// A node of a tree of path segments.
#[derive(Debug)]
#[repr(align(32))]
pub(super) struct Node {
    /// The node it is a child of, by its text, and [`STEM`].
    pub(super) parent: u32,
    pub(super) text: Text,
    /// The only child, [`SEVERAL`] or [`NONE`].
    pub(super) children: u32,
    /// The child of any text but none.
    pub(super) parameter: u32,
    /// Rules whose path ends here.
    pub(super) end: Ends,
    /// Rules whose rest begins here.
    pub(super) rest: Ends,
    /// What expressions ask of the next segment.
    pub(super) pieces: u32,
}

/// Where in the texts it stands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Text {
    pub(super) at: u32,
    pub(super) len: u32,
}

/// What expressions ask of what follows a node: how many of each, one after the other.
#[derive(Debug)]
pub(super) struct Pieces {
    /// Where the first is.
    pub(super) at: u32,
    /// Of the next segment: what it must match, and the node that follows it.
    pub(super) segments: u32,
    /// Of all that is left: what it must match, and whose [`Ends`] these are.
    pub(super) tails: u32,
    /// How long the texts are by which the next segment may begin.
    pub(super) stems: u32,
}

/// One of them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// A place in `compiled`, or a length.
    pub(super) what: u32,
    pub(super) then: u32,
}

/// What one piece of expressions matches.
#[derive(Clone, Debug)]
pub(super) enum Piece {
    Run(Run),
    Expression(Regex),
}

impl Piece {
    pub(super) fn new(follows: &Follows) -> Result<Self, regex::Error> {
        Ok(match follows {
            Follows::Run(run) => Self::Run(*run),
            Follows::Expression(expression) => {
                Self::Expression(super::super::wanted::anchored(expression)?)
            }
        })
    }

    fn matches(&self, text: &[u8]) -> bool {
        match self {
            Self::Run(run) => run.matches(text),
            Self::Expression(expression) => expression.is_match(text),
        }
    }
}

/// A rule at an end of a tree, and what is left to ask of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::route) struct End(u32);

impl End {
    /// Routes are fewer.
    const INDEX: u32 = (1 << 29) - 1;
    /// Its expression has not been run yet.
    const PATH: u32 = 1 << 29;
    /// It asks for more than host and path.
    const HEAD: u32 = 1 << 30;

    pub(super) fn new(index: usize, path: bool, head: bool) -> Self {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        assert!(index <= Self::INDEX, "there are fewer routes");
        let bit = |asked: bool, bit: u32| if asked { bit } else { 0 };
        Self(index | bit(path, Self::PATH) | bit(head, Self::HEAD))
    }

    /// Its place in the order of precedence.
    pub(in crate::route) fn index(self) -> usize {
        (self.0 & Self::INDEX) as usize
    }

    pub(super) fn asks_for_path(self) -> bool {
        self.0 & Self::PATH != 0
    }

    pub(super) fn asks_for_head(self) -> bool {
        self.0 & Self::HEAD != 0
    }
}

/// The rules at one end, in order of precedence: none, one, or a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends(u32);

impl Ends {
    pub(super) const NONE: Self = Self(NONE);
    /// What follows is a place in the lists.
    const LIST: u32 = 1 << 31;

    /// As an [`Ask`] has it.
    pub(super) fn number(self) -> u32 {
        self.0
    }

    /// Notes rules, in lists if there are several.
    pub(super) fn note(ends: &[End], lists: &mut Vec<u32>) -> Self {
        match ends {
            [] => Self::NONE,
            [End(one)] => Self(*one),
            several => {
                let at = lists.len() as u32;
                lists.push(several.len() as u32);
                lists.extend(several.iter().map(|end| end.0));
                Self(Self::LIST | at)
            }
        }
    }
}

impl Forest {
    /// The rules at an end, in order of precedence.
    fn ends(&self, ends: Ends) -> impl Iterator<Item = End> {
        let (one, list): (_, &[u32]) = match ends {
            Ends::NONE => (None, &[]),
            Ends(one) if one & Ends::LIST == 0 => (Some(End(one)), &[]),
            Ends(list) => {
                let at = (list & !Ends::LIST) as usize;
                let many = self.lists[at] as usize;
                (None, &self.lists[at + 1..=at + many])
            }
        };
        one.into_iter().chain(list.iter().map(|end| End(*end)))
    }

    /// All ends with more than one rule.
    pub(super) fn crowded(&self) -> impl Iterator<Item = Vec<End>> {
        let mut at = 0;
        std::iter::from_fn(move || {
            let many = *self.lists.get(at)? as usize;
            let ends = &self.lists[at + 1..=at + many];
            at += many + 1;
            Some(ends.iter().map(|end| End(*end)).collect())
        })
    }

    /// The first rule, in order of precedence, whose host and path match, so far as its [`End`]
    /// leaves nothing to ask, and that `takes` the request.
    #[inline]
    pub(super) fn find(
        &self,
        host: &str,
        path: &str,
        takes: &mut impl FnMut(End) -> bool,
    ) -> Option<End> {
        let path = path.strip_prefix('/')?.as_bytes();
        let exact = self.host(EXACT, host);
        if let Some(tree) = exact
            && let Some(end) = self.find_in(tree, path, takes)
        {
            return Some(end);
        }
        if self.below {
            for parent in super::super::host::parents(host) {
                if let Some(tree) = self.host(BELOW, parent)
                    && let Some(end) = self.find_in(tree, path, takes)
                {
                    return Some(end);
                }
            }
        }
        self.find_in(&self.any, path, takes)
    }

    fn host(&self, kind: u32, name: &str) -> Option<&Tree> {
        let is = |number: u32| {
            let host = &self.hosts[number as usize];
            host.kind == kind && self.text(host.name) == name.as_bytes()
        };
        let number = self.host_slots.find(hash(kind, name.as_bytes()), is)?;
        Some(&self.hosts[number as usize].tree)
    }

    /// `path` is without the first slash.
    fn find_in(
        &self,
        tree: &Tree,
        path: &[u8],
        takes: &mut impl FnMut(End) -> bool,
    ) -> Option<End> {
        if tree.patterns != NONE {
            // `/` has no segment.
            let rest = Some(path).filter(|path| !path.is_empty());
            if let Some(end) = self.walk(tree.patterns, rest, takes) {
                return Some(end);
            }
        }
        if tree.expressions != NONE {
            let mut found = Candidates::default();
            self.gather(tree.expressions, Some(path), &mut found);
            if let Some(end) = found.first(takes) {
                return Some(end);
            }
        }
        self.ends(tree.all).find(|end| takes(*end))
    }

    /// The first rule, in order of precedence, whose pattern matches the remaining segments and
    /// that `takes` the request. The most specific branch is walked first.
    fn walk(
        &self,
        number: u32,
        rest: Option<&[u8]>,
        takes: &mut impl FnMut(End) -> bool,
    ) -> Option<End> {
        let node = &self.nodes[number as usize];
        let Some(rest) = rest else {
            let all = self.ends(node.end).chain(self.ends(node.rest));
            return { all }.find(|end| takes(*end));
        };
        let (part, rest_of_rest) = cut(rest);
        if let Some(child) = self.child(number, node, part)
            && let Some(end) = self.walk(child, rest_of_rest, takes)
        {
            return Some(end);
        }
        if node.parameter != NONE
            && !part.is_empty()
            && let Some(end) = self.walk(node.parameter, rest_of_rest, takes)
        {
            return Some(end);
        }
        self.ends(node.rest).find(|end| takes(*end))
    }

    /// All rules whose expressions match the remaining segments.
    fn gather(&self, number: u32, rest: Option<&[u8]>, found: &mut Candidates) {
        let node = &self.nodes[number as usize];
        // Whatever follows is left to the expression.
        found.extend(self.ends(node.rest));
        let Some(rest) = rest else {
            found.extend(self.ends(node.end));
            return;
        };
        let (part, rest_of_rest) = cut(rest);
        if let Some(child) = self.child(number, node, part) {
            self.gather(child, rest_of_rest, found);
        }
        if node.pieces != NONE {
            self.gather_pieces(node, rest, (part, rest_of_rest), found);
            let [_, _, stems] = self.asks(node);
            for Ask { what: len, .. } in stems {
                let len = *len as usize;
                if let Some(stem) = part.get(..len)
                    && let Some(child) = self.hashed(number | STEM, stem)
                {
                    let child = &self.nodes[child as usize];
                    self.gather_pieces(child, &rest[len..], (&part[len..], rest_of_rest), found);
                }
            }
        }
    }

    fn gather_pieces(
        &self,
        node: &Node,
        rest: &[u8],
        (part, rest_of_rest): (&[u8], Option<&[u8]>),
        found: &mut Candidates,
    ) {
        let [segments, tails, _] = self.asks(node);
        for Ask { what, then } in tails {
            if self.compiled[*what as usize].matches(rest) {
                found.extend(self.ends(Ends(*then)));
            }
        }
        for Ask { what, then } in segments {
            if self.compiled[*what as usize].matches(part) {
                self.gather(*then, rest_of_rest, found);
            }
        }
    }

    /// What expressions ask of segments, of tails, and by what texts segments begin.
    fn asks(&self, node: &Node) -> [&[Ask]; 3] {
        let Pieces {
            at,
            segments,
            tails,
            stems,
        } = &self.pieces[node.pieces as usize];
        let all = &self.asks[*at as usize..];
        let (segments, all) = all.split_at(*segments as usize);
        let (tails, all) = all.split_at(*tails as usize);
        [segments, tails, &all[..*stems as usize]]
    }

    /// The child of a node by the text of a segment.
    #[inline]
    fn child(&self, number: u32, node: &Node, part: &[u8]) -> Option<u32> {
        match node.children {
            NONE => None,
            SEVERAL => self.hashed(number, part),
            only => (self.text(self.nodes[only as usize].text) == part).then_some(only),
        }
    }

    #[inline]
    fn hashed(&self, parent: u32, text: &[u8]) -> Option<u32> {
        self.slots.find(hash(parent, text), |child| {
            let child = &self.nodes[child as usize];
            child.parent == parent && self.text(child.text) == text
        })
    }

    #[inline]
    fn text(&self, text: Text) -> &[u8] {
        let at = text.at as usize;
        &self.texts[at..at + text.len as usize]
    }
}

/// The next segment, and what follows the slash behind it; `None`: nothing follows.
#[inline]
fn cut(rest: &[u8]) -> (&[u8], Option<&[u8]>) {
    match rest.iter().position(|byte| *byte == b'/') {
        Some(slash) => (&rest[..slash], Some(&rest[slash + 1..])),
        None => (rest, None),
    }
}

/// Rules whose expressions match. There is seldom more than one.
#[derive(Default)]
struct Candidates {
    one: Option<End>,
    more: Vec<End>,
}

impl Candidates {
    fn extend(&mut self, ends: impl Iterator<Item = End>) {
        for end in ends {
            match self.one {
                None => self.one = Some(end),
                Some(_) => self.more.push(end),
            }
        }
    }

    /// The first in order of precedence that `takes` the request.
    fn first(mut self, takes: &mut impl FnMut(End) -> bool) -> Option<End> {
        let one = self.one?;
        if self.more.is_empty() {
            return takes(one).then_some(one);
        }
        self.more.push(one);
        self.more.sort_unstable_by_key(|end| end.index());
        // An expression of several alternatives may match by more than one.
        self.more.dedup();
        self.more.into_iter().find(|end| takes(*end))
    }
}
