//! What makes the conversion of a CustomResourceDefinition's versions invalid.

use serde_json::{Value, json};

use super::custom::{is_established, strings};
use super::text;
use super::validation::{invalid, label_problem, one_of, subdomain_problem};
use crate::schema::Cause;

/// Adds what is wrong with the conversion of a definition; `old` may have a certificate that is none.
pub(super) fn conversion(definition: &Value, old: Option<&Value>, causes: &mut Vec<Cause>) {
    let conversion = &definition["spec"]["conversion"];
    if !conversion.is_object() {
        return;
    }
    let field = "spec.conversion";
    let strategy = text(conversion, "/strategy");
    one_of(&format!("{field}.strategy"), strategy, ["None", "Webhook"], causes);
    let client = conversion["webhook"]
        .get("clientConfig")
        .filter(|client| client.is_object());
    let reviews = conversion["webhook"].get("conversionReviewVersions");
    let client_field = format!("{field}.webhookClientConfig");
    let reviews_field = format!("{field}.conversionReviewVersions");
    if strategy != "Webhook" {
        let detail = "should not be set when strategy is not set to Webhook";
        if client.is_some() {
            causes.push(Cause::forbidden(&client_field, detail));
        }
        if !strings(reviews).is_empty() {
            causes.push(Cause::forbidden(&reviews_field, detail));
        }
        return;
    }
    match client {
        None => causes.push(Cause::required(
            &client_field,
            "required when strategy is set to Webhook",
        )),
        Some(client) => webhook_client(definition, old, client, &client_field, causes),
    }
    review_versions(&strings(reviews), &reviews_field, causes);
}

fn webhook_client(definition: &Value, old: Option<&Value>, client: &Value, field: &str, causes: &mut Vec<Cause>) {
    let url = client["url"].as_str();
    let service = client.get("service").filter(|service| service.is_object());
    match (url, service) {
        (Some(url), None) => webhook_url(url, &format!("{field}.url"), causes),
        (None, Some(service)) => webhook_service(service, &format!("{field}.service"), causes),
        _ => causes.push(Cause::required(field, "exactly one of url or service is required")),
    }
    let bundle = |conversion: &Value| {
        let text = conversion["webhook"]["clientConfig"]["caBundle"].as_str()?;
        Some(text.to_owned()).filter(|text| !text.is_empty())
    };
    // A definition that is not yet established, or had a bad bundle before, may have one that is no certificate.
    let strict = old.is_some_and(|old| {
        is_established(old) && bundle(&old["spec"]["conversion"]).is_none_or(|bundle| is_certificate(&bundle))
    });
    if let Some(bundle) = bundle(&definition["spec"]["conversion"]).filter(|bundle| strict && !is_certificate(bundle)) {
        let detail = "unable to load root certificates: unable to parse bytes as PEM block";
        causes.push(invalid(&format!("{field}.caBundle"), &bundle, detail));
    }
}

fn is_certificate(bundle: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD
        .decode(bundle)
        .is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains("-----BEGIN CERTIFICATE-----"))
}

fn review_versions(versions: &[&str], field: &str, causes: &mut Vec<Cause>) {
    if versions.is_empty() {
        causes.push(Cause::required(field, ""));
        return;
    }
    for (at, version) in versions.iter().enumerate() {
        let field = format!("{field}[{at}]");
        if versions[..at].contains(version) {
            causes.push(invalid(&field, version, "duplicate version"));
        } else if let Some(problem) = label_problem(version) {
            causes.push(invalid(&field, version, &problem));
        }
    }
    if !versions.iter().any(|version| ["v1", "v1beta1"].contains(version)) {
        let detail = "must include at least one of v1, v1beta1";
        causes.push(Cause::invalid(field, &json!(versions), detail));
    }
}

fn webhook_url(url: &str, field: &str, causes: &mut Vec<Cause>) {
    let form = "; desired format: https://host[/path]";
    let (before, fragment) = url.split_once('#').unwrap_or((url, ""));
    let (before, query) = before.split_once('?').unwrap_or((before, ""));
    let (scheme, rest) = before.split_once(':').unwrap_or(("", before));
    let authority = rest
        .strip_prefix("//")
        .map(|rest| rest.split('/').next().unwrap_or_default())
        .unwrap_or_default();
    let (user, host) = match authority.rsplit_once('@') {
        Some((user, host)) => (Some(user), host),
        None => (None, authority),
    };
    if scheme != "https" {
        let detail = format!("'https' is the only allowed URL scheme{form}");
        causes.push(invalid(field, scheme, &detail));
    }
    if host.is_empty() {
        causes.push(invalid(field, host, &format!("host must be specified{form}")));
    }
    if let Some(user) = user {
        causes.push(invalid(field, user, "user information is not permitted in the URL"));
    }
    if !fragment.is_empty() {
        causes.push(invalid(field, fragment, "fragments are not permitted in the URL"));
    }
    if !query.is_empty() {
        causes.push(invalid(field, query, "query parameters are not permitted in the URL"));
    }
}

fn webhook_service(service: &Value, field: &str, causes: &mut Vec<Cause>) {
    for key in ["name", "namespace"] {
        if text(service, &format!("/{key}")).is_empty() {
            causes.push(Cause::required(&format!("{field}.{key}"), ""));
        }
    }
    if let Some(port) = service["port"].as_i64().filter(|port| !(1..=65535).contains(port)) {
        let detail = "port is not valid: must be between 1 and 65535, inclusive";
        causes.push(Cause::invalid(&format!("{field}.port"), &json!(port), detail));
    }
    let path = text(service, "/path");
    let field = format!("{field}.path");
    if path == "/" || path.is_empty() {
        return;
    }
    if path == "//" {
        causes.push(invalid(&field, path, "segment[0] may not be empty"));
        return;
    }
    if !path.starts_with('/') {
        causes.push(invalid(&field, path, "must start with a '/'"));
    }
    let mut characters = path.chars();
    characters.next();
    let segments = characters.as_str();
    for (at, segment) in segments.strip_suffix('/').unwrap_or(segments).split('/').enumerate() {
        if segment.is_empty() {
            causes.push(invalid(&field, path, &format!("segment[{at}] may not be empty")));
        } else if let Some(problem) = subdomain_problem(segment) {
            causes.push(invalid(&field, path, &format!("segment[{at}]: {problem}")));
        }
    }
}
