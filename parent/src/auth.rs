//! Who calls, and what they may do: bearer tokens, client certificates, operations and key-id patterns.
//! Whether a key exists plays no part here, so a caller learns nothing about keys outside its patterns.
//! What a key may sign is its bound policy, which the enclave decides; whether a client certificate is
//! valid is decided in the handshake, before.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest, Sha256};
use strongroom_protocol::KeyId;
use subtle::ConstantTimeEq as _;
use time::OffsetDateTime;

use crate::problem::{Kind, Problem};
use crate::tls::{ClientCertificate, DnsName};

/// Something that an identity may or may not do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    /// See keys and attestation documents.
    Read,
    /// Sign.
    Sign,
    /// Create, change, re-wrap and delete keys.
    Manage,
}

/// One `[[identities]]` table: a caller, and how it is recognised.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "IdentityTable")]
pub struct Identity {
    /// The name in the log.
    pub name: String,
    /// What the caller has to show.
    pub proof: Proof,
    /// What the identity may do. Nothing, unless named.
    pub operations: HashSet<Operation>,
    /// The keys that it may do it with. None, unless named.
    pub keys: Vec<KeyPattern>,
}

/// How an identity is recognised.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Proof {
    /// By the token with this hash. The token itself is stored nowhere.
    Token(TokenHash),
    /// By a client certificate whose first DNS name is this.
    Certificate(DnsName),
}

/// An [`Identity`] as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityTable {
    name: String,
    token_sha256: Option<TokenHash>,
    client_dns_name: Option<DnsName>,
    #[serde(default)]
    operations: HashSet<Operation>,
    #[serde(default)]
    keys: Vec<KeyPattern>,
}

/// SHA-256 of a bearer token, written as 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct TokenHash([u8; 32]);

/// A key id in which `*` stands for any characters, also none.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct KeyPattern(String);

/// What a request shows of its caller.
#[derive(Debug, Clone, Copy)]
pub enum Shown<'a> {
    /// An `Authorization` header. It is judged alone, whatever certificate stands beside it.
    Authorization(&'a [u8]),
    /// No such header, but the client certificate of its connection.
    Certificate(&'a ClientCertificate),
    /// Neither.
    Nothing,
}

/// Everybody who may call.
#[derive(Debug, Clone)]
pub enum Identities {
    /// No identities are configured: whoever reaches the loopback interface may do everything.
    AnyLocalCaller,
    /// These, and nobody else.
    Known(Vec<Arc<Identity>>),
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub enum Caller {
    /// Someone on this machine, where no identities are configured.
    Local,
    /// A configured identity.
    Known(Arc<Identity>),
}

impl Identities {
    /// The caller who shows this.
    ///
    /// # Errors
    /// 401, the caller's: no bearer token or certificate, or not one that is configured, or a certificate
    /// that has expired since its connection was made.
    pub fn authenticate(&self, shown: Shown<'_>) -> Result<Caller, Problem> {
        let identities = match self {
            Self::AnyLocalCaller => return Ok(Caller::Local),
            Self::Known(identities) => identities,
        };
        let found = match shown {
            Shown::Authorization(header) => bearer_token(header).and_then(|token| holder(identities, token)),
            Shown::Certificate(certificate) => {
                certificate.name_at(OffsetDateTime::now_utc()).and_then(|name| named(identities, name))
            }
            Shown::Nothing => None,
        };
        found.map(|identity| Caller::Known(Arc::clone(identity))).ok_or_else(|| Kind::Unauthorized.into())
    }
}

fn holder<'a>(identities: &'a [Arc<Identity>], token: &[u8]) -> Option<&'a Arc<Identity>> {
    let presented = TokenHash::of(token);
    // Every hash is compared, in constant time each: timing tells nothing about which are close.
    let mut found = None;
    for identity in identities {
        if let Proof::Token(hash) = &identity.proof
            && bool::from(hash.0.ct_eq(&presented.0))
        {
            found = Some(identity);
        }
    }
    found
}

fn named<'a>(identities: &'a [Arc<Identity>], name: &DnsName) -> Option<&'a Arc<Identity>> {
    identities.iter().find(|identity| matches!(&identity.proof, Proof::Certificate(known) if known == name))
}

impl TryFrom<IdentityTable> for Identity {
    type Error = String;

    fn try_from(table: IdentityTable) -> Result<Self, Self::Error> {
        let IdentityTable { name, token_sha256, client_dns_name, operations, keys } = table;
        let proof = match (token_sha256, client_dns_name) {
            (Some(hash), None) => Proof::Token(hash),
            (None, Some(name)) => Proof::Certificate(name),
            _ => return Err(format!("identity {name:?}: give it either token_sha256 or client_dns_name")),
        };
        Ok(Self { name, proof, operations, keys })
    }
}

impl Caller {
    /// The name for the log; `local` where no identities are configured.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Local => "local",
            Self::Known(identity) => &identity.name,
        }
    }

    /// Whether the caller may do this with at least some key.
    ///
    /// # Errors
    /// 403, the caller's.
    pub fn authorize(&self, operation: Operation) -> Result<(), Problem> {
        match self {
            Self::Known(identity) if !identity.operations.contains(&operation) => {
                Err(Problem::new(Kind::Forbidden, "The identity may not perform this operation."))
            }
            Self::Local | Self::Known(_) => Ok(()),
        }
    }

    /// Whether the caller may do this with this key, existing or not.
    ///
    /// # Errors
    /// 403, the caller's.
    pub fn authorize_key(&self, operation: Operation, key_id: &KeyId) -> Result<(), Problem> {
        self.authorize(operation)?;
        if self.reaches(key_id) {
            Ok(())
        } else {
            Err(Problem::new(Kind::Forbidden, "The key id is outside the identity's patterns."))
        }
    }

    /// Whether one of the caller's patterns fits the key.
    #[must_use]
    pub fn reaches(&self, key_id: &KeyId) -> bool {
        match self {
            Self::Local => true,
            Self::Known(identity) => identity.keys.iter().any(|pattern| pattern.matches(key_id)),
        }
    }
}

impl TokenHash {
    /// The hash of a presented token.
    #[must_use]
    pub fn of(token: &[u8]) -> Self {
        Self(Sha256::digest(token).into())
    }
}

impl fmt::Display for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl TryFrom<String> for TokenHash {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let mut hash = [0; 32];
        hex::decode_to_slice(&text, &mut hash)
            .map_err(|_| "not the SHA-256 of a token in 64 hex digits; `strongroom token new` prints one")?;
        Ok(Self(hash))
    }
}

impl KeyPattern {
    /// Whether the whole key id fits the pattern.
    #[must_use]
    pub fn matches(&self, key_id: &KeyId) -> bool {
        // Greedy matching with one point of return: linear in the product of the lengths (at most 64 each).
        let (pattern, text) = (self.0.as_bytes(), key_id.as_str().as_bytes());
        let (mut p, mut t) = (0, 0);
        let mut star = None;
        while let Some(&c) = text.get(t) {
            match pattern.get(p) {
                Some(b'*') => {
                    star = Some((p, t));
                    p += 1;
                }
                Some(&expected) if expected == c => {
                    p += 1;
                    t += 1;
                }
                _ => match star {
                    Some((at, from)) => {
                        star = Some((at, from + 1));
                        p = at + 1;
                        t = from + 1;
                    }
                    None => return false,
                },
            }
        }
        pattern.get(p..).is_some_and(|rest| rest.iter().all(|&c| c == b'*'))
    }
}

impl TryFrom<String> for KeyPattern {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        let allowed = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'_' | b'-' | b'*');
        if !text.is_empty() && text.len() <= 64 && text.bytes().all(allowed) {
            Ok(Self(text))
        } else {
            Err("not a pattern of key ids: 1 to 64 of [A-Za-z0-9._-], and * for any characters")
        }
    }
}

/// The token of an `Authorization: Bearer …` header (RFC 6750 section 2.1; the scheme's case does not
/// matter, RFC 9110 section 11.1).
fn bearer_token(header: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = header.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(toml: &str) -> Result<Identity, String> {
        toml::from_str(toml).map_err(|error| error.to_string())
    }

    fn known() -> Identities {
        let rights = "operations = [\"sign\"]\nkeys = [\"hot-*\"]\n";
        let token = format!("name = \"hot\"\ntoken_sha256 = \"{}\"\n{rights}", TokenHash::of(b"srt_one"));
        let certificate = format!("name = \"cold\"\nclient_dns_name = \"Cold.internal\"\n{rights}");
        Identities::Known([token, certificate].map(|toml| identity(&toml).expect("valid").into()).into())
    }

    fn certificate(name: &str, seconds_left: i64) -> ClientCertificate {
        let not_after = OffsetDateTime::now_utc() + time::Duration::seconds(seconds_left);
        ClientCertificate::new(name.to_owned().try_into().expect("a name"), not_after)
    }

    #[test]
    fn only_a_configured_token_authenticates() {
        for (header, expected) in [
            ("Bearer srt_one", true),
            ("bearer srt_one", true),
            ("Bearer srt_two", false),
            ("Bearer ", false),
            ("Basic srt_one", false),
            ("srt_one", false),
            ("", false),
        ] {
            let shown = Shown::Authorization(header.as_bytes());
            assert_eq!(known().authenticate(shown).is_ok(), expected, "{header:?}");
        }
        assert!(known().authenticate(Shown::Nothing).is_err());
    }

    #[test]
    fn a_certificate_authenticates_by_its_whole_name_until_it_expires() {
        for (name, seconds_left, expected) in [
            ("cold.internal", 60, true),
            ("COLD.INTERNAL", 60, true),
            ("cold.internal", -1, false),
            ("internal", 60, false),
            ("x.cold.internal", 60, false),
            ("cold.internal.x", 60, false),
            ("hot", 60, false),
        ] {
            let certificate = certificate(name, seconds_left);
            let caller = known().authenticate(Shown::Certificate(&certificate));
            assert_eq!(caller.is_ok_and(|caller| caller.name() == "cold"), expected, "{name} {seconds_left}");
        }
    }

    #[test]
    fn an_identity_is_recognised_in_one_way() {
        let token = format!("token_sha256 = \"{}\"", TokenHash::of(b"t"));
        for rest in ["", &format!("{token}\nclient_dns_name = \"a\"")] {
            let error = identity(&format!("name = \"x\"\n{rest}")).expect_err("not one");
            assert!(error.contains("\"x\"") && error.contains("client_dns_name"), "{error}");
        }
        for wrong in ["*.internal", "", "a..b"] {
            let error = identity(&format!("name = \"x\"\nclient_dns_name = \"{wrong}\"")).expect_err("no name");
            assert!(error.contains("not a DNS name"), "{error}");
        }
    }

    #[test]
    fn operations_and_patterns_both_bind() {
        let caller = known().authenticate(Shown::Authorization(b"Bearer srt_one")).expect("known");
        let (inside, outside) = ("hot-1".parse().expect("id"), "cold-1".parse().expect("id"));
        assert!(caller.authorize_key(Operation::Sign, &inside).is_ok());
        assert!(caller.authorize_key(Operation::Sign, &outside).is_err());
        assert!(caller.authorize_key(Operation::Read, &inside).is_err());
        assert!(caller.authorize(Operation::Manage).is_err());
    }

    #[test]
    fn an_identity_may_do_nothing_by_default() {
        let identity = identity(&format!("name = \"x\"\ntoken_sha256 = \"{}\"", TokenHash::of(b"t")));
        let caller = Caller::Known(Arc::new(identity.expect("valid")));
        for operation in [Operation::Read, Operation::Sign, Operation::Manage] {
            assert!(caller.authorize(operation).is_err());
        }
        assert!(!caller.reaches(&"a".parse().expect("id")));
    }

    #[test]
    fn patterns_match_whole_ids() {
        for (pattern, id, expected) in [
            ("*", "anything", true),
            ("hot-*", "hot-", true),
            ("hot-*", "hot-1", true),
            ("hot-*", "Hot-1", false),
            ("hot-*", "xhot-1", false),
            ("hot", "hot", true),
            ("hot", "hot-1", false),
            ("*-eth", "hot-eth", true),
            ("*-eth", "hot-eth2", false),
            ("a*b*c", "aXbXbc", true),
            ("a*b*c", "aXbX", false),
            ("**", "a", true),
        ] {
            let pattern = KeyPattern::try_from(pattern.to_owned()).expect("valid");
            assert_eq!(pattern.matches(&id.parse().expect("id")), expected, "{pattern:?} {id}");
        }
        for bad in ["", "a/b", "a?", &"x".repeat(65)] {
            assert!(KeyPattern::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }
}
