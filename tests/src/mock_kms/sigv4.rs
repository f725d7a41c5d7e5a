//! Who calls: checks a request's AWS Signature Version 4 with AWS's own implementation of the
//! algorithm. Decides whether a request is its principal's, not what the principal may do.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use hyper::header::AUTHORIZATION;
use hyper::http::request::Parts;
use time::PrimitiveDateTime;

use strongroom_parent::kms_policy::Caller;

use super::error::KmsError;
use super::principal::{Principal, Principals};

/// Finds out who signed a request.
///
/// # Errors
/// The caller's, each named as AWS names it: no signature, half a signature, no such principal, an
/// expired session, a signature that is not of this request, scope and time.
pub(super) fn authenticate(
    parts: &Parts,
    body: &[u8],
    principals: &Principals,
    region: &str,
    now: SystemTime,
) -> Result<Caller, KmsError> {
    let claim = Claim::read(parts)?;
    let principal = principals.find(claim.access_key_id).ok_or(KmsError::UnrecognizedClient)?;
    check_session(principal, claim.session_token, now)?;
    claim.check_scope(region)?;
    let signed_at = claim.check_date(now)?;
    let expected = expected_signature(parts, body, &claim, principal, region, signed_at)?;
    verify_slices_are_equal(expected.as_bytes(), claim.signature.as_bytes()).map_err(|_| {
        invalid(
            "The request signature we calculated does not match the signature you provided. Check your AWS Secret \
             Access Key and signing method. Consult the service documentation for details.",
        )
    })?;
    Ok(Caller { arn: principal.arn.clone() })
}

/// How far a request's date may be from the service's clock (IAM guide, "Signing AWS API requests").
const MAX_SKEW: Duration = Duration::from_secs(5 * 60);

/// What a request says about its signature.
struct Claim<'a> {
    access_key_id: &'a str,
    /// `DATE/REGION/SERVICE/aws4_request`
    scope: &'a str,
    signed_headers: Vec<&'a str>,
    signature: &'a str,
    date: &'a str,
    session_token: Option<&'a str>,
}

impl<'a> Claim<'a> {
    fn read(parts: &'a Parts) -> Result<Self, KmsError> {
        let header = parts.headers.get(AUTHORIZATION).ok_or(KmsError::MissingAuthenticationToken)?;
        let header = header.to_str().map_err(|_| incomplete("Authorization header is not text."))?;
        let fields = header
            .strip_prefix("AWS4-HMAC-SHA256 ")
            .ok_or_else(|| incomplete("Authorization header requires algorithm 'AWS4-HMAC-SHA256'."))?;
        let field = |name: &str| {
            let value = fields.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='));
            value.ok_or_else(|| incomplete(&format!("Authorization header requires '{name}' parameter.")))
        };
        let (access_key_id, scope) = field("Credential")?.split_once('/').ok_or_else(|| {
            incomplete("Credential must have the form ACCESS_KEY_ID/DATE/REGION/SERVICE/aws4_request.")
        })?;
        Ok(Self {
            access_key_id,
            scope,
            signed_headers: field("SignedHeaders")?.split(';').collect(),
            signature: field("Signature")?,
            date: text(parts, "x-amz-date").ok_or_else(|| {
                incomplete("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header.")
            })?,
            session_token: text(parts, "x-amz-security-token"),
        })
    }

    fn check_scope(&self, expected_region: &str) -> Result<(), KmsError> {
        let (date, region, service, terminator) = match *self.scope.split('/').collect::<Vec<_>>() {
            [date, region, service, terminator] => (date, region, service, terminator),
            _ => return Err(incomplete("Credential must have exactly 5 slash-delimited elements.")),
        };
        if region != expected_region {
            return Err(invalid(&format!("Credential should be scoped to a valid region, not '{region}'.")));
        }
        if service != "kms" {
            return Err(invalid("Credential should be scoped to correct service: 'kms'."));
        }
        if terminator != "aws4_request" {
            return Err(invalid("Credential should be scoped with a valid terminator: 'aws4_request'."));
        }
        if !self.date.starts_with(date) || date.len() != 8 {
            return Err(invalid("Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date."));
        }
        for required in ["host", "x-amz-date"] {
            if !self.signed_headers.contains(&required) {
                return Err(invalid(&format!("'{required}' must be a 'SignedHeader' in the AWS Authorization.")));
            }
        }
        Ok(())
    }

    fn check_date(&self, now: SystemTime) -> Result<SystemTime, KmsError> {
        let signed_at = parse_date(self.date).ok_or_else(|| {
            incomplete("Date must be in ISO-8601 'basic format'. See http://en.wikipedia.org/wiki/ISO_8601")
        })?;
        if signed_at + MAX_SKEW < now {
            return Err(invalid(&format!(
                "Signature expired: {} is now earlier than the oldest allowed date (5 min.)",
                self.date
            )));
        }
        if now + MAX_SKEW < signed_at {
            return Err(invalid(&format!(
                "Signature not yet current: {} is still later than the newest allowed date (5 min.)",
                self.date
            )));
        }
        Ok(signed_at)
    }
}

fn check_session(principal: &Principal, token: Option<&str>, now: SystemTime) -> Result<(), KmsError> {
    let ours = principal.session_token.as_deref().unwrap_or_default();
    verify_slices_are_equal(ours.as_bytes(), token.unwrap_or_default().as_bytes())
        .map_err(|_| KmsError::UnrecognizedClient)?;
    if principal.is_expired(now) { Err(KmsError::ExpiredToken) } else { Ok(()) }
}

fn expected_signature(
    parts: &Parts,
    body: &[u8],
    claim: &Claim<'_>,
    principal: &Principal,
    region: &str,
    signed_at: SystemTime,
) -> Result<String, KmsError> {
    // The signer excludes some headers by itself; here the request says which ones it covers.
    let mut settings = SigningSettings::default();
    settings.excluded_headers = None;
    let identity = Credentials::new(
        &principal.access_key_id,
        &principal.secret_access_key,
        principal.session_token.clone(),
        None,
        "mock-kms",
    )
    .into();
    let params = SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name("kms")
        .time(signed_at)
        .settings(settings)
        .build()
        .map_err(|_| KmsError::Internal)?;
    let covered = parts.headers.iter().filter(|(name, _)| claim.signed_headers.contains(&name.as_str()));
    let mut headers = Vec::new();
    for (name, value) in covered {
        headers.push((name.as_str(), value.to_str().map_err(|_| invalid("A signed header is not text."))?));
    }
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = SignableRequest::new(parts.method.as_str(), path, headers.into_iter(), SignableBody::Bytes(body))
        .map_err(|_| invalid("The request cannot be brought into canonical form."))?;
    let output = sign(request, &params.into()).map_err(|_| invalid("The request cannot be signed."))?;
    Ok(output.signature().to_owned())
}

/// `YYYYMMDD'T'HHMMSS'Z'`
fn parse_date(text: &str) -> Option<SystemTime> {
    let format = time::format_description::parse_borrowed::<2>("[year][month][day]T[hour][minute][second]Z").ok()?;
    Some(PrimitiveDateTime::parse(text, &format).ok()?.assume_utc().into())
}

fn text<'a>(parts: &'a Parts, header: &str) -> Option<&'a str> {
    parts.headers.get(header)?.to_str().ok()
}

fn incomplete(text: &str) -> KmsError {
    KmsError::IncompleteSignature(text.to_owned())
}

fn invalid(text: &str) -> KmsError {
    KmsError::InvalidSignature(text.to_owned())
}
