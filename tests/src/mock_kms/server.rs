//! The socket that clients of KMS speak to: TLS, HTTP/1.1 with keep-alive, one POST per call. Decides
//! in which order a call is recognised, authenticated, delayed or refused on demand, carried out,
//! logged and answered.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http_body_util::{BodyExt, Limited};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::http::request::Parts;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;

use strongroom_parent::kms_policy::Caller;

use super::Kms;
use super::actions::{self, Action, Authenticated, Reply};
use super::error::KmsError;
use super::faults::FaultKind;
use super::keys::random_uuid;
use super::log::Call;
use super::sigv4;

/// Serves until the process ends.
pub(super) async fn serve(kms: Arc<Kms>, listener: TcpListener, tls: TlsAcceptor) -> io::Error {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(serve_connection(Arc::clone(&kms), stream, tls.clone()));
            }
            Err(error) => return error,
        }
    }
}

async fn serve_connection(kms: Arc<Kms>, stream: TcpStream, tls: TlsAcceptor) {
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::info!(%error, "no TLS"),
        Err(_) => return tracing::info!("no TLS in time"),
    };
    let service = service_fn(|request| answer(Arc::clone(&kms), request));
    // No header deadline: like KMS, connections are kept while their client keeps them.
    let mut http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.header_read_timeout(None).serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "a connection ended early");
    }
}

async fn answer(kms: Arc<Kms>, request: Request<Incoming>) -> Result<Response<ReplyBody>, io::Error> {
    let (parts, body) = request.into_parts();
    let started = Instant::now();
    let body = Limited::new(body, MAX_REQUEST).collect().await.map_err(io::Error::other)?.to_bytes();
    let mut trail = Call { time: now_rfc3339(), request_id: random_uuid(), ..Call::default() };
    let mut faults = Vec::new();
    let outcome = carry_out(&kms, &parts, &body, &mut trail, &mut faults).await;
    let request_id = trail.request_id.clone();
    trail.outcome = outcome.as_ref().err().map_or("Success", KmsError::code).to_owned();
    trail.faults.clone_from(&faults);
    kms.log().append(trail, started)?;
    if faults.contains(&FaultKind::Hang) {
        std::future::pending::<()>().await;
    }
    respond(outcome, &faults, &request_id)
}

async fn carry_out(
    kms: &Kms,
    parts: &Parts,
    body: &[u8],
    trail: &mut Call,
    faults: &mut Vec<FaultKind>,
) -> Result<Reply, KmsError> {
    let action = recognise(parts)?;
    trail.action = Some(action.name().to_owned());
    let caller: Caller = {
        let principals = kms.principals();
        sigv4::authenticate(parts, body, &principals, &kms.region, SystemTime::now())?
    };
    trail.principal = Some(caller.arn.clone());
    *faults = kms.faults().take(action.name());
    for fault in &*faults {
        match fault {
            FaultKind::Latency(milliseconds) => tokio::time::sleep(Duration::from_millis(*milliseconds)).await,
            FaultKind::Throttle => return Err(KmsError::Throttling),
            FaultKind::InternalError => return Err(KmsError::Internal),
            _ => {}
        }
    }
    actions::perform(kms, &Authenticated { action, caller: &caller, body, faults }, trail)
}

fn recognise(parts: &Parts) -> Result<Action, KmsError> {
    let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok());
    if parts.method != Method::POST || parts.uri.path() != "/" || header("content-type") != Some(JSON_1_1) {
        return Err(KmsError::UnknownOperation);
    }
    Action::of_target(header("x-amz-target").unwrap_or_default())
}

fn respond(
    outcome: Result<Reply, KmsError>,
    faults: &[FaultKind],
    request_id: &str,
) -> Result<Response<ReplyBody>, io::Error> {
    let (status, body) = match outcome {
        _ if faults.contains(&FaultKind::GarbageBody) => (StatusCode::OK, GARBAGE.to_vec()),
        Ok(reply) => (StatusCode::OK, serde_json::to_vec(&reply)?),
        Err(error) => (error.status(), serde_json::to_vec(&error.body())?),
    };
    let mut response = Response::new(ReplyBody::new(body, faults.contains(&FaultKind::CutReply)));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON_1_1));
    let request_id = HeaderValue::from_str(request_id).map_err(io::Error::other)?;
    response.headers_mut().insert("x-amzn-requestid", request_id);
    Ok(response)
}

fn now_rfc3339() -> String {
    OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default()
}

const JSON_1_1: &str = "application/x-amz-json-1.1";
const GARBAGE: &[u8] = b"\x00\xff<html>not what you asked for";
const HANDSHAKE: Duration = Duration::from_secs(10);

/// An attestation document of the longest kind and everything else, in base64.
const MAX_REQUEST: usize = 512 * 1024;

/// How long half a reply has to leave before its connection is cut.
const CUT_AFTER: Duration = Duration::from_millis(50);

/// A reply's bytes, all of them announced; of a reply that is cut, only the first half ever leaves.
struct ReplyBody {
    bytes: Option<Bytes>,
    announced: u64,
    cut: Option<Pin<Box<Sleep>>>,
}

impl ReplyBody {
    fn new(body: Vec<u8>, cut: bool) -> Self {
        let announced = body.len() as u64;
        let bytes = Bytes::from(body);
        let half = bytes.len() / 2;
        Self {
            bytes: Some(if cut { bytes.slice(..half) } else { bytes }),
            announced,
            cut: cut.then(|| Box::pin(tokio::time::sleep(CUT_AFTER))),
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        if let Some(bytes) = self.bytes.take() {
            return Poll::Ready(Some(Ok(Frame::data(bytes))));
        }
        match &mut self.cut {
            Some(pause) => {
                ready!(pause.as_mut().poll(cx));
                Poll::Ready(Some(Err(io::ErrorKind::ConnectionReset.into())))
            }
            None => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.announced)
    }
}
