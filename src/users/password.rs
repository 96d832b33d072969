//! Password hashes: argon2id, computed on the injected pool because one takes milliseconds.

use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use hearth_core::limits;
use hearth_core::random::Random;

use crate::error::{Error, Result};

/// What computing one hash costs.
#[derive(Clone, Copy, Debug)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub iterations: u32,
    /// Lanes.
    pub parallelism: u32,
}

impl Default for PasswordCost {
    /// OWASP's first recommendation: 19 MiB, two passes.
    fn default() -> Self {
        Self {
            memory_kib: 19 * 1024,
            iterations: 2,
            parallelism: 1,
        }
    }
}

impl PasswordCost {
    /// The least that argon2 allows: for tests.
    pub fn cheap() -> Self {
        Self {
            memory_kib: 8,
            iterations: 1,
            parallelism: 1,
        }
    }

    fn hasher(self) -> Result<Argon2<'static>> {
        let params = Params::new(self.memory_kib, self.iterations, self.parallelism, None)
            .map_err(|error| Error::Internal(format!("the password cost is not usable: {error}")))?;
        Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
    }
}

/// Refuses passwords that are too short to protect anything, or so long that hashing them is an attack.
pub(crate) fn check_rules(password: &str, min_chars: usize) -> Result<()> {
    if password.len() > limits::PASSWORD_MAX_BYTES {
        return Err(Error::WeakPassword("The password is too long"));
    }
    if password.chars().count() < min_chars {
        return Err(Error::WeakPassword("The password is too short"));
    }
    Ok(())
}

/// The PHC string of a new hash.
pub(crate) fn hash(cost: PasswordCost, random: &dyn Random, password: &str) -> Result<String> {
    let mut salt = [0u8; 16];
    random.fill(&mut salt);
    let hash: PasswordHash = cost
        .hasher()?
        .hash_password_with_salt(password.as_bytes(), &salt)
        .map_err(|error| Error::Internal(format!("hashing a password failed: {error}")))?;
    Ok(hash.to_string())
}

/// Whether the password is the one that was hashed; the cost is that of the stored hash.
pub(crate) fn verify(stored: &str, password: &str) -> bool {
    if password.len() > limits::PASSWORD_MAX_BYTES {
        return false;
    }
    let Ok(parsed) = PasswordHash::new(stored) else {
        return false;
    };
    Argon2::default()
        .verify_password(password.as_bytes(), &parsed)
        .is_ok()
}

#[cfg(test)]
mod tests {
    use hearth_core::random::SeededRandom;

    use super::*;

    #[test]
    fn a_hash_verifies_only_its_password() {
        let stored = hash(PasswordCost::cheap(), &SeededRandom::new(1), "correct horse").unwrap();
        assert!(stored.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{stored}");
        assert!(verify(&stored, "correct horse"));
        assert!(!verify(&stored, "correct horsf"));
        assert!(!verify("", "correct horse"));
        assert!(!verify("$argon2id$", ""));
    }

    #[test]
    fn rules() {
        assert!(check_rules("12345678", 8).is_ok());
        assert!(check_rules("1234567", 8).is_err());
        assert!(check_rules(&"x".repeat(limits::PASSWORD_MAX_BYTES + 1), 8).is_err());
    }
}
