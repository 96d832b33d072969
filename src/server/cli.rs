//! The command line.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use hearth_core::{Config, Shutdown, VERSION, tasks};
use serde::{Deserialize, Serialize};

use crate::admin_socket::{self, Request};
use crate::wiring::Deps;
use crate::{Bound, Error, Server, logging};

/// How often a command tries to reach data that another process has open, which is half a minute: a server that stops
/// answers what was asked of it first.
const IN_USE_TRIES: u32 = 600;
const IN_USE_PAUSE: Duration = Duration::from_millis(50);

/// A Matrix homeserver. Without a command it serves; without a configuration file it serves on
/// 127.0.0.1:8008 and keeps its data in ./data.
#[derive(Debug, Parser)]
#[command(name = "hearth", version = VERSION)]
struct Arguments {
    /// The configuration file. config/hearth.example.toml lists all keys; each can also be set by an
    /// environment variable, such as HEARTH_SERVER_NAME.
    #[arg(long, short, value_name = "FILE", global = true)]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Check the configuration and say what it amounts to.
    CheckConfig,
    /// Replace the key that signs events and requests, while the server is stopped. What the old one signed stays valid.
    RotateSigningKey,
    /// Manage accounts, whether the server runs or not.
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Create an account.
    Create {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        password: PasswordSource,
        /// Make the user an administrator.
        #[arg(long)]
        admin: bool,
    },
    /// Give an account a new password and log its devices out.
    ResetPassword {
        #[command(flatten)]
        who: Who,
        #[command(flatten)]
        password: PasswordSource,
    },
    /// Deactivate an account for good. Its name is never given again.
    Deactivate {
        #[command(flatten)]
        who: Who,
    },
}

/// Whose account.
#[derive(Debug, Args)]
pub struct Who {
    /// The name: "alice" or "@alice:example.org".
    name: String,
}

#[derive(Debug, Args)]
struct PasswordSource {
    /// Read the password from standard input instead of making one up.
    #[arg(long)]
    password_stdin: bool,
}

/// What `hearth user` asks of the server's parts.
#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UserTask {
    /// Create an account.
    Create {
        /// The password.
        password: String,
        /// Whether the user is an administrator.
        admin: bool,
    },
    /// Set another password.
    ResetPassword {
        /// The password.
        password: String,
    },
    /// Deactivate the account.
    Deactivate,
}

impl UserTask {
    /// The task as the command line names it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Create { .. } => "create",
            Self::ResetPassword { .. } => "reset-password",
            Self::Deactivate => "deactivate",
        }
    }
}

/// Runs the program with the process's arguments.
pub fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hearth: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> Result<(), Error> {
    let config = Config::load(arguments.config.as_deref())?;
    for (variable, hint) in Config::mistyped_variables() {
        eprintln!(
            "hearth: the environment variable {variable} is no key of the configuration; did you mean {hint}?"
        );
    }
    match arguments.command {
        Some(Command::CheckConfig) => check_config(&config),
        Some(Command::RotateSigningKey) => {
            init_log(&config)?;
            let (old, new) = crate::wiring::rotate_signing_key(&config)?;
            println!("{old} is replaced by {new}. Keep the data directory: it has both.");
            Ok(())
        }
        Some(Command::User(command)) => {
            init_log(&config)?;
            runtime()?.block_on(user(config, command))
        }
        None => {
            init_log(&config)?;
            runtime()?.block_on(serve(config))
        }
    }
}

fn init_log(config: &Config) -> Result<(), Error> {
    logging::init(&config.log).map_err(log_failed)
}

fn log_failed(reason: String) -> Error {
    Error::Start {
        part: "the log",
        reason,
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Error> {
    let built = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    built.map_err(|error| Error::Start {
        part: "the runtime",
        reason: error.to_string(),
    })
}

fn check_config(config: &Config) -> Result<(), Error> {
    for listener in config.all_listeners() {
        if let (true, Some(chain), Some(key)) = (listener.tls, &listener.tls_certificate, &listener.tls_key) {
            crate::tls::Certificate::load(chain, key)?;
        }
    }
    logging::check(&config.log).map_err(log_failed)?;
    let appservices = crate::wiring::check(config)?;
    println!("The configuration is good.");
    println!("  server name  {}", config.server_name);
    println!("  data         {}", config.data_dir.display());
    if appservices > 0 {
        println!("  application services: {appservices}");
    }
    for listener in config.all_listeners() {
        let scheme = if listener.tls { "https" } else { "http" };
        println!(
            "  listens on   {scheme}://{} for {:?}",
            listener.address, listener.apis
        );
    }
    Ok(())
}

async fn serve(config: Config) -> Result<(), Error> {
    let deps = Deps::production(&config)?;
    let server = Server::build(config, deps)?;
    let listeners = server.listen().await?;
    let first_token = server.parts().first_token().await?;
    announce(server.config(), &listeners, first_token.as_deref());
    stop_on_signals(server.shutdown())?;
    server.run(listeners).await
}

/// Says on standard output where the server listens. Not in the log, which never has a token.
fn announce(config: &Config, listeners: &[Bound], first_token: Option<&str>) {
    let mut text = format!("Hearth {VERSION} runs for {}\n", config.server_name);
    for bound in listeners {
        text.push_str(&format!("  listening on {}\n", bound.url()));
    }
    text.push_str(&format!("  data in {}\n", config.data_dir.display()));
    if let Some(token) = first_token {
        text.push_str(&format!(
            "\nThere is no administrator yet. Who registers with this one-time token becomes it:\n\n    {token}\n\n"
        ));
    }
    let mut out = std::io::stdout().lock();
    // Nobody may be reading; the server runs all the same.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// The first SIGTERM or SIGINT stops in order; a second one ends the process.
fn stop_on_signals(shutdown: Shutdown) -> Result<(), Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let failed = |error: std::io::Error| Error::Start {
        part: "signal handling",
        reason: error.to_string(),
    };
    let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
    tasks::spawn("signals", async move {
        for stopping in [false, true] {
            tokio::select! {
                biased;
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if stopping {
                std::process::exit(130);
            }
            shutdown.trigger();
        }
    });
    Ok(())
}

async fn user(config: Config, command: UserCommand) -> Result<(), Error> {
    let (name, made_up, task) = match command {
        UserCommand::Create { who, password, admin } => {
            let (password, made_up) = password.get()?;
            (who.name, made_up, UserTask::Create { password, admin })
        }
        UserCommand::ResetPassword { who, password } => {
            let (password, made_up) = password.get()?;
            (who.name, made_up, UserTask::ResetPassword { password })
        }
        UserCommand::Deactivate { who } => (who.name, None, UserTask::Deactivate),
    };
    let request = Request { name, task };
    let done = have_done(&config, &request).await?;
    println!("{done}");
    if let Some(password) = made_up {
        println!("password: {password}");
    }
    Ok(())
}

/// Has a command done by the server that runs, and does it here where none runs. Who has the data open and takes no
/// commands is starting or stopping (or a command itself): then it is tried again for a while.
async fn have_done(config: &Config, request: &Request) -> Result<String, Error> {
    let mut tries_left = IN_USE_TRIES;
    loop {
        if let Some(done) = admin_socket::ask(&config.admin_socket(), request).await? {
            return Ok(done);
        }
        match run_here(config.clone(), request).await {
            Err(Error::InUse { .. }) if tries_left > 0 => tries_left -= 1,
            done => return done,
        }
        tokio::time::sleep(IN_USE_PAUSE).await;
    }
}

/// Does what a server would do that ran.
async fn run_here(config: Config, request: &Request) -> Result<String, Error> {
    let server = Server::build_for_command(config)?;
    let task = request.task.clone();
    let done = server.parts().accounts().run(&request.name, task).await;
    server.parts().close().await;
    done
}

impl PasswordSource {
    /// The password, and again if it was made up and has to be shown.
    fn get(&self) -> Result<(String, Option<String>), Error> {
        if !self.password_stdin {
            let password = hearth_core::random::alphanumeric(&hearth_core::random::OsRandom, 20);
            return Ok((password.clone(), Some(password)));
        }
        let mut stdin = std::io::stdin();
        if stdin.is_terminal() {
            eprint!("Password, then Enter and Ctrl-D: ");
        }
        let mut text = String::new();
        let failed = |error: std::io::Error| Error::Command(format!("the password cannot be read: {error}"));
        stdin.read_to_string(&mut text).map_err(failed)?;
        let password = text.trim_end_matches(['\r', '\n']);
        if password.is_empty() {
            return Err(Error::Command("standard input has no password".to_owned()));
        }
        Ok((password.to_owned(), None))
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Arguments::command().debug_assert();
        let parse = |words: &[&str]| Arguments::try_parse_from([&["hearth"], words].concat());
        assert!(parse(&[]).is_ok_and(|arguments| arguments.command.is_none()));
        assert!(parse(&["--config", "x.toml"]).is_ok());
        assert!(parse(&["check-config", "--config", "x.toml"]).is_ok());
        assert!(parse(&["user", "create", "alice", "--admin"]).is_ok());
        assert!(parse(&["user", "reset-password", "alice", "--password-stdin"]).is_ok());
        assert!(parse(&["user", "deactivate", "alice"]).is_ok());
        assert!(parse(&["user", "promote", "alice"]).is_err());
        assert!(parse(&["serve"]).is_err());
    }
}
