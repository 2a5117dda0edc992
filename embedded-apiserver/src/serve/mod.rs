//! Serving over TLS, with certificates and a kubeconfig made here.

mod client_certificate;
mod connections;
mod identity;
mod kubeconfig;
mod listener;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::server::ApiServer;

/// Why the server cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The address cannot be listened on.
    #[error("unable to listen on {address}: {source}; choose another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// A file of the identity cannot be read or written.
    #[error("unable to use {path}: {source}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The address can be reached from other machines, and nobody said that it should be.
    #[error(
        "{address} can be reached from other machines: listen on a loopback address such as 127.0.0.1:0, or allow it with Builder::beyond_loopback"
    )]
    BeyondLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A file of the identity makes no sense.
    #[error(
        "{path} cannot be used: {reason}; put it right, or move it away together with its other half to have both made anew"
    )]
    Unusable {
        /// The file.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate cannot be made or read.
    #[error("unable to make the certificates in {path}: {reason}; remove that folder to have new ones made")]
    Certificate {
        /// The folder.
        path: String,
        /// Why.
        reason: String,
    },
}

/// A server that is being served.
#[derive(Debug)]
pub struct Running {
    local_addr: SocketAddr,
    kubeconfig: String,
    kubeconfig_path: PathBuf,
    ended: JoinHandle<()>,
}

impl Running {
    /// Where it listens.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_addr
    }

    /// The administrator's kubeconfig, as YAML. It holds a private key.
    pub fn kubeconfig(&self) -> &str {
        &self.kubeconfig
    }

    /// Where in the identity folder the kubeconfig is.
    pub fn kubeconfig_path(&self) -> &Path {
        &self.kubeconfig_path
    }

    /// Writes the kubeconfig to a file that only its owner may read.
    pub fn write_kubeconfig(&self, path: &Path) -> Result<(), ServeError> {
        identity::write_private(path, self.kubeconfig.as_bytes())
    }

    /// Ends when the server has stopped: after the shutdown token was cancelled, and open requests are done.
    pub async fn ended(self) {
        if let Err(error) = self.ended.await {
            tracing::error!(%error, "the listener ended in a bug");
        }
    }
}

impl ApiServer {
    /// Serves over TLS until the token is cancelled. The certificate authority, the server's certificate and the
    /// administrator's are kept in `identity_dir`, made when missing and renewed when they end soon; so is the key of
    /// service account tokens. An address beyond loopback has to be allowed with [`crate::Builder::beyond_loopback`].
    pub async fn serve(
        &self,
        listen: SocketAddr,
        identity_dir: &Path,
        shutdown: CancellationToken,
    ) -> Result<Running, ServeError> {
        if !listen.ip().to_canonical().is_loopback() && !self.may_listen_beyond_loopback() {
            return Err(ServeError::BeyondLoopback { address: listen });
        }
        let socket = tokio::net::TcpListener::bind(listen)
            .await
            .map_err(|source| ServeError::Listen {
                address: listen,
                source,
            })?;
        let local_addr = socket.local_addr().map_err(|source| ServeError::Listen {
            address: listen,
            source,
        })?;
        let identity = identity::Identity::load_or_make(identity_dir, local_addr.ip())?;
        let access = Arc::clone(&self.handler().core.access);
        identity::keep_signing_key(identity_dir, &access.keys)?;
        access.set_address(local_addr.to_string());
        let kubeconfig = kubeconfig::render(local_addr, &identity);
        let kubeconfig_path = identity_dir.join("admin.kubeconfig");
        identity::write_private(&kubeconfig_path, kubeconfig.as_bytes())?;
        let tls = identity.tls(identity_dir)?;
        let ended = tokio::spawn(listener::run(self.clone(), socket, tls, shutdown));
        Ok(Running {
            local_addr,
            kubeconfig,
            kubeconfig_path,
            ended,
        })
    }
}
