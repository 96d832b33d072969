//! What a page says of itself: its Open Graph (<https://ogp.me/>), and where it has none its title, its description
//! and its first paragraph.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE};
use html5gum::{DefaultEmitter, StartTag, Token, Tokenizer};
use serde_json::{Value, json};

use super::Preview;

/// The most members of a preview.
const MEMBERS_MAX: usize = 64;
/// The longest name of a member, in bytes.
const NAME_MAX_BYTES: usize = 64;
/// The longest text of a member, in characters: clients show a few lines.
const TEXT_MAX_CHARS: usize = 1_000;
/// The longest address in a member, in bytes.
const ADDRESS_MAX_BYTES: usize = 4_096;
/// A page says its encoding within these first bytes, by the HTML standard.
const ENCODING_WITHIN_BYTES: usize = 1_024;
/// Elements whose text is not for readers.
const UNREAD: &[&[u8]] = &[
    b"script",
    b"style",
    b"noscript",
    b"template",
    b"svg",
    b"nav",
    b"header",
    b"footer",
];

/// What a page says of itself.
#[derive(Debug, Default)]
pub(super) struct Page {
    /// Its Open Graph members, without what they say of a picture.
    pub members: Preview,
    /// The address of its picture, as written there.
    pub picture: Option<String>,
}

/// Reads a page.
pub(super) fn read(content_type: Option<&str>, body: &[u8]) -> Page {
    let text = decode(content_type, body);
    let mut emitter = DefaultEmitter::default();
    // So that the text of scripts is text, and not markup.
    emitter.naively_switch_states(true);
    let mut reader = Reader::default();
    for Ok(token) in Tokenizer::new_with_emitter(&*text, emitter) {
        match token {
            Token::StartTag(tag) => reader.start(&tag),
            Token::EndTag(tag) => reader.end(&tag.name),
            Token::String(text) => reader.text(&String::from_utf8_lossy(&text)),
            _ => {}
        }
    }
    reader.finish()
}

/// What is gathered on the way through a page.
#[derive(Default)]
struct Reader {
    members: Preview,
    pictures: Vec<(usize, String)>,
    title: Option<String>,
    other_title: Option<String>,
    description: Option<String>,
    other_description: Option<String>,
    paragraph: Option<String>,
    gathering: Option<Gathering>,
    /// The element without text for readers that we are in.
    unread: Option<&'static [u8]>,
}

/// A text that is being gathered.
struct Gathering {
    element: &'static [u8],
    text: String,
}

impl Reader {
    fn start(&mut self, tag: &StartTag<()>) {
        if self.unread.is_some() {
            return;
        }
        let name: &[u8] = &tag.name;
        match name {
            b"meta" => self.meta(tag),
            b"title" if self.title.is_none() => self.gather(b"title"),
            b"p" if self.paragraph.is_none() => self.gather(b"p"),
            _ => {}
        }
        if !tag.self_closing {
            self.unread = UNREAD.iter().find(|unread| **unread == name).copied();
        }
    }

    fn gather(&mut self, element: &'static [u8]) {
        self.settle();
        self.gathering = Some(Gathering {
            element,
            text: String::new(),
        });
    }

    fn end(&mut self, name: &[u8]) {
        if self.unread == Some(name) {
            self.unread = None;
        }
        if self
            .gathering
            .as_ref()
            .is_some_and(|gathering| gathering.element == name)
        {
            self.settle();
        }
    }

    fn text(&mut self, text: &str) {
        if self.unread.is_some() {
            return;
        }
        if let Some(gathering) = &mut self.gathering
            && gathering.text.len() < 4 * TEXT_MAX_CHARS
        {
            gathering.text.push_str(text);
        }
    }

    /// Keeps the text that was being gathered, unless there is none.
    fn settle(&mut self) {
        let Some(gathering) = self.gathering.take() else {
            return;
        };
        let Some(text) = shown(&gathering.text) else {
            return;
        };
        match gathering.element {
            b"title" => self.title = Some(text),
            _ => self.paragraph = Some(text),
        }
    }

    fn meta(&mut self, tag: &StartTag<()>) {
        let attribute = |name: &[u8]| {
            let value = tag.attributes.get(name)?;
            Some(String::from_utf8_lossy(value).trim().to_owned())
        };
        let named = attribute(b"property").or_else(|| attribute(b"name"));
        let (Some(name), Some(content)) = (named, attribute(b"content")) else {
            return;
        };
        let name = name.to_ascii_lowercase();
        match name.as_str() {
            // The ones that say most come first.
            "og:image:secure_url" => self.picture(0, content),
            "og:image" | "og:image:url" => self.picture(1, content),
            "twitter:image" | "twitter:image:src" => self.picture(2, content),
            "description" => first(&mut self.description, &content),
            "twitter:title" => first(&mut self.other_title, &content),
            "twitter:description" => first(&mut self.other_description, &content),
            // What a page says of its picture holds for its own copy.
            _ if name.starts_with("og:image:") && name != "og:image:alt" => {}
            _ if name.starts_with("og:") && name.len() <= NAME_MAX_BYTES => self.member(name, &content),
            _ => {}
        }
    }

    fn picture(&mut self, order: usize, address: String) {
        if !address.is_empty() && address.len() <= ADDRESS_MAX_BYTES && self.pictures.len() < MEMBERS_MAX {
            self.pictures.push((order, address));
        }
    }

    fn member(&mut self, name: String, content: &str) {
        if self.members.len() >= MEMBERS_MAX || self.members.contains_key(&name) {
            return;
        }
        if let Some(text) = shown(content) {
            self.members.insert(name, json!(text));
        }
    }

    fn finish(mut self) -> Page {
        self.settle();
        let title = self.other_title.or(self.title);
        let description = self.description.or(self.other_description).or(self.paragraph);
        let mut members = self.members;
        for (name, fallback) in [("og:title", title), ("og:description", description)] {
            if let Some(fallback) = fallback {
                members.entry(name).or_insert(Value::String(fallback));
            }
        }
        // The sort is stable: among equals the page's first.
        self.pictures.sort_by_key(|(order, _)| *order);
        Page {
            members,
            picture: self.pictures.into_iter().next().map(|(_, address)| address),
        }
    }
}

fn first(place: &mut Option<String>, text: &str) {
    if place.is_none() {
        *place = shown(text);
    }
}

/// A text in one line and of bounded length; none where nothing is left of it.
fn shown(text: &str) -> Option<String> {
    let mut out = String::new();
    for word in text.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
        if out.len() > 4 * TEXT_MAX_CHARS {
            break;
        }
    }
    if let Some((end, _)) = out.char_indices().nth(TEXT_MAX_CHARS) {
        out.truncate(end);
    }
    (!out.is_empty()).then_some(out)
}

/// The page as text, in the encoding that it says it has.
fn decode<'a>(content_type: Option<&str>, body: &'a [u8]) -> Cow<'a, str> {
    let said = content_type
        .and_then(|text| encoding_after_charset(text.as_bytes()))
        .or_else(|| {
            let head = body.get(..ENCODING_WITHIN_BYTES).unwrap_or(body);
            // It could be read as ASCII, so it is no UTF-16.
            encoding_after_charset(head).filter(|found| *found != UTF_16BE && *found != UTF_16LE)
        });
    // Marks at the beginning win over what is said.
    said.unwrap_or(UTF_8).decode(body).0
}

/// The encoding named after the first `charset=`.
fn encoding_after_charset(text: &[u8]) -> Option<&'static Encoding> {
    const MARK: &[u8] = b"charset";
    let at = text
        .windows(MARK.len())
        .position(|part| part.eq_ignore_ascii_case(MARK))?;
    let rest = text
        .get(at + MARK.len()..)?
        .trim_ascii_start()
        .strip_prefix(b"=")?;
    let rest = rest.trim_ascii_start();
    let rest = rest
        .strip_prefix(b"\"")
        .or_else(|| rest.strip_prefix(b"'"))
        .unwrap_or(rest);
    let end = rest
        .iter()
        .position(|byte| b"\"';/> \t\r\n".contains(byte))
        .unwrap_or(rest.len());
    Encoding::for_label(&rest[..end])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(html: &str, members: Value, picture: Option<&str>) {
        let page = read(Some("text/html"), html.as_bytes());
        assert_eq!(Value::Object(page.members), members, "{html}");
        assert_eq!(page.picture.as_deref(), picture, "{html}");
    }

    #[test]
    fn open_graph_and_what_stands_for_it() {
        check("", json!({}), None);
        check("plain text", json!({}), None);
        check(
            "<title> A\n title </title>",
            json!({ "og:title": "A title" }),
            None,
        );
        check(
            "<title>T</title><meta property=og:title content='Fish &amp; chips'>",
            json!({ "og:title": "Fish & chips" }),
            None,
        );
        check(
            "<meta name=description content=D><body><p>P</p>",
            json!({ "og:description": "D" }),
            None,
        );
        check(
            "<script>'<p>no</p>'</script><p> </p><p>First <b>one</b></p><p>second</p>",
            json!({ "og:description": "First one" }),
            None,
        );
        check(
            "<nav><p>Menu</p></nav><style>p{}</style><p>Text",
            json!({ "og:description": "Text" }),
            None,
        );
        check(
            "<meta property='OG:Type' content=video><meta property=og:type content=other>",
            json!({ "og:type": "video" }),
            None,
        );
        check(
            "<meta property=og:image content=a.png><meta property=og:image:width content=9>\
             <meta property=og:image:alt content=A><meta name=twitter:image content=b.png>",
            json!({ "og:image:alt": "A" }),
            Some("a.png"),
        );
        check(
            "<meta name=twitter:title content=T><title>U</title>",
            json!({ "og:title": "T" }),
            None,
        );
        check(
            "<meta property=og:title content=''><meta property=x content=y>",
            json!({}),
            None,
        );
        check("<meta property=og:title", json!({}), None);
    }

    #[test]
    fn a_long_page_gives_a_short_preview() {
        let mut html = format!("<meta property=og:title content='{}'>", "ä".repeat(50_000));
        for number in 0..1_000 {
            html.push_str(&format!("<meta property=og:x{number} content=1>"));
        }
        html.push_str(&"<div>".repeat(100_000));
        let page = read(None, html.as_bytes());
        assert_eq!(page.members.len(), MEMBERS_MAX);
        let title = page.members["og:title"].as_str().expect("a title");
        assert_eq!(title.chars().count(), TEXT_MAX_CHARS);
    }

    #[test]
    fn encodings() {
        let check = |content_type: Option<&str>, body: &[u8], title: &str| {
            let page = read(content_type, body);
            assert_eq!(page.members["og:title"], title, "{content_type:?}");
        };
        check(None, "<title>ü</title>".as_bytes(), "ü");
        check(Some("text/html; charset=iso-8859-1"), b"<title>\xfc</title>", "ü");
        check(
            Some("text/html"),
            b"<meta charset=\"windows-1252\"><title>\x80</title>",
            "€",
        );
        check(
            Some("text/html"),
            b"<meta http-equiv=content-type content='text/html; charset=Shift_JIS'><title>\x83\x65</title>",
            "テ",
        );
        check(None, b"<meta charset=utf-16><title>x</title>", "x");
        check(None, b"\xff\xfe<\0t\0i\0t\0l\0e\0>\0x\0", "x");
        check(
            Some("text/html; charset=nonsense"),
            b"<title>\xff</title>",
            "\u{fffd}",
        );
    }

    proptest! {
        #[test]
        fn any_bytes_are_read(body in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            read(None, &body);
        }

        #[test]
        fn any_markup_is_read(body in "(<|</|meta|title|p|script| |property=|og:title|content=|'|\"|>|<!--|x){0,200}") {
            read(None, body.as_bytes());
        }
    }
}
