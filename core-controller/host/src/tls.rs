//! Mutual TLS to a provider: the core shows its certificate, trusts the authorities
//! that were given and no others, and pins the provider's name. Certificates are renewed
//! while the core runs, file by file: what is not whole is left alone until it is.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::Resumption;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use sha2::{Digest as _, Sha256};

use crate::config::{Pem, TlsFiles};

/// The largest PEM, in bytes.
const MAX_PEM_BYTES: u64 = 1024 * 1024;

/// The newest certificates that were whole. One for each provider.
#[derive(Default)]
pub(crate) struct Certificates {
    good: Option<Usable>,
    bad: Option<Unusable>,
}

/// How to connect, and what it was made of.
#[derive(Clone)]
pub(crate) struct Usable {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) fingerprint: [u8; 32],
}

/// What was found and cannot be used.
struct Unusable {
    fingerprint: [u8; 32],
    why: String,
}

/// What there is to connect with now.
pub(crate) struct Newest {
    pub(crate) usable: Usable,
    /// Why these are not what lies there now, if they are not.
    pub(crate) left_alone: Option<String>,
}

impl Certificates {
    /// What to connect with; an error when nothing ever was whole.
    pub(crate) async fn newest(&mut self, files: &TlsFiles) -> Result<Newest, String> {
        let found = match Material::read(files).await {
            Ok(material) => self.take(&material),
            Err(why) => Err(why),
        };
        match (found, &self.good) {
            (Ok(usable), _) => Ok(Newest {
                usable,
                left_alone: None,
            }),
            (Err(why), Some(usable)) => Ok(Newest {
                usable: usable.clone(),
                left_alone: Some(why),
            }),
            (Err(why), None) => Err(why),
        }
    }

    /// Makes the most of what was read; the same again costs nothing.
    fn take(&mut self, material: &Material) -> Result<Usable, String> {
        let fingerprint = material.fingerprint();
        if let Some(good) = self.good.as_ref().filter(|good| good.fingerprint == fingerprint) {
            return Ok(good.clone());
        }
        if let Some(bad) = self.bad.as_ref().filter(|bad| bad.fingerprint == fingerprint) {
            return Err(bad.why.clone());
        }
        match material.client_config() {
            Ok(client) => {
                let usable = Usable {
                    client: Arc::new(client),
                    fingerprint,
                };
                self.good = Some(usable.clone());
                self.bad = None;
                Ok(usable)
            }
            Err(why) => {
                self.bad = Some(Unusable {
                    fingerprint,
                    why: why.clone(),
                });
                Err(why)
            }
        }
    }
}

/// The PEMs as they are now.
pub(crate) struct Material {
    files: [String; 3],
    ca: Vec<u8>,
    certificate: Vec<u8>,
    key: Vec<u8>,
}

impl Material {
    /// Reads the PEMs; the error says which and what to do.
    pub(crate) async fn read(files: &TlsFiles) -> Result<Self, String> {
        Ok(Self {
            files: [&files.ca, &files.certificate, &files.key].map(ToString::to_string),
            ca: read("the authorities", &files.ca).await?,
            certificate: read("the core's certificate", &files.certificate).await?,
            key: read("the core's key", &files.key).await?,
        })
    }

    /// Another value when one of them was changed.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for part in [&self.ca, &self.certificate, &self.key] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// How to connect with them.
    fn client_config(&self) -> Result<ClientConfig, String> {
        let [ca, certificate, key_file] = &self.files;
        let mut roots = rustls::RootCertStore::empty();
        for certificate in certificates("the authorities", ca, &self.ca)? {
            roots
                .add(certificate)
                .map_err(|error| format!("one of the authorities in {ca} cannot be used: {error}; write it anew"))?;
        }
        let chain = certificates("the core's certificate", certificate, &self.certificate)?;
        // What the reader says might quote the key.
        let key = PrivateKeyDer::from_pem_slice(&self.key)
            .map_err(|_| format!("{key_file} holds no whole private key in PEM; write it anew"))?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .map_err(|error| {
                format!("the certificate in {certificate} and the key in {key_file} do not belong together: {error}; write both anew")
            })?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        // Each connection looks at the certificates: a session that is resumed would not.
        config.resumption = Resumption::disabled();
        Ok(config)
    }
}

/// The name that the provider's certificate must be valid for.
pub(crate) fn server_name(files: &TlsFiles, host: &str) -> Result<ServerName<'static>, String> {
    let name = files.server_name.as_deref().unwrap_or(host);
    ServerName::try_from(name.to_owned())
        .map_err(|_| format!("{name:?} is no server name; use a DNS name or an address"))
}

fn certificates(what: &str, place: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match certificates {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(format!("{place} holds {what} not whole, or not in PEM; write it anew")),
    }
}

async fn read(what: &str, pem: &Pem) -> Result<Vec<u8>, String> {
    let path = match pem {
        Pem::Bytes { bytes, .. } => return Ok(bytes.to_vec()),
        Pem::File(path) => path,
    };
    let complain = |error: std::io::Error| {
        format!(
            "{what} cannot be read from {}: {error}; write it there, readable for the core",
            path.display()
        )
    };
    let length = tokio::fs::metadata(path).await.map_err(complain)?.len();
    if length > MAX_PEM_BYTES {
        return Err(format!(
            "{what} in {} is larger than 1 MiB; write it anew",
            path.display()
        ));
    }
    tokio::fs::read(path).await.map_err(complain)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["core.test".to_owned()])
            .unwrap()
            .self_signed(&key)
            .unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    fn files((certificate, key): &(String, String)) -> TlsFiles {
        let pem = |name: &str, text: &str| Pem::Bytes {
            bytes: text.as_bytes().into(),
            from: format!("{name} of the Secret a/b").into(),
        };
        TlsFiles {
            ca: pem("ca.crt", certificate),
            certificate: pem("tls.crt", certificate),
            key: pem("tls.key", key),
            server_name: None,
        }
    }

    #[tokio::test]
    async fn what_is_not_whole_is_left_alone_until_it_is() {
        let (first, second) = (pair(), pair());
        let mut certificates = Certificates::default();
        let half = first.0[..first.0.len() / 2].to_owned();
        let error = certificates
            .newest(&files(&(half.clone(), first.1.clone())))
            .await
            .err()
            .unwrap();
        assert!(
            error.contains("ca.crt of the Secret a/b") && error.contains("write it anew"),
            "{error}"
        );

        let good = certificates.newest(&files(&first)).await.unwrap();
        assert_eq!(good.left_alone, None);
        // The new certificate is written, the new key is not yet; then half of a key.
        let half_key = second.1[..second.1.len() / 2].to_owned();
        for (wrong, words) in [
            ((second.0.clone(), first.1.clone()), "do not belong together"),
            ((second.0.clone(), half_key), "no whole private key"),
            ((half, second.1.clone()), "not whole"),
        ] {
            let newest = certificates.newest(&files(&wrong)).await.unwrap();
            assert_eq!(
                newest.usable.fingerprint, good.usable.fingerprint,
                "the former ones stay"
            );
            let why = newest.left_alone.unwrap();
            assert!(why.contains(words), "{why}");
            assert!(!why.contains(wrong.1.lines().nth(1).unwrap()), "a key is told: {why}");
        }
        let newest = certificates.newest(&files(&second)).await.unwrap();
        assert_ne!(newest.usable.fingerprint, good.usable.fingerprint);
        assert_eq!(newest.left_alone, None);
    }

    #[test]
    fn bytes_are_never_printed() {
        let (_, key) = pair();
        let printed = format!("{:?}", files(&("certificate".to_owned(), key.clone())));
        assert!(
            !printed.contains(key.lines().nth(1).unwrap()) && printed.contains("[redacted]"),
            "{printed}"
        );
    }
}
