//! The certificate authority, the server's certificate and the administrator's, and the key of service account tokens:
//! made, kept, renewed.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData as _, SanType,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls::server::danger::ClientCertVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::ServeError;
use super::client_certificate::ProofOfKey;
use crate::access::{ADMIN, Keys, MASTERS, SigningKey};

/// How long certificates last, in days.
const LEAF_DAYS: i64 = 365;
const AUTHORITY_DAYS: i64 = 3650;
/// Certificates that end within this many days are made anew.
const RENEWAL_DAYS: i64 = 30;

/// A certificate with its key.
pub(super) struct Credential {
    pub(super) certificate_pem: String,
    pub(super) key_pem: String,
}

// Keys must not get into logs.
impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Credential { [redacted] }")
    }
}

/// How connections are secured.
pub(super) struct Tls {
    /// TLS 1.2 and up.
    pub(super) config: Arc<rustls::ServerConfig>,
    /// Judges the certificates of clients.
    pub(super) client_certificates: Arc<dyn ClientCertVerifier>,
}

/// The identity of a server.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) authority_pem: String,
    pub(super) server: Credential,
    pub(super) admin: Credential,
}

impl Identity {
    /// Reads the identity from a folder and makes what is missing, ends soon or does not fit the address.
    pub(super) fn load_or_make(folder: &Path, address: IpAddr) -> Result<Self, ServeError> {
        let failed = |reason: String| ServeError::Certificate {
            path: folder.display().to_string(),
            reason,
        };
        create_private_folder(folder)?;
        let kept = read_credential(folder, "ca")?.filter(|kept| lasts(&kept.certificate_pem, RENEWAL_DAYS, None));
        let authority = match kept {
            Some(kept) => kept,
            None => {
                let made = make_authority().map_err(|error| failed(error.to_string()))?;
                write_credential(folder, "ca", &made)?;
                made
            }
        };
        let leaf = |name: &str, params: CertificateParams, address: Option<IpAddr>| {
            let kept = read_credential(folder, name)?
                .filter(|kept| is_signed_by(kept, &authority) && lasts(&kept.certificate_pem, RENEWAL_DAYS, address));
            if let Some(kept) = kept {
                return Ok(kept);
            }
            let made = sign(params, &authority).map_err(|error| failed(error.to_string()))?;
            write_credential(folder, name, &made)?;
            Ok::<Credential, ServeError>(made)
        };
        let server = leaf(
            "server",
            server_params(address).map_err(|error| failed(error.to_string()))?,
            Some(address),
        )?;
        let admin = leaf("admin", admin_params(), None)?;
        Ok(Self {
            authority_pem: authority.certificate_pem,
            server,
            admin,
        })
    }

    /// The TLS configuration: TLS 1.2 and up, client certificates of our authority welcome but not required.
    pub(super) fn tls(&self, folder: &Path) -> Result<Tls, ServeError> {
        let failed = |error: &dyn std::fmt::Display| ServeError::Certificate {
            path: folder.display().to_string(),
            reason: error.to_string(),
        };
        let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| failed(&error));
        let authority = certificate(&self.authority_pem)?;
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).map_err(|error| failed(&error))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .allow_unauthenticated()
            .build()
            .map_err(|error| failed(&error))?;
        let key = PrivateKeyDer::from_pem_slice(self.server.key_pem.as_bytes()).map_err(|error| failed(&error))?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?
            .with_client_cert_verifier(Arc::new(ProofOfKey(Arc::clone(&verifier))))
            .with_single_cert(vec![certificate(&self.server.certificate_pem)?, authority], key)
            .map_err(|error| failed(&error))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Tls {
            config: Arc::new(config),
            client_certificates: verifier,
        })
    }
}

fn validity(params: &mut CertificateParams, days: i64) {
    let now = jiff::Timestamp::now();
    let at = |days: i64| {
        let date = (now + jiff::SignedDuration::from_hours(days * 24))
            .to_zoned(jiff::tz::TimeZone::UTC)
            .date();
        rcgen::date_time_ymd(i32::from(date.year()), date.month() as u8, date.day() as u8)
    };
    // Since yesterday: clocks differ.
    params.not_before = at(-1);
    params.not_after = at(days);
}

fn named(common_name: &str, organization: Option<&str>) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name
}

fn make_authority() -> Result<Credential, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::default();
    params.distinguished_name = named("outrigger-ca", None);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::DigitalSignature,
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
    ];
    validity(&mut params, AUTHORITY_DAYS);
    let certificate = params.self_signed(&key)?;
    Ok(Credential {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

fn server_params(address: IpAddr) -> Result<CertificateParams, rcgen::Error> {
    let mut names = vec![
        "localhost".to_owned(),
        "kubernetes".to_owned(),
        "kubernetes.default.svc".to_owned(),
    ];
    let mut addresses: Vec<IpAddr> = vec![[127, 0, 0, 1].into(), std::net::Ipv6Addr::LOCALHOST.into()];
    if !address.is_unspecified() && !addresses.contains(&address) {
        addresses.push(address);
    }
    names.dedup();
    let mut params = CertificateParams::new(names)?;
    params
        .subject_alt_names
        .extend(addresses.into_iter().map(SanType::IpAddress));
    params.distinguished_name = named("outrigger-apiserver", None);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn admin_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = named(ADMIN, Some(MASTERS));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params
}

fn sign(mut params: CertificateParams, authority: &Credential) -> Result<Credential, rcgen::Error> {
    validity(&mut params, LEAF_DAYS);
    params.use_authority_key_identifier_extension = true;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate_pem, KeyPair::from_pem(&authority.key_pem)?)?;
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &issuer)?;
    Ok(Credential {
        certificate_pem: certificate.pem(),
        key_pem: key.serialize_pem(),
    })
}

/// Whether a certificate can be read, lasts some days more, and is good for the address.
fn lasts(pem: &str, days: i64, address: Option<IpAddr>) -> bool {
    let Ok((_, block)) = x509_parser::pem::parse_x509_pem(pem.as_bytes()) else {
        return false;
    };
    let Ok(certificate) = block.parse_x509() else {
        return false;
    };
    let needed = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(days * 24);
    let fits = |address: IpAddr| {
        let octets: Vec<u8> = match address {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        let names = certificate.subject_alternative_name().ok().flatten();
        names.is_some_and(|names| {
            names.value.general_names.iter().any(
                |name| matches!(name, x509_parser::extensions::GeneralName::IPAddress(found) if **found == *octets),
            )
        })
    };
    certificate.validity().not_after.timestamp() > needed.as_second()
        && address.is_none_or(|address| address.is_unspecified() || fits(address))
}

fn file_error(path: &Path) -> impl FnOnce(std::io::Error) -> ServeError {
    let path = path.display().to_string();
    move |source| ServeError::File { path, source }
}

fn create_private_folder(folder: &Path) -> Result<(), ServeError> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder).map_err(file_error(folder))
}

/// Whether a certificate names the key of this authority as the one that signed it.
fn is_signed_by(kept: &Credential, authority: &Credential) -> bool {
    use x509_parser::extensions::ParsedExtension;
    let key_of = |credential: &Credential, signer: bool| {
        let (_, block) = x509_parser::pem::parse_x509_pem(credential.certificate_pem.as_bytes()).ok()?;
        let certificate = block.parse_x509().ok()?;
        certificate
            .iter_extensions()
            .find_map(|extension| match extension.parsed_extension() {
                ParsedExtension::SubjectKeyIdentifier(id) if !signer => Some(id.0.to_vec()),
                ParsedExtension::AuthorityKeyIdentifier(id) if signer => {
                    id.key_identifier.as_ref().map(|id| id.0.to_vec())
                }
                _ => None,
            })
    };
    let signer = key_of(kept, true);
    signer.is_some() && signer == key_of(authority, false)
}

fn read(path: &Path) -> Result<Option<String>, ServeError> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error(path)(error)),
    }
}

/// Reads a file that only its owner may read; if others may, they no longer may.
fn read_private(path: &Path) -> Result<Option<String>, ServeError> {
    let text = read(path)?;
    #[cfg(unix)]
    if text.is_some() {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(path).map_err(file_error(path))?.permissions().mode();
        if mode & 0o077 != 0 {
            tracing::warn!(path = %path.display(), "a private file could be read by others; now it cannot");
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).map_err(file_error(path))?;
        }
    }
    Ok(text)
}

/// A certificate and its key, if both are there. What is there has to make sense: it is not for us to throw away.
fn read_credential(folder: &Path, name: &str) -> Result<Option<Credential>, ServeError> {
    let (certificate, key) = (folder.join(format!("{name}.crt")), folder.join(format!("{name}.key")));
    let (Some(certificate_pem), Some(key_pem)) = (read(&certificate)?, read_private(&key)?) else {
        return Ok(None);
    };
    let unusable = |path: &Path, reason: String| ServeError::Unusable {
        path: path.display().to_string(),
        reason,
    };
    let pair =
        KeyPair::from_pem(&key_pem).map_err(|error| unusable(&key, format!("it holds no private key ({error})")))?;
    let (_, block) = x509_parser::pem::parse_x509_pem(certificate_pem.as_bytes())
        .map_err(|error| unusable(&certificate, format!("it holds no certificate ({error})")))?;
    let parsed = block
        .parse_x509()
        .map_err(|error| unusable(&certificate, format!("it holds no certificate ({error})")))?;
    if parsed.public_key().raw != pair.subject_public_key_info() {
        return Err(unusable(
            &certificate,
            format!("it is not for the key in {}", key.display()),
        ));
    }
    Ok(Some(Credential {
        certificate_pem,
        key_pem,
    }))
}

/// Takes the key of service account tokens from the folder, or keeps the present one there.
pub(super) fn keep_signing_key(folder: &Path, keys: &Keys) -> Result<(), ServeError> {
    let path = folder.join("service-account.key");
    if let Some(pem) = read_private(&path)? {
        let key = SigningKey::from_pem(&pem).map_err(|error| ServeError::Unusable {
            path: path.display().to_string(),
            reason: error.to_string(),
        })?;
        keys.adopt(key);
    } else if let Some(key) = keys.signing() {
        write_private(&path, key.pem().as_bytes())?;
    }
    Ok(())
}

fn write_credential(folder: &Path, name: &str, credential: &Credential) -> Result<(), ServeError> {
    write_private(&folder.join(format!("{name}.key")), credential.key_pem.as_bytes())?;
    write_private(
        &folder.join(format!("{name}.crt")),
        credential.certificate_pem.as_bytes(),
    )
}

/// Writes a file that only its owner may read, whole or not at all.
pub(super) fn write_private(path: &Path, content: &[u8]) -> Result<(), ServeError> {
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    let write = || {
        std::fs::create_dir_all(folder)?;
        // What a crash left has its old mode; this one starts anew.
        if temporary.exists() {
            std::fs::remove_file(&temporary)?;
        }
        let mut options = std::fs::OpenOptions::new();
        options.create_new(true).write(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let mut file = options.open(&temporary)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(file_error(path))
}
