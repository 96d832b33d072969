//! Accounts, sessions, devices, profiles, account data, filters, room lists, presence.
//!
//! [`Users`] is the registry, [`User`] the handle on one local user. Every operation on a user is one batch in the
//! user's entity; effects on other entities leave through the batch's outbox. When a method returns, what it changed
//! is on disk and readable.

mod account;
mod cache;
mod carry_over;
mod change;
mod connections;
mod cross_signing;
mod data;
mod delayed;
mod device;
mod directory;
mod e2ee;
mod error;
mod filter;
mod invite_permission;
mod key_backup;
mod keys;
mod openid;
mod password;
mod presence;
mod presence_state;
mod profile;
mod push_rules;
mod pusher;
mod registration;
mod report;
mod room_list;
mod session;
mod signatures;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_lists;
#[cfg(test)]
mod tests_sessions;
#[cfg(test)]
mod tests_uia;
mod threads;
mod token;
mod token_bases;
mod uia;
mod user;
mod view;
mod web_push;
mod write;

pub use account::{Account, NewAccount, erased_users, is_erased};
pub use change::Change;
pub use connections::ConnectionPart;
pub use cross_signing::{CrossSigningKeys, CrossSigningUpload};
pub use data::{AccountData, DIRECT, FULLY_READ, IGNORED_USERS, PUSH_RULES, TAG, is_server_controlled};
pub use delayed::{Delay, DelayedEvent, DelayedEvents, DelayedSender, Done, Managed, NewDelayedEvent};
pub use device::Device;
pub use directory::{Directory, FoundUser, SearchResults, SearchUpdate};
pub use e2ee::{
    DehydratedDevice, DeviceKeys, DeviceListUpdate, KeyCounts, KeyUpload, ListChanges, OneTimeKey,
    RemoteToDevice, ToDeviceBatch, ToDeviceMessages,
};
pub use error::{Error, Result};
pub use invite_permission::{InviteVerdict, is_invite_setting};
pub use key_backup::{Backup, BackupKey, BackupKeys, BackupScope, BackupState};
pub use keys::op;
pub use openid::OpenIdToken;
pub use password::PasswordCost;
pub use presence::{
    Presence, PresenceChanges, PresenceCounter, PresenceInfo, PresenceState, RemoteStatus, SyncGuard,
};
pub use profile::{Profile, ProfileChange, check_key as check_profile_key};
pub use pusher::{Pusher, PusherListener, PusherOptions};
pub use registration::{Grant, PendingUse, RegistrationToken, RegistrationTokens, TokenChange};
pub use report::{Report, Reports};
pub use room_list::{Membership, MembershipUpdate, RoomEntry};
pub use session::{Login, Session, Tokens};
pub use threads::{Subscribing, ThreadSubscription};
pub use uia::{Completed, PageAnswer, PageOutcome, PageState, Stage, Uia, UiaOutcome, UiaRequest};
pub use user::{Settings, User, Users};
pub use view::View;
pub use web_push::{Activated, Activation};
pub use write::UserNote;
