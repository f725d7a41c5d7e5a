//! A client of the control endpoint, for the suites and the development stack.

use std::io;
use std::net::SocketAddr;
use std::path::Path;

use reqwest::{Method, RequestBuilder, Response};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::control::{CreateKey, KeyView, SetState};
use super::faults::Fault;
use super::keys::KeyState;
use super::log::Call;
use super::principal::Principal;

/// Where a running mock-kms listens: `DIR/endpoint.json`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// KMS, over TLS.
    pub kms: SocketAddr,
    /// The control endpoint, over plain HTTP.
    pub control: SocketAddr,
}

/// A running mock-kms's controls.
#[derive(Debug, Clone)]
pub struct Control {
    address: SocketAddr,
    http: reqwest::Client,
}

/// A command was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// mock-kms does not answer, or not in this language.
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    /// mock-kms refused; its status and words.
    #[error("{0}: {1}")]
    Refused(reqwest::StatusCode, String),
}

impl Endpoint {
    /// Reads `state/endpoint.json`.
    ///
    /// # Errors
    /// It is not there yet (mock-kms writes it once it accepts connections), or not readable.
    pub fn read(state: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&std::fs::read(state.join(super::ENDPOINT_FILE))?)?)
    }
}

impl Control {
    /// The controls at this address.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        Self { address, http: reqwest::Client::new() }
    }

    /// Makes a KMS key and returns its ARN. Without a policy it has KMS's default one, which leaves
    /// everything to the account.
    ///
    /// # Errors
    /// mock-kms is away, or refuses the policy.
    pub async fn create_key(&self, policy: Option<Value>) -> Result<String, ControlError> {
        self.create(CreateKey { policy, multi_region: false }).await
    }

    /// The same, but a multi-Region key: its id begins with `mrk-`.
    ///
    /// # Errors
    /// mock-kms is away, or refuses the policy.
    pub async fn create_multi_region_key(&self, policy: Option<Value>) -> Result<String, ControlError> {
        self.create(CreateKey { policy, multi_region: true }).await
    }

    /// All KMS keys, the oldest first.
    ///
    /// # Errors
    /// mock-kms is away.
    pub async fn keys(&self) -> Result<Vec<KeyView>, ControlError> {
        Ok(self.ask(self.request(Method::GET, "/keys")).await?.json().await?)
    }

    /// Replaces a key's policy.
    ///
    /// # Errors
    /// mock-kms is away, or refuses the policy or the ARN.
    pub async fn put_policy(&self, arn: &str, policy: &Value) -> Result<(), ControlError> {
        self.tell(self.request(Method::PUT, &format!("/keys/{}/policy", key_id(arn))).json(policy)).await
    }

    /// Enables or disables a key, or schedules its deletion (which never comes).
    ///
    /// # Errors
    /// mock-kms is away, or knows no such key.
    pub async fn set_state(&self, arn: &str, state: KeyState) -> Result<(), ControlError> {
        self.tell(self.request(Method::PUT, &format!("/keys/{}/state", key_id(arn))).json(&SetState { state })).await
    }

    /// Adds a principal, or replaces the one of the same access key id.
    ///
    /// # Errors
    /// mock-kms is away.
    pub async fn add_principal(&self, principal: &Principal) -> Result<(), ControlError> {
        self.tell(self.request(Method::POST, "/principals").json(principal)).await
    }

    /// Ends a principal's session: `ExpiredTokenException` from now on.
    ///
    /// # Errors
    /// mock-kms is away, or knows no such principal.
    pub async fn expire_principal(&self, access_key_id: &str) -> Result<(), ControlError> {
        self.tell(self.request(Method::POST, &format!("/principals/{access_key_id}/expire"))).await
    }

    /// Removes a principal: `UnrecognizedClientException` from now on.
    ///
    /// # Errors
    /// mock-kms is away, or knows no such principal.
    pub async fn remove_principal(&self, access_key_id: &str) -> Result<(), ControlError> {
        self.tell(self.request(Method::DELETE, &format!("/principals/{access_key_id}"))).await
    }

    /// Sets a fault, beside those that are set.
    ///
    /// # Errors
    /// mock-kms is away.
    pub async fn set_fault(&self, fault: &Fault) -> Result<(), ControlError> {
        self.tell(self.request(Method::POST, "/faults").json(fault)).await
    }

    /// Clears all faults.
    ///
    /// # Errors
    /// mock-kms is away.
    pub async fn clear_faults(&self) -> Result<(), ControlError> {
        self.tell(self.request(Method::DELETE, "/faults")).await
    }

    /// The calls after the one with this sequence number; 0: all.
    ///
    /// # Errors
    /// mock-kms is away.
    pub async fn calls(&self, since: u64) -> Result<Vec<Call>, ControlError> {
        Ok(self.ask(self.request(Method::GET, &format!("/calls?since={since}"))).await?.json().await?)
    }

    async fn create(&self, key: CreateKey) -> Result<String, ControlError> {
        let key: KeyView = self.ask(self.request(Method::POST, "/keys").json(&key)).await?.json().await?;
        Ok(key.arn)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("http://{}{path}", self.address))
    }

    async fn tell(&self, request: RequestBuilder) -> Result<(), ControlError> {
        self.ask(request).await.map(|_| ())
    }

    async fn ask(&self, request: RequestBuilder) -> Result<Response, ControlError> {
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() { Ok(response) } else { Err(ControlError::Refused(status, response.text().await?)) }
    }
}

fn key_id(arn: &str) -> &str {
    arn.rsplit('/').next().unwrap_or(arn)
}
