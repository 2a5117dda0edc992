//! Why a client is refused, from the TLS library's errors to one sentence for the log:
//! what was wrong, where, what to do. Pure; no key and no certificate is in it.

use std::io;

use actuator_proto::limits::{MAX_STRING_BYTES, bounded_text};
use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;

use super::tls::TlsFiles;

/// What a client that begins with TLS is told about plain TCP, in the log.
pub(crate) const TLS_ON_PLAIN_TCP: &str = "the client speaks TLS and this provider serves plain TCP; start it with --tls-cert, --tls-key and \
     --tls-client-ca, or let the client use http://";

/// Why the handshake failed.
pub(crate) fn explain(error: &io::Error, files: &TlsFiles) -> String {
    let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
        return format!("the client ended the connection during the TLS handshake ({error}); look at the client");
    };
    match inner {
        rustls::Error::NoCertificatesPresented => {
            "the client shows no certificate; give it one that an authority in --tls-client-ca has signed".to_owned()
        }
        rustls::Error::InvalidCertificate(error) => certificate(error, files),
        rustls::Error::InvalidMessage(_) => {
            "the client does not speak TLS; let it use https:// with a certificate".to_owned()
        }
        rustls::Error::AlertReceived(alert) => alerted(*alert, files),
        other => format!("the TLS handshake failed: {other}; look at what the client supports"),
    }
}

fn certificate(error: &CertificateError, files: &TlsFiles) -> String {
    match error {
        CertificateError::Expired => "the client's certificate has expired; renew it".to_owned(),
        CertificateError::ExpiredContext { not_after, .. } => format!(
            "the client's certificate has expired on {}; renew it, and look at the clocks of both machines",
            day(*not_after)
        ),
        CertificateError::NotValidYet => "the client's certificate is not valid yet; look at the clocks".to_owned(),
        CertificateError::NotValidYetContext { not_before, .. } => format!(
            "the client's certificate is not valid yet, it begins on {}; look at the clocks of both machines",
            day(*not_before)
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => format!(
            "the client's certificate is not signed by any authority in {}; put its authority there, or give the \
             client a certificate of that authority",
            files.client_authorities.display()
        ),
        CertificateError::NotValidForNameContext { presented, .. } => {
            let presented = bounded_text(&presented.join(", "), MAX_STRING_BYTES);
            let allowed = files.client_names.join(", ");
            format!(
                "the client's certificate carries the names [{presented}], and allowed are [{allowed}]; add one with \
                 --tls-client-name, or use another certificate"
            )
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the client's certificate is not for clients; issue one with the usage clientAuth".to_owned()
        }
        other => format!("the client's certificate cannot be used: {other}; issue another one"),
    }
}

/// The client does not take the server's certificate.
fn alerted(alert: AlertDescription, files: &TlsFiles) -> String {
    let because = match alert {
        AlertDescription::CertificateExpired => "it has expired, or is not valid yet; renew it",
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "no authority that the client knows has signed it; use one that they have signed"
        }
        AlertDescription::BadCertificate => {
            "most likely it does not carry the name that the client has pinned; use one that does"
        }
        other => return format!("the client does not go on with TLS (alert {other:?}); look at the client's log"),
    };
    format!(
        "the client refuses this provider's certificate in {}: {because}",
        files.certificate.display()
    )
}

fn day(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a day that no calendar has".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_says_what_is_wrong_and_what_to_do() {
        let files = TlsFiles {
            certificate: "/tls/tls.crt".into(),
            key: "/tls/tls.key".into(),
            client_authorities: "/tls/ca.crt".into(),
            client_names: vec!["core.example".to_owned()],
        };
        let bad = rustls::Error::InvalidCertificate;
        for (error, words) in [
            (rustls::Error::NoCertificatesPresented, "shows no certificate"),
            (bad(CertificateError::UnknownIssuer), "/tls/ca.crt"),
            (
                bad(CertificateError::ExpiredContext {
                    time: UnixTime::since_unix_epoch(std::time::Duration::from_secs(2_000_000_000)),
                    not_after: UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_000_000_000)),
                }),
                "expired on 2001-09-09",
            ),
            (
                bad(CertificateError::NotValidForNameContext {
                    expected: "core.example".try_into().unwrap(),
                    presented: vec!["other.example".to_owned()],
                }),
                "[other.example], and allowed are [core.example]",
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "does not speak TLS",
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::CertificateExpired),
                "/tls/tls.crt: it has expired",
            ),
        ] {
            let told = explain(&io::Error::new(io::ErrorKind::InvalidData, error), &files);
            assert!(told.contains(words), "{words}: {told}");
        }
    }
}
