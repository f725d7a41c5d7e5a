//! A caller of the REST endpoint, as an app would be: JSON in, status and JSON out, over TLS where the
//! endpoint speaks it.

use std::io;

use reqwest::header::HeaderMap;
use reqwest::{Method, RequestBuilder, StatusCode};
use serde_json::Value;

use crate::pki::TlsPair;

/// A caller.
#[derive(Debug, Clone)]
pub struct Api {
    url: String,
    token: Option<String>,
    http: reqwest::Client,
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body; null if it is no JSON.
    pub body: Value,
}

impl Api {
    /// A caller without a token.
    #[must_use]
    pub fn new(url: &str) -> Self {
        Self { url: url.to_owned(), token: None, http: reqwest::Client::new() }
    }

    /// A caller whose connections are made by `http`; see [`tls_client`].
    #[must_use]
    pub fn over(url: &str, http: reqwest::Client) -> Self {
        Self { url: url.to_owned(), token: None, http }
    }

    /// The same caller with a token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// `GET path`.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn get(&self, path: &str) -> io::Result<Reply> {
        self.call(Method::GET, path, None).await
    }

    /// `POST path` with a JSON body.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn post(&self, path: &str, body: Value) -> io::Result<Reply> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// `DELETE path`.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn delete(&self, path: &str) -> io::Result<Reply> {
        self.call(Method::DELETE, path, None).await
    }

    /// Signs with `key_id`.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn sign(&self, key_id: &str, body: Value) -> io::Result<Reply> {
        self.post(&format!("/v1/keys/{key_id}/sign"), body).await
    }

    /// Signs many payloads with `key_id`.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn sign_batch(&self, key_id: &str, body: Value) -> io::Result<Reply> {
        self.post(&format!("/v1/keys/{key_id}/sign-batch"), body).await
    }

    /// A request that is still to be completed: other headers, another body.
    pub fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let request = self.http.request(method, format!("{}{path}", self.url));
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> io::Result<Reply> {
        let request = self.request(method, path);
        Reply::to(if let Some(body) = &body { request.json(body) } else { request }).await
    }
}

/// A client that believes the authorities of `roots` (PEM) and no others, and shows the certificate of
/// `pair` to whoever asks for one.
///
/// # Errors
/// One of them is no PEM.
pub fn tls_client(roots: &str, pair: Option<&TlsPair>) -> io::Result<reqwest::ClientBuilder> {
    let roots = reqwest::Certificate::from_pem_bundle(roots.as_bytes()).map_err(io::Error::other)?;
    let client = reqwest::Client::builder().tls_certs_only(roots);
    let Some(TlsPair { certificate, key }) = pair else { return Ok(client) };
    let identity = reqwest::Identity::from_pem(format!("{certificate}{key}").as_bytes()).map_err(io::Error::other)?;
    Ok(client.identity(identity))
}

impl Reply {
    /// Sends `request` and reads what comes back.
    ///
    /// # Errors
    /// There was no reply.
    pub async fn to(request: RequestBuilder) -> io::Result<Self> {
        let response = request.send().await.map_err(io::Error::other)?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(io::Error::other)?;
        Ok(Self { status, headers, body: serde_json::from_slice(&body).unwrap_or_default() })
    }

    /// The problem's slug: what follows `urn:strongroom:problem:`; empty if it is none.
    #[must_use]
    pub fn problem(&self) -> &str {
        self.text("type").strip_prefix("urn:strongroom:problem:").unwrap_or_default()
    }

    /// A text field of the body; empty if there is none.
    #[must_use]
    pub fn text(&self, field: &str) -> &str {
        self.body.get(field).and_then(Value::as_str).unwrap_or_default()
    }

    /// A field of hex, as bytes.
    ///
    /// # Errors
    /// There is no such field, or it is not hex.
    pub fn bytes(&self, field: &str) -> io::Result<Vec<u8>> {
        let hex = self.text(field).strip_prefix("0x").ok_or_else(|| io::Error::other(format!("no {field}")))?;
        hex::decode(hex).map_err(io::Error::other)
    }
}
