//! `/healthz`, `/livez`, `/readyz` and their single checks.

use http::Response;
use http::header::{HeaderName, HeaderValue};

use super::body::Body;
use super::{not_found_page, render};

/// What is checked. The store has the name under which probes ask for it.
pub const CHECKS: [&str; 3] = ["ping", "etcd", "lifecycle"];

const PLAIN: &str = "text/plain; charset=utf-8";

/// Answers a path below one of the three; a server that answers is healthy.
pub fn answer(path: &str, query: &[(String, String)]) -> Response<Body> {
    let (root, check) = path
        .split_once('/')
        .map_or((path, None), |(root, check)| (root, Some(check)));
    if let Some(check) = check {
        return if CHECKS.contains(&check) {
            render::whole(200, PLAIN, "ok")
        } else {
            not_found_page()
        };
    }
    let verbose = query.iter().any(|(name, _)| name == "verbose");
    let excluded = query
        .iter()
        .filter(|(name, _)| name == "exclude")
        .map(|(_, value)| value.as_str());
    let text = if verbose {
        verbose_text(root, &excluded.collect::<Vec<_>>())
    } else {
        "ok".to_owned()
    };
    let mut response = render::whole(200, PLAIN, text);
    let name = HeaderName::from_static("x-content-type-options");
    response.headers_mut().insert(name, HeaderValue::from_static("nosniff"));
    response
}

fn verbose_text(root: &str, excluded: &[&str]) -> String {
    let outcome = |check: &str| {
        if excluded.contains(&check) {
            "excluded: ok"
        } else {
            "ok"
        }
    };
    let mut lines: Vec<String> = CHECKS
        .iter()
        .map(|check| format!("[+]{check} {}\n", outcome(check)))
        .collect();
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| !CHECKS.contains(name))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        lines.push(format!(
            "warn: some health checks cannot be excluded: no matches for {}\n",
            unknown.join(", ")
        ));
    }
    lines.push(format!("{root} check passed\n"));
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn excluded_checks_are_named_and_unknown_ones_warned_of() {
        assert_eq!(
            verbose_text("readyz", &["ping", "none"]),
            "[+]ping excluded: ok\n[+]etcd ok\n[+]lifecycle ok\n\
             warn: some health checks cannot be excluded: no matches for \"none\"\nreadyz check passed\n"
        );
    }
}
