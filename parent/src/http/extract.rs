//! Reads what callers send, once, into types that are valid: the caller, the key id, the nonce, the
//! page, the JSON body. Bad input ends here and reaches no handler.

use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::{FromRequest, FromRequestParts, Path, Query, Request};
use axum::http::request::Parts;
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use strongroom_protocol::{DerivationPath, InvalidPath, KeyId, MAX_NONCE, Nonce};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use tracing::Span;
use utoipa::IntoParams;

use super::api::from_hex;
use super::strict::Object;
use super::{App, Context};
use crate::auth::{Caller, Identities, Operation, Shown};
use crate::problem::{Kind, Problem};
use crate::tls::ClientCertificate;

/// Longest body, in bytes, where a call does not take a longer one.
const MAX_BODY: usize = 2 * 1024 * 1024;

/// Of a longer body, this much more is read and dropped, so that its sender gets to read the answer.
const DISCARDED: usize = 1024 * 1024;

/// Memory for callers' bodies, over all requests. What is in it is counted in bytes, because requests are
/// of very different sizes: a few hundred of the largest would fill a small host.
#[derive(Debug, Clone)]
pub struct BodyRoom(Arc<Semaphore>);

/// Bytes of bodies in memory at one time. Of a body's two megabytes of hex, the parsed request keeps one,
/// and its frame to the enclave, for a moment, another: this is about what all of it takes together.
const BODY_ROOM: usize = 256 * 1024 * 1024;

/// Longest explanation of a caller's mistake, in characters: it may quote the caller.
const MAX_DETAIL: usize = 300;

impl FromRequestParts<App> for Context {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        parts.extensions.get().cloned().ok_or_else(|| Kind::Internal.into())
    }
}

impl FromRequestParts<App> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        if matches!(app.identities, Identities::AnyLocalCaller) {
            refuse_web_pages(parts)?;
        }
        let shown = match parts.extensions.get::<ClientCertificate>() {
            _ if parts.headers.contains_key(header::AUTHORIZATION) => {
                // Two of them are none, and no reason to look at the certificate.
                let header = single(&parts.headers, &header::AUTHORIZATION);
                Shown::Authorization(header.map(HeaderValue::as_bytes).unwrap_or_default())
            }
            Some(certificate) => Shown::Certificate(certificate),
            None => Shown::Nothing,
        };
        let caller = app.identities.authenticate(shown)?;
        if let Some(Context { place: Some(place), .. }) = parts.extensions.get() {
            app.admission.admit_caller(&caller, place)?;
        }
        Span::current().record("identity", caller.name());
        Ok(caller)
    }
}

/// Without identities, being on this machine is all that a caller has to prove, and a web page in a
/// browser on this machine is not such a caller. Where its requests name this machine, the browser says
/// that they come from a page (`Origin`, Fetch standard; `Sec-Fetch-Site`, Fetch Metadata); where DNS makes
/// the page's own name point here (DNS rebinding), they carry that name.
fn refuse_web_pages(Parts { headers, uri, .. }: &Parts) -> Result<(), Problem> {
    let site = headers.get("sec-fetch-site").map(HeaderValue::as_bytes);
    if headers.contains_key(header::ORIGIN) || site.is_some_and(|site| site != b"none") {
        return Err(Problem::new(Kind::Forbidden, "Without identities, requests of web pages are not served."));
    }
    // Over HTTP/2 the host stands in `:authority`; a Host beside it must not say otherwise (RFC 9113 section 8.3.1).
    let header = single(headers, &header::HOST).and_then(|host| host.to_str().ok());
    let host = match (uri.authority().map(Authority::as_str), header) {
        (Some(authority), Some(header)) if authority != header => "",
        (authority, header) => authority.or(header).unwrap_or_default(),
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|c| c.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    if name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback()) {
        return Ok(());
    }
    let detail =
        "Without identities, only requests to localhost, 127.0.0.1 or [::1] are served; this one names another host.";
    Err(Problem::new(Kind::Forbidden, detail))
}

/// The value of a header that may stand once (RFC 9110 section 5.3). Where it stands twice it has none: a
/// proxy in front may have believed the other one.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a HeaderValue> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_none() { first } else { None }
}

/// `{key_id}` of the path.
pub(super) struct KeyPath(pub(super) KeyId);

impl FromRequestParts<App> for KeyPath {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Problem> {
        let text = Path::<String>::from_request_parts(parts, app).await.map(|Path(text)| text).unwrap_or_default();
        let key_id = KeyId::try_from(text).map_err(|wrong| Problem::invalid(format!("key_id: {wrong}")))?;
        Span::current().record("key_id", key_id.as_str());
        Ok(Self(key_id))
    }
}

/// `?nonce=`: 1 to 512 bytes, hex.
pub(super) struct NonceQuery(pub(super) Nonce);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct NonceParams {
    /// 1 to 512 bytes, hex. Stands in the document, verbatim.
    #[param(pattern = "^(0[xX])?([0-9a-fA-F]{2}){1,512}$")]
    nonce: String,
}

impl FromRequestParts<App> for NonceQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let NonceParams { nonce } = query(parts)?;
        let bytes = from_hex(&nonce).map_err(|wrong| Problem::invalid(format!("nonce: {wrong}")))?;
        match Nonce::try_from(bytes) {
            Ok(nonce) if !nonce.is_empty() => Ok(Self(nonce)),
            _ => Err(Problem::invalid(format!("nonce: must have 1 to {MAX_NONCE} bytes"))),
        }
    }
}

/// `?limit=&cursor=`.
pub(super) struct PageQuery {
    pub(super) limit: usize,
    pub(super) cursor: Option<String>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PageParams {
    /// The most keys of this page, 1 to 1000; stores may return fewer.
    #[param(minimum = 1, maximum = 1000, default = 100)]
    limit: Option<usize>,
    /// `next_cursor` of the page before.
    cursor: Option<String>,
}

impl FromRequestParts<App> for PageQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let PageParams { limit, cursor } = query(parts)?;
        let limit = limit.unwrap_or(100);
        if !(1..=1000).contains(&limit) {
            return Err(Problem::invalid("limit: must be 1 to 1000"));
        }
        Ok(Self { limit, cursor })
    }
}

/// `?path=`.
pub(super) struct PathQuery(pub(super) DerivationPath);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PathParams {
    /// The path below the seed (BIP-32), `'` or `h` behind hardened indices.
    #[param(example = "m/44'/60'/0'/0/5")]
    path: String,
}

impl FromRequestParts<App> for PathQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let PathParams { path } = query(parts)?;
        path.parse().map(Self).map_err(|wrong: InvalidPath| Problem::invalid(wrong.to_string()))
    }
}

/// `?generation=`.
pub(super) struct GenerationQuery(pub(super) Option<u64>);

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct GenerationParams {
    /// The generation that is meant; if the key has another one by now, nothing is changed.
    #[param(minimum = 1)]
    generation: Option<u64>,
}

impl FromRequestParts<App> for GenerationQuery {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Problem> {
        let GenerationParams { generation } = query(parts)?;
        Ok(Self(generation))
    }
}

fn query<T: DeserializeOwned>(parts: &Parts) -> Result<T, Problem> {
    match Query::try_from_uri(&parts.uri) {
        Ok(Query(query)) => Ok(query),
        Err(rejection) => Err(Problem::invalid(shortened(&rejection.body_text()))),
    }
}

/// A body that is read only once the caller is known to be allowed to send it.
pub(super) struct UnreadBody {
    is_json: bool,
    body: Body,
    limit: usize,
    room: BodyRoom,
}

/// What a body takes of [`BodyRoom`]; to be kept as long as what was read from it.
#[derive(Debug)]
pub(super) struct Taken(OwnedSemaphorePermit);

impl FromRequest<App> for UnreadBody {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let is_json = is_json(request.headers());
        Ok(Self { is_json, body: request.into_body(), limit: MAX_BODY, room: app.body_room.clone() })
    }
}

impl UnreadBody {
    /// The same body, which may have up to so many bytes.
    pub(super) fn up_to(self, limit: usize) -> Self {
        Self { limit, ..self }
    }

    /// Reads the body as a `T`.
    ///
    /// # Errors
    /// The caller's: 400, 408, 413, 415 or 422. All callers' together: 503, there is no room for the body.
    pub(super) async fn json<T: DeserializeOwned>(self, context: &Context) -> Result<(T, Taken), Problem> {
        if !self.is_json {
            return Err(Kind::UnsupportedMediaType.into());
        }
        let (body, taken) = self.read(context).await?;
        Ok((parse(&body)?, taken))
    }

    /// Reads the body as a `T` of which nothing is required: it may be missing altogether.
    ///
    /// # Errors
    /// As of [`UnreadBody::json`].
    async fn json_or_default<T>(self, context: &Context) -> Result<(T, Taken), Problem>
    where
        T: DeserializeOwned + Default,
    {
        let is_json = self.is_json;
        let (body, taken) = self.read(context).await?;
        match (body.is_empty(), is_json) {
            (true, _) => Ok((T::default(), taken)),
            (false, true) => Ok((parse(&body)?, taken)),
            (false, false) => Err(Kind::UnsupportedMediaType.into()),
        }
    }

    async fn read(self, context: &Context) -> Result<(Vec<u8>, Taken), Problem> {
        timeout_at(context.deadline, self.collect()).await.map_err(|_| Problem::from(Kind::RequestTimeout))?
    }

    async fn collect(mut self) -> Result<(Vec<u8>, Taken), Problem> {
        let mut read = Vec::new();
        let mut taken = self.room.take(0)?;
        let mut length = 0;
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|_| Problem::new(Kind::MalformedJson, "The body did not arrive whole."))?;
            let data: Bytes = frame.into_data().unwrap_or_default();
            length += data.len();
            if length <= self.limit {
                taken.merge(self.room.take(data.len())?);
                read.extend_from_slice(&data);
            } else if length > self.limit + DISCARDED {
                break;
            }
        }
        if length > self.limit {
            return Err(Problem::new(Kind::BodyTooLarge, format!("The body is longer than {} bytes.", self.limit)));
        }
        Ok((read, Taken(taken)))
    }
}

impl Taken {
    /// Takes this much more, for what is made of the body.
    ///
    /// # Errors
    /// All callers' together: 503, there is no room for it.
    pub(super) fn grow(&mut self, bytes: usize) -> Result<(), Problem> {
        self.0.merge(BodyRoom(Arc::clone(self.0.semaphore())).take(bytes)?);
        Ok(())
    }
}

/// A request about the key in the path, asked by a caller who may manage it.
pub(super) struct Managed<T> {
    pub(super) key_id: KeyId,
    pub(super) request: T,
    _room: Taken,
}

/// The same where nothing is required of the body, so that it may be missing.
pub(super) struct Changed<T>(pub(super) Managed<T>);

impl<T: DeserializeOwned> FromRequest<App> for Managed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (key_id, context, body) = managed(request, app).await?;
        let (request, room) = body.json(&context).await?;
        Ok(Self { key_id, request, _room: room })
    }
}

impl<T: DeserializeOwned + Default> FromRequest<App> for Changed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, app: &App) -> Result<Self, Problem> {
        let (key_id, context, body) = managed(request, app).await?;
        let (request, room) = body.json_or_default(&context).await?;
        Ok(Self(Managed { key_id, request, _room: room }))
    }
}

/// Who asks, about which key, and whether they may manage it; only then the body is theirs to have read.
async fn managed(request: Request, app: &App) -> Result<(KeyId, Context, UnreadBody), Problem> {
    let (mut parts, body) = request.into_parts();
    let context = Context::from_request_parts(&mut parts, app).await?;
    let caller = Caller::from_request_parts(&mut parts, app).await?;
    let KeyPath(key_id) = KeyPath::from_request_parts(&mut parts, app).await?;
    caller.authorize_key(Operation::Manage, &key_id)?;
    let body = UnreadBody::from_request(Request::from_parts(parts, body), app).await?;
    Ok((key_id, context, body))
}

fn is_json(headers: &HeaderMap) -> bool {
    let media_type = single(headers, &header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = media_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/json")
}

impl Default for BodyRoom {
    fn default() -> Self {
        Self::of(BODY_ROOM)
    }
}

impl BodyRoom {
    /// Room for this many bytes.
    pub(super) fn of(bytes: usize) -> Self {
        Self(Arc::new(Semaphore::new(bytes)))
    }

    /// Never waits: a caller who may come back is better off than one who holds half a body.
    fn take(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Problem> {
        let bytes = u32::try_from(bytes).map_err(|_| Kind::Overloaded)?;
        Arc::clone(&self.0).try_acquire_many_owned(bytes).map_err(|_| Kind::Overloaded.into())
    }
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    // RFC 8259 section 8.1. serde would notice only in a string that it reads.
    let body = std::str::from_utf8(body).map_err(|_| Problem::new(Kind::MalformedJson, "The body is not UTF-8."))?;
    serde_json::from_str(body).map(|Object(request)| request).map_err(|error| {
        let detail = shortened(&error.to_string());
        // A wrong field may stand before the place where the JSON breaks; broken JSON is the graver fault.
        match (error.classify(), serde_json::from_str::<IgnoredAny>(body)) {
            (Category::Data, Ok(IgnoredAny)) => Problem::invalid(detail),
            (Category::Data, Err(broken)) => Problem::new(Kind::MalformedJson, shortened(&broken.to_string())),
            (Category::Syntax | Category::Eof | Category::Io, _) => Problem::new(Kind::MalformedJson, detail),
        }
    })
}

fn shortened(text: &str) -> String {
    text.chars().take(MAX_DETAIL).collect()
}
