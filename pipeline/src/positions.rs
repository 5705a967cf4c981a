//! Where everything in a YAML text stands: a tree of nodes with their byte ranges, made from the parser's events.
//!
//! serde hands over values without positions, so the text is read twice: by serde for what it says, and here for where
//! it says it. This reading comes first and is the one that hostile text meets, so it bounds what the other may expand.
//!
//! # Guarantees
//! Nesting, nodes and what aliases expand to are bounded ([`MAX_DEPTH`], [`MAX_NODES`], [`MAX_TEXT`]); reading stops at
//! the first excess. Nothing here recurses over the text's nesting.

mod reader;

use std::{fmt, ops::Range};

/// Deepest nesting that is read; a whole `alcedo.yaml` needs 8.
pub const MAX_DEPTH: usize = 32;
/// Most nodes that are read, each alias counted as everything it stands for; a long `alcedo.yaml` has a few hundred.
pub const MAX_NODES: usize = 4_000;
/// Most bytes of scalars that aliases may expand to, all together.
pub const MAX_TEXT: usize = 1 << 20;

/// One step from a node to a node below it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Segment {
    Key(String),
    Index(usize),
}

/// The way from the top of a document to one of its nodes; shown as people write it: `smoke_tests[2].http.path`.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Path(pub Vec<Segment>);

impl Path {
    /// The path of the entry `key` of the map at this path.
    pub fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    /// The path of an item of the list at this path.
    pub fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// Whether the path leads through a list.
    pub fn enters_a_list(&self) -> bool {
        self.0.iter().any(|segment| matches!(segment, Segment::Index(_)))
    }

    /// The last key of the path.
    pub fn last_key(&self) -> Option<&str> {
        self.0.iter().rev().find_map(|segment| match segment {
            Segment::Key(key) => Some(key.as_str()),
            Segment::Index(_) => None,
        })
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Key(key) if at == 0 => f.write_str(key)?,
                Segment::Key(key) => write!(f, ".{key}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A YAML text's nodes and where they stand.
#[derive(Debug)]
pub struct Tree {
    nodes: Vec<Node>,
    root: Option<usize>,
    /// What is wrong with the text although its structure can be read, in the order of the text.
    pub faults: Vec<Fault>,
}

#[derive(Debug)]
struct Node {
    span: Range<usize>,
    content: Content,
    /// Nodes and bytes of scalars, with aliases expanded.
    size: Size,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    nodes: usize,
    text: usize,
}

impl Size {
    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.text = self.text.saturating_add(other.text);
    }
}

#[derive(Debug)]
enum Content {
    Scalar,
    Sequence(Vec<usize>),
    Mapping(Vec<Entry>),
    Alias(usize),
}

#[derive(Debug)]
struct Entry {
    key: String,
    key_span: Range<usize>,
    value: usize,
}

/// Something wrong that does not keep the rest from being read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// `key` was given before, at `first`. `entry` is the later entry's whole text, up to the next one.
    DuplicateKey { key: String, span: Range<usize>, first: Range<usize>, entry: Range<usize> },
    /// A `!tag`, at the node that carries it.
    Tag { tag: String, span: Range<usize> },
    /// A key that is a list or a map.
    ComplexKey { span: Range<usize> },
}

/// Why a text has no tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// Not YAML; `why` is the parser's reason.
    Syntax {
        why: String,
        at: usize,
    },
    /// More than one document in the text.
    SecondDocument {
        at: usize,
    },
    TooDeep {
        at: usize,
    },
    TooManyNodes {
        at: usize,
    },
    /// An alias within the node it stands for.
    AliasOfItself {
        span: Range<usize>,
    },
    /// An alias that expands to more than the limits.
    AliasTooLarge {
        span: Range<usize>,
    },
}

impl Tree {
    /// Reads a whole text.
    pub fn parse(source: &str) -> Result<Self, Unreadable> {
        reader::read(source)
    }

    /// Whether the text holds nothing but white space and comments.
    pub fn is_empty(&self) -> bool {
        self.root.is_none()
    }

    /// Where the node at `path` stands: the value, or the key of the entry where the value is nothing at all.
    pub fn value(&self, path: &Path) -> Option<Range<usize>> {
        let (node, key) = self.find(path)?;
        let span = self.nodes[node].span.clone();
        Some(if span.is_empty() { key.unwrap_or(span) } else { span })
    }

    /// Where the key of the entry at `path` stands; for an item of a list, the item.
    pub fn key(&self, path: &Path) -> Option<Range<usize>> {
        let (node, key) = self.find(path)?;
        Some(key.unwrap_or_else(|| self.nodes[node].span.clone()))
    }

    /// The keys of the map at `path`, in the order of the text.
    pub fn keys(&self, path: &Path) -> Vec<&str> {
        let Some((node, _)) = self.find(path) else { return Vec::new() };
        match &self.nodes[self.target(node)].content {
            Content::Mapping(entries) => entries.iter().map(|entry| entry.key.as_str()).collect(),
            _ => Vec::new(),
        }
    }

    /// Where the first key of the text stands.
    pub fn first_key(&self) -> Option<Range<usize>> {
        match &self.nodes[self.root?].content {
            Content::Mapping(entries) => entries.first().map(|entry| entry.key_span.clone()),
            _ => None,
        }
    }

    fn find(&self, path: &Path) -> Option<(usize, Option<Range<usize>>)> {
        let mut node = self.root?;
        let mut key = None;
        for segment in &path.0 {
            match segment {
                Segment::Key(name) => {
                    let entry = self.entry(self.target(node), name, MAX_DEPTH)?;
                    node = entry.value;
                    key = Some(entry.key_span.clone());
                }
                Segment::Index(index) => match &self.nodes[self.target(node)].content {
                    Content::Sequence(items) => {
                        node = *items.get(*index)?;
                        key = None;
                    }
                    _ => return None,
                },
            }
        }
        Some((node, key))
    }

    /// The entry `name` of a map, its own or one that a merge key (`<<`) brings in.
    fn entry(&self, node: usize, name: &str, depth: usize) -> Option<&Entry> {
        let Content::Mapping(entries) = &self.nodes[node].content else { return None };
        if let Some(entry) = entries.iter().find(|entry| entry.key == name) {
            return Some(entry);
        }
        let merged = self.target(entries.iter().find(|entry| entry.key == "<<")?.value);
        let depth = depth.checked_sub(1)?;
        match &self.nodes[merged].content {
            Content::Mapping(_) => self.entry(merged, name, depth),
            // Of several maps, serde_yaml lets the last one that has a key give it.
            Content::Sequence(items) => items.iter().rev().find_map(|&item| self.entry(self.target(item), name, depth)),
            _ => None,
        }
    }

    fn target(&self, node: usize) -> usize {
        match self.nodes[node].content {
            Content::Alias(target) => target,
            _ => node,
        }
    }
}

/// The nearest place at or before `at` where a character of `source` begins.
pub(crate) fn boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}
