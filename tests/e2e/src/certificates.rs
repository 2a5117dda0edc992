//! An authority of a test's own and the certificates that it signs, in folders that are
//! changed as kubelet changes a mounted Secret: one link, swapped at once.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

/// An authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
#[derive(Clone)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

/// From which year to which year.
pub type Years = (i32, i32);

/// Valid for as long as any test runs.
pub const NOW: Years = (2020, 2090);

impl Authority {
    /// One of this name.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut parameters = CertificateParams::new(Vec::new())?;
        parameters.distinguished_name.push(DnType::CommonName, name);
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(Self(CertifiedIssuer::self_signed(parameters, KeyPair::generate()?)?))
    }

    /// Its own certificate.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Signs a certificate for a name.
    pub fn issue(&self, name: &str, (from, to): Years) -> anyhow::Result<Pair> {
        let mut parameters = CertificateParams::new(vec![name.to_owned()])?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = rcgen::date_time_ymd(from, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(to, 1, 1);
        let key = KeyPair::generate()?;
        Ok(Pair {
            certificate: parameters.signed_by(&key, &self.0)?.pem(),
            key: key.serialize_pem(),
        })
    }
}

/// A folder with `ca.crt`, `tls.crt` and `tls.key`, as a mounted Secret is: the three are
/// links through `..data`, which leads to the newest version.
#[derive(Debug)]
pub struct Mounted {
    folder: PathBuf,
    version: u32,
}

impl Mounted {
    /// Makes the folder with its first version.
    pub fn new(folder: &Path, authorities: &str, pair: &Pair) -> anyhow::Result<Self> {
        std::fs::create_dir_all(folder)?;
        let mut mounted = Self {
            folder: folder.to_owned(),
            version: 0,
        };
        mounted.swap(authorities, pair)?;
        for name in ["ca.crt", "tls.crt", "tls.key"] {
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name))?;
        }
        Ok(mounted)
    }

    /// Puts another version in place, in one step.
    pub fn swap(&mut self, authorities: &str, pair: &Pair) -> anyhow::Result<()> {
        self.version += 1;
        let name = format!("..version-{}", self.version);
        let version = self.folder.join(&name);
        std::fs::create_dir(&version)?;
        std::fs::write(version.join("ca.crt"), authorities)?;
        std::fs::write(version.join("tls.crt"), &pair.certificate)?;
        std::fs::write(version.join("tls.key"), &pair.key)?;
        let link = self.folder.join("..data-new");
        std::os::unix::fs::symlink(&name, &link)?;
        std::fs::rename(&link, self.folder.join("..data")).context("failed to swap the certificates")
    }

    /// The path of one of the three.
    pub fn path(&self, name: &str) -> String {
        self.folder.join(name).to_string_lossy().into_owned()
    }

    /// The folder itself.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}
