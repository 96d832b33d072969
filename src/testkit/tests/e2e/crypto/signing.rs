//! Signatures on JSON, made and checked with vodozemac.

use serde_json::{Map, Value, json};
use vodozemac::{Ed25519PublicKey, Ed25519SecretKey, Ed25519Signature};

/// What makes signatures: a device, or a cross-signing key.
pub trait Signer {
    /// The id of the key, with its algorithm.
    fn key_id(&self) -> String;

    /// A signature on these bytes.
    fn sign(&self, bytes: &[u8]) -> Ed25519Signature;
}

impl Signer for Ed25519SecretKey {
    fn key_id(&self) -> String {
        format!("ed25519:{}", self.public_key().to_base64())
    }

    fn sign(&self, bytes: &[u8]) -> Ed25519Signature {
        Ed25519SecretKey::sign(self, bytes)
    }
}

fn signed_bytes(value: &Value) -> Vec<u8> {
    let mut signed = value.as_object().expect("an object").clone();
    signed.remove("signatures");
    signed.remove("unsigned");
    hearth_events::canonical::to_bytes(&Value::Object(signed), true).expect("canonical JSON")
}

/// Adds a user's signature.
pub fn sign(value: &mut Value, user: &str, signer: &dyn Signer) {
    let signature = signer.sign(&signed_bytes(value)).to_base64();
    let signatures = value
        .as_object_mut()
        .expect("an object")
        .entry("signatures")
        .or_insert_with(|| json!({}));
    signatures[user][signer.key_id()] = json!(signature);
}

/// Whether a value has a good signature by this key (in base64) of a user; `id` is the key's id without algorithm.
pub fn is_signed(value: &Value, user: &str, id: &str, key: &str) -> bool {
    let signature = value["signatures"][user][format!("ed25519:{id}")].as_str();
    let Some(signature) = signature else { return false };
    let key = Ed25519PublicKey::from_base64(key).expect("a key");
    let signature = Ed25519Signature::from_base64(signature).expect("a signature");
    key.verify(&signed_bytes(value), &signature).is_ok()
}

/// The one key of a cross-signing key.
pub fn only_key(value: &Value) -> Option<&str> {
    let keys: &Map<String, Value> = value["keys"].as_object()?;
    keys.values().next()?.as_str()
}
