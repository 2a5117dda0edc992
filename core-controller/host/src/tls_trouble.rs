//! What went wrong with TLS, from the library's errors to a reason and one sentence: what
//! was wrong, where, what to do. Pure.

use std::error::Error as StdError;
use std::io;

use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError};
use rustls_pki_types::UnixTime;

use crate::config::{EndpointConfig, TlsFiles};
use crate::trouble::{TlsReason, Trouble};

/// The error of TLS under another error, if there is one.
pub(crate) fn under<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(found);
        }
        next = match wrapped {
            Some(inner) => Some(inner as &(dyn StdError + 'static)),
            None => error.source(),
        };
    }
    None
}

/// A handshake that failed.
pub(crate) fn handshake(config: &EndpointConfig, files: &TlsFiles, name: &str, error: &io::Error) -> Trouble {
    let at = &config.endpoint;
    match under(error) {
        Some(rustls::Error::InvalidCertificate(reason)) => certificate(config, files, name, reason),
        Some(rustls::Error::AlertReceived(alert)) => alerted(config, files, *alert),
        Some(rustls::Error::InvalidMessage(_)) => Trouble::Tls(
            TlsReason::NotSpoken,
            format!(
                "what answers at {at} does not speak TLS; start the provider with --tls-cert, --tls-key and \
                 --tls-client-ca, or correct the endpoint"
            ),
        ),
        Some(other) => Trouble::Tls(
            TlsReason::Failed,
            format!("no TLS with {at}: {other}; look at what the provider supports and at its log"),
        ),
        None => Trouble::Unreachable(format!(
            "the connection to {at} ended during the TLS handshake ({error}); look at the provider's log"
        )),
    }
}

fn certificate(config: &EndpointConfig, files: &TlsFiles, name: &str, error: &CertificateError) -> Trouble {
    let at = &config.endpoint;
    let (reason, message) = match error {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => (
            TlsReason::ProviderExpired,
            format!(
                "the certificate of the provider at {at} has expired{}; renew it there (--tls-cert), and look at the \
                 clocks of both machines",
                match error {
                    CertificateError::ExpiredContext { not_after, .. } => format!(" on {}", day(*not_after)),
                    _ => String::new(),
                }
            ),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => (
            TlsReason::ProviderNotYetValid,
            format!(
                "the certificate of the provider at {at} is not valid yet{}; look at the clocks of both machines, or \
                 issue another one",
                match error {
                    CertificateError::NotValidYetContext { not_before, .. } =>
                        format!(", it begins on {}", day(*not_before)),
                    _ => String::new(),
                }
            ),
        ),
        CertificateError::UnknownIssuer | CertificateError::BadSignature => (
            TlsReason::ProviderUntrusted,
            format!(
                "the certificate of the provider at {at} is not signed by any authority in {}; put its authority \
                 there, or give the provider a certificate of that authority",
                files.ca
            ),
        ),
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => (
            TlsReason::ProviderNameMismatch,
            format!(
                "the certificate of the provider at {at} is not valid for the name {name:?}{}; correct the pinned \
                 server name, or give the provider a certificate with that name",
                match error {
                    CertificateError::NotValidForNameContext { presented, .. } => carried(presented),
                    _ => String::new(),
                }
            ),
        ),
        other => (
            TlsReason::ProviderInvalid,
            format!("the certificate of the provider at {at} cannot be used: {other}; issue another one"),
        ),
    };
    Trouble::Tls(reason, message)
}

/// The provider says by an alert why it does not go on, which under TLS 1.3 comes only
/// after the handshake.
pub(crate) fn alerted(config: &EndpointConfig, files: &TlsFiles, alert: AlertDescription) -> Trouble {
    let at = &config.endpoint;
    let ours = &files.certificate;
    let because = match alert {
        AlertDescription::CertificateExpired => {
            "it has expired, or is not valid yet; renew it, and look at the clocks of both machines"
        }
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "no authority that the provider knows (--tls-client-ca) has signed it; use one that they have signed"
        }
        AlertDescription::BadCertificate | AlertDescription::AccessDenied => {
            "most likely it carries none of the names that the provider allows (--tls-client-name); use one that does"
        }
        AlertDescription::CertificateRequired => "the provider got none; look whether the file holds one",
        AlertDescription::UnsupportedCertificate => "it is not for clients; issue one with the usage clientAuth",
        AlertDescription::CertificateRevoked => "it was revoked; use another one",
        AlertDescription::CertificateUnknown => "the provider's log says why",
        other => {
            return Trouble::Tls(
                TlsReason::Failed,
                format!("{at} does not go on with TLS (alert {other:?}); look at the provider's log"),
            );
        }
    };
    Trouble::Tls(
        TlsReason::CoreRefused,
        format!("the provider at {at} refuses the core's certificate in {ours}: {because}"),
    )
}

/// TLS was answered where it was not spoken.
pub(crate) fn required(config: &EndpointConfig) -> Trouble {
    Trouble::Tls(
        TlsReason::Required,
        format!(
            "what answers at {} speaks TLS; use https:// with certificates, or start the provider with \
             --insecure-plain-tcp",
            config.endpoint
        ),
    )
}

/// The names of a certificate, as far as there is room for them.
fn carried(names: &[String]) -> String {
    const SHOWN: usize = 5;
    if names.is_empty() {
        return ", and carries no name at all".to_owned();
    }
    // The library writes `DnsName("a.example")`.
    let plain = |name: &String| match name.split_once("(\"").and_then(|(_, rest)| rest.strip_suffix("\")")) {
        Some(inner) => inner.to_owned(),
        None => name.clone(),
    };
    let mut list = names.iter().take(SHOWN).map(plain).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        list.push_str(", …");
    }
    // What another process sent is bounded and printable before it is shown.
    let list = actuator_proto::limits::bounded_text(&list, actuator_proto::limits::MAX_STRING_BYTES);
    format!(" but for {list}")
}

fn day(time: UnixTime) -> String {
    i64::try_from(time.as_secs())
        .ok()
        .and_then(|seconds| Timestamp::from_second(seconds).ok())
        .map_or_else(|| "a day that no calendar has".to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use rustls_pki_types::ServerName;

    use super::*;
    use crate::config::{EndpointSource, Pem};

    fn config() -> (EndpointConfig, TlsFiles) {
        let file = |name: &str| Pem::File(format!("/etc/actuator/{name}").into());
        let files = TlsFiles {
            ca: file("ca.crt"),
            certificate: file("tls.crt"),
            key: file("tls.key"),
            server_name: None,
        };
        let endpoint = "https://provider.example:8443".parse().unwrap();
        (EndpointConfig::new(endpoint, EndpointSource::Flag), files)
    }

    fn told(error: rustls::Error) -> (&'static str, String) {
        let (config, files) = config();
        let error = io::Error::new(io::ErrorKind::InvalidData, error);
        let trouble = handshake(&config, &files, "provider.example", &error);
        (trouble.reason(), trouble.message().to_owned())
    }

    #[test]
    fn each_refusal_has_a_reason_a_place_and_a_way_out() {
        let at = |seconds| UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
        let bad = rustls::Error::InvalidCertificate;
        for (error, reason, words) in [
            (
                bad(CertificateError::ExpiredContext {
                    time: at(2_000_000_000),
                    not_after: at(1_000_000_000),
                }),
                "ProviderCertificateExpired",
                vec!["has expired on 2001-09-09", "renew it"],
            ),
            (
                bad(CertificateError::NotValidYetContext {
                    time: at(1_000_000_000),
                    not_before: at(2_000_000_000),
                }),
                "ProviderCertificateNotYetValid",
                vec!["begins on 2033-05-18", "clocks"],
            ),
            (
                bad(CertificateError::UnknownIssuer),
                "ProviderCertificateUntrusted",
                vec!["/etc/actuator/ca.crt"],
            ),
            (
                bad(CertificateError::NotValidForNameContext {
                    expected: ServerName::try_from("provider.example").unwrap(),
                    presented: vec!["DnsName(\"other.example\")".to_owned()],
                }),
                "ProviderNameMismatch",
                vec!["\"provider.example\"", "but for other.example"],
            ),
            (
                bad(CertificateError::BadEncoding),
                "ProviderCertificateInvalid",
                vec!["issue another one"],
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::UnknownCA),
                "CoreCertificateRefused",
                vec!["/etc/actuator/tls.crt", "--tls-client-ca"],
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::BadCertificate),
                "CoreCertificateRefused",
                vec!["--tls-client-name"],
            ),
            (
                rustls::Error::AlertReceived(AlertDescription::ProtocolVersion),
                "TLSFailed",
                vec!["ProtocolVersion"],
            ),
            (
                rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType),
                "TLSNotSpoken",
                vec!["does not speak TLS", "--tls-cert"],
            ),
        ] {
            let (found, message) = told(error);
            assert_eq!(found, reason, "{message}");
            assert!(message.contains("https://provider.example:8443"), "{message}");
            for words in words {
                assert!(message.contains(words), "{words}: {message}");
            }
        }
    }

    #[test]
    fn an_end_without_a_word_is_no_mistake_of_the_config() {
        let (config, files) = config();
        let error = io::Error::from(io::ErrorKind::UnexpectedEof);
        assert_eq!(
            handshake(&config, &files, "provider.example", &error).reason(),
            "Unreachable"
        );
    }

    #[test]
    fn the_names_of_a_stranger_are_bounded_and_printable() {
        let many: Vec<String> = (0..100).map(|n| format!("\u{7}{}.example", "n".repeat(n))).collect();
        let shown = carried(&many);
        assert!(shown.len() < 300 && !shown.contains('\u{7}'), "{shown:?}");
    }
}
