//! `/metrics`: what the store holds, in the Prometheus text format, under the names that the real server uses.

use std::fmt::Write as _;

use crate::registry::Snapshot;
use crate::storage::Store;

/// The media type.
pub const MEDIA: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The metrics as text.
pub fn text(snapshot: &Snapshot, store: &Store) -> String {
    let mut text = String::from(
        "# HELP apiserver_resource_objects [ALPHA] Number of stored objects at the time of last check split by \
         kind. In case of a fetching error, the value will be -1.\n# TYPE apiserver_resource_objects gauge\n",
    );
    for resource in &snapshot.resources {
        // Names of groups and resources hold nothing that would have to be escaped.
        let _ = writeln!(
            text,
            "apiserver_resource_objects{{group={:?},resource={:?}}} {}",
            resource.group,
            resource.plural,
            store.count(&resource.storage)
        );
    }
    let _ = write!(
        text,
        "# HELP embedded_apiserver_revision The revision of the last write.\n# TYPE embedded_apiserver_revision gauge\n\
         embedded_apiserver_revision {}\n",
        store.revision()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::Registry;
    use crate::storage::HistoryLimits;

    #[test]
    fn every_resource_has_its_count() {
        let text = text(&Registry::new().snapshot(), &Store::in_memory(HistoryLimits::default()));
        assert!(
            text.contains("apiserver_resource_objects{group=\"\",resource=\"pods\"} 0\n"),
            "{text}"
        );
        assert!(text.ends_with("embedded_apiserver_revision 2\n"), "{text}");
    }
}
