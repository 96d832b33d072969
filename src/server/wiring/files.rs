//! Files beside the configuration.

use hearth_appservice::Registrations;
use hearth_core::Config;
use ruma::OwnedServerName;

use crate::Error;

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
