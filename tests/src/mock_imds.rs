//! A double of EC2's instance metadata service, version 2 only, as far as credentials need it: a session
//! token first, then the role's name, then its credentials. Whoever holds it decides what they are.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::mock_kms::Principal;

/// A running service. Ends when dropped.
#[derive(Debug)]
pub struct MockImds {
    address: SocketAddr,
    role: Arc<Mutex<Role>>,
    server: JoinHandle<io::Result<()>>,
}

/// The role of the instance.
struct Role {
    session: Principal,
    asked: u32,
}

impl MockImds {
    /// Serves the credentials of `session` on loopback.
    ///
    /// # Errors
    /// There is no port.
    pub async fn start(session: Principal) -> io::Result<Self> {
        let role = Arc::new(Mutex::new(Role { session, asked: 0 }));
        let routes = Router::new()
            .route("/latest/api/token", put(token))
            .route("/latest/meta-data/iam/security-credentials/", get(name))
            .route("/latest/meta-data/iam/security-credentials/strongroom-parent", get(credentials))
            .with_state(Arc::clone(&role));
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        Ok(Self { address, role, server: tokio::spawn(axum::serve(listener, routes).into_future()) })
    }

    /// Replaces the role's credentials, as AWS does every few hours.
    pub fn rotate(&self, session: Principal) {
        lock(&self.role).session = session;
    }

    /// How often the credentials were asked for.
    #[must_use]
    pub fn asked(&self) -> u32 {
        lock(&self.role).asked
    }

    /// The environment of a process on this instance: no credentials but those of the service.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        [
            ("AWS_EC2_METADATA_SERVICE_ENDPOINT", format!("http://{}", self.address)),
            ("AWS_EC2_METADATA_DISABLED", "false".to_owned()),
            ("AWS_ACCESS_KEY_ID", String::new()),
            ("AWS_SECRET_ACCESS_KEY", String::new()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .into()
    }
}

impl Drop for MockImds {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl std::fmt::Debug for Role {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Role({})", self.session.access_key_id)
    }
}

const TOKEN: &str = "mock-imds-session";
const LIFETIME: &str = "x-aws-ec2-metadata-token-ttl-seconds";

async fn token(headers: HeaderMap) -> Response {
    match headers.get(LIFETIME) {
        Some(seconds) => ([(LIFETIME, seconds.clone())], TOKEN).into_response(),
        None => StatusCode::BAD_REQUEST.into_response(),
    }
}

async fn name(headers: HeaderMap) -> Response {
    if has_token(&headers) { "strongroom-parent".into_response() } else { StatusCode::UNAUTHORIZED.into_response() }
}

async fn credentials(State(role): State<Arc<Mutex<Role>>>, headers: HeaderMap) -> Response {
    if !has_token(&headers) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let mut role = lock(&role);
    role.asked += 1;
    let time = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
    let expires = role.session.expires_at_ms.unwrap_or_default();
    let expires = OffsetDateTime::from_unix_timestamp_nanos(i128::from(expires) * 1_000_000);
    Json(json!({
        "Code": "Success",
        "LastUpdated": time(SystemTime::now().into()),
        "Type": "AWS-HMAC",
        "AccessKeyId": role.session.access_key_id,
        "SecretAccessKey": role.session.secret_access_key,
        "Token": role.session.session_token,
        "Expiration": time(expires.unwrap_or(OffsetDateTime::UNIX_EPOCH)),
    }))
    .into_response()
}

fn has_token(headers: &HeaderMap) -> bool {
    headers.get("x-aws-ec2-metadata-token").is_some_and(|token| token == TOKEN)
}

fn lock(role: &Mutex<Role>) -> MutexGuard<'_, Role> {
    role.lock().unwrap_or_else(PoisonError::into_inner)
}
