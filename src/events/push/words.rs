//! Words in a text: glob patterns that match between word boundaries.

use std::cell::Cell;

/// How much work a question may still be: about as many bytes are looked at, or compared. When it is used up nothing fits any
/// more, so that no pattern and no text, nor any number of patterns, holds up what all others wait for.
pub(super) struct Budget(Cell<usize>);

impl Budget {
    pub(super) fn new(steps: usize) -> Self {
        Self(Cell::new(steps))
    }

    /// Takes so much, if it is there.
    pub(super) fn pay(&self, steps: usize) -> bool {
        let left = self.0.get().checked_sub(steps);
        self.0.set(left.unwrap_or(0));
        left.is_some()
    }
}

/// Whether a character is part of a word (client-server API, "Push Rules", content-specific rules).
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// Whether a word may begin or end at this place: at an end of the text, or where one of the neighbors is no part of
/// a word.
fn is_boundary(text: &str, at: usize) -> bool {
    let before = text[..at].chars().next_back();
    let after = text[at..].chars().next();
    !(before.is_some_and(is_word) && after.is_some_and(is_word))
}

/// Whether some part of a text in lower case, from one word boundary to another, is exactly `words`.
pub(super) fn has_words(text: &str, words: &str, budget: &Budget) -> bool {
    occurrences(text, words, 0, budget).any(|(start, end)| is_boundary(text, start) && is_boundary(text, end))
}

/// Whether some part of a text in lower case, from one word boundary to another, fits a glob pattern.
pub(super) fn matches_words(text: &str, pattern: &str, budget: &Budget) -> bool {
    if pattern.is_empty() || !budget.pay(pattern.len()) {
        return false;
    }
    let pattern = pattern.to_lowercase();
    let open_start = pattern.starts_with('*');
    let open_end = pattern.ends_with('*');
    let parts: Vec<&str> = pattern.split('*').filter(|part| !part.is_empty()).collect();
    let Some((first, rest)) = parts.split_first() else {
        // Nothing but asterisks.
        return true;
    };
    let starts_well = |start: usize| open_start || is_boundary(text, start);
    let ends_well = |end: usize| open_end || is_boundary(text, end);
    let Some((last, middle)) = rest.split_last() else {
        return occurrences(text, first, 0, budget).any(|(start, end)| starts_well(start) && ends_well(end));
    };
    // The earliest place for each part leaves the most room for the next.
    let Some((_, mut at)) = occurrences(text, first, 0, budget).find(|(start, _)| starts_well(*start)) else {
        return false;
    };
    for part in middle {
        let Some((_, end)) = occurrences(text, part, at, budget).next() else {
            return false;
        };
        at = end;
    }
    occurrences(text, last, at, budget).any(|(_, end)| ends_well(end))
}

/// Whether a whole text fits a glob pattern.
pub(super) fn fits_whole(text: &str, pattern: &str, budget: &Budget) -> bool {
    if !budget.pay(text.len() + pattern.len()) {
        return false;
    }
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut at) = fits(text, first, budget) else {
        return false;
    };
    let Some(last) = parts.next_back() else {
        return at == text.len();
    };
    // The earliest place for each part leaves the most room for the next.
    for part in parts.filter(|part| !part.is_empty()) {
        let Some((_, end)) = occurrences(text, part, at, budget).next() else {
            return false;
        };
        at = end;
    }
    // The last one stands at the end, so many characters before it.
    let mut starts = text[at..].char_indices().rev().map(|(start, _)| at + start);
    let start = match last.chars().count() {
        0 => return true,
        length => starts.nth(length - 1),
    };
    start.is_some_and(|start| fits(&text[start..], last, budget).is_some())
}

/// Where `part`, in which `?` stands for any one character, occurs in a text from a place on.
fn occurrences<'a>(
    text: &'a str,
    part: &'a str,
    from: usize,
    budget: &'a Budget,
) -> Box<dyn Iterator<Item = (usize, usize)> + 'a> {
    if part.is_empty() {
        return Box::new(std::iter::empty());
    }
    if part.contains('?') {
        let starts = text[from..].char_indices().map(move |(at, _)| from + at);
        let starts = starts.take_while(move |_| budget.pay(1));
        return Box::new(
            starts.filter_map(move |start| Some((start, start + fits(&text[start..], part, budget)?))),
        );
    }
    let mut at = from;
    Box::new(std::iter::from_fn(move || {
        let rest = text.get(at..)?;
        let found = rest.find(part);
        // Each search begins with a look at what is searched.
        if !budget.pay(found.unwrap_or(rest.len()) + part.len()) {
            return None;
        }
        let start = at + found?;
        // The next one may overlap with this one.
        at = start + text[start..].chars().next().map_or(1, char::len_utf8);
        Some((start, start + part.len()))
    }))
}

/// How many bytes of the beginning of a text `part` takes, if it fits there.
fn fits(text: &str, part: &str, budget: &Budget) -> Option<usize> {
    let mut chars = text.char_indices();
    let mut compared = 0;
    let fits = part.chars().all(|wanted| {
        compared += 1;
        chars
            .next()
            .is_some_and(|(_, found)| wanted == '?' || wanted == found)
    });
    let is_paid = budget.pay(compared);
    (fits && is_paid).then(|| chars.next().map_or(text.len(), |(at, _)| at))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches_words(text: &str, pattern: &str) -> bool {
        super::matches_words(text, pattern, &Budget::new(usize::MAX))
    }

    fn has_words(text: &str, words: &str) -> bool {
        super::has_words(text, words, &Budget::new(usize::MAX))
    }

    fn fits_whole(text: &str, pattern: &str) -> bool {
        super::fits_whole(text, pattern, &Budget::new(usize::MAX))
    }

    #[test]
    fn patterns_between_words() {
        for (text, pattern, expected) in [
            ("foo bar", "foo", true),
            ("foo bar", "FOO", true),
            ("foobar", "foo", false),
            ("foobar foo", "foo", true),
            ("foobar foobar", "foo", false),
            ("ab ab ab", "b", false),
            ("foo_bar", "foo", false),
            ("foo-bar", "foo", true),
            ("fäfoo", "foo", true),
            ("hello @bob:hs1!", "@bob:hs1", true),
            ("hello @bob:hs12", "@bob:hs1", false),
            ("x@bob:hs1", "@bob:hs1", true),
            ("foo bar", "foo*", true),
            ("xfoo bar", "foo*", false),
            ("xfoo bar", "*foo", true),
            ("xfoox bar", "*foo*", true),
            ("foo baba bar", "foo*bar", true),
            ("foo baba barx", "foo*bar", false),
            ("foo barx bar", "foo*bar", true),
            ("i ate cake", "c?ke", true),
            ("ccke", "?c?ke", false),
            ("cäke", "c?ke", true),
            ("lunch plans", "lunc?*", true),
            ("anything", "*", true),
            ("", "*", true),
            ("anything", "", false),
            ("aaa", "aa", false),
            ("a.a.a", "a.a", true),
        ] {
            assert_eq!(matches_words(text, pattern), expected, "{pattern:?} in {text:?}");
        }
        assert!(has_words("a *star* here", "*star*"));
        assert!(!has_words("a star here", "*star*"));
    }

    #[test]
    fn long_texts_are_no_deep_ones() {
        let text = "ab ".repeat(21_000);
        assert!(!matches_words(&text, "b"));
        assert!(!matches_words(&text, "b*x*b?z"));
    }

    proptest! {
        #![proptest_config(crate::oracle::config(4))]

        #[test]
        fn any_text_and_pattern(text in "[ab ä_?*]{0,20}", pattern in "[ab ä_?*]{0,8}") {
            // The same by trying every part of the text.
            fn glob(text: &[char], pattern: &[char]) -> bool {
                match pattern.split_first() {
                    None => text.is_empty(),
                    Some(('*', rest)) => (0..=text.len()).any(|at| glob(&text[at..], rest)),
                    Some(('?', rest)) => text.split_first().is_some_and(|(_, text)| glob(text, rest)),
                    Some((c, rest)) => text.split_first().is_some_and(|(d, text)| c == d && glob(text, rest)),
                }
            }
            let wanted: Vec<char> = pattern.chars().collect();
            let places: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let expected = !pattern.is_empty() && places.iter().any(|start| places.iter().any(|end| {
                start <= end && is_boundary(&text, *start) && is_boundary(&text, *end)
                    && glob(&text[*start..*end].chars().collect::<Vec<_>>(), &wanted)
            }));
            prop_assert_eq!(matches_words(&text, &pattern), expected);
            let chars: Vec<char> = text.chars().collect();
            prop_assert_eq!(fits_whole(&text, &pattern), glob(&chars, &wanted));
        }
    }
}
