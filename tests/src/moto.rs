//! moto's server: DynamoDB and Secrets Manager as another project emulates them, from `target/python`. It
//! forgets everything when it ends. What is stored in it is not decided here.

use std::io::{self, BufRead as _, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aws_sdk_dynamodb::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_dynamodb::types::{AttributeDefinition, BillingMode, KeySchemaElement, KeyType, ScalarAttributeType};
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::scripts;
use crate::stack::REGION;

/// From starting the process to its port.
const START_TIMEOUT: Duration = Duration::from_secs(60);

/// A running server. Dropped, it is killed.
#[derive(Debug)]
pub struct Moto {
    process: Child,
    address: SocketAddr,
}

impl Moto {
    /// Starts a server that is empty, at a free port.
    ///
    /// # Errors
    /// `target/python` is missing, or the server does not listen in time.
    pub async fn start() -> io::Result<Self> {
        let process = Command::new(scripts::program("python"))
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("moto_one_at_a_time.py"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| io::Error::other(format!("target/python: {error}; `make test` installs it")))?;
        let mut moto = Self { process, address: (Ipv4Addr::LOCALHOST, 0).into() };
        let said = moto.process.stdout.take().ok_or_else(|| io::Error::other("no output"))?;
        let first_line = spawn_blocking(move || BufReader::new(said).lines().next());
        let told = timeout(START_TIMEOUT, first_line).await.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let port = told.and_then(Result::ok).and_then(|line| line.parse().ok());
        moto.address.set_port(port.ok_or_else(|| io::Error::other("moto does not listen"))?);
        Ok(moto)
    }

    /// Where it listens, for every service.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of its DynamoDB.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        let config = aws_sdk_dynamodb::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials())
            .endpoint_url(format!("http://{}", self.address));
        aws_sdk_dynamodb::Client::from_conf(config.build())
    }

    /// A client of its Secrets Manager.
    #[must_use]
    pub fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        let config = aws_sdk_secretsmanager::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(REGION))
            .credentials_provider(credentials())
            .endpoint_url(format!("http://{}", self.address));
        aws_sdk_secretsmanager::Client::from_conf(config.build())
    }

    /// Creates a table for records as an operator does: a partition key and nothing else.
    ///
    /// # Errors
    /// The table exists, or the server is gone.
    pub async fn create_table(&self, name: &str) -> io::Result<()> {
        let key = AttributeDefinition::builder().attribute_name("key_id").attribute_type(ScalarAttributeType::S);
        let schema = KeySchemaElement::builder().attribute_name("key_id").key_type(KeyType::Hash);
        let client = self.dynamodb();
        let create = client
            .create_table()
            .table_name(name)
            .attribute_definitions(key.build().map_err(io::Error::other)?)
            .key_schema(schema.build().map_err(io::Error::other)?)
            .billing_mode(BillingMode::PayPerRequest);
        create.send().await.map(|_| ()).map_err(io::Error::other)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn credentials() -> Credentials {
    Credentials::new("AKIATESTTESTTESTTEST", "of-no-account", None, None, "test")
}
