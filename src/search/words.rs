//! What counts as a word: a run of letters and digits, in small letters and without accents; where a script is
//! written without spaces, each character by itself.

use tantivy::tokenizer::{
    AsciiFoldingFilter, LowerCaser, RemoveLongFilter, TextAnalyzer, Token, TokenStream, Tokenizer,
};

/// The name of this analysis in the index. Another analysis needs another name, and an index made anew.
pub(crate) const ANALYZER: &str = "words1";

/// Longer words are not kept: they are keys and encoded data, which nobody types.
const WORD_MAX_BYTES: usize = 100;
/// The most words of one search: each is looked up.
const WORDS_MAX: usize = 32;

/// The way from a text to its words.
pub(crate) fn analyzer() -> TextAnalyzer {
    TextAnalyzer::builder(Words::default())
        .filter(RemoveLongFilter::limit(WORD_MAX_BYTES))
        .filter(LowerCaser)
        .filter(AsciiFoldingFilter)
        .build()
}

/// The words of a search, each once.
pub fn words(text: &str) -> Vec<String> {
    let mut analyzer = analyzer();
    let mut stream = analyzer.token_stream(text);
    let mut words: Vec<String> = Vec::new();
    while words.len() < WORDS_MAX && stream.advance() {
        let word = &stream.token().text;
        if !words.contains(word) {
            words.push(word.clone());
        }
    }
    words
}

/// Splits a text.
#[derive(Clone, Default)]
struct Words {
    token: Token,
}

struct WordStream<'a> {
    text: &'a str,
    at: usize,
    token: &'a mut Token,
}

impl Tokenizer for Words {
    type TokenStream<'a> = WordStream<'a>;

    fn token_stream<'a>(&'a mut self, text: &'a str) -> WordStream<'a> {
        self.token.reset();
        WordStream {
            text,
            at: 0,
            token: &mut self.token,
        }
    }
}

impl TokenStream for WordStream<'_> {
    fn advance(&mut self) -> bool {
        let rest = &self.text[self.at..];
        let Some((start, first)) = rest.char_indices().find(|(_, char)| char.is_alphanumeric()) else {
            self.at = self.text.len();
            return false;
        };
        let rest = &rest[start..];
        let end = if stands_alone(first) {
            first.len_utf8()
        } else {
            let ends = |char: char| !char.is_alphanumeric() || stands_alone(char);
            rest.find(ends).unwrap_or(rest.len())
        };
        let from = self.at + start;
        self.at = from + end;
        self.token.text.clear();
        self.token.text.push_str(&rest[..end]);
        self.token.offset_from = from;
        self.token.offset_to = self.at;
        self.token.position = self.token.position.wrapping_add(1);
        true
    }

    fn token(&self) -> &Token {
        self.token
    }

    fn token_mut(&mut self) -> &mut Token {
        self.token
    }
}

/// Whether a character is of a script that is written without spaces between words.
fn stands_alone(char: char) -> bool {
    matches!(
        char,
        // Thai and Lao; Myanmar; Khmer; kana; the ideographs.
        '\u{0e00}'..='\u{0eff}'
            | '\u{1000}'..='\u{109f}'
            | '\u{1780}'..='\u{17ff}'
            | '\u{3040}'..='\u{30ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{20000}'..='\u{3ffff}'
    )
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
            ("ÄPFEL", &["apfel"]),
            ("https://example.org/x_y", &["https", "example", "org", "x", "y"]),
            ("東京タワー at 9", &["東", "京", "タ", "ワ", "ー", "at", "9"]),
            ("Москва", &["москва"]),
            ("한국어 검색", &["한국어", "검색"]),
            ("a\u{0}b", &["a", "b"]),
        ] {
            assert_eq!(words(text), expected, "{text}");
        }
    }

    #[test]
    fn words_are_bounded_in_length_and_number() {
        assert_eq!(words(&"x".repeat(WORD_MAX_BYTES * 2)), Vec::<String>::new());
        let many: Vec<String> = (0..1_000).map(|number| number.to_string()).collect();
        assert_eq!(words(&many.join(" ")).len(), WORDS_MAX);
    }
}
