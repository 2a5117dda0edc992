//! Request bodies in protobuf, as clients written in Go send the built-in kinds: read into JSON values.
//!
//! The field numbers are a table made from the published definitions. Answers are never protobuf: clients take JSON.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::OnceLock;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value};

/// The media type.
pub const MEDIA_TYPE: &str = "application/vnd.kubernetes.protobuf";

const TABLE: &str = include_str!("messages.txt");
/// Every body starts with this.
const MAGIC: &[u8] = b"k8s\0";
/// No kind nests deeper.
const MAX_DEPTH: usize = 32;

/// Why a body could not be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtobufError {
    /// The body does not begin as all of them do.
    #[error("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")]
    Prefix,
    /// The body is not what the media type promises.
    #[error("the body is not Kubernetes protobuf: {0}")]
    Malformed(&'static str),
    /// The kind is not known in this form.
    #[error("objects of {0} are not read as protobuf, use JSON")]
    UnknownKind(String),
}

use ProtobufError::Malformed;

type Message = HashMap<u64, Field>;

struct Field {
    name: &'static str,
    label: Label,
    kind: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Label {
    One,
    Repeated,
    Map,
    /// The message's fields stand in its place.
    Inline,
}

fn table() -> &'static HashMap<&'static str, Message> {
    static MESSAGES: OnceLock<HashMap<&'static str, Message>> = OnceLock::new();
    MESSAGES.get_or_init(|| {
        let mut messages: HashMap<&'static str, Message> = HashMap::new();
        let mut current = "";
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let words: Vec<&'static str> = line.split_whitespace().collect();
            match words.as_slice() {
                [number, name, label, kind] => {
                    let label = match *label {
                        "repeated" => Label::Repeated,
                        "map" => Label::Map,
                        "inline" => Label::Inline,
                        _ => Label::One,
                    };
                    if let Ok(number) = number.parse() {
                        messages
                            .entry(current)
                            .or_default()
                            .insert(number, Field { name, label, kind });
                    }
                }
                [message] => {
                    current = message;
                    messages.entry(current).or_default();
                }
                _ => {}
            }
        }
        messages
    })
}

fn package_of(api_version: &str) -> &str {
    match api_version.split_once('/').map_or("", |(group, _)| group) {
        "" => "core",
        "events.k8s.io" => "events",
        "coordination.k8s.io" => "coordination",
        "rbac.authorization.k8s.io" => "rbac",
        "authorization.k8s.io" => "authorization",
        "authentication.k8s.io" => "authentication",
        "meta.k8s.io" => "meta",
        other => other,
    }
}

/// Reads a body: an envelope that names the kind, and the object.
pub fn decode(body: &[u8]) -> Result<Value, ProtobufError> {
    let envelope = body.strip_prefix(MAGIC).ok_or(ProtobufError::Prefix)?;
    let (mut api_version, mut kind, mut raw) = (String::new(), String::new(), &[][..]);
    let mut reader = Reader(envelope);
    while let Some((number, part)) = reader.field()? {
        match (number, part) {
            (1, Part::Bytes(types)) => {
                let mut types = Reader(types);
                while let Some((number, part)) = types.field()? {
                    match (number, part) {
                        (1, Part::Bytes(text)) => api_version = text_of(text)?,
                        (2, Part::Bytes(text)) => kind = text_of(text)?,
                        _ => {}
                    }
                }
            }
            (2, Part::Bytes(bytes)) => raw = bytes,
            _ => {}
        }
    }
    // Options of a deletion come in any group.
    let name = match kind.as_str() {
        "DeleteOptions" => "meta.DeleteOptions".to_owned(),
        _ => format!("{}.{kind}", package_of(&api_version)),
    };
    let unknown = || ProtobufError::UnknownKind(format!("{api_version}, {kind}"));
    let message = table().get(name.as_str()).ok_or_else(unknown)?;
    let mut object = Map::new();
    read_message(message, raw, &mut object, 0)?;
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Ok(Value::Object(object))
}

enum Part<'body> {
    Number(u64),
    Fixed(f64),
    Bytes(&'body [u8]),
}

struct Reader<'body>(&'body [u8]);

impl<'body> Reader<'body> {
    fn number(&mut self) -> Result<u64, ProtobufError> {
        let mut value = 0_u64;
        for at in 0..10 {
            let (byte, rest) = self.0.split_first().ok_or(Malformed("it ends in a number"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << (7 * at);
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Malformed("a number is too long"))
    }

    fn take(&mut self, length: u64) -> Result<&'body [u8], ProtobufError> {
        let length = usize::try_from(length).map_err(|_| Malformed("a length is too large"))?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("it ends in a field"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<Option<(u64, Part<'body>)>, ProtobufError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let key = self.number()?;
        let part = match key & 7 {
            0 => Part::Number(self.number()?),
            1 => {
                let bytes = self.take(8)?.try_into().map_err(|_| Malformed("it ends in a field"))?;
                Part::Fixed(f64::from_le_bytes(bytes))
            }
            2 => {
                let length = self.number()?;
                Part::Bytes(self.take(length)?)
            }
            5 => Part::Bytes(self.take(4)?),
            _ => return Err(Malformed("a field has an unknown wire type")),
        };
        Ok(Some((key >> 3, part)))
    }
}

fn text_of(bytes: &[u8]) -> Result<String, ProtobufError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| Malformed("a text is not UTF-8"))
}

fn read_message(
    message: &'static Message,
    bytes: &[u8],
    object: &mut Map<String, Value>,
    depth: usize,
) -> Result<(), ProtobufError> {
    if depth > MAX_DEPTH {
        return Err(Malformed("it nests too deeply"));
    }
    let mut reader = Reader(bytes);
    while let Some((number, part)) = reader.field()? {
        // Fields that are newer than the table are dropped, as an older server drops them.
        let Some(field) = message.get(&number) else { continue };
        match field.label {
            Label::Inline => {
                let (Part::Bytes(bytes), Some(inner)) = (part, table().get(field.kind)) else {
                    return Err(Malformed("a field has the wrong wire type"));
                };
                read_message(inner, bytes, object, depth + 1)?;
            }
            Label::One => match read_value(field.kind, part, depth)? {
                // Go writes absent texts as empty ones.
                Value::String(text) if text.is_empty() => {}
                Value::Null => {}
                value => {
                    // Go writes a generation that is not set as 0, and JSON leaves it out.
                    if field.name != "generation" || value != 0 {
                        object.insert(field.name.to_owned(), value);
                    }
                }
            },
            Label::Repeated => {
                let value = read_value(field.kind, part, depth)?;
                let list = object.entry(field.name).or_insert_with(|| Value::Array(Vec::new()));
                if let Some(list) = list.as_array_mut() {
                    list.push(value);
                }
            }
            Label::Map => {
                let Part::Bytes(bytes) = part else {
                    return Err(Malformed("a field has the wrong wire type"));
                };
                let (key, value) = read_entry(field.kind, bytes, depth)?;
                let map = object.entry(field.name).or_insert_with(|| Value::Object(Map::new()));
                if let Some(map) = map.as_object_mut() {
                    map.insert(key, value);
                }
            }
        }
    }
    Ok(())
}

fn read_entry(kind: &'static str, bytes: &[u8], depth: usize) -> Result<(String, Value), ProtobufError> {
    let (mut key, mut value) = (String::new(), Value::String(String::new()));
    let mut reader = Reader(bytes);
    while let Some((number, part)) = reader.field()? {
        match (number, part) {
            (1, Part::Bytes(text)) => key = text_of(text)?,
            (2, part) => value = read_value(kind, part, depth)?,
            _ => {}
        }
    }
    Ok((key, value))
}

fn read_value(kind: &'static str, part: Part<'_>, depth: usize) -> Result<Value, ProtobufError> {
    Ok(match (kind, part) {
        ("string", Part::Bytes(bytes)) => text_of(bytes)?.into(),
        ("bytes", Part::Bytes(bytes)) => STANDARD.encode(bytes).into(),
        ("bool", Part::Number(number)) => (number != 0).into(),
        ("int32" | "int64", Part::Number(number)) => (number as i64).into(),
        ("double", Part::Fixed(number)) => number.into(),
        ("meta.Time", Part::Bytes(bytes)) => read_time(bytes, false)?,
        ("meta.MicroTime", Part::Bytes(bytes)) => read_time(bytes, true)?,
        ("meta.FieldsV1" | "runtime.RawExtension", Part::Bytes(bytes)) => read_json(bytes)?,
        (kind, Part::Bytes(bytes)) => {
            let message = table().get(kind).ok_or(Malformed("a field has the wrong wire type"))?;
            let mut object = Map::new();
            read_message(message, bytes, &mut object, depth + 1)?;
            match kind {
                "resource.Quantity" => object.remove("string").unwrap_or_else(|| "0".into()),
                "intstr.IntOrString" => match object.get("type").and_then(Value::as_i64) {
                    Some(1) => object.remove("strVal").unwrap_or_else(|| "".into()),
                    _ => object.remove("intVal").unwrap_or_else(|| 0.into()),
                },
                "authentication.ExtraValue" | "authorization.ExtraValue" => {
                    object.remove("items").unwrap_or_else(|| Value::Array(Vec::new()))
                }
                _ => Value::Object(object),
            }
        }
        _ => return Err(Malformed("a field has the wrong wire type")),
    })
}

/// Seconds and nanoseconds; a time that is none is empty.
fn read_time(bytes: &[u8], micros: bool) -> Result<Value, ProtobufError> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    let (mut seconds, mut nanos) = (0_i64, 0_i32);
    let mut reader = Reader(bytes);
    while let Some((number, part)) = reader.field()? {
        match (number, part) {
            (1, Part::Number(number)) => seconds = number as i64,
            (2, Part::Number(number)) => nanos = number as i32,
            _ => {}
        }
    }
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|_| Malformed("a time is out of range"))?;
    let format = if micros {
        "%Y-%m-%dT%H:%M:%S%.6fZ"
    } else {
        "%Y-%m-%dT%H:%M:%SZ"
    };
    // The zero time of Go.
    Ok(if time.to_zoned(jiff::tz::TimeZone::UTC).year() <= 1 {
        Value::Null
    } else {
        time.strftime(format).to_string().into()
    })
}

fn read_json(bytes: &[u8]) -> Result<Value, ProtobufError> {
    let mut reader = Reader(bytes);
    while let Some((number, part)) = reader.field()? {
        if let (1, Part::Bytes(json)) = (number, part) {
            return serde_json::from_slice(json).map_err(|_| Malformed("a part in JSON cannot be read"));
        }
    }
    Ok(Value::Null)
}
