//! Opens a stream to an endpoint and checks who is at the other end, before a byte of
//! the protocol is spoken.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;

use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsConnector;

use crate::config::{EndpointConfig, HostConfig};
use crate::connection::Connection;
use crate::endpoint::Endpoint;
use crate::tls::{self, Certificates};
use crate::tls_trouble;
use crate::trouble::{TlsReason, Trouble};

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

/// What a connection would be made with now, and what is wrong with what lies there
/// while the former is still good.
pub(crate) async fn newest(
    config: &EndpointConfig,
    certificates: &mut Certificates,
) -> (Option<Fingerprint>, Option<String>) {
    let Some(files) = &config.tls else {
        return (fingerprint(config).await, None);
    };
    match certificates.newest(files).await {
        Ok(newest) => (
            Some(Fingerprint {
                socket: None,
                tls: Some(newest.usable.fingerprint),
            }),
            newest.left_alone,
        ),
        Err(why) => (None, Some(why)),
    }
}

/// Connects within the host's time for it.
pub(crate) async fn dial(
    config: &EndpointConfig,
    host: &HostConfig,
    certificates: &mut Certificates,
) -> Result<(Connection, Fingerprint), Trouble> {
    let timeout = host.times.connect;
    tokio::time::timeout(timeout, connect(config, &host.peer_uids, certificates))
        .await
        .unwrap_or_else(|_| {
            Err(Trouble::Unreachable(format!(
                "no connection to {} within {timeout:?}; look whether the provider is stuck",
                config.endpoint
            )))
        })
}

async fn connect(
    config: &EndpointConfig,
    peer_uids: &[u32],
    certificates: &mut Certificates,
) -> Result<(Connection, Fingerprint), Trouble> {
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
            let usable = match certificates.newest(files).await {
                Ok(newest) => newest.usable,
                Err(why) => return Err(Trouble::Tls(TlsReason::FilesUnusable, why)),
            };
            let name = tls::server_name(files, host).map_err(Trouble::Misconfigured)?;
            let pinned = name.to_str().into_owned();
            let tcp = tcp(config, (host.as_str(), *port)).await?;
            let stream = TlsConnector::from(usable.client)
                .connect(name, tcp)
                .await
                .map_err(|error| tls_trouble::handshake(config, files, &pinned, &error))?;
            let fingerprint = Fingerprint {
                socket: None,
                tls: Some(usable.fingerprint),
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
         start the core with --allow-peer-uid {} if that is right",
        peer.uid(),
        peer.uid()
    )))
}

/// Whether a socket served by `peer` may be used.
fn is_trusted(peer: u32, own: u32, allowed: &[u32]) -> bool {
    peer == own || peer == 0 || allowed.contains(&peer)
}

/// What a connection that ended before anything was answered says about TLS: under TLS
/// 1.3 the peer looks at the core's certificate when the core believes to be connected.
pub(crate) async fn explain(config: &EndpointConfig, connection: &Connection, trouble: Trouble) -> Trouble {
    /// The call ends a moment before the connection that it was on.
    const MOMENT: std::time::Duration = std::time::Duration::from_millis(100);
    if !matches!(trouble, Trouble::Unreachable(_)) || matches!(config.endpoint, Endpoint::Unix(_)) {
        return trouble;
    }
    let _ = tokio::time::timeout(MOMENT, connection.closed()).await;
    if connection.was_answered_with_tls() {
        return tls_trouble::required(config);
    }
    match &config.tls {
        Some(files) => match connection.alert() {
            Some(alert) => tls_trouble::alerted(config, files, alert),
            None if connection.is_closed() => Trouble::Unreachable(format!(
                "{} took the connection and ended it before it answered; look at the provider's log, it may not take \
                 the core's certificate",
                config.endpoint
            )),
            None => trouble,
        },
        None => trouble,
    }
}
