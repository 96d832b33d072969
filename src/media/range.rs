//! The `Range` header (RFC 9110, section 14): one range of bytes.

/// A part of a file: offsets of its first and last byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ByteRange {
    /// The first byte.
    pub first: u64,
    /// The last byte, included.
    pub last: u64,
}

impl ByteRange {
    /// How many bytes it has.
    pub fn length(&self) -> u64 {
        self.last - self.first + 1
    }
}

/// What a `Range` header asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RangeOutcome {
    /// The whole file: there is no range, or one that we may ignore.
    Whole,
    /// A part: 206.
    Part(ByteRange),
    /// A part that does not exist: 416.
    Unsatisfiable,
}

/// Reads a `Range` header for a file of this size. What is malformed, of another unit or asks for
/// several ranges is ignored, as the RFC allows; players and browsers ask for one.
pub fn parse_range(header: Option<&str>, size: u64) -> RangeOutcome {
    let Some(set) = header.and_then(|text| text.trim().strip_prefix("bytes=")) else {
        return RangeOutcome::Whole;
    };
    let Some((first, last)) = set.trim().split_once('-') else {
        return RangeOutcome::Whole;
    };
    let (first, last) = (first.trim(), last.trim());
    match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(length)) if first.is_empty() => match length.min(size) {
            0 => RangeOutcome::Unsatisfiable,
            length => RangeOutcome::Part(ByteRange {
                first: size - length,
                last: size - 1,
            }),
        },
        (Some(first), None) if last.is_empty() => part(first, u64::MAX, size),
        (Some(first), Some(last)) if first <= last => part(first, last, size),
        _ => RangeOutcome::Whole,
    }
}

fn part(first: u64, last: u64, size: u64) -> RangeOutcome {
    if first >= size {
        return RangeOutcome::Unsatisfiable;
    }
    RangeOutcome::Part(ByteRange {
        first,
        last: last.min(size - 1),
    })
}

/// Digits only: `parse` alone would also take `+1`. A number too large for u64 lies behind every
/// file's end.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn ranges() {
        let part = |first, last| RangeOutcome::Part(ByteRange { first, last });
        for (header, size, expected) in [
            ("bytes=0-0", 10, part(0, 0)),
            ("bytes=0-", 10, part(0, 9)),
            ("bytes=2-5", 10, part(2, 5)),
            ("bytes= 2 - 5 ", 10, part(2, 5)),
            ("bytes=2-500", 10, part(2, 9)),
            ("bytes=-3", 10, part(7, 9)),
            ("bytes=-30", 10, part(0, 9)),
            ("bytes=-0", 10, RangeOutcome::Unsatisfiable),
            ("bytes=10-", 10, RangeOutcome::Unsatisfiable),
            ("bytes=99999999999999999999-", 10, RangeOutcome::Unsatisfiable),
            ("bytes=0-99999999999999999999", 10, part(0, 9)),
            ("bytes=0-0", 0, RangeOutcome::Unsatisfiable),
            ("bytes=-5", 0, RangeOutcome::Unsatisfiable),
            ("bytes=5-2", 10, RangeOutcome::Whole),
            ("bytes=0-1,3-4", 10, RangeOutcome::Whole),
            ("bytes=+1-2", 10, RangeOutcome::Whole),
            ("bytes=-", 10, RangeOutcome::Whole),
            ("bytes=a-b", 10, RangeOutcome::Whole),
            ("items=0-1", 10, RangeOutcome::Whole),
            ("", 10, RangeOutcome::Whole),
        ] {
            assert_eq!(parse_range(Some(header), size), expected, "{header}");
        }
        assert_eq!(parse_range(None, 10), RangeOutcome::Whole);
    }

    proptest! {
        #[test]
        fn a_part_lies_inside(header in "bytes=[0-9+, -]{0,30}|.{0,30}", size in 0_u64..1000) {
            if let RangeOutcome::Part(part) = parse_range(Some(&header), size) {
                prop_assert!(part.first <= part.last && part.last < size);
                prop_assert!(part.length() <= size);
            }
        }
    }
}
