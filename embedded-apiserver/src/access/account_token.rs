//! The tokens of service accounts: signed here, and good for as long as what they speak of is there.
//!
//! Claims, checks and words are those of the real server's `pkg/serviceaccount`. The key is an elliptic one (ES256).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use parking_lot::RwLock;
use rcgen::{KeyPair, PublicKeyData as _};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::User;
use crate::storage::{Key, Store};

/// Who signs the tokens, and for whom they are good if nothing else is asked for.
pub const ISSUER: &str = "https://kubernetes.default.svc";
/// How the user names of service accounts begin.
pub const USER_PREFIX: &str = "system:serviceaccount:";
/// How tokens are signed, as RFC 7518 names it.
const ALGORITHM: &str = "ES256";
/// Clocks differ by at most this.
const LEEWAY: SignedDuration = SignedDuration::from_mins(1);

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Claims {
    /// For whom it is good.
    #[serde(rename = "aud", default, deserialize_with = "one_or_many")]
    pub audiences: Vec<String>,
    /// When it ends, in seconds.
    #[serde(rename = "exp")]
    pub expires: i64,
    /// When it was made, in seconds.
    #[serde(rename = "iat")]
    pub issued: i64,
    /// Who signed it.
    #[serde(rename = "iss")]
    pub issuer: String,
    /// Its own id.
    #[serde(rename = "jti", default)]
    pub id: String,
    /// What is particular to Kubernetes.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Kubernetes,
    /// From when on it is good, in seconds.
    #[serde(rename = "nbf")]
    pub not_before: i64,
    /// The user.
    #[serde(rename = "sub")]
    pub subject: String,
}

/// Whose token it is, and what it is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Kubernetes {
    /// The namespace.
    pub namespace: String,
    /// The node of the pod, or the node that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<Reference>,
    /// The pod that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<Reference>,
    /// The secret that it is bound to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Reference>,
    /// The account.
    pub serviceaccount: Reference,
}

/// An object, as it is now and not another of its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub uid: String,
}

/// What a new token is bound to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// A pod.
    pub pod: Option<Reference>,
    /// A secret.
    pub secret: Option<Reference>,
    /// A node, or the node of the pod.
    pub node: Option<Reference>,
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Audience {
        One(String),
        Many(Vec<String>),
    }
    Ok(match Audience::deserialize(deserializer)? {
        Audience::One(one) => vec![one],
        Audience::Many(many) => many,
    })
}

impl Claims {
    /// Of a new token.
    pub fn new(
        namespace: &str,
        account: Reference,
        bound: Bound,
        audiences: Vec<String>,
        now: Timestamp,
        seconds: i64,
    ) -> Self {
        let now = now.as_second();
        Self {
            audiences,
            expires: now.saturating_add(seconds),
            issued: now,
            issuer: ISSUER.to_owned(),
            id: uuid::Uuid::new_v4().to_string(),
            not_before: now,
            subject: format!("{USER_PREFIX}{namespace}:{}", account.name),
            kubernetes: Kubernetes {
                namespace: namespace.to_owned(),
                node: bound.node,
                pod: bound.pod,
                secret: bound.secret,
                serviceaccount: account,
            },
        }
    }

    fn check_time(&self, now: Timestamp) -> Result<(), String> {
        let (early, late) = ((now - LEEWAY).as_second(), (now + LEEWAY).as_second());
        if late < self.not_before {
            Err("service account token is not valid yet".to_owned())
        } else if early > self.expires {
            Err("service account token has expired".to_owned())
        } else if late < self.issued {
            Err("service account token is issued in the future".to_owned())
        } else {
            Ok(())
        }
    }

    /// The user, if the token's time is now and all that it speaks of is still there.
    pub(super) fn user(&self, store: &Store, now: Timestamp) -> Result<User, String> {
        self.check_time(now)?;
        let Kubernetes {
            namespace,
            node,
            pod,
            secret,
            serviceaccount: account,
        } = &self.kubernetes;
        let (found, going) = look_up(store, "serviceaccounts", namespace, &account.name, now)
            .ok_or_else(|| format!("serviceaccounts {:?} not found", account.name))?;
        if found != account.uid {
            return Err(format!(
                "service account UID ({found}) does not match claim ({})",
                account.uid
            ));
        }
        if going {
            return Err(format!("service account {namespace}/{} has been deleted", account.name));
        }
        let bound = |resource: &str, kind: &str, namespace: &str, reference: &Reference| {
            let (found, going) = look_up(store, resource, namespace, &reference.name, now)
                .ok_or("service account token has been invalidated")?;
            if found != reference.uid {
                let (shown, claim) = (kind, kind.to_lowercase());
                return Err(format!(
                    "{shown} UID ({found}) does not match service account {claim} ref claim ({})",
                    reference.uid
                ));
            }
            if going {
                return Err("service account token has been invalidated".to_owned());
            }
            Ok(())
        };
        if let Some(secret) = secret {
            bound("secrets", "secret", namespace, secret)?;
        }
        match (pod, node) {
            (Some(pod), _) => bound("pods", "pod", namespace, pod)?,
            (None, Some(node)) => bound("nodes", "node", "", node)?,
            (None, None) => {}
        }
        Ok(self.described())
    }

    fn described(&self) -> User {
        let namespace = &self.kubernetes.namespace;
        let mut user = User::authenticated(
            format!("{USER_PREFIX}{namespace}:{}", self.kubernetes.serviceaccount.name),
            groups(namespace),
        );
        user.uid.clone_from(&self.kubernetes.serviceaccount.uid);
        let mut note = |key: &str, value: &str| {
            if !value.is_empty() {
                user.extra
                    .insert(format!("authentication.kubernetes.io/{key}"), vec![value.to_owned()]);
            }
        };
        if let Some(pod) = &self.kubernetes.pod {
            note("pod-name", &pod.name);
            note("pod-uid", &pod.uid);
        }
        if let Some(node) = &self.kubernetes.node {
            note("node-name", &node.name);
            note("node-uid", &node.uid);
        }
        if self.id.is_empty() {
            user
        } else {
            user.with_credential(format!("JTI={}", self.id))
        }
    }
}

/// The groups of a service account.
pub(super) fn groups(namespace: &str) -> Vec<String> {
    vec![
        "system:serviceaccounts".to_owned(),
        format!("system:serviceaccounts:{namespace}"),
    ]
}

/// An object's UID, and whether its deletion began so long ago that it counts as gone.
fn look_up(store: &Store, resource: &str, namespace: &str, name: &str, now: Timestamp) -> Option<(String, bool)> {
    let object = store.get(&Key::new(&resource.into(), namespace, name))?.value().ok()?;
    let metadata = &object["metadata"];
    let deleted = metadata["deletionTimestamp"].as_str().map(str::parse::<Timestamp>);
    let going = deleted.is_some_and(|at| at.is_ok_and(|at| at < now - LEEWAY));
    Some((metadata["uid"].as_str().unwrap_or_default().to_owned(), going))
}

/// Why a key cannot be made or used.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key itself.
    #[error("the signing key of service account tokens cannot be used: {0}")]
    Key(#[from] rcgen::Error),
    /// It is of another kind.
    #[error("the signing key of service account tokens is no P-256 key")]
    Kind,
    /// Signing failed.
    #[error("failed to sign a service account token")]
    Sign,
    /// What it says cannot be written.
    #[error("the claims of a service account token cannot be written: {0}")]
    Claims(#[from] serde_json::Error),
}

/// A key that tokens are signed with.
pub struct SigningKey {
    id: String,
    pem: String,
    pair: EcdsaKeyPair,
    /// An uncompressed point: 4, x, y.
    point: Vec<u8>,
}

// Keys must not get into logs.
impl std::fmt::Debug for SigningKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "SigningKey({})", self.id)
    }
}

impl SigningKey {
    /// A new one.
    pub fn generate() -> Result<Self, KeyError> {
        Self::new(&KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256)?)
    }

    /// One that was kept.
    pub fn from_pem(pem: &str) -> Result<Self, KeyError> {
        Self::new(&KeyPair::from_pem(pem)?)
    }

    fn new(pair: &KeyPair) -> Result<Self, KeyError> {
        if !pair.is_compatible(&rcgen::PKCS_ECDSA_P256_SHA256) {
            return Err(KeyError::Kind);
        }
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        Ok(Self {
            id: URL_SAFE_NO_PAD.encode(Sha256::digest(pair.subject_public_key_info())),
            pair: EcdsaKeyPair::from_pkcs8(algorithm, &pair.serialize_der(), &SystemRandom::new())
                .map_err(|_| KeyError::Kind)?,
            point: pair.der_bytes().to_vec(),
            pem: pair.serialize_pem(),
        })
    }

    fn verifies(&self, signed: &str, signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, &self.point);
        key.verify(signed.as_bytes(), signature).is_ok()
    }

    /// The public key as RFC 7517 has it.
    fn public(&self) -> Value {
        let half = |range| URL_SAFE_NO_PAD.encode(self.point.get::<std::ops::Range<usize>>(range).unwrap_or_default());
        json!({
            "use": "sig", "kty": "EC", "kid": self.id, "crv": "P-256", "alg": ALGORITHM, "x": half(1..33), "y": half(33..65),
        })
    }

    /// The private key, to be kept.
    pub fn pem(&self) -> &str {
        &self.pem
    }
}

/// The keys: the first signs, all verify.
#[derive(Debug)]
pub struct Keys {
    keys: RwLock<Vec<Arc<SigningKey>>>,
}

impl Keys {
    /// With a first key.
    pub fn new(key: SigningKey) -> Self {
        Self {
            keys: RwLock::new(vec![Arc::new(key)]),
        }
    }

    /// The key that signs.
    pub fn signing(&self) -> Option<Arc<SigningKey>> {
        self.keys.read().first().cloned()
    }

    /// From now on this key signs; what the earlier ones signed stays good.
    pub fn adopt(&self, key: SigningKey) {
        let mut keys = self.keys.write();
        keys.retain(|known| known.id != key.id);
        keys.insert(0, Arc::new(key));
    }

    /// Signs a token.
    pub fn sign(&self, claims: &Claims) -> Result<String, KeyError> {
        let key = self.signing().ok_or(KeyError::Kind)?;
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = json!({ "alg": ALGORITHM, "kid": key.id });
        let signed = format!("{}.{}", part(&header), part(&serde_json::to_value(claims)?));
        let signature = key
            .pair
            .sign(&SystemRandom::new(), signed.as_bytes())
            .map_err(|_| KeyError::Sign)?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// What a token says, if it is one of ours; none if it does not claim to be.
    pub(super) fn verify(&self, token: &str) -> Result<Option<Claims>, String> {
        #[derive(Deserialize)]
        struct Header {
            alg: String,
            #[serde(default)]
            kid: String,
        }
        if !claims_issuer(token) {
            return Ok(None);
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let parts = token.rsplit_once('.').and_then(|(signed, signature)| {
            let (header, payload) = signed.split_once('.')?;
            let header: Header = serde_json::from_slice(&decode(header)?).ok()?;
            Some((signed, header, decode(payload)?, decode(signature)?))
        });
        let Some((signed, header, payload, signature)) = parts else {
            return Ok(None);
        };
        let keys = self.keys.read();
        let mut fitting = keys
            .iter()
            .filter(|key| header.kid.is_empty() || header.kid == key.id)
            .peekable();
        if fitting.peek().is_none() {
            return Err("invalid signature, no keys found".to_owned());
        }
        // The key says how it signs; what the token says of that is only compared.
        if header.alg != ALGORITHM || !fitting.any(|key| key.verifies(signed, &signature)) {
            return Err("go-jose/go-jose: error in cryptographic primitive".to_owned());
        }
        serde_json::from_slice(&payload)
            .map(Some)
            .map_err(|error| format!("go-jose/go-jose/jwt: invalid claims: {error}"))
    }

    /// The public keys, for `/openid/v1/jwks`.
    pub fn public(&self) -> Value {
        let keys = self.keys.read();
        let keys = keys.iter().map(|key| key.public());
        json!({ "keys": keys.collect::<Vec<_>>() })
    }
}

/// Whether it has the form of a token and names us as its issuer: only then is a signature worth a look.
fn claims_issuer(token: &str) -> bool {
    #[derive(Deserialize)]
    struct Unverified {
        #[serde(default)]
        iss: String,
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [_, payload, _] = parts.as_slice() else {
        return false;
    };
    URL_SAFE_NO_PAD
        .decode(payload)
        .ok()
        .and_then(|payload| serde_json::from_slice::<Unverified>(&payload).ok())
        .is_some_and(|claims| claims.iss == ISSUER)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(now: Timestamp) -> Claims {
        let account = Reference {
            name: "a".to_owned(),
            uid: "u".to_owned(),
        };
        Claims::new("n", account, Bound::default(), vec![ISSUER.to_owned()], now, 600)
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn only_what_was_signed_here_is_good() {
        let keys = Keys::new(SigningKey::generate().unwrap());
        let claims = claims(at(1_000_000));
        let token = keys.sign(&claims).unwrap();
        assert_eq!(keys.verify(&token), Ok(Some(claims.clone())));
        let others = Keys::new(SigningKey::generate().unwrap());
        assert_eq!(
            others.verify(&token),
            Err("invalid signature, no keys found".to_owned())
        );
        let (head, signature) = token.rsplit_once('.').unwrap();
        let (header, _) = head.split_once('.').unwrap();
        let mut forged = claims.clone();
        forged.kubernetes.serviceaccount.name = "other".to_owned();
        let forged = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&forged).unwrap());
        let forged = format!("{header}.{forged}.{signature}");
        assert_eq!(
            keys.verify(&forged),
            Err("go-jose/go-jose: error in cryptographic primitive".to_owned())
        );
        // Without a signature, or with another algorithm, nothing is good either.
        let none = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
        let payload = head.split_once('.').unwrap().1;
        assert!(!matches!(keys.verify(&format!("{none}.{payload}.")), Ok(Some(_))));
        for strange in ["", "a.b", "a.b.c", "a.e30.c"] {
            assert_eq!(keys.verify(strange), Ok(None), "{strange:?}");
        }
    }

    #[test]
    fn an_adopted_key_signs_and_the_earlier_one_stays_good() {
        let keys = Keys::new(SigningKey::generate().unwrap());
        let old = keys.sign(&claims(at(0))).unwrap();
        let kept = SigningKey::generate().unwrap();
        let again = SigningKey::from_pem(kept.pem()).unwrap();
        assert_eq!(kept.id, again.id);
        keys.adopt(again);
        assert!(keys.verify(&old).unwrap().is_some());
        let new = keys.sign(&claims(at(0))).unwrap();
        assert!(Keys::new(kept).verify(&new).unwrap().is_some());
        assert_eq!(keys.public()["keys"].as_array().unwrap().len(), 2);
        assert!(!format!("{keys:?}").contains("PRIVATE"));
    }

    #[test]
    fn a_token_has_its_time() {
        let claims = claims(at(1_000_000));
        assert_eq!(claims.check_time(at(1_000_000)), Ok(()));
        assert_eq!(claims.check_time(at(1_000_660)), Ok(()));
        assert_eq!(
            claims.check_time(at(1_000_661)),
            Err("service account token has expired".to_owned())
        );
        assert_eq!(
            claims.check_time(at(999_900)),
            Err("service account token is not valid yet".to_owned())
        );
    }
}
