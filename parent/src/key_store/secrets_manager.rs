//! Records as secrets in AWS Secrets Manager, named prefix ‖ key id. A record is no secret (the key in
//! it is sealed); what this store adds is AWS's own access control, replication and audit.

use aws_config::SdkConfig;
use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::types::{Filter, FilterNameStringType};
use sha2::{Digest, Sha256};
use strongroom_protocol::KeyId;
use tokio::task::JoinSet;

use super::{Page, StoreError, Wanted, listed, read, unavailable};
use crate::stored_record::StoredRecord;

/// The secrets under a prefix.
#[derive(Debug, Clone)]
pub struct SecretsManager {
    client: Client,
    prefix: String,
}

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

    pub(super) async fn create(&self, key_id: &KeyId, json: String) -> Result<(), StoreError> {
        let create = self
            .client
            .create_secret()
            .name(self.name(key_id.as_str()))
            .description("A strongroom key record; sealed")
            .client_request_token(request_token(&json))
            .secret_string(json);
        match create.send().await {
            Ok(_) => Ok(()),
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

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<StoredRecord, StoreError> {
        let json = self.secret(key_id.as_str()).await?.ok_or(StoreError::NotFound)?;
        read(key_id, json.as_bytes())
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        let (key_ids, next) = self.names(cursor, limit.min(MAX_PAGE)).await?;
        let mut fetches = JoinSet::new();
        for key_id in key_ids.into_iter().filter(wanted) {
            let store = self.clone();
            fetches.spawn(async move { store.fetch(&key_id).await });
        }
        let mut records = Vec::new();
        while let Some(fetched) = fetches.join_next().await {
            records.extend(listed(fetched.unwrap_or(Err(StoreError::Unavailable)))?);
        }
        records.sort_by(|a, b| a.key_id().cmp(b.key_id()));
        Ok(Page { records, next })
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.secret(NO_KEY).await.map(|_| ())
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

    async fn secret(&self, key_id: &str) -> Result<Option<String>, StoreError> {
        match self.client.get_secret_value().secret_id(self.name(key_id)).send().await {
            Ok(output) => Ok(Some(output.secret_string.unwrap_or_default())),
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
    }
}
