//! The rules of Nodes.

use std::collections::BTreeSet;
use std::net::IpAddr;

use serde_json::{Value, json};

use super::check::{Place, Problems};
use super::{container, formats};

/// Of a Node.
pub(super) fn node(object: &Value, old: Option<&Value>, problems: &mut Problems) {
    let spec = Place::top(object, "spec");
    // The real server misplaces the path of taints.
    let taints = spec.field("taints").called("metadata.taints");
    let ranges = spec.field("podCIDRs");
    match old {
        None => {
            check_taints(&taints, problems);
            resources(object, problems);
            check_ranges(&ranges, problems);
        }
        Some(old) => {
            resources(object, problems);
            addresses(&Place::top(object, "status").field("addresses"), problems);
            let before = Place::top(old, "spec");
            let ranges_before = before.field("podCIDRs");
            if ranges_before.len() > 0 && ranges_before.value != ranges.value {
                problems.forbidden(&ranges, "node updates may not change podCIDR except from \"\" to valid");
            }
            let (provider, provider_before) = (spec.field("providerID"), before.field("providerID"));
            if !provider_before.text().is_empty() && provider.text() != provider_before.text() {
                problems.forbidden(
                    &provider,
                    "node updates may not change providerID except from \"\" to valid",
                );
            }
            check_taints(&taints, problems);
            if spec.field("externalID").value != before.field("externalID").value {
                problems.forbidden(&spec.field("externalID"), "may not be updated");
            }
        }
    }
}

fn check_taints(taints: &Place<'_>, problems: &mut Problems) {
    let mut known = BTreeSet::new();
    for taint in taints.elements() {
        let (key, value, effect) = (taint.field("key"), taint.field("value"), taint.field("effect"));
        problems.all_invalid(&key, formats::qualified_name(key.text()));
        let wrong = formats::label_value(value.text());
        if !wrong.is_empty() {
            problems.invalid(&value, wrong.join(";"));
        }
        problems.required_one_of(&effect, super::pod::EFFECTS);
        if !known.insert((effect.text(), key.text())) {
            let time = taint.field("timeAdded");
            let shown = format!(
                "{{\"Key\":{},\"Value\":{},\"Effect\":{},\"TimeAdded\":{}}}",
                json!(key.text()),
                json!(value.text()),
                json!(effect.text()),
                time.value
            );
            let message = format!("Duplicate value: {shown}: taints must be unique by key and effect pair");
            problems.push("FieldValueDuplicate", &taint.path, message);
        }
    }
}

fn resources(object: &Value, problems: &mut Problems) {
    for list in ["capacity", "allocatable"] {
        let place = Place::top(object, "status").field(list);
        for (name, amount) in place.entries() {
            container::quantity(name, &amount.called(format!("status.{list}.{name}")), problems);
        }
    }
}

fn addresses(list: &Place<'_>, problems: &mut Problems) {
    let mut known = BTreeSet::new();
    for address in list.elements() {
        let (kind, text) = (address.field("type"), address.field("address"));
        if !known.insert((kind.text(), text.text())) {
            let shown = format!("{{\"Type\":{},\"Address\":{}}}", json!(kind.text()), json!(text.text()));
            problems.push(
                "FieldValueDuplicate",
                &address.path,
                format!("Duplicate value: {shown}"),
            );
        }
    }
}

/// Address and length of a range, if the text is one.
fn range(text: &str) -> Option<(IpAddr, u8)> {
    let (address, length) = text.split_once('/')?;
    let address: IpAddr = address.parse().ok()?;
    let length: u8 = length.parse().ok()?;
    (length <= if address.is_ipv4() { 32 } else { 128 }).then_some((address, length))
}

fn check_ranges(ranges: &Place<'_>, problems: &mut Problems) {
    let mut families = BTreeSet::new();
    for each in ranges.elements() {
        match range(each.text()) {
            Some((address, _)) => {
                families.insert(address.is_ipv4());
            }
            None => problems.invalid(&each, "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)"),
        }
    }
    if ranges.len() > 1 && (families.len() < 2 || ranges.len() > 2) {
        problems.invalid(ranges, "may specify no more than one CIDR for each IP family");
    }
}
