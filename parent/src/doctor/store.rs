//! The store, without a record: whether the folder takes files, or the service answers this role.

use std::io;
use std::path::Path;

use aws_config::SdkConfig;

use super::Finding;
use crate::config::Store;
use crate::key_store::KeyStore;

const CHECK: &str = "store";

pub(super) async fn store(store: &Store, aws: &SdkConfig) -> Finding {
    let (found, mend) = match store {
        Store::Directory { path } => return directory(path),
        Store::DynamoDb { table } => (
            format!("the DynamoDB table {table}"),
            "is the table there (aws dynamodb describe-table), in the Region of AWS_REGION or the enclave's configuration? Does \
             the role have dynamodb:GetItem, PutItem, DeleteItem, Scan on it?",
        ),
        Store::SecretsManager { prefix } => (
            format!("Secrets Manager under {prefix}"),
            "does the role have the permissions of docs/operations.md on the prefix, and secretsmanager:ListSecrets? Is there \
             a route to the service?",
        ),
    };
    let ready = match KeyStore::open(store, aws) {
        Ok(store) => store.ready().await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match ready {
        Ok(()) => Finding::ok(CHECK, format!("{found} answers")),
        Err(error) => Finding::failed(CHECK, format!("{found}: {error}"), mend),
    }
}

/// Not opened as a store: that would make the folder.
fn directory(folder: &Path) -> Finding {
    let shown = folder.display();
    // Without a name: it vanishes with its handle.
    match tempfile::tempfile_in(folder) {
        Ok(_) => Finding::ok(CHECK, format!("{shown} can be written")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Finding::failed(
            CHECK,
            format!("{shown}: there is no such folder"),
            format!("if records were there, is its volume mounted? If not: install -d -m 700 -o USER {shown}"),
        ),
        Err(error) => Finding::failed(
            CHECK,
            format!("{shown}: {error}"),
            format!("it must be a folder of the daemon's user: chown USER {shown}; chmod 700 {shown}"),
        ),
    }
}
