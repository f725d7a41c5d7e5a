//! A stack on each of the three stores, with somebody's hands inside the store, and a way to take it
//! away. DynamoDB and Secrets Manager are moto's.

mod gate;

use std::path::PathBuf;
use std::sync::{Arc, Weak};

use aws_sdk_dynamodb::types::AttributeValue;
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueOutput;
use serde_json::Value;
use strongroom_parent::stored_record::StoredRecord;
use strongroom_protocol::KeyRecord;
use strongroom_tests::moto::Moto;
use strongroom_tests::stack::Plan;
use tokio::sync::Mutex;

use crate::scene::Scene;
use gate::Gate;
pub(crate) use gate::Weather;

/// A stack and the inside of its store.
pub(crate) struct Place {
    pub(crate) scene: Scene,
    inside: Inside,
}

enum Inside {
    Folder(PathBuf),
    Table { client: aws_sdk_dynamodb::Client, name: &'static str, gate: Gate, _moto: Arc<Moto> },
    Secrets { client: aws_sdk_secretsmanager::Client, prefix: &'static str, gate: Gate, _moto: Arc<Moto> },
}

impl Place {
    /// On a folder; there is nothing to name.
    pub(crate) async fn directory(_name: &'static str) -> Self {
        Self::directory_planned(|_| {}).await
    }

    pub(crate) async fn directory_planned(change: impl FnOnce(&mut Plan)) -> Self {
        let scene = Scene::planned(change).await;
        let folder = scene.stack.directory().join("keys");
        Self { scene, inside: Inside::Folder(folder) }
    }

    /// On a new table of this name.
    pub(crate) async fn dynamodb(name: &'static str) -> Self {
        Self::dynamodb_planned(name, |_| {}).await
    }

    pub(crate) async fn dynamodb_planned(name: &'static str, change: impl FnOnce(&mut Plan)) -> Self {
        let moto = running_moto().await;
        moto.create_table(name).await.expect("a table");
        let gate = Gate::open(moto.address()).await;
        let scene = Scene::planned(|plan| {
            use_aws(plan, &format!("type = \"dynamodb\"\ntable = \"{name}\""), &gate);
            change(plan);
        })
        .await;
        Self { scene, inside: Inside::Table { client: moto.dynamodb(), name, gate, _moto: moto } }
    }

    /// On secrets under this prefix.
    pub(crate) async fn secrets_manager(prefix: &'static str) -> Self {
        Self::secrets_manager_planned(prefix, |_| {}).await
    }

    pub(crate) async fn secrets_manager_planned(prefix: &'static str, change: impl FnOnce(&mut Plan)) -> Self {
        let moto = running_moto().await;
        let gate = Gate::open(moto.address()).await;
        let store = format!("type = \"secrets_manager\"\nprefix = \"{prefix}/\"");
        let scene = Scene::planned(|plan| {
            use_aws(plan, &store, &gate);
            change(plan);
        })
        .await;
        Self { scene, inside: Inside::Secrets { client: moto.secrets_manager(), prefix, gate, _moto: moto } }
    }

    /// What is stored under a key's name.
    pub(crate) async fn read(&self, key_id: &str) -> String {
        match &self.inside {
            Inside::Folder(folder) => std::fs::read_to_string(folder.join(format!("{key_id}.json"))).expect("a file"),
            Inside::Table { client, name, .. } => {
                let get = client.get_item().table_name(*name).key("key_id", AttributeValue::S(key_id.to_owned()));
                let item = get.send().await.expect("a reply").item.expect("an item");
                item["record"].as_s().expect("text").clone()
            }
            Inside::Secrets { client, prefix, .. } => {
                current(client, &format!("{prefix}/{key_id}")).await.secret_string.expect("text")
            }
        }
    }

    /// What is stored under a key's name, in the form that is presented to the enclave.
    pub(crate) async fn record(&self, key_id: &str) -> KeyRecord {
        let json = self.read(key_id).await;
        StoredRecord::from_json(&key_id.parse().expect("an id"), json.as_bytes()).expect("a stored record").record
    }

    /// Stores this in place of what is stored under a key's name.
    pub(crate) async fn write(&self, key_id: &str, text: &str) {
        match &self.inside {
            Inside::Folder(folder) => std::fs::write(folder.join(format!("{key_id}.json")), text).expect("written"),
            Inside::Table { client, name, .. } => {
                let put = client
                    .put_item()
                    .table_name(*name)
                    .item("key_id", AttributeValue::S(key_id.to_owned()))
                    .item("record", AttributeValue::S(text.to_owned()));
                put.send().await.expect("written");
            }
            Inside::Secrets { client, prefix, .. } => {
                // By a label of its own and a move: where labels were moved before, moto puts AWSCURRENT on two
                // versions if it is put directly.
                let secret = format!("{prefix}/{key_id}");
                let old = current(client, &secret).await.version_id.expect("a version");
                let put = client.put_secret_value().secret_id(&secret).secret_string(text).version_stages("BY_HAND");
                let new = put.send().await.expect("written").version_id.expect("a version");
                let update = client.update_secret_version_stage().secret_id(&secret).version_stage("AWSCURRENT");
                let update = update.remove_from_version_id(old).move_to_version_id(new);
                update.send().await.expect("moved");
            }
        }
    }

    /// Changes a stored record and returns what it was.
    pub(crate) async fn tamper(&self, key_id: &str, change: impl FnOnce(&mut Value)) -> String {
        let original = self.read(key_id).await;
        let mut record: Value = serde_json::from_str(&original).expect("JSON");
        change(&mut record);
        self.write(key_id, &record.to_string()).await;
        original
    }

    pub(crate) fn take_away(&self) {
        match &self.inside {
            Inside::Folder(folder) => std::fs::rename(folder, folder.with_extension("away")).expect("moved"),
            Inside::Table { .. } | Inside::Secrets { .. } => self.set_weather(Weather::Shut),
        }
    }

    pub(crate) fn bring_back(&self) {
        match &self.inside {
            Inside::Folder(folder) => std::fs::rename(folder.with_extension("away"), folder).expect("moved"),
            Inside::Table { .. } | Inside::Secrets { .. } => self.set_weather(Weather::Clear),
        }
    }

    /// How the way to an AWS store is from now on.
    pub(crate) fn set_weather(&self, weather: Weather) {
        match &self.inside {
            Inside::Folder(_) => panic!("a folder has no weather"),
            Inside::Table { gate, .. } | Inside::Secrets { gate, .. } => gate.set(weather),
        }
    }
}

async fn current(client: &aws_sdk_secretsmanager::Client, secret: &str) -> GetSecretValueOutput {
    client.get_secret_value().secret_id(secret).version_stage("AWSCURRENT").send().await.expect("a reply")
}

/// A cache whose expiry a test can wait for.
pub(crate) fn short_cache(plan: &mut Plan) {
    plan.parent_toml.push_str("[limits]\ncache_seconds = 1\n");
}

fn use_aws(plan: &mut Plan, store: &str, gate: &Gate) {
    store.clone_into(&mut plan.store);
    plan.store.push('\n');
    let url = format!("http://{}", gate.address);
    for service in ["DYNAMODB", "SECRETS_MANAGER"] {
        plan.parent_environment.push((format!("AWS_ENDPOINT_URL_{service}"), url.clone()));
    }
}

/// One moto server for all tests that run at a time; its state is theirs together.
async fn running_moto() -> Arc<Moto> {
    static RUNNING: Mutex<Weak<Moto>> = Mutex::const_new(Weak::new());
    let mut running = RUNNING.lock().await;
    if let Some(moto) = running.upgrade() {
        return moto;
    }
    let moto = Arc::new(Moto::start().await.expect("moto"));
    *running = Arc::downgrade(&moto);
    moto
}
