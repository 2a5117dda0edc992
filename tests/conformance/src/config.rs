//! The config file: what the suite has to know of a provider that the protocol does not
//! tell. YAML or JSON; every field but the valid configs and, where the provider needs
//! them, the credentials may be left out: rules that need one are then skipped, and the
//! report says so.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What the suite is told about a provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Configs of clusters.
    pub cluster: Configs,
    /// Configs of machines.
    pub machine: Configs,
    /// What to reach the cloud with.
    #[serde(default)]
    pub credentials: CredentialSets,
    /// A Kubernetes version that the images have; none is sent when left out.
    #[serde(default)]
    pub kubernetes_version: Option<String>,
    /// How long things take in this cloud.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What the suite may use at a time.
    #[serde(default)]
    pub budget: Budget,
    /// How to restart the provider; without it, the rules about crashes are skipped.
    #[serde(default)]
    pub restart: Option<Restart>,
    /// Files that the provider writes its logs and spans to: no secret may be in them.
    #[serde(default)]
    pub logs: Vec<PathBuf>,
    /// Where its metrics are, `http://127.0.0.1:PORT/metrics`: no secret may be in them.
    #[serde(default)]
    pub metrics: Option<String>,
}

/// Configs of one kind.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Configs {
    /// The kind; the first one with the right target in `GetInfoResponse.config_kinds` when left out.
    #[serde(default)]
    pub kind: Option<String>,
    /// The schema version; the first one of the kind when left out.
    #[serde(default)]
    pub schema_version: Option<String>,
    /// The smallest and cheapest one that works.
    pub valid: Value,
    /// One that the valid one can be changed to in place.
    #[serde(default)]
    pub alternative: Option<Value>,
    /// One that the valid one cannot be changed to in place.
    #[serde(default)]
    pub replacement: Option<Value>,
    /// Ones that a static validation refuses.
    #[serde(default)]
    pub invalid: Vec<Invalid>,
    /// One that names something that the cloud does not have (an image, a subnet).
    #[serde(default)]
    pub missing_dependency: Option<Value>,
    /// The JSON pointer of an integer in the valid config, or where one may be added.
    #[serde(default)]
    pub integer_at: Option<String>,
    /// What one costs a day, in units of your own.
    #[serde(default = "one")]
    pub cost: f64,
}

/// A config that is refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Invalid {
    /// The config.
    pub config: Value,
    /// Where it is wrong, as a JSON pointer.
    pub at: String,
}

/// Credentials, good and bad.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CredentialSets {
    /// Ones that work; the provider's own (`ambient`) when left out.
    #[serde(default)]
    pub good: BTreeMap<String, Secret>,
    /// Others that work for the same account: credentials rotate.
    #[serde(default)]
    pub rotated: BTreeMap<String, Secret>,
    /// Ones that the cloud refuses.
    #[serde(default)]
    pub bad: BTreeMap<String, Secret>,
}

/// One entry of the credentials, from where it is kept.
#[derive(Clone, Deserialize)]
#[serde(untagged)]
pub enum Secret {
    /// Written here: fit for a simulated cloud only.
    Value(String),
    /// In an environment variable.
    Environment {
        /// Its name.
        env: String,
    },
    /// In a file.
    File {
        /// Its path.
        file: PathBuf,
    },
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Value(_) => formatter.write_str("[redacted]"),
            Self::Environment { env } => write!(formatter, "${env}"),
            Self::File { file } => write!(formatter, "{}", file.display()),
        }
    }
}

impl Secret {
    /// The secret itself.
    pub fn read(&self) -> anyhow::Result<Vec<u8>> {
        match self {
            Self::Value(value) => Ok(value.clone().into_bytes()),
            Self::Environment { env } => match std::env::var_os(env) {
                Some(value) => Ok(value.to_string_lossy().into_owned().into_bytes()),
                None => bail!("the credentials name the environment variable {env}, which is not set; set it"),
            },
            Self::File { file } => std::fs::read(file)
                .with_context(|| format!("the credentials name {}, which cannot be read", file.display())),
        }
    }
}

/// How long things take in this cloud.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Timeouts {
    /// From a create until the machine runs.
    #[serde(deserialize_with = "duration")]
    pub running: Duration,
    /// From a create until the cluster is ready.
    #[serde(deserialize_with = "duration")]
    pub ready: Duration,
    /// From a delete until it is gone.
    #[serde(deserialize_with = "duration")]
    pub gone: Duration,
    /// From a restart until the provider answers.
    #[serde(deserialize_with = "duration")]
    pub restart: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            running: Duration::from_mins(10),
            ready: Duration::from_mins(15),
            gone: Duration::from_mins(15),
            restart: Duration::from_mins(1),
        }
    }
}

/// What the suite may use at a time.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Budget {
    /// Machines.
    pub machines: u32,
    /// What machines and clusters cost a day, in the units of `cost`.
    pub cost: f64,
}

impl Default for Budget {
    fn default() -> Self {
        Self {
            machines: 30,
            cost: 100.0,
        }
    }
}

/// How to restart the provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Restart {
    /// A command that kills the provider (`kill -9`) and starts it again on the same state; it ends when that is done.
    pub command: Vec<String>,
}

fn one() -> f64 {
    1.0
}

/// `90s`, `10m`, `500ms`, `1h`.
pub fn parse_duration(text: &str) -> anyhow::Result<Duration> {
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let millis = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => bail!("{text:?} is no duration; write for example 500ms, 90s, 10m or 1h"),
    };
    let number: u64 = number
        .parse()
        .with_context(|| format!("{text:?} is no duration; write for example 90s or 10m"))?;
    Ok(Duration::from_millis(number.saturating_mul(millis)))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads and checks a file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("failed to read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("{} is not a config of the suite", path.display()))
    }

    /// Parses and checks a text.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let config: Self = serde_saphyr::from_str(text)?;
        for (name, configs) in [("cluster", &config.cluster), ("machine", &config.machine)] {
            for (field, value) in [
                ("valid", Some(&configs.valid)),
                ("alternative", configs.alternative.as_ref()),
                ("replacement", configs.replacement.as_ref()),
                ("missingDependency", configs.missing_dependency.as_ref()),
            ] {
                if value.is_some_and(|value| !value.is_object()) {
                    bail!("{name}.{field} must be an object: a config as a user writes it");
                }
            }
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_config_has_defaults() {
        let config = Config::parse("cluster: {valid: {}}\nmachine: {valid: {machineType: small}}\n").unwrap();
        assert_eq!(config.budget.machines, 30);
        assert_eq!(config.timeouts.gone, Duration::from_mins(15));
        assert!(config.credentials.good.is_empty());
    }

    #[test]
    fn durations_are_read_and_others_refused() {
        assert_eq!(parse_duration("90s").unwrap(), Duration::from_secs(90));
        assert_eq!(parse_duration("500ms").unwrap(), Duration::from_millis(500));
        for wrong in ["", "90", "s", "-1s", "1.5s", "1 s"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn secrets_come_from_elsewhere_and_are_never_printed() {
        let config = Config::parse(
            "cluster: {valid: {}}\nmachine: {valid: {}}\ncredentials: {good: {token: hunter2, key: {env: A_KEY}}}\n",
        )
        .unwrap();
        let printed = format!("{config:?}");
        assert!(!printed.contains("hunter2") && printed.contains("$A_KEY"), "{printed}");
    }

    #[test]
    fn a_field_that_is_unknown_or_no_object_is_refused() {
        assert!(Config::parse("cluster: {valid: {}}\nmachine: {valid: {}}\nmachines: 1\n").is_err());
        assert!(Config::parse("cluster: {valid: 1}\nmachine: {valid: {}}\n").is_err());
    }
}
