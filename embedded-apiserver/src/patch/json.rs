//! JSON patches (RFC 6902), with the liberties that the real server's library takes: indices from the end, `replace`
//! of what is not there, absent values that are null.

use serde_json::{Map, Value};

use super::{PatchError, Patched, decoding};
use crate::deep;
use crate::schema::{decode_exact, go_kind};

/// The most operations of a JSON patch.
pub(super) const MAX_OPERATIONS: usize = 10_000;
/// How many bytes `copy` operations may add together: as much as a request may have.
const MAX_COPIED_BYTES: usize = 3 * 1024 * 1024;
/// The members of an operation.
const MEMBERS: [&str; 4] = ["op", "path", "from", "value"];

/// Applies an RFC 6902 patch.
pub fn json_patch(live: &Value, patch: &[u8]) -> Result<Patched, PatchError> {
    let (decoded, duplicates) = decode_exact(patch).map_err(decoding)?;
    let mut strict_findings = duplicates;
    let operations = match decoded {
        Value::Array(operations) => operations,
        Value::Null => Vec::new(),
        other => {
            return Err(PatchError::BadRequest(format!(
                "error decoding patch: json: cannot unmarshal {} into Go value of type []handlers.jsonPatchOp",
                go_kind(&other)
            )));
        }
    };
    let mut read = Vec::with_capacity(operations.len());
    for (at, operation) in operations.into_iter().enumerate() {
        let operation = match operation {
            Value::Object(operation) => operation,
            Value::Null => Map::new(),
            other => {
                return Err(PatchError::BadRequest(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go value of type handlers.jsonPatchOp",
                    go_kind(&other)
                )));
            }
        };
        for member in ["op", "path", "from"] {
            if let Some(wrong) = operation
                .get(member)
                .filter(|value| !value.is_string() && !value.is_null())
            {
                return Err(PatchError::BadRequest(format!(
                    "error decoding patch: json: cannot unmarshal {} into Go struct field jsonPatchOp.{member} of type string",
                    go_kind(wrong)
                )));
            }
        }
        let unknown = operation.keys().filter(|key| !MEMBERS.contains(&key.as_str()));
        strict_findings.extend(unknown.map(|key| format!("unknown field \"[{at}].{key}\"")));
        read.push(operation);
    }
    if read.len() > MAX_OPERATIONS {
        return Err(PatchError::TooLarge(format!(
            "The allowed maximum operations in a JSON patch is {MAX_OPERATIONS}, got {}",
            read.len()
        )));
    }
    let mut document = Document {
        root: live.clone(),
        copied: 0,
    };
    for operation in read {
        document.apply(operation)?;
    }
    Ok(Patched {
        object: document.root,
        strict_findings: strict_findings
            .into_iter()
            .map(|finding| format!("json patch {finding}"))
            .collect(),
    })
}

struct Document {
    root: Value,
    copied: usize,
}

impl Document {
    fn apply(&mut self, mut operation: Map<String, Value>) -> Result<(), PatchError> {
        // An absent value is null.
        let value = operation.remove("value").unwrap_or_default();
        let text = |member: &str| {
            let found = operation.get(member).and_then(Value::as_str);
            found.ok_or_else(|| PatchError::invalid(format!("operation without {member}")))
        };
        match operation.get("op").and_then(Value::as_str).unwrap_or("unknown") {
            "add" => self.add(text("path")?, value),
            "remove" => self.remove(text("path")?).map(drop),
            "replace" => self.replace(text("path")?, value),
            "test" => self.test(text("path")?, &value),
            "move" => {
                let moved = self.get(text("from")?)?;
                self.remove(text("from")?)?;
                self.add(text("path")?, moved)
            }
            "copy" => {
                let copied = self.get(text("from")?)?;
                let path = text("path")?;
                self.copied += size(&copied);
                if self.copied > MAX_COPIED_BYTES {
                    return Err(PatchError::invalid(format!(
                        "Unable to complete the copy, the accumulated size increase of copy is {}, exceeding the \
                         limit {MAX_COPIED_BYTES}",
                        self.copied
                    )));
                }
                self.add(path, copied)
            }
            other => Err(PatchError::invalid(format!("Unexpected kind: {other}"))),
        }
    }

    /// What holds the last part of a path, and that part.
    fn place(&mut self, path: &str) -> Result<(&mut Value, String), PatchError> {
        let missing = || PatchError::invalid(format!("doc is missing path: {path}"));
        let mut parts: Vec<String> = path
            .split('/')
            .skip(1)
            .map(|part| part.replace("~1", "/").replace("~0", "~"))
            .collect();
        let last = parts.pop().ok_or_else(missing)?;
        let mut place = &mut self.root;
        for part in parts {
            place = match place {
                Value::Object(map) => map.get_mut(&part).ok_or_else(missing)?,
                Value::Array(items) => {
                    let at = index(&part, items.len())?;
                    items.get_mut(at).ok_or_else(missing)?
                }
                _ => return Err(missing()),
            };
        }
        if !place.is_object() && !place.is_array() {
            return Err(missing());
        }
        Ok((place, last))
    }

    fn get(&mut self, path: &str) -> Result<Value, PatchError> {
        match self.place(path)? {
            (Value::Object(map), key) => Ok(map.get(&key).cloned().unwrap_or_default()),
            (Value::Array(items), key) => {
                let at = index(&key, items.len())?;
                Ok(items.get(at).cloned().unwrap_or_default())
            }
            _ => Ok(Value::Null),
        }
    }

    fn add(&mut self, path: &str, value: Value) -> Result<(), PatchError> {
        bound(path, &value)?;
        match self.place(path)? {
            (Value::Object(map), key) => {
                map.insert(key, value);
            }
            (Value::Array(items), key) if key == "-" => items.push(value),
            (Value::Array(items), key) => {
                let at = index(&key, items.len() + 1)?;
                items.insert(at, value);
            }
            _ => {}
        }
        Ok(())
    }

    fn remove(&mut self, path: &str) -> Result<(), PatchError> {
        match self.place(path)? {
            (Value::Object(map), key) => {
                let gone = map.remove(&key);
                gone.map(drop)
                    .ok_or_else(|| PatchError::invalid(format!("unable to remove nonexistent key: {key}")))
            }
            (Value::Array(items), key) => {
                let at = index(&key, items.len())?;
                items.remove(at);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn replace(&mut self, path: &str, value: Value) -> Result<(), PatchError> {
        bound(path, &value)?;
        if path.is_empty() {
            if value.is_object() || value.is_array() {
                self.root = value;
            }
            return Ok(());
        }
        match self.place(path)? {
            (Value::Object(map), key) => {
                map.insert(key, value);
            }
            (Value::Array(items), key) => {
                let at = index(&key, items.len())?;
                if let Some(item) = items.get_mut(at) {
                    *item = value;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn test(&mut self, path: &str, value: &Value) -> Result<(), PatchError> {
        let holds = if path.is_empty() {
            self.root == *value
        } else {
            self.get(path)? == *value
        };
        if holds {
            Ok(())
        } else {
            Err(PatchError::invalid(format!("testing value {path} failed: test failed")))
        }
    }
}

/// The index that a part of a path names; from the end if negative.
fn index(part: &str, length: usize) -> Result<usize, PatchError> {
    let refused = || {
        PatchError::invalid(format!(
            "Unable to access invalid index: {part}: invalid index referenced"
        ))
    };
    let index: i64 = part.parse().map_err(|_| refused())?;
    let length = i64::try_from(length).map_err(|_| refused())?;
    let index = if index < 0 { index + length } else { index };
    if index >= length {
        return Err(refused());
    }
    usize::try_from(index).map_err(|_| refused())
}

/// Refuses values that would make the object too deep.
fn bound(path: &str, value: &Value) -> Result<(), PatchError> {
    if path.split('/').count() + depth(value) > deep::limit() {
        return Err(PatchError::invalid("exceeded max depth"));
    }
    Ok(())
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Object(map) => 1 + map.values().map(depth).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::Object(map) => {
            2 + map
                .iter()
                .map(|(key, value)| key.len() + 4 + size(value))
                .sum::<usize>()
        }
        Value::Array(items) => 2 + items.iter().map(|value| 1 + size(value)).sum::<usize>(),
        Value::String(text) => text.len() + 2,
        _ => 5,
    }
}
