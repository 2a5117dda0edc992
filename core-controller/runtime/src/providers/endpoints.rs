//! Which endpoints there are: from flags, from the socket folder, from Provider objects.
//! What flags and folder name appears as Provider objects, and objects become endpoints.
//!
//! Not for: connecting.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use outrigger_api::{Provider, ProviderSpec, ProviderTls, TlsSource};
use provider_host::{Endpoint, EndpointConfig, EndpointSource, Host, Pem, Rate, TlsFiles};

use crate::operations::SecretData;
use crate::options::ProviderEndpoint;

/// The label that says that an object stands for an endpoint given otherwise.
pub const LABEL_SOURCE: &str = "cluster.outrigger.dev/endpoint-source";
/// Its value for endpoints given by a flag.
pub const SOURCE_FLAG: &str = "flag";
/// Its value for endpoints found in the socket folder.
pub const SOURCE_FOLDER: &str = "socket-folder";
/// How long the TLS Secret of a remote provider is used before it is read again.
pub const TLS_LIFETIME: Duration = Duration::from_secs(30);
/// The same while the provider cannot be used, or its new certificates cannot.
pub const TLS_LIFETIME_IN_TROUBLE: Duration = Duration::from_secs(5);

/// The label's value for a source; none for objects of their own.
pub fn label_of(source: EndpointSource) -> Option<&'static str> {
    match source {
        EndpointSource::Flag => Some(SOURCE_FLAG),
        EndpointSource::SocketFolder => Some(SOURCE_FOLDER),
        EndpointSource::Object => None,
    }
}

/// Whether the object stands for an endpoint found in the socket folder.
pub fn is_from_folder(provider: &Provider) -> bool {
    provider
        .metadata
        .labels
        .as_ref()
        .and_then(|labels| labels.get(LABEL_SOURCE))
        .is_some_and(|source| source == SOURCE_FOLDER)
}

/// Gives the host the endpoints of the flags.
pub fn set_flags(host: &Host, providers: &BTreeMap<String, ProviderEndpoint>) -> anyhow::Result<()> {
    use anyhow::Context as _;
    for (name, given) in providers {
        let endpoint: Endpoint = given
            .endpoint
            .parse()
            .with_context(|| format!("the provider {name} cannot be used"))?;
        let mut config = EndpointConfig::new(endpoint, EndpointSource::Flag);
        config.allow_plain_http = given.allow_plain_http;
        config.tls = given
            .tls_folder
            .as_deref()
            .map(|folder| tls_folder(folder, given.server_name.clone()));
        host.set_endpoint(name, config)
            .with_context(|| format!("the provider {name} cannot be used"))?;
    }
    Ok(())
}

fn tls_folder(folder: &Path, server_name: Option<String>) -> TlsFiles {
    TlsFiles {
        ca: Pem::File(folder.join("ca.crt")),
        certificate: Pem::File(folder.join("tls.crt")),
        key: Pem::File(folder.join("tls.key")),
        server_name,
    }
}

/// The endpoint that a Provider object describes, or a sentence about what is wrong
/// with it. `secret` is the TLS Secret, where the object names one.
pub fn from_object(provider: &Provider, secret: Option<&Arc<SecretData>>) -> Result<EndpointConfig, String> {
    let spec = &provider.spec;
    let endpoint: Endpoint = spec.endpoint.parse().map_err(|error| format!("{error}"))?;
    let mut config = EndpointConfig::new(endpoint, EndpointSource::Object);
    config.max_in_flight = u32::try_from(spec.limits.max_in_flight).ok();
    config.rate = spec.limits.calls_per_second.map(|per_second| Rate {
        per_second: f64::from(per_second),
        burst: u32::try_from(per_second).unwrap_or(1).max(1),
    });
    let secret_ref = match &spec.tls {
        Some(tls) if tls.source == TlsSource::Flag => {
            let name = provider.metadata.name.as_deref().unwrap_or_default();
            return Err(format!(
                "no flag gives the certificates of this provider any more; start the core with --provider {name}={} \
                 --provider-tls {name}=DIR, or name a Secret in spec.tls.secretRef and remove spec.tls.source",
                spec.endpoint
            ));
        }
        Some(tls) => tls.secret_ref.as_ref(),
        None => None,
    };
    if let (Some(tls), Some(reference), Some(secret)) = (&spec.tls, secret_ref, secret) {
        let place = format!("the Secret {}/{}", reference.namespace, reference.name);
        let pem = |entry: &str| {
            secret
                .entries
                .get(entry)
                .map(|bytes| Pem::Bytes {
                    bytes: bytes.as_slice().into(),
                    from: format!("{entry} of {place}").into(),
                })
                .ok_or_else(|| format!("{place} with the TLS files has no entry {entry:?}; add it"))
        };
        config.tls = Some(TlsFiles {
            ca: pem("ca.crt")?,
            certificate: pem("tls.crt")?,
            key: pem("tls.key")?,
            server_name: tls.server_name.clone(),
        });
    }
    Ok(config)
}

/// The object that stands for an endpoint given otherwise, its certificates named and not
/// told; nothing where the kind cannot say it: plain HTTP is for development.
pub fn object_for(
    name: &str,
    endpoint: &str,
    source: EndpointSource,
    given: Option<&ProviderEndpoint>,
) -> Option<Provider> {
    let label = label_of(source)?;
    let tls = match endpoint {
        unix if unix.starts_with("unix://") => None,
        https if https.starts_with("https://") => Some(ProviderTls {
            source: TlsSource::Flag,
            secret_ref: None,
            // An address is a server name too, and none that the kind knows.
            server_name: given
                .and_then(|given| given.server_name.clone())
                .filter(|name| name.parse::<std::net::IpAddr>().is_err())
                .map(|name| name.to_ascii_lowercase()),
        }),
        _ => return None,
    };
    let mut provider = Provider::new(
        name,
        ProviderSpec {
            endpoint: endpoint.to_owned(),
            tls,
            ..ProviderSpec::default()
        },
    );
    provider.metadata.labels = Some(BTreeMap::from([(LABEL_SOURCE.to_owned(), label.to_owned())]));
    Some(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_become_endpoints_with_their_limits() {
        let mut provider = Provider::new(
            "fake",
            ProviderSpec {
                endpoint: "unix:///run/fake.sock".to_owned(),
                ..ProviderSpec::default()
            },
        );
        provider.spec.limits.calls_per_second = Some(7);
        let config = from_object(&provider, None).unwrap();
        assert_eq!(config.endpoint.to_string(), "unix:///run/fake.sock");
        assert_eq!(
            config.rate,
            Some(Rate {
                per_second: 7.0,
                burst: 7
            })
        );
        provider.spec.endpoint = "ftp://x".to_owned();
        assert!(from_object(&provider, None).unwrap_err().contains("scheme"));
    }

    #[test]
    fn flags_appear_as_objects_that_say_so() {
        let provider = object_for("fake", "unix:///run/fake.sock", EndpointSource::SocketFolder, None).unwrap();
        assert!(is_from_folder(&provider));
        assert!(object_for("fake", "http://127.0.0.1:1", EndpointSource::Flag, None).is_none());
        assert!(object_for("fake", "unix:///a", EndpointSource::Object, None).is_none());
        let given = ProviderEndpoint {
            server_name: Some("Fake.example".to_owned()),
            ..ProviderEndpoint::new("https://10.0.0.1:1")
        };
        let remote = object_for("fake", "https://10.0.0.1:1", EndpointSource::Flag, Some(&given)).unwrap();
        let tls = remote.spec.tls.clone().unwrap();
        assert_eq!((tls.source, tls.secret_ref), (TlsSource::Flag, None));
        assert_eq!(tls.server_name.as_deref(), Some("fake.example"));
        // Once the flag is gone, the object alone is no way to the core's files.
        let error = from_object(&remote, None).unwrap_err();
        assert!(error.contains("--provider-tls fake=DIR"), "{error}");
    }
}
