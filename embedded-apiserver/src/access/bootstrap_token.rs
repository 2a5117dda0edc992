//! Bootstrap tokens: with them, a node joins before it has credentials of its own. Pure.
//!
//! They are Secrets in `kube-system`; the rules are those of `plugin/pkg/auth/authenticator/token/bootstrap`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use serde_json::Value;
use subtle::ConstantTimeEq as _;

use super::User;

/// The group of all who come with a bootstrap token.
const GROUP: &str = "system:bootstrappers";

/// Takes a token apart: six letters of name, sixteen of secret.
pub(super) fn parse(token: &str) -> Option<(&str, &str)> {
    let fits = |text: &str, length: usize| {
        text.len() == length
            && text
                .bytes()
                .all(|letter| letter.is_ascii_lowercase() || letter.is_ascii_digit())
    };
    token
        .split_once('.')
        .filter(|(id, secret)| fits(id, 6) && fits(secret, 16))
}

/// The name of the Secret of a token.
pub(super) fn secret_name(id: &str) -> String {
    format!("bootstrap-token-{id}")
}

/// Who a token stands for, if this Secret, which has its name, makes it a good one.
pub(super) fn user(secret: &Value, id: &str, shown: &str, now: Timestamp) -> Option<User> {
    let data = |key: &str| {
        let encoded = secret["data"][key].as_str().unwrap_or_default();
        STANDARD.decode(encoded).unwrap_or_default()
    };
    let is_type = secret["type"] == "bootstrap.kubernetes.io/token";
    let deleting = secret["metadata"]["deletionTimestamp"].is_string();
    if deleting || !is_type || !bool::from(data("token-secret").ct_eq(shown.as_bytes())) {
        return None;
    }
    let expiration = data("expiration");
    let lasts = expiration.is_empty()
        || std::str::from_utf8(&expiration)
            .ok()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .is_some_and(|end| end > now);
    if data("token-id") != id.as_bytes() || !lasts || data("usage-bootstrap-authentication") != b"true" {
        return None;
    }
    let mut groups = vec![GROUP.to_owned()];
    let extra = String::from_utf8(data("auth-extra-groups")).ok()?;
    for group in extra.split(',').filter(|_| !extra.is_empty()) {
        if !is_group(group) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(User::authenticated(format!("system:bootstrap:{id}"), groups))
}

fn is_group(group: &str) -> bool {
    let letter = |letter: u8| letter.is_ascii_lowercase() || letter.is_ascii_digit();
    let Some(name) = group.strip_prefix("system:bootstrappers:") else {
        return false;
    };
    name.len() <= 256
        && name.bytes().last().is_some_and(letter)
        && name.bytes().all(|byte| letter(byte) || matches!(byte, b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    fn secret(changes: &Value) -> Value {
        let mut plain = json!({
            "token-id": "abcdef", "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true",
        });
        for (key, value) in changes.as_object().unwrap() {
            plain[key] = value.clone();
        }
        let data: serde_json::Map<String, Value> = plain
            .as_object()
            .unwrap()
            .iter()
            .map(|(key, value)| (key.clone(), STANDARD.encode(value.as_str().unwrap()).into()))
            .collect();
        json!({ "metadata": { "name": "bootstrap-token-abcdef" }, "type": "bootstrap.kubernetes.io/token", "data": data })
    }

    fn ask(secret: &Value) -> Option<User> {
        let now = "2026-01-01T00:00:00Z".parse().unwrap();
        user(secret, "abcdef", "0123456789abcdef", now)
    }

    #[test]
    fn a_good_token_is_a_bootstrapper() {
        let user = ask(&secret(&json!({
            "auth-extra-groups": "system:bootstrappers:workers,system:bootstrappers:a",
            "expiration": "2026-01-01T00:00:01Z",
        })))
        .unwrap();
        assert_eq!(user.name, "system:bootstrap:abcdef");
        let groups = [
            "system:bootstrappers",
            "system:bootstrappers:a",
            "system:bootstrappers:workers",
        ];
        assert_eq!(user.groups[..3], groups.map(str::to_owned));
        assert_eq!(user.groups[3], super::super::AUTHENTICATED);
    }

    #[rstest]
    #[case(json!({ "token-secret": "0123456789abcdee" }))]
    #[case(json!({ "token-id": "abcdee" }))]
    #[case(json!({ "usage-bootstrap-authentication": "false" }))]
    #[case(json!({ "usage-bootstrap-authentication": "" }))]
    #[case(json!({ "expiration": "2026-01-01T00:00:00Z" }))]
    #[case(json!({ "expiration": "tomorrow" }))]
    #[case(json!({ "auth-extra-groups": "system:masters" }))]
    #[case(json!({ "auth-extra-groups": "system:bootstrappers:a," }))]
    #[case(json!({ "auth-extra-groups": "system:bootstrappers:A" }))]
    fn a_bad_token_is_nobody(#[case] changes: Value) {
        assert_eq!(ask(&secret(&changes)), None);
    }

    #[test]
    fn the_secret_must_be_one_of_tokens_and_stay() {
        let mut of_another_type = secret(&json!({}));
        of_another_type["type"] = "Opaque".into();
        assert_eq!(ask(&of_another_type), None);
        let mut going = secret(&json!({}));
        going["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        assert_eq!(ask(&going), None);
        assert!(ask(&secret(&json!({}))).is_some());
    }

    #[rstest]
    #[case("abcdef.0123456789abcdef", true)]
    #[case("abcde.0123456789abcdef", false)]
    #[case("abcdef.0123456789abcdeF", false)]
    #[case("abcdef.0123456789abcdef0", false)]
    #[case("abcdef0123456789abcdef", false)]
    fn tokens(#[case] token: &str, #[case] good: bool) {
        assert_eq!(parse(token).is_some(), good);
    }
}
