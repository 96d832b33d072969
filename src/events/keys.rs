use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD_NO_PAD};
use ed25519_dalek::{Signature, Signer as _, SigningKey, Verifier as _, VerifyingKey};
use ruma::ServerName;
use serde_json::{Map, Value};

use crate::{Error, canonical};

/// Other implementations pad, or leave bits behind, in what they should not.
const LENIENT: GeneralPurposeConfig = GeneralPurposeConfig::new()
    .with_decode_allow_trailing_bits(true)
    .with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, LENIENT);

/// Unpadded base64, as Matrix writes it.
pub fn base64_encode(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Base64 of either alphabet, padded or not.
pub fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let engine = if text.contains(['-', '_']) {
        &URL_SAFE
    } else {
        &STANDARD
    };
    engine.decode(text).ok()
}

/// What may follow `ed25519:` in the id of a key of ours.
pub(crate) const KEY_VERSION_MAX_BYTES: usize = 32;

/// A signing key of this server with its id.
#[derive(Clone)]
pub struct KeyPair {
    key: SigningKey,
    key_id: String,
}

impl std::fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The secret stays out of logs.
        f.debug_struct("KeyPair")
            .field("key_id", &self.key_id)
            .finish_non_exhaustive()
    }
}

impl KeyPair {
    /// The key with this secret seed. `version` is what follows `ed25519:` in the key's id: letters, digits and underscores,
    /// at most 32, so that the size of a signature is known before it is made.
    pub fn from_seed(seed: [u8; 32], version: &str) -> Result<KeyPair, Error> {
        let fits = (1..=KEY_VERSION_MAX_BYTES).contains(&version.len())
            && version
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !fits {
            return Err(Error::Key(format!(
                "the version {version:?} is not 1 to {KEY_VERSION_MAX_BYTES} letters, digits and underscores"
            )));
        }
        Ok(KeyPair {
            key: SigningKey::from_bytes(&seed),
            key_id: format!("ed25519:{version}"),
        })
    }

    /// Reads the line that homeservers keep their key in: `ed25519 <version> <base64 seed>`.
    pub fn from_line(line: &str) -> Result<KeyPair, Error> {
        let mut words = line.split_ascii_whitespace();
        let (Some("ed25519"), Some(version), Some(seed), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Error::Key(
                "the line is not of the form `ed25519 <version> <base64 seed>`".to_owned(),
            ));
        };
        let seed = base64_decode(seed).and_then(|seed| <[u8; 32]>::try_from(seed).ok());
        KeyPair::from_seed(
            seed.ok_or_else(|| Error::Key("the seed is not 32 bytes of base64".to_owned()))?,
            version,
        )
    }

    /// Writes the line that [`KeyPair::from_line`] reads.
    pub fn to_line(&self) -> String {
        format!(
            "ed25519 {} {}",
            self.version(),
            base64_encode(&self.key.to_bytes())
        )
    }

    /// The id, `ed25519:<version>`.
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// What follows `ed25519:` in the id.
    pub fn version(&self) -> &str {
        self.key_id.trim_start_matches("ed25519:")
    }

    /// The secret seed, to be stored.
    pub fn seed(&self) -> [u8; 32] {
        self.key.to_bytes()
    }

    /// The public key.
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// The public key in unpadded base64.
    pub fn public_key_base64(&self) -> String {
        base64_encode(&self.public_key())
    }

    /// Signs bytes.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.key.sign(message).to_bytes()
    }
}

/// Signs a JSON object in place (appendices, "Signing JSON"): `unsigned` is not covered, and signatures of others stay.
pub fn sign_json(object: &mut Map<String, Value>, server: &str, key: &KeyPair) -> Result<(), Error> {
    let signature = base64_encode(&key.sign(&signing_bytes(object)?));
    let wrong = || Error::Format("`signatures` is not an object of objects".to_owned());
    let signatures = object
        .entry("signatures")
        .or_insert_with(|| Value::Object(Map::new()));
    let of_server = signatures
        .as_object_mut()
        .ok_or_else(wrong)?
        .entry(server)
        .or_insert_with(|| Value::Object(Map::new()));
    of_server
        .as_object_mut()
        .ok_or_else(wrong)?
        .insert(key.key_id().to_owned(), Value::String(signature));
    Ok(())
}

/// Checks the signature that `server` made with the key `key_id` on a JSON object.
pub fn verify_json(
    object: &Map<String, Value>,
    server: &ServerName,
    key_id: &str,
    public_key: &[u8; 32],
) -> Result<(), Error> {
    verify_json_of(object, server.as_str(), key_id, public_key)
}

/// As [`verify_json`], for whoever signs JSON: users sign their keys.
pub fn verify_json_of(
    object: &Map<String, Value>,
    signer: &str,
    key_id: &str,
    public_key: &[u8; 32],
) -> Result<(), Error> {
    let signature = object
        .get("signatures")
        .and_then(|all| all.get(signer))
        .and_then(|of_signer| of_signer.get(key_id));
    let Some(signature) = signature.and_then(Value::as_str) else {
        return Err(Error::Signature(format!(
            "{signer} has not signed with the key {key_id}"
        )));
    };
    verify_bytes(&signing_bytes(object)?, signature, public_key)
}

/// The bytes of a JSON object that its signatures cover: all but `signatures` and `unsigned`, canonical.
pub fn signing_bytes(object: &Map<String, Value>) -> Result<Vec<u8>, Error> {
    let covered: Map<String, Value> = object
        .iter()
        .filter(|(key, _)| !matches!(key.as_str(), "signatures" | "unsigned"))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    canonical::to_bytes(&Value::Object(covered), false)
}

/// Checks a signature in base64 over bytes.
pub fn verify_bytes(message: &[u8], signature: &str, public_key: &[u8; 32]) -> Result<(), Error> {
    let signature = base64_decode(signature)
        .and_then(|bytes| <[u8; 64]>::try_from(bytes).ok())
        .ok_or_else(|| Error::Signature("it is not 64 bytes of base64".to_owned()))?;
    let key = VerifyingKey::from_bytes(public_key)
        .map_err(|_| Error::Key("the public key is no point of the curve".to_owned()))?;
    key.verify(message, &Signature::from_bytes(&signature))
        .map_err(|_| Error::Signature("it does not fit the key and the signed text".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The key of the test vectors in the specification's appendices.
    fn key() -> KeyPair {
        KeyPair::from_line("ed25519 1 YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1").unwrap()
    }

    #[test]
    fn vectors_of_the_specification() {
        let check = |input: &str, expected: &str| {
            let mut object: Map<String, Value> = serde_json::from_str(input).unwrap();
            sign_json(&mut object, "domain", &key()).unwrap();
            assert_eq!(object["signatures"]["domain"]["ed25519:1"], expected);
            let server = ServerName::parse("domain").unwrap();
            verify_json(&object, &server, "ed25519:1", &key().public_key()).unwrap();
            object.insert("more".to_owned(), Value::Null);
            assert!(verify_json(&object, &server, "ed25519:1", &key().public_key()).is_err());
        };
        check(
            "{}",
            "K8280/U9SSy9IVtjBuVeLr+HpOB4BQFWbg+UZaADMtTdGYI7Geitb76LTrr5QV/7Xg4ahLwYGYZzuHGZKM5ZAQ",
        );
        check(
            r#"{"one":1,"two":"Two"}"#,
            "KqmLSbO39/Bzb0QIYE82zqLwsA+PDzYIpIRA2sRQ4sL53+sN6/fpNSoqE7BP7vBZhG6kYdD13EIMJpvhJI+6Bw",
        );
    }

    #[test]
    fn lines() {
        assert_eq!(KeyPair::from_line(&key().to_line()).unwrap().seed(), key().seed());
        assert_eq!(key().key_id(), "ed25519:1");
        assert_eq!(
            base64_decode(&key().public_key_base64()).unwrap(),
            key().public_key()
        );
        for wrong in [
            "",
            "ed25519 a",
            "rsa a YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
            "ed25519 a:b YJDBA9Xnr2sVqXD9Vj7XVUnmFZcZrlw8Md7kMW+3XA1",
            "ed25519 a YJDB",
        ] {
            assert!(KeyPair::from_line(wrong).is_err(), "{wrong}");
        }
    }
}
