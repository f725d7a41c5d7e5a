//! Records as items of a DynamoDB table with the partition key `key_id` (S): `record` (S) is the JSON,
//! `generation` (N) stands beside it for conditional updates. For many parents.

use std::collections::HashMap;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::AttributeValue;
use strongroom_protocol::KeyId;

use super::{Page, StoreError, Wanted, read, unavailable};
use crate::stored_record::StoredRecord;

/// A table of records.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
}

type Item = HashMap<String, AttributeValue>;

/// Not a key's id (it begins with a dot), so asking for it only tells whether the table answers.
const NO_KEY: &str = ".ready";

impl DynamoDb {
    /// Uses a table; does not ask for it yet.
    #[must_use]
    pub fn new(aws: &SdkConfig, table: &str) -> Self {
        Self { client: Client::new(aws), table: table.to_owned() }
    }

    pub(super) async fn create(&self, stored: &StoredRecord, json: String) -> Result<(), StoreError> {
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("key_id", text(stored.key_id().as_str()))
            .item("record", AttributeValue::S(json))
            .item("generation", AttributeValue::N(stored.generation.to_string()))
            .condition_expression("attribute_not_exists(key_id)");
        match put.send().await {
            Ok(_) => Ok(()),
            Err(error) if error.as_service_error().is_some_and(|e| e.is_conditional_check_failed_exception()) => {
                // The SDK repeats a write whose answer was lost; the first one may have been ours.
                let ours = self.fetch(stored.key_id()).await.is_ok_and(|there| there == *stored);
                if ours { Ok(()) } else { Err(StoreError::Exists) }
            }
            Err(error) => Err(unavailable("DynamoDB PutItem", &error)),
        }
    }

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<StoredRecord, StoreError> {
        let item = self.item(key_id.as_str()).await?.ok_or(StoreError::NotFound)?;
        read_item(key_id, &item)
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        let mut start: Option<KeyId> = cursor.map(KeyId::try_from).transpose().map_err(|_| StoreError::Cursor)?;
        let mut records = Vec::new();
        loop {
            let (items, more) = self.scan(start.as_ref(), limit).await?;
            let mut last = None;
            for (key_id, item) in items {
                if wanted(&key_id) {
                    if records.len() == limit {
                        // The cursor is the last key that the caller has seen, so it names no other.
                        let next = records.last().map(|r: &StoredRecord| r.key_id().to_string());
                        return Ok(Page { records, next });
                    }
                    records.push(read_item(&key_id, &item)?);
                }
                last = Some(key_id);
            }
            match last.filter(|_| more) {
                Some(last) => start = Some(last),
                None => return Ok(Page { records, next: None }),
            }
        }
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.item(NO_KEY).await.map(|_| ())
    }

    async fn item(&self, key_id: &str) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).key("key_id", text(key_id)).consistent_read(true);
        get.send().await.map(|output| output.item).map_err(|error| unavailable("DynamoDB GetItem", &error))
    }

    /// One page of the table's own: key ids with their items, and whether there are more.
    async fn scan(&self, start: Option<&KeyId>, limit: usize) -> Result<(Vec<(KeyId, Item)>, bool), StoreError> {
        let limit = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut scan = self.client.scan().table_name(&self.table).consistent_read(true).limit(limit);
        if let Some(start) = start {
            scan = scan.exclusive_start_key("key_id", text(start.as_str()));
        }
        let output = scan.send().await.map_err(|error| unavailable("DynamoDB Scan", &error))?;
        let more = output.last_evaluated_key.is_some();
        let items = output.items.unwrap_or_default().into_iter();
        Ok((items.filter_map(|item| Some((key_id(&item)?, item))).collect(), more))
    }
}

/// The id of an item, if it is a key's at all.
fn key_id(item: &Item) -> Option<KeyId> {
    item.get("key_id")?.as_s().ok()?.parse().ok()
}

fn read_item(key_id: &KeyId, item: &Item) -> Result<StoredRecord, StoreError> {
    let json = item.get("record").and_then(|value| value.as_s().ok());
    read(key_id, json.map(String::as_bytes).unwrap_or_default())
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}
