use crate::Error;

/// A slice of an event's JSON text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// Where it begins.
    pub start: u32,
    /// How many bytes it has. Zero means that there is none: no JSON value is empty.
    pub len: u32,
}

impl Span {
    pub(crate) fn new(start: usize, len: usize) -> Span {
        // An event has at most 65,536 bytes.
        Span {
            start: u32::try_from(start).unwrap_or(0),
            len: u32::try_from(len).unwrap_or(0),
        }
    }

    /// The slice of `text`; `None` if there is none, or if the text is not the one that was measured.
    pub fn of<'a>(&self, text: &'a [u8]) -> Option<&'a [u8]> {
        if self.len == 0 {
            return None;
        }
        let start = self.start as usize;
        text.get(start..start.checked_add(self.len as usize)?)
    }

    pub(crate) fn moved(self, from: usize, by: usize) -> Span {
        let moves = self.len > 0 && self.start as usize >= from;
        Span {
            start: if moves {
                self.start.saturating_add(u32::try_from(by).unwrap_or(0))
            } else {
                self.start
            },
            len: self.len,
        }
    }
}

/// Where the parts of an event that clients are shown lie in its stored JSON. Each span is a raw JSON value (strings with their quotes).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layout {
    /// `content`.
    pub content: Span,
    /// `origin_server_ts`.
    pub origin_server_ts: Span,
    /// `redacts` of a redaction, at the top level or in the content as the room version has it.
    pub redacts: Span,
    /// `sender`.
    pub sender: Span,
    /// `state_key`.
    pub state_key: Span,
    /// `type`.
    pub kind: Span,
}

impl Layout {
    fn spans(&self) -> [Span; 6] {
        [
            self.content,
            self.origin_server_ts,
            self.redacts,
            self.sender,
            self.state_key,
            self.kind,
        ]
    }

    /// Appends the layout: for each span, in the order of the fields, its length and, if that is not zero, its start, as LEB128 varints.
    pub fn encode(&self, out: &mut Vec<u8>) {
        for span in self.spans() {
            write_varint(out, span.len);
            if span.len > 0 {
                write_varint(out, span.start);
            }
        }
    }

    /// Reads a layout from the front of `bytes` and gives the number of bytes it took.
    pub fn decode(bytes: &[u8]) -> Result<(Layout, usize), Error> {
        let mut at = 0;
        let mut spans = [Span::default(); 6];
        for span in &mut spans {
            span.len = read_varint(bytes, &mut at)?;
            if span.len > 0 {
                span.start = read_varint(bytes, &mut at)?;
            }
        }
        let [content, origin_server_ts, redacts, sender, state_key, kind] = spans;
        Ok((
            Layout {
                content,
                origin_server_ts,
                redacts,
                sender,
                state_key,
                kind,
            },
            at,
        ))
    }
}

fn write_varint(out: &mut Vec<u8>, mut number: u32) {
    while number >= 0x80 {
        out.push((number & 0x7f) as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn read_varint(bytes: &[u8], at: &mut usize) -> Result<u32, Error> {
    let mut number = 0_u64;
    for shift in [0, 7, 14, 21, 28] {
        let byte = *bytes
            .get(*at)
            .ok_or_else(|| Error::Format("a stored layout ends too early".to_owned()))?;
        *at += 1;
        number |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return u32::try_from(number)
                .map_err(|_| Error::Format("a stored layout has a number that is too large".to_owned()));
        }
    }
    Err(Error::Format(
        "a stored layout has a number that is too long".to_owned(),
    ))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn layout(numbers: [u32; 12]) -> Layout {
        let span = |index: usize| Span {
            start: if numbers[index] == 0 {
                0
            } else {
                numbers[index + 1]
            },
            len: numbers[index],
        };
        Layout {
            content: span(0),
            origin_server_ts: span(2),
            redacts: span(4),
            sender: span(6),
            state_key: span(8),
            kind: span(10),
        }
    }

    #[test]
    fn stored_form() {
        let mut out = Vec::new();
        layout([2, 10, 13, 200, 0, 0, 20, 300, 2, 400, 15, 410]).encode(&mut out);
        assert_eq!(out, [2, 10, 13, 200, 1, 0, 20, 172, 2, 2, 144, 3, 15, 154, 3]);
    }

    proptest! {
        #![proptest_config(crate::oracle::config(1))]

        #[test]
        fn round_trip(numbers in any::<[u32; 12]>(), tail in any::<Vec<u8>>()) {
            let layout = layout(numbers);
            let mut out = Vec::new();
            layout.encode(&mut out);
            let length = out.len();
            out.extend(tail);
            prop_assert_eq!(Layout::decode(&out).unwrap(), (layout, length));
        }

        #[test]
        fn decoding_never_panics(bytes in any::<Vec<u8>>()) {
            if let Ok((layout, _)) = Layout::decode(&bytes) {
                for span in layout.spans() { let _ = span.of(&bytes); }
            }
        }
    }
}
