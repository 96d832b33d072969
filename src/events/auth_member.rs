//! The authorization rules for `m.room.member`.

use std::borrow::Cow;

use ruma::UserId;

use crate::auth::{demand, denied};
use crate::json::{get, members, string};
use crate::keys::verify_bytes;
use crate::redact::write_without;
use crate::{
    AuthInput, CreateInfo, Denied, JoinRule, Membership, Power, PowerField, PowerLevels, PowerView, Rules,
    StateView,
};

/// One membership event under judgement.
struct Check<'a> {
    rules: &'a Rules,
    event: &'a AuthInput<'a>,
    create: &'a CreateInfo,
    state: &'a dyn StateView,
    target: &'a UserId,
}

pub(crate) fn check_member(
    rules: &Rules,
    event: &AuthInput<'_>,
    create: &CreateInfo,
    state: &dyn StateView,
) -> Result<(), Denied> {
    let Some(state_key) = event.state_key else {
        return denied("An m.room.member event needs a state key.");
    };
    let Ok(target) = <&UserId>::try_from(state_key) else {
        return denied(format!(
            "The state key {state_key:?} of an m.room.member event is not a user id."
        ));
    };
    let Some(membership) = get(event.content, "membership").and_then(string) else {
        return denied("The m.room.member event lacks its `membership`.");
    };
    let check = Check {
        rules,
        event,
        create,
        state,
        target,
    };
    match Membership::parse(&membership) {
        Some(Membership::Join) => check.join(),
        Some(Membership::Invite) => check.invite(),
        Some(Membership::Leave) => check.leave(),
        Some(Membership::Ban) => check.ban(),
        Some(Membership::Knock) if rules.authorization.knocking => check.knock(),
        _ => denied(format!("This room version knows no membership {membership:?}.")),
    }
}

impl Check<'_> {
    fn membership(&self, user: &UserId) -> Membership {
        self.state
            .member(user)
            .map_or(Membership::Leave, |member| member.membership)
    }

    fn by_target(&self) -> bool {
        self.event.sender == self.target
    }

    fn with_power<T>(&self, then: impl FnOnce(PowerView<'_>) -> T) -> T {
        let levels = self.state.power_levels();
        then(PowerView::new(
            self.create,
            levels.as_deref() as Option<&PowerLevels>,
        ))
    }

    fn join(&self) -> Result<(), Denied> {
        let follows_create = matches!(self.event.prev_events, [only] if *only == self.create.event_id);
        if follows_create
            && self
                .create
                .creators
                .first()
                .is_some_and(|creator| creator == self.target)
        {
            return Ok(());
        }
        if !self.by_target() {
            return denied(format!("Only {} can join as {}.", self.target, self.target));
        }
        let membership = self.membership(self.target);
        if membership == Membership::Ban {
            return denied("You are banned from the room.");
        }
        let is_in = matches!(membership, Membership::Join | Membership::Invite);
        let known = &self.rules.authorization;
        match self.state.join_rule().rule {
            JoinRule::Public => Ok(()),
            JoinRule::Invite if is_in => Ok(()),
            JoinRule::Knock if known.knocking && is_in => Ok(()),
            JoinRule::Restricted if known.restricted_join_rule => {
                if is_in {
                    Ok(())
                } else {
                    self.restricted_join()
                }
            }
            JoinRule::KnockRestricted if known.knock_restricted_join_rule => {
                if is_in {
                    Ok(())
                } else {
                    self.restricted_join()
                }
            }
            rule => denied(match rule {
                JoinRule::Invite | JoinRule::Knock => "You are not invited to the room.".to_owned(),
                rule => format!("Nobody can join the room: its join rule is {}.", rule.as_str()),
            }),
        }
    }

    /// A join of somebody who is not invited, for whom a member vouches that a condition of the room is fulfilled.
    fn restricted_join(&self) -> Result<(), Denied> {
        let voucher =
            get(self.event.content, "join_authorised_via_users_server").filter(|value| *value != b"null");
        let Some(voucher) = voucher else {
            return denied("You are not invited to the room, and nobody in it confirms that you may join.");
        };
        let voucher = string(voucher);
        let Some(voucher) = voucher.as_deref().and_then(|user| <&UserId>::try_from(user).ok()) else {
            return denied("`join_authorised_via_users_server` is not a user id.");
        };
        if self.membership(voucher) != Membership::Join {
            return denied(format!(
                "{voucher}, who is to confirm your join, is not in the room."
            ));
        }
        self.with_power(|view| {
            let needed = view.field(PowerField::Invite);
            match view.user(voucher) {
                power if power.reaches(needed) => Ok(()),
                power => denied(format!("{voucher}, who is to confirm your join, needs power level {needed} for it and has {power}.")),
            }
        })
    }

    fn invite(&self) -> Result<(), Denied> {
        if let Some(third_party) =
            get(self.event.content, "third_party_invite").filter(|value| *value != b"null")
        {
            return self.third_party_invite(third_party);
        }
        if self.membership(self.event.sender) != Membership::Join {
            return denied("You are not in the room, so you cannot invite to it.");
        }
        match self.membership(self.target) {
            Membership::Join => return denied(format!("{} is in the room already.", self.target)),
            Membership::Ban => return denied(format!("{} is banned from the room.", self.target)),
            _ => {}
        }
        self.with_power(|view| {
            demand(
                view.user(self.event.sender),
                view.field(PowerField::Invite),
                "invite",
            )
        })
    }

    fn third_party_invite(&self, third_party: &[u8]) -> Result<(), Denied> {
        if self.membership(self.target) == Membership::Ban {
            return denied(format!("{} is banned from the room.", self.target));
        }
        let Some(signed) = get(third_party, "signed").filter(|value| value.starts_with(b"{")) else {
            return denied("The third party invite lacks its `signed` object.");
        };
        let text = |name: &str| -> Option<Cow<'_, str>> { get(signed, name).and_then(string) };
        let (Some(mxid), Some(token)) = (text("mxid"), text("token")) else {
            return denied("The third party invite lacks its `mxid` or `token`.");
        };
        if mxid != self.target.as_str() {
            return denied(format!(
                "The third party invite is for {mxid}, not for {}.",
                self.target
            ));
        }
        let Some(invite) = self.state.third_party_invite(&token) else {
            return denied("The room has no third party invite with this token.");
        };
        if invite.sender != self.event.sender {
            return denied("Another user sent the third party invite.");
        }
        let mut covered = Vec::with_capacity(signed.len());
        write_without(&mut covered, signed, &[b"signatures", b"unsigned"]);
        let signatures = get(signed, "signatures")
            .into_iter()
            .flat_map(members)
            .flat_map(|server| members(server.value));
        let fits = signatures
            .filter(|signature| signature.key.starts_with(b"ed25519:"))
            .filter_map(|signature| string(signature.value))
            .any(|signature| {
                invite
                    .public_keys
                    .iter()
                    .any(|key| verify_bytes(&covered, &signature, key).is_ok())
            });
        if fits {
            Ok(())
        } else {
            denied("No signature of the third party invite fits a key of the invite.")
        }
    }

    fn leave(&self) -> Result<(), Denied> {
        let own = self.membership(self.event.sender);
        if self.by_target() {
            let knocked = self.rules.authorization.knocking && own == Membership::Knock;
            return match own {
                Membership::Join | Membership::Invite => Ok(()),
                Membership::Knock if knocked => Ok(()),
                Membership::Ban => denied("You are banned from the room."),
                _ => denied("You are neither in the room nor invited to it."),
            };
        }
        if own != Membership::Join {
            return denied("You are not in the room, so you cannot remove anybody from it.");
        }
        self.with_power(|view| {
            let power = view.user(self.event.sender);
            if self.membership(self.target) == Membership::Ban {
                demand(power, view.field(PowerField::Ban), "lift a ban")?;
            }
            demand(power, view.field(PowerField::Kick), "remove users")?;
            self.demand_more_than_target(power, &view)
        })
    }

    fn ban(&self) -> Result<(), Denied> {
        if self.membership(self.event.sender) != Membership::Join {
            return denied("You are not in the room, so you cannot ban anybody from it.");
        }
        self.with_power(|view| {
            let power = view.user(self.event.sender);
            demand(power, view.field(PowerField::Ban), "ban users")?;
            self.demand_more_than_target(power, &view)
        })
    }

    fn demand_more_than_target(&self, power: Power, view: &PowerView<'_>) -> Result<(), Denied> {
        let of_target = view.user(self.target);
        if of_target < power {
            return Ok(());
        }
        denied(format!(
            "The power of {} ({of_target}) is not below yours ({power}).",
            self.target
        ))
    }

    fn knock(&self) -> Result<(), Denied> {
        let rule = self.state.join_rule().rule;
        let allowed = rule == JoinRule::Knock
            || (rule == JoinRule::KnockRestricted && self.rules.authorization.knock_restricted_join_rule);
        if !allowed {
            return denied(format!(
                "One cannot knock on the room: its join rule is {}.",
                rule.as_str()
            ));
        }
        if !self.by_target() {
            return denied(format!("Only {} can knock as {}.", self.target, self.target));
        }
        match self.membership(self.target) {
            Membership::Ban => denied("You are banned from the room."),
            Membership::Invite => denied("You are invited to the room already."),
            Membership::Join => denied("You are in the room already."),
            _ => Ok(()),
        }
    }
}
