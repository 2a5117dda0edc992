//! Continue tokens: where a list goes on, in the client's hands between chunks.
//!
//! They are written as the real server writes them (storage/continue.go), so that what is refused is the same.

use base64::Engine as _;
use base64::alphabet::URL_SAFE;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Value, json};

use super::ApiError;
use crate::schema::decode_strict;
use crate::storage::{ObjectName, Start};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &URL_SAFE,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::RequireNone)
        .with_decode_allow_trailing_bits(true),
);
const API_VERSION: &str = "meta.k8s.io/v1";

/// Where a list goes on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Continuation {
    /// The revision of the first chunk; none goes on with what there is now, which is inconsistent, but ends.
    pub revision: Option<u64>,
    /// The first key that was not sent.
    pub start: Start,
}

fn key_of(object: &ObjectName, namespace: Option<&str>) -> String {
    if namespace.is_some() || object.namespace.is_empty() {
        object.name.to_string()
    } else {
        format!("{}/{}", object.namespace, object.name)
    }
}

impl Continuation {
    /// After this object, in a list of one namespace or of all.
    pub fn after(object: &ObjectName, revision: Option<u64>) -> Self {
        Self {
            revision,
            start: Start::After(object.clone()),
        }
    }

    /// The token.
    pub fn encode(&self, namespace: Option<&str>) -> String {
        let key = match &self.start {
            // The key right after another is that key with a zero at its end.
            Start::After(object) => format!("{}\0", key_of(object, namespace)),
            Start::At(object) => key_of(object, namespace),
        };
        let revision = self.revision.map_or(json!(-1), Value::from);
        let token = json!({ "v": API_VERSION, "rv": revision, "start": key });
        BASE64.encode(token.to_string())
    }

    /// Reads a token of a list of one namespace, of all, or of a cluster-scoped resource.
    pub fn decode(token: &str, namespace: Option<&str>, namespaced: bool) -> Result<Self, ApiError> {
        let refuse =
            |why: String| ApiError::bad_request(format!("invalid continue token: continue key is not valid: {why}"));
        let bytes = BASE64
            .decode(token)
            .map_err(|error| refuse(format!("illegal base64 data at input byte {}", place(token, error))))?;
        let (token, _) = decode_strict(&bytes).map_err(|error| refuse(error.to_string()))?;
        let text = |key: &str| token[key].as_str().unwrap_or_default();
        if text("v") != API_VERSION {
            return Err(refuse(format!(
                "server does not recognize this encoded version {}",
                text("v")
            )));
        }
        let revision = token["rv"].as_i64().unwrap_or_default();
        if revision == 0 {
            return Err(refuse(format!(
                "incorrect encoded start resourceVersion (version {API_VERSION})"
            )));
        }
        let key = text("start");
        if key.is_empty() {
            return Err(refuse(format!("encoded start key empty (version {API_VERSION})")));
        }
        let relative = key.strip_prefix('/').unwrap_or(key);
        if relative.split('/').any(|part| matches!(part, "" | "." | "..")) {
            return Err(refuse(key.to_owned()));
        }
        let (relative, after) = match relative.strip_suffix('\0') {
            Some(name) => (name, true),
            None => (relative, false),
        };
        let object = match namespace {
            Some(namespace) => ObjectName::new(namespace, relative),
            None if namespaced => {
                let (namespace, name) = relative.split_once('/').unwrap_or((relative, ""));
                ObjectName::new(namespace, name)
            }
            None => ObjectName::new("", relative),
        };
        Ok(Self {
            revision: u64::try_from(revision).ok(),
            start: if after { Start::After(object) } else { Start::At(object) },
        })
    }
}

/// The first byte that is no base64, as Go counts.
fn place(token: &str, error: base64::DecodeError) -> usize {
    match error {
        base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
        base64::DecodeError::InvalidLength(length) => length.saturating_sub(1),
        base64::DecodeError::InvalidPadding => token.find('=').unwrap_or(token.len()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn coded(text: &str) -> String {
        BASE64.encode(text)
    }

    #[rstest]
    #[case(Some("ns"), "ns", Some(7))]
    #[case(None, "ns", None)]
    #[case(None, "", Some(7))]
    fn tokens_are_read_back(#[case] namespace: Option<&str>, #[case] inside: &str, #[case] revision: Option<u64>) {
        let continuation = Continuation::after(&ObjectName::new(inside, "a.b-c"), revision);
        let token = continuation.encode(namespace);
        assert_eq!(
            Continuation::decode(&token, namespace, !inside.is_empty()),
            Ok(continuation)
        );
    }

    #[rstest]
    #[case("!!".to_owned(), "illegal base64 data at input byte 0")]
    #[case("YQ=".to_owned(), "illegal base64 data at input byte 2")]
    #[case(coded("x"), "invalid character 'x' looking for beginning of value")]
    #[case(coded(r#"{"v":"a"}"#), "server does not recognize this encoded version a")]
    #[case(
        coded(r#"{"v":"meta.k8s.io/v1","start":"a"}"#),
        "incorrect encoded start resourceVersion (version meta.k8s.io/v1)"
    )]
    #[case(
        coded(r#"{"v":"meta.k8s.io/v1","rv":1}"#),
        "encoded start key empty (version meta.k8s.io/v1)"
    )]
    #[case(coded(r#"{"v":"meta.k8s.io/v1","rv":1,"start":"a/../b"}"#), "a/../b")]
    fn bad_tokens_are_refused(#[case] token: String, #[case] why: &str) {
        let refused = Continuation::decode(&token, Some("ns"), true).expect_err("refused");
        assert_eq!(
            refused.message,
            format!("invalid continue token: continue key is not valid: {why}")
        );
        assert_eq!(refused.code, 400);
    }

    #[test]
    fn a_key_without_a_zero_is_itself_included() {
        let token = coded(r#"{"v":"meta.k8s.io/v1","rv":-1,"start":"ns/a"}"#);
        assert_eq!(
            Continuation::decode(&token, None, true),
            Ok(Continuation {
                revision: None,
                start: Start::At(ObjectName::new("ns", "a")),
            })
        );
    }
}
