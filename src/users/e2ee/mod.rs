//! End-to-end encryption as far as a server sees it: keys of devices, one-time keys, messages to devices, and who
//! must be told that a device list changed.

pub(crate) mod dehydrated;
pub(crate) mod device_keys;
pub(crate) mod lists;
mod old_transactions;
mod one_time;
mod rows;
#[cfg(test)]
mod tests;
pub(crate) mod to_device;

pub use dehydrated::DehydratedDevice;
pub use device_keys::{DeviceKeys, KeyUpload};
pub use lists::{DeviceListUpdate, ListChanges};
pub use one_time::{KeyCounts, OneTimeKey};
pub use to_device::{RemoteToDevice, ToDeviceBatch, ToDeviceMessages};
