//! The v2 document in protobuf, as client-go reads it: the messages of gnostic's `openapiv2/OpenAPIv2.proto`.
//!
//! Only what the documents of this server say is written: no contacts, licences, tags, headers and examples.

use serde_json::{Map, Value};

/// Scalars and lists of texts of a schema, by field number.
const SCHEMA: &[(u64, &str)] = &[
    (1, "$ref"),
    (2, "format"),
    (3, "title"),
    (4, "description"),
    (6, "multipleOf"),
    (7, "maximum"),
    (8, "exclusiveMaximum"),
    (9, "minimum"),
    (10, "exclusiveMinimum"),
    (11, "maxLength"),
    (12, "minLength"),
    (13, "pattern"),
    (14, "maxItems"),
    (15, "minItems"),
    (16, "uniqueItems"),
    (17, "maxProperties"),
    (18, "minProperties"),
    (19, "required"),
    (26, "discriminator"),
    (27, "readOnly"),
];
const OPERATION: &[(u64, &str)] = &[
    (1, "tags"),
    (2, "summary"),
    (3, "description"),
    (5, "operationId"),
    (6, "produces"),
    (7, "consumes"),
    (10, "schemes"),
    (11, "deprecated"),
];
const METHODS: &[(u64, &str)] = &[
    (2, "get"),
    (3, "put"),
    (4, "post"),
    (5, "delete"),
    (6, "options"),
    (7, "head"),
    (8, "patch"),
];

/// The document in protobuf.
pub fn v2_protobuf(document: &Value) -> Vec<u8> {
    let mut message = Message::default();
    message.scalars(document, &[(1, "swagger"), (3, "host"), (4, "basePath")]);
    message.scalars(document, &[(5, "schemes"), (6, "consumes"), (7, "produces")]);
    if let Some(info) = document.get("info") {
        let mut inner = Message::default();
        inner.scalars(
            info,
            &[(1, "title"), (2, "version"), (3, "description"), (4, "termsOfService")],
        );
        inner.extensions(info, 7);
        message.message(2, &inner);
    }
    if let Some(paths) = document.get("paths") {
        let mut inner = Message::default();
        inner.extensions(paths, 1);
        for (path, item) in entries(paths).filter(|(path, _)| !is_extension(path)) {
            inner.named(2, path, &path_item(item));
        }
        message.message(8, &inner);
    }
    for (number, field, of) in [
        (9, "definitions", schema as fn(&Value) -> Message),
        (10, "parameters", parameter),
    ] {
        if let Some(map) = document.get(field) {
            message.message(number, &map_of(map, of));
        }
    }
    for requirement in elements(&document["security"]) {
        message.message(12, &map_of(requirement, texts));
    }
    if let Some(definitions) = document.get("securityDefinitions") {
        message.message(13, &map_of(definitions, security));
    }
    message.extensions(document, 16);
    message.0
}

fn path_item(item: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(item, &[(1, "$ref")]);
    for (number, method) in METHODS {
        if let Some(found) = item.get(method) {
            message.message(*number, &operation(found));
        }
    }
    for each in elements(&item["parameters"]) {
        message.message(9, &parameter_or_reference(each));
    }
    message.extensions(item, 10);
    message
}

fn operation(operation: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(operation, OPERATION);
    for each in elements(&operation["parameters"]) {
        message.message(8, &parameter_or_reference(each));
    }
    if let Some(responses) = operation.get("responses") {
        let mut inner = Message::default();
        for (code, response) in entries(responses).filter(|(code, _)| !is_extension(code)) {
            inner.named(1, code, &response_or_reference(response));
        }
        inner.extensions(responses, 2);
        message.message(9, &inner);
    }
    for requirement in elements(&operation["security"]) {
        message.message(12, &map_of(requirement, texts));
    }
    message.extensions(operation, 13);
    message
}

fn response_or_reference(response: &Value) -> Message {
    let mut message = Message::default();
    if response.get("$ref").is_some() {
        message.message(2, &reference(response));
        return message;
    }
    let mut inner = Message::default();
    inner.scalars(response, &[(1, "description")]);
    if let Some(found) = response.get("schema") {
        inner.message(2, &wrapped(1, &schema(found)));
    }
    inner.extensions(response, 5);
    message.message(1, &inner);
    message
}

fn reference(value: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(value, &[(1, "$ref"), (2, "description")]);
    message
}

fn parameter_or_reference(value: &Value) -> Message {
    if value.get("$ref").is_some() {
        wrapped(2, &reference(value))
    } else {
        wrapped(1, &parameter(value))
    }
}

/// A parameter is one of the body, or of one of four other places with almost the same fields.
fn parameter(parameter: &Value) -> Message {
    let mut message = Message::default();
    let place = match parameter["in"].as_str().unwrap_or_default() {
        "header" => 1,
        "formData" => 2,
        "query" => 3,
        "path" => 4,
        _ => {
            message.scalars(
                parameter,
                &[(1, "description"), (2, "name"), (3, "in"), (4, "required")],
            );
            if let Some(found) = parameter.get("schema") {
                message.message(5, &schema(found));
            }
            message.extensions(parameter, 6);
            return wrapped(1, &message);
        }
    };
    message.scalars(
        parameter,
        &[(1, "required"), (2, "in"), (3, "description"), (4, "name")],
    );
    let from = if matches!(place, 2 | 3) {
        message.scalars(parameter, &[(5, "allowEmptyValue")]);
        6
    } else {
        5
    };
    // From the type on, the fields stand in one order, though not at one number.
    message.scalars(
        parameter,
        &[(from, "type"), (from + 1, "format"), (from + 3, "collectionFormat")],
    );
    if let Some(items) = parameter.get("items") {
        message.message(from + 2, &primitive_items(items));
    }
    message.limits(parameter, from + 4);
    message.extensions(parameter, from + 17);
    wrapped(2, &wrapped(place, &message))
}

fn primitive_items(items: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(items, &[(1, "type"), (2, "format"), (4, "collectionFormat")]);
    if let Some(inner) = items.get("items") {
        message.message(3, &primitive_items(inner));
    }
    message.limits(items, 5);
    message.extensions(items, 18);
    message
}

fn schema(schema: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(schema, SCHEMA);
    if let Some(value) = schema.get("default") {
        message.message(5, &any(value));
    }
    for value in elements(&schema["enum"]) {
        message.message(20, &any(value));
    }
    match schema.get("additionalProperties") {
        None => {}
        Some(Value::Bool(allowed)) => {
            let mut inner = Message::default();
            inner.number(2, u64::from(*allowed));
            message.message(21, &inner);
        }
        Some(inner) => message.message(21, &wrapped(1, &self::schema(inner))),
    }
    if let Some(kind) = schema.get("type") {
        message.message(22, &texts(kind));
    }
    if let Some(items) = schema.get("items") {
        let mut inner = Message::default();
        for item in one_or_more(items) {
            inner.message(1, &self::schema(item));
        }
        message.message(23, &inner);
    }
    for part in elements(&schema["allOf"]) {
        message.message(24, &self::schema(part));
    }
    if let Some(properties) = schema.get("properties") {
        message.message(25, &map_of(properties, self::schema));
    }
    if let Some(found) = schema.get("externalDocs") {
        let mut inner = Message::default();
        inner.scalars(found, &[(1, "description"), (2, "url")]);
        inner.extensions(found, 3);
        message.message(29, &inner);
    }
    if let Some(value) = schema.get("example") {
        message.message(30, &any(value));
    }
    message.extensions(schema, 31);
    message
}

/// The only way in is a key in a header.
fn security(definition: &Value) -> Message {
    let mut message = Message::default();
    message.scalars(definition, &[(1, "type"), (2, "name"), (3, "in"), (4, "description")]);
    message.extensions(definition, 5);
    wrapped(2, &message)
}

fn texts(value: &Value) -> Message {
    let mut message = Message::default();
    for text in one_or_more(value).filter_map(Value::as_str) {
        message.bytes(1, text.as_bytes());
    }
    message
}

/// Any value, as YAML; JSON is YAML.
fn any(value: &Value) -> Message {
    let mut message = Message::default();
    message.bytes(2, value.to_string().as_bytes());
    message
}

fn map_of(map: &Value, of: fn(&Value) -> Message) -> Message {
    let mut message = Message::default();
    for (name, value) in entries(map) {
        message.named(1, name, &of(value));
    }
    message
}

fn wrapped(number: u64, inner: &Message) -> Message {
    let mut message = Message::default();
    message.message(number, inner);
    message
}

fn is_extension(key: &str) -> bool {
    key.starts_with("x-")
}

fn entries(value: &Value) -> impl Iterator<Item = (&String, &Value)> {
    value.as_object().into_iter().flat_map(Map::iter)
}

fn elements(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn one_or_more(value: &Value) -> impl Iterator<Item = &Value> {
    let list = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
    list.iter()
}

/// A message as it is written.
#[derive(Default)]
struct Message(Vec<u8>);

impl Message {
    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push((value & 0x7f) as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }

    fn number(&mut self, number: u64, value: u64) {
        self.varint(number << 3);
        self.varint(value);
    }

    fn double(&mut self, number: u64, value: f64) {
        self.varint(number << 3 | 1);
        self.0.extend_from_slice(&value.to_le_bytes());
    }

    fn bytes(&mut self, number: u64, bytes: &[u8]) {
        self.varint(number << 3 | 2);
        self.varint(bytes.len() as u64);
        self.0.extend_from_slice(bytes);
    }

    fn message(&mut self, number: u64, inner: &Self) {
        self.bytes(number, &inner.0);
    }

    /// An entry of a map.
    fn named(&mut self, number: u64, name: &str, value: &Self) {
        let mut entry = Self::default();
        if !name.is_empty() {
            entry.bytes(1, name.as_bytes());
        }
        entry.message(2, value);
        self.message(number, &entry);
    }

    /// Texts, numbers, flags and lists of texts; what is empty is not written.
    fn scalars(&mut self, from: &Value, fields: &[(u64, &str)]) {
        for (number, name) in fields {
            match &from[*name] {
                Value::String(text) if !text.is_empty() => self.bytes(*number, text.as_bytes()),
                Value::Bool(true) => self.number(*number, 1),
                Value::Number(value) => {
                    let real = value.as_f64().unwrap_or_default();
                    if real != 0.0 {
                        match (*name, value.as_i64()) {
                            ("multipleOf" | "maximum" | "minimum", _) | (_, None) => self.double(*number, real),
                            // Two's complement, as protobuf has it.
                            (_, Some(whole)) => self.number(*number, whole as u64),
                        }
                    }
                }
                Value::Array(items) => {
                    for text in items.iter().filter_map(Value::as_str) {
                        self.bytes(*number, text.as_bytes());
                    }
                }
                _ => {}
            }
        }
    }

    /// What parameters and their items may be: thirteen fields in one order, from a number on.
    fn limits(&mut self, from: &Value, first: u64) {
        let fields = [
            "maximum",
            "exclusiveMaximum",
            "minimum",
            "exclusiveMinimum",
            "maxLength",
            "minLength",
            "pattern",
            "maxItems",
            "minItems",
            "uniqueItems",
        ];
        if let Some(value) = from.get("default") {
            self.message(first, &any(value));
        }
        for (number, name) in (first + 1..).zip(fields) {
            self.scalars(from, &[(number, name)]);
        }
        for value in elements(&from["enum"]) {
            self.message(first + 11, &any(value));
        }
        self.scalars(from, &[(first + 12, "multipleOf")]);
    }

    fn extensions(&mut self, from: &Value, number: u64) {
        for (name, value) in entries(from).filter(|(name, _)| is_extension(name)) {
            self.named(number, name, &any(value));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Reads a message back: number and bytes of each field.
    fn read(mut bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
        let mut found = Vec::new();
        let varint = |bytes: &mut &[u8]| {
            let mut value = 0;
            for at in 0.. {
                let (byte, rest) = bytes.split_first().unwrap();
                *bytes = rest;
                value |= u64::from(byte & 0x7f) << (7 * at);
                if byte & 0x80 == 0 {
                    break;
                }
            }
            value
        };
        while !bytes.is_empty() {
            let key = varint(&mut bytes);
            let length = match key & 7 {
                0 => {
                    let value = varint(&mut bytes);
                    found.push((key >> 3, value.to_string().into_bytes()));
                    continue;
                }
                1 => 8,
                2 => varint(&mut bytes) as usize,
                other => panic!("wire type {other}"),
            };
            let (taken, rest) = bytes.split_at(length);
            found.push((key >> 3, taken.to_vec()));
            bytes = rest;
        }
        found
    }

    fn field(bytes: &[u8], number: u64) -> Vec<u8> {
        let found = read(bytes).into_iter().find(|(found, _)| *found == number);
        found.unwrap_or_else(|| panic!("no field {number}")).1
    }

    #[test]
    fn a_definition_with_its_extension() {
        let document = json!({
            "swagger": "2.0",
            "definitions": { "io.A": {
                "type": "object",
                "properties": { "many": { "type": "array", "maxItems": 300, "items": { "$ref": "#/definitions/io.B" } } },
                "x-kubernetes-group-version-kind": [{ "group": "", "kind": "A", "version": "v1" }],
            } },
        });
        let bytes = v2_protobuf(&document);
        assert_eq!(field(&bytes, 1), b"2.0");
        let entry = field(&field(&bytes, 9), 1);
        assert_eq!(field(&entry, 1), b"io.A");
        let schema = field(&entry, 2);
        assert_eq!(field(&field(&schema, 22), 1), b"object");
        let extension = field(&schema, 31);
        assert_eq!(field(&extension, 1), b"x-kubernetes-group-version-kind");
        assert_eq!(
            field(&field(&extension, 2), 2),
            br#"[{"group":"","kind":"A","version":"v1"}]"#
        );
        let property = field(&field(&schema, 25), 1);
        assert_eq!(field(&property, 1), b"many");
        let many = field(&property, 2);
        assert_eq!(field(&many, 14), b"300");
        assert_eq!(field(&field(&field(&many, 23), 1), 1), b"#/definitions/io.B");
    }

    #[test]
    fn parameters_by_their_place() {
        let body = parameter(&json!({ "in": "body", "name": "body", "schema": {} })).0;
        assert_eq!(field(&field(&body, 1), 2), b"body");
        let query = parameter(&json!({ "in": "query", "name": "q", "type": "string", "uniqueItems": true })).0;
        let query = field(&field(&query, 2), 3);
        assert_eq!(
            (field(&query, 6), field(&query, 20)),
            (b"string".to_vec(), b"1".to_vec())
        );
        let path = parameter(&json!({ "in": "path", "name": "p", "type": "string", "required": true })).0;
        let path = field(&field(&path, 2), 4);
        assert_eq!((field(&path, 1), field(&path, 5)), (b"1".to_vec(), b"string".to_vec()));
    }

    #[test]
    fn what_may_be_false_is_written() {
        let closed = schema(&json!({ "additionalProperties": false, "minimum": 1 })).0;
        assert_eq!(field(&field(&closed, 21), 2), b"0");
        assert_eq!(field(&closed, 9), 1.0_f64.to_le_bytes());
    }
}
