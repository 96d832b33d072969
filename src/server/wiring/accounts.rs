//! What `hearth user` does: in a process of its own, or in the server that runs.

use std::sync::Arc;

use hearth_api::app::RoomLinks;
use hearth_core::Config;
use hearth_core::config::RegistrationMode;
use hearth_users::{NewAccount, User, Users};
use ruma::{OwnedUserId, UserId};

use super::Parts;
use crate::Error;
use crate::cli::UserTask;

/// The parts that it needs.
#[derive(Clone)]
pub struct Accounts {
    config: Arc<Config>,
    users: Arc<Users>,
    links: Arc<dyn RoomLinks>,
}

impl Parts {
    /// What `hearth user` works on.
    pub fn accounts(&self) -> Accounts {
        Accounts {
            config: self.config.clone(),
            users: self.users.clone(),
            links: self.api.room_links.clone(),
        }
    }
}

impl Accounts {
    /// Does what `hearth user` asks and gives a sentence about it.
    pub async fn run(&self, name: &str, task: UserTask) -> Result<String, Error> {
        let id = self.user_id(name)?;
        match task {
            UserTask::Create { password, admin } => self.create_user(&id, password, admin).await,
            UserTask::ResetPassword { password } => {
                let user = self.existing_user(&id)?;
                let ended = user.set_password(&password, true, None).await.map_err(refused)?;
                Ok(format!(
                    "{id} has a new password; {} devices were logged out",
                    ended.len()
                ))
            }
            UserTask::Deactivate => {
                let user = self.existing_user(&id)?;
                self.links
                    .leave_all(&id)
                    .await
                    .map_err(|error| Error::Command(format!("{error:?}")))?;
                user.deactivate(false).await.map_err(refused)?;
                Ok(format!("{id} is deactivated"))
            }
        }
    }

    async fn create_user(&self, id: &UserId, password: String, admin: bool) -> Result<String, Error> {
        self.users.check_password_rules(&password).map_err(refused)?;
        self.users.check_available(id).map_err(refused)?;
        let new = NewAccount {
            password: Some(password),
            admin,
            ..NewAccount::default()
        };
        self.users.create(id, new).await.map_err(refused)?;
        if admin {
            self.use_up_first_token().await?;
        }
        Ok(format!(
            "{id} is created{}",
            if admin { " and is an administrator" } else { "" }
        ))
    }

    /// The token of the first start would go on offering what has just been given.
    async fn use_up_first_token(&self) -> Result<(), Error> {
        if self.config.registration != RegistrationMode::Token {
            return Ok(());
        }
        let tokens = self.users.registration_tokens();
        if let Some(token) = tokens.bootstrap().await.map_err(refused)? {
            tokens.consume(&token).await.map_err(refused)?;
        }
        Ok(())
    }

    fn user_id(&self, name: &str) -> Result<OwnedUserId, Error> {
        let full = match name.strip_prefix('@') {
            Some(_) => name.to_owned(),
            None => format!("@{name}:{}", self.config.server_name),
        };
        let id = UserId::parse(&full)
            .map_err(|error| Error::Command(format!("{full:?} is not a user id: {error}")))?;
        if self.users.is_local(&id) {
            Ok(id)
        } else {
            Err(Error::Command(format!(
                "{id} is not a user of {}",
                self.config.server_name
            )))
        }
    }

    fn existing_user(&self, id: &UserId) -> Result<User, Error> {
        let found = self.users.get(id).map_err(refused)?;
        found.ok_or_else(|| Error::Command(format!("there is no user {id}")))
    }
}

fn refused(error: hearth_users::Error) -> Error {
    Error::Command(error.to_string())
}
