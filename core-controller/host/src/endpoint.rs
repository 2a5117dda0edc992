//! Where a provider is: `unix:///path`, `https://host:port`, or `http` to a loopback
//! address. Pure: nothing is opened here (see `dial`).

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

use actuator_proto::limits::MAX_SOCKET_PATH_BYTES;

/// Where a provider is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
    /// Mutual TLS over TCP.
    Https {
        /// A DNS name or an IP address.
        host: String,
        /// The port.
        port: u16,
    },
    /// TCP without TLS, to a loopback address; needs its explicit flag.
    HttpLoopback(SocketAddr),
}

/// Why an endpoint or a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// It begins with no known scheme.
    #[error("endpoint {0:?} has no known scheme; write unix:///path/to/actuator.sock or https://host:port")]
    Scheme(String),
    /// The path is not absolute.
    #[error("endpoint {0:?} needs an absolute path; write unix:///path/to/actuator.sock with three slashes")]
    RelativePath(String),
    /// The path is too long for a socket.
    #[error(
        "the path of endpoint {path:?} has {bytes} bytes and a socket's may have {MAX_SOCKET_PATH_BYTES}; use a shorter folder"
    )]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Host or port is missing or wrong.
    #[error("endpoint {0:?} needs a host and a port and nothing behind them; write https://host:port")]
    HostAndPort(String),
    /// Plain TCP to another machine.
    #[error("endpoint {0:?} is plain TCP to an address that is not a loopback address; use https with mutual TLS")]
    NotLoopback(String),
    /// Plain TCP without its flag.
    #[error("endpoint {0:?} is plain TCP, which has to be allowed explicitly; prefer a Unix socket")]
    PlainNotAllowed(String),
    /// `https` without certificates.
    #[error("endpoint {0:?} needs mutual TLS; give the authority, a certificate and its key")]
    TlsMissing(String),
    /// Certificates with a Unix socket or plain TCP.
    #[error("endpoint {0:?} does not use TLS; drop the certificates or use https")]
    TlsUnused(String),
    /// The provider's name is no DNS label.
    #[error(
        "provider name {0:?} is no DNS label; use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
    )]
    Name(String),
    /// A rate of zero or less.
    #[error("the rate of endpoint {0:?} must be above 0 calls a second, with a burst of at least 1")]
    Rate(String),
}

impl Endpoint {
    /// The `:authority` of calls.
    pub(crate) fn authority(&self) -> String {
        match self {
            Self::Unix(_) => "localhost".to_owned(),
            Self::Https { host, port } if host.contains(':') => format!("[{host}]:{port}"),
            Self::Https { host, port } => format!("{host}:{port}"),
            Self::HttpLoopback(address) => address.to_string(),
        }
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Https { .. } => write!(f, "https://{}", self.authority()),
            Self::HttpLoopback(address) => write!(f, "http://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(path) = text.strip_prefix("unix://") {
            let path = PathBuf::from(path);
            if !path.is_absolute() {
                return Err(EndpointError::RelativePath(text.to_owned()));
            }
            let bytes = path.as_os_str().len();
            if bytes > MAX_SOCKET_PATH_BYTES {
                return Err(EndpointError::PathTooLong { path, bytes });
            }
            return Ok(Self::Unix(path));
        }
        if let Some(rest) = text.strip_prefix("https://") {
            let (host, port) = host_and_port(rest).ok_or_else(|| EndpointError::HostAndPort(text.to_owned()))?;
            return Ok(Self::Https { host, port });
        }
        if let Some(rest) = text.strip_prefix("http://") {
            let (host, port) = host_and_port(rest).ok_or_else(|| EndpointError::HostAndPort(text.to_owned()))?;
            return match host.parse::<IpAddr>() {
                Ok(address) if address.is_loopback() => Ok(Self::HttpLoopback(SocketAddr::new(address, port))),
                _ => Err(EndpointError::NotLoopback(text.to_owned())),
            };
        }
        Err(EndpointError::Scheme(text.to_owned()))
    }
}

fn host_and_port(rest: &str) -> Option<(String, u16)> {
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().ok()?.to_string(),
        None => host.to_owned(),
    };
    let plain = !host.is_empty()
        && host.len() <= 253
        && host
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'));
    let port = port.parse().ok().filter(|port| *port != 0)?;
    plain.then_some((host, port))
}

/// Whether `name` is a DNS label, as a provider's name must be.
pub fn is_provider_name(name: &str) -> bool {
    let inner = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
    (1..=63).contains(&name.len()) && name.bytes().all(inner) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_read_and_written_alike() {
        for text in [
            "unix:///run/actuator/aws/actuator.sock",
            "https://provider.example:8443",
            "https://[::1]:8443",
            "http://127.0.0.1:9000",
            "http://[::1]:9000",
        ] {
            assert_eq!(
                text.parse::<Endpoint>().map(|endpoint| endpoint.to_string()),
                Ok(text.to_owned())
            );
        }
        assert_eq!(
            "unix:///a".parse().map(|endpoint: Endpoint| endpoint.authority()),
            Ok("localhost".to_owned())
        );
    }

    #[test]
    fn what_cannot_be_an_endpoint_is_refused_with_the_reason() {
        let error = |text: &str| text.parse::<Endpoint>().unwrap_err();
        assert!(matches!(error("ftp://x"), EndpointError::Scheme(_)));
        assert!(matches!(error("/run/actuator.sock"), EndpointError::Scheme(_)));
        assert!(matches!(
            error("unix://run/actuator.sock"),
            EndpointError::RelativePath(_)
        ));
        assert!(matches!(
            error(&format!("unix:///{}", "a".repeat(100))),
            EndpointError::PathTooLong { bytes: 101, .. }
        ));
        assert!(format!("unix:///{}", "a".repeat(99)).parse::<Endpoint>().is_ok());
        for text in [
            "https://host",
            "https://:1",
            "https://host:0",
            "https://host:99999",
            "https://a b:1",
            "https://h:1/x",
        ] {
            assert!(matches!(error(text), EndpointError::HostAndPort(_)), "{text}");
        }
        assert!(matches!(error("http://10.0.0.1:80"), EndpointError::NotLoopback(_)));
        assert!(matches!(error("http://localhost:80"), EndpointError::NotLoopback(_)));
    }

    #[test]
    fn a_provider_name_is_a_dns_label() {
        for name in ["aws", "a", "a-1", "1a"] {
            assert!(is_provider_name(name), "{name}");
        }
        for name in ["", "-a", "a-", "A", "a.b", "a_b", "ä", &"a".repeat(64)] {
            assert!(!is_provider_name(name), "{name}");
        }
    }
}
