//! Records as items of a DynamoDB table with the partition key `key_id` (S): `record` (S) is the JSON;
//! `generation` (N) and `writing` (S), a random name of each writing, stand beside it for conditional
//! updates. For many parents.

mod cursor;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use aws_config::SdkConfig;
use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::operation::delete_item::DeleteItemError;
use aws_sdk_dynamodb::operation::put_item::PutItemError;
use aws_sdk_dynamodb::operation::put_item::builders::PutItemFluentBuilder;
use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValuesOnConditionCheckFailure};
use strongroom_protocol::KeyId;
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tracing::warn;

use super::{Fetched, Page, Revision, StoreError, Wanted, read, unavailable, writing_token};
use crate::stored_record::StoredRecord;
use cursor::CursorKey;

/// A table of records.
#[derive(Debug, Clone)]
pub struct DynamoDb {
    client: Client,
    table: String,
    /// Read from the table when it is first needed.
    cursor_key: Arc<OnceCell<CursorKey>>,
}

type Item = HashMap<String, AttributeValue>;

/// One writing of an item. Both attributes are missing where somebody put a record back by hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ItemRevision {
    generation: Option<String>,
    writing: Option<String>,
}

/// That an item still is what it was, in DynamoDB's words.
struct Condition {
    expression: String,
    names: HashMap<String, String>,
    values: Option<HashMap<String, AttributeValue>>,
}

/// The attributes beside the record.
const GENERATION: &str = "generation";
const WRITING: &str = "writing";

/// Not a key's id (it begins with a dot), so asking for it only tells whether the table answers.
const NO_KEY: &str = ".ready";

/// Most items that one Scan reads: about what fits the megabyte that DynamoDB gives at once.
const SCAN_PAGE: usize = 250;

/// After this long, a list ends with what it has. Well below the store's deadline.
const LIST_PATIENCE: Duration = Duration::from_secs(3);

/// The item with the key that seals cursors, in its attribute `key` (B). Its name begins with a dot, so it is
/// no key's.
const CURSOR_KEY: &str = ".cursor-key";

impl DynamoDb {
    /// Uses a table; does not ask for it yet.
    #[must_use]
    pub fn new(aws: &SdkConfig, table: &str) -> Self {
        Self { client: Client::new(aws), table: table.to_owned(), cursor_key: Arc::default() }
    }

    pub(super) async fn create(&self, stored: &StoredRecord, json: String) -> Result<ItemRevision, StoreError> {
        let (put, revision) = self.put(stored, json)?;
        let condition = "attribute_not_exists(key_id)";
        self.write(put.condition_expression(condition), revision).await.map_err(|error| match error {
            StoreError::GenerationLost => StoreError::Exists,
            error => error,
        })
    }

    pub(super) async fn replace(
        &self,
        old: &ItemRevision,
        next: &StoredRecord,
        json: String,
    ) -> Result<ItemRevision, StoreError> {
        let (put, revision) = self.put(next, json)?;
        let Condition { expression, names, values } = old.condition();
        let put = put
            .condition_expression(expression)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(values);
        self.write(put, revision).await
    }

    pub(super) async fn delete(&self, key_id: &KeyId, old: &ItemRevision) -> Result<(), StoreError> {
        let Condition { expression, names, values } = old.condition();
        let delete = self
            .client
            .delete_item()
            .table_name(&self.table)
            .key("key_id", text(key_id.as_str()))
            .condition_expression(expression)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(values)
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match delete.send().await {
            Ok(_) => Ok(()),
            Err(error) => match error.as_service_error() {
                // The SDK repeats a call whose answer was lost. What is gone is deleted.
                Some(DeleteItemError::ConditionalCheckFailedException(failed)) => match &failed.item {
                    Some(_) => Err(StoreError::GenerationLost),
                    None => Ok(()),
                },
                _ => Err(unavailable("DynamoDB DeleteItem", &error)),
            },
        }
    }

    /// A write of this record, and what it will be.
    fn put(&self, stored: &StoredRecord, json: String) -> Result<(PutItemFluentBuilder, ItemRevision), StoreError> {
        let (generation, writing) = (stored.generation.to_string(), writing_token()?);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .item("key_id", text(stored.key_id().as_str()))
            .item("record", AttributeValue::S(json))
            .item(GENERATION, AttributeValue::N(generation.clone()))
            .item(WRITING, text(&writing))
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        Ok((put, ItemRevision { generation: Some(generation), writing: Some(writing) }))
    }

    async fn write(&self, put: PutItemFluentBuilder, revision: ItemRevision) -> Result<ItemRevision, StoreError> {
        match put.send().await {
            Ok(_) => Ok(revision),
            Err(error) => match error.as_service_error() {
                // The SDK repeats a write whose answer was lost; the first one may have been ours.
                Some(PutItemError::ConditionalCheckFailedException(failed)) => match &failed.item {
                    Some(there) if ItemRevision::of(there) == revision => Ok(revision),
                    _ => Err(StoreError::GenerationLost),
                },
                _ => Err(unavailable("DynamoDB PutItem", &error)),
            },
        }
    }

    pub(super) async fn fetch(&self, key_id: &KeyId) -> Result<Fetched, StoreError> {
        let item = self.item(key_id.as_str()).await?.ok_or(StoreError::NotFound)?;
        Ok(Fetched { stored: read_item(key_id, &item)?, revision: Revision::Item(ItemRevision::of(&item)) })
    }

    pub(super) async fn list(&self, cursor: Option<String>, limit: usize, wanted: &Wanted) -> Result<Page, StoreError> {
        self.list_until(Instant::now() + LIST_PATIENCE, cursor, limit, wanted).await
    }

    async fn list_until(
        &self,
        end: Instant,
        cursor: Option<String>,
        limit: usize,
        wanted: &Wanted,
    ) -> Result<Page, StoreError> {
        let mut start = match cursor {
            Some(cursor) if CursorKey::is_sealed(&cursor) => Some(self.cursor_key().await?.open(&cursor)?),
            Some(cursor) => Some(KeyId::try_from(cursor).map_err(|_| StoreError::Cursor)?.into()),
            None => None,
        };
        let mut page = Page::default();
        // The last key that is on the page.
        let mut shown = None;
        // One more than the page tells whether it is the last. What the caller may not see is passed by in
        // larger steps, of which there is one at least.
        let mut step = limit.saturating_add(1).min(SCAN_PAGE);
        loop {
            let Scanned { items, last } = self.scan(start, step).await?;
            let goes_on = step < SCAN_PAGE || Instant::now() < end;
            step = SCAN_PAGE;
            for (key_id, item) in items.into_iter().filter(|(key_id, _)| wanted(key_id)) {
                if page.is_full(limit) {
                    // A cursor of a key that the caller has seen names no other.
                    return Ok(Page { next: shown, ..page });
                }
                page.push(read_item(&key_id, &item))?;
                shown = Some(key_id.into());
            }
            match last {
                Some(last) if goes_on => start = Some(last),
                Some(last) => {
                    let next = self.cursor_key().await?.seal(&last)?;
                    return Ok(Page { next: Some(next), ..page });
                }
                None => return Ok(page),
            }
        }
    }

    async fn cursor_key(&self) -> Result<&CursorKey, StoreError> {
        self.cursor_key.get_or_try_init(|| self.read_cursor_key()).await
    }

    /// The table's cursor key, which the first parent that needs it makes.
    async fn read_cursor_key(&self) -> Result<CursorKey, StoreError> {
        let there = match self.item(CURSOR_KEY).await? {
            Some(item) => item,
            None => self.make_cursor_key().await?,
        };
        let key = there.get("key").and_then(|value| CursorKey::new(value.as_b().ok()?.as_ref()));
        key.ok_or_else(|| {
            warn!("the item {CURSOR_KEY} of the table is damaged: delete it, and a new one is made");
            StoreError::Unavailable
        })
    }

    async fn make_cursor_key(&self) -> Result<Item, StoreError> {
        let mut random = [0; CursorKey::LENGTH];
        getrandom::fill(&mut random).map_err(|_| StoreError::Unavailable)?;
        let item = Item::from([
            ("key_id".to_owned(), text(CURSOR_KEY)),
            ("key".to_owned(), AttributeValue::B(Blob::new(random))),
        ]);
        let put = self
            .client
            .put_item()
            .table_name(&self.table)
            .set_item(Some(item.clone()))
            .condition_expression("attribute_not_exists(key_id)")
            .return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
        match put.send().await {
            Ok(_) => Ok(item),
            Err(error) => match error.as_service_error() {
                // Another parent was first.
                Some(PutItemError::ConditionalCheckFailedException(failed)) => {
                    failed.item.clone().ok_or(StoreError::Unavailable)
                }
                _ => Err(unavailable("DynamoDB PutItem", &error)),
            },
        }
    }

    pub(super) async fn ready(&self) -> Result<(), StoreError> {
        self.item(NO_KEY).await.map(|_| ())
    }

    async fn item(&self, key_id: &str) -> Result<Option<Item>, StoreError> {
        let get = self.client.get_item().table_name(&self.table).key("key_id", text(key_id)).consistent_read(true);
        get.send().await.map(|output| output.item).map_err(|error| unavailable("DynamoDB GetItem", &error))
    }

    /// One page of the table's own.
    async fn scan(&self, start: Option<String>, items: usize) -> Result<Scanned, StoreError> {
        let items = i32::try_from(items).unwrap_or(i32::MAX);
        let mut scan = self.client.scan().table_name(&self.table).consistent_read(true).limit(items);
        if let Some(start) = start {
            scan = scan.exclusive_start_key("key_id", text(&start));
        }
        let output = scan.send().await.map_err(|error| unavailable("DynamoDB Scan", &error))?;
        let last = output.last_evaluated_key.and_then(|mut key| key.remove("key_id")?.as_s().cloned().ok());
        let items = output.items.unwrap_or_default().into_iter();
        Ok(Scanned { items: items.filter_map(|item| Some((key_id(&item)?, item))).collect(), last })
    }
}

impl ItemRevision {
    fn of(item: &Item) -> Self {
        let generation = item.get(GENERATION).and_then(|value| value.as_n().ok()).cloned();
        let writing = item.get(WRITING).and_then(|value| value.as_s().ok()).cloned();
        Self { generation, writing }
    }

    fn condition(&self) -> Condition {
        let names = HashMap::from([GENERATION, WRITING].map(|name| (format!("#{name}"), name.to_owned())));
        let mut expression = "attribute_exists(key_id)".to_owned();
        let mut values = HashMap::new();
        let generation = self.generation.clone().map(AttributeValue::N);
        let writing = self.writing.clone().map(AttributeValue::S);
        for (name, value) in [(GENERATION, generation), (WRITING, writing)] {
            match value {
                Some(value) => {
                    expression.push_str(&format!(" AND #{name} = :{name}"));
                    values.insert(format!(":{name}"), value);
                }
                None => expression.push_str(&format!(" AND attribute_not_exists(#{name})")),
            }
        }
        Condition { expression, names, values: (!values.is_empty()).then_some(values) }
    }
}

/// One page of the table's own.
struct Scanned {
    /// Key ids and their items.
    items: Vec<(KeyId, Item)>,
    /// The item behind which the next page begins, which need not be a key's; `None` at the end.
    last: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_store::aws_double::answering;
    use crate::stored_record::tests::sample;
    use serde_json::json;
    use std::collections::{BTreeMap, BTreeSet};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// A table that answers Scan, and counts how often. Items named `damaged…` are.
    /// Two parents of it.
    async fn table(names: impl Iterator<Item = String>) -> ([DynamoDb; 2], Arc<AtomicUsize>) {
        let json = |name: &str| match name.parse::<KeyId>() {
            Ok(_) if !name.starts_with("damaged") => sample(name).to_json().expect("encodes"),
            _ => "{}".to_owned(),
        };
        let items: BTreeMap<String, String> = names.map(|name| (name.clone(), json(&name))).collect();
        let scans = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&scans);
        let cursor_key = std::sync::Mutex::new(json!({}));
        let aws = answering(move |operation, request| {
            if operation == "PutItem" {
                *cursor_key.lock().expect("unpoisoned") = json!({ "Item": request["Item"] });
                return Ok(json!({}));
            }
            if operation == "GetItem" {
                return Ok(cursor_key.lock().expect("unpoisoned").clone());
            }
            counter.fetch_add(1, Ordering::Relaxed);
            let start = request["ExclusiveStartKey"]["key_id"]["S"].as_str().unwrap_or_default();
            let limit = usize::try_from(request["Limit"].as_u64().expect("a limit")).expect("small");
            let rest: Vec<_> = items.iter().filter(|(name, _)| name.as_str() > start).collect();
            let page: Vec<_> = rest.iter().take(limit).collect();
            let last = page.last().filter(|_| rest.len() > limit).map(|(name, _)| json!({ "key_id": { "S": name } }));
            let item = |(name, json): &&(&String, &String)| json!({ "key_id": { "S": name }, "record": { "S": json } });
            let mut answer = json!({ "Items": page.iter().map(item).collect::<Vec<_>>() });
            if let Some(last) = last {
                answer["LastEvaluatedKey"] = last;
            }
            Ok(answer)
        })
        .await;
        ([DynamoDb::new(&aws, "keys"), DynamoDb::new(&aws, "keys")], scans)
    }

    fn names(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|n| format!("cold-{n:04}"))
    }

    fn ids(page: &Page) -> Vec<String> {
        page.records.iter().map(|record| record.key_id().to_string()).collect()
    }

    #[tokio::test]
    async fn a_small_limit_makes_one_small_scan_and_no_more() {
        let ([store, _], scans) = table(names(1000)).await;
        let page = store.list(None, 1, &|id: &KeyId| id.as_str() == "cold-0999").await.expect("listed");
        assert_eq!((ids(&page), page.next), (vec!["cold-0999".to_owned()], None));
        assert_eq!(scans.load(Ordering::Relaxed), 5);
        let page = store.list(None, 100, &|_: &KeyId| true).await.expect("listed");
        assert_eq!((page.records.len(), page.next.as_deref()), (100, Some("cold-0099")));
        assert_eq!(scans.load(Ordering::Relaxed), 6);
    }

    #[tokio::test]
    async fn a_list_without_time_goes_on_later_at_any_parent_and_names_no_unwanted_key() {
        let wanted = |id: &KeyId| id.as_str().starts_with("hot-");
        let hot = ["hot-1", "hot-2", "hot-3"].map(str::to_owned);
        let (parents, scans) = table(names(1000).chain(hot.clone())).await;
        let (mut found, mut cursors) = (Vec::new(), BTreeSet::new());
        let mut cursor = None;
        for store in parents.iter().cycle() {
            let page = store.list_until(Instant::now(), cursor, 2, &wanted).await.expect("listed");
            found.extend(ids(&page));
            let Some(next) = page.next else { break };
            assert!(!next.contains("cold") && !next.contains(&hex::encode("cold")), "{next}");
            assert!(cursors.insert(next.clone()), "it goes on");
            cursor = Some(next);
        }
        assert_eq!(found, hot);
        assert!(scans.load(Ordering::Relaxed) <= 9);
        let unknown = parents[0].list(Some(format!(".{}", "00".repeat(16))), 2, &wanted).await;
        assert_eq!(unknown.err(), Some(StoreError::Cursor));
    }

    #[tokio::test]
    async fn damaged_items_and_those_of_others_are_left_out_of_the_list() {
        // Names that are no key's, at the end of a scan's page too.
        let others = (0..SCAN_PAGE).map(|n| format!("_{n:04}"));
        let ([store, _], _) = table(["a", "b", "damaged"].map(str::to_owned).into_iter().chain(others)).await;
        let page = store.list(None, 10, &|_: &KeyId| true).await.expect("listed");
        assert_eq!((ids(&page), page.next), (vec!["a".to_owned(), "b".to_owned()], None));
        assert_eq!(page.damaged, ["damaged".parse().expect("id")]);
    }

    /// A table that loses the answer to every write and says to its repetition that the item is `there`.
    async fn forgetful_table(
        there: impl Fn(&serde_json::Value) -> serde_json::Value + Send + Sync + 'static,
    ) -> DynamoDb {
        let aws = answering(move |_, request| {
            let failed = json!({ "__type": "ConditionalCheckFailedException", "Item": there(&request) });
            Err(failed)
        })
        .await;
        DynamoDb::new(&aws, "keys")
    }

    #[tokio::test]
    async fn a_repeated_write_is_known_again_by_its_writing_and_not_by_its_content() {
        let stored = sample("a");
        let json = || stored.to_json().expect("encodes");
        let old = ItemRevision { generation: Some("1".to_owned()), writing: Some("x".to_owned()) };
        let ours = forgetful_table(|request| request["Item"].clone()).await;
        assert!(ours.create(&stored, json()).await.is_ok());
        assert!(ours.replace(&old, &stored, json()).await.is_ok());
        let same_content = forgetful_table(|request| {
            let mut item = request["Item"].clone();
            item["writing"] = json!({ "S": "another's" });
            item
        })
        .await;
        assert_eq!(same_content.create(&stored, json()).await, Err(StoreError::Exists));
        assert_eq!(same_content.replace(&old, &stored, json()).await, Err(StoreError::GenerationLost));
        assert_eq!(same_content.delete(stored.key_id(), &old).await, Err(StoreError::GenerationLost));
    }

    #[test]
    fn a_record_that_was_put_back_by_hand_can_be_changed_once() {
        let Condition { expression, values, .. } = ItemRevision { generation: None, writing: None }.condition();
        assert_eq!(
            expression,
            "attribute_exists(key_id) AND attribute_not_exists(#generation) AND attribute_not_exists(#writing)"
        );
        assert!(values.is_none());
    }
}
