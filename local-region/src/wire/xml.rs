//! A small tree that is written as XML by `quick-xml`.

use quick_xml::{
    Writer,
    events::{BytesDecl, BytesEnd, BytesStart, BytesText, Event},
};

/// One element of a response. Build it with [`Xml::node`], [`Xml::text`] and [`Xml::list`].
#[derive(Debug, Clone)]
pub struct Xml {
    name: String,
    namespace: Option<&'static str>,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Text(String),
    Children(Vec<Xml>),
}

impl Xml {
    pub fn node(name: impl Into<String>, children: impl IntoIterator<Item = Xml>) -> Self {
        Self { name: name.into(), namespace: None, content: Content::Children(children.into_iter().collect()) }
    }

    pub fn text(name: impl Into<String>, text: impl ToString) -> Self {
        Self { name: name.into(), namespace: None, content: Content::Text(text.to_string()) }
    }

    /// `<name><item>…</item><item>…</item></name>`: EC2 names its items `item`, ELBv2 `member`.
    pub fn list(name: impl Into<String>, item: &str, items: impl IntoIterator<Item = Vec<Xml>>) -> Self {
        Self::node(name, items.into_iter().map(|children| Self::node(item, children)))
    }

    /// An optional text element, to be flattened into children.
    pub fn maybe(name: &str, text: Option<impl ToString>) -> Option<Self> {
        text.map(|text| Self::text(name, text))
    }

    pub fn in_namespace(mut self, namespace: &'static str) -> Self {
        self.namespace = Some(namespace);
        self
    }

    /// Gives the element another name: one structure goes by different names in different answers.
    pub fn rename(&mut self, name: &str) {
        name.clone_into(&mut self.name);
    }

    /// Adds a child before the others; nothing changes where this is a text element.
    pub fn prepend(&mut self, child: Xml) {
        if let Content::Children(children) = &mut self.content {
            children.insert(0, child);
        }
    }

    /// Adds a child after the others; nothing changes where this is a text element.
    pub fn append(&mut self, child: Xml) {
        if let Content::Children(children) = &mut self.content {
            children.push(child);
        }
    }

    /// The whole document, with its declaration.
    pub fn document(&self) -> String {
        let mut writer = Writer::new(Vec::new());
        writer.write_event(Event::Decl(BytesDecl::new("1.0", Some("UTF-8"), None))).expect("writing to memory");
        self.write(&mut writer);
        String::from_utf8(writer.into_inner()).expect("quick-xml writes what it was given, which is UTF-8")
    }

    fn write(&self, writer: &mut Writer<Vec<u8>>) {
        let mut start = BytesStart::new(self.name.as_str());
        if let Some(namespace) = self.namespace {
            start.push_attribute(("xmlns", namespace));
        }
        writer.write_event(Event::Start(start)).expect("writing to memory");
        match &self.content {
            Content::Text(text) => {
                writer.write_event(Event::Text(BytesText::new(text))).expect("writing to memory");
            }
            Content::Children(children) => children.iter().for_each(|child| child.write(writer)),
        }
        writer.write_event(Event::End(BytesEnd::new(self.name.as_str()))).expect("writing to memory");
    }
}
