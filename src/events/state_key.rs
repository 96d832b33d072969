//! Whose a state key is, and how long it may be.

use ruma::UserId;

use crate::limits::{FIELD_MAX_BYTES, OWNED_STATE_KEY_MAX_BYTES};
use crate::pdu::check_size;
use crate::{Error, Rules};

/// The longest part of an owned state key that follows the user id, with the underscore between (MSC3757).
const SUFFIX_MAX_BYTES: usize = 256;

/// The longest state key of any kind.
pub(crate) fn longest(rules: &Rules) -> usize {
    match rules.owned_state {
        true => OWNED_STATE_KEY_MAX_BYTES,
        false => FIELD_MAX_BYTES,
    }
}

/// Whether the state key has a form that the room version knows, whoever sends it (MSC3757, authorization rule 8).
pub fn check_state_key(rules: &Rules, state_key: &str) -> Result<(), Error> {
    if !rules.owned_state || !state_key.starts_with('@') {
        return check_size("The state key", state_key.len(), FIELD_MAX_BYTES);
    }
    let (owner, suffix) = split(state_key);
    if <&UserId>::try_from(owner).is_err() {
        return Err(Error::Format(format!(
            "the state key {state_key:?} begins like a user id, but {owner:?} is none"
        )));
    }
    check_size("The state key after its user id", suffix.len(), SUFFIX_MAX_BYTES)
}

/// The user whom a state key with `@` at its start belongs to; none where it is not of the form.
pub(crate) fn owner<'a>(rules: &Rules, state_key: &'a str) -> Option<&'a UserId> {
    let owner = match rules.owned_state {
        true => split(state_key).0,
        false => state_key,
    };
    <&UserId>::try_from(owner).ok()
}

/// The key before and from the first underscore of the server name: a server name has none.
fn split(state_key: &str) -> (&str, &str) {
    let colon = state_key.find(':').unwrap_or(state_key.len());
    let at = state_key[colon..]
        .find('_')
        .map_or(state_key.len(), |underscore| colon + underscore);
    state_key.split_at(at)
}

#[cfg(test)]
mod tests {
    use ruma::RoomVersionId;

    use super::*;

    fn rules(version: &str) -> &'static Rules {
        crate::rules(&RoomVersionId::try_from(version).unwrap()).unwrap()
    }

    #[test]
    fn owners_of_state_keys() {
        let check = |key: &str, expected: Option<&str>| {
            let rules = rules("org.matrix.msc3757.10");
            assert_eq!(owner(rules, key).map(UserId::as_str), expected, "{key}");
            assert_eq!(check_state_key(rules, key).is_ok(), expected.is_some(), "{key}");
        };
        check("@a:s", Some("@a:s"));
        check("@a:s_", Some("@a:s"));
        check("@a:s_suffix:!@#$123", Some("@a:s"));
        check("@a_b:s_x", Some("@a_b:s"));
        check("@a:s:8448_x_y", Some("@a:s:8448"));
        check("@a:[::1]_x", Some("@a:[::1]"));
        check("@a:suffix", Some("@a:suffix"));
        check("@oops", None);
        check("@a_b", None);
        check("@a:_x", None);
        check("@a:s@x", None);
        check("@a:s@x_y", None);
        check("@a:s.evil.org:id_1", None);
        let suffix = "x".repeat(255);
        check(&format!("@a:s_{suffix}"), Some("@a:s"));
        let rules = rules("org.matrix.msc3757.10");
        assert!(
            check_state_key(rules, &format!("@a:s_{suffix}x")).is_err(),
            "too long"
        );
        assert!(check_state_key(rules, &suffix).is_ok());
        assert!(
            check_state_key(rules, &format!("{suffix}x")).is_err(),
            "too long for nobody's"
        );
        let user = format!("@{}:s", "a".repeat(252));
        assert!(check_state_key(rules, &format!("{user}_{suffix}")).is_ok());
    }

    #[test]
    fn other_versions_know_no_suffix() {
        let rules = rules("10");
        assert_eq!(owner(rules, "@a:s_x"), <&UserId>::try_from("@a:s_x").ok());
        assert!(
            check_state_key(rules, "@oops").is_ok(),
            "authorization refuses it"
        );
        assert!(check_state_key(rules, &"x".repeat(256)).is_err());
    }
}
