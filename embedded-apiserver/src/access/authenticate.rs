//! From credentials to a user, and from a user to an answer: the two questions that every request meets.

use jiff::Timestamp;
use parking_lot::RwLock;
use serde_json::json;

use super::policy::{MissingRole, Policies, RoleReference};
use super::{Attributes, Decision, ISSUER, Keys, Rule, Rules, StaticTokens, User, bootstrap_token, rbac, together};
use crate::storage::{Event, Key, Store};

const INVALID: &str = "invalid bearer token";

/// What the connection says about who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Good credentials.
    Known(User),
    /// None: a token may follow.
    Unknown,
    /// A client certificate that is not good, and why.
    Rejected(String),
}

/// Someone whose credentials are good, or who showed none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authenticated {
    /// Who.
    pub user: User,
    /// For whom, of those that were asked for, the credentials are good.
    pub audiences: Vec<String>,
}

/// Credentials and policy.
#[derive(Debug)]
pub struct Access {
    policies: Policies,
    tokens: StaticTokens,
    /// The keys of service account tokens.
    pub keys: Keys,
    /// Where the server can be asked for the keys.
    address: RwLock<String>,
}

impl Access {
    /// With the tokens and the key that a server starts with.
    pub fn new(tokens: StaticTokens, keys: Keys) -> Self {
        Self {
            policies: Policies::default(),
            tokens,
            keys,
            address: RwLock::new("kubernetes.default.svc".to_owned()),
        }
    }

    /// Notes where the server listens.
    pub fn set_address(&self, address: String) {
        *self.address.write() = address;
    }

    /// The signer of service account tokens, for `/.well-known/openid-configuration`.
    pub fn discovery(&self) -> serde_json::Value {
        json!({
            "issuer": ISSUER,
            "jwks_uri": format!("https://{}/openid/v1/jwks", self.address.read()),
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["ES256"],
        })
    }

    /// Takes in a write.
    pub fn observe(&self, event: &Event) {
        self.policies.observe(&event.key);
    }

    /// Whether the user may do it.
    pub fn authorize(&self, store: &Store, user: &User, attributes: &Attributes) -> Decision {
        if user.is_master() {
            return Decision {
                allowed: true,
                reason: String::new(),
            };
        }
        rbac::authorize(&self.policies.current(store), user, attributes)
    }

    /// The rules that apply to the user in a namespace.
    pub fn rules_for(&self, store: &Store, user: &User, namespace: &str) -> Rules {
        rbac::rules_for(&self.policies.current(store), user, namespace)
    }

    /// The rules of the role that a binding in this namespace names.
    pub fn rules_of(&self, store: &Store, kind: &str, name: &str, namespace: &str) -> Result<Vec<Rule>, MissingRole> {
        let reference = RoleReference {
            kind: kind.to_owned(),
            name: name.to_owned(),
        };
        let policy = self.policies.current(store);
        policy.rules(&reference, namespace).map(<[Rule]>::to_vec)
    }

    /// Who asks, by their connection and their `Authorization` header. The error is for logs and reviews.
    pub fn authenticate(
        &self,
        store: &Store,
        caller: Caller,
        authorization: Option<&str>,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Authenticated, String> {
        let rejected = match caller {
            Caller::Known(user) => return Ok(agnostic(user, audiences)),
            Caller::Unknown => None,
            Caller::Rejected(why) => Some(why),
        };
        let mut errors: Vec<String> = rejected.into_iter().collect();
        if let Some(token) = authorization.and_then(bearer) {
            match self.token(store, token, audiences, now) {
                Ok(authenticated) => return Ok(authenticated),
                Err(error) => errors.push(error),
            }
        }
        // Bad credentials are no reason to count as someone without any.
        if errors.is_empty() {
            Ok(Authenticated {
                user: User::anonymous(),
                audiences: audiences.to_vec(),
            })
        } else {
            Err(together(&errors))
        }
    }

    fn token(&self, store: &Store, token: &str, audiences: &[String], now: Timestamp) -> Result<Authenticated, String> {
        let ours = audiences.iter().any(|audience| audience == ISSUER);
        if ours && let Some(user) = self.tokens.user(token) {
            return Ok(agnostic(user.clone(), audiences));
        }
        match self.account(store, token, audiences, now) {
            Ok(Some(authenticated)) => return Ok(authenticated),
            Ok(None) => {}
            Err(error) => return Err(format!("[{INVALID}, {error}]")),
        }
        let bootstrapper = bootstrap_token::parse(token).filter(|_| ours).and_then(|(id, secret)| {
            let key = Key::new(&"secrets".into(), "kube-system", &bootstrap_token::secret_name(id));
            bootstrap_token::user(&store.get(&key)?.value().ok()?, id, secret, now)
        });
        match bootstrapper {
            Some(user) => Ok(agnostic(user, audiences)),
            None => Err(INVALID.to_owned()),
        }
    }

    /// By a token of a service account; none if it is another kind of token.
    fn account(
        &self,
        store: &Store,
        token: &str,
        audiences: &[String],
        now: Timestamp,
    ) -> Result<Option<Authenticated>, String> {
        let Some(claims) = self.keys.verify(token)? else {
            return Ok(None);
        };
        // A token that names no audience is for this server.
        let all = if claims.audiences.is_empty() {
            vec![ISSUER.to_owned()]
        } else {
            claims.audiences.clone()
        };
        let good: Vec<String> = all.iter().filter(|name| audiences.contains(name)).cloned().collect();
        if good.is_empty() {
            let (all, wanted) = (super::quoted(&all), super::quoted(audiences));
            return Err(format!(
                "token audiences {all} is invalid for the target audiences {wanted}"
            ));
        }
        let user = claims.user(store, now)?;
        Ok(Some(Authenticated { user, audiences: good }))
    }
}

/// Credentials that are for this server, whatever else is asked for.
fn agnostic(user: User, audiences: &[String]) -> Authenticated {
    let ours = audiences.iter().filter(|audience| *audience == ISSUER);
    Authenticated {
        user,
        audiences: ours.cloned().collect(),
    }
}

/// What the client is warned of whose `Authorization` header is meant to hold a token, and does not.
pub fn header_warning(header: &str) -> Option<&'static str> {
    let mut words = header.trim().splitn(3, ' ');
    let meant = words.next().is_some_and(|scheme| scheme.eq_ignore_ascii_case("bearer"));
    let spaced = words.next() == Some("") && words.next().is_some();
    (meant && spaced)
        .then_some("the provided Authorization header contains extra space before the bearer token, and is ignored")
}

/// The token of an `Authorization` header, if it is one with a token.
fn bearer(header: &str) -> Option<&str> {
    let mut words = header.trim().split(' ');
    let scheme = words.next()?;
    let token = words.next()?;
    (scheme.eq_ignore_ascii_case("bearer") && !token.is_empty()).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::SigningKey;
    use crate::storage::HistoryLimits;
    use rstest::rstest;

    #[rstest]
    #[case("Bearer a", Some("a"))]
    #[case(" bearer  ", None)]
    #[case("Bearer", None)]
    #[case("Bearer a b", Some("a"))]
    #[case("Bearer  a", None)]
    #[case("Basic a", None)]
    #[case("", None)]
    fn headers(#[case] header: &str, #[case] token: Option<&str>) {
        assert_eq!(bearer(header), token);
        assert_eq!(header_warning(header).is_some(), header == "Bearer  a");
    }

    #[test]
    fn bad_credentials_are_not_no_credentials() {
        let mut tokens = StaticTokens::default();
        tokens.add("good", User::authenticated("a", vec!["g".to_owned()]));
        let access = Access::new(tokens, Keys::new(SigningKey::generate().unwrap()));
        let store = Store::in_memory(HistoryLimits::default());
        let ours = [ISSUER.to_owned()];
        let ask = |caller: Caller, header: Option<&str>, audiences: &[String]| {
            access
                .authenticate(&store, caller, header, audiences, Timestamp::UNIX_EPOCH)
                .map(|found| (found.user.name, found.audiences))
        };
        let rejected = || Caller::Rejected("expired".to_owned());
        let found = |name: &str| Ok((name.to_owned(), ours.to_vec()));
        assert_eq!(ask(Caller::Unknown, None, &ours), found("system:anonymous"));
        assert_eq!(ask(Caller::Unknown, Some("Bearer good"), &ours), found("a"));
        assert_eq!(
            ask(Caller::Unknown, Some("Bearer bad"), &ours),
            Err("invalid bearer token".to_owned())
        );
        assert_eq!(ask(rejected(), None, &ours), Err("expired".to_owned()));
        assert_eq!(ask(rejected(), Some("Bearer good"), &ours), found("a"));
        assert_eq!(
            ask(rejected(), Some("Bearer bad"), &ours),
            Err("[expired, invalid bearer token]".to_owned())
        );
        assert_eq!(
            ask(Caller::Known(User::admin()), Some("Bearer bad"), &ours),
            found("system:admin")
        );
        let theirs = ["vault".to_owned()];
        assert_eq!(
            ask(Caller::Unknown, Some("Bearer good"), &theirs),
            Err("invalid bearer token".to_owned())
        );
    }
}
