//! POST to the endpoints below /_matrix/client/v3/account/3pid, /account/password and /register that
//! add an email address or a phone number — Client-Server API, "Adding account administrative
//! contact information", "Password management" and "Account registration".

use hearth_core::error::{MatrixError, errcode};

use crate::error::{ApiError, Result};
use crate::extract::{Auth, Json};

/// The refusal for users who are logged in.
pub async fn refuse_threepid(_auth: Auth) -> Result<Json<()>> {
    Err(refusal())
}

/// The refusal where nobody needs to be logged in.
pub async fn refuse_threepid_without_login() -> Result<Json<()>> {
    Err(refusal())
}

fn refusal() -> ApiError {
    let sentence = "This server does not keep email addresses or phone numbers";
    MatrixError::new(403, errcode::THREEPID_DENIED, sentence).into()
}
