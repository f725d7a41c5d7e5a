//! What a request still brings once it is answered. Over HTTP/2, what comes for an answered request that nobody reads
//! is an error of the connection, which ends after about a thousand of them: one caller's refused requests would end
//! those of everybody behind the same proxy. HTTP/1.1's connections see to it themselves.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use axum::http::Version;
use axum::http::request::Request;
use http_body_util::BodyExt as _;
use hyper::body::{Frame, SizeHint};
use tokio::time::timeout;

/// So many bytes are read and dropped.
const MOST: usize = 1024 * 1024;

/// For so long.
const PROMPTLY: Duration = Duration::from_millis(250);

/// A body of which the rest is read and dropped, promptly, when its reader has had enough.
#[derive(Debug)]
struct ReadToTheEnd(Body);

/// The same request, of which nothing is left over on its connection.
pub(super) fn none_of(request: Request<Body>) -> Request<Body> {
    match request.version() {
        Version::HTTP_2 if !request.body().is_end_stream() => request.map(|body| Body::new(ReadToTheEnd(body))),
        _ => request,
    }
}

impl Drop for ReadToTheEnd {
    fn drop(&mut self) {
        if self.0.is_end_stream() {
            return;
        }
        let mut body = std::mem::take(&mut self.0);
        let rest = async move {
            let mut length = 0;
            while let Some(Ok(frame)) = body.frame().await {
                length += frame.data_ref().map_or(0, Bytes::len);
                if length > MOST {
                    break;
                }
            }
        };
        tokio::spawn(timeout(PROMPTLY, rest));
    }
}

impl HttpBody for ReadToTheEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
