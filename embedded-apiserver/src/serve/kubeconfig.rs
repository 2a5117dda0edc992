//! The administrator's kubeconfig.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::identity::Identity;

/// Renders the kubeconfig, with authority, certificate and key in it.
pub(super) fn render(address: SocketAddr, identity: &Identity) -> String {
    // Listening on all addresses, the server is reached over loopback.
    let host = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    let server = SocketAddr::new(host, address.port());
    let (authority, certificate, key) = (
        STANDARD.encode(&identity.authority_pem),
        STANDARD.encode(&identity.admin.certificate_pem),
        STANDARD.encode(&identity.admin.key_pem),
    );
    format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: outrigger\nclusters:\n- name: outrigger\n  cluster:\n    server: https://{server}\n    certificate-authority-data: {authority}\nusers:\n- name: admin\n  user:\n    client-certificate-data: {certificate}\n    client-key-data: {key}\ncontexts:\n- name: outrigger\n  context:\n    cluster: outrigger\n    user: admin\n    namespace: default\n"
    )
}
