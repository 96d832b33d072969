//! TLS certificates from files that are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use hearth_core::{Shutdown, limits, tasks};
use parking_lot::RwLock;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;

use crate::Error;

/// The cryptography that all TLS here uses.
pub fn provider() -> Arc<CryptoProvider> {
    let ring = || Arc::new(rustls::crypto::ring::default_provider());
    let installed = CryptoProvider::get_default().cloned().unwrap_or_else(ring);
    // Libraries that ask for the process's provider get the same one. Losing a race here is fine.
    let _ = CryptoProvider::install_default((*installed).clone());
    installed
}

/// One certificate with its key, as the files have it now.
#[derive(Debug)]
pub struct Certificate {
    chain_file: PathBuf,
    key_file: PathBuf,
    current: RwLock<(Stamp, Arc<CertifiedKey>)>,
}

/// When both files were last changed, and how long they were.
type Stamp = [Option<(SystemTime, u64)>; 2];

impl Certificate {
    /// Reads both files.
    pub fn load(chain_file: &Path, key_file: &Path) -> Result<Arc<Self>, Error> {
        let stamp = stamp(chain_file, key_file);
        let key = read(chain_file, key_file)?;
        Ok(Arc::new(Self {
            chain_file: chain_file.to_owned(),
            key_file: key_file.to_owned(),
            current: RwLock::new((stamp, Arc::new(key))),
        }))
    }

    /// Reads the files again if they changed. The old certificate stays if the new one cannot be
    /// used, because the two files may be written one after the other.
    pub fn refresh(&self) -> Result<bool, Error> {
        let stamp = stamp(&self.chain_file, &self.key_file);
        if stamp == self.current.read().0 {
            return Ok(false);
        }
        let key = read(&self.chain_file, &self.key_file)?;
        *self.current.write() = (stamp, Arc::new(key));
        Ok(true)
    }

    /// Looks at the files from time to time until the server stops.
    pub fn watch(self: &Arc<Self>, shutdown: Shutdown) {
        let certificate = self.clone();
        tasks::spawn("certificate watch", async move {
            loop {
                tokio::select! {
                    biased;
                    () = shutdown.wait() => return,
                    () = tokio::time::sleep(limits::CERTIFICATE_CHECK) => {}
                }
                match certificate.refresh() {
                    Ok(true) => {
                        tracing::info!(file = %certificate.chain_file.display(), "read the new TLS certificate")
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::error!(%error, "the changed TLS certificate is not used, the old one stays")
                    }
                }
            }
        });
    }

    /// The settings for a listener that speaks HTTP/2 and HTTP/1.1.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, Error> {
        let builder = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| self.unusable(error))?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }

    fn unusable(&self, reason: impl std::fmt::Display) -> Error {
        unusable(&self.chain_file, reason)
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().1.clone())
    }
}

fn unusable(file: &Path, reason: impl std::fmt::Display) -> Error {
    Error::Certificate {
        file: file.display().to_string(),
        reason: reason.to_string(),
    }
}

fn stamp(chain_file: &Path, key_file: &Path) -> Stamp {
    [chain_file, key_file].map(|file| {
        let metadata = std::fs::metadata(file).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    })
}

fn read(chain_file: &Path, key_file: &Path) -> Result<CertifiedKey, Error> {
    let chain = CertificateDer::pem_file_iter(chain_file)
        .and_then(|certificates| certificates.collect::<Result<Vec<_>, _>>())
        .map_err(|error| unusable(chain_file, error))?;
    if chain.is_empty() {
        return Err(unusable(chain_file, "it has no certificate"));
    }
    let key = PrivateKeyDer::from_pem_file(key_file).map_err(|error| unusable(key_file, error))?;
    CertifiedKey::from_der(chain, key, &provider()).map_err(|error| unusable(chain_file, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_certificate_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        let testdata = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/testdata"));
        let put = |name: &str, chain_end: &str, key_end: &str| {
            let copy = |end: &str, to: &Path| std::fs::copy(testdata.join(format!("{name}.{end}")), to);
            for (end, to) in [(chain_end, &chain), (key_end, &key)] {
                if !end.is_empty() {
                    copy(end, to).expect("a copy");
                }
            }
        };
        put("localhost", "pem", "key");
        let certificate = Certificate::load(&chain, &key).expect("a certificate");
        let served = || certificate.current.read().1.cert[0].clone();
        let first = served();
        assert!(!certificate.refresh().expect("nothing changed"));
        // One file is written before the other: they do not fit, and what was there is served on.
        put("other", "pem", "");
        certificate.refresh().expect_err("the key is not its own");
        assert_eq!(served(), first);
        put("other", "", "key");
        assert!(certificate.refresh().expect("a new certificate"));
        assert_ne!(served(), first);
        std::fs::remove_file(&chain).expect("removed");
        certificate.refresh().expect_err("it is gone");
        assert_ne!(served(), first);
    }

    #[test]
    fn unusable_files_are_named() {
        let folder = tempfile::tempdir().expect("a folder");
        let (chain, key) = (folder.path().join("chain.pem"), folder.path().join("key.pem"));
        for content in [
            "",
            "not PEM",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            std::fs::write(&chain, content).expect("a file");
            let error = Certificate::load(&chain, &key).expect_err("unusable").to_string();
            assert!(error.contains(".pem"), "{error}");
        }
        assert!(Certificate::load(&folder.path().join("missing"), &key).is_err());
    }
}
