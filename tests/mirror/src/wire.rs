//! gRPC as bytes: a path and a message in, messages or a status out. Whatever the script
//! says is sent as it is.

use std::sync::Arc;

use actuator_proto::bytes_codec::BytesCodec;
use bytes::Bytes;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use futures::stream::BoxStream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// What is sent back.
pub type Messages = BoxStream<'static, Result<Bytes, Status>>;
/// Answers a call: path, message.
pub type Handler = Arc<dyn Fn(String, Bytes) -> BoxFuture<'static, Result<Messages, Status>> + Send + Sync>;

/// Serves one connection until it ends or `stop` says so, which is as abrupt as the death
/// of a process.
pub async fn connection(stream: UnixStream, handler: Handler, stop: CancellationToken) {
    let service = hyper::service::service_fn(move |request: http::Request<hyper::body::Incoming>| {
        let handler = Arc::clone(&handler);
        async move {
            let path = request.uri().path().to_owned();
            let answer = Answer { handler, path };
            let response = tonic::server::Grpc::new(BytesCodec)
                .server_streaming(answer, request)
                .await;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    let serving = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .max_header_list_size(4 * 1024 * 1024)
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _ = serving => {}
        () = stop.cancelled() => {}
    }
}

struct Answer {
    handler: Handler,
    path: String,
}

impl tonic::server::ServerStreamingService<Bytes> for Answer {
    type Response = Bytes;
    type ResponseStream = Messages;
    type Future = BoxFuture<'static, Result<Response<Messages>, Status>>;

    fn call(&mut self, request: Request<Bytes>) -> Self::Future {
        let answer = (self.handler)(self.path.clone(), request.into_inner());
        async move { answer.await.map(Response::new) }.boxed()
    }
}
