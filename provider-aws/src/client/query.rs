//! The parameters of EC2's Query protocol: a form with numbered lists. Pure.

use std::fmt::Display;

/// The parameters of one request.
#[derive(Clone, Default)]
pub struct Parameters(Vec<(String, String)>);

impl Parameters {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// One more.
    #[must_use]
    pub fn with(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.0.push((name.into(), value.to_string()));
        self
    }

    /// One more, if there is one.
    #[must_use]
    pub fn with_some(self, name: impl Into<String>, value: Option<impl Display>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// A numbered list: `InstanceId.1`, `InstanceId.2`.
    #[must_use]
    pub fn with_list(self, name: &str, values: impl IntoIterator<Item = impl Display>) -> Self {
        values.into_iter().enumerate().fold(self, |all, (index, value)| {
            all.with(format!("{name}.{}", index + 1), value)
        })
    }

    /// Filters, numbered from 1.
    #[must_use]
    pub fn with_filters<'a>(self, filters: impl IntoIterator<Item = &'a Filter>) -> Self {
        filters.into_iter().enumerate().fold(self, |all, (index, filter)| {
            let name = format!("Filter.{}", index + 1);
            all.with(format!("{name}.Name"), &filter.name)
                .with_list(&format!("{name}.Value"), &filter.values)
        })
    }

    /// Tags that a new resource of this type gets with its creation, as the specification
    /// with this number.
    #[must_use]
    pub fn with_tag_specification<'a>(
        self,
        number: usize,
        resource_type: &str,
        tags: impl IntoIterator<Item = (&'a String, &'a String)>,
    ) -> Self {
        let name = format!("TagSpecification.{number}");
        self.with(format!("{name}.ResourceType"), resource_type)
            .with_tags(&format!("{name}.Tag"), tags)
    }

    /// A list of tags.
    #[must_use]
    pub fn with_tags<'a>(self, name: &str, tags: impl IntoIterator<Item = (&'a String, &'a String)>) -> Self {
        tags.into_iter().enumerate().fold(self, |all, (index, (key, value))| {
            let tag = format!("{name}.{}", index + 1);
            all.with(format!("{tag}.Key"), key).with(format!("{tag}.Value"), value)
        })
    }

    /// The body of the request.
    pub fn encode(&self) -> String {
        let mut body = String::new();
        for (name, value) in &self.0 {
            if !body.is_empty() {
                body.push('&');
            }
            escape(name, &mut body);
            body.push('=');
            escape(value, &mut body);
        }
        body
    }
}

/// Only names: values may be bootstrap data.
impl std::fmt::Debug for Parameters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}

/// Everything but what RFC 3986 leaves unreserved is escaped.
fn escape(text: &str, into: &mut String) {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            into.push(char::from(byte));
        } else {
            into.push('%');
            into.push(char::from(HEX[usize::from(byte >> 4)]));
            into.push(char::from(HEX[usize::from(byte & 15)]));
        }
    }
}

/// One condition of a Describe call; any of the values fits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// What is compared: `vpc-id`, `tag:Name`.
    pub name: String,
    /// With what; at most 200. EC2 takes `*` and `?` for wildcards.
    pub values: Vec<String>,
}

impl Filter {
    /// This is one of these, with wildcards.
    pub fn pattern(name: impl Into<String>, values: impl IntoIterator<Item = impl Into<String>>) -> Self {
        Self {
            name: name.into(),
            values: values.into_iter().map(Into::into).collect(),
        }
    }

    /// This is exactly one of these.
    pub fn exactly(name: impl Into<String>, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        let literal = |value: &str| {
            value
                .chars()
                .flat_map(|character| {
                    matches!(character, '*' | '?' | '\\')
                        .then_some('\\')
                        .into_iter()
                        .chain([character])
                })
                .collect::<String>()
        };
        Self::pattern(name, values.into_iter().map(|value| literal(value.as_ref())))
    }

    /// The tag of this name has one of these values.
    pub fn tag(name: &str, values: impl IntoIterator<Item = impl AsRef<str>>) -> Self {
        Self::exactly(format!("tag:{name}"), values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_numbered_and_values_escaped() {
        let tags = [("a b".to_owned(), "ü&=".to_owned())];
        let body = Parameters::new()
            .with("MaxResults", 5)
            .with_some("Nothing", None::<u8>)
            .with_list("InstanceId", ["i-1", "i-2"])
            .with_filters(&[Filter::tag("k", ["x", "y"])])
            .with_tag_specification(1, "instance", tags.iter().map(|(key, value)| (key, value)))
            .encode();
        assert_eq!(
            body,
            "MaxResults=5&InstanceId.1=i-1&InstanceId.2=i-2\
             &Filter.1.Name=tag%3Ak&Filter.1.Value.1=x&Filter.1.Value.2=y\
             &TagSpecification.1.ResourceType=instance\
             &TagSpecification.1.Tag.1.Key=a%20b&TagSpecification.1.Tag.1.Value=%C3%BC%26%3D"
        );
    }

    #[test]
    fn wildcards_of_a_literal_are_escaped() {
        assert_eq!(Filter::exactly("n", ["a*b?c\\"]).values, ["a\\*b\\?c\\\\"]);
        assert_eq!(Filter::pattern("n", ["a*"]).values, ["a*"]);
    }

    #[test]
    fn values_are_not_printed() {
        let printed = format!("{:?}", Parameters::new().with("UserData", "s3cret"));
        assert!(printed.contains("UserData") && !printed.contains("s3cret"), "{printed}");
    }
}
