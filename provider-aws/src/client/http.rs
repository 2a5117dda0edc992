//! One way to the network for everything: our own calls and those that aws-config makes
//! for credentials. TLS with ring and the system's authorities.

use std::time::Duration;

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector as TcpConnector;
use hyper_util::rt::TokioExecutor;

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a connection that nobody uses is kept; EC2 closes its end after about 20 s.
const IDLE_TIMEOUT: Duration = Duration::from_secs(15);
/// The largest answer that is read. A page of 1,000 instances has about 6 MiB.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Sends requests over HTTP. Cheap to clone; clones share their connections.
#[derive(Debug, Clone)]
pub struct Http(Client<HttpsConnector<TcpConnector>, Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The request never left.
    #[error("no connection: {0}")]
    NotSent(String),
    /// It may have arrived.
    #[error("{0}")]
    Lost(String),
    /// It may have arrived.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

/// No certificate authorities were found on this system.
#[derive(Debug, thiserror::Error)]
#[error("the system's certificate authorities cannot be read: {0}; install ca-certificates")]
pub struct NoAuthorities(std::io::Error);

impl Http {
    /// A client that trusts the system's authorities.
    pub fn new() -> Result<Self, NoAuthorities> {
        let mut tcp = TcpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let https = hyper_rustls::HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(NoAuthorities)?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(hyper_util::rt::TokioTimer::new())
            // A request is sent once: whether it is sent again is decided where it is known
            // what it does.
            .retry_canceled_requests(false)
            .build(https);
        Ok(Self(client))
    }

    /// Sends a request and reads the whole answer.
    pub async fn send(&self, request: Request<Bytes>, timeout: Duration) -> Result<Response<Bytes>, HttpError> {
        let exchange = async {
            let answer = self.0.request(request.map(Full::new)).await.map_err(|error| {
                let words = chain(&error);
                if error.is_connect() {
                    HttpError::NotSent(words)
                } else {
                    HttpError::Lost(words)
                }
            })?;
            let (head, body) = answer.into_parts();
            let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
            let body = body.map_err(|error| HttpError::Lost(format!("the answer broke off: {error}")))?;
            Ok(Response::from_parts(head, body.to_bytes()))
        };
        tokio::time::timeout(timeout, exchange)
            .await
            .unwrap_or(Err(HttpError::TimedOut(timeout)))
    }
}

/// An error with what it comes from.
fn chain(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}

/// What aws-config sends through: the same connections, with its own timeouts.
#[derive(Debug)]
struct Connector {
    http: Http,
    timeout: Duration,
}

impl HttpConnector for Connector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (http, timeout) = (self.http.clone(), self.timeout);
        HttpConnectorFuture::new(async move {
            let request = request
                .try_into_http1x()
                .map_err(|error| ConnectorError::user(error.into()))?;
            let request = request.map(|body| Bytes::copy_from_slice(body.bytes().unwrap_or_default()));
            let answer = http.send(request, timeout).await.map_err(|error| match error {
                HttpError::TimedOut(_) => ConnectorError::timeout(error.into()),
                HttpError::NotSent(_) | HttpError::Lost(_) => ConnectorError::io(error.into()),
            })?;
            HttpResponse::try_from(answer.map(SdkBody::from)).map_err(|error| ConnectorError::other(error.into(), None))
        })
    }
}

impl HttpClient for Http {
    fn http_connector(&self, settings: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // The metadata service of an instance is asked with a timeout of about a second:
        // outside EC2 nothing answers there.
        let timeout = match (settings.connect_timeout(), settings.read_timeout()) {
            (Some(connect), Some(read)) => connect + read,
            (None, Some(read)) => CONNECT_TIMEOUT + read,
            (Some(connect), None) => connect + CONNECT_TIMEOUT,
            (None, None) => 2 * CONNECT_TIMEOUT,
        };
        SharedHttpConnector::new(Connector {
            http: self.clone(),
            timeout,
        })
    }
}
