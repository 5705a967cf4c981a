//! From the parser's events to the tree, within the limits.

use std::{
    collections::{BTreeMap, HashMap},
    ops::Range,
};

use saphyr_parser::{Event, Marker, Parser};

use super::{Content, Entry, Fault, MAX_DEPTH, MAX_NODES, MAX_TEXT, Node, Size, Tree, Unreadable};

struct Open {
    node: usize,
    anchor: usize,
    kind: Kind,
    size: Size,
}

enum Kind {
    Sequence(Vec<usize>),
    Mapping { entries: Vec<Entry>, key: Option<Option<(String, Range<usize>)>>, seen: HashMap<String, Range<usize>> },
}

struct Reader<'s> {
    source: &'s str,
    tree: Tree,
    open: Vec<Open>,
    anchors: BTreeMap<usize, usize>,
    documents: usize,
}

pub(super) fn read(source: &str) -> Result<Tree, Unreadable> {
    let mut reader = Reader {
        source,
        tree: Tree { nodes: Vec::new(), root: None, faults: Vec::new() },
        open: Vec::new(),
        anchors: BTreeMap::new(),
        documents: 0,
    };
    let mut parser = Parser::new_from_str(source);
    let mut lines = Lines::of(source);
    while let Some(event) = parser.next_event() {
        let (event, span) = event
            .map_err(|error| Unreadable::Syntax { why: error.info().to_owned(), at: lines.offset(error.marker()) })?;
        let start = lines.offset(&span.start);
        let end = lines.offset(&span.end).max(start);
        reader.take(event, start..end)?;
    }
    Ok(reader.tree)
}

impl Reader<'_> {
    fn take(&mut self, event: Event<'_>, span: Range<usize>) -> Result<(), Unreadable> {
        match event {
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
            Event::DocumentStart(_) => {
                self.documents += 1;
                if self.documents > 1 { Err(Unreadable::SecondDocument { at: span.start }) } else { Ok(()) }
            }
            Event::Alias(anchor) => {
                let target =
                    *self.anchors.get(&anchor).ok_or_else(|| Unreadable::AliasOfItself { span: span.clone() })?;
                let size = self.tree.nodes[target].size;
                if size.nodes > MAX_NODES || size.text > MAX_TEXT {
                    return Err(Unreadable::AliasTooLarge { span });
                }
                let node = self.add(span, Content::Alias(target), size)?;
                self.complete(node, 0, None)
            }
            Event::Scalar(text, _, anchor, tag) => {
                self.note_tag(tag.as_deref(), &span);
                let size = Size { nodes: 1, text: text.len() };
                let node = self.add(self.without_trailing_space(span), Content::Scalar, size)?;
                self.complete(node, anchor, Some(&text))
            }
            Event::SequenceStart(anchor, tag) => {
                self.note_tag(tag.as_deref(), &span);
                self.begin(span, anchor, Kind::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, tag) => {
                self.note_tag(tag.as_deref(), &span);
                self.begin(span, anchor, Kind::Mapping { entries: Vec::new(), key: None, seen: HashMap::new() })
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(span),
        }
    }

    fn begin(&mut self, span: Range<usize>, anchor: usize, kind: Kind) -> Result<(), Unreadable> {
        if self.open.len() >= MAX_DEPTH {
            return Err(Unreadable::TooDeep { at: span.start });
        }
        let node = self.add(span, Content::Scalar, Size::default())?;
        self.open.push(Open { node, anchor, kind, size: Size { nodes: 1, text: 0 } });
        Ok(())
    }

    fn end(&mut self, span: Range<usize>) -> Result<(), Unreadable> {
        let Some(open) = self.open.pop() else { return Ok(()) };
        let content = match open.kind {
            Kind::Sequence(items) => Content::Sequence(items),
            Kind::Mapping { entries, .. } => {
                self.end_duplicates(&entries, span.start);
                Content::Mapping(entries)
            }
        };
        let start = self.tree.nodes[open.node].span.start;
        // A block collection's end stands at the next token; a flow collection's is its bracket.
        let whole = self.without_trailing_space(start..span.end.max(start));
        let node = &mut self.tree.nodes[open.node];
        *node = Node { span: whole, content, size: open.size };
        self.complete(open.node, open.anchor, None)
    }

    /// Hangs a finished node into the collection that is open, as a key, a value or an item.
    fn complete(&mut self, node: usize, anchor: usize, text: Option<&str>) -> Result<(), Unreadable> {
        if anchor != 0 {
            self.anchors.insert(anchor, node);
        }
        let Node { span, size, .. } = &self.tree.nodes[node];
        let (span, size) = (span.clone(), *size);
        let Some(top) = self.open.last_mut() else {
            self.tree.root = Some(node).filter(|_| !(text == Some("") && span.is_empty()));
            return Ok(());
        };
        top.size.add(size);
        match &mut top.kind {
            Kind::Sequence(items) => items.push(node),
            Kind::Mapping { entries, key, seen } => match key.take() {
                None => {
                    *key = Some(text.map(|text| (text.to_owned(), span.clone())));
                    if text.is_none() {
                        self.tree.faults.push(Fault::ComplexKey { span });
                    }
                }
                Some(None) => {}
                Some(Some((key, key_span))) => {
                    if let Some(first) = seen.get(&key) {
                        self.tree.faults.push(Fault::DuplicateKey {
                            entry: key_span.start..usize::MAX,
                            first: first.clone(),
                            span: key_span,
                            key,
                        });
                    } else {
                        seen.insert(key.clone(), key_span.clone());
                        entries.push(Entry { key, key_span, value: node });
                    }
                }
            },
        }
        Ok(())
    }

    /// Fills in where each doubled entry of a map that has just ended ends: at the entry after it, or the map's end.
    fn end_duplicates(&mut self, entries: &[Entry], end: usize) {
        let from = entries.first().map_or(end, |entry| entry.key_span.start);
        let mut next = end;
        for fault in self.tree.faults.iter_mut().rev() {
            if let Fault::DuplicateKey { entry, .. } = fault
                && entry.end == usize::MAX
                && entry.start >= from
            {
                let following = entries.iter().map(|one| one.key_span.start).find(|&start| start > entry.start);
                entry.end = following.map_or(next, |following| following.min(next)).max(entry.start);
                next = entry.start;
            }
        }
    }

    fn add(&mut self, span: Range<usize>, content: Content, size: Size) -> Result<usize, Unreadable> {
        if self.tree.nodes.len() >= MAX_NODES {
            return Err(Unreadable::TooManyNodes { at: span.start });
        }
        self.tree.nodes.push(Node { span, content, size });
        Ok(self.tree.nodes.len() - 1)
    }

    fn note_tag(&mut self, tag: Option<&saphyr_parser::Tag>, span: &Range<usize>) {
        // `!!str` and its like are YAML's own, and mean what they say.
        if let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) {
            self.tree.faults.push(Fault::Tag { tag: tag.to_string(), span: span.clone() });
        }
    }

    fn without_trailing_space(&self, span: Range<usize>) -> Range<usize> {
        let text = &self.source[span.clone()];
        span.start..span.start + text.trim_end().len()
    }
}

/// From the parser's lines and columns to bytes. Its own index counts characters in some places and bytes in others
/// (saphyr-parser 0.2.2), so it cannot be used in a text that has more than ASCII.
struct Lines<'s> {
    source: &'s str,
    starts: Vec<usize>,
    /// The last answer: line, column and byte. Events come in the order of the text, so the next is a short walk away
    /// even where all of the text is one line.
    last: (usize, usize, usize),
}

impl<'s> Lines<'s> {
    fn of(source: &'s str) -> Self {
        let bytes = source.as_bytes();
        let breaks = |at: usize| bytes[at] == b'\n' || bytes[at] == b'\r' && bytes.get(at + 1) != Some(&b'\n');
        let starts = std::iter::once(0).chain((0..bytes.len()).filter(|&at| breaks(at)).map(|at| at + 1)).collect();
        Self { source, starts, last: (0, 0, 0) }
    }

    fn offset(&mut self, marker: &Marker) -> usize {
        let (line, column) = (marker.line().saturating_sub(1), marker.col());
        let Some(&start) = self.starts.get(line) else { return self.source.len() };
        let (known_column, known) = match self.last {
            (last_line, last_column, at) if last_line == line && last_column <= column => (last_column, at),
            _ => (0, start),
        };
        let rest = &self.source[known..];
        let at = known + rest.char_indices().nth(column - known_column).map_or(rest.len(), |(at, _)| at);
        self.last = (line, column, at);
        at
    }
}
