//! Verification by comparing emoji.

use anyhow::{Context, Result, ensure};
use matrix_sdk::encryption::verification::{SasVerification, VerificationRequest};
use matrix_sdk::ruma::UserId;
use matrix_sdk::ruma::events::key::verification::VerificationMethod;

use crate::device::{Device, until};

/// A new device asks an old one of its user, and is then verified and has the user's secrets.
pub async fn verify_own(old: &Device, new: &Device) -> Result<()> {
    let user = new.user().to_owned();
    let identity = new.client.encryption().request_user_identity(&user).await?;
    let identity = identity.context("an identity")?;
    // Who does not know the sender's device yet ignores its request.
    until("the new device in the list", async || {
        let devices = old.client.encryption().get_user_devices(&user).await?;
        let id = new.client.device_id().context("a device")?;
        Ok(devices.get(id).map(|_| ()))
    })
    .await?;
    let request = identity
        .request_verification_with_methods(vec![VerificationMethod::SasV1])
        .await?;
    accepted(old, &user, request.flow_id()).await?;
    until("the acceptance", async || Ok(request.is_ready().then_some(()))).await?;
    let asking = request.start_sas().await?.context("no comparison")?;
    let asked = started(old, &user, request.flow_id()).await?;
    asked.accept().await?;
    ensure!(shown(&asking).await? == shown(&asked).await?, "other emoji");
    asking.confirm().await?;
    asked.confirm().await?;
    for sas in [&asking, &asked] {
        done(sas).await?;
    }
    Ok(())
}

/// Accepts a request that was received.
pub async fn accepted(device: &Device, from: &UserId, flow: &str) -> Result<VerificationRequest> {
    let encryption = device.client.encryption();
    let request = until("the request", async || {
        Ok(encryption.get_verification_request(from, flow).await)
    })
    .await?;
    request
        .accept_with_methods(vec![VerificationMethod::SasV1])
        .await?;
    Ok(request)
}

/// The comparison that the other one has started.
pub async fn started(device: &Device, with: &UserId, flow: &str) -> Result<SasVerification> {
    let encryption = device.client.encryption();
    until("the comparison", async || {
        let found = encryption.get_verification(with, flow).await;
        Ok(found.and_then(|found| found.sas()))
    })
    .await
}

/// The emoji that are shown.
pub async fn shown(sas: &SasVerification) -> Result<Vec<&'static str>> {
    until("the emoji", async || {
        ensure!(!sas.is_cancelled(), "cancelled: {:?}", sas.cancel_info());
        let emoji = sas.emoji().filter(|_| sas.can_be_presented());
        Ok(emoji.map(|emoji| emoji.iter().map(|one| one.symbol).collect()))
    })
    .await
}

/// Waits for the end.
pub async fn done(sas: &SasVerification) -> Result<()> {
    until("the end of the comparison", async || {
        ensure!(!sas.is_cancelled(), "cancelled: {:?}", sas.cancel_info());
        Ok(sas.is_done().then_some(()))
    })
    .await
}
