//! Serving: where to listen ([`listen`]), Unix sockets ([`unix_socket`]), TLS ([`tls`]), why
//! a client is refused ([`refusal`]),
//! connections ([`connection`]) and the server that ties it together ([`server`]).

pub(crate) mod connection;
pub(crate) mod listen;
pub(crate) mod metrics_listener;
pub(crate) mod refusal;
pub(crate) mod server;
pub(crate) mod tls;
pub(crate) mod unix_socket;
