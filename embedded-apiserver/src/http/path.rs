//! What a path and a query ask for. Pure.

use http::Method;

use crate::rest::number::parse_integer;
use crate::rest::{ApiError, Options, Verb};
use crate::schema::go_quote;

/// A path, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api`, `/apis`: the groups.
    Groups {
        /// Whether it is the core group's root.
        core: bool,
    },
    /// `/apis/GROUP`.
    Group(String),
    /// `/api/v1`, `/apis/GROUP/VERSION`: the resources of a version.
    Resources {
        /// The group.
        group: String,
        /// The version.
        version: String,
    },
    /// A collection, an object or a subresource.
    Resource(ResourcePath),
    /// `/version`.
    Version,
    /// `/healthz` and its like.
    Health(String),
    /// `/openapi/v2`.
    OpenApiV2,
    /// `/openapi/v3`.
    OpenApiV3Index,
    /// `/openapi/v3/…`: the group and version.
    OpenApiV3 {
        /// The group.
        group: String,
        /// The version.
        version: String,
    },
    /// `/.well-known/openid-configuration`: who signs the tokens of service accounts.
    OpenIdConfiguration,
    /// `/openid/v1/jwks`: with which keys.
    OpenIdKeys,
    /// `/`: the paths.
    Root,
    /// `/metrics`.
    Metrics,
    /// Nothing that is served; in this group, if it is in one.
    Unknown(Option<String>),
    /// No path at all.
    Malformed,
}

/// Where a resource request goes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// The group; empty for the core group.
    pub group: String,
    /// The version.
    pub version: String,
    /// The namespace; empty for none.
    pub namespace: String,
    /// The plural name.
    pub resource: String,
    /// The object; empty for the collection.
    pub name: String,
    /// The subresource; empty for none.
    pub subresource: String,
    /// `/watch/…`, the old way to ask for a watch.
    pub watch: bool,
    /// There are more parts than any resource has.
    pub more: bool,
}

/// Takes a path apart.
pub fn route(path: &str) -> Route {
    let Some(path) = decode_percent(path) else {
        return Route::Malformed;
    };
    let inner = path.strip_prefix('/').unwrap_or(&path);
    if inner.starts_with('/') {
        return Route::Unknown(None);
    }
    let parts: Vec<&str> = inner.trim_end_matches('/').split('/').collect();
    match parts.as_slice() {
        [""] => Route::Root,
        ["version"] => Route::Version,
        ["metrics"] => Route::Metrics,
        ["healthz" | "livez" | "readyz", ..] => Route::Health(inner.to_owned()),
        ["api"] => Route::Groups { core: true },
        ["apis"] => Route::Groups { core: false },
        ["apis", group] => Route::Group((*group).to_owned()),
        ["api", version] => Route::Resources {
            group: String::new(),
            version: (*version).to_owned(),
        },
        ["apis", group, version] => Route::Resources {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
        },
        [".well-known", "openid-configuration"] => Route::OpenIdConfiguration,
        ["openid", "v1", "jwks"] => Route::OpenIdKeys,
        ["openapi", "v2"] => Route::OpenApiV2,
        ["openapi", "v3"] => Route::OpenApiV3Index,
        ["openapi", "v3", "api", version] => Route::OpenApiV3 {
            group: String::new(),
            version: (*version).to_owned(),
        },
        ["openapi", "v3", "apis", group, version] => Route::OpenApiV3 {
            group: (*group).to_owned(),
            version: (*version).to_owned(),
        },
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Unknown(None),
    }
}

fn resource(group: &str, version: &str, rest: &[&str]) -> Route {
    let mut path = ResourcePath {
        group: group.to_owned(),
        version: version.to_owned(),
        ..ResourcePath::default()
    };
    let rest = match rest {
        ["watch", rest @ ..] => {
            path.watch = true;
            rest
        }
        rest => rest,
    };
    let rest = match rest {
        // Namespaces are objects themselves; these are theirs, not those of something in them.
        ["namespaces", _] | ["namespaces", _, "status" | "finalize", ..] => rest,
        ["namespaces", namespace, rest @ ..] if !rest.is_empty() => {
            (*namespace).clone_into(&mut path.namespace);
            if namespace.is_empty() {
                return Route::Unknown(Some(group.to_owned()));
            }
            rest
        }
        rest => rest,
    };
    let (resource, name, subresource) = match rest {
        [resource] => (*resource, "", ""),
        [resource, name] => (*resource, *name, ""),
        [resource, name, subresource, more @ ..] => {
            path.more = !more.is_empty();
            (*resource, *name, *subresource)
        }
        [] => return Route::Unknown(Some(group.to_owned())),
    };
    if resource.is_empty() || (rest.len() == 2 && name.is_empty()) || (rest.len() > 2 && subresource.is_empty()) {
        return Route::Unknown(Some(group.to_owned()));
    }
    resource.clone_into(&mut path.resource);
    name.clone_into(&mut path.name);
    subresource.clone_into(&mut path.subresource);
    Route::Resource(path)
}

/// Replaces `%41` and its like.
pub fn decode_percent(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| byte.and_then(|byte| char::from(byte).to_digit(16));
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

/// The parameters of a query, decoded.
pub fn query(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .filter_map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |text: &str| decode_percent(&text.replace('+', " "));
            Some((decode(name)?, decode(value)?))
        })
        .collect()
}

/// The verb of a request to a resource; none for methods that are none.
pub fn verb(method: &Method, path: &ResourcePath, options: &Options) -> Option<Verb> {
    let collection = path.name.is_empty();
    match *method {
        // The old paths of watches take nothing else.
        Method::GET if path.watch && path.subresource.is_empty() => Some(Verb::Watch),
        _ if path.watch => None,
        // One object is read, whatever is said of watching: its watch is one of the collection, by name.
        Method::GET if collection && options.watch => Some(Verb::Watch),
        Method::GET if collection => Some(Verb::List),
        Method::GET => Some(Verb::Get),
        Method::POST => Some(Verb::Create),
        Method::PUT => Some(Verb::Update),
        Method::PATCH => Some(Verb::Patch),
        Method::DELETE if collection => Some(Verb::DeleteCollection),
        Method::DELETE => Some(Verb::Delete),
        _ => None,
    }
}

/// Reads the query parameters of a request to a resource.
pub fn options(query: &[(String, String)]) -> Result<Options, ApiError> {
    let mut options = Options::default();
    for (place, (name, value)) in query.iter().enumerate() {
        // Of several values the first counts, but of `dryRun` all.
        if name != "dryRun" && query.iter().take(place).any(|(before, _)| before == name) {
            continue;
        }
        match name.as_str() {
            "dryRun" => {
                options.dry_run = true;
                options.dry_run_values.push(value.clone());
            }
            "fieldManager" => options.field_manager = Some(value.clone()),
            "fieldValidation" => options.field_validation.clone_from(value),
            "force" => options.force = Some(truth(value)),
            "labelSelector" => options.label_selector.clone_from(value),
            "fieldSelector" => options.field_selector.clone_from(value),
            "limit" => options.limit = usize::try_from(number(value)?).unwrap_or_default(),
            "continue" => options.continue_token.clone_from(value),
            "resourceVersion" => options.resource_version.clone_from(value),
            "resourceVersionMatch" => options.resource_version_match.clone_from(value),
            "watch" => options.watch = truth(value),
            "allowWatchBookmarks" => options.bookmarks = truth(value),
            "sendInitialEvents" => options.send_initial_events = Some(truth(value)),
            "timeoutSeconds" => options.timeout_seconds = Some(number(value)?),
            "propagationPolicy" if !value.is_empty() => options.propagation_policy = Some(value.clone()),
            "gracePeriodSeconds" if !value.is_empty() => {
                let seconds = value.parse().map_err(|_| {
                    ApiError::bad_request(format!("strconv.ParseInt: parsing {value:?}: invalid syntax"))
                })?;
                options.grace_period_seconds = Some(seconds);
            }
            "orphanDependents" if !value.is_empty() => options.orphan_dependents = Some(truth(value)),
            "timeout" => duration(value).map_err(|problem| {
                ApiError::bad_request(format!("invalid timeout specified in the request URL - {problem}"))
            })?,
            _ => {}
        }
    }
    Ok(options)
}

/// Refuses what Go's `time.ParseDuration` refuses.
fn duration(text: &str) -> Result<(), String> {
    let invalid = || format!("time: invalid duration {}", go_quote(text));
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" || text.is_empty() {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let number_end = rest
            .find(|letter: char| !letter.is_ascii_digit() && letter != '.')
            .unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        if number.parse::<f64>().is_err() {
            return Err(invalid());
        }
        let unit_end = after
            .find(|letter: char| letter.is_ascii_digit() || letter == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        match unit {
            "" => return Err(format!("time: missing unit in duration {}", go_quote(text))),
            "ns" | "us" | "µs" | "μs" | "ms" | "s" | "m" | "h" => {}
            _ => {
                return Err(format!(
                    "time: unknown unit {} in duration {}",
                    go_quote(unit),
                    go_quote(text)
                ));
            }
        }
        rest = after;
    }
    Ok(())
}

/// As the real server reads booleans: present and not `false` or `0`.
fn truth(value: &str) -> bool {
    !value.eq_ignore_ascii_case("false") && value != "0"
}

fn number(value: &str) -> Result<i64, ApiError> {
    parse_integer(value).map_err(ApiError::bad_request)
}
