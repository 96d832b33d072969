//! `Content-Disposition` (RFC 6266) with UTF-8 file names (RFC 8187), and which types are shown inline.

/// Types that a browser may show on its own: the specification's list. Anything else is a download.
const INLINE_TYPES: &[&str] = &[
    "text/css",
    "text/plain",
    "text/csv",
    "application/json",
    "application/ld+json",
    "image/jpeg",
    "image/gif",
    "image/png",
    "image/apng",
    "image/webp",
    "image/avif",
    "video/mp4",
    "video/webm",
    "video/ogg",
    "video/quicktime",
    "audio/mp4",
    "audio/webm",
    "audio/aac",
    "audio/mpeg",
    "audio/ogg",
    "audio/wave",
    "audio/wav",
    "audio/x-wav",
    "audio/x-pn-wav",
    "audio/flac",
    "audio/x-flac",
];

/// Whether a browser shows the content or saves it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Disposition {
    /// Shown.
    Inline,
    /// Saved.
    Attachment,
}

/// Whether content of this type may be shown inline; parameters and case do not matter.
pub fn is_inline_type(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    INLINE_TYPES
        .iter()
        .any(|allowed| allowed.eq_ignore_ascii_case(essence))
}

/// How content of this type is served.
pub fn disposition_for(content_type: &str) -> Disposition {
    if is_inline_type(content_type) {
        Disposition::Inline
    } else {
        Disposition::Attachment
    }
}

/// The header's value. It is always printable ASCII, whatever the name contains.
pub fn content_disposition(disposition: Disposition, file_name: Option<&str>) -> String {
    let kind = match disposition {
        Disposition::Inline => "inline",
        Disposition::Attachment => "attachment",
    };
    let Some(name) = file_name.filter(|name| !name.is_empty()) else {
        return kind.to_owned();
    };
    if name.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        let quoted = name.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("{kind}; filename=\"{quoted}\"");
    }
    let mut value = format!("{kind}; filename*=utf-8''");
    for byte in name.bytes() {
        if is_attr_char(byte) {
            value.push(char::from(byte));
        } else {
            value.push_str(&format!("%{byte:02X}"));
        }
    }
    value
}

/// The characters that RFC 8187 leaves unescaped.
fn is_attr_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$&+-.^_`|~".contains(&byte)
}

/// The file name in another server's `Content-Disposition`; the extended form wins.
pub fn file_name_of(header: &str) -> Option<String> {
    let mut plain = None;
    let mut rest = header.split_once(';')?.1;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        let Some((name, after)) = rest.split_once('=') else {
            return plain;
        };
        let (value, after) = take_value(after.trim_start());
        rest = after;
        let name = name.trim();
        if name.eq_ignore_ascii_case("filename*") {
            if let Some(decoded) = decode_extended(&value) {
                return Some(decoded).filter(|name| !name.is_empty());
            }
        } else if name.eq_ignore_ascii_case("filename") && plain.is_none() {
            plain = Some(value).filter(|name| !name.is_empty());
        }
    }
}

/// Takes a token or a quoted string off the front; gives it and what follows.
fn take_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find(';').unwrap_or(text.len());
        return (text[..end].trim_end().to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

fn decode_extended(value: &str) -> Option<String> {
    let mut parts = value.splitn(3, '\'');
    let (charset, _language, encoded) = (parts.next()?, parts.next()?, parts.next()?);
    if !charset.eq_ignore_ascii_case("utf-8") {
        return None;
    }
    let mut bytes = Vec::with_capacity(encoded.len());
    let mut left = encoded.bytes();
    while let Some(byte) = left.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (high, low) = (left.next()?, left.next()?);
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push((digit(high)? * 16 + digit(low)?) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn headers() {
        for (disposition, name, expected) in [
            (Disposition::Inline, None, "inline"),
            (Disposition::Attachment, Some(""), "attachment"),
            (Disposition::Inline, Some("ascii"), r#"inline; filename="ascii""#),
            (
                Disposition::Inline,
                Some("name;with;semicolons"),
                r#"inline; filename="name;with;semicolons""#,
            ),
            (
                Disposition::Attachment,
                Some("a\"b\\c"),
                r#"attachment; filename="a\"b\\c""#,
            ),
            (
                Disposition::Inline,
                Some("\u{1f414}"),
                "inline; filename*=utf-8''%F0%9F%90%94",
            ),
            (
                Disposition::Inline,
                Some("a\r\nb"),
                "inline; filename*=utf-8''a%0D%0Ab",
            ),
            (
                Disposition::Inline,
                Some("Grüße 1.png"),
                "inline; filename*=utf-8''Gr%C3%BC%C3%9Fe%201.png",
            ),
        ] {
            assert_eq!(content_disposition(disposition, name), expected);
        }
    }

    #[test]
    fn only_safe_types_are_shown() {
        for (content_type, inline) in [
            ("image/png", true),
            ("Text/Plain; charset=utf-8", true),
            (" image/jpeg ;x", true),
            ("text/html", false),
            ("image/svg+xml", false),
            ("image/svg", false),
            ("application/pdf", false),
            ("application/octet-stream", false),
            ("", false),
        ] {
            assert_eq!(is_inline_type(content_type), inline, "{content_type}");
        }
    }

    #[test]
    fn names_of_other_servers() {
        for (header, expected) in [
            ("inline", None),
            ("inline; filename=a.png", Some("a.png")),
            ("attachment;filename = \"a;b.png\" ; size=1", Some("a;b.png")),
            ("inline; filename=\"x\"; filename*=UTF-8'en'%e2%98%95", Some("☕")),
            ("inline; filename*=utf-8''%e2%98%95; filename=x", Some("☕")),
            ("inline; filename*=latin1''%e4; filename=x", Some("x")),
            ("inline; filename*=utf-8''%zz", None),
            ("inline; filename*=utf-8''%ff", None),
            ("inline; filename=\"a\\\"b", Some("a\"b")),
            ("inline; filename=\"\"", None),
        ] {
            assert_eq!(file_name_of(header).as_deref(), expected, "{header}");
        }
    }

    proptest! {
        #[test]
        fn every_name_survives(name in "\\PC{1,40}|.{1,40}") {
            let header = content_disposition(Disposition::Inline, Some(&name));
            prop_assert!(header.bytes().all(|byte| matches!(byte, b' '..=b'~')));
            prop_assert_eq!(file_name_of(&header), Some(name));
        }

        #[test]
        fn no_header_panics(header in ".{0,60}|inline; ?[a-z*=\"%';\\\\]{0,40}") {
            file_name_of(&header);
        }
    }
}
