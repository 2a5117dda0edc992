//! The command line of the binary `core-controller`: flags, their environment
//! variables, and what is wrong with them.
//!
//! Not for: running anything.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Parser};

use crate::lease::LeaseSettings;
use crate::options::{Options, ProviderEndpoint};
use crate::telemetry::logs::LogFormat;

const EXAMPLES: &str = "\
Examples:
  # Against the cluster of the current kubeconfig, with one provider on a Unix socket:
  core-controller --install-crds --provider fake=unix:///run/actuator/fake/actuator.sock

  # In a Pod, with the providers as sidecars; sockets appear in a shared folder:
  core-controller --socket-dir /run/actuator --metrics-listen 0.0.0.0:8080 --log-format json

  # A provider elsewhere, over mutual TLS (the folder has ca.crt, tls.crt and tls.key):
  core-controller --provider aws=https://actuator.example.com:8443 --provider-tls aws=/etc/actuator/aws \\
    --provider-server-name aws=aws.actuator.example.com

Every flag can be given by an environment variable instead; lists are separated by commas.";

/// Reconciles clusters and machines through out-of-process providers.
#[derive(Debug, Clone, Parser)]
#[command(name = "core-controller", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Arguments {
    /// The kubeconfig of the management cluster; without it the usual places are searched, and the
    /// Pod's service account.
    #[arg(long, value_name = "FILE", env = "OUTRIGGER_KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,

    /// The context of the kubeconfig; without it the current one.
    #[arg(long, value_name = "NAME", env = "OUTRIGGER_CONTEXT")]
    pub context: Option<String>,

    /// A provider and its endpoint; may be repeated.
    #[arg(long = "provider", value_name = "NAME=ENDPOINT", env = "OUTRIGGER_PROVIDERS",
          value_delimiter = ',', value_parser = named_endpoint)]
    pub providers: Vec<(String, String)>,

    /// The folder with ca.crt, tls.crt and tls.key for a provider with an https endpoint; may be
    /// repeated.
    #[arg(long, value_name = "NAME=DIR", env = "OUTRIGGER_PROVIDER_TLS", value_delimiter = ',',
          value_parser = named_folder)]
    pub provider_tls: Vec<(String, PathBuf)>,

    /// The name that a provider's certificate must have, instead of the host of its endpoint;
    /// may be repeated.
    #[arg(long, value_name = "NAME=SERVER", env = "OUTRIGGER_PROVIDER_SERVER_NAMES", value_delimiter = ',',
          value_parser = named_server)]
    pub provider_server_name: Vec<(String, String)>,

    /// A user whose processes may serve provider sockets, beside the core's own and root; may be
    /// repeated.
    #[arg(
        long = "allow-peer-uid",
        value_name = "UID",
        env = "OUTRIGGER_ALLOW_PEER_UIDS",
        value_delimiter = ','
    )]
    pub allow_peer_uids: Vec<u32>,

    /// Allow providers at http:// on a loopback address, for development.
    #[arg(long, env = "OUTRIGGER_ALLOW_PLAIN_HTTP")]
    pub allow_plain_http: bool,

    /// A folder in which each provider has a folder with its socket, NAME/actuator.sock.
    #[arg(long, value_name = "DIR", env = "OUTRIGGER_SOCKET_DIR")]
    pub socket_dir: Option<PathBuf>,

    /// Apply the CustomResourceDefinitions first.
    #[arg(long, env = "OUTRIGGER_INSTALL_CRDS")]
    pub install_crds: bool,

    /// Whether to lead by a Lease, so that several replicas may run.
    #[arg(long, value_name = "BOOL", env = "OUTRIGGER_LEADER_ELECT", default_value_t = true,
          num_args = 0..=1, default_missing_value = "true", action = ArgAction::Set)]
    pub leader_elect: bool,

    /// The namespace of the Lease.
    #[arg(
        long,
        value_name = "NAME",
        env = "OUTRIGGER_LEASE_NAMESPACE",
        default_value = "default"
    )]
    pub lease_namespace: String,

    /// The name of the Lease.
    #[arg(
        long,
        value_name = "NAME",
        env = "OUTRIGGER_LEASE_NAME",
        default_value = "core-controller"
    )]
    pub lease_name: String,

    /// For how many seconds a leader counts that does not renew the Lease.
    #[arg(long, value_name = "SECONDS", env = "OUTRIGGER_LEASE_DURATION", default_value_t = 15,
          value_parser = clap::value_parser!(u64).range(5..=3600))]
    pub lease_duration: u64,

    /// Who this process is; one that is the same after a restart takes its Lease over at once.
    /// Without it, the host name.
    #[arg(long, value_name = "NAME", env = "OUTRIGGER_IDENTITY")]
    pub identity: Option<String>,

    /// How many objects are worked on at a time.
    #[arg(long, value_name = "NUMBER", env = "OUTRIGGER_WORKERS", default_value_t = 32,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub workers: u16,

    /// How many seconds pass until everything is looked at again though nothing has happened.
    #[arg(long, value_name = "SECONDS", env = "OUTRIGGER_RESYNC", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(10..=86400))]
    pub resync: u64,

    /// Where /metrics, /healthz and /readyz are served, as ADDRESS:PORT; without it they are not.
    #[arg(long, value_name = "ADDRESS", env = "OUTRIGGER_METRICS_LISTEN")]
    pub metrics_listen: Option<SocketAddr>,

    /// How log lines look: text or json.
    #[arg(long, value_name = "FORMAT", env = "OUTRIGGER_LOG_FORMAT", default_value = "text")]
    pub log_format: LogFormat,

    /// What is logged: a level, or levels by module as in info,core_controller=debug.
    #[arg(long, value_name = "FILTER", env = "OUTRIGGER_LOG", default_value = "info")]
    pub log: String,

    /// Where traces go, as the URL of an OTLP collector (gRPC); without it nowhere.
    #[arg(long, value_name = "URL", env = "OTEL_EXPORTER_OTLP_ENDPOINT")]
    pub otlp_endpoint: Option<String>,
}

fn split_name(text: &str, wanted: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("write {wanted}")),
    }
}

fn named_endpoint(text: &str) -> Result<(String, String), String> {
    let (name, endpoint) = split_name(
        text,
        "NAME=ENDPOINT, as in fake=unix:///run/actuator/fake/actuator.sock",
    )?;
    if !provider_host::is_provider_name(&name) {
        return Err(format!(
            "the name {name:?} is no DNS label; use 1 to 63 of a-z, 0-9 and '-', beginning and ending with a letter or digit"
        ));
    }
    endpoint
        .parse::<provider_host::Endpoint>()
        .map_err(|error| error.to_string())?;
    Ok((name, endpoint))
}

fn named_folder(text: &str) -> Result<(String, PathBuf), String> {
    let (name, folder) = split_name(text, "NAME=DIR")?;
    Ok((name, PathBuf::from(folder)))
}

fn named_server(text: &str) -> Result<(String, String), String> {
    let (name, server) = split_name(text, "NAME=SERVER, as in aws=aws.actuator.example.com")?;
    if !server
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':'))
    {
        return Err(format!("{server:?} is no server name; use a DNS name or an address"));
    }
    Ok((name, server))
}

impl Arguments {
    /// What the flags mean together, or one sentence about what is wrong with them.
    pub fn options(&self) -> Result<Options, String> {
        let mut providers = BTreeMap::new();
        for (name, endpoint) in &self.providers {
            let endpoint = ProviderEndpoint {
                endpoint: endpoint.clone(),
                tls_folder: None,
                server_name: None,
                allow_plain_http: self.allow_plain_http,
            };
            if providers.insert(name.clone(), endpoint).is_some() {
                return Err(format!("--provider names {name:?} twice; give each provider once"));
            }
        }
        for (name, folder) in &self.provider_tls {
            match providers.get_mut(name) {
                Some(provider) if provider.endpoint.starts_with("https://") => {
                    provider.tls_folder = Some(folder.clone());
                }
                Some(provider) => {
                    return Err(format!(
                        "--provider-tls is given for {name:?}, whose endpoint {} does not use TLS",
                        provider.endpoint
                    ));
                }
                None => {
                    return Err(format!(
                        "--provider-tls names {name:?}, which no --provider does; add --provider {name}=https://HOST:PORT"
                    ));
                }
            }
        }
        for (name, server) in &self.provider_server_name {
            match providers.get_mut(name) {
                Some(provider) if provider.tls_folder.is_some() => provider.server_name = Some(server.clone()),
                _ => {
                    return Err(format!(
                        "--provider-server-name names {name:?}, for which no --provider-tls is given; add --provider-tls {name}=DIR"
                    ));
                }
            }
        }
        for (name, provider) in &providers {
            if provider.endpoint.starts_with("https://") && provider.tls_folder.is_none() {
                return Err(format!(
                    "--provider {name}={} needs mutual TLS; add --provider-tls {name}=DIR with ca.crt, tls.crt and tls.key",
                    provider.endpoint
                ));
            }
            if provider.endpoint.starts_with("http://") && !provider.allow_plain_http {
                return Err(format!(
                    "--provider {name}={} is not encrypted; use a Unix socket or https, or add --allow-plain-http",
                    provider.endpoint
                ));
            }
        }
        let identity = match &self.identity {
            Some(identity) if identity.is_empty() => return Err("--identity is empty; give a name".to_owned()),
            Some(identity) => identity.clone(),
            None => host_name(),
        };
        let duration = Duration::from_secs(self.lease_duration);
        let lease = self.leader_elect.then(|| LeaseSettings {
            namespace: self.lease_namespace.clone(),
            name: self.lease_name.clone(),
            identity: identity.clone(),
            duration,
            retry_period: duration / 5,
        });
        Ok(Options {
            providers,
            peer_uids: self.allow_peer_uids.clone(),
            socket_dir: self.socket_dir.clone(),
            identity,
            lease,
            workers: usize::from(self.workers),
            resync: Duration::from_secs(self.resync),
            metrics_listen: self.metrics_listen,
            install_crds: self.install_crds,
            ..Options::default()
        })
    }
}

/// The host name, or something unique.
fn host_name() -> String {
    std::env::var("HOSTNAME")
        .ok()
        .or_else(|| std::fs::read_to_string("/etc/hostname").ok())
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| format!("core-controller-{}", uuid::Uuid::new_v4()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(arguments: &[&str]) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from([&["core-controller"], arguments].concat())
    }

    #[test]
    fn the_flags_of_the_readme_are_understood() {
        let arguments = parse(&["--kubeconfig", "k", "--provider", "fake=unix:///run/fake.sock"]).unwrap();
        let options = arguments.options().unwrap();
        assert_eq!(options.providers["fake"].endpoint, "unix:///run/fake.sock");
        assert!(options.lease.is_some());
        assert!(
            parse(&["--leader-elect=false"])
                .unwrap()
                .options()
                .unwrap()
                .lease
                .is_none()
        );
    }

    #[test]
    fn bad_flags_are_named_with_a_way_out() {
        for (arguments, wanted) in [
            (vec!["--provider", "fake"], "NAME=ENDPOINT"),
            (vec!["--provider", "Fake=unix:///a"], "DNS label"),
            (vec!["--provider", "fake=ftp://a"], "scheme"),
            (vec!["--workers", "0"], "1..=1024"),
            (vec!["--log-format", "xml"], "text and json"),
            (vec!["--nonsense"], "--nonsense"),
        ] {
            let error = parse(&arguments).unwrap_err().to_string();
            assert!(error.contains(wanted), "{arguments:?}: {error}");
        }
        for (arguments, wanted) in [
            (vec!["--provider", "a=unix:///a", "--provider", "a=unix:///b"], "twice"),
            (vec!["--provider", "a=https://host:1"], "--provider-tls a=DIR"),
            (
                vec!["--provider", "a=unix:///a", "--provider-tls", "a=/x"],
                "does not use TLS",
            ),
            (vec!["--provider-tls", "a=/x"], "add --provider"),
            (vec!["--provider-server-name", "a=b.example"], "--provider-tls a=DIR"),
            (vec!["--provider", "a=http://127.0.0.1:1"], "--allow-plain-http"),
            (vec!["--identity", ""], "empty"),
        ] {
            let error = parse(&arguments).unwrap().options().unwrap_err();
            assert!(error.contains(wanted), "{arguments:?}: {error}");
        }
    }

    #[test]
    fn every_flag_has_an_environment_variable() {
        use clap::CommandFactory as _;
        for argument in Arguments::command().get_arguments() {
            if !["help", "version"].contains(&argument.get_id().as_str()) {
                assert!(argument.get_env().is_some(), "{argument}");
            }
        }
    }
}
