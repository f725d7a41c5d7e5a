//! A store with many records: where they are, how they come there without the parent, and what reading
//! them costs without the parent.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::PathBuf;

use aws_sdk_dynamodb::Client;
use aws_sdk_dynamodb::types::{AttributeValue, PutRequest, WriteRequest};
use strongroom_parent::stored_record::StoredRecord;

use super::relay::Relay;
use crate::moto::Moto;
use crate::stack::Plan;

/// One of the stores.
pub(super) enum Stock {
    /// A folder.
    Directory(PathBuf),
    /// moto's DynamoDB.
    DynamoDb { client: Client, relay: Relay, _moto: Moto },
}

const TABLE: &str = "records";

/// Items that one BatchWriteItem takes, by DynamoDB's limit.
const BATCH: usize = 25;

impl Stock {
    /// The folder of a stack.
    pub(super) fn directory(plan: &Plan) -> Self {
        Self::Directory(plan.directory.join("keys"))
    }

    /// A table of a moto of its own, which the stack reaches through the relay.
    pub(super) async fn dynamodb(plan: &mut Plan) -> io::Result<Self> {
        let moto = Moto::start().await?;
        moto.create_table(TABLE).await?;
        let relay = Relay::open(moto.address()).await?;
        plan.store = format!("type = \"dynamodb\"\ntable = \"{TABLE}\"\n");
        plan.parent_environment.push(("AWS_ENDPOINT_URL_DYNAMODB".to_owned(), format!("http://{}", relay.address)));
        Ok(Self::DynamoDb { client: moto.dynamodb(), relay, _moto: moto })
    }

    /// What is stored under a key's name.
    pub(super) async fn read(&self, name: &str) -> io::Result<String> {
        match self {
            Self::Directory(folder) => fs::read_to_string(folder.join(format!("{name}.json"))),
            Self::DynamoDb { client, .. } => {
                let get = client.get_item().table_name(TABLE).key("key_id", text(name)).consistent_read(true);
                let item = get.send().await.map_err(io::Error::other)?.item;
                let record = item.and_then(|mut item| item.remove("record")?.as_s().cloned().ok());
                record.ok_or_else(|| io::Error::other(format!("no item {name}")))
            }
        }
    }

    /// Stores records that no parent has made.
    pub(super) async fn fill(&self, records: impl Iterator<Item = io::Result<StoredRecord>>) -> io::Result<()> {
        match self {
            Self::Directory(folder) => {
                for stored in records {
                    let stored = stored?;
                    fs::write(folder.join(format!("{}.json", stored.key_id())), stored.to_json()?)?;
                }
                Ok(())
            }
            Self::DynamoDb { client, .. } => {
                let mut batch = Vec::with_capacity(BATCH);
                for stored in records {
                    batch.push(put(&stored?)?);
                    if batch.len() == BATCH {
                        write(client, std::mem::take(&mut batch)).await?;
                    }
                }
                if batch.is_empty() { Ok(()) } else { write(client, batch).await }
            }
        }
    }

    /// How many calls of this operation the parent has made; none to a folder.
    pub(super) fn calls(&self, operation: &str) -> u32 {
        match self {
            Self::Directory(_) => 0,
            Self::DynamoDb { relay, .. } => relay.calls(operation),
        }
    }
}

/// Reads the folder's names, as one must to list it. How many there are.
pub(super) fn read_names(folder: &PathBuf) -> io::Result<usize> {
    let names: Vec<_> =
        fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.file_name())).collect::<Result<_, _>>()?;
    Ok(names.len())
}

/// One Scan as the parent makes them: 250 items, from the beginning or behind a name.
pub(super) async fn scan(client: &Client, start: Option<&str>) -> io::Result<usize> {
    let mut scan = client.scan().table_name(TABLE).consistent_read(true).limit(250);
    if let Some(start) = start {
        scan = scan.exclusive_start_key("key_id", text(start));
    }
    scan.send().await.map(|output| output.items().len()).map_err(io::Error::other)
}

/// An item as the parent writes it.
fn put(stored: &StoredRecord) -> io::Result<WriteRequest> {
    let put = PutRequest::builder()
        .item("key_id", text(stored.key_id().as_str()))
        .item("record", AttributeValue::S(stored.to_json()?))
        .item("generation", AttributeValue::N(stored.generation.to_string()))
        .item("writing", text("0123456789abcdef0123456789abcdef"));
    Ok(WriteRequest::builder().put_request(put.build().map_err(io::Error::other)?).build())
}

async fn write(client: &Client, batch: Vec<WriteRequest>) -> io::Result<()> {
    let written = client.batch_write_item().request_items(TABLE, batch).send().await.map_err(io::Error::other)?;
    let left = written.unprocessed_items.as_ref().is_some_and(|items: &HashMap<_, _>| !items.is_empty());
    if left { Err(io::Error::other("moto did not write a batch")) } else { Ok(()) }
}

fn text(text: &str) -> AttributeValue {
    AttributeValue::S(text.to_owned())
}
