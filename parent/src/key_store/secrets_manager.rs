//! Records as secrets in AWS Secrets Manager, named prefix ‖ key id. A record is no secret (the key in
//! it is sealed); what this store adds is AWS's own access control, replication and audit.
//!
//! Secrets Manager cannot write on a condition, but it moves a staging label only from the version that
//! the mover names. So a change is a new version without the label, and then the move of `AWSCURRENT`
//! from exactly the version that was read: of two movers, one is told no.

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
use sha2::{Digest, Sha256};
use strongroom_protocol::KeyId;
use tokio::task::JoinSet;

use super::{Fetched, Page, Revision, StoreError, Wanted, read, unavailable, writing_token};

/// The secrets under a prefix.
#[derive(Debug, Clone)]
pub struct SecretsManager {
    client: Client,
    prefix: String,
}

/// A version of a secret, by its id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretRevision(String);

/// The label of the version that is the secret's value.
const CURRENT: &str = "AWSCURRENT";

/// The label of a version that is written and not yet current. A version without any label may be removed.
const PENDING: &str = "STRONGROOM_PENDING";

/// The value of a secret whose key is deleted, in the moment before the secret is. From here on no other
/// change is possible, so none can be accepted and then lost.
const TOMBSTONE: &str = "{\"strongroom\":\"deleted\"}";

/// How long Secrets Manager keeps a deleted secret, in days; the longest that there is. Until then AWS's
/// `RestoreSecret` brings it back, and its name stays taken.
const RECOVERY_DAYS: i64 = 30;

/// The most that ListSecrets returns at once.
const MAX_PAGE: usize = 100;

/// Not a key's id (it begins with a dot), so asking for it only tells whether the service answers.
const NO_KEY: &str = ".ready";

impl SecretsManager {
    /// Uses secrets whose names begin with `prefix`; does not ask for any yet.
    #[must_use]
    pub fn new(aws: &SdkConfig, prefix: &str) -> Self {
        Self { client: Client::new(aws), prefix: prefix.to_owned() }
    }

    pub(super) async fn create(&self, key_id: &KeyId, json: String) -> Result<SecretRevision, StoreError> {
        let version = request_token(&json);
        let create = self
            .client
            .create_secret()
            .name(self.name(key_id.as_str()))
            .description("A strongroom key record; sealed")
            .client_request_token(&version)
            .secret_string(json);
        match create.send().await {
            Ok(_) => Ok(SecretRevision(version)),
            // InvalidRequest: a secret of that name is scheduled for deletion, and keeps the name until then.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_exists_exception() || e.is_invalid_request_exception()) =>
            {
                Err(StoreError::Exists)
            }
            Err(error) => Err(unavailable("Secrets Manager CreateSecret", &error)),
        }
    }

    pub(super) async fn replace(
        &self,
        key_id: &KeyId,
        old: &SecretRevision,
        json: String,
    ) -> Result<SecretRevision, StoreError> {
        let new = SecretRevision(writing_token()?);
        self.put_pending(key_id, &new, json).await?;
        self.make_current(key_id, old, &new).await?;
        Ok(new)
    }

    pub(super) async fn delete(&self, key_id: &KeyId, old: &SecretRevision) -> Result<(), StoreError> {
        self.replace(key_id, old, TOMBSTONE.to_owned()).await?;
        self.bury(key_id).await
    }

    /// Writes a version that is not the secret's value yet.
    async fn put_pending(&self, key_id: &KeyId, new: &SecretRevision, json: String) -> Result<(), StoreError> {
        let put = self
            .client
            .put_secret_value()
            .secret_id(self.name(key_id.as_str()))
            .client_request_token(&new.0)
            .version_stages(PENDING)
            .secret_string(json);
        match put.send().await {
            Ok(_) => Ok(()),
            // Deleted meanwhile.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception() || e.is_invalid_request_exception()) =>
            {
                Err(StoreError::GenerationLost)
            }
            Err(error) => Err(unavailable("Secrets Manager PutSecretValue", &error)),
        }
    }

    async fn make_current(&self, key_id: &KeyId, old: &SecretRevision, new: &SecretRevision) -> Result<(), StoreError> {
        let update = self
            .client
            .update_secret_version_stage()
            .secret_id(self.name(key_id.as_str()))
            .version_stage(CURRENT)
            .remove_from_version_id(&old.0)
            .move_to_version_id(&new.0);
        match update.send().await {
            Ok(_) => Ok(()),
            Err(error)
                if error.as_service_error().is_some_and(|e| {
                    e.is_invalid_parameter_exception()
                        || e.is_invalid_request_exception()
                        || e.is_resource_not_found_exception()
                }) =>
            {
                // The SDK repeats a call whose answer was lost; the first one may have moved it.
                match self.current(key_id.as_str()).await? {
                    Some((_, there)) if there == *new => Ok(()),
                    _ => Err(StoreError::GenerationLost),
                }
            }
            Err(error) => Err(unavailable("Secrets Manager UpdateSecretVersionStage", &error)),
        }
    }

    pub(super) async fn finish_deletion(&self, key_id: &KeyId) -> Result<(), StoreError> {
        match self.current(key_id.as_str()).await? {
            Some((value, _)) if value == TOMBSTONE => self.bury(key_id).await,
            _ => Ok(()),
        }
    }

    /// Deletes a secret with a tombstone; one that is gone by now is deleted. Replicas in other Regions go
    /// first: Secrets Manager deletes no secret that has some.
    async fn bury(&self, key_id: &KeyId) -> Result<(), StoreError> {
        let name = self.name(key_id.as_str());
        let secret = match self.client.describe_secret().secret_id(&name).send().await {
            Ok(secret) if secret.deleted_date.is_some() => return Ok(()),
            Ok(secret) => secret,
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => {
                return Ok(());
            }
            Err(error) => return Err(unavailable("Secrets Manager DescribeSecret", &error)),
        };
        let replicas: Vec<String> =
            secret.replication_status.unwrap_or_default().into_iter().filter_map(|replica| replica.region).collect();
        if !replicas.is_empty() {
            let remove = self.client.remove_regions_from_replication().secret_id(&name);
            let removed = remove.set_remove_replica_regions(Some(replicas)).send().await;
            removed.map_err(|error| unavailable("Secrets Manager RemoveRegionsFromReplication", &error))?;
        }
        match self.client.delete_secret().secret_id(name).recovery_window_in_days(RECOVERY_DAYS).send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_resource_not_found_exception()) => Ok(()),
            Err(error) => Err(unavailable("Secrets Manager DeleteSecret", &error)),
        }
    }

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        match self.current(key_id.as_str()).await? {
            Some((json, revision)) if json != TOMBSTONE => {
                Ok(Fetched { stored: read(key_id, json.as_bytes())?, revision: Revision::Secret(revision) })
            }
            _ => Err(StoreError::NotFound),
        }
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        let (key_ids, next) = self.names(cursor, limit.min(MAX_PAGE)).await?;
        let mut fetches = JoinSet::new();
        for key_id in key_ids.into_iter().filter(wanted) {
            let store = self.clone();
            fetches.spawn(async move {
                let fetched = store.fetch(&key_id).await.map(|Fetched { stored, .. }| stored);
                (key_id, fetched)
            });
        }
        let mut page = Page { next, ..Page::default() };
        let mut unreadable = Vec::new();
        while let Some(fetched) = fetches.join_next().await {
            match fetched {
                Ok((key_id, Err(StoreError::Unavailable))) => unreadable.push(key_id),
                Ok((_, fetched)) => page.push(fetched)?,
                Err(_) => return Err(StoreError::Unavailable),
            }
        }
        // One secret may have a policy or a KMS key of its own that denies it; if none can be read, the
        // service is away.
        if page.records.is_empty() && !unreadable.is_empty() {
            return Err(StoreError::Unavailable);
        }
        page.damaged.append(&mut unreadable);
        page.records.sort_by(|a, b| a.key_id().cmp(b.key_id()));
        page.damaged.sort();
        Ok(page)
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.current(NO_KEY).await.map(|_| ())
    }

    /// One page of AWS's own: the key ids in it, and AWS's cursor.
    async fn names(&self, cursor: Option<String>, limit: usize) -> Result<(Vec<KeyId>, Option<String>), StoreError> {
        let had_cursor = cursor.is_some();
        let filter = Filter::builder().key(FilterNameStringType::Name).values(&self.prefix).build();
        let list = self
            .client
            .list_secrets()
            .set_filters((!self.prefix.is_empty()).then(|| vec![filter]))
            .max_results(i32::try_from(limit).unwrap_or(i32::MAX))
            .set_next_token(cursor);
        let output = list.send().await.map_err(|error| {
            let e = error.as_service_error();
            if had_cursor
                && e.is_some_and(|e| e.is_invalid_next_token_exception() || e.is_invalid_parameter_exception())
            {
                StoreError::Cursor
            } else {
                unavailable("Secrets Manager ListSecrets", &error)
            }
        })?;
        let names = output.secret_list.unwrap_or_default().into_iter().filter_map(|entry| entry.name);
        // AWS's name filter also matches other cases and later words of a name.
        let key_ids = names.filter_map(|name| name.strip_prefix(&self.prefix)?.parse().ok()).collect();
        Ok((key_ids, output.next_token))
    }

    /// The secret's value, and which version it is; `None` if there is no such secret.
    async fn current(&self, key_id: &str) -> Result<Option<(String, SecretRevision)>, StoreError> {
        let get = self.client.get_secret_value().secret_id(self.name(key_id)).version_stage(CURRENT);
        match get.send().await {
            Ok(output) => {
                let version = SecretRevision(output.version_id.unwrap_or_default());
                Ok(Some((output.secret_string.unwrap_or_default(), version)))
            }
            // InvalidRequest: the secret is scheduled for deletion. To whoever asks, it is gone.
            Err(error)
                if error
                    .as_service_error()
                    .is_some_and(|e| e.is_resource_not_found_exception() || e.is_invalid_request_exception()) =>
            {
                Ok(None)
            }
            Err(error) => Err(unavailable("Secrets Manager GetSecretValue", &error)),
        }
    }

    fn name(&self, key_id: &str) -> String {
        format!("{}{key_id}", self.prefix)
    }
}

/// Makes a repeated request the same request (32 to 64 characters): the SDK repeats one whose answer was
/// lost, and then must not take the key that it created for another's.
fn request_token(json: &str) -> String {
    hex::encode(Sha256::digest(json))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_store::aws_double::{answering, refusal};
    use crate::stored_record::tests::sample;
    use serde_json::json;

    #[tokio::test]
    async fn a_secret_scheduled_for_deletion_is_gone_but_keeps_its_name() {
        let aws = answering(|_, _| refusal("InvalidRequestException")).await;
        let store = SecretsManager::new(&aws, "strongroom/");
        let id: KeyId = "a".parse().expect("id");
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::NotFound));
        assert_eq!(store.create(&id, "{}".to_owned()).await.err(), Some(StoreError::Exists));
    }

    #[tokio::test]
    async fn a_damaged_secret_is_left_out_of_the_list() {
        let aws = answering(|operation, request| match operation {
            "ListSecrets" => Ok(json!({ "SecretList": [{ "Name": "p/a" }, { "Name": "p/b" }, { "Name": "p/c" }] })),
            _ => match request["SecretId"].as_str() {
                Some("p/a") => Ok(json!({ "SecretString": sample("a").to_json().expect("encodes") })),
                Some("p/b") => Ok(json!({ "SecretString": "damaged" })),
                _ => refusal("InvalidRequestException"),
            },
        })
        .await;
        let page = SecretsManager::new(&aws, "p/").list(None, 10, &|_: &KeyId| true).await.expect("listed");
        assert_eq!(page.records, [sample("a")]);
        assert_eq!(page.damaged, ["b".parse().expect("id")]);
    }

    #[tokio::test]
    async fn a_move_whose_answer_was_lost_is_known_again() {
        let moved_to = std::sync::Mutex::new(json!(null));
        let aws = answering(move |operation, request| match operation {
            "PutSecretValue" => Ok(json!({})),
            "UpdateSecretVersionStage" => {
                *moved_to.lock().expect("unpoisoned") = request["MoveToVersionId"].clone();
                refusal("InvalidParameterException")
            }
            _ => Ok(json!({ "SecretString": "", "VersionId": *moved_to.lock().expect("unpoisoned") })),
        })
        .await;
        let store = SecretsManager::new(&aws, "p/");
        let id: KeyId = "a".parse().expect("id");
        assert!(store.replace(&id, &SecretRevision("old".to_owned()), "{}".to_owned()).await.is_ok());
    }

    #[tokio::test]
    async fn a_secret_that_alone_cannot_be_read_does_not_cost_others_the_list() {
        let aws = answering(|operation, request| match (operation, request["SecretId"].as_str()) {
            ("ListSecrets", _) => Ok(json!({ "SecretList": [{ "Name": "p/a" }, { "Name": "p/b" }] })),
            (_, Some("p/a")) => Ok(json!({ "SecretString": sample("a").to_json().expect("encodes") })),
            _ => refusal("AccessDeniedException"),
        })
        .await;
        let page = SecretsManager::new(&aws, "p/").list(None, 10, &|_: &KeyId| true).await.expect("listed");
        assert_eq!((page.records, page.damaged), (vec![sample("a")], vec!["b".parse().expect("id")]));
    }

    #[tokio::test]
    async fn what_a_killed_deleter_left_is_no_key_and_is_deleted_with_its_replicas() {
        let done = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
        let calls = std::sync::Arc::clone(&done);
        let aws = answering(move |operation, request| {
            calls.lock().expect("unpoisoned").push(operation.to_owned());
            match operation {
                "GetSecretValue" => Ok(json!({ "SecretString": TOMBSTONE, "VersionId": "v" })),
                "DescribeSecret" => Ok(json!({ "ReplicationStatus": [{ "Region": "eu-west-1" }] })),
                "RemoveRegionsFromReplication" => {
                    assert_eq!(request["RemoveReplicaRegions"], json!(["eu-west-1"]));
                    Ok(json!({}))
                }
                _ => Ok(json!({})),
            }
        })
        .await;
        let store = SecretsManager::new(&aws, "p/");
        let id = "a".parse().expect("id");
        assert_eq!(store.fetch(&id).await.err(), Some(StoreError::NotFound));
        assert_eq!(*done.lock().expect("unpoisoned"), ["GetSecretValue"], "looking deletes nothing");
        assert_eq!(store.finish_deletion(&id).await, Ok(()));
        let done = done.lock().expect("unpoisoned");
        assert_eq!(done[2..], ["DescribeSecret", "RemoveRegionsFromReplication", "DeleteSecret"]);
    }
}
