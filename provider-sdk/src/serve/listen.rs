//! Where a server listens, as a user writes it.

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use actuator_proto::limits::MAX_SOCKET_PATH_BYTES;

/// An address to listen on: `unix:///run/actuator/fake/actuator.sock` or
/// `tcp://127.0.0.1:7070`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Listen {
    /// A Unix socket; the path is absolute and has at most 100 bytes.
    Unix(PathBuf),
    /// An address and a port; port 0 takes a free one.
    Tcp(SocketAddr),
}

/// Why an address is not understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidListen {
    /// Neither `unix://` nor `tcp://`.
    #[error("{0:?} is no address to listen on; write unix:///absolute/path or tcp://ADDRESS:PORT")]
    Scheme(String),
    /// The path is relative, empty or has `..` in it.
    #[error("the socket path {0:?} is not absolute or contains \"..\"; write unix:///absolute/path")]
    Path(PathBuf),
    /// The path is longer than the protocol allows.
    #[error("the socket path {path:?} has {bytes} bytes; at most {MAX_SOCKET_PATH_BYTES} are allowed")]
    TooLong {
        /// The path.
        path: PathBuf,
        /// Its length.
        bytes: usize,
    },
    /// Not an IP address with a port.
    #[error("{0:?} is not an IP address with a port; write for example tcp://127.0.0.1:7070")]
    Address(String),
}

impl Listen {
    /// A Unix socket at this path.
    pub fn unix(path: impl AsRef<Path>) -> Result<Self, InvalidListen> {
        let path = path.as_ref();
        let bytes = path.as_os_str().len();
        if bytes > MAX_SOCKET_PATH_BYTES {
            return Err(InvalidListen::TooLong {
                path: path.to_owned(),
                bytes,
            });
        }
        let climbs = path.components().any(|part| part == std::path::Component::ParentDir);
        if !path.is_absolute() || climbs || path.file_name().is_none() {
            return Err(InvalidListen::Path(path.to_owned()));
        }
        Ok(Self::Unix(path.to_owned()))
    }
}

impl FromStr for Listen {
    type Err = InvalidListen;

    fn from_str(text: &str) -> Result<Self, InvalidListen> {
        if let Some(path) = text.strip_prefix("unix://") {
            return Self::unix(path);
        }
        if let Some(address) = text.strip_prefix("tcp://") {
            return address
                .parse()
                .map(Self::Tcp)
                .map_err(|_| InvalidListen::Address(address.to_owned()));
        }
        Err(InvalidListen::Scheme(text.to_owned()))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        for text in [
            "unix:///run/actuator/fake/actuator.sock",
            "tcp://127.0.0.1:7070",
            "tcp://[::1]:0",
        ] {
            assert_eq!(
                text.parse::<Listen>().map(|listen| listen.to_string()),
                Ok(text.to_owned())
            );
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, words) in [
            ("/run/x.sock", "unix:///absolute/path"),
            ("http://127.0.0.1:1", "unix:///absolute/path"),
            ("unix://run/x.sock", "not absolute"),
            ("unix:///run/../x.sock", "\"..\""),
            ("unix:///", "not absolute"),
            ("tcp://localhost:1", "not an IP address"),
            ("tcp://127.0.0.1", "not an IP address"),
        ] {
            let error = text.parse::<Listen>().expect_err(text);
            assert!(error.to_string().contains(words), "{error}");
        }
        let path = |bytes: usize| format!("unix:///{}", "x".repeat(bytes - 1));
        assert!(path(100).parse::<Listen>().is_ok());
        assert!(matches!(
            path(101).parse::<Listen>(),
            Err(InvalidListen::TooLong { bytes: 101, .. })
        ));
    }
}
