//! The rules of volumes.

use std::collections::BTreeSet;

use super::check::{Place, Problems};
use super::container::{descending, no_way_back};
use super::formats;
use super::quantity::Quantity;

const HOST_PATHS: &[&str] = &[
    "",
    "BlockDevice",
    "CharDevice",
    "Directory",
    "DirectoryOrCreate",
    "File",
    "FileOrCreate",
    "Socket",
];

/// Checks the volumes of a pod; gives the names of those that can be mounted.
pub(super) fn volumes<'object>(list: &Place<'object>, problems: &mut Problems) -> BTreeSet<&'object str> {
    let mut names = BTreeSet::new();
    for volume in list.elements() {
        let mut found = Problems::default();
        source(&volume, &mut found);
        let name = volume.field("name");
        if found.required_text(&name) {
            found.all_invalid(&name, formats::dns_label(name.text()));
        }
        if names.contains(name.text()) {
            found.duplicate(&name);
        }
        if found.0.is_empty() {
            names.insert(name.text());
        }
        problems.0.append(&mut found.0);
    }
    names
}

fn source(volume: &Place<'_>, problems: &mut Problems) {
    /// In the order in which the real server looks at them.
    const SOURCES: [&str; 29] = [
        "emptyDir",
        "hostPath",
        "gitRepo",
        "gcePersistentDisk",
        "awsElasticBlockStore",
        "secret",
        "nfs",
        "iscsi",
        "glusterfs",
        "flocker",
        "persistentVolumeClaim",
        "rbd",
        "cinder",
        "cephfs",
        "quobyte",
        "downwardAPI",
        "fc",
        "flexVolume",
        "configMap",
        "azureFile",
        "vsphereVolume",
        "photonPersistentDisk",
        "portworxVolume",
        "azureDisk",
        "storageos",
        "projected",
        "scaleIO",
        "csi",
        "ephemeral",
    ];
    let mut first = true;
    for name in SOURCES {
        let place = volume.field(name);
        if !place.is_set() {
            continue;
        }
        if !std::mem::take(&mut first) {
            problems.forbidden(&place, "may not specify more than 1 volume type");
            continue;
        }
        match name {
            "emptyDir" => {
                let limit = place.field("sizeLimit");
                if limit.quantity().is_some_and(Quantity::is_negative) {
                    problems.forbidden(&limit, "SizeLimit field must be a valid resource quantity");
                }
            }
            "hostPath" => {
                let path = place.field("path");
                if problems.required_text(&path) {
                    no_way_back(&path, problems);
                    problems.one_of(&place.field("type"), HOST_PATHS);
                }
            }
            "secret" => keys(&place, "secretName", problems),
            "configMap" => keys(&place, "name", problems),
            "persistentVolumeClaim" => {
                problems.required_text(&place.field("claimName"));
            }
            "nfs" => {
                problems.required_text(&place.field("server"));
                let path = place.field("path");
                if problems.required_text(&path) && !path.text().starts_with('/') {
                    problems.invalid(&path, "must be an absolute path");
                }
            }
            "downwardAPI" => mode(&place.field("defaultMode"), problems),
            "projected" => projected(&place, problems),
            "csi" => {
                problems.required_text(&place.field("driver"));
            }
            _ => {}
        }
    }
}

fn mode(place: &Place<'_>, problems: &mut Problems) {
    if place.is_set() && !(0..=0o777).contains(&place.number()) {
        problems.invalid(place, "must be a number between 0 and 0777 (octal), both inclusive");
    }
}

fn keys(place: &Place<'_>, name: &str, problems: &mut Problems) {
    problems.required_text(&place.field(name));
    mode(&place.field("defaultMode"), problems);
    items(&place.field("items"), problems);
}

fn items(list: &Place<'_>, problems: &mut Problems) {
    for item in list.elements() {
        problems.required_text(&item.field("key"));
        let path = item.field("path");
        problems.required_text(&path);
        local(&path, problems);
        mode(&item.field("mode"), problems);
    }
}

/// A path below another that is not reserved for the kubelet.
fn local(path: &Place<'_>, problems: &mut Problems) {
    descending(path, problems);
    if path.text().starts_with("..") && !path.text().starts_with("../") {
        problems.invalid(path, "must not start with '..'");
    }
}

fn projected(place: &Place<'_>, problems: &mut Problems) {
    mode(&place.field("defaultMode"), problems);
    for source in place.field("sources").elements() {
        let mut count = 0;
        for kind in ["secret", "configMap"] {
            let part = source.field(kind);
            if part.is_set() {
                count += 1;
                problems.required_text(&part.field("name"));
                items(&part.field("items"), problems);
            }
        }
        count += usize::from(source.field("downwardAPI").is_set());
        let token = source.field("serviceAccountToken");
        if token.is_set() {
            count += 1;
            let seconds = token.field("expirationSeconds");
            if seconds.number() < 600 {
                problems.invalid(&seconds, "may not specify a duration less than 10 minutes");
            }
            if seconds.number() > 1 << 32 {
                problems.invalid(&seconds, "may not specify a duration larger than 2^32 seconds");
            }
            // The real server leaves the source out of this path.
            let path = token.field("path").called(format!("{}.path", place.path));
            if problems.required_text(&path) {
                local(&path, problems);
            }
        }
        if count > 1 {
            problems.forbidden(&source, "may not specify more than 1 volume type per source");
        }
    }
}
