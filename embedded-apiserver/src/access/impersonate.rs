//! Acting as someone else: what the headers ask for, and which rights that needs. Pure.
//!
//! The rules and words are those of the real server's `endpoints/filters/impersonation.go`.

use std::collections::BTreeMap;

use http::HeaderMap;

use super::{ANONYMOUS, AUTHENTICATED, Attributes, UNAUTHENTICATED, User, account_token};
use crate::selector::dns_subdomain_errors;

const EXTRA: &str = "impersonate-extra-";
const GROUP: &str = "authentication.k8s.io";

/// Someone to act as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impersonation {
    /// Who.
    pub user: User,
    /// All that is needed to become them.
    pub needs: Vec<Attributes>,
}

/// The headers ask for something, but not for a user; what they ask for, as the real server prints it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused(pub String);

/// What the headers ask for, if anything.
pub fn wanted(headers: &HeaderMap) -> Result<Option<Impersonation>, Refused> {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    let first = |name: &str| headers.get(name).map(text).unwrap_or_default();
    let (name, uid) = (first("impersonate-user"), first("impersonate-uid"));
    let groups: Vec<String> = headers.get_all("impersonate-group").iter().map(text).collect();
    let mut extra: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (header, value) in headers {
        if let Some(key) = header.as_str().strip_prefix(EXTRA) {
            extra.entry(unescaped(key)).or_default().push(text(value));
        }
    }
    if name.is_empty() {
        let mut asked: Vec<String> = groups.iter().map(|group| format!("{{Group  {group}    }}")).collect();
        for (key, values) in &extra {
            let shown = values
                .iter()
                .map(|value| format!("{{UserExtra  {value}  {GROUP}/v1  {key}}}"));
            asked.extend(shown);
        }
        if !uid.is_empty() {
            asked.push(format!("{{UID  {uid}  {GROUP}/v1  }}"));
        }
        return if asked.is_empty() {
            Ok(None)
        } else {
            Err(Refused(format!(
                "requested [{}] without impersonating a user",
                asked.join(" ")
            )))
        };
    }
    let mut needs = Vec::new();
    let mut user = User {
        name,
        uid,
        groups,
        extra,
    };
    let need = |group: &str, resource: &str, name: &str| Attributes::resource("impersonate", group, resource, "", name);
    let given = user.groups.clone();
    match service_account(&user.name) {
        Some((namespace, name)) => {
            needs.push(Attributes::resource(
                "impersonate",
                "",
                "serviceaccounts",
                namespace,
                name,
            ));
            if user.groups.is_empty() {
                user.groups = account_token::groups(namespace);
            }
        }
        None => needs.push(need("", "users", &user.name)),
    }
    needs.extend(given.iter().map(|group| need("", "groups", group)));
    for (key, values) in &user.extra {
        needs.extend(values.iter().map(|value| Attributes {
            subresource: key.clone(),
            ..need(GROUP, "userextras", value)
        }));
    }
    if !user.uid.is_empty() {
        needs.push(need(GROUP, "uids", &user.uid));
    }
    let in_group = |wanted: &str| user.groups.iter().any(|group| group == wanted);
    let implied = if user.name == ANONYMOUS {
        (!in_group(UNAUTHENTICATED)).then_some(UNAUTHENTICATED)
    } else {
        (!in_group(AUTHENTICATED) && !in_group(UNAUTHENTICATED)).then_some(AUTHENTICATED)
    };
    user.groups.extend(implied.map(str::to_owned));
    Ok(Some(Impersonation { user, needs }))
}

fn service_account(name: &str) -> Option<(&str, &str)> {
    let (namespace, account) = name.strip_prefix(account_token::USER_PREFIX)?.split_once(':')?;
    let label = !namespace.contains('.') && namespace.len() <= 63 && dns_subdomain_errors(namespace).is_empty();
    (label && dns_subdomain_errors(account).is_empty()).then_some((namespace, account))
}

/// A key of `extra`, which may hold what a header's name must not.
fn unescaped(key: &str) -> String {
    crate::http::decode_percent(key).unwrap_or_else(|| key.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    fn needs(found: &Impersonation) -> Vec<String> {
        let show = |need: &Attributes| format!("{} {} {} {}", need.group, need.combined(), need.namespace, need.name);
        found.needs.iter().map(show).collect()
    }

    #[test]
    fn each_part_needs_its_right() {
        let found = wanted(&headers(&[
            ("impersonate-user", "u"),
            ("impersonate-group", "g"),
            ("impersonate-group", "h"),
            ("impersonate-uid", "1"),
            ("impersonate-extra-a%2fb", "x"),
            ("impersonate-extra-a%2fb", "y"),
        ]))
        .unwrap()
        .unwrap();
        assert_eq!(found.user.groups, ["g", "h", AUTHENTICATED]);
        assert_eq!(found.user.extra["a/b"], ["x", "y"]);
        assert_eq!(
            needs(&found),
            [
                " users  u",
                " groups  g",
                " groups  h",
                "authentication.k8s.io userextras/a/b  x",
                "authentication.k8s.io userextras/a/b  y",
                "authentication.k8s.io uids  1",
            ]
        );
    }

    #[test]
    fn a_service_account_brings_its_groups() {
        let found = wanted(&headers(&[("impersonate-user", "system:serviceaccount:n:a")]))
            .unwrap()
            .unwrap();
        assert_eq!(
            found.user.groups,
            ["system:serviceaccounts", "system:serviceaccounts:n", AUTHENTICATED]
        );
        assert_eq!(needs(&found), [" serviceaccounts n a"]);
        let strange = wanted(&headers(&[("impersonate-user", "system:serviceaccount:n:a:b")]))
            .unwrap()
            .unwrap();
        assert_eq!(needs(&strange), [" users  system:serviceaccount:n:a:b"]);
    }

    #[test]
    fn groups_say_whether_someone_is_authenticated() {
        let groups = |pairs: &[(&'static str, &str)]| wanted(&headers(pairs)).unwrap().unwrap().user.groups;
        assert_eq!(groups(&[("impersonate-user", ANONYMOUS)]), [UNAUTHENTICATED]);
        assert_eq!(
            groups(&[("impersonate-user", "u"), ("impersonate-group", UNAUTHENTICATED)]),
            [UNAUTHENTICATED]
        );
    }

    #[test]
    fn without_a_user_nothing_can_be_asked_for() {
        assert_eq!(wanted(&HeaderMap::new()), Ok(None));
        assert_eq!(
            wanted(&headers(&[("impersonate-group", "a"), ("impersonate-uid", "b")])),
            Err(Refused(
                "requested [{Group  a    } {UID  b  authentication.k8s.io/v1  }] without impersonating a user"
                    .to_owned()
            ))
        );
    }
}
