//! How the simulated cloud behaves: delays, limits and faults. Every setting has a
//! name and a value as text, the same on the command line, in the environment and in
//! the control service. Not for: acting on them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use actuator_proto::errors::table;
use actuator_proto::v1::{Effect, ErrorReason};
use jiff::SignedDuration;

use super::catalogue;

/// How many calls the API takes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// In the long run.
    pub per_second: f64,
    /// At once.
    pub burst: u32,
}

/// Something that an account may have only so much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Quota {
    /// Instances.
    Instances,
    /// Processors of all instances.
    Cpus,
    /// GiB of all disks.
    DiskGib,
    /// Public addresses.
    Addresses,
    /// Networks.
    Networks,
    /// Load balancers.
    LoadBalancers,
}

impl Quota {
    const ALL: [Quota; 6] = [
        Self::Instances,
        Self::Cpus,
        Self::DiskGib,
        Self::Addresses,
        Self::Networks,
        Self::LoadBalancers,
    ];

    /// As it is written in `--quota`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Instances => "instances",
            Self::Cpus => "cpus",
            Self::DiskGib => "disk-gib",
            Self::Addresses => "addresses",
            Self::Networks => "networks",
            Self::LoadBalancers => "load-balancers",
        }
    }
}

/// How often calls fail with one reason.
#[derive(Debug, Clone, PartialEq)]
pub struct ErrorRate {
    /// Only calls of this method of the cloud's API; `None`: all.
    pub method: Option<String>,
    /// The reason.
    pub reason: ErrorReason,
    /// From 0 to 1.
    pub probability: f64,
}

impl ErrorRate {
    /// Whether the table allows this error of a call that did act, with what effect.
    pub fn effect_after_acting(&self) -> Option<Effect> {
        let effects = table::rule_for(self.reason)?.effects;
        effects.contains(&Effect::Unknown).then_some(Effect::Unknown)
    }
}

/// Text that is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Keeps `text` from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Whether it is `other`, in a time that does not depend on where they differ.
    pub fn matches(&self, other: &[u8]) -> bool {
        let own = self.0.as_bytes();
        own.len() == other.len() && own.iter().zip(other).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A setting that was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingError {
    /// There is no such setting.
    #[error("there is no setting {name:?}; the settings are {}", SETTINGS.join(", "))]
    Unknown {
        /// What was asked for.
        name: String,
    },
    /// The value is none that the setting takes.
    #[error("--{name} {value:?} is not usable: {problem}")]
    Invalid {
        /// Which setting.
        name: String,
        /// What it was to be.
        value: String,
        /// What is wrong and what is allowed.
        problem: String,
    },
}

/// The names of all settings.
pub const SETTINGS: [&str; 20] = [
    "api-jitter",
    "api-latency",
    "boot-delay",
    "boot-jitter",
    "capacity",
    "delete-delay",
    "error-rate",
    "expired-token",
    "images",
    "lose-responses",
    "lost-response-timeout",
    "mean-lifetime",
    "network-delay",
    "outage",
    "quota",
    "rate-limit",
    "read-after-write",
    "region",
    "require-token",
    "zones",
];

/// How the cloud behaves. The default has no delay, no limit and no fault.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The one region.
    pub region: String,
    /// Its zones.
    pub zones: Vec<String>,
    /// The images that are there.
    pub images: Vec<String>,
    /// From the acceptance of an instance until it runs.
    pub boot_delay: Duration,
    /// At most this much is added to the boot delay, by chance.
    pub boot_jitter: Duration,
    /// From the acceptance of a deletion until the resource is gone.
    pub delete_delay: Duration,
    /// From the acceptance of a network until instances may be put into it.
    pub network_delay: Duration,
    /// How long each call takes.
    pub api_latency: Duration,
    /// At most this much is added to the latency, by chance.
    pub api_jitter: Duration,
    /// For this long after a write, reads show the old state.
    pub read_after_write: Duration,
    /// What an account may have.
    pub quotas: BTreeMap<Quota, u64>,
    /// How many instances a zone holds, by `ZONE` or `ZONE/TYPE`.
    pub capacity: BTreeMap<String, u64>,
    /// How many calls the API takes.
    pub rate_limit: Option<RateLimit>,
    /// How often calls fail.
    pub error_rates: Vec<ErrorRate>,
    /// How often a mutation is carried out and its answer never arrives.
    pub lose_responses: f64,
    /// How long a call whose answer never arrives hangs before the client gives up.
    pub lost_response_timeout: Duration,
    /// How long instances live on average before they die by themselves.
    pub mean_lifetime: Option<Duration>,
    /// Whether the cloud answers nothing but CLOUD_UNAVAILABLE.
    pub outage: bool,
    /// The tokens of which every call must bring one; none: no token is looked at.
    pub required_tokens: Vec<Secret>,
    /// Tokens that were good once.
    pub expired_tokens: Vec<Secret>,
}

impl Default for Settings {
    fn default() -> Self {
        let strings = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            region: "fake-1".to_owned(),
            zones: strings(catalogue::ZONES),
            images: strings(catalogue::IMAGES),
            boot_delay: Duration::ZERO,
            boot_jitter: Duration::ZERO,
            delete_delay: Duration::ZERO,
            network_delay: Duration::ZERO,
            api_latency: Duration::ZERO,
            api_jitter: Duration::ZERO,
            read_after_write: Duration::ZERO,
            quotas: BTreeMap::new(),
            capacity: BTreeMap::new(),
            rate_limit: None,
            error_rates: Vec::new(),
            lose_responses: 0.0,
            lost_response_timeout: Duration::from_secs(30),
            mean_lifetime: None,
            outage: false,
            required_tokens: Vec::new(),
            expired_tokens: Vec::new(),
        }
    }
}

impl Settings {
    /// Sets one setting from text. An empty value switches it back to its default.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), SettingError> {
        if !SETTINGS.contains(&name) {
            return Err(SettingError::Unknown { name: name.to_owned() });
        }
        let value = value.trim();
        let secret = matches!(name, "require-token" | "expired-token");
        self.assign(name, Some(value).filter(|value| !value.is_empty()))
            .map_err(|problem| SettingError::Invalid {
                name: name.to_owned(),
                value: if secret { "[redacted]" } else { value }.to_owned(),
                problem,
            })
    }

    /// `None` is the default. What is refused leaves everything as it was.
    fn assign(&mut self, name: &str, value: Option<&str>) -> Result<(), String> {
        let delay = || value.map_or(Ok(Duration::ZERO), duration);
        let default = Self::default();
        match name {
            "region" => self.region = value.map_or(Ok(default.region), one_name)?,
            "zones" => self.zones = value.map_or(Ok(default.zones), names)?,
            "images" => self.images = value.map_or(Ok(default.images), names)?,
            "boot-delay" => self.boot_delay = delay()?,
            "boot-jitter" => self.boot_jitter = delay()?,
            "delete-delay" => self.delete_delay = delay()?,
            "network-delay" => self.network_delay = delay()?,
            "api-latency" => self.api_latency = delay()?,
            "api-jitter" => self.api_jitter = delay()?,
            "read-after-write" => self.read_after_write = delay()?,
            "quota" => {
                let pairs = pairs(value.unwrap_or_default(), "QUOTA=NUMBER", count)?;
                self.quotas = pairs.iter().map(quota).collect::<Result<_, _>>()?;
            }
            "capacity" => {
                let form = "ZONE=NUMBER or ZONE/TYPE=NUMBER";
                self.capacity = pairs(value.unwrap_or_default(), form, count)?.into_iter().collect();
            }
            "rate-limit" => self.rate_limit = value.map(rate_limit).transpose()?,
            "error-rate" => {
                let form = "REASON=PROBABILITY or METHOD:REASON=PROBABILITY";
                let pairs = pairs(value.unwrap_or_default(), form, probability)?;
                self.error_rates = pairs.iter().map(error_rate).collect::<Result<_, _>>()?;
            }
            "lose-responses" => self.lose_responses = value.map_or(Ok(0.0), probability)?,
            "lost-response-timeout" => {
                self.lost_response_timeout = value.map_or(Ok(default.lost_response_timeout), duration)?;
            }
            "mean-lifetime" => self.mean_lifetime = value.map(lifetime).transpose()?,
            "outage" => self.outage = value.map_or(Ok(false), on_or_off)?,
            "require-token" => self.required_tokens = tokens(value),
            "expired-token" => self.expired_tokens = tokens(value),
            _ => return Err(format!("there is no setting {name:?}")),
        }
        Ok(())
    }

    /// Every setting as text, as [`Settings::set`] takes it; tokens are redacted.
    pub fn entries(&self) -> BTreeMap<&'static str, String> {
        let quotas = self
            .quotas
            .iter()
            .map(|(quota, limit)| format!("{}={limit}", quota.name()));
        let capacity = self.capacity.iter().map(|(place, limit)| format!("{place}={limit}"));
        let rates = self.error_rates.iter().map(|rate| {
            let method = rate
                .method
                .as_ref()
                .map(|method| format!("{method}:"))
                .unwrap_or_default();
            format!("{method}{}={}", rate.reason.wire_name(), rate.probability)
        });
        let redacted = |secret: bool| if secret { "[redacted]" } else { "" }.to_owned();
        let rate_limit = |limit: RateLimit| format!("{}/s:{}", limit.per_second, limit.burst);
        BTreeMap::from([
            ("api-jitter", friendly(self.api_jitter)),
            ("api-latency", friendly(self.api_latency)),
            ("boot-delay", friendly(self.boot_delay)),
            ("boot-jitter", friendly(self.boot_jitter)),
            ("capacity", joined(capacity)),
            ("delete-delay", friendly(self.delete_delay)),
            ("error-rate", joined(rates)),
            ("expired-token", redacted(!self.expired_tokens.is_empty())),
            ("images", self.images.join(",")),
            ("lose-responses", self.lose_responses.to_string()),
            ("lost-response-timeout", friendly(self.lost_response_timeout)),
            ("mean-lifetime", self.mean_lifetime.map(friendly).unwrap_or_default()),
            ("network-delay", friendly(self.network_delay)),
            ("outage", self.outage.to_string()),
            ("quota", joined(quotas)),
            ("rate-limit", self.rate_limit.map(rate_limit).unwrap_or_default()),
            ("read-after-write", friendly(self.read_after_write)),
            ("region", self.region.clone()),
            ("require-token", redacted(!self.required_tokens.is_empty())),
            ("zones", self.zones.join(",")),
        ])
    }
}

fn tokens(value: Option<&str>) -> Vec<Secret> {
    value
        .unwrap_or_default()
        .split(',')
        .filter(|token| !token.is_empty())
        .map(Secret::new)
        .collect()
}

fn joined(parts: impl Iterator<Item = String>) -> String {
    parts.collect::<Vec<_>>().join(",")
}

fn friendly(duration: Duration) -> String {
    SignedDuration::try_from(duration).map_or_else(|_| format!("{}s", duration.as_secs()), |it| format!("{it:#}"))
}

/// Reads `2s`, `500ms`, `1m30s` or `0`; at most 30 days.
pub fn duration(text: &str) -> Result<Duration, String> {
    const LONGEST: Duration = Duration::from_hours(720);
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let problem = || "a duration such as 500ms, 2s, 1m30s or 24h is allowed, at most 720h".to_owned();
    let signed: SignedDuration = text.parse().map_err(|_| problem())?;
    let duration = Duration::try_from(signed).map_err(|_| problem())?;
    if duration > LONGEST {
        return Err(problem());
    }
    Ok(duration)
}

fn lifetime(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("it must be longer than nothing".to_owned()),
        lifetime => Ok(lifetime),
    }
}

fn on_or_off(text: &str) -> Result<bool, String> {
    match text {
        "true" | "on" => Ok(true),
        "false" | "off" => Ok(false),
        _ => Err("true or false is allowed".to_owned()),
    }
}

fn one_name(text: &str) -> Result<String, String> {
    match <[String; 1]>::try_from(names(text)?) {
        Ok([name]) => Ok(name),
        Err(_) => Err("one name is allowed".to_owned()),
    }
}

fn count(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{text:?} is not a whole number"))
}

fn probability(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(probability) if (0.0..=1.0).contains(&probability) => Ok(probability),
        _ => Err(format!("{text:?} is not a probability from 0 to 1")),
    }
}

fn names(text: &str) -> Result<Vec<String>, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    for name in &names {
        if name.is_empty() || name.len() > 63 || !name.chars().all(allowed) {
            return Err(format!("{name:?} is not a name: 1 to 63 of [A-Za-z0-9._-] are allowed"));
        }
    }
    if names.iter().collect::<BTreeSet<_>>().len() != names.len() {
        return Err("a name is there twice".to_owned());
    }
    Ok(names)
}

fn pairs<T>(text: &str, form: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Vec<(String, T)>, String> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| format!("{part:?} has no equals sign; {form} is allowed"))?;
            Ok((name.trim().to_owned(), read(value.trim())?))
        })
        .collect()
}

fn quota((name, limit): &(String, u64)) -> Result<(Quota, u64), String> {
    let known = Quota::ALL.into_iter().find(|quota| quota.name() == name);
    let names = Quota::ALL.map(Quota::name).join(", ");
    let quota = known.ok_or_else(|| format!("there is no quota {name:?}; the quotas are {names}"))?;
    Ok((quota, *limit))
}

fn error_rate((name, probability): &(String, f64)) -> Result<ErrorRate, String> {
    let (method, reason) = match name.split_once(':') {
        Some((method, reason)) => (Some(method.to_owned()), reason),
        None => (None, name.as_str()),
    };
    if let Some(method) = &method
        && !super::METHODS.contains(&method.as_str())
    {
        let methods = super::METHODS.join(", ");
        return Err(format!("there is no method {method:?}; the methods are {methods}"));
    }
    let reason = ErrorReason::from_wire_name(reason)
        .ok_or_else(|| format!("{reason:?} is no reason of the error table, CLOUD_UNAVAILABLE for example"))?;
    Ok(ErrorRate {
        method,
        reason,
        probability: *probability,
    })
}

fn rate_limit(text: &str) -> Result<RateLimit, String> {
    let problem = || "NUMBER/s or NUMBER/m is allowed, with :BURST behind it if wanted".to_owned();
    let (rate, burst) = match text.split_once(':') {
        Some((rate, burst)) => (rate, Some(burst.parse::<u32>().map_err(|_| problem())?)),
        None => (text, None),
    };
    let (number, unit) = rate.split_once('/').ok_or_else(problem)?;
    let number: f64 = number.parse().map_err(|_| problem())?;
    let per_second = match unit {
        "s" => number,
        "m" => number / 60.0,
        _ => return Err(problem()),
    };
    if !per_second.is_finite() || per_second <= 0.0 || burst == Some(0) {
        return Err(problem());
    }
    Ok(RateLimit {
        per_second,
        burst: burst.unwrap_or(per_second.ceil() as u32).max(1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_is_read_back_as_it_was_set() {
        let mut settings = Settings::default();
        let wanted = [
            ("api-jitter", "3ms"),
            ("api-latency", "20ms"),
            ("boot-delay", "2s"),
            ("boot-jitter", "500ms"),
            ("capacity", "zone-a=20,zone-b/fake.gpu=1"),
            ("delete-delay", "1s"),
            ("error-rate", "CLOUD_UNAVAILABLE=0.05,RunInstance:QUOTA_EXCEEDED=0.5"),
            ("images", "one,two"),
            ("lose-responses", "0.02"),
            ("lost-response-timeout", "2s"),
            ("mean-lifetime", "10m"),
            ("network-delay", "4s"),
            ("outage", "true"),
            ("quota", "instances=100,cpus=400"),
            ("rate-limit", "50/s:10"),
            ("read-after-write", "1s"),
            ("region", "mars-1"),
            ("zones", "x,y"),
        ];
        for (name, value) in wanted {
            settings.set(name, value).expect(name);
            assert_eq!(settings.entries()[name], value);
        }
        settings.set("require-token", "hunter2").expect("any text is a token");
        settings.set("expired-token", "old,older").expect("any text is a token");
        assert_eq!(settings.entries()["require-token"], "[redacted]");
        assert!(!format!("{settings:?}").contains("hunter2"));
        for name in SETTINGS {
            settings.set(name, "").expect(name);
        }
        assert_eq!(settings, Settings::default());
        let names: Vec<&str> = settings.entries().into_keys().collect();
        assert_eq!(names, SETTINGS);
    }

    #[test]
    fn wrong_values_are_refused_with_what_is_allowed_and_change_nothing() {
        for (name, value, word) in [
            ("boot-delay", "soon", "duration"),
            ("boot-delay", "-1s", "duration"),
            ("boot-delay", "100000h", "720h"),
            ("lose-responses", "1.5", "probability"),
            ("lose-responses", "NaN", "probability"),
            ("error-rate", "OOPS=0.1", "error table"),
            ("error-rate", "Fly:CLOUD_UNAVAILABLE=0.1", "RunInstance"),
            ("error-rate", "CLOUD_UNAVAILABLE", "equals sign"),
            ("quota", "planets=1", "instances"),
            ("quota", "instances=many", "whole number"),
            ("rate-limit", "fast", "NUMBER/s"),
            ("rate-limit", "0/s", "NUMBER/s"),
            ("rate-limit", "5/s:0", "NUMBER/s"),
            ("zones", "a,a", "twice"),
            ("zones", "a b", "name"),
            ("outage", "maybe", "true or false"),
            ("mean-lifetime", "0s", "longer"),
            ("weather", "fine", "no setting"),
        ] {
            let mut settings = Settings::default();
            let error = settings.set(name, value).expect_err(name).to_string();
            assert!(error.contains(word), "{name} {value}: {error}");
            assert_eq!(settings, Settings::default(), "{name} {value}");
        }
    }
}
