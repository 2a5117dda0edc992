//! Why a call has no result: what AWS answered, or that nothing is known of an answer.
//! Both shapes of XML errors and the JSON one are read here. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde::Deserialize;

use super::action::Action;

/// Why a call has no result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// AWS answered with an error.
    Refused(Refusal),
    /// The request never left: nothing was done.
    NotSent {
        /// What was asked for.
        action: Action,
        /// Why.
        why: String,
    },
    /// It may have arrived, and nobody knows what became of it.
    Lost {
        /// What was asked for.
        action: Action,
        /// Why there is no answer.
        why: String,
    },
    /// There are no credentials to sign with.
    Credentials {
        /// What was asked for.
        action: Action,
        /// Why.
        why: String,
    },
}

/// An error that AWS answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked for.
    pub action: Action,
    /// The status of HTTP.
    pub status: u16,
    /// The code, for example `InvalidAMIID.NotFound`.
    pub code: String,
    /// What AWS says, for people.
    pub message: String,
    /// What AWS' support asks for.
    pub request_id: String,
    /// Do not ask again before; where AWS tells.
    pub retry_after: Option<Duration>,
}

impl Failure {
    /// The code that AWS answered, if it answered.
    pub fn code(&self) -> Option<&str> {
        match self {
            Self::Refused(refusal) => Some(&refusal.code),
            Self::NotSent { .. } | Self::Lost { .. } | Self::Credentials { .. } => None,
        }
    }

    /// What was asked for.
    pub fn action(&self) -> Action {
        match self {
            Self::Refused(refusal) => refusal.action,
            Self::NotSent { action, .. } | Self::Lost { action, .. } | Self::Credentials { action, .. } => *action,
        }
    }

    /// Whether a read is worth another try at once.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Refused(refusal) => refusal.status >= 500 || refusal.is_throttled(),
            Self::NotSent { .. } | Self::Lost { .. } => true,
            Self::Credentials { .. } => false,
        }
    }
}

impl Refusal {
    /// Whether AWS asks for fewer calls.
    pub fn is_throttled(&self) -> bool {
        matches!(
            self.code.as_str(),
            "RequestLimitExceeded"
                | "Throttling"
                | "ThrottlingException"
                | "ThrottledException"
                | "RequestThrottled"
                | "TooManyRequestsException"
                | "EC2ThrottledException"
                | "SlowDown"
        )
    }

    /// Reads an answer that is none of success.
    pub(super) fn read(action: Action, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let text = std::str::from_utf8(body).unwrap_or_default();
        let found = from_xml(text).or_else(|| from_json(text, headers));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let told = found.unwrap_or_default();
        let request_id = told
            .request_id
            .or_else(|| header("x-amzn-requestid").map(ToOwned::to_owned))
            .unwrap_or_default();
        Self {
            action,
            status: status.as_u16(),
            code: told.code.unwrap_or_else(|| format!("Http{}", status.as_u16())),
            message: told
                .message
                .unwrap_or_else(|| status.canonical_reason().unwrap_or("an unknown status").to_owned()),
            request_id,
            retry_after: header("retry-after")
                .and_then(|value| value.trim().parse().ok())
                .map(Duration::from_secs),
        }
    }
}

#[derive(Debug, Default)]
struct Told {
    code: Option<String>,
    message: Option<String>,
    request_id: Option<String>,
}

/// `<Response><Errors><Error>…` of EC2 and `<ErrorResponse><Error>…` of the others.
#[derive(Debug, Deserialize)]
struct XmlAnswer {
    #[serde(rename = "Errors")]
    errors: Option<XmlErrors>,
    #[serde(rename = "Error")]
    error: Option<XmlError>,
    #[serde(rename = "RequestID", alias = "RequestId")]
    request_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct XmlErrors {
    #[serde(rename = "Error", default)]
    errors: Vec<XmlError>,
}

#[derive(Debug, Deserialize)]
struct XmlError {
    #[serde(rename = "Code")]
    code: Option<String>,
    #[serde(rename = "Message")]
    message: Option<String>,
}

fn from_xml(text: &str) -> Option<Told> {
    let answer: XmlAnswer = quick_xml::de::from_str(text).ok()?;
    let error = answer.error.or_else(|| answer.errors?.errors.into_iter().next())?;
    Some(Told {
        code: Some(error.code?),
        message: error.message,
        request_id: answer.request_id,
    })
}

#[derive(Debug, Deserialize)]
struct JsonError {
    #[serde(rename = "__type")]
    kind: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

/// `{"__type": "com.amazonaws.ssm#ParameterNotFound", "message": …}`.
fn from_json(text: &str, headers: &HeaderMap) -> Option<Told> {
    let error: JsonError = serde_json::from_str(text).ok()?;
    let header = headers
        .get("x-amzn-errortype")
        .and_then(|value| value.to_str().ok())
        .map(ToOwned::to_owned);
    let kind = error.kind.or(header)?;
    // After the namespace, before the address of its documentation.
    let code = kind.rsplit('#').next().unwrap_or(&kind);
    let code = code.split(':').next().unwrap_or(code);
    Some(Told {
        code: Some(code.to_owned()),
        message: error.message,
        request_id: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(status: u16, body: &str) -> Refusal {
        let status = StatusCode::from_u16(status).expect("a status");
        Refusal::read(Action::RunInstances, status, &HeaderMap::new(), body.as_bytes())
    }

    #[test]
    fn all_shapes_of_errors_are_read() {
        let ec2 = read(
            400,
            r#"<?xml version="1.0" encoding="UTF-8"?>
<Response><Errors><Error><Code>InvalidAMIID.NotFound</Code><Message>The image id '[ami-1]' does not exist</Message></Error></Errors><RequestID>59dbff89</RequestID></Response>"#,
        );
        assert_eq!(
            (ec2.code.as_str(), ec2.request_id.as_str(), ec2.status),
            ("InvalidAMIID.NotFound", "59dbff89", 400)
        );
        assert_eq!(ec2.message, "The image id '[ami-1]' does not exist");
        let query = read(
            403,
            r#"<ErrorResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/"><Error><Type>Sender</Type><Code>AccessDenied</Code><Message>no</Message></Error><RequestId>r-2</RequestId></ErrorResponse>"#,
        );
        assert_eq!(
            (query.code.as_str(), query.request_id.as_str()),
            ("AccessDenied", "r-2")
        );
        let json = read(
            400,
            r#"{"__type":"com.amazonaws.ssm#ParameterNotFound","message":"gone"}"#,
        );
        assert_eq!(
            (json.code.as_str(), json.message.as_str()),
            ("ParameterNotFound", "gone")
        );
    }

    #[test]
    fn what_is_no_error_of_aws_has_the_status_for_a_code() {
        for body in ["", "<html>Bad Gateway</html>", "{}", "\u{0}"] {
            let refusal = read(502, body);
            assert_eq!(
                (refusal.code.as_str(), refusal.message.as_str()),
                ("Http502", "Bad Gateway")
            );
        }
    }

    #[test]
    fn what_passes_is_worth_another_read() {
        let of = |status, code: &str| {
            Failure::Refused(Refusal {
                code: code.to_owned(),
                ..read(status, "")
            })
        };
        assert!(of(500, "InternalError").is_passing());
        assert!(of(400, "Throttling").is_passing());
        assert!(!of(400, "InvalidParameterValue").is_passing());
        assert!(!of(403, "AuthFailure").is_passing());
    }
}
