//! The REST interface: routes, and what surrounds every request: an id, a deadline, a log line, and a
//! wall that a panic does not pass. What the calls do is in `keys`, `sign`, `changes`, `custody`, `evidence` and `probes`; how their
//! input is read, in `extract`, and what nobody has read of it, in `leftover`; what they look like on the wire, in `api`.

mod admission;
mod api;
mod changes;
mod custody;
mod evidence;
mod extract;
mod keys;
mod leftover;
mod openapi;
mod probes;
mod schema;
mod server;
mod sign;
mod strict;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Response, header};
use axum::middleware::{Next, from_fn_with_state};
use axum::response::IntoResponse as _;
use tokio::time::{Instant, timeout_at};
use tracing::{Instrument as _, error, field, info, info_span};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::auth::Identities;
use crate::credentials::CredentialFeed;
use crate::enclave_client::EnclaveClient;
use crate::problem::{Kind, Problem};
use crate::records::Records;
pub use admission::Admission;
use admission::Place;
pub(crate) use api::from_hex;
pub use api::{DerivedKey, Evidence, ExportReply, ExportedKey, ImportKeyOffer, KeyView};
pub use extract::BodyRoom;
pub use server::{Entrance, serve};

/// What the handlers work with.
#[derive(Debug, Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
#[derive(Debug)]
pub struct Parts {
    /// Who may call.
    pub identities: Identities,
    /// How many requests at one time.
    pub admission: Admission,
    /// The enclave.
    pub enclave: EnclaveClient,
    /// The records.
    pub records: Records,
    /// For `/readyz`.
    pub credentials: CredentialFeed,
    /// From a request's head to its reply.
    pub request_timeout: Duration,
    /// Memory for bodies.
    pub body_room: BodyRoom,
    /// For `/readyz`.
    pub store_readiness: probes::StoreReadiness,
}

pub use probes::StoreReadiness;

/// One request's id and deadline, and its place among those that are served.
#[derive(Debug, Clone)]
struct Context {
    id: Arc<str>,
    deadline: Instant,
    place: Option<Place>,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A handler whose own deadlines failed is given up this much after the request's.
const GRACE: Duration = Duration::from_secs(1);

impl App {
    /// Puts the parts together.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(parts))
    }

    /// The whole interface.
    pub fn router(self) -> Router {
        let (router, _) = routes().split_for_parts();
        router
            .fallback(async || Problem::from(Kind::NotFound))
            .method_not_allowed_fallback(async || Problem::from(Kind::MethodNotAllowed))
            .layer(from_fn_with_state(self.clone(), surround))
            .with_state(self)
    }
}

impl std::ops::Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// The routes with their descriptions. `/openapi.json` is made from the same list.
fn routes() -> OpenApiRouter<App> {
    openapi::described()
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::show, changes::delete))
        .routes(routes!(changes::enable))
        .routes(routes!(changes::disable))
        .routes(routes!(changes::schedule_deletion))
        .routes(routes!(changes::cancel_deletion))
        .routes(routes!(changes::rewrap))
        .routes(routes!(sign::one))
        .routes(routes!(sign::batch))
        .routes(routes!(keys::public_key))
        .routes(routes!(custody::offer))
        .routes(routes!(custody::import))
        .routes(routes!(custody::adopt))
        .routes(routes!(custody::export))
        .routes(routes!(evidence::of_key))
        .routes(routes!(evidence::of_enclave))
        .routes(routes!(probes::healthz))
        .routes(routes!(probes::readyz))
        .routes(routes!(openapi::document))
}

/// Every request passes here, and every reply.
async fn surround(State(app): State<App>, request: Request, next: Next) -> Response<Body> {
    let started = Instant::now();
    let mut request = leftover::none_of(request);
    let mut context =
        Context { id: request_id(request.headers()), deadline: started + app.request_timeout, place: None };
    if !probes::is_probe(request.uri()) {
        match app.admission.admit() {
            Ok(place) => context.place = Some(place),
            Err(problem) => return finish(problem.into_response(), &context),
        }
    }
    let method = request.method().clone();
    let route = request.extensions().get::<MatchedPath>().cloned();
    let span = info_span!("request", request_id = %context.id, identity = field::Empty, key_id = field::Empty);
    request.extensions_mut().insert(context.clone());
    // A task of its own: a panic ends there, and a caller that hangs up does not leave a key half made.
    let handler = tokio::spawn(next.run(request).instrument(span.clone()));
    let response = match timeout_at(context.deadline + GRACE, handler).await {
        Ok(Ok(response)) => response,
        Ok(Err(_)) => span.in_scope(|| {
            error!("a handler panicked");
            Problem::from(Kind::Internal).into_response()
        }),
        Err(_) => Problem::from(Kind::Deadline).into_response(),
    };
    let problem = response.extensions().get::<Problem>().map(|problem| problem.kind.slug());
    let response = finish(response, &context);
    let status = response.status().as_u16();
    let latency_us = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let line = move || {
        info!(
            method = method.as_str(),
            route = route.as_ref().map_or("none", MatchedPath::as_str),
            status,
            problem,
            latency_us,
            "request"
        );
    };
    // The caller does not wait for it: writing a line takes longer than a hop to the enclave.
    tokio::spawn(async move { span.in_scope(line) });
    response
}

/// Names the request in the reply, and writes the problem document if there is a problem.
fn finish(mut response: Response<Body>, context: &Context) -> Response<Body> {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // A document of strings and a number always encodes.
        let document = serde_json::to_vec(&problem.document(&context.id)).unwrap_or_default();
        *response.body_mut() = Body::from(document);
        response.headers_mut().remove(header::CONTENT_LENGTH);
    }
    if let Ok(id) = HeaderValue::from_str(&context.id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The caller's own id if it is 1 to 64 of `[A-Za-z0-9._-]`, so that it can stand in a log; otherwise 16
/// random bytes.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    let allowed = |c: u8| c.is_ascii_alphanumeric() || b"._-".contains(&c);
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match given.filter(|id| (1..=64).contains(&id.len()) && id.bytes().all(allowed)) {
        Some(id) => id.into(),
        None => {
            let mut random = [0; 16];
            // Only a name: without randomness all requests are called zero.
            let _ = getrandom::fill(&mut random);
            hex::encode(random).into()
        }
    }
}

#[cfg(test)]
mod tests;
