//! Keeps what a request brought in confidence out of what goes back: error texts and
//! messages of a status in which a provider repeats a credential are masked.

use std::sync::Arc;

use tonic::Status;

use crate::credentials::Credentials;

/// Shorter values are no secrets, and masking them would garble every text.
const MIN_SECRET_BYTES: usize = 8;

/// The secrets of one request.
#[derive(Clone, Default)]
pub(crate) struct Secrets(Arc<[Vec<u8>]>);

impl Secrets {
    pub(crate) fn of(credentials: &Credentials) -> Self {
        let mut values: Vec<Vec<u8>> = credentials
            .values()
            .map(|value| value.trim_ascii().to_vec())
            .filter(|value| value.len() >= MIN_SECRET_BYTES)
            .collect();
        // The longest first: one secret may be a part of another.
        values.sort_by_key(|value| std::cmp::Reverse(value.len()));
        Self(values.into())
    }

    /// The text with each secret in it replaced by stars.
    pub(crate) fn mask(&self, text: &str) -> String {
        // Stars are as long as what they cover, and a secret in a text is whole characters.
        String::from_utf8(self.masked(text.as_bytes())).unwrap_or_default()
    }

    /// The status with each secret in it, its details included, replaced by stars.
    pub(crate) fn mask_status(&self, status: Status) -> Status {
        if self.0.is_empty() {
            return status;
        }
        // As many stars as bytes: the encoding of the details stays whole.
        let details = self.masked(status.details());
        Status::with_details(status.code(), self.mask(status.message()), details.into())
    }

    fn masked(&self, bytes: &[u8]) -> Vec<u8> {
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
    use actuator_proto::errors::{ActuatorError, Classified};
    use actuator_proto::v1::ErrorReason;

    use super::*;

    #[test]
    fn secrets_are_masked_in_every_part_of_a_status() {
        let credentials = Credentials::from_entries([
            ("token".to_owned(), b"s3cr3t-sentinel\n".to_vec()),
            ("user".to_owned(), b"me".to_vec()),
        ]);
        let secrets = Secrets::of(&credentials);
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
        let credentials = Credentials::from_entries([("k".to_owned(), "geheimnisvoll-ä".as_bytes().to_vec())]);
        assert_eq!(
            Secrets::of(&credentials).mask("ä geheimnisvoll-ä ö"),
            "ä **************** ö"
        );
        assert_eq!(Secrets::default().mask("text"), "text");
    }
}
