//! Stages that a person completes on a page of this server, out of the client's sight ("Fallback").

use std::sync::Arc;

use ruma::OwnedUserId;

use super::{Stage, Uia, is_next};
use crate::error::{Error, Result};
use crate::user::Users;

/// What a page has to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageState {
    /// There is no such session (any more), or it asks for no such stage.
    Unknown,
    /// Another stage comes first.
    Later,
    /// The stage is to be completed, by this user if there is one already.
    Open(Option<OwnedUserId>),
    /// The stage is completed.
    Done,
}

/// What a person answers on a page.
#[derive(Clone, Copy, Debug)]
pub enum PageAnswer<'a> {
    /// Yes: for stages that need no secret.
    Agreed,
    /// The password.
    Password(&'a str),
    /// A registration token that this server has made.
    Token(&'a str),
    /// A registration token that the caller has found good.
    GoodToken,
}

/// What came of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PageOutcome {
    /// What is to be shown now.
    State(PageState),
    /// The answer was wrong, for this reason; another one may be given.
    Wrong(&'static str),
}

impl Uia {
    /// What the page of a stage has to show.
    pub fn page(&self, users: &Arc<Users>, session: &str, stage: Stage) -> Result<PageState> {
        self.recall(users, session)?;
        let now = self.clock.now_ms();
        let state = self.with(session, |session| {
            if !session.is_open(now) || !session.flows.iter().flatten().any(|other| *other == stage) {
                PageState::Unknown
            } else if session.completed.contains(&stage) {
                PageState::Done
            } else if is_next(&session.flows, &session.completed, stage) {
                PageState::Open(session.user.clone())
            } else {
                PageState::Later
            }
        });
        Ok(state.unwrap_or(PageState::Unknown))
    }

    /// Takes a person's answer. What it completed is stored when this returns.
    pub async fn answer_page(
        &self,
        users: &Arc<Users>,
        session: &str,
        stage: Stage,
        answer: PageAnswer<'_>,
    ) -> Result<PageOutcome> {
        let state = self.page(users, session, stage)?;
        let PageState::Open(user) = state else {
            return Ok(PageOutcome::State(state));
        };
        let mut held = None;
        match (stage, answer) {
            (Stage::Dummy | Stage::Terms, PageAnswer::Agreed) => {}
            (Stage::RegistrationToken, PageAnswer::GoodToken) => {}
            (Stage::RegistrationToken, PageAnswer::Token(token)) => {
                match users.registration_tokens().hold(token) {
                    Ok(use_of_it) => held = Some(use_of_it),
                    Err(Error::InvalidRegistrationToken) => {
                        return Ok(PageOutcome::Wrong("This registration token is not valid."));
                    }
                    Err(error) => return Err(error),
                }
            }
            (Stage::Password, PageAnswer::Password(password)) => {
                let user = user.as_deref().map(|user| users.get(user)).transpose()?.flatten();
                let is_right = match user {
                    Some(user) => user.verify_password(password).await?,
                    None => false,
                };
                if !is_right {
                    return Ok(PageOutcome::Wrong("This is not your password."));
                }
            }
            _ => return Ok(PageOutcome::Wrong("This does not answer what was asked.")),
        }
        self.with(session, |session| {
            session.registration_token = held.or(session.registration_token.take());
            session.complete(stage);
        });
        self.save(session).await?;
        Ok(PageOutcome::State(PageState::Done))
    }
}
