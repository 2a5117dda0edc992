//! From the entries of a Secret to what requests are signed with: keys, keys of a role
//! that is assumed, or what the provider's own process was given. aws-config does the
//! work. Nothing is written anywhere; what is kept in memory is bounded and forgotten.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use aws_config::sts::AssumeRoleProvider;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials as Keys;
use aws_credential_types::provider::{ProvideCredentials as _, SharedCredentialsProvider};
use parking_lot::Mutex;
use provider_sdk::v1::ErrorReason;
use provider_sdk::{ActuatorError, CredentialKey, Credentials};
use sha2::{Digest as _, Sha256};

use super::Wire;

/// The entries of the Secret, named as AWS names the environment variables.
const KEY_ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const TOKEN: &str = "AWS_SESSION_TOKEN";
const ROLE: &str = "AWS_ROLE_ARN";
const EXTERNAL_ID: &str = "AWS_ROLE_EXTERNAL_ID";

/// Credentials that end are fetched anew so long before.
const MARGIN: Duration = Duration::from_mins(5);
/// How many callers are remembered, and for how long when they do not come again.
const MAX_SOURCES: usize = 256;
const IDLE: Duration = Duration::from_mins(30);

/// The entries that are read.
pub fn keys() -> Vec<CredentialKey> {
    vec![
        CredentialKey::optional(KEY_ID, "the id of an access key; with its secret, or neither"),
        CredentialKey::optional(SECRET, "the secret of the access key"),
        CredentialKey::optional(TOKEN, "the session token, for keys that are temporary"),
        CredentialKey::optional(
            ROLE,
            "the ARN of a role to assume, with the access key or else with what the provider's own process was given",
        ),
        CredentialKey::optional(EXTERNAL_ID, "the external id that the role asks for"),
    ]
}

/// What the entries say.
#[derive(Clone, PartialEq, Eq)]
enum Choice {
    Ambient,
    Keys(KeyPair),
    Role {
        with: Option<KeyPair>,
        role: String,
        external_id: Option<String>,
    },
}

#[derive(Clone, PartialEq, Eq)]
struct KeyPair {
    id: String,
    secret: String,
    token: Option<String>,
}

fn choose(credentials: &Credentials) -> Result<Choice, ActuatorError> {
    if credentials.is_ambient() {
        return Ok(Choice::Ambient);
    }
    let read = |name| credentials.optional_text(name).map(|text| text.map(ToOwned::to_owned));
    let (id, secret, token) = (read(KEY_ID)?, read(SECRET)?, read(TOKEN)?);
    let pair = match (id, secret) {
        (Some(id), Some(secret)) => Some(KeyPair { id, secret, token }),
        (None, None) => None,
        // Names the one that is missing.
        (Some(_), None) => return credentials.text(SECRET).map(|_| Choice::Ambient),
        (None, Some(_)) => return credentials.text(KEY_ID).map(|_| Choice::Ambient),
    };
    let role = read(ROLE)?;
    match (pair, role) {
        (with, Some(role)) => Ok(Choice::Role {
            with,
            role,
            external_id: read(EXTERNAL_ID)?,
        }),
        (Some(pair), None) => Ok(Choice::Keys(pair)),
        (None, None) => Err(ActuatorError::new(
            ErrorReason::CredentialsInvalid,
            format!("the credentials have neither {KEY_ID} with {SECRET} nor {ROLE}; add them to the Secret"),
        )),
    }
}

/// One caller's credentials, fetched when they are needed.
pub struct Source {
    choice: Choice,
    region: String,
    wire: Wire,
    kept: tokio::sync::Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    provider: Option<SharedCredentialsProvider>,
    credentials: Option<Keys>,
}

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Source")
            .field("region", &self.region)
            .finish_non_exhaustive()
    }
}

impl Source {
    /// What to sign with now.
    pub(super) async fn current(&self) -> Result<Keys, String> {
        if let Choice::Keys(pair) = &self.choice {
            return Ok(signing_keys(pair));
        }
        let mut kept = self.kept.lock().await;
        if let Some(credentials) = kept.credentials.as_ref().filter(|credentials| lasts(credentials)) {
            return Ok(credentials.clone());
        }
        let provider = match &kept.provider {
            Some(provider) => provider.clone(),
            None => kept.provider.insert(self.provider().await?).clone(),
        };
        let credentials = provider.provide_credentials().await.map_err(|error| words(&error))?;
        kept.credentials = Some(credentials.clone());
        Ok(credentials)
    }

    async fn provider(&self) -> Result<SharedCredentialsProvider, String> {
        let ambient = |config: &SdkConfig| {
            config
                .credentials_provider()
                .ok_or_else(|| "the process has no credentials".to_owned())
        };
        match &self.choice {
            Choice::Keys(pair) => Ok(SharedCredentialsProvider::new(signing_keys(pair))),
            Choice::Ambient => ambient(&self.config(None).await),
            Choice::Role {
                with,
                role,
                external_id,
            } => {
                let config = self.config(with.as_ref()).await;
                let mut builder = AssumeRoleProvider::builder(role)
                    .configure(&config)
                    .region(Region::new(self.region.clone()))
                    .session_name("outrigger");
                if let Some(external_id) = external_id {
                    builder = builder.external_id(external_id);
                }
                let provider = builder.build_from_provider(ambient(&config)?).await;
                Ok(SharedCredentialsProvider::new(provider))
            }
        }
    }

    async fn config(&self, pair: Option<&KeyPair>) -> SdkConfig {
        let mut loader = aws_config::defaults(BehaviorVersion::latest())
            .http_client(self.wire.http.clone())
            .region(Region::new(self.region.clone()));
        if let Some(endpoint) = &self.wire.endpoint {
            loader = loader.endpoint_url(endpoint);
        }
        if let Some(pair) = pair {
            loader = loader.credentials_provider(signing_keys(pair));
        }
        loader.load().await
    }
}

fn signing_keys(pair: &KeyPair) -> Keys {
    Keys::new(&pair.id, &pair.secret, pair.token.clone(), None, "actuator")
}

fn lasts(credentials: &Keys) -> bool {
    credentials
        .expiry()
        .is_none_or(|expiry| expiry > SystemTime::now() + MARGIN)
}

/// An error with what it comes from; aws-config says the reason last.
fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        words = format!("{words}: {inner}");
        source = inner.source();
    }
    words
}

/// A source, and when it was last asked for.
type Known = (Arc<Source>, Instant);

/// The sources of all callers, by a hash of what makes them, so that a token or a role's
/// session is fetched once and not for each call.
#[derive(Debug)]
pub struct Sources {
    wire: Wire,
    known: Mutex<HashMap<Vec<u8>, Known>>,
}

impl Sources {
    /// None yet.
    pub fn new(wire: Wire) -> Self {
        Self {
            wire,
            known: Mutex::default(),
        }
    }

    /// The source of this caller, whose tokens come from this region, with a name for the
    /// caller that says nothing of the secrets.
    pub fn of(&self, credentials: &Credentials, region: &str) -> Result<(Arc<Source>, Vec<u8>), ActuatorError> {
        let choice = choose(credentials)?;
        let hash = fingerprint(&choice, region);
        let now = Instant::now();
        let mut known = self.known.lock();
        known.retain(|_, (_, used)| now.duration_since(*used) < IDLE);
        if known.len() >= MAX_SOURCES && !known.contains_key(&hash) {
            let oldest = known.iter().min_by_key(|(_, (_, used))| *used);
            if let Some(oldest) = oldest.map(|(hash, _)| hash.clone()) {
                known.remove(&oldest);
            }
        }
        let (source, used) = known.entry(hash.clone()).or_insert_with(|| {
            let source = Source {
                choice,
                region: region.to_owned(),
                wire: self.wire.clone(),
                kept: tokio::sync::Mutex::default(),
            };
            (Arc::new(source), now)
        });
        *used = now;
        Ok((Arc::clone(source), hash))
    }
}

fn fingerprint(choice: &Choice, region: &str) -> Vec<u8> {
    let mut hash = Sha256::new();
    let mut part = |text: Option<&str>| {
        // With its length, so that no two lists of parts look the same.
        hash.update(text.map_or(u64::MAX, |text| text.len() as u64).to_be_bytes());
        hash.update(text.unwrap_or_default());
    };
    part(Some(region));
    let mut pair = |pair: Option<&KeyPair>| {
        part(pair.map(|pair| pair.id.as_str()));
        part(pair.map(|pair| pair.secret.as_str()));
        part(pair.and_then(|pair| pair.token.as_deref()));
    };
    match choice {
        Choice::Ambient => pair(None),
        Choice::Keys(keys) => pair(Some(keys)),
        Choice::Role {
            with,
            role,
            external_id,
        } => {
            pair(with.as_ref());
            part(Some(role));
            part(external_id.as_deref());
        }
    }
    hash.finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entries(entries: &[(&str, &str)]) -> Credentials {
        Credentials::from_entries(
            entries
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())),
        )
    }

    #[test]
    fn entries_say_who_calls() {
        let chosen = |list: &[(&str, &str)]| choose(&entries(list));
        assert!(matches!(
            chosen(&[(KEY_ID, "a"), (SECRET, "b"), (TOKEN, "c")]),
            Ok(Choice::Keys(KeyPair { token: Some(_), .. }))
        ));
        assert!(matches!(
            chosen(&[(ROLE, "arn"), (EXTERNAL_ID, "x")]),
            Ok(Choice::Role {
                with: None,
                external_id: Some(_),
                ..
            })
        ));
        assert!(matches!(
            chosen(&[(KEY_ID, "a"), (SECRET, "b"), (ROLE, "arn")]),
            Ok(Choice::Role {
                with: Some(_),
                external_id: None,
                ..
            })
        ));
        assert!(matches!(choose(&Credentials::ambient()), Ok(Choice::Ambient)));
    }

    #[test]
    fn half_of_a_key_is_refused_and_what_is_missing_is_named() {
        for (list, missing) in [
            (&[(KEY_ID, "a")][..], SECRET),
            (&[(SECRET, "b")], KEY_ID),
            (&[(TOKEN, "c")], KEY_ID),
            (&[], ROLE),
        ] {
            let Err(error) = choose(&entries(list)) else {
                panic!("{list:?} was taken")
            };
            assert_eq!(error.reason(), ErrorReason::CredentialsInvalid);
            assert!(error.message().contains(missing), "{error}");
        }
        assert!(choose(&Credentials::none()).is_err());
    }

    #[test]
    fn every_part_makes_another_caller_and_nothing_else_does() {
        let of = |list: &[(&str, &str)], region: &str| match choose(&entries(list)) {
            Ok(choice) => fingerprint(&choice, region),
            Err(error) => panic!("{error}"),
        };
        let base = of(&[(KEY_ID, "a"), (SECRET, "b")], "r");
        assert_eq!(base, of(&[(SECRET, "b"), (KEY_ID, "a"), ("other", "x")], "r"));
        let others = [
            of(&[(KEY_ID, "a"), (SECRET, "b")], "s"),
            of(&[(KEY_ID, "a"), (SECRET, "c")], "r"),
            of(&[(KEY_ID, "ab"), (SECRET, "b")], "r"),
            of(&[(KEY_ID, "a"), (SECRET, "b"), (TOKEN, "t")], "r"),
            of(&[(KEY_ID, "a"), (SECRET, "b"), (ROLE, "t")], "r"),
            of(&[(KEY_ID, "a"), (SECRET, "b"), (ROLE, "t"), (EXTERNAL_ID, "e")], "r"),
            of(&[(ROLE, "t")], "r"),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(*other, base);
            assert!(!others[index + 1..].contains(other));
        }
    }

    #[tokio::test]
    async fn a_caller_has_one_source_and_there_are_not_too_many() -> Result<(), Box<dyn std::error::Error>> {
        let wire = Wire {
            http: super::super::Http::new()?,
            endpoint: None,
            counts: Arc::default(),
        };
        let sources = Sources::new(wire);
        let caller = entries(&[(KEY_ID, "a"), (SECRET, "b")]);
        let (first, name) = sources.of(&caller, "r")?;
        let (second, same) = sources.of(&caller, "r")?;
        assert!(Arc::ptr_eq(&first, &second) && name == same);
        for number in 0..2 * MAX_SOURCES {
            sources.of(&entries(&[(KEY_ID, &number.to_string()), (SECRET, "b")]), "r")?;
        }
        assert_eq!(sources.known.lock().len(), MAX_SOURCES);
        Ok(())
    }
}
