//! Email addresses and phone numbers, which this server does not keep: reading answers an empty
//! list, and adding is refused.

pub mod get_threepids;
pub mod post_delete_threepid;
pub mod refuse_threepid;

use axum::routing::{get, post};

use crate::routes::Routes;

/// The endpoints of this section.
pub fn routes() -> Routes {
    let refuse = || post(refuse_threepid::refuse_threepid);
    let refuse_without_login = || post(refuse_threepid::refuse_threepid_without_login);
    let delete = || post(post_delete_threepid::post_delete_threepid);
    Routes::new()
        .v3(
            "/account/3pid",
            get(get_threepids::get_threepids).post(refuse_threepid::refuse_threepid),
        )
        .v3("/account/3pid/add", refuse())
        .v3("/account/3pid/bind", refuse())
        .v3("/account/3pid/delete", delete())
        .v3("/account/3pid/unbind", delete())
        .v3("/account/3pid/email/requestToken", refuse_without_login())
        .v3("/account/3pid/msisdn/requestToken", refuse_without_login())
        .v3("/account/password/email/requestToken", refuse_without_login())
        .v3("/account/password/msisdn/requestToken", refuse_without_login())
        .v3("/register/email/requestToken", refuse_without_login())
        .v3("/register/msisdn/requestToken", refuse_without_login())
}
