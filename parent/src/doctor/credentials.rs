//! The AWS credentials that the daemon would find, and the service that hands them out on EC2. Whose they are is said, not
//! what they are.

use std::time::SystemTime;

use aws_config::SdkConfig;
use aws_credential_types::credential_feature::AwsCredentialFeature;
use aws_credential_types::provider::ProvideCredentials as _;
use reqwest::{Client, StatusCode};

use super::Finding;

pub(super) async fn provider_chain(aws: &SdkConfig) -> Finding {
    const CHECK: &str = "credentials";
    const MEND: &str = "give the instance a role: aws ec2 associate-iam-instance-profile --instance-id ID \
                        --iam-instance-profile Name=NAME";
    let Some(provider) = aws.credentials_provider() else {
        return Finding::failed(CHECK, "the AWS SDK has no credential provider chain", "use a release binary");
    };
    let Ok(credentials) = provider.provide_credentials().await else {
        return Finding::failed(CHECK, "no provider of the chain has any that can be used", MEND);
    };
    let via = credentials.get_property::<Vec<AwsCredentialFeature>>().map_or(&[][..], Vec::as_slice);
    let source = match via {
        [.., AwsCredentialFeature::CredentialsImds] => "from the instance's role (metadata service)",
        [.., AwsCredentialFeature::CredentialsEnvVars] => "from the environment",
        [.., AwsCredentialFeature::CredentialsHttp] => "from the container's endpoint",
        [.., AwsCredentialFeature::CredentialsProfile] => "from a profile's file",
        _ => "from the provider chain",
    };
    match credentials.expiry().map(|expiry| expiry.duration_since(SystemTime::now())) {
        None => Finding::ok(CHECK, format!("{source}; they do not expire")),
        Some(Ok(left)) => Finding::ok(CHECK, format!("{source}; they expire in {} minutes", left.as_secs() / 60)),
        Some(Err(_)) => Finding::failed(CHECK, format!("{source}; they have expired"), MEND),
    }
}

const CHECK: &str = "metadata service";

/// Whether EC2's metadata service wants a token, which a request that somebody else's server was talked into cannot have
/// (IMDSv2).
pub(super) async fn metadata_service() -> Finding {
    let setting = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    if setting("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        return Finding::skipped(CHECK, "AWS_EC2_METADATA_DISABLED is true");
    }
    let endpoint = setting("AWS_EC2_METADATA_SERVICE_ENDPOINT").unwrap_or_else(|| "http://169.254.169.254".to_owned());
    let url = |path: &str| format!("{}{path}", endpoint.trim_end_matches('/'));
    let Ok(client) = Client::builder().no_proxy().connect_timeout(std::time::Duration::from_secs(1)).build() else {
        return Finding::skipped(CHECK, "this machine has no HTTP");
    };
    let token = client.put(url("/latest/api/token")).header("x-aws-ec2-metadata-token-ttl-seconds", "60");
    match token.send().await.map(|answer| answer.status()) {
        Err(_) => return Finding::skipped(CHECK, "nothing answers: not EC2, or turned off"),
        Ok(StatusCode::OK) => {}
        Ok(status) => {
            let mend = "aws ec2 modify-instance-metadata-options --instance-id ID --http-endpoint enabled";
            return Finding::failed(CHECK, format!("IMDSv2 gives no token: {status}"), mend);
        }
    }
    match client.get(url("/latest/meta-data/")).send().await.map(|answer| answer.status()) {
        Ok(status) if status.is_success() => Finding::warning(
            CHECK,
            "IMDSv1 answers: requests need no token",
            "aws ec2 modify-instance-metadata-options --instance-id ID --http-tokens required --http-put-response-hop-limit 1 \
             (2 if the daemon runs in a container)",
        ),
        _ => Finding::ok(CHECK, "IMDSv2 only: requests need a token"),
    }
}
