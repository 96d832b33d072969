//! POST /_matrix/client/v3/auth/{authType}/fallback/web — Client-Server API, "Fallback".

use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use hearth_core::error::MatrixError;
use hearth_users::{PageAnswer, PageOutcome, Stage};
use serde::Deserialize;

use crate::app::App;
use crate::client::registration::is_configured_token;
use crate::error::Result;
use crate::extract::{Address, Path, body_bytes};
use crate::ratelimit::Class;

/// The page's form.
#[derive(Deserialize)]
struct Form {
    session: String,
    #[serde(default)]
    answer: String,
}

/// Takes the answer that a person gave on the page.
pub async fn post_auth(
    State(app): State<Arc<App>>,
    Address(address): Address,
    Path(kind): Path<String>,
    body: Body,
) -> Result<Response> {
    let stage = Stage::parse(&kind).ok_or_else(MatrixError::unrecognized)?;
    // A page is as good a place to guess at secrets as the endpoints are.
    app.limits.address(
        match stage {
            Stage::Password => Class::Login,
            _ => Class::Registration,
        },
        address,
    )?;
    let bytes = body_bytes(body, app.max_request_bytes()).await?;
    let form: Form = serde_html_form::from_bytes(&bytes)
        .map_err(|error| MatrixError::invalid_param(format!("The form is wrong: {error}")))?;
    let Form { session, answer } = &form;
    let given = match stage {
        Stage::Dummy | Stage::Terms => PageAnswer::Agreed,
        Stage::Password => PageAnswer::Password(answer),
        Stage::RegistrationToken if is_configured_token(&app, answer) => PageAnswer::GoodToken,
        Stage::RegistrationToken => PageAnswer::Token(answer),
    };
    let uia = app.users.uia();
    match uia.answer_page(&app.users, session, stage, given).await? {
        PageOutcome::State(state) => super::stage_page(&app, session, stage, &state, ""),
        PageOutcome::Wrong(reason) => {
            let state = uia.page(&app.users, session, stage)?;
            super::stage_page(&app, session, stage, &state, reason)
        }
    }
}
