//! Strict decoding of request bodies: duplicate keys are reported, nesting is bounded, errors read as the real ones.
//!
//! For: turning bytes from outside into a `Value` without ever overflowing the stack. Not for: unknown fields, which
//! only a schema can tell.

use crate::deep;
use serde::de::{DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fmt;

/// How deeply YAML may be nested on a stack of the usual size: its reader needs far more stack for each level than JSON's.
const MAX_YAML_DEPTH: usize = 60;
/// And on a large one.
const MAX_DEEP_YAML: usize = 1_000;

/// Why a body could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The text is not JSON; worded as `encoding/json` does (`invalid character '}' looking for …`).
    #[error("{0}")]
    Json(String),
    /// A number that no type holds.
    #[error("{0}")]
    Number(String),
    /// The text is not YAML; worded as nearly as possible as the real server's reader does.
    #[error("{0}")]
    Yaml(String),
    /// The text nests objects and lists too deeply.
    #[error("exceeded max depth")]
    TooDeep,
}

/// Decodes JSON; also returns the duplicate fields as `duplicate field "spec.a"`. The last of a field's values counts.
pub fn decode_strict(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    let (mut value, duplicates) = decode_exact(bytes)?;
    settle_numbers(&mut value);
    Ok((value, duplicates))
}

/// The same, but whole numbers that are written as fractions stay such: whoever wants integers may refuse them.
pub(crate) fn decode_exact(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    decode(bytes, false)
}

/// The same for objects of built-in kinds, whose types are looked at afterwards: as Go reads into the same struct or map twice, a field that is given twice
/// has the members of both.
pub fn decode_typed(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    decode(bytes, true)
}

/// Makes integers of whole numbers that were written as fractions, as a round trip through the real store does.
pub(crate) fn settle_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if number.is_f64() => {
            if let Some(settled) = number.as_f64().and_then(float_value) {
                *value = settled;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(settle_numbers),
        Value::Object(map) => map.values_mut().for_each(settle_numbers),
        _ => {}
    }
}

fn decode(bytes: &[u8], merges: bool) -> Result<(Value, Vec<String>), DecodeError> {
    let mut parser = Parser::new(bytes);
    parser.merges = merges;
    parser.takes_large = merges;
    let value = parser.document()?;
    Ok((value, parser.duplicates))
}

/// Puts findings about fields (`duplicate field "a.b"`, `unknown field "c"`) into the order in which the document has
/// the fields: that in which Go's decoder meets them.
pub(crate) fn in_document_order(bytes: &[u8], findings: &mut [String]) {
    if findings.len() < 2 {
        return;
    }
    let mut parser = Parser::new(bytes);
    parser.wanted = findings
        .iter()
        .filter_map(|finding| Some(field_of(finding)?.to_owned()))
        .collect();
    if parser.document().is_err() {
        return;
    }
    let places = parser.places;
    findings.sort_by_key(|finding| {
        let places = field_of(finding).and_then(|field| places.get(field));
        places.and_then(|(first, last)| {
            Some(if finding.starts_with("duplicate") {
                (*last)?
            } else {
                *first
            })
        })
    });
}

/// The field in a finding.
fn field_of(finding: &str) -> Option<&str> {
    finding.split_once('"')?.1.strip_suffix('"')
}

/// The number in a text of JSON that reads as this one and is written otherwise.
pub(crate) fn literal<'text>(bytes: &'text [u8], shown: &str) -> Option<&'text str> {
    let mut parser = Parser::new(bytes);
    parser.shown = Some(shown);
    parser.takes_large = true;
    parser.document().ok()?;
    let (from, to) = parser.literal?;
    std::str::from_utf8(bytes.get(from..to)?).ok()
}

/// Decodes YAML (one document); also returns the duplicate fields as `line 4: key "a" already set in map`.
///
/// JSON is YAML too: what starts like it and is it is read as such.
pub fn decode_strict_yaml(bytes: &[u8]) -> Result<(Value, Vec<String>), DecodeError> {
    if bytes
        .iter()
        .find(|byte| !byte.is_ascii_whitespace())
        .is_some_and(|byte| matches!(byte, b'{' | b'['))
    {
        let mut parser = Parser::new(bytes);
        parser.tells_lines = true;
        match parser.document() {
            Err(DecodeError::Json(_)) => {}
            Err(other) => return Err(other),
            Ok(mut value) => {
                settle_numbers(&mut value);
                return Ok((value, parser.duplicates));
            }
        }
    }
    let text =
        std::str::from_utf8(bytes).map_err(|_| DecodeError::Yaml("yaml: invalid leading UTF-8 octet".to_owned()))?;
    let text = first_document(text);
    let findings = RefCell::new(Vec::new());
    let seed_findings = &findings;
    let mut options = serde_saphyr::Options::default();
    options.duplicate_keys = serde_saphyr::DuplicateKeyPolicy::PassThrough;
    options.with_snippet = false;
    if let Some(budget) = &mut options.budget {
        budget.max_depth = yaml_limit();
    }
    let value = serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        YamlSeed {
            findings: seed_findings,
            depth: 0,
        }
        .deserialize(deserializer)
    })
    .map_err(|error| {
        let text = error.to_string();
        if [TOO_DEEP, "depth", "recursion limit"]
            .iter()
            .any(|words| text.contains(words))
        {
            DecodeError::TooDeep
        } else {
            DecodeError::Yaml(yaml_error(&text))
        }
    })?;
    Ok((value, findings.into_inner()))
}

/// The first document of several: the real server reads no further.
fn first_document(text: &str) -> &str {
    let mut begun = false;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let marks = line.strip_prefix("---").or_else(|| line.strip_prefix("..."));
        if marks.is_some_and(|rest| rest.trim_end().is_empty() || rest.starts_with([' ', '\t'])) {
            if begun {
                return &text[..at];
            }
            begun = line.starts_with("---");
        } else if !line.trim().is_empty() && !line.starts_with(['#', '%']) {
            begun = true;
        }
        at += line.len();
    }
    text
}

/// An error with its line before it, as the real server's reader has it.
fn yaml_error(text: &str) -> String {
    match text.rsplit_once(" at line ") {
        Some((what, place)) => match place.split_once(',') {
            Some((line, _)) => format!("yaml: line {line}: {what}"),
            None => format!("yaml: {what}"),
        },
        None => format!("yaml: {text}"),
    }
}

fn yaml_limit() -> usize {
    match deep::limit() {
        deep::MAX_DEPTH => MAX_DEEP_YAML,
        _ => MAX_YAML_DEPTH,
    }
}

const TOO_DEEP: &str = "exceeded max depth";

/// What stands before the duplicate fields of YAML where they are an error.
pub(crate) const NO_YAML: &str = "yaml: unmarshal errors:";

/// A duplicate field of YAML, as the real reader words it.
fn set_already(line: impl fmt::Display, key: impl fmt::Display) -> String {
    format!("line {line}: key {key} already set in map")
}

/// A path that is only written out when something has to be reported.
#[derive(Default)]
struct Path {
    steps: Vec<Step>,
}

enum Step {
    Key(String),
    Index(usize),
}

impl fmt::Display for Path {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.steps.iter().enumerate() {
            match step {
                Step::Key(key) if position == 0 => write!(formatter, "{key}")?,
                Step::Key(key) => write!(formatter, ".{key}")?,
                Step::Index(index) => write!(formatter, "[{index}]")?,
            }
        }
        Ok(())
    }
}

struct Parser<'text> {
    bytes: &'text [u8],
    position: usize,
    path: Path,
    duplicates: Vec<String>,
    limit: usize,
    merges: bool,
    /// Whether the largest number stands for larger ones, for whoever knows what is to be read to refuse.
    takes_large: bool,
    /// Whether duplicates are told as those of YAML are, by their lines.
    tells_lines: bool,
    /// Fields whose places are asked for, and the first place of each with the last of its repetitions.
    wanted: HashSet<String>,
    places: HashMap<String, (usize, Option<usize>)>,
    /// A number as it is shown, and from where to where it is written, if that is otherwise.
    shown: Option<&'text str>,
    literal: Option<(usize, usize)>,
}

/// Deeper fields are not looked for when findings are put in order.
const MAX_TRACED: usize = 64;

impl<'text> Parser<'text> {
    fn new(bytes: &'text [u8]) -> Self {
        Self {
            bytes,
            position: 0,
            path: Path::default(),
            duplicates: Vec::new(),
            limit: deep::limit(),
            merges: false,
            takes_large: false,
            tells_lines: false,
            wanted: HashSet::new(),
            places: HashMap::new(),
            shown: None,
            literal: None,
        }
    }

    /// The whole text as one value.
    fn document(&mut self) -> Result<Value, DecodeError> {
        let value = self.value(0)?;
        self.skip_space();
        if self.position < self.bytes.len() {
            return Err(self.unexpected("after top-level value"));
        }
        Ok(value)
    }

    /// Notes where a field is, if that is asked for.
    fn trace(&mut self) {
        if self.wanted.is_empty() || self.path.steps.len() > MAX_TRACED {
            return;
        }
        let field = self.path.to_string();
        if self.wanted.contains(&field) {
            let place = self.position;
            let places = self.places.entry(field);
            places
                .and_modify(|(_, last)| *last = Some(place))
                .or_insert((place, None));
        }
    }

    /// A duplicate field: the last one of the path.
    fn duplicate(&mut self, key: &str, line: usize) {
        let finding = if self.tells_lines {
            set_already(line, format_args!("\"{key}\""))
        } else {
            format!("duplicate field \"{}\"", self.path)
        };
        if !self.duplicates.contains(&finding) && self.duplicates.len() < MAX_FINDINGS {
            self.duplicates.push(finding);
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.position).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.position += 1;
        }
    }

    fn unexpected(&self, context: &str) -> DecodeError {
        match self.peek() {
            None => DecodeError::Json("unexpected end of JSON input".to_owned()),
            Some(byte) => DecodeError::Json(format!("invalid character {} {context}", quote_character(byte))),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Value, DecodeError> {
        self.skip_space();
        match self.peek() {
            Some(b'{' | b'[') if depth >= self.limit => Err(if self.limit == deep::MAX_DEPTH {
                self.unexpected("exceeded max depth")
            } else {
                DecodeError::TooDeep
            }),
            Some(b'{') => self.object(depth),
            Some(b'[') => self.array(depth),
            Some(b'"') => Ok(Value::String(self.string()?)),
            Some(b't') => self.literal("true", Value::Bool(true)),
            Some(b'f') => self.literal("false", Value::Bool(false)),
            Some(b'n') => self.literal("null", Value::Null),
            Some(b'-' | b'0'..=b'9') => self.number(),
            _ => Err(self.unexpected("looking for beginning of value")),
        }
    }

    fn object(&mut self, depth: usize) -> Result<Value, DecodeError> {
        self.position += 1;
        let mut map = Map::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.position += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.unexpected("looking for beginning of object key string"));
            }
            let start = self.position;
            let key = self.string()?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.unexpected("after object key"));
            }
            self.position += 1;
            self.path.steps.push(Step::Key(key));
            self.trace();
            let value = self.value(depth + 1)?;
            if let Some(Step::Key(key)) = self.path.steps.pop()
                && let Some(earlier) = map.insert(key.clone(), value)
            {
                if self.merges
                    && let Some(value) = map.get_mut(&key)
                {
                    merge(earlier, value);
                }
                self.path.steps.push(Step::Key(key.clone()));
                // More than anyone reads are not even counted.
                if self.duplicates.len() < MAX_FINDINGS {
                    let line = self.bytes.get(..start).unwrap_or_default();
                    let line = line.split(|byte| *byte == b'\n').count();
                    self.duplicate(&key, line);
                }
                self.path.steps.pop();
            }
            self.skip_space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(b'}') => {
                    self.position += 1;
                    return Ok(Value::Object(map));
                }
                _ => return Err(self.unexpected("after object key:value pair")),
            }
        }
    }

    fn array(&mut self, depth: usize) -> Result<Value, DecodeError> {
        self.position += 1;
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.position += 1;
            return Ok(Value::Array(items));
        }
        loop {
            self.path.steps.push(Step::Index(items.len()));
            items.push(self.value(depth + 1)?);
            self.path.steps.pop();
            self.skip_space();
            match self.peek() {
                Some(b',') => self.position += 1,
                Some(b']') => {
                    self.position += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.unexpected("after array element")),
            }
        }
    }

    fn literal(&mut self, word: &str, value: Value) -> Result<Value, DecodeError> {
        for expected in word.bytes() {
            if self.peek() != Some(expected) {
                let context = format!("in literal {word} (expecting {})", quote_character(expected));
                return Err(self.unexpected(&context));
            }
            self.position += 1;
        }
        Ok(value)
    }

    fn digits(&mut self) {
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.position += 1;
        }
    }

    fn number(&mut self) -> Result<Value, DecodeError> {
        let start = self.position;
        let mut integral = true;
        if self.peek() == Some(b'-') {
            self.position += 1;
        }
        match self.peek() {
            Some(b'0') => self.position += 1,
            Some(b'1'..=b'9') => self.digits(),
            _ => return Err(self.unexpected("in numeric literal")),
        }
        if self.peek() == Some(b'.') {
            integral = false;
            self.position += 1;
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.unexpected("after decimal point in numeric literal"));
            }
            self.digits();
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            integral = false;
            self.position += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.position += 1;
            }
            if !matches!(self.peek(), Some(b'0'..=b'9')) {
                return Err(self.unexpected("in exponent of numeric literal"));
            }
            self.digits();
        }
        let text = std::str::from_utf8(&self.bytes[start..self.position]).unwrap_or_default();
        if integral && let Ok(integer) = text.parse::<i64>() {
            return Ok(Value::from(integer));
        }
        let mut float = text.parse::<f64>().unwrap_or(f64::INFINITY);
        if self.takes_large {
            float = float.clamp(f64::MIN, f64::MAX);
        }
        let number = Number::from_f64(float).ok_or_else(|| {
            DecodeError::Number(format!(
                "json: cannot unmarshal number {text} into Go value of type float64"
            ))
        })?;
        if self.literal.is_none() && self.shown.is_some_and(|shown| shown == number.to_string()) {
            self.literal = Some((start, self.position));
        }
        Ok(Value::Number(number))
    }

    fn string(&mut self) -> Result<String, DecodeError> {
        self.position += 1;
        let start = self.position;
        // The common case: no escapes.
        loop {
            match self.peek() {
                None => return Err(self.unexpected("in string literal")),
                Some(b'"') => {
                    let text = String::from_utf8_lossy(&self.bytes[start..self.position]).into_owned();
                    self.position += 1;
                    return Ok(text);
                }
                Some(b'\\') => break,
                Some(byte) if byte < 0x20 => return Err(self.unexpected("in string literal")),
                Some(_) => self.position += 1,
            }
        }
        let mut buffer = self.bytes[start..self.position].to_vec();
        loop {
            match self.peek() {
                None => return Err(self.unexpected("in string literal")),
                Some(b'"') => {
                    self.position += 1;
                    return Ok(match String::from_utf8(buffer) {
                        Ok(text) => text,
                        Err(error) => String::from_utf8_lossy(error.as_bytes()).into_owned(),
                    });
                }
                Some(b'\\') => {
                    self.position += 1;
                    self.escape(&mut buffer)?;
                }
                Some(byte) if byte < 0x20 => return Err(self.unexpected("in string literal")),
                Some(byte) => {
                    buffer.push(byte);
                    self.position += 1;
                }
            }
        }
    }

    fn escape(&mut self, buffer: &mut Vec<u8>) -> Result<(), DecodeError> {
        let byte = match self.peek() {
            Some(byte @ (b'"' | b'\\' | b'/')) => byte,
            Some(b'b') => 0x08,
            Some(b'f') => 0x0c,
            Some(b'n') => b'\n',
            Some(b'r') => b'\r',
            Some(b't') => b'\t',
            Some(b'u') => {
                self.position += 1;
                let first = self.hexadecimal()?;
                let mut character = char::from_u32(first);
                // A high surrogate counts only together with the low one that follows it.
                if (0xd800..0xdc00).contains(&first) && self.bytes[self.position..].starts_with(b"\\u") {
                    let before = self.position;
                    self.position += 2;
                    let second = self.hexadecimal()?;
                    if (0xdc00..0xe000).contains(&second) {
                        character = char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00));
                    } else {
                        self.position = before;
                    }
                }
                let mut encoded = [0; 4];
                let character = character.unwrap_or(char::REPLACEMENT_CHARACTER);
                buffer.extend_from_slice(character.encode_utf8(&mut encoded).as_bytes());
                return Ok(());
            }
            _ => return Err(self.unexpected("in string escape code")),
        };
        buffer.push(byte);
        self.position += 1;
        Ok(())
    }

    fn hexadecimal(&mut self) -> Result<u32, DecodeError> {
        let mut code = 0;
        for _ in 0..4 {
            match self.peek().and_then(|byte| char::from(byte).to_digit(16)) {
                Some(digit) => code = code * 16 + digit,
                None => return Err(self.unexpected("in \\u hexadecimal character escape")),
            }
            self.position += 1;
        }
        Ok(code)
    }
}

/// Puts the members of an earlier object under those of a later one.
fn merge(earlier: Value, later: &mut Value) {
    if let (Value::Object(earlier), Value::Object(later)) = (earlier, later) {
        for (key, before) in earlier {
            match later.get_mut(&key) {
                Some(after) => merge(before, after),
                None => {
                    later.insert(key, before);
                }
            }
        }
    }
}

/// More findings than anyone reads are not collected: a body of duplicates must not become a larger answer.
const MAX_FINDINGS: usize = 100;

/// A whole float is stored as an integer, as it would be after a round trip through the real store.
fn float_value(float: f64) -> Option<Value> {
    if float.fract() == 0.0 && float.abs() < 9_007_199_254_740_992.0 {
        return Some(Value::from(float as i64));
    }
    Number::from_f64(float).map(Value::Number)
}

fn quote_character(byte: u8) -> String {
    match byte {
        b'\'' => "'\\''".to_owned(),
        b'"' => "'\"'".to_owned(),
        b'\n' => "'\\n'".to_owned(),
        b'\r' => "'\\r'".to_owned(),
        b'\t' => "'\\t'".to_owned(),
        b'\\' => "'\\\\'".to_owned(),
        0x07 => "'\\a'".to_owned(),
        0x08 => "'\\b'".to_owned(),
        0x0b => "'\\v'".to_owned(),
        0x0c => "'\\f'".to_owned(),
        0..0x20 | 0x7f => format!("'\\x{byte:02x}'"),
        0x80..0xa0 => format!("'\\u{:04x}'", u32::from(byte)),
        _ => format!("'{}'", char::from(byte)),
    }
}

/// A key of a map in YAML, and how errors show it.
struct Key {
    text: String,
    shown: String,
}

impl<'de> serde::Deserialize<'de> for Key {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let findings = RefCell::new(Vec::new());
        let seed = YamlSeed {
            findings: &findings,
            depth: 0,
        };
        match seed.deserialize(deserializer)? {
            Value::String(text) => Ok(Self {
                shown: format!("\"{text}\""),
                text,
            }),
            key @ (Value::Bool(_) | Value::Number(_)) => Ok(Self {
                text: key.to_string(),
                shown: key.to_string(),
            }),
            _ => Err(D::Error::custom("unsupported map key")),
        }
    }
}

struct YamlSeed<'findings> {
    findings: &'findings RefCell<Vec<String>>,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for YamlSeed<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        if self.depth > yaml_limit() {
            return Err(D::Error::custom(TOO_DEEP));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for YamlSeed<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a YAML value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(i64::try_from(value).map_or_else(|_| Value::from(value as f64), Value::from))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        float_value(value).ok_or_else(|| E::custom(format!("unsupported value: {value}")))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(YamlSeed {
            findings: self.findings,
            depth: self.depth + 1,
        })? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        let mut seen = HashSet::new();
        while let Some(key) = access.next_key::<serde_saphyr::Spanned<Key>>()? {
            let (line, Key { text: key, shown }) = (key.referenced.line(), key.value);
            let value = access.next_value_seed(YamlSeed {
                findings: self.findings,
                depth: self.depth + 1,
            })?;
            if !seen.insert(key.clone()) && self.findings.borrow().len() < MAX_FINDINGS {
                self.findings.borrow_mut().push(set_already(line, shown));
            }
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}
