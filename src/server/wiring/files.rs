//! Files beside the configuration.

use hearth_appservice::Registrations;
use hearth_core::Config;
use ruma::OwnedServerName;

use crate::Error;

/// Finds what is wrong in the files that the configuration names, beside certificates; gives how many application services
/// there are.
pub(crate) fn check_files(config: &Config) -> Result<usize, Error> {
    let server_name =
        OwnedServerName::try_from(config.server_name.as_str()).map_err(|error| Error::Start {
            part: "the server",
            reason: format!("server_name: {error}"),
        })?;
    Ok(read_appservices(config, &server_name)?.all().len())
}

/// The application services of the configured folder.
pub(super) fn read_appservices(
    config: &Config,
    server_name: &OwnedServerName,
) -> Result<Registrations, Error> {
    let Some(folder) = &config.appservice_dir else {
        return Ok(Registrations::default());
    };
    let failed = |error: hearth_appservice::Error| Error::Start {
        part: "application services",
        reason: error.to_string(),
    };
    Registrations::load(folder, server_name).map_err(failed)
}
