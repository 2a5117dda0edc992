//! The command line of the binary, besides what every provider takes. Each setting of
//! the cloud is a flag and an environment variable. Not for: acting on them.

use std::path::PathBuf;

use clap::{Args, Parser};

use crate::cloud::{SettingError, Settings};

/// Where the simulated cloud keeps its ledger.
pub const STATE_DIR_ENV: &str = "ACTUATOR_STATE_DIR";

/// Checks the value of a setting while the flags are read, so that a wrong one is an
/// error of the command line.
#[derive(Debug, Clone, Copy)]
struct Setting(&'static str);

impl clap::builder::TypedValueParser for Setting {
    type Value = String;

    fn parse_ref(
        &self,
        command: &clap::Command,
        argument: Option<&clap::Arg>,
        value: &std::ffi::OsStr,
    ) -> Result<String, clap::Error> {
        let name = self.0;
        let check = move |value: &str| match Settings::default().set(name, value) {
            Ok(()) => Ok(value.to_owned()),
            Err(SettingError::Invalid { problem, .. }) => Err(problem),
            Err(error) => Err(error.to_string()),
        };
        check.parse_ref(command, argument, value)
    }
}

/// The simulated cloud.
#[derive(Debug, Clone, Args)]
#[command(about = None, long_about = None)]
pub struct CloudFlags {
    /// Where the ledger is kept; made when it is not there
    #[arg(long, value_name = "DIR", env = STATE_DIR_ENV, help_heading = "Cloud")]
    pub state_dir: PathBuf,

    /// The seed of chance: jitter, faults, lifetimes and ids follow from it
    #[arg(
        long,
        value_name = "NUMBER",
        env = "PROVIDER_FAKE_SEED",
        default_value_t = 1,
        help_heading = "Cloud"
    )]
    pub seed: u64,

    /// Do not flush each change to the disk: the ledger then survives the end of the process, not that of the machine
    #[arg(long, env = "PROVIDER_FAKE_NO_FLUSH", help_heading = "Cloud")]
    pub no_flush: bool,

    /// Serve the control service too: whoever reaches it can do anything to the simulated cloud
    #[arg(long, env = "PROVIDER_FAKE_CONTROL", help_heading = "Cloud")]
    pub control: bool,

    /// How many mutations run at a time
    #[arg(
        long,
        value_name = "NUMBER",
        env = "PROVIDER_FAKE_MAX_CONCURRENT_MUTATIONS",
        default_value_t = 256,
        value_parser = clap::value_parser!(u16).range(1..=4096),
        help_heading = "Cloud"
    )]
    pub max_concurrent_mutations: u16,

    /// The region
    #[arg(long, value_name = "NAME", env = "PROVIDER_FAKE_REGION", value_parser = Setting("region"), help_heading = "Cloud")]
    pub region: Option<String>,

    /// The zones [default: zone-a,zone-b,zone-c]
    #[arg(long, value_name = "NAME,…", env = "PROVIDER_FAKE_ZONES", value_parser = Setting("zones"), help_heading = "Cloud")]
    pub zones: Vec<String>,

    /// The images that machines may boot [default: fakeos-1,fakeos-2]
    #[arg(long, value_name = "NAME,…", env = "PROVIDER_FAKE_IMAGES", value_parser = Setting("images"), help_heading = "Cloud")]
    pub images: Vec<String>,

    /// From the acceptance of an instance until it runs
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_BOOT_DELAY", value_parser = Setting("boot-delay"), help_heading = "Delays")]
    pub boot_delay: Option<String>,

    /// At most this much is added to the boot delay, by chance
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_BOOT_JITTER", value_parser = Setting("boot-jitter"), help_heading = "Delays")]
    pub boot_jitter: Option<String>,

    /// From the acceptance of a deletion until the resource is gone
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_DELETE_DELAY", value_parser = Setting("delete-delay"), help_heading = "Delays")]
    pub delete_delay: Option<String>,

    /// From the acceptance of a network until instances may be put into it
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_NETWORK_DELAY", value_parser = Setting("network-delay"), help_heading = "Delays")]
    pub network_delay: Option<String>,

    /// How long each call of the cloud takes
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_API_LATENCY", value_parser = Setting("api-latency"), help_heading = "Delays")]
    pub api_latency: Option<String>,

    /// At most this much is added to the latency, by chance
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_API_JITTER", value_parser = Setting("api-jitter"), help_heading = "Delays")]
    pub api_jitter: Option<String>,

    /// For this long after a write, reads show the old state
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_READ_AFTER_WRITE", value_parser = Setting("read-after-write"), help_heading = "Delays")]
    pub read_after_write: Option<String>,

    /// What an account may have: instances, cpus, disk-gib, addresses, networks, load-balancers
    #[arg(long, value_name = "QUOTA=NUMBER,…", env = "PROVIDER_FAKE_QUOTA", value_parser = Setting("quota"), help_heading = "Limits")]
    pub quota: Vec<String>,

    /// How many instances a zone holds, of all types or of one
    #[arg(long, value_name = "ZONE[/TYPE]=NUMBER,…", env = "PROVIDER_FAKE_CAPACITY", value_parser = Setting("capacity"), help_heading = "Limits")]
    pub capacity: Vec<String>,

    /// How many calls the cloud takes: 50/s, or 3000/m:100 with a burst of 100
    #[arg(long, value_name = "RATE", env = "PROVIDER_FAKE_RATE_LIMIT", value_parser = Setting("rate-limit"), help_heading = "Limits")]
    pub rate_limit: Option<String>,

    /// The token that every call must bring in the entry "token" of its credentials, or several of which one will do
    #[arg(
        long,
        value_name = "TOKEN,…",
        env = "PROVIDER_FAKE_REQUIRE_TOKEN",
        hide_env_values = true,
        help_heading = "Limits"
    )]
    pub require_token: Vec<String>,

    /// Tokens that were good once
    #[arg(
        long,
        value_name = "TOKEN,…",
        env = "PROVIDER_FAKE_EXPIRED_TOKEN",
        hide_env_values = true,
        help_heading = "Limits"
    )]
    pub expired_token: Vec<String>,

    /// How often calls fail, of all methods or of one: CLOUD_UNAVAILABLE=0.05, RunInstance:QUOTA_EXCEEDED=0.1
    #[arg(long, value_name = "[METHOD:]REASON=PROBABILITY,…", env = "PROVIDER_FAKE_ERROR_RATE", value_parser = Setting("error-rate"), help_heading = "Faults")]
    pub error_rate: Vec<String>,

    /// How often a mutation is carried out and its answer never arrives
    #[arg(long, value_name = "PROBABILITY", env = "PROVIDER_FAKE_LOSE_RESPONSES", value_parser = Setting("lose-responses"), help_heading = "Faults")]
    pub lose_responses: Option<String>,

    /// How long a call whose answer never arrives hangs [default: 30s]
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_LOST_RESPONSE_TIMEOUT", value_parser = Setting("lost-response-timeout"), help_heading = "Faults")]
    pub lost_response_timeout: Option<String>,

    /// How long instances live on average before they die by themselves
    #[arg(long, value_name = "DURATION", env = "PROVIDER_FAKE_MEAN_LIFETIME", value_parser = Setting("mean-lifetime"), help_heading = "Faults")]
    pub mean_lifetime: Option<String>,

    /// Begin with an outage of the whole cloud; the control service ends it
    #[arg(long, env = "PROVIDER_FAKE_OUTAGE", help_heading = "Faults")]
    pub outage: bool,
}

impl CloudFlags {
    /// The settings that the flags ask for.
    pub fn settings(&self) -> Result<Settings, SettingError> {
        let several = |values: &[String]| (!values.is_empty()).then(|| values.join(","));
        let wanted = [
            ("region", self.region.clone()),
            ("zones", several(&self.zones)),
            ("images", several(&self.images)),
            ("boot-delay", self.boot_delay.clone()),
            ("boot-jitter", self.boot_jitter.clone()),
            ("delete-delay", self.delete_delay.clone()),
            ("network-delay", self.network_delay.clone()),
            ("api-latency", self.api_latency.clone()),
            ("api-jitter", self.api_jitter.clone()),
            ("read-after-write", self.read_after_write.clone()),
            ("quota", several(&self.quota)),
            ("capacity", several(&self.capacity)),
            ("rate-limit", self.rate_limit.clone()),
            ("require-token", several(&self.require_token)),
            ("expired-token", several(&self.expired_token)),
            ("error-rate", several(&self.error_rate)),
            ("lose-responses", self.lose_responses.clone()),
            ("lost-response-timeout", self.lost_response_timeout.clone()),
            ("mean-lifetime", self.mean_lifetime.clone()),
            ("outage", self.outage.then(|| "true".to_owned())),
        ];
        let mut settings = Settings::default();
        for (name, value) in wanted {
            if let Some(value) = value {
                settings.set(name, &value)?;
            }
        }
        Ok(settings)
    }
}

/// `provider-fake audit`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "provider-fake audit",
    version,
    about = "Judge a run by its journal: print what is alive, made twice or left behind, as JSON",
    long_about = "Judge a run by its journal: print what is alive, made twice or left behind, as JSON.\n\nWorks while a \
                  provider runs on the folder and after it was killed.",
    after_help = "Exit codes:\n  0  nothing was made twice or left behind, and --expect-keys holds\n  1  something was, or \
                  the journal cannot be read\n  2  the flags are wrong\n\nExamples:\n  provider-fake audit --state-dir \
                  ./state\n  provider-fake audit --state-dir ./state --expect-keys keys.txt"
)]
pub struct AuditFlags {
    /// The folder of the ledger
    #[arg(long, value_name = "DIR", env = STATE_DIR_ENV)]
    pub state_dir: PathBuf,

    /// A file with one key a line: exactly these must have an instance
    #[arg(long, value_name = "FILE", env = "PROVIDER_FAKE_EXPECT_KEYS")]
    pub expect_keys: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::settings::SETTINGS;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        cloud: CloudFlags,
    }

    #[test]
    fn every_setting_has_a_flag_that_sets_it() {
        let values = [
            ("quota", "instances=1"),
            ("capacity", "zone-a=1"),
            ("rate-limit", "1/s:1"),
            ("error-rate", "CLOUD_UNAVAILABLE=1"),
            ("lose-responses", "1"),
            ("region", "mars-1"),
            ("zones", "a,b"),
            ("images", "a,b"),
        ];
        for name in SETTINGS {
            let value = values
                .iter()
                .find(|(known, _)| *known == name)
                .map_or("7s", |(_, value)| value);
            let mut arguments = vec![
                "provider-fake".to_owned(),
                "--state-dir=x".to_owned(),
                format!("--{name}"),
            ];
            if name != "outage" {
                arguments.push(value.to_owned());
            }
            let settings = Line::try_parse_from(arguments)
                .expect(name)
                .cloud
                .settings()
                .expect(name);
            assert_ne!(settings.entries()[name], Settings::default().entries()[name], "{name}");
        }
    }

    #[test]
    fn flags_may_be_repeated() {
        let line = [
            "provider-fake",
            "--state-dir=x",
            "--quota",
            "instances=1",
            "--quota",
            "cpus=2,networks=3",
        ];
        let settings = Line::try_parse_from(line)
            .expect("parsed")
            .cloud
            .settings()
            .expect("settings");
        assert_eq!(settings.entries()["quota"], "instances=1,cpus=2,networks=3");
    }

    #[test]
    fn a_wrong_value_is_an_error_of_the_command_line() {
        let line = ["provider-fake", "--state-dir=x", "--boot-delay", "soon"];
        let error = Line::try_parse_from(line).expect_err("refused");
        assert!(error.to_string().contains("500ms") && error.exit_code() == 2, "{error}");
    }
}
