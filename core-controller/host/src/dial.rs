//! Opens a stream to an endpoint and checks who is at the other end, before a byte of
//! the protocol is spoken.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::{EndpointConfig, HostConfig};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::tls;

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Nobody answers, for now.
    Unreachable(String),
    /// The endpoint cannot be used as it is.
    Misconfigured(String),
    /// Somebody answers who cannot be used.
    Incompatible(String),
}

impl Trouble {
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Unreachable(message) | Self::Misconfigured(message) | Self::Incompatible(message) => message,
        }
    }
}

/// What a connection was made with; another one now means to dial again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Fingerprint {
    /// The socket file: device, inode, time of its last change.
    socket: Option<(u64, u64, i64, i64)>,
    /// The certificates.
    tls: Option<[u8; 32]>,
}

/// What a connection would be made with now; `None` when it cannot be told.
pub(crate) async fn fingerprint(config: &EndpointConfig) -> Option<Fingerprint> {
    match (&config.endpoint, &config.tls) {
        (Endpoint::Unix(path), _) => socket_fingerprint(path).await.map(|socket| Fingerprint {
            socket: Some(socket),
            tls: None,
        }),
        (_, Some(files)) => tls::Material::read(files).await.ok().map(|material| Fingerprint {
            socket: None,
            tls: Some(material.fingerprint()),
        }),
        _ => Some(Fingerprint::default()),
    }
}

async fn socket_fingerprint(path: &Path) -> Option<(u64, u64, i64, i64)> {
    let found = tokio::fs::symlink_metadata(path).await.ok()?;
    Some((found.dev(), found.ino(), found.ctime(), found.ctime_nsec()))
}

/// Connects within `timeout`.
pub(crate) async fn dial(config: &EndpointConfig, host: &HostConfig) -> Result<(Connection, Fingerprint), Trouble> {
    let timeout = host.times.connect;
    tokio::time::timeout(timeout, connect(config, &host.peer_uids))
        .await
        .unwrap_or_else(|_| {
            Err(Trouble::Unreachable(format!(
                "no connection to {} within {timeout:?}; look whether the provider is stuck",
                config.endpoint
            )))
        })
}

async fn connect(config: &EndpointConfig, peer_uids: &[u32]) -> Result<(Connection, Fingerprint), Trouble> {
    let authority = config.endpoint.authority();
    let (connection, fingerprint) = match &config.endpoint {
        Endpoint::Unix(path) => {
            check_socket(path).await?;
            let socket = socket_fingerprint(path).await;
            let stream = UnixStream::connect(path)
                .await
                .map_err(|error| socket_trouble(path, &error))?;
            let allowed: Vec<u32> = config.peer_uid.iter().chain(peer_uids).copied().collect();
            check_peer(path, &stream, &allowed)?;
            (
                Connection::over(stream, false, &authority).await,
                Fingerprint { socket, tls: None },
            )
        }
        Endpoint::Https { host, port } => {
            let Some(files) = &config.tls else {
                return Err(Trouble::Misconfigured(format!(
                    "{} needs mutual TLS; give the authority, a certificate and its key",
                    config.endpoint
                )));
            };
            let material = tls::Material::read(files).await.map_err(Trouble::Misconfigured)?;
            let client = material.client_config().map_err(Trouble::Misconfigured)?;
            let name = tls::server_name(files, host).map_err(Trouble::Misconfigured)?;
            let tcp = tcp(config, (host.as_str(), *port)).await?;
            let stream = TlsConnector::from(Arc::new(client))
                .connect(name, tcp)
                .await
                .map_err(|error| tls_trouble(config, &error))?;
            let fingerprint = Fingerprint {
                socket: None,
                tls: Some(material.fingerprint()),
            };
            (Connection::over(stream, true, &authority).await, fingerprint)
        }
        Endpoint::HttpLoopback(address) => {
            let stream = tcp(config, (address.ip().to_string().as_str(), address.port())).await?;
            (
                Connection::over(stream, false, &authority).await,
                Fingerprint::default(),
            )
        }
    };
    let connection = connection.map_err(|error| Trouble::Unreachable(format!("{}: {error}", config.endpoint)))?;
    Ok((connection, fingerprint))
}

async fn tcp(config: &EndpointConfig, address: (&str, u16)) -> Result<TcpStream, Trouble> {
    let stream = TcpStream::connect(address).await.map_err(|error| {
        Trouble::Unreachable(format!(
            "no connection to {}: {error}; look whether the provider runs",
            config.endpoint
        ))
    })?;
    // Small messages, asked and answered: never wait to fill a packet. Without it
    // everything still works.
    let _ = stream.set_nodelay(true);
    Ok(stream)
}

async fn check_socket(path: &Path) -> Result<(), Trouble> {
    let shown = path.display();
    let bytes = path.as_os_str().len();
    if bytes > actuator_proto::limits::MAX_SOCKET_PATH_BYTES {
        return Err(Trouble::Misconfigured(format!(
            "the path {shown} has {bytes} bytes and a socket's may have {}; use a shorter folder",
            actuator_proto::limits::MAX_SOCKET_PATH_BYTES
        )));
    }
    if let Some(folder) = path.parent()
        && let Ok(found) = tokio::fs::symlink_metadata(folder).await
        && found.is_symlink()
    {
        return Err(Trouble::Misconfigured(format!(
            "{} is a symbolic link, which is refused; give the folder itself",
            folder.display()
        )));
    }
    let found = tokio::fs::symlink_metadata(path)
        .await
        .map_err(|error| socket_trouble(path, &error))?;
    if found.is_symlink() {
        return Err(Trouble::Misconfigured(format!(
            "{shown} is a symbolic link, which is refused; give the path of the socket itself"
        )));
    }
    if !found.file_type().is_socket() {
        return Err(Trouble::Misconfigured(format!(
            "{shown} is not a socket; remove it, and let the provider make its socket there"
        )));
    }
    Ok(())
}

fn socket_trouble(path: &Path, error: &io::Error) -> Trouble {
    let shown = path.display();
    match error.kind() {
        io::ErrorKind::NotFound => Trouble::Unreachable(format!(
            "there is no socket at {shown} yet; start the provider with --listen unix://{shown}"
        )),
        io::ErrorKind::ConnectionRefused => Trouble::Unreachable(format!(
            "nobody listens on the socket {shown}; start the provider again"
        )),
        io::ErrorKind::PermissionDenied => Trouble::Misconfigured(format!(
            "the socket {shown} may not be opened; let the core's user read and write it"
        )),
        _ => Trouble::Unreachable(format!("the socket {shown} cannot be opened: {error}")),
    }
}

fn check_peer(path: &Path, stream: &UnixStream, allowed: &[u32]) -> Result<(), Trouble> {
    let shown = path.display();
    let peer = stream
        .peer_cred()
        .map_err(|error| Trouble::Unreachable(format!("the process behind {shown} cannot be told: {error}")))?;
    let own = nix::unistd::geteuid().as_raw();
    if is_trusted(peer.uid(), own, allowed) {
        return Ok(());
    }
    Err(Trouble::Misconfigured(format!(
        "the process behind {shown} runs as user {}, and user {own} or root was expected; \
         name that user as a trusted one if it is right",
        peer.uid()
    )))
}

/// Whether a socket served by `peer` may be used.
fn is_trusted(peer: u32, own: u32, allowed: &[u32]) -> bool {
    peer == own || peer == 0 || allowed.contains(&peer)
}

fn tls_trouble(config: &EndpointConfig, error: &io::Error) -> Trouble {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match inner {
        Some(rustls::Error::InvalidCertificate(reason)) => Trouble::Misconfigured(format!(
            "the certificate of {} is refused: {reason}; look at its authority, names and dates",
            config.endpoint
        )),
        Some(rustls::Error::AlertReceived(alert)) => Trouble::Misconfigured(format!(
            "{} refuses the core's certificate ({alert:?}); look at its authority and dates",
            config.endpoint
        )),
        Some(reason) => Trouble::Misconfigured(format!("no TLS with {}: {reason}", config.endpoint)),
        None => Trouble::Unreachable(format!("no TLS with {}: {error}", config.endpoint)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_user_root_and_the_named_one_are_trusted() {
        assert!(is_trusted(1000, 1000, &[]));
        assert!(is_trusted(0, 1000, &[]));
        assert!(!is_trusted(1001, 1000, &[]));
        assert!(is_trusted(1001, 1000, &[1001]));
        assert!(!is_trusted(1002, 1000, &[1001]));
        assert!(!is_trusted(1000, 0, &[]), "root does not take anybody's socket");
    }

    #[tokio::test]
    async fn what_is_no_socket_is_refused_with_a_sentence() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("a.sock");
        assert!(matches!(check_socket(&socket).await, Err(Trouble::Unreachable(_))));
        std::fs::write(&socket, "").unwrap();
        let Err(Trouble::Misconfigured(message)) = check_socket(&socket).await else {
            panic!("a file was taken for a socket")
        };
        assert!(message.contains("is not a socket"), "{message}");
        let real = folder.path().join("real.sock");
        let _listener = std::os::unix::net::UnixListener::bind(&real).unwrap();
        assert_eq!(check_socket(&real).await, Ok(()));
        let link = folder.path().join("link.sock");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        let Err(Trouble::Misconfigured(message)) = check_socket(&link).await else {
            panic!("a link was taken for a socket")
        };
        assert!(message.contains("symbolic link"), "{message}");
        let linked = folder.path().join("linked");
        std::os::unix::fs::symlink(folder.path(), &linked).unwrap();
        assert!(matches!(
            check_socket(&linked.join("real.sock")).await,
            Err(Trouble::Misconfigured(_))
        ));
    }

    #[tokio::test]
    async fn a_socket_made_anew_has_another_fingerprint() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.sock");
        let config = EndpointConfig::new(Endpoint::Unix(path.clone()), crate::EndpointSource::Flag);
        assert_eq!(fingerprint(&config).await, None);
        let first = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let before = fingerprint(&config).await;
        assert!(before.is_some());
        std::fs::remove_file(&path).unwrap();
        let _second = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert_ne!(fingerprint(&config).await, before);
        drop(first);
    }
}
