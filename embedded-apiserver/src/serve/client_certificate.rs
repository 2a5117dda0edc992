//! Who the client's certificate names.
//!
//! A certificate that is not good does not end the handshake, as with the real server: the client is told with a 401,
//! and a token may still let it in.

use std::sync::Arc;

use jiff::Timestamp;
use rustls::DigitallySignedStruct;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{DistinguishedName, SignatureScheme};
use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest as _, Sha256};
use x509_parser::oid_registry::{Oid, asn1_rs::oid};

use crate::access::{Caller, User};

/// The part of a subject that becomes the user's UID.
const USER_ID: Oid<'static> = oid!(1.3.6.1.4.1.57683.2);

/// Lets every certificate through that its sender has the key of; what it is worth is judged after the handshake.
#[derive(Debug)]
pub(super) struct ProofOfKey(pub(super) Arc<dyn ClientCertVerifier>);

impl ClientCertVerifier for ProofOfKey {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.0.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// What a connection's certificate says, and for how long.
#[derive(Clone, Debug)]
pub(super) struct Peer {
    caller: Caller,
    ends: Option<Timestamp>,
}

impl Peer {
    /// Judges the chain that the client showed, if it showed any.
    pub(super) fn new(verifier: &dyn ClientCertVerifier, chain: Option<&[CertificateDer<'_>]>) -> Self {
        let fixed = |caller| Self { caller, ends: None };
        let Some((certificate, intermediates)) = chain.and_then(<[_]>::split_first) else {
            return fixed(Caller::Unknown);
        };
        if let Err(error) = verifier.verify_client_cert(certificate, intermediates, UnixTime::now()) {
            return fixed(Caller::Rejected(format!("verifying certificate failed: {error}")));
        }
        let Ok((_, parsed)) = x509_parser::parse_x509_certificate(certificate) else {
            return fixed(Caller::Rejected("the certificate cannot be read".to_owned()));
        };
        Self {
            caller: match user(&parsed, certificate) {
                Some(user) => Caller::Known(user),
                None => Caller::Unknown,
            },
            ends: Timestamp::from_second(parsed.validity().not_after.timestamp()).ok(),
        }
    }

    /// Who it is now: a connection may outlast the certificate.
    pub(super) fn caller(&self, now: Timestamp) -> Caller {
        if self.ends.is_some_and(|end| end < now) {
            return Caller::Rejected("verifying certificate failed: it has expired".to_owned());
        }
        self.caller.clone()
    }
}

/// The common name is the user, the organizations are the groups.
fn user(certificate: &x509_parser::certificate::X509Certificate<'_>, der: &[u8]) -> Option<User> {
    let subject = certificate.subject();
    let name = subject
        .iter_common_name()
        .filter_map(|name| name.as_str().ok())
        .last()?;
    if name.is_empty() {
        return None;
    }
    let groups = subject
        .iter_organization()
        .filter_map(|name| name.as_str().ok())
        .map(str::to_owned);
    let mut user = User::from_certificate(name.to_owned(), groups.collect());
    if let Some(uid) = subject.iter_by_oid(&USER_ID).find_map(|value| value.as_str().ok()) {
        uid.clone_into(&mut user.uid);
    }
    Some(user.with_credential(format!("X509SHA256={}", hex::encode(Sha256::digest(der)))))
}
