//! An AWS JSON service whose answers a test makes up: for what an emulator does not do on request. The
//! stores' way through a real implementation is the workspace's suites' matter.

use std::sync::Arc;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use axum::Json;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// What is answered: a result, or an error with its `__type`.
pub(crate) type Answer = Result<Value, Value>;

/// The SDK's configuration for a service that answers an operation and its request like this.
pub(crate) async fn answering(answer: impl Fn(&str, Value) -> Answer + Send + Sync + 'static) -> SdkConfig {
    let answer = Arc::new(answer);
    let service = axum::Router::new().fallback(async move |headers: HeaderMap, body: String| {
        let target = headers["x-amz-target"].to_str().expect("text");
        let operation = target.rsplit('.').next().expect("an operation");
        reply(answer(operation, serde_json::from_str(&body).expect("JSON")))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(crate::http::serve(listener, service, 100, std::time::Duration::from_secs(1), std::future::pending()));
    let credentials = Credentials::new("AKIA", "secret", None, None, "test");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new("eu-central-1"))
        .endpoint_url(format!("http://{address}"))
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        .build()
}

pub(crate) fn refusal(code: &'static str) -> Answer {
    Err(json!({ "__type": code, "message": "as the test wants it" }))
}

fn reply(answer: Answer) -> Response {
    let (status, body) = match answer {
        Ok(result) => (StatusCode::OK, result),
        Err(error) => (StatusCode::BAD_REQUEST, error),
    };
    (status, [(header::CONTENT_TYPE, "application/x-amz-json-1.1")], Json(body).into_response().into_body())
        .into_response()
}
