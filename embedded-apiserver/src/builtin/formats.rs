//! What names, keys and values have to look like, in the words of the real server: each function lists what is wrong.
//!
//! From `k8s.io/apimachinery/pkg/util/validation`.

const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
const QUALIFIED: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
const LABEL_VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
const CONFIG_KEY: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";
const PERCENT: &str = "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  or '93%', regex used for validation is '[0-9]+%')";
const ENVIRONMENT: &str =
    "a valid environment variable name must consist only of printable ASCII characters other than '='";

/// The wrong ones of some conditions: `(holds, what is wrong otherwise)`.
fn broken<const COUNT: usize>(conditions: [(bool, &str); COUNT]) -> Vec<String> {
    conditions
        .into_iter()
        .filter(|(holds, _)| !holds)
        .map(|(_, wrong)| wrong.to_owned())
        .collect()
}

fn is_between(text: &str, edge: fn(u8) -> bool, inner: fn(u8) -> bool) -> bool {
    text.bytes().next().is_some_and(edge) && text.bytes().last().is_some_and(edge) && text.bytes().all(inner)
}

fn is_lower(letter: u8) -> bool {
    letter.is_ascii_lowercase() || letter.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    is_between(text, is_lower, |letter| is_lower(letter) || letter == b'-')
}

fn is_qualified(text: &str) -> bool {
    is_between(
        text,
        |letter| letter.is_ascii_alphanumeric(),
        |letter| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.'),
    )
}

/// A DNS label: names of namespaces, containers, volumes.
pub(crate) fn dns_label(text: &str) -> Vec<String> {
    let is_subdomain = text.split('.').all(is_label);
    broken([
        (text.len() <= 63, "must be no more than 63 characters"),
        (is_label(text) || !is_subdomain, "must not contain dots"),
        (is_label(text) || is_subdomain, LABEL),
    ])
}

/// A DNS subdomain: names of most objects.
pub(crate) fn dns_subdomain(text: &str) -> Vec<String> {
    broken([
        (text.len() <= 253, "must be no more than 253 characters"),
        (text.split('.').all(is_label), SUBDOMAIN),
    ])
}

/// A name with an optional prefix: keys of labels and annotations, resources, finalizers.
pub(crate) fn qualified_name(text: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    let parts: Vec<&str> = text.split('/').collect();
    let name = match parts.as_slice() {
        [name] => name,
        ["", name] => {
            wrong.push("prefix part must be non-empty".to_owned());
            name
        }
        [prefix, name] => {
            wrong.extend(
                dns_subdomain(prefix)
                    .into_iter()
                    .map(|text| format!("prefix part {text}")),
            );
            name
        }
        _ => {
            return vec![format!(
                "a qualified name {QUALIFIED} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    wrong.extend(broken([
        (!name.is_empty(), "name part must be non-empty"),
        (name.len() <= 63, "name part must be no more than 63 characters"),
    ]));
    if !is_qualified(name) {
        wrong.push(format!("name part {QUALIFIED}"));
    }
    wrong
}

/// A value of a label.
pub(crate) fn label_value(text: &str) -> Vec<String> {
    broken([
        (text.len() <= 63, "must be no more than 63 characters"),
        (text.is_empty() || is_qualified(text), LABEL_VALUE),
    ])
}

/// A key of a ConfigMap or Secret.
pub(crate) fn config_key(text: &str) -> Vec<String> {
    let is_key = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_' | b'.');
    broken([
        (text.len() <= 253, "must be no more than 253 characters"),
        (!text.is_empty() && text.bytes().all(is_key), CONFIG_KEY),
        (text != ".", "must not be '.'"),
        (text != "..", "must not be '..'"),
        (text == ".." || !text.starts_with(".."), "must not start with '..'"),
    ])
}

/// The name of a port.
pub(crate) fn port_name(text: &str) -> Vec<String> {
    broken([
        (text.len() <= 15, "must be no more than 15 characters"),
        (
            text.bytes().all(|letter| is_lower(letter) || letter == b'-'),
            "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)",
        ),
        (
            text.bytes().any(|letter| letter.is_ascii_lowercase()),
            "must contain at least one letter (a-z)",
        ),
        (!text.contains("--"), "must not contain consecutive hyphens"),
        (
            !text.starts_with('-') && !text.ends_with('-'),
            "must not begin or end with a hyphen",
        ),
    ])
}

/// The number of a port.
pub(crate) fn port_number(number: i64) -> Vec<String> {
    broken([((1..=65535).contains(&number), "must be between 1 and 65535, inclusive")])
}

/// The name of an environment variable.
pub(crate) fn environment_name(text: &str) -> Vec<String> {
    broken([(
        text.bytes()
            .all(|letter| (letter.is_ascii_graphic() || letter == b' ') && letter != b'='),
        ENVIRONMENT,
    )])
}

/// A share in percent.
pub(crate) fn percent(text: &str) -> Vec<String> {
    let digits = text.strip_suffix('%').unwrap_or_default();
    broken([(
        !digits.is_empty() && digits.bytes().all(|letter| letter.is_ascii_digit()),
        PERCENT,
    )])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_and_what_does_not() {
        assert!(dns_label("a-1").is_empty());
        assert_eq!(dns_label("A"), [LABEL]);
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert!(dns_subdomain("a.b-c.1").is_empty());
        assert_eq!(dns_subdomain("a..b"), [SUBDOMAIN]);
        assert!(qualified_name("example.com/A_b.c").is_empty());
        assert_eq!(dns_subdomain(&"A".repeat(254)).len(), 2);
        assert_eq!(
            qualified_name(""),
            [
                "name part must be non-empty".to_owned(),
                format!("name part {QUALIFIED}")
            ]
        );
        assert_eq!(qualified_name("/a"), ["prefix part must be non-empty"]);
        assert_eq!(qualified_name("a/").len(), 2);
        assert!(qualified_name("a/b/c")[0].starts_with("a qualified name must consist"));
        assert!(label_value("").is_empty() && label_value("a_B.1").is_empty());
        assert_eq!(label_value("-"), [LABEL_VALUE]);
        assert!(config_key("a_B.c").is_empty());
        assert_eq!(config_key(".."), ["must not be '..'"]);
        assert_eq!(config_key("..a"), ["must not start with '..'"]);
        assert_eq!(
            port_name("8-"),
            [
                "must contain at least one letter (a-z)",
                "must not begin or end with a hyphen"
            ]
        );
        assert!(port_number(65535).is_empty() && !port_number(0).is_empty());
        assert!(environment_name("a b").is_empty() && !environment_name("a=b").is_empty());
        assert!(percent("10%").is_empty() && !percent("%").is_empty() && !percent("10").is_empty());
    }
}
