//! Label selectors: whether one matches, and how one is written as the text of `status.selector`.
//!
//! Not for selecting from a store: that is the index's.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube_core::{Selector, SelectorExt};

/// Whether `selector` matches `labels`. An empty or malformed selector matches nothing: a set that selects every
/// machine in its namespace is never what somebody meant, and the API server refuses it anyway.
pub fn matches(selector: &LabelSelector, labels: Option<&BTreeMap<String, String>>) -> bool {
    if is_empty(selector) {
        return false;
    }
    let none = BTreeMap::new();
    match Selector::try_from(selector.clone()) {
        Ok(parsed) => parsed.matches(labels.unwrap_or(&none)),
        Err(_) => false,
    }
}

/// The selector as text, as `kubectl get -l` takes it; empty for a malformed one.
pub fn to_text(selector: &LabelSelector) -> String {
    Selector::try_from(selector.clone())
        .map(|parsed| parsed.to_string())
        .unwrap_or_default()
}

/// Whether the selector says nothing at all.
pub fn is_empty(selector: &LabelSelector) -> bool {
    selector.match_labels.as_ref().is_none_or(BTreeMap::is_empty)
        && selector.match_expressions.as_ref().is_none_or(Vec::is_empty)
}
