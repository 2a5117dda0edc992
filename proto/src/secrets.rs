//! Keeps what a request brought in confidence out of what comes back: texts in which a
//! provider repeats a credential are masked, by the provider's SDK before they are sent,
//! and by the core, which trusts no provider, before they are read.

use std::fmt;
use std::sync::Arc;

use tonic::Status;

use crate::v1;

/// Shorter values are no secrets, and masking them would garble every text.
const MIN_SECRET_BYTES: usize = 8;

/// Shorter lines of a secret of many lines are found in harmless texts too.
const MIN_LINE_BYTES: usize = 16;

/// The secrets of one request.
#[derive(Clone, Default)]
pub struct Secrets(Arc<[Vec<u8>]>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} secrets", self.0.len())
    }
}

impl Secrets {
    /// These values, and each longer line of them.
    pub fn of<'a>(values: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut secrets: Vec<Vec<u8>> = Vec::new();
        for value in values {
            let value = value.trim_ascii();
            if value.len() >= MIN_SECRET_BYTES {
                secrets.push(value.to_vec());
            }
            let lines = value.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
            secrets.extend(
                lines
                    .filter(|line| line.len() >= MIN_LINE_BYTES && line.len() < value.len())
                    .map(<[u8]>::to_vec),
            );
        }
        // The longest first: one secret may be a part of another.
        secrets.sort_by(|a, b| b.len().cmp(&a.len()).then_with(|| a.cmp(b)));
        secrets.dedup();
        Self(secrets.into())
    }

    /// The entries of a request's credentials, and its bootstrap data.
    pub fn of_request(credentials: Option<&v1::Credentials>, bootstrap: Option<&v1::BootstrapData>) -> Self {
        let entries = match credentials.and_then(|credentials| credentials.source.as_ref()) {
            Some(v1::credentials::Source::Data(data)) => Some(&data.entries),
            Some(v1::credentials::Source::Ambient(_)) | None => None,
        };
        let entries = entries.into_iter().flatten().map(|(_, value)| value.as_slice());
        Self::of(entries.chain(bootstrap.map(|bootstrap| bootstrap.data.as_slice())))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The text with each secret in it replaced by stars.
    pub fn mask(&self, text: &str) -> String {
        // Stars are as long as what they cover, and a secret in a text is whole characters.
        String::from_utf8(self.masked(text.as_bytes())).unwrap_or_default()
    }

    /// The status with each secret in it, its details included, replaced by stars.
    pub fn mask_status(&self, status: Status) -> Status {
        if self.0.is_empty() {
            return status;
        }
        // As many stars as bytes: the encoding of the details stays whole.
        let details = self.masked(status.details());
        Status::with_details(status.code(), self.mask(status.message()), details.into())
    }

    /// The bytes with each secret in them replaced by as many stars, so that an encoded
    /// message stays whole.
    pub fn masked(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        for secret in self.0.iter() {
            let mut from = 0;
            while let Some(at) = find(&bytes[from..], secret) {
                let start = from + at;
                bytes[start..start + secret.len()].fill(b'*');
                from = start + secret.len();
            }
        }
        bytes
    }
}

fn find(bytes: &[u8], needle: &[u8]) -> Option<usize> {
    bytes.windows(needle.len()).position(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::errors::{ActuatorError, Classified};
    use crate::v1::ErrorReason;

    #[test]
    fn secrets_are_masked_in_every_part_of_a_status() {
        let secrets = Secrets::of([&b"s3cr3t-sentinel\n"[..], b"me"]);
        let status: Status = ActuatorError::new(ErrorReason::InvalidConfig, "the token s3cr3t-sentinel of me is bad")
            .with_field("/s3cr3t-sentinel", "s3cr3t-sentinel")
            .with_cloud_code("E-s3cr3t-sentinel")
            .into();
        let masked = secrets.mask_status(status);
        assert!(!format!("{masked:?}").contains("s3cr3t"));
        let classified = Classified::from_status(&masked);
        assert_eq!(classified.reason, Some(ErrorReason::InvalidConfig));
        assert_eq!(classified.message, "the token *************** of me is bad");
        assert_eq!(classified.fields[0].description, "***************");
        assert_eq!(classified.cloud_code.as_deref(), Some("E-***************"));
    }

    #[test]
    fn texts_around_a_secret_stay() {
        let secrets = Secrets::of(["geheimnisvoll-ä".as_bytes()]);
        assert_eq!(secrets.mask("ä geheimnisvoll-ä ö"), "ä **************** ö");
        assert_eq!(Secrets::default().mask("text"), "text");
    }

    #[test]
    fn a_line_of_a_secret_is_a_secret() {
        let bootstrap = v1::BootstrapData {
            data: b"#cloud-config\n  - join --token abcdef.0123456789\n".to_vec(),
            ..Default::default()
        };
        let secrets = Secrets::of_request(None, Some(&bootstrap));
        assert_eq!(
            secrets.mask("#cloud-config is bad at: - join --token abcdef.0123456789!"),
            "#cloud-config is bad at: ********************************!"
        );
        assert!(Secrets::of_request(None, None).is_empty());
    }
}
