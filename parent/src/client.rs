//! A parent as its callers see it: the one REST client of all commands. Decides how a parent is asked and how much of
//! a reply is read, and says of every failure who is to blame. Whom a token goes to is decided in `access`; what a
//! reply means for a command is the command's matter.

mod access;
mod shapes;

use std::sync::Arc;
use std::time::Duration;

use reqwest::header::RETRY_AFTER;
use reqwest::{Client, Method, StatusCode, Url};
use serde::Serialize;
use serde::de::DeserializeOwned;
use strongroom_protocol::{DerivationPath, KeyId, RecipientName, SecretString};

use crate::http::{DerivedKey, Evidence, ExportReply, ImportKeyOffer, KeyView};
use crate::problem::Document;
pub use access::{Access, AccessError};
pub use shapes::{Change, ExpectedIdentity, KeyToAdopt, KeyToImport, NewKey, Page, SignPayload, Signed, ToSign};

/// Why a call did not do what it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// The network's or the parent's: no answer, or half of one. Whether the call was carried out is not known.
    #[error("the parent cannot be reached: {0}")]
    Unreachable(String),
    /// The parent answered with a problem.
    #[error("the parent answered {0}")]
    Problem(Problem),
    /// The parent's: what it answered is not an answer to this call.
    #[error("the parent's reply is malformed: {0}")]
    Malformed(&'static str),
}

/// A problem that a parent answered with. What it says is fit for terminals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The HTTP status.
    pub status: u16,
    /// What stands behind `urn:strongroom:problem:`; empty if the answer was no problem document.
    pub slug: String,
    /// A sentence for people.
    pub detail: String,
    /// When to come back, if the parent says so.
    pub retry_after: Option<Duration>,
}

/// A parent that can be asked. Cheap to clone: clones share their connections.
#[derive(Debug, Clone)]
pub struct Parent {
    http: Client,
    url: Url,
    token: Option<Arc<SecretString>>,
}

/// Longest reply read, in bytes: a page of a thousand keys is less than half of it.
const MAX_REPLY: usize = 4 * 1024 * 1024;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A parent that asks for more patience than this is asked again anyway.
const MAX_RETRY_AFTER: u64 = 60;

/// Longest detail printed, in characters.
const MAX_DETAIL: usize = 400;

impl Parent {
    /// Gets ready to ask; asks nothing yet.
    ///
    /// # Errors
    /// [`AccessError`]: the caller's.
    pub fn new(access: Access) -> Result<Self, AccessError> {
        access.check()?;
        // No redirects, and no proxy that the environment may name: the token goes to the parent that was
        // named and to nobody else.
        let mut http = Client::builder()
            .timeout(access.timeout)
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("strongroom/", env!("CARGO_PKG_VERSION")));
        if let Some(authorities) = access.authorities()? {
            http = http.tls_certs_only(authorities);
        }
        if let Some(identity) = access.identity()? {
            http = http.identity(identity);
        }
        let http = http.build().map_err(|error| AccessError::Tls(reasons(&error)))?;
        Ok(Self { http, url: access.url, token: access.token.map(Into::into) })
    }

    /// A key.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn key(&self, key_id: &KeyId) -> Result<KeyView, AskError> {
        self.read(Method::GET, self.url(&["keys", key_id.as_str()])).await
    }

    /// At most `limit` keys from `cursor` on.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn page(&self, limit: usize, cursor: Option<&str>) -> Result<Page, AskError> {
        let mut url = self.url(&["keys"]);
        url.query_pairs_mut().append_pair("limit", &limit.to_string()).extend_pairs(cursor.map(|c| ("cursor", c)));
        let page: Page = self.read(Method::GET, url).await?;
        if page.next_cursor.as_deref().is_some_and(|next| Some(next) == cursor) {
            return Err(AskError::Malformed("the list goes round in circles"));
        }
        Ok(page)
    }

    /// Creates a key.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn create(&self, key: &NewKey) -> Result<KeyView, AskError> {
        self.write(self.url(&["keys"]), key).await
    }

    /// Has an import key offered, in a document made for this nonce (hex).
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn offer_import_key(&self, nonce: &str) -> Result<ImportKeyOffer, AskError> {
        self.write(self.url(&["import-keys"]), &serde_json::json!({ "nonce": nonce })).await
    }

    /// Imports a sealed key under this name.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn import(&self, key_id: &KeyId, key: &KeyToImport) -> Result<KeyView, AskError> {
        self.write(self.url(&["keys", key_id.as_str(), "import"]), key).await
    }

    /// Has a private key under a KMS key adopted under this name.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn adopt(&self, key_id: &KeyId, key: &KeyToAdopt) -> Result<KeyView, AskError> {
        self.write(self.url(&["keys", key_id.as_str(), "adopt"]), key).await
    }

    /// Has a key sealed to a recipient of the enclave's configuration, with a document made for this nonce (hex).
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn export(
        &self,
        key_id: &KeyId,
        recipient: &RecipientName,
        nonce: &str,
    ) -> Result<ExportReply, AskError> {
        let body = serde_json::json!({ "recipient": recipient, "nonce": nonce });
        self.write(self.url(&["keys", key_id.as_str(), "export"]), &body).await
    }

    /// Changes a key, if its generation is still this one.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn change(&self, key_id: &KeyId, change: &Change, generation: Option<u64>) -> Result<KeyView, AskError> {
        #[derive(Serialize)]
        struct Body<'a> {
            #[serde(flatten)]
            change: &'a Change,
            #[serde(skip_serializing_if = "Option::is_none")]
            generation: Option<u64>,
        }
        let call = match change {
            Change::Enable {} => "enable",
            Change::Disable {} => "disable",
            Change::ScheduleDeletion { .. } => "schedule-deletion",
            Change::CancelDeletion {} => "cancel-deletion",
            Change::Rewrap { .. } => "rewrap",
        };
        self.write(self.url(&["keys", key_id.as_str(), call]), &Body { change, generation }).await
    }

    /// Deletes a key, if its generation is still this one.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn delete(&self, key_id: &KeyId, generation: Option<u64>) -> Result<(), AskError> {
        let mut url = self.url(&["keys", key_id.as_str()]);
        if let Some(generation) = generation {
            url.query_pairs_mut().append_pair("generation", &generation.to_string());
        }
        self.send(self.http.request(Method::DELETE, url)).await.map(|_| ())
    }

    /// Signs one payload.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn sign(&self, key_id: &KeyId, to_sign: &ToSign) -> Result<Signed, AskError> {
        self.write(self.url(&["keys", key_id.as_str(), "sign"]), to_sign).await
    }

    /// The public key at a path below a seed.
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn public_key(&self, key_id: &KeyId, path: &DerivationPath) -> Result<DerivedKey, AskError> {
        let mut url = self.url(&["keys", key_id.as_str(), "public-key"]);
        url.query_pairs_mut().append_pair("path", &path.to_string());
        self.read(Method::GET, url).await
    }

    /// A document about a key, or about the enclave alone, made for this nonce (hex).
    ///
    /// # Errors
    /// [`AskError`].
    pub async fn attest(&self, key_id: Option<&KeyId>, nonce: &str) -> Result<Evidence, AskError> {
        let mut url = match key_id {
            Some(key_id) => self.url(&["keys", key_id.as_str(), "attestation"]),
            None => self.url(&["attestation"]),
        };
        url.query_pairs_mut().append_pair("nonce", nonce);
        self.read(Method::GET, url).await
    }

    fn url(&self, path: &[&str]) -> Url {
        let mut url = self.url.clone();
        // Only URLs that are no base have none, and `Access::check` lets none of those pass.
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push("v1").extend(path);
        }
        url
    }

    async fn read<T: DeserializeOwned>(&self, method: Method, url: Url) -> Result<T, AskError> {
        parsed(&self.send(self.http.request(method, url)).await?)
    }

    async fn write<T: DeserializeOwned>(&self, url: Url, body: &impl Serialize) -> Result<T, AskError> {
        parsed(&self.send(self.http.post(url).json(body)).await?)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Vec<u8>, AskError> {
        let request = match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        };
        let reply = request.send().await.map_err(unreachable)?;
        let (status, retry_after) = (reply.status(), retry_after(&reply));
        let body = bounded(reply).await?;
        if status.is_success() { Ok(body) } else { Err(AskError::Problem(problem(status, retry_after, &body))) }
    }
}

impl AskError {
    /// Whether the same call may succeed in a while: no answer, or one of a parent, or of a proxy before
    /// it, that has no time.
    #[must_use]
    pub const fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable(_) => true,
            Self::Problem(Problem { status: 500..=599, slug, .. }) if slug.is_empty() => true,
            Self::Problem(Problem { status, .. }) => matches!(status, 408 | 429 | 503 | 504),
            Self::Malformed(_) => false,
        }
    }

    /// The slug of the problem that the parent answered with; empty if it answered with none.
    #[must_use]
    pub fn slug(&self) -> &str {
        match self {
            Self::Problem(problem) => &problem.slug,
            Self::Unreachable(_) | Self::Malformed(_) => "",
        }
    }

    /// When the parent wants to be asked again.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Problem(problem) => problem.retry_after,
            Self::Unreachable(_) | Self::Malformed(_) => None,
        }
    }
}

impl std::fmt::Display for Problem {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, slug, detail, .. } = self;
        if slug.is_empty() {
            return write!(f, "{status} without a problem document: is it a parent?");
        }
        write!(f, "{status} {slug}: {detail}")
    }
}

/// Text from elsewhere, fit for a terminal: ASCII's letters, digits, punctuation and spaces stand as they are; what
/// could move the cursor, hide text or reorder it does not.
#[must_use]
pub fn printable(text: &str) -> String {
    let mut printable = String::with_capacity(text.len());
    for c in text.chars() {
        if c == ' ' || c.is_ascii_graphic() {
            printable.push(c);
        } else {
            printable.extend(c.escape_unicode());
        }
    }
    printable
}

fn parsed<T: DeserializeOwned>(body: &[u8]) -> Result<T, AskError> {
    serde_json::from_slice(body).map_err(|_| AskError::Malformed("not the expected JSON"))
}

async fn bounded(mut reply: reqwest::Response) -> Result<Vec<u8>, AskError> {
    let mut body = Vec::new();
    while let Some(chunk) = reply.chunk().await.map_err(unreachable)? {
        if body.len() + chunk.len() > MAX_REPLY {
            return Err(AskError::Malformed("too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// RFC 9110 section 10.2.3, in seconds; a date is as good as none.
fn retry_after(reply: &reqwest::Response) -> Option<Duration> {
    let seconds: u64 = reply.headers().get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds.min(MAX_RETRY_AFTER)))
}

fn problem(status: StatusCode, retry_after: Option<Duration>, body: &[u8]) -> Problem {
    let status = status.as_u16();
    let is_slug = |slug: &str| slug.len() <= 64 && slug.bytes().all(|c| c.is_ascii_lowercase() || c == b'-');
    let document = serde_json::from_slice::<Document>(body).ok();
    let told = document.and_then(|document| {
        let slug = document.kind.strip_prefix("urn:strongroom:problem:").filter(|slug| is_slug(slug))?;
        let detail: String = document.detail.chars().take(MAX_DETAIL).collect();
        Some((slug.to_owned(), printable(&detail)))
    });
    let (slug, detail) = told.unwrap_or_default();
    Problem { status, slug, detail, retry_after }
}

fn unreachable(error: reqwest::Error) -> AskError {
    AskError::Unreachable(printable(&reasons(&error.without_url())))
}

/// The chain of reasons; the first is only that sending failed.
fn reasons(error: &reqwest::Error) -> String {
    let causes = std::iter::successors(std::error::Error::source(error), |cause| cause.source());
    let causes: Vec<String> = causes.map(ToString::to_string).collect();
    if causes.is_empty() { error.to_string() } else { causes.join(": ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_stand_behind_the_path_of_the_address() {
        for (url, expected) in [
            ("https://a", "https://a/v1/keys/hot-1"),
            ("https://a/", "https://a/v1/keys/hot-1"),
            ("https://a/behind/proxy", "https://a/behind/proxy/v1/keys/hot-1"),
            ("https://a/behind/proxy/", "https://a/behind/proxy/v1/keys/hot-1"),
        ] {
            let parent = Parent { http: Client::new(), url: url.parse().expect("a URL"), token: None };
            assert_eq!(parent.url(&["keys", "hot-1"]).as_str(), expected);
        }
    }

    #[test]
    fn only_what_may_pass_is_worth_asking_again() {
        let answered = |status: u16, slug: &str| {
            AskError::Problem(Problem { status, slug: slug.to_owned(), detail: String::new(), retry_after: None })
        };
        assert!([408, 429, 503, 504].into_iter().all(|status| answered(status, "slug").may_pass()));
        assert!([500, 502, 503, 504].into_iter().all(|status| answered(status, "").may_pass()), "a proxy's");
        let stands = [400, 401, 403, 404, 409, 422, 500, 502];
        assert!(!stands.into_iter().any(|status| answered(status, "slug").may_pass()));
        assert!(AskError::Unreachable(String::new()).may_pass());
        assert!(!AskError::Malformed("").may_pass());
    }

    #[test]
    fn a_problem_is_fit_for_a_terminal() {
        let document = r#"{"type":"urn:strongroom:problem:key-not-found","title":"t","status":404,
            "detail":"\u001b]0;x\u0007 \u202edeen \u009b1m","instance":"i"}"#;
        let told = problem(StatusCode::NOT_FOUND, None, document.as_bytes());
        assert_eq!(told.detail, r"\u{1b}]0;x\u{7} \u{202e}deen \u{9b}1m");
        for kind in ["urn:other:x", "urn:strongroom:problem:\\u001b[1m", "urn:strongroom:problem:UPPER"] {
            let document = document.replace("urn:strongroom:problem:key-not-found", kind);
            assert_eq!(problem(StatusCode::NOT_FOUND, None, document.as_bytes()).slug, "", "{kind}");
        }
    }
}
