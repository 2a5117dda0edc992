//! The tools of the rules: places in an object, and the problems found there.

use serde_json::{Map, Value};

use super::quantity::Quantity;
use crate::schema::{Cause, go_quote};

/// A place in an object: its path, as errors name it, and what is there.
#[derive(Debug, Clone)]
pub(crate) struct Place<'object> {
    pub(crate) path: String,
    pub(crate) value: &'object Value,
}

impl<'object> Place<'object> {
    /// A field of the object itself.
    pub(crate) fn top(object: &'object Value, field: &str) -> Self {
        Self {
            path: field.to_owned(),
            value: object.get(field).unwrap_or(&Value::Null),
        }
    }

    /// A field of what is here.
    pub(crate) fn field(&self, name: &str) -> Self {
        Self {
            path: format!("{}.{name}", self.path),
            value: self.value.get(name).unwrap_or(&Value::Null),
        }
    }

    /// The same value, known to errors as another field of its parent's.
    pub(crate) fn called(&self, path: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            value: self.value,
        }
    }

    /// The elements of the list here.
    pub(crate) fn elements(&self) -> impl Iterator<Item = Self> + use<'object> {
        let path = self.path.clone();
        self.value
            .as_array()
            .into_iter()
            .flatten()
            .enumerate()
            .map(move |(at, value)| Self {
                path: format!("{path}[{at}]"),
                value,
            })
    }

    /// The entries of the map here: their keys, and their places (`path[key]`).
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&'object str, Self)> + use<'object> {
        let path = self.path.clone();
        self.value.as_object().into_iter().flatten().map(move |(key, value)| {
            let path = format!("{path}[{key}]");
            (key.as_str(), Self { path, value })
        })
    }

    pub(crate) fn is_set(&self) -> bool {
        !self.value.is_null()
    }

    pub(crate) fn text(&self) -> &'object str {
        self.value.as_str().unwrap_or_default()
    }

    pub(crate) fn number(&self) -> i64 {
        self.value.as_i64().unwrap_or_default()
    }

    pub(crate) fn flag(&self) -> bool {
        self.value.as_bool().unwrap_or_default()
    }

    pub(crate) fn len(&self) -> usize {
        match self.value {
            Value::Array(items) => items.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        }
    }

    /// The quantity here; settled objects hold no other texts.
    pub(crate) fn quantity(&self) -> Option<Quantity> {
        self.value.as_str().and_then(|text| Quantity::parse(text).ok())
    }
}

/// What is wrong with an object.
#[derive(Debug, Default)]
pub(crate) struct Problems(pub(crate) Vec<Cause>);

impl Problems {
    pub(crate) fn push(&mut self, reason: &str, path: &str, message: String) {
        self.0.push(Cause {
            reason: reason.to_owned(),
            message,
            field: path.to_owned(),
        });
    }

    pub(crate) fn invalid(&mut self, place: &Place<'_>, detail: impl AsRef<str>) {
        self.0.push(Cause::invalid(&place.path, place.value, detail.as_ref()));
    }

    /// An invalid value of which errors show something else.
    pub(crate) fn invalid_as(&mut self, place: &Place<'_>, shown: &Value, detail: impl AsRef<str>) {
        self.0.push(Cause::invalid(&place.path, shown, detail.as_ref()));
    }

    /// An invalid value of which errors show this text, which is the JSON of Go's internal type.
    pub(crate) fn invalid_shown(&mut self, place: &Place<'_>, shown: &str, detail: &str) {
        let message = format!("Invalid value: {shown}: {detail}");
        self.push("FieldValueInvalid", &place.path, message);
    }

    /// Each of the texts is a reason why the text here is invalid.
    pub(crate) fn all_invalid(&mut self, place: &Place<'_>, details: Vec<String>) {
        for detail in details {
            self.invalid_as(place, &place.text().into(), detail);
        }
    }

    pub(crate) fn required(&mut self, place: &Place<'_>, detail: &str) {
        self.0.push(Cause::required(&place.path, detail));
    }

    pub(crate) fn forbidden(&mut self, place: &Place<'_>, detail: &str) {
        self.0.push(Cause::forbidden(&place.path, detail));
    }

    pub(crate) fn duplicate(&mut self, place: &Place<'_>) {
        self.0.push(Cause::duplicate(&place.path, place.value));
    }

    pub(crate) fn not_found(&mut self, place: &Place<'_>) {
        let message = format!("Not found: {}", go_quote(place.text()));
        self.push("FieldValueNotFound", &place.path, message);
    }

    /// The text here has to be one of these; errors show them in this order.
    pub(crate) fn one_of(&mut self, place: &Place<'_>, allowed: &[&str]) {
        if !allowed.contains(&place.text()) {
            let allowed: Vec<String> = allowed.iter().map(|text| (*text).to_owned()).collect();
            self.0
                .push(Cause::not_supported(&place.path, &place.text().into(), &allowed));
        }
    }

    /// As [`Self::one_of`], and required.
    pub(crate) fn required_one_of(&mut self, place: &Place<'_>, allowed: &[&str]) {
        if place.text().is_empty() {
            self.required(place, "");
        } else {
            self.one_of(place, allowed);
        }
    }

    pub(crate) fn required_text(&mut self, place: &Place<'_>) -> bool {
        let missing = place.text().is_empty();
        if missing {
            self.required(place, "");
        }
        !missing
    }

    pub(crate) fn not_negative(&mut self, place: &Place<'_>) {
        if place.number() < 0 {
            self.invalid(place, "must be greater than or equal to 0");
        }
    }

    /// A field that a write may not change.
    pub(crate) fn immutable(&mut self, new: &Place<'_>, old: &Place<'_>) {
        if new.value != old.value {
            self.invalid(new, "field is immutable");
        }
    }
}

/// A map of a settled object, or none.
pub(crate) fn map_at<'object>(value: &'object Value, pointer: &str) -> Option<&'object Map<String, Value>> {
    value.pointer(pointer).and_then(Value::as_object)
}
