//! The generated reference, `config/hearth.example.toml`.

use confique::toml::FormatOptions;

use super::Config;

pub(super) fn generate() -> String {
    let head =
        "# Generated from the doc comments in src/core/config.rs. Copy it and change what you need.\n#\n";
    format!(
        "{head}{}",
        confique::toml::template::<Config>(FormatOptions::default())
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Writes the file anew when UPDATE_GENERATED is set, and otherwise checks it.
    #[test]
    fn the_generated_example_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/hearth.example.toml");
        let wanted = generate();
        if std::env::var_os("UPDATE_GENERATED").is_some() {
            std::fs::write(path, &wanted).expect("the file can be written");
        }
        let found = std::fs::read_to_string(path).unwrap_or_default();
        assert!(found == wanted, "run `make docs` and commit the result");
    }

    #[test]
    fn the_example_is_a_valid_file_that_changes_nothing() {
        let text = generate();
        assert!(
            text.lines()
                .all(|line| line.is_empty() || line.starts_with('#') || line.starts_with('['))
        );
        super::super::load::from_text(&text, "example", &|_| None).expect("valid");
    }

    #[test]
    fn every_key_says_what_it_is() {
        fn check(meta: &confique::meta::Meta) {
            for field in meta.fields {
                assert!(!field.doc.is_empty(), "{} has no doc comment", field.name);
                if let confique::meta::FieldKind::Nested { meta } = field.kind {
                    check(meta);
                }
            }
        }
        check(&<Config as confique::Config>::META);
    }
}
