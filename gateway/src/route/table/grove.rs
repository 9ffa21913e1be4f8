//! The trees of a table while they grow; [`Grove::plant`] lays them out for look-ups.

use std::collections::HashMap;

use foldhash::fast::FixedState;

use super::super::expression::steps::{self, Follows, Step, Steps};
use super::super::host::HostPattern;
use super::super::path::{PathPattern, Segment};
use super::super::predicate::{PathRule, Rule};
use super::forest::*;
use super::slots::{Slots, hash};

type Map<K, V> = HashMap<K, V, FixedState>;

/// Trees that grow. The numbers of nodes and hosts are those of the forest.
#[derive(Default)]
pub(super) struct Grove<'r> {
    hosts: Vec<(&'r HostPattern, Sapling)>,
    by_host: Map<&'r HostPattern, usize>,
    any: Sapling,
    nodes: Vec<Growing<'r>>,
    /// Children by their parent, a stem's with [`STEM`], and text.
    children: Map<(u32, &'r [u8]), u32>,
    pieces: Vec<Unsorted<'r>>,
}

/// A tree.
#[derive(Default)]
struct Sapling {
    patterns: Option<u32>,
    expressions: Option<u32>,
    all: Vec<End>,
}

/// A node.
struct Growing<'r> {
    parent: u32,
    text: &'r [u8],
    children: u32,
    parameter: u32,
    end: Vec<End>,
    rest: Vec<End>,
    /// The place of its pieces.
    pieces: u32,
}

/// The pieces of a node, by what they match.
#[derive(Default)]
struct Unsorted<'r> {
    segments: Vec<(&'r Follows, u32)>,
    segments_by: Map<&'r Follows, u32>,
    tails: Vec<(&'r Follows, Vec<End>)>,
    tails_by: Map<&'r Follows, usize>,
    stems: Vec<u32>,
}

impl<'r> Grove<'r> {
    /// The trees of rules, which are in order of precedence.
    pub(super) fn new(rules: &'r [Rule]) -> Self {
        let mut grove = Self::default();
        for (index, rule) in rules.iter().enumerate() {
            grove.insert(index, rule);
        }
        grove
    }

    fn insert(&mut self, index: usize, rule: &'r Rule) {
        let head = rule.asks_for_head();
        let end = End::new(index, false, head);
        match &rule.path {
            PathRule::Pattern(pattern) if pattern.takes_all() => {
                self.tree(&rule.host).all.push(end)
            }
            PathRule::Pattern(pattern) => {
                let root = self.tree(&rule.host).patterns;
                let root = root.unwrap_or_else(|| self.root());
                self.tree(&rule.host).patterns = Some(root);
                self.pattern(root, pattern, end);
            }
            PathRule::Expression(expression) => {
                let root = self.tree(&rule.host).expressions;
                let root = root.unwrap_or_else(|| self.root());
                self.tree(&rule.host).expressions = Some(root);
                match expression.steps() {
                    Some(alternatives) => {
                        for steps in alternatives {
                            self.steps(root, steps, end);
                        }
                    }
                    None => {
                        let literal = expression.literal().iter();
                        let node =
                            literal.fold(root, |node, text| self.child(node, text.as_bytes()));
                        self.at(node).rest.push(End::new(index, true, head));
                    }
                }
            }
        }
    }

    fn tree(&mut self, host: &'r HostPattern) -> &mut Sapling {
        if *host == HostPattern::Any {
            return &mut self.any;
        }
        let hosts = &mut self.hosts;
        let place = *self.by_host.entry(host).or_insert_with(|| {
            hosts.push((host, Sapling::default()));
            hosts.len() - 1
        });
        &mut hosts[place].1
    }

    fn pattern(&mut self, root: u32, pattern: &'r PathPattern, end: End) {
        let segments = pattern.segments().iter();
        let node = segments.fold(root, |node, segment| match segment {
            Segment::Literal(text) => self.child(node, text.as_bytes()),
            Segment::Parameter(_) => match self.at(node).parameter {
                NONE => {
                    let child = self.node(NONE, &[]);
                    self.at(node).parameter = child;
                    child
                }
                child => child,
            },
        });
        let node = self.at(node);
        match pattern.has_rest() {
            true => node.rest.push(end),
            false => node.end.push(end),
        }
    }

    fn steps(&mut self, root: u32, steps: &'r Steps, end: End) {
        let segments = steps.segments.iter();
        let node = segments.fold(root, |node, step| match step {
            Step::Literal(text) => self.child(node, text),
            Step::Piece(piece) => self.segment(node, piece),
        });
        match &steps.tail {
            None => self.at(node).end.push(end),
            Some(piece) => {
                let pieces = self.pieces_of(node, &piece.stem);
                let tails = &mut pieces.tails;
                let place = *pieces.tails_by.entry(&piece.follows).or_insert_with(|| {
                    tails.push((&piece.follows, Vec::new()));
                    tails.len() - 1
                });
                tails[place].1.push(end);
            }
        }
    }

    /// The node behind a segment that a piece matches.
    fn segment(&mut self, node: u32, piece: &'r steps::Piece) -> u32 {
        let pieces = self.pieces_of(node, &piece.stem);
        if let Some(child) = pieces.segments_by.get(&piece.follows) {
            return *child;
        }
        let child = self.node(NONE, &[]);
        let pieces = self.pieces_of(node, &piece.stem);
        pieces.segments.push((&piece.follows, child));
        pieces.segments_by.insert(&piece.follows, child);
        child
    }

    /// The pieces below a node, or below a stem of its next segment.
    fn pieces_of(&mut self, node: u32, stem: &'r [u8]) -> &mut Unsorted<'r> {
        let place = self.own_pieces(node);
        let place = match stem {
            [] => place,
            stem => {
                let len = stem.len() as u32;
                let stems = &mut self.pieces[place].stems;
                if !stems.contains(&len) {
                    stems.push(len);
                }
                let child = match self.children.get(&(node | STEM, stem)) {
                    Some(child) => *child,
                    None => {
                        let child = self.node(node | STEM, stem);
                        self.children.insert((node | STEM, stem), child);
                        child
                    }
                };
                self.own_pieces(child)
            }
        };
        &mut self.pieces[place]
    }

    fn own_pieces(&mut self, node: u32) -> usize {
        let next = self.pieces.len();
        let node = self.at(node);
        if node.pieces == NONE {
            node.pieces = next as u32;
            self.pieces.push(Unsorted::default());
            return next;
        }
        node.pieces as usize
    }

    /// The child of a node by the text of a segment.
    fn child(&mut self, node: u32, text: &'r [u8]) -> u32 {
        if let Some(child) = self.children.get(&(node, text)) {
            return *child;
        }
        let child = self.node(node, text);
        self.children.insert((node, text), child);
        let parent = self.at(node);
        parent.children = match parent.children {
            NONE => child,
            _ => SEVERAL,
        };
        child
    }

    fn root(&mut self) -> u32 {
        self.node(NONE, &[])
    }

    fn node(&mut self, parent: u32, text: &'r [u8]) -> u32 {
        let number = self.nodes.len() as u32;
        // 100 000 routes of 64 segments, or 1024 characters, are far fewer.
        assert!(number < STEM, "the nodes can be numbered");
        self.nodes.push(Growing {
            parent,
            text,
            children: NONE,
            parameter: NONE,
            end: Vec::new(),
            rest: Vec::new(),
            pieces: NONE,
        });
        number
    }

    fn at(&mut self, node: u32) -> &mut Growing<'r> {
        &mut self.nodes[node as usize]
    }

    /// Lays the trees out for look-ups.
    pub(super) fn plant(self) -> Forest {
        let mut soil = Soil::default();
        let slots: Vec<(u64, u32)> = self
            .children
            .iter()
            .map(|((parent, text), child)| (hash(*parent, text), *child))
            .collect();
        let mut host_slots = Vec::new();
        let mut hosts = Vec::new();
        for (pattern, tree) in &self.hosts {
            let (kind, name) = match pattern {
                HostPattern::Exact(name) => (EXACT, name),
                HostPattern::Below(name) => (BELOW, name),
                HostPattern::Any => continue,
            };
            host_slots.push((hash(kind, name.as_bytes()), hosts.len() as u32));
            let name = soil.text(name.as_bytes());
            let tree = soil.tree(tree);
            hosts.push(Host { name, kind, tree });
        }
        let any = soil.tree(&self.any);
        let nodes = self.nodes.iter().map(|node| soil.node(node)).collect();
        let pieces = self
            .pieces
            .into_iter()
            .map(|one| soil.pieces(one))
            .collect();
        Forest {
            below: hosts.iter().any(|host: &Host| host.kind == BELOW),
            hosts: hosts.into(),
            host_slots: Slots::new(&host_slots),
            any,
            nodes,
            slots: Slots::new(&slots),
            pieces,
            asks: soil.asks.into(),
            compiled: soil.compiled.into(),
            lists: soil.lists.into(),
            texts: soil.texts.into(),
        }
    }
}

/// What the parts of all trees share.
#[derive(Default)]
struct Soil<'r> {
    lists: Vec<u32>,
    texts: Vec<u8>,
    asks: Vec<Ask>,
    compiled: Vec<Piece>,
    compiled_by: Map<&'r Follows, u32>,
}

impl<'r> Soil<'r> {
    fn text(&mut self, text: &[u8]) -> Text {
        let place = |at: usize| u32::try_from(at).expect("a configuration is smaller than 64 MiB");
        let at = place(self.texts.len());
        self.texts.extend(text);
        Text {
            at,
            len: place(text.len()),
        }
    }

    fn tree(&mut self, tree: &Sapling) -> Tree {
        Tree {
            patterns: tree.patterns.unwrap_or(NONE),
            expressions: tree.expressions.unwrap_or(NONE),
            all: Ends::note(&tree.all, &mut self.lists),
        }
    }

    fn node(&mut self, node: &Growing<'_>) -> Node {
        Node {
            parent: node.parent,
            text: self.text(node.text),
            children: node.children,
            parameter: node.parameter,
            end: Ends::note(&node.end, &mut self.lists),
            rest: Ends::note(&node.rest, &mut self.lists),
            pieces: node.pieces,
        }
    }

    fn pieces(&mut self, pieces: Unsorted<'r>) -> Pieces {
        let all = Pieces {
            at: self.asks.len() as u32,
            segments: pieces.segments.len() as u32,
            tails: pieces.tails.len() as u32,
            stems: pieces.stems.len() as u32,
        };
        for (follows, then) in pieces.segments {
            let what = self.compiled(follows);
            self.asks.push(Ask { what, then });
        }
        for (follows, ends) in pieces.tails {
            let what = self.compiled(follows);
            let then = Ends::note(&ends, &mut self.lists).number();
            self.asks.push(Ask { what, then });
        }
        let stems = pieces.stems.into_iter();
        self.asks.extend(stems.map(|what| Ask { what, then: NONE }));
        all
    }

    /// The same for all expressions with this piece.
    fn compiled(&mut self, follows: &'r Follows) -> u32 {
        let compiled = &mut self.compiled;
        *self.compiled_by.entry(follows).or_insert_with(|| {
            let piece = Piece::new(follows);
            compiled.push(piece.expect("it is part of an expression that compiles"));
            compiled.len() as u32 - 1
        })
    }
}
