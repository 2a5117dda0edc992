//! `--provider NAME[=ENDPOINT]`.

use std::str::FromStr;

/// A provider of `clusterctl up`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderFlag {
    /// The provider's own name, a DNS label.
    pub name: String,
    /// Where somebody else runs it; `None`: `clusterctl` starts it itself.
    pub endpoint: Option<String>,
}

impl FromStr for ProviderFlag {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, endpoint) = match text.split_once('=') {
            Some((name, endpoint)) => (name, Some(endpoint)),
            None => (text, None),
        };
        let label = !name.is_empty()
            && name.len() <= 63
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
            && !name.starts_with('-')
            && !name.ends_with('-');
        if !label {
            return Err(format!(
                "{name:?} is no provider name; lower-case letters, digits and '-' are allowed, for example fake"
            ));
        }
        if let Some(endpoint) = endpoint
            && !["unix:///", "https://", "http://"]
                .iter()
                .any(|scheme| endpoint.starts_with(scheme))
        {
            return Err(format!(
                "{endpoint:?} is no endpoint; unix:///PATH or https://HOST:PORT is expected, or the name alone to run \
                 the provider here"
            ));
        }
        Ok(Self {
            name: name.to_owned(),
            endpoint: endpoint.map(ToOwned::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_endpoints_are_told_apart() {
        assert_eq!(
            "fake".parse(),
            Ok(ProviderFlag {
                name: "fake".into(),
                endpoint: None
            })
        );
        assert_eq!(
            "aws=unix:///run/aws.sock".parse(),
            Ok(ProviderFlag {
                name: "aws".into(),
                endpoint: Some("unix:///run/aws.sock".into())
            })
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        for wrong in ["", "../fake", "Fake", "-a", "fake=", "fake=/run/x.sock"] {
            assert!(wrong.parse::<ProviderFlag>().is_err(), "{wrong:?} was taken");
        }
    }
}
