//! Push rules, as far as they are settings: reading and changing them. They are stored as the
//! account data type `m.push_rules`, which is also how `/sync` shows them.

pub mod delete_push_rule;
pub mod get_push_rule;
pub mod get_push_rule_actions;
pub mod get_push_rule_enabled;
pub mod get_push_rules;
pub mod no_such_place;
pub mod put_push_rule;
pub mod put_push_rule_actions;
pub mod put_push_rule_enabled;
mod rules;

use axum::routing::get;

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let rule = get(get_push_rule::get_push_rule)
        .put(put_push_rule::put_push_rule)
        .delete(delete_push_rule::delete_push_rule);
    let enabled =
        get(get_push_rule_enabled::get_push_rule_enabled).put(put_push_rule_enabled::put_push_rule_enabled);
    let actions =
        get(get_push_rule_actions::get_push_rule_actions).put(put_push_rule_actions::put_push_rule_actions);
    Routes::new()
        .v3("/pushrules", get(get_push_rules::get_push_rules))
        .v3("/pushrules/", get(get_push_rules::get_push_rules))
        .v3("/pushrules/global", get(get_push_rules::get_global_push_rules))
        .v3("/pushrules/global/", get(get_push_rules::get_global_push_rules))
        .v3(
            "/pushrules/global/{kind}/",
            get(get_push_rules::get_push_rules_of_kind).put(no_such_place::no_such_place),
        )
        .v3("/pushrules/global/{kind}/{ruleId}", rule)
        .v3("/pushrules/global/{kind}/{ruleId}/enabled", enabled)
        .v3("/pushrules/global/{kind}/{ruleId}/actions", actions)
        .v3(
            "/pushrules/{*rest}",
            get(no_such_place::no_such_place)
                .put(no_such_place::no_such_place)
                .delete(no_such_place::no_such_place),
        )
}
