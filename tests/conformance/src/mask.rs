//! Shows messages to people without their secrets, and finds secrets where none may be.

use std::sync::OnceLock;

use actuator_proto::Redacted;
use base64::Engine as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Value as Field};
use serde_json::{Map, Value};

/// As much of a text or of bytes is shown.
const SHOWN: usize = 300;

fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| DescriptorPool::decode(actuator_proto::FILE_DESCRIPTOR_SET).ok())
        .as_ref()
}

/// An encoded message of this full name, as JSON for people: what is marked sensitive is
/// masked, bytes that are text are shown as text, what is long is cut.
pub fn show(full_name: &str, encoded: &[u8]) -> String {
    let message = pool()
        .and_then(|pool| pool.get_message_by_name(full_name))
        .and_then(|descriptor| DynamicMessage::decode(descriptor, encoded).ok());
    match message {
        Some(message) => object(&message).to_string(),
        None => format!("{} bytes that are no {full_name}", encoded.len()),
    }
}

fn object(message: &DynamicMessage) -> Value {
    let mut shown = Map::new();
    for (field, value) in message.fields() {
        let value = if sensitive(&field) {
            Redacted.to_string().into()
        } else {
            plain(value, Some(&field))
        };
        shown.insert(field.name().to_owned(), value);
    }
    shown.into()
}

fn sensitive(field: &FieldDescriptor) -> bool {
    let Some(option) = pool().and_then(|pool| pool.get_extension_by_name("actuator.v1.sensitive")) else {
        // Without the option nothing is known to be harmless.
        return true;
    };
    let options = field.options();
    options.has_extension(&option) && options.get_extension(&option).as_bool() == Some(true)
}

fn plain(value: &Field, field: Option<&FieldDescriptor>) -> Value {
    match value {
        Field::Bool(value) => (*value).into(),
        Field::I32(value) => (*value).into(),
        Field::I64(value) => (*value).into(),
        Field::U32(value) => (*value).into(),
        Field::U64(value) => (*value).into(),
        Field::F32(value) => (*value).into(),
        Field::F64(value) => (*value).into(),
        Field::String(text) => cut(text).into(),
        Field::Bytes(bytes) => match std::str::from_utf8(bytes) {
            Ok(text)
                if !text
                    .chars()
                    .any(|character| character.is_control() && !character.is_whitespace()) =>
            {
                cut(text).into()
            }
            _ => cut(&format!("0x{}", hex::encode(&bytes[..bytes.len().min(SHOWN)]))).into(),
        },
        Field::EnumNumber(number) => field
            .and_then(|field| field.kind().as_enum().and_then(|kind| kind.get_value(*number)))
            .map_or_else(|| (*number).into(), |value| value.name().into()),
        Field::Message(message) => object(message),
        Field::List(items) => items.iter().map(|item| plain(item, field)).collect(),
        Field::Map(entries) => {
            let mut shown: Vec<(String, Value)> = entries
                .iter()
                .map(|(key, value)| (format!("{key:?}"), plain(value, None)))
                .collect();
            shown.sort_by(|left, right| left.0.cmp(&right.0));
            shown.into_iter().collect::<Map<_, _>>().into()
        }
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}… ({} bytes)", &text[..end], text.len()),
        None => text.to_owned(),
    }
}

/// The secrets of a run, to be found where they may not be.
#[derive(Default, Clone)]
pub struct Secrets(Vec<Vec<u8>>);

impl std::fmt::Debug for Secrets {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// Short values are no secrets: they would be found anywhere.
    const SHORTEST: usize = 8;

    /// Looks for this one too, plain, in base64 and in hexadecimal.
    pub fn add(&mut self, secret: &[u8]) {
        if secret.len() < Self::SHORTEST {
            return;
        }
        self.0.push(secret.to_vec());
        self.0.push(hex::encode(secret).into_bytes());
        // Base64 of a secret inside other data depends on where it begins.
        for shift in 0..3 {
            let mut shifted = vec![b'x'; shift];
            shifted.extend_from_slice(secret);
            let encoded = base64::engine::general_purpose::STANDARD_NO_PAD.encode(shifted);
            let middle = encoded.get(4..encoded.len().saturating_sub(2)).unwrap_or_default();
            if middle.len() >= Self::SHORTEST {
                self.0.push(middle.as_bytes().to_vec());
            }
        }
    }

    /// Whether one of them is in there.
    pub fn within(&self, bytes: &[u8]) -> bool {
        self.0
            .iter()
            .any(|secret| bytes.len() >= secret.len() && bytes.windows(secret.len()).any(|part| part == secret))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use actuator_proto::v1;
    use prost::Message as _;

    #[test]
    fn what_is_sensitive_is_masked_and_the_rest_is_readable() {
        let request = v1::CreateMachineRequest {
            meta: Some(v1::OperationMeta {
                idempotency_key: "k".to_owned(),
                ..Default::default()
            }),
            spec: Some(v1::MachineSpec {
                config: Some(v1::OpaqueConfig {
                    json: br#"{"size":"s"}"#.to_vec(),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            bootstrap: Some(v1::BootstrapData {
                data: b"#!/bin/hunter2".to_vec(),
                ..Default::default()
            }),
            credentials: Some(v1::Credentials {
                source: Some(v1::credentials::Source::Data(v1::CredentialData {
                    entries: [("token".to_owned(), b"hunter2".to_vec())].into(),
                })),
            }),
            ..Default::default()
        };
        let shown = show("actuator.v1.CreateMachineRequest", &request.encode_to_vec());
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(
            shown.contains("[redacted]") && shown.contains(r#"{\"size\":\"s\"}"#),
            "{shown}"
        );
    }

    #[test]
    fn secrets_are_found_in_disguise() {
        let mut secrets = Secrets::default();
        secrets.add(b"correct horse battery");
        for found in [
            b"xx correct horse battery yy".to_vec(),
            base64::engine::general_purpose::STANDARD
                .encode(b"a correct horse battery staple")
                .into_bytes(),
            hex::encode(b"correct horse battery").into_bytes(),
        ] {
            assert!(secrets.within(&found), "{}", String::from_utf8_lossy(&found));
        }
        assert!(!secrets.within(b"correct house battery"));
    }
}
