//! The AWS credentials that the enclave signs its KMS calls with: from the SDK's default provider chain
//! (IMDSv2 on EC2), renewed before they expire. They are the parent's own; what protects the keys is
//! attestation. They are never logged, and leave this process only towards the enclave.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials as AwsCredentials;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use strongroom_protocol::{Credentials, SecretString};
use tokio::sync::{Mutex, watch};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

/// The current credentials, and the way to newer ones.
#[derive(Clone)]
pub struct CredentialFeed(Arc<Shared>);

struct Shared {
    provider: SharedCredentialsProvider,
    current: watch::Sender<Option<Arc<Credentials>>>,
    /// When the provider was asked last. Held while it is asked, so that it is asked once at a time.
    asked: Mutex<Option<Instant>>,
}

/// Renewal begins this long before expiry; credentials with less left are renewed at half of it.
const MARGIN: Duration = Duration::from_secs(300);

/// How long the provider chain may take.
const DEADLINE: Duration = Duration::from_secs(10);

/// Answers of the provider younger than this are not asked for again.
const FRESH: Duration = Duration::from_secs(1);

/// Credentials that never expire are still looked at again, for a rotated file.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);

impl CredentialFeed {
    /// Takes credentials from `provider`; asks for none yet.
    #[must_use]
    pub fn new(provider: SharedCredentialsProvider) -> Self {
        Self(Arc::new(Shared { provider, current: watch::Sender::new(None), asked: Mutex::new(None) }))
    }

    /// Keeps the credentials fresh, for ever.
    pub async fn keep_fresh(self) {
        let mut pause = Duration::from_secs(1);
        loop {
            self.renew().await;
            let wait = match self.current() {
                Some(credentials) if is_live(&credentials) => {
                    pause = Duration::from_secs(1);
                    until_renewal(&credentials)
                }
                _ => {
                    pause = (pause * 2).min(Duration::from_secs(30));
                    pause
                }
            };
            sleep(wait).await;
        }
    }

    /// What the provider said last, expired or not.
    #[must_use]
    pub fn current(&self) -> Option<Arc<Credentials>> {
        self.0.current.borrow().clone()
    }

    /// Whether there are credentials that have not expired.
    #[must_use]
    pub fn are_live(&self) -> bool {
        self.current().is_some_and(|credentials| is_live(&credentials))
    }

    /// Tells when the credentials change.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Option<Arc<Credentials>>> {
        self.0.current.subscribe()
    }

    /// Asks the provider, unless it answered within the last second. What it says is then
    /// [`current`](Self::current); if it fails, the old ones stay.
    pub async fn renew(&self) {
        let mut asked = self.0.asked.lock().await;
        if asked.is_some_and(|at| at.elapsed() < FRESH) {
            return;
        }
        match timeout(DEADLINE, self.0.provider.provide_credentials()).await {
            Ok(Ok(provided)) => self.publish(to_wire(&provided)),
            Ok(Err(error)) => warn!(reason = reason(&error), "no AWS credentials"),
            Err(_) => warn!(reason = "the provider chain took too long", "no AWS credentials"),
        }
        *asked = Some(Instant::now());
    }

    fn publish(&self, credentials: Credentials) {
        self.0.current.send_if_modified(|current| {
            let changed = current.as_deref().is_none_or(|old| !same(old, &credentials));
            if changed {
                info!(expires_at_ms = credentials.expires_at_ms, "AWS credentials renewed");
                *current = Some(Arc::new(credentials));
            }
            changed
        });
    }
}

impl fmt::Debug for CredentialFeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CredentialFeed").field("live", &self.are_live()).finish_non_exhaustive()
    }
}

fn to_wire(provided: &AwsCredentials) -> Credentials {
    let expires_at = provided.expiry().and_then(|at| at.duration_since(UNIX_EPOCH).ok());
    Credentials {
        access_key_id: SecretString::new(provided.access_key_id().to_owned()),
        secret_access_key: SecretString::new(provided.secret_access_key().to_owned()),
        session_token: provided.session_token().map(|token| SecretString::new(token.to_owned())),
        expires_at_ms: expires_at.and_then(|at| u64::try_from(at.as_millis()).ok()),
    }
}

fn same(a: &Credentials, b: &Credentials) -> bool {
    let token = |c: &Credentials| c.session_token.as_ref().map(|token| token.expose().to_owned());
    a.access_key_id.expose() == b.access_key_id.expose()
        && a.secret_access_key.expose() == b.secret_access_key.expose()
        && token(a) == token(b)
        && a.expires_at_ms == b.expires_at_ms
}

/// `None`: they never expire.
fn time_left(credentials: &Credentials) -> Option<Duration> {
    let expires_at = UNIX_EPOCH + Duration::from_millis(credentials.expires_at_ms?);
    Some(expires_at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn is_live(credentials: &Credentials) -> bool {
    time_left(credentials).is_none_or(|left| !left.is_zero())
}

fn until_renewal(credentials: &Credentials) -> Duration {
    match time_left(credentials) {
        None => LOOK_AGAIN,
        Some(left) => left.saturating_sub(MARGIN).max(left / 2).clamp(FRESH, LOOK_AGAIN),
    }
}

/// The kind of error only: a provider's own text may quote what it read.
const fn reason(error: &aws_credential_types::provider::error::CredentialsError) -> &'static str {
    use aws_credential_types::provider::error::CredentialsError as E;
    match error {
        E::CredentialsNotLoaded(_) => "no provider of the chain has any",
        E::ProviderTimedOut(_) => "a provider took too long",
        E::InvalidConfiguration(_) => "a provider is configured wrongly",
        E::ProviderError(_) => "a provider failed",
        _ => "the provider chain failed",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expiring_in(left: Duration) -> Credentials {
        let expiry = SystemTime::now() + left;
        to_wire(&AwsCredentials::new("AKIA", "secret", None, Some(expiry), "test"))
    }

    #[test]
    fn renewal_comes_five_minutes_or_half_before_expiry() {
        let hour = until_renewal(&expiring_in(Duration::from_secs(3600)));
        assert!((3298..=3300).contains(&hour.as_secs()), "{hour:?}");
        let short = until_renewal(&expiring_in(Duration::from_secs(60)));
        assert!((29..=30).contains(&short.as_secs()), "{short:?}");
        assert_eq!(until_renewal(&to_wire(&AwsCredentials::new("AKIA", "secret", None, None, "test"))), LOOK_AGAIN);
    }

    #[test]
    fn expired_credentials_are_not_live() {
        assert!(is_live(&expiring_in(Duration::from_secs(60))));
        let expired = to_wire(&AwsCredentials::new("AKIA", "secret", None, Some(UNIX_EPOCH), "test"));
        assert!(!is_live(&expired));
    }

    #[tokio::test]
    async fn only_a_change_is_announced_and_nothing_is_printed() {
        let provider = AwsCredentials::new("AKIA", "opensesame", None, None, "test");
        let feed = CredentialFeed::new(SharedCredentialsProvider::new(provider));
        let mut changes = feed.changes();
        feed.renew().await;
        assert!(changes.has_changed().expect("open"));
        changes.mark_unchanged();
        feed.publish(to_wire(&AwsCredentials::new("AKIA", "opensesame", None, None, "test")));
        assert!(!changes.has_changed().expect("open"));
        assert!(!format!("{feed:?} {:?}", feed.current()).contains("opensesame"));
    }
}
