//! The parent's role at KMS itself, past the enclave: he has its credentials and may ask what he likes.

use aws_sdk_kms::Client;
use aws_sdk_kms::config::Credentials;
use strongroom_tests::mock_kms::{Principal, sdk_client};
use strongroom_tests::stack::{ACCESS_KEY_ID, ADMINISTRATOR_ARN, SECRET_ACCESS_KEY, Stack};

/// A plain SDK client with the parent's credentials.
pub(crate) fn as_parent(stack: &Stack) -> Client {
    client(stack, ACCESS_KEY_ID, SECRET_ACCESS_KEY)
}

/// The same with those of the key administrator.
pub(super) async fn as_administrator(stack: &Stack) -> Client {
    let (id, secret) = ("AKIAADMINISTRATOR001", "test-only/administrator");
    let administrator = Principal {
        access_key_id: id.to_owned(),
        secret_access_key: secret.to_owned(),
        session_token: None,
        arn: ADMINISTRATOR_ARN.to_owned(),
        expires_at_ms: None,
    };
    stack.control.add_principal(&administrator).await.expect("added");
    client(stack, id, secret)
}

fn client(stack: &Stack, id: &str, secret: &str) -> Client {
    let credentials = Credentials::new(id, secret, None, None, "test");
    sdk_client(stack.kms_address(), &stack.directory().join("kms"), credentials).expect("mock-kms runs")
}
