//! The bodies of requests: plain, not too large, and not too slow.

use std::time::Duration;

use bytes::Bytes;
use http::HeaderMap;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};

use super::negotiate;
use crate::rest::ApiError;

/// The largest body of a request, in bytes.
const LIMIT: usize = 3 << 20;
/// How long a body may take to come, as long as the real server lets a whole request take.
const WITHIN: Duration = Duration::from_mins(1);

/// Reads a body to its end.
pub async fn read<B>(headers: &HeaderMap, body: B) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    read_within(headers, body, WITHIN).await
}

async fn read_within<B>(headers: &HeaderMap, body: B, within: Duration) -> Result<Bytes, ApiError>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let encoded = headers
        .get(http::header::CONTENT_ENCODING)
        .is_some_and(|encoding| encoding != "identity");
    if encoded {
        return Err(ApiError::unsupported_media_type(negotiate::RESOURCE_TYPES));
    }
    match tokio::time::timeout(within, Limited::new(body, LIMIT).collect()).await {
        Err(_) => Err(ApiError::timed_out()),
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.downcast_ref::<LengthLimitError>().is_some() => Err(ApiError::too_large(LIMIT)),
        Ok(Err(error)) => Err(ApiError::bad_request(format!("unable to read the body: {error}"))),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)] // tests
mod tests {
    use std::convert::Infallible;

    use futures::StreamExt as _;
    use http_body::Frame;
    use http_body_util::{Full, StreamBody};

    use super::*;

    #[tokio::test]
    async fn a_body_that_never_ends_is_given_up() {
        let begun = Ok::<_, Infallible>(Frame::data(Bytes::from_static(b"{")));
        let body = StreamBody::new(futures::stream::iter([begun]).chain(futures::stream::pending()));
        let refused = read_within(&HeaderMap::new(), body, Duration::from_millis(1))
            .await
            .unwrap_err();
        assert_eq!((refused.code, refused.reason), (504, "Timeout"));
    }

    #[tokio::test]
    async fn a_body_is_read_up_to_the_limit() {
        let body = |size: usize| Full::new(Bytes::from(vec![b' '; size]));
        assert_eq!(read(&HeaderMap::new(), body(LIMIT)).await.unwrap().len(), LIMIT);
        assert_eq!(read(&HeaderMap::new(), body(LIMIT + 1)).await.unwrap_err().code, 413);
    }
}
