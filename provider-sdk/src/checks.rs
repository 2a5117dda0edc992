//! The rules that every request must keep before a provider sees it: required fields,
//! sizes, formats. All that is wrong is told at once, with its path.
//!
//! Not for: what is inside a config (see `config`).

use actuator_proto::digest::sha256;
use actuator_proto::errors::ActuatorError;
use actuator_proto::limits::{
    MAX_PAGE_ITEMS, MAX_PROVIDER_ID_BYTES, MAX_PROVIDER_STATE_BYTES, MAX_STRING_BYTES, bounded_text,
};
use actuator_proto::v1::{self, ErrorReason};
use actuator_proto::{key, limits};

use crate::bootstrap::Bootstrap;
use crate::info::ProviderInfo;
use crate::request::{PageRequest, Resource};

/// How long a digest is, in bytes.
const DIGEST_BYTES: usize = 32;

/// Collects what is wrong with a request.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    found: Vec<(ErrorReason, String, String)>,
}

impl Checks {
    pub(crate) fn report(&mut self, reason: ErrorReason, field: &str, words: impl Into<String>) {
        if self.found.len() < limits::MAX_DIAGNOSTICS {
            self.found.push((reason, field.to_owned(), words.into()));
        }
    }

    fn invalid(&mut self, field: &str, words: impl Into<String>) {
        self.report(ErrorReason::InvalidField, field, words);
    }

    /// All in one error, whose reason is that of the first; nothing was done.
    pub(crate) fn finish(self) -> Result<(), ActuatorError> {
        let Some((reason, field, words)) = self.found.first() else {
            return Ok(());
        };
        let more = match self.found.len() {
            1 => String::new(),
            number => format!(" (and {} more)", number - 1),
        };
        let message = format!("{field}: {words}{more}");
        let error = ActuatorError::new(*reason, message);
        Err(self
            .found
            .into_iter()
            .fold(error, |error, (_, field, words)| error.with_field(field, words)))
    }

    /// A plain string within its bound.
    pub(crate) fn text(&mut self, field: &str, value: &str) {
        if value.len() > MAX_STRING_BYTES {
            self.report(
                ErrorReason::LimitExceeded,
                field,
                format!("has {} bytes; at most {MAX_STRING_BYTES} are allowed", value.len()),
            );
        }
    }

    /// A string that must be there.
    pub(crate) fn required_text(&mut self, field: &str, value: &str) {
        if value.is_empty() {
            self.invalid(field, "is required and missing");
        }
        self.text(field, value);
    }

    fn key(&mut self, field: &str, value: &str) {
        if let Err(invalid) = key::validate(value) {
            self.invalid(field, invalid.to_string());
        }
    }

    pub(crate) fn meta(&mut self, meta: Option<v1::OperationMeta>) -> v1::OperationMeta {
        let Some(meta) = meta else {
            self.invalid("meta", "is required and missing");
            return v1::OperationMeta::default();
        };
        self.key("meta.idempotency_key", &meta.idempotency_key);
        if meta.generation < 0 {
            self.invalid("meta.generation", "must not be negative");
        }
        if meta.fencing_epoch < 0 {
            self.invalid("meta.fencing_epoch", "must not be negative");
        }
        meta
    }

    pub(crate) fn ownership(&mut self, field: &str, ownership: Option<v1::Ownership>) -> v1::Ownership {
        let Some(ownership) = ownership else {
            self.invalid(field, "is required and missing");
            return v1::Ownership::default();
        };
        self.required_text(
            &format!("{field}.management_cluster_id"),
            &ownership.management_cluster_id,
        );
        self.required_text(&format!("{field}.cluster_uid"), &ownership.cluster_uid);
        self.required_text(&format!("{field}.object_uid"), &ownership.object_uid);
        self.text(&format!("{field}.namespace"), &ownership.namespace);
        self.text(&format!("{field}.cluster_name"), &ownership.cluster_name);
        self.text(&format!("{field}.object_name"), &ownership.object_name);
        ownership
    }

    /// A resource. `prefix` is what its `provider_id` must begin with, `key` what its key
    /// must be.
    pub(crate) fn resource(
        &mut self,
        field: &str,
        reference: Option<v1::ResourceRef>,
        prefix: &str,
        key: Option<&str>,
    ) -> Resource {
        let Some(reference) = reference else {
            self.invalid(field, "is required and missing");
            return Resource {
                ownership: v1::Ownership::default(),
                key: String::new(),
                provider_id: None,
            };
        };
        let ownership = self.ownership(&format!("{field}.ownership"), reference.ownership);
        let key_field = format!("{field}.idempotency_key");
        self.key(&key_field, &reference.idempotency_key);
        if key.is_some_and(|key| key != reference.idempotency_key) {
            self.invalid(&key_field, "must be the same as meta.idempotency_key");
        }
        self.provider_id(&format!("{field}.provider_id"), &reference.provider_id, prefix);
        Resource {
            ownership,
            key: reference.idempotency_key,
            provider_id: non_empty(reference.provider_id),
        }
    }

    pub(crate) fn provider_id(&mut self, field: &str, id: &str, prefix: &str) {
        if id.is_empty() {
            return;
        }
        let words = if id.len() > MAX_PROVIDER_ID_BYTES {
            format!("has {} bytes; at most {MAX_PROVIDER_ID_BYTES} are allowed", id.len())
        } else if id.chars().any(char::is_control) {
            "contains control characters".to_owned()
        } else if !id.starts_with(prefix) {
            format!("must begin with {prefix:?}, this provider makes no other")
        } else {
            return;
        };
        self.report(ErrorReason::MalformedProviderId, field, words);
    }

    pub(crate) fn digest(&mut self, field: &str, digest: &[u8]) {
        if digest.len() != DIGEST_BYTES {
            self.invalid(
                field,
                format!(
                    "has {} bytes; it must be the {DIGEST_BYTES} bytes of a SHA-256",
                    digest.len()
                ),
            );
        }
    }

    pub(crate) fn provider_state(&mut self, state: &[u8]) {
        if state.len() > MAX_PROVIDER_STATE_BYTES {
            self.report(
                ErrorReason::LimitExceeded,
                "provider_state",
                format!(
                    "has {} bytes; at most {MAX_PROVIDER_STATE_BYTES} are allowed",
                    state.len()
                ),
            );
        }
    }

    pub(crate) fn endpoint(&mut self, field: &str, endpoint: &v1::Endpoint) {
        self.required_text(&format!("{field}.host"), &endpoint.host);
        if !(1..=65535).contains(&endpoint.port) {
            self.invalid(&format!("{field}.port"), "must be 1 to 65535");
        }
    }

    pub(crate) fn bootstrap(&mut self, data: Option<v1::BootstrapData>, info: &ProviderInfo) -> Option<Bootstrap> {
        let bootstrap = data?;
        let (bytes, most) = (bootstrap.data.len(), info.limits.max_bootstrap_bytes);
        if bytes > most {
            self.report(
                ErrorReason::BootstrapTooLarge,
                "bootstrap.data",
                format!("has {bytes} bytes; the cloud takes at most {most}"),
            );
            // Nothing else about it matters, and hashing it would be for nothing.
            return None;
        }
        if bootstrap.sha256 != sha256(&bootstrap.data) {
            self.invalid("bootstrap.sha256", "must be the SHA-256 of data, 32 bytes");
        }
        let format = v1::BootstrapFormat::try_from(bootstrap.format).ok();
        let known = format
            .filter(|format| *format == v1::BootstrapFormat::Unspecified || info.bootstrap_formats.contains(format));
        if known.is_none() {
            let formats: Vec<&str> = info
                .bootstrap_formats
                .iter()
                .map(v1::BootstrapFormat::as_str_name)
                .collect();
            self.invalid("bootstrap.format", format!("must be one of {}", formats.join(", ")));
        }
        Some(Bootstrap::new(bootstrap.data, known.unwrap_or_default()))
    }

    pub(crate) fn page(&mut self, page: Option<v1::PageRequest>, info: &ProviderInfo) -> PageRequest {
        let page = page.unwrap_or_default();
        if page.page_size < 0 {
            self.invalid("page.page_size", "must not be negative");
        }
        if page.page_size > MAX_PAGE_ITEMS as i32 {
            self.report(
                ErrorReason::LimitExceeded,
                "page.page_size",
                format!("is {}; at most {MAX_PAGE_ITEMS} are allowed", page.page_size),
            );
        }
        self.text("page.page_token", &page.page_token);
        let most = info.limits.max_page_size;
        let size = match usize::try_from(page.page_size) {
            Ok(0) | Err(_) => most,
            Ok(asked) => asked.min(most),
        };
        PageRequest {
            size,
            token: non_empty(page.page_token),
        }
    }

    pub(crate) fn members(&mut self, members: &[v1::EndpointMember], prefix: &str, most: i32) {
        if most > 0 && members.len() > most as usize {
            self.report(
                ErrorReason::LimitExceeded,
                "members",
                format!("are {}; the endpoint takes at most {most}", members.len()),
            );
        }
        let mut keys = std::collections::HashSet::new();
        for (index, member) in members.iter().enumerate() {
            let field = format!("members[{index}].idempotency_key");
            self.key(&field, &member.idempotency_key);
            if !keys.insert(member.idempotency_key.as_str()) {
                self.invalid(&field, "stands in the set more than once");
            }
            self.provider_id(&format!("members[{index}].provider_id"), &member.provider_id, prefix);
        }
    }
}

/// `None` for an empty string.
pub(crate) fn non_empty(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// What is wrong with what a provider says about itself; `None` when all is well.
pub(crate) fn provider_info(info: &ProviderInfo) -> Option<String> {
    let name = &info.name;
    let label = !name.is_empty()
        && name.len() <= 63
        && name
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        && !name.starts_with('-')
        && !name.ends_with('-');
    if !label {
        return Some(format!("the name {name:?} is not a DNS label of at most 63 bytes"));
    }
    if info.version.is_empty() || info.version.len() > MAX_STRING_BYTES {
        return Some("the version must have 1 to 256 bytes".to_owned());
    }
    if info.provider_id_prefix.is_empty() || info.provider_id_prefix.len() > MAX_STRING_BYTES {
        return Some("the provider_id prefix must have 1 to 256 bytes".to_owned());
    }
    let limits = info.limits;
    if !(1..=MAX_PAGE_ITEMS).contains(&limits.max_page_size) {
        return Some(format!("limits.max_page_size must be 1 to {MAX_PAGE_ITEMS}"));
    }
    if limits.max_bootstrap_bytes > limits::MAX_BOOTSTRAP_BYTES {
        return Some("limits.max_bootstrap_bytes must be at most 1 MiB".to_owned());
    }
    if !(1..=MAX_MUTATIONS).contains(&limits.max_concurrent_mutations) {
        return Some(format!("limits.max_concurrent_mutations must be 1 to {MAX_MUTATIONS}"));
    }
    let long = info
        .credential_keys
        .iter()
        .find(|key| key.name.is_empty() || key.name.len() > MAX_STRING_BYTES);
    long.map(|key| {
        format!(
            "the credential key {:?} must have 1 to 256 bytes",
            bounded_text(&key.name, 32)
        )
    })
}

/// The most mutations that any provider may run at a time.
pub(crate) const MAX_MUTATIONS: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    fn ownership() -> v1::Ownership {
        v1::Ownership {
            management_cluster_id: "m".into(),
            cluster_uid: "c".into(),
            object_uid: "o".into(),
            ..Default::default()
        }
    }

    fn reference(provider_id: &str) -> v1::ResourceRef {
        v1::ResourceRef {
            ownership: Some(ownership()),
            idempotency_key: "key".into(),
            provider_id: provider_id.into(),
        }
    }

    fn reason_of(check: impl FnOnce(&mut Checks)) -> Option<ErrorReason> {
        let mut checks = Checks::default();
        check(&mut checks);
        checks.finish().err().map(|error| error.reason())
    }

    #[test]
    fn all_that_is_wrong_is_told_with_its_path() {
        let mut checks = Checks::default();
        checks.meta(None);
        checks.ownership("ownership", Some(v1::Ownership::default()));
        let status: tonic::Status = checks.finish().expect_err("wrong").into();
        let error = actuator_proto::errors::Classified::from_status(&status);
        let fields: Vec<&str> = error.fields.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "meta",
                "ownership.management_cluster_id",
                "ownership.cluster_uid",
                "ownership.object_uid"
            ]
        );
        assert!(error.is_final());
    }

    #[test]
    fn provider_ids_that_cannot_be_ours_are_malformed() {
        for id in ["aws:///i-1", &format!("fake:///{}", "x".repeat(512)), "fake:///\u{7}"] {
            let reason = reason_of(|checks| {
                checks.resource("ref", Some(reference(id)), "fake:///", Some("key"));
            });
            assert_eq!(reason, Some(ErrorReason::MalformedProviderId), "{id}");
        }
        for id in ["", "fake:///zone/i-1"] {
            let reason = reason_of(|checks| {
                checks.resource("ref", Some(reference(id)), "fake:///", Some("key"));
            });
            assert_eq!(reason, None, "{id}");
        }
    }

    #[test]
    fn the_two_keys_of_a_request_are_the_same() {
        let reason = reason_of(|checks| {
            checks.resource("ref", Some(reference("")), "fake:///", Some("other"));
        });
        assert_eq!(reason, Some(ErrorReason::InvalidField));
    }

    #[test]
    fn bootstrap_data_is_judged_by_size_digest_and_format() {
        let mut info = ProviderInfo::new("fake", "1", "fake:///");
        info.limits.max_bootstrap_bytes = 4;
        info.bootstrap_formats = vec![v1::BootstrapFormat::CloudConfig];
        let data = |data: &[u8], format: i32| v1::BootstrapData {
            data: data.to_vec(),
            format,
            sha256: sha256(data),
        };
        let reason = |data: v1::BootstrapData| {
            reason_of(|checks| {
                checks.bootstrap(Some(data), &info);
            })
        };
        assert_eq!(reason(data(b"1234", 1)), None);
        assert_eq!(reason(data(b"1234", 0)), None);
        assert_eq!(reason(data(b"12345", 1)), Some(ErrorReason::BootstrapTooLarge));
        assert_eq!(reason(data(b"1234", 2)), Some(ErrorReason::InvalidField));
        assert_eq!(reason(data(b"1234", 77)), Some(ErrorReason::InvalidField));
        let mut wrong = data(b"1234", 1);
        wrong.sha256 = sha256(b"other");
        assert_eq!(reason(wrong), Some(ErrorReason::InvalidField));
    }

    #[test]
    fn pages_are_bounded_by_the_protocol_and_by_the_provider() {
        let mut info = ProviderInfo::new("fake", "1", "fake:///");
        info.limits.max_page_size = 50;
        let size = |asked: i32| {
            let page = v1::PageRequest {
                page_size: asked,
                ..Default::default()
            };
            let mut checks = Checks::default();
            let page = checks.page(Some(page), &info);
            checks.finish().map(|()| page.size).map_err(|error| error.reason())
        };
        assert_eq!(size(0), Ok(50));
        assert_eq!(size(10), Ok(10));
        assert_eq!(size(500), Ok(50));
        assert_eq!(size(501), Err(ErrorReason::LimitExceeded));
        assert_eq!(size(-1), Err(ErrorReason::InvalidField));
    }

    #[test]
    fn a_provider_that_describes_itself_badly_is_told() {
        let good = ProviderInfo::new("fake", "1", "fake:///");
        assert_eq!(provider_info(&good), None);
        for name in ["", "Fake", "-a", "a.b", &"a".repeat(64)] {
            let mut info = good.clone();
            info.name = name.into();
            assert!(provider_info(&info).is_some(), "{name}");
        }
        let mut info = good.clone();
        info.limits.max_concurrent_mutations = 0;
        assert!(provider_info(&info).is_some());
        let mut info = good;
        info.limits.max_page_size = 501;
        assert!(provider_info(&info).is_some());
    }
}
