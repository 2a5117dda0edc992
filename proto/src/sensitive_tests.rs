//! Walks the descriptors of every message: whatever is marked `sensitive`, at any
//! depth, never appears in `Debug`.

use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, Value};

include!(concat!(env!("OUT_DIR"), "/debug_by_name.rs"));

const SENTINEL: &str = "s3ntinel-secret";

fn pool() -> DescriptorPool {
    DescriptorPool::decode(crate::FILE_DESCRIPTOR_SET).expect("descriptors decode")
}

fn is_sensitive(field: &FieldDescriptor) -> bool {
    let option = pool()
        .get_extension_by_name("actuator.v1.sensitive")
        .expect("the option is declared");
    // Options are read through the field's own pool.
    let option = field
        .parent_pool()
        .get_extension_by_name(option.full_name())
        .expect("same pool");
    field.options().get_extension(&option).as_ref() == &Value::Bool(true)
}

/// Fills every field: sensitive ones with the sentinel, and counts those.
fn filled(message: &MessageDescriptor, depth: usize, sensitive: &mut usize) -> DynamicMessage {
    let mut filled_message = DynamicMessage::new(message.clone());
    for field in message.fields() {
        // Of a oneof only one field can be set: the first, which is the one with the data.
        if field
            .containing_oneof()
            .is_some_and(|oneof| oneof.fields().next().as_ref() != Some(&field))
        {
            continue;
        }
        let secret = is_sensitive(&field);
        if let Some(value) = value_for(&field, secret, depth, sensitive) {
            filled_message.set_field(&field, value);
        }
    }
    filled_message
}

fn value_for(field: &FieldDescriptor, secret: bool, depth: usize, sensitive: &mut usize) -> Option<Value> {
    if field.is_map() {
        let Kind::Message(entry) = field.kind() else {
            return None;
        };
        let value = scalar_or_message(&entry.map_entry_value_field(), secret, depth, sensitive)?;
        let key = if secret { SENTINEL } else { "key" };
        return Some(Value::Map([(MapKey::String(key.into()), value)].into()));
    }
    let value = scalar_or_message(field, secret, depth, sensitive)?;
    Some(if field.is_list() {
        Value::List(vec![value])
    } else {
        value
    })
}

fn scalar_or_message(field: &FieldDescriptor, secret: bool, depth: usize, sensitive: &mut usize) -> Option<Value> {
    *sensitive += usize::from(secret);
    let text = if secret { SENTINEL } else { "plain" };
    Some(match field.kind() {
        Kind::Message(message) if depth < 8 => Value::Message(filled(&message, depth + 1, sensitive)),
        Kind::String => Value::String(text.into()),
        Kind::Bytes => Value::Bytes(text.as_bytes().to_vec().into()),
        _ => return None,
    })
}

#[test]
fn no_sensitive_field_appears_in_debug_of_any_message() {
    let (mut messages, mut secrets) = (0, 0);
    let sentinel_as_bytes = format!("{:?}", SENTINEL.as_bytes());
    for message in pool()
        .all_messages()
        .filter(|m| m.package_name().starts_with("actuator.") && !m.is_map_entry())
    {
        let mut sensitive = 0;
        let bytes = filled(&message, 0, &mut sensitive).encode_to_vec();
        let printed = debug_by_name(message.full_name(), &bytes)
            .unwrap_or_else(|| panic!("{} is not in the generated table", message.full_name()))
            .expect("decodes");
        assert!(!printed.contains(SENTINEL), "{} prints a secret", message.full_name());
        assert!(
            !printed.contains(sentinel_as_bytes.trim_matches(['[', ']'])),
            "{} prints a secret as bytes",
            message.full_name()
        );
        if sensitive > 0 {
            assert!(
                printed.contains("[redacted]"),
                "{} does not say that it hides something",
                message.full_name()
            );
        }
        messages += 1;
        secrets += sensitive;
    }
    assert!(messages > 70, "only {messages} messages were walked");
    assert!(secrets >= 15, "only {secrets} sensitive fields were met");
}

#[test]
fn what_smells_like_a_secret_is_marked() {
    // Bytes and maps of bytes in requests are secrets unless they are listed here.
    let public = [
        "json",
        "sha256",
        "digest",
        "provider_state",
        "observed_digest",
        "json_schema",
        "chunk",
    ];
    for message in pool()
        .all_messages()
        .filter(|m| m.package_name().starts_with("actuator.") && !m.is_map_entry())
    {
        for field in message.fields() {
            let bytes = match field.kind() {
                Kind::Bytes => true,
                Kind::Message(entry) if field.is_map() => entry.map_entry_value_field().kind() == Kind::Bytes,
                _ => false,
            };
            if bytes && !public.contains(&field.name()) {
                assert!(
                    is_sensitive(&field),
                    "{} carries bytes and is not marked sensitive",
                    field.full_name()
                );
            }
        }
    }
}
