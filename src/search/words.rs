//! What counts as a word: a run of letters and digits, in small letters and without accents; where a script is
//! written without spaces, each character by itself, and so is each picture. What a search term asks for.

use std::borrow::Cow;

use icu_normalizer::properties::CanonicalCombiningClassMapBorrowed;
use icu_normalizer::{ComposingNormalizerBorrowed, DecomposingNormalizerBorrowed};
use tantivy::tokenizer::{AsciiFoldingFilter, RemoveLongFilter, TextAnalyzer, Token, TokenStream, Tokenizer};

/// The name of this analysis in the index. Another analysis needs another name, and an index made anew.
pub(crate) const ANALYZER: &str = "words2";

/// Longer words are not kept: they are keys and encoded data, which nobody types.
const WORD_MAX_BYTES: usize = 100;
/// The most words of one search: each is looked up.
const WORDS_MAX: usize = 32;
/// How many words of a search are looked at, those that come again with them.
const LOOKED_AT_MAX: usize = 256;
/// The most texts that a client is told to highlight.
const HIGHLIGHTS_MAX: usize = 64;

/// What encloses words that have to follow each other.
const QUOTES: &[char] = &['"', '\u{201c}', '\u{201d}', '\u{201e}', '\u{ab}', '\u{bb}'];
/// Draws an Arabic word out and means nothing.
const TATWEEL: char = '\u{0640}';

/// One form for what looks and means the same: letters of full and half width, ligatures, accents in one piece.
const COMPOSED: ComposingNormalizerBorrowed<'static> = ComposingNormalizerBorrowed::new_nfkc();
const DECOMPOSED: DecomposingNormalizerBorrowed<'static> = DecomposingNormalizerBorrowed::new_nfkd();
const MARKS: CanonicalCombiningClassMapBorrowed<'static> = CanonicalCombiningClassMapBorrowed::new();

/// The way from a text to its words.
pub(crate) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(WORD_MAX_BYTES))
        // What is no letter with an accent, but has a plain one beside it: æ, ø, ß.
        .filter(AsciiFoldingFilter)
        .build()
}

/// The words of a text, in their order.
fn sequence(analyzer: &mut TextAnalyzer, text: &str) -> Vec<String> {
    let mut stream = analyzer.token_stream(text);
    let mut words = Vec::new();
    while stream.advance() {
        words.push(stream.token().text.clone());
    }
    words
}

/// What somebody searches for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Term {
    /// Its words, each once: all of them have to be there.
    words: Vec<String>,
    /// Words that have to follow each other: what is quoted, and what is written without spaces.
    phrases: Vec<Vec<String>>,
    /// The same as it is to be highlighted.
    shown: Vec<String>,
}

impl Term {
    /// Reads what a user has typed.
    pub fn parse(text: &str) -> Self {
        let text = COMPOSED.normalize(text);
        let mut analyzer = analyzer();
        let mut term = Self::default();
        let mut begun: Vec<String> = Vec::new();
        // A quotation mark without its other half is none.
        let mut quotes_left = text.matches(QUOTES).count() & !1;
        let (mut quoted, mut at) = (false, 0);
        'words: for _ in 0..LOOKED_AT_MAX {
            let Some((start, end)) = next_word(&text, at) else {
                break;
            };
            let between = &text[at..start];
            let quotes = between.matches(QUOTES).count().min(quotes_left);
            quotes_left -= quotes;
            if quotes > 0 || !(quoted || between.is_empty()) {
                term.end_phrase(&mut begun, quoted);
            }
            quoted ^= quotes % 2 == 1;
            for word in sequence(&mut analyzer, &text[start..end]) {
                if !term.words.contains(&word) {
                    if term.words.len() == WORDS_MAX {
                        break 'words;
                    }
                    term.words.push(word.clone());
                }
                begun.push(word);
            }
            at = end;
        }
        term.end_phrase(&mut begun, quoted);
        term
    }

    fn end_phrase(&mut self, begun: &mut Vec<String>, quoted: bool) {
        let shown = match quoted {
            true => begun.clone(),
            false => vec![begun.concat()],
        };
        for text in shown {
            if !text.is_empty() && !self.shown.contains(&text) {
                self.shown.push(text);
            }
        }
        let phrase = std::mem::take(begun);
        if phrase.len() > 1 && !self.phrases.contains(&phrase) {
            self.phrases.push(phrase);
        }
    }

    /// The words, each once.
    pub fn words(&self) -> &[String] {
        &self.words
    }

    /// Whether a text in which all the words are has those together that belong together.
    pub(crate) fn fits(&self, text: &str) -> bool {
        if self.phrases.is_empty() {
            return true;
        }
        let words = sequence(&mut analyzer(), text);
        self.phrases
            .iter()
            .all(|phrase| words.windows(phrase.len()).any(|part| part == phrase))
    }

    /// What a client is to highlight: the words as they were asked for, and as they are written in the texts that were found.
    pub fn highlights<'a>(&self, texts: impl Iterator<Item = &'a str>) -> Vec<String> {
        let mut analyzer = analyzer();
        let mut shown = self.shown.clone();
        for text in texts {
            let mut at = 0;
            while shown.len() < HIGHLIGHTS_MAX
                && let Some((start, end)) = next_word(text, at)
            {
                let word = &text[start..end];
                at = end;
                if word.is_ascii() || word.chars().next().is_some_and(stands_alone) {
                    continue;
                }
                let small = word.to_lowercase();
                let folded = sequence(&mut analyzer, word);
                if !shown.contains(&small) && folded.iter().any(|one| self.words.contains(one)) {
                    shown.push(small);
                }
            }
        }
        shown
    }
}

/// The words of a search, each once.
#[cfg(test)]
pub(crate) fn words(text: &str) -> Vec<String> {
    Term::parse(text).words
}

/// Splits a text.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: Cow<'a, str>,
    at: usize,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream {
            text: COMPOSED.normalize(text),
            at: 0,
            token: &mut self.token,
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        while let Some((start, end)) = next_word(&self.text, self.at) {
            self.at = end;
            fold(&self.text[start..end], &mut self.token.text);
            if self.token.text.is_empty() {
                continue;
            }
            self.token.offset_from = start;
            self.token.offset_to = end;
            self.token.position = self.token.position.wrapping_add(1);
            return true;
        }
        self.at = self.text.len();
        false
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Where the next word from a place on begins and ends, with the marks on its letters.
fn next_word(text: &str, from: usize) -> Option<(usize, usize)> {
    let rest = &text[from..];
    let begins = |char: char| char.is_alphanumeric() || stands_alone(char);
    let (start, first) = rest.char_indices().find(|(_, char)| begins(*char))?;
    let alone = stands_alone(first);
    let ends = |char: char| {
        let goes_on = !alone && char.is_alphanumeric() && !stands_alone(char);
        !goes_on && MARKS.get_u8(char) == 0
    };
    let behind = start + first.len_utf8();
    let end = rest[behind..].find(ends).map_or(rest.len(), |end| behind + end);
    Some((from + start, from + end))
}

/// A word in small letters and without accents.
fn fold(word: &str, out: &mut String) {
    out.clear();
    if word.is_ascii() {
        out.push_str(word);
        out.make_ascii_lowercase();
        return;
    }
    let bare = DECOMPOSED
        .normalize_iter(word.chars())
        .filter(|char| !is_accent(*char) && *char != TATWEEL)
        .flat_map(char::to_lowercase)
        // The form that the letter has at the end of a word.
        .map(|char| if char == 'ς' { 'σ' } else { char });
    out.extend(COMPOSED.normalize_iter(bare));
}

/// Whether a mark can be left out by who types: accents, and the vowels of Hebrew and Arabic. The vowels of other scripts
/// are letters, and so are the marks by which their consonants are joined or voiced.
fn is_accent(char: char) -> bool {
    matches!(MARKS.get_u8(char), 10..=36 | 200..=240)
}

/// Whether a character is a word by itself: of a script that is written without spaces between words, or a picture.
fn stands_alone(char: char) -> bool {
    matches!(
        char,
        // Thai and Lao; Myanmar; Khmer; kana, also of half width; the ideographs.
        '\u{0e00}'..='\u{0eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff66}'..='\u{ff9f}'
            | '\u{20000}'..='\u{3ffff}'
            // Symbols and emoji.
            | '\u{2600}'..='\u{27bf}'
            | '\u{1f300}'..='\u{1faff}'
    ) && MARKS.get_u8(char) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_their_words() {
        for (text, expected) in [
            ("", &[][..]),
            (" ,.!", &[]),
            ("Hello, World", &["hello", "world"]),
            ("hello hello HELLO", &["hello"]),
            ("don't panic: 42nd", &["don", "t", "panic", "42nd"]),
            ("Crème brûlée", &["creme", "brulee"]),
            // The same with accents as characters of their own.
            ("cre\u{300}me bru\u{302}le\u{301}e", &["creme", "brulee"]),
            ("ÄPFEL", &["apfel"]),
            ("Straße STRASSE Ørsted", &["strasse", "orsted"]),
            ("İstanbul ISTANBUL", &["istanbul"]),
            ("Αθήνα ΑΘΗΝΑ ΟΔΌΣ οδος", &["αθηνα", "οδοσ"]),
            ("Ёлка елка", &["елка"]),
            ("https://example.org/x_y", &["https", "example", "org", "x", "y"]),
            ("東京タワー at 9", &["東", "京", "タ", "ワ", "ー", "at", "9"]),
            ("ﾊﾞｽ バス は\u{3099}", &["バ", "ス", "ば"]),
            ("ＡＢＣ abc ﬁne", &["abc", "fine"]),
            ("Москва", &["москва"]),
            ("한국어 검색", &["한국어", "검색"]),
            ("\u{1112}\u{1161}\u{11ab} 한", &["한"]),
            // A word of Hindi is one, with the signs that join its consonants.
            ("हिन्दी", &["हिन्दी"]),
            ("مُحَمَّد محمد محـــمد", &["محمد"]),
            ("שָׁלוֹם שלום", &["שלום"]),
            ("well done 👍🎉", &["well", "done", "👍", "🎉"]),
            ("a\u{0}b", &["a", "b"]),
        ] {
            assert_eq!(Term::parse(text).words(), expected, "{text}");
        }
    }

    #[test]
    fn words_are_bounded_in_length_and_number() {
        assert!(Term::parse(&"x".repeat(WORD_MAX_BYTES * 2)).words().is_empty());
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert_eq!(Term::parse(&many.join(" ")).words().len(), WORDS_MAX);
        let same = "a ".repeat(100_000);
        assert_eq!(Term::parse(&same).words(), ["a"]);
    }

    #[test]
    fn what_belongs_together() {
        for (term, text, expected) in [
            ("one two", "two one", true),
            ("\"one two\"", "one two", true),
            ("\"one two\"", "two one", false),
            ("\"one two\"", "ONE, two!", true),
            ("\"one two\"", "one and two", false),
            ("\"one two\" \"three four\"", "three four, one two", true),
            ("\"one two\" \"three four\"", "four three, one two", false),
            ("three \"one two\"", "one two three", true),
            ("„one two“", "two one", false),
            // One mark alone is none.
            ("19\" one two", "two one 19", true),
            ("\"one\"", "one", true),
            // What is written without spaces is one word to who types it.
            ("東京", "東京に行く", true),
            ("東京", "京東", false),
            ("東 京", "京東", true),
            ("東京2020", "東京 2020", true),
            ("สวัสดี", "สวัสดีครับ", true),
            ("don't", "t don", true),
        ] {
            assert_eq!(Term::parse(term).fits(text), expected, "{term} in {text}");
        }
    }

    #[test]
    fn what_is_highlighted() {
        for (term, text, expected) in [
            ("Roses hello", "Hello, my ROSES", &["roses", "hello"][..]),
            ("creme", "Crème fraîche", &["creme", "crème"]),
            ("東京 tower", "東京タワー", &["東京", "tower"]),
            ("\"one two\"", "one two", &["one", "two"]),
            ("...", "x", &[]),
        ] {
            assert_eq!(
                Term::parse(term).highlights([text].into_iter()),
                expected,
                "{term}"
            );
        }
    }
}
