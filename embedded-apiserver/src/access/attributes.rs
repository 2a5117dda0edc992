//! What a request asks for, as authorization sees it. Pure.
//!
//! The rules are those of `RequestInfoFactory` in the real server's `endpoints/request`: the path says it all, whether
//! or not there is such a resource.

use http::Method;

use super::User;
use crate::selector::FieldSelector;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The verb: `get`, `list`, `create`, …
    pub verb: String,
    /// Whether a resource is asked for, not just a path.
    pub is_resource: bool,
    /// The API group.
    pub group: String,
    /// The resource.
    pub resource: String,
    /// The subresource; empty for none.
    pub subresource: String,
    /// The namespace; empty for cluster scope and for all namespaces.
    pub namespace: String,
    /// The object's name, if one is named.
    pub name: String,
    /// The path, when no resource is asked for.
    pub path: String,
}

impl Attributes {
    /// A verb on a named object.
    pub fn resource(verb: &str, group: &str, resource: &str, namespace: &str, name: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            is_resource: true,
            group: group.to_owned(),
            resource: resource.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            ..Self::default()
        }
    }

    /// A verb on a path.
    pub fn path(verb: &str, path: &str) -> Self {
        Self {
            verb: verb.to_owned(),
            path: path.to_owned(),
            ..Self::default()
        }
    }

    /// What a request asks for, by its decoded path and the parts of it.
    pub fn of_request(method: &Method, path: &str, parts: &[&str], query: &[(String, String)]) -> Self {
        let other = || Self::path(&method.as_str().to_lowercase(), path);
        let (group, mut parts) = match parts {
            ["api", _version, rest @ ..] if !rest.is_empty() => ("", rest),
            ["apis", group, _version, rest @ ..] if !rest.is_empty() => (*group, rest),
            _ => return other(),
        };
        let mut attributes = Self {
            is_resource: true,
            group: group.to_owned(),
            path: path.to_owned(),
            ..Self::default()
        };
        attributes.verb = match parts {
            [verb @ ("watch" | "proxy"), rest @ ..] if !rest.is_empty() => {
                parts = rest;
                (*verb).to_owned()
            }
            _ => match *method {
                Method::POST => "create",
                Method::GET | Method::HEAD => "get",
                Method::PUT => "update",
                Method::PATCH => "patch",
                Method::DELETE => "delete",
                _ => "",
            }
            .to_owned(),
        };
        if let ["namespaces", namespace, rest @ ..] = parts {
            (*namespace).clone_into(&mut attributes.namespace);
            // Subresources of the namespace itself; all else is in it.
            if !matches!(rest, [] | ["status" | "finalize", ..]) {
                parts = rest;
            }
        }
        if let Some(resource) = parts.first() {
            (*resource).clone_into(&mut attributes.resource);
        }
        if let Some(name) = parts.get(1) {
            (*name).clone_into(&mut attributes.name);
        }
        if let Some(subresource) = parts.get(2)
            && attributes.verb != "proxy"
        {
            (*subresource).clone_into(&mut attributes.subresource);
        }
        if attributes.name.is_empty() {
            match attributes.verb.as_str() {
                "get" => attributes.collection(query),
                "delete" => "deletecollection".clone_into(&mut attributes.verb),
                _ => {}
            }
        }
        attributes
    }

    /// A get without a name is a list or a watch; one that selects a single name is of that object alone.
    fn collection(&mut self, query: &[(String, String)]) {
        let parameter = |wanted: &str| {
            query
                .iter()
                .find(|(name, _)| name == wanted)
                .map(|(_, value)| value.as_str())
        };
        let watches = parameter("watch").is_some_and(|value| !matches!(value.to_lowercase().as_str(), "false" | "0"));
        if watches { "watch" } else { "list" }.clone_into(&mut self.verb);
        let selected = parameter("fieldSelector").and_then(|text| FieldSelector::parse(text).ok());
        if let Some(name) = selected.as_ref().and_then(|selector| selector.exact("metadata.name"))
            && !name.contains(['/', '%'])
            && !matches!(name, "." | "..")
        {
            name.clone_into(&mut self.name);
        }
    }

    /// The resource with its subresource, as `pods/status`.
    pub fn combined(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.clone()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }

    /// That a user may not, in words.
    pub fn denial(&self, user: &User) -> String {
        let (user, verb) = (&user.name, &self.verb);
        let message = if !self.is_resource {
            format!("User {user:?} cannot {verb} path {:?}", self.path)
        } else {
            let scope = if self.namespace.is_empty() {
                "at the cluster scope".to_owned()
            } else {
                format!("in the namespace {:?}", self.namespace)
            };
            let (resource, group) = (self.combined(), &self.group);
            format!("User {user:?} cannot {verb} resource {resource:?} in API group {group:?} {scope}")
        };
        // Nothing that a browser could take for HTML.
        message.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn of(method: &str, path: &str) -> Attributes {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let query: Vec<(String, String)> = query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect();
        Attributes::of_request(&method.parse().unwrap(), path, &parts, &query)
    }

    #[rstest]
    #[case("GET", "/api/v1/pods", "list  pods   ")]
    #[case("HEAD", "/api/v1/namespaces/a/pods/b", "get  pods  a b")]
    #[case("GET", "/api/v1/namespaces/a/pods?watch=1", "watch  pods  a ")]
    #[case("GET", "/api/v1/namespaces/a/pods?watch=false", "list  pods  a ")]
    #[case("GET", "/api/v1/watch/namespaces/a/pods", "watch  pods  a ")]
    #[case(
        "PUT",
        "/apis/apps/v1/namespaces/a/daemonsets/b/status",
        "update apps daemonsets status a b"
    )]
    #[case("POST", "/api/v1/namespaces", "create  namespaces   ")]
    #[case("GET", "/api/v1/namespaces/a", "get  namespaces  a a")]
    #[case("PUT", "/api/v1/namespaces/a/finalize", "update  namespaces finalize a a")]
    #[case("GET", "/api/v1/namespaces/a/status/b", "get  namespaces status a a")]
    #[case("DELETE", "/api/v1/namespaces/a/secrets", "deletecollection  secrets  a ")]
    #[case("DELETE", "/api/v1/namespaces/a/secrets/b", "delete  secrets  a b")]
    #[case("OPTIONS", "/api/v1/pods", "  pods   ")]
    #[case(
        "GET",
        "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name=b",
        "list  secrets  a b"
    )]
    #[case(
        "GET",
        "/api/v1/namespaces/a/secrets?fieldSelector=metadata.name!=b",
        "list  secrets  a "
    )]
    fn resources(#[case] method: &str, #[case] path: &str, #[case] expected: &str) {
        let found = of(method, path);
        assert!(found.is_resource);
        let words = [
            &found.verb,
            &found.group,
            &found.resource,
            &found.subresource,
            &found.namespace,
            &found.name,
        ];
        assert_eq!(words.map(String::as_str).join(" "), expected);
    }

    #[rstest]
    #[case("GET", "/api/v1")]
    #[case("GET", "/apis/apps/v1")]
    #[case("POST", "/version")]
    #[case("GET", "/")]
    fn paths(#[case] method: &str, #[case] path: &str) {
        assert_eq!(of(method, path), Attributes::path(&method.to_lowercase(), path));
    }

    #[test]
    fn a_denial_says_who_what_and_where() {
        let user = User::authenticated("a<b", Vec::new());
        assert_eq!(
            of("GET", "/apis/apps/v1/namespaces/n/daemonsets/d/status").denial(&user),
            "User \"a&lt;b\" cannot get resource \"daemonsets/status\" in API group \"apps\" in the namespace \"n\""
        );
        assert_eq!(
            of("GET", "/metrics").denial(&User::anonymous()),
            "User \"system:anonymous\" cannot get path \"/metrics\""
        );
    }
}
