//! A whole `main` for a provider: flags that every provider has, telemetry, signals,
//! serving, exit codes.

use std::ffi::OsString;
use std::future::Future;
use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::error::ErrorKind;
use clap::{Args, Command, FromArgMatches};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::provider::Provider;
use crate::serve::listen::Listen;
use crate::serve::metrics_listener;
use crate::serve::server::{Server, ServerBuilder, TcpSecurity};
use crate::serve::tls::TlsFiles;
use crate::telemetry::setup::{self, LogFormat, Options, parse_level};

/// Bad flags.
const USAGE: u8 = 2;

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// What a provider's binary is.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    name: &'static str,
    version: &'static str,
    about: &'static str,
    examples: &'static str,
}

impl Program {
    /// The name of the binary (`provider-fake`), its version and one line about it.
    pub const fn new(name: &'static str, version: &'static str, about: &'static str) -> Self {
        Self {
            name,
            version,
            about,
            examples: "",
        }
    }

    /// Command lines that `--help` shows at its end.
    #[must_use]
    pub const fn with_examples(mut self, examples: &'static str) -> Self {
        self.examples = examples;
        self
    }
}

type AddServices<P> = Box<dyn FnOnce(ServerBuilder<P>) -> ServerBuilder<P> + Send>;

/// A provider that is ready, with what is served beside it.
pub struct Setup<P> {
    provider: P,
    adjust: Vec<AddServices<P>>,
}

impl<P: Provider> Setup<P> {
    /// Only the provider.
    pub fn new(provider: P) -> Self {
        Self {
            provider,
            adjust: Vec::new(),
        }
    }

    /// Adjusts the server beyond its flags: services beside the protocol's, for example.
    #[must_use]
    pub fn with_server(mut self, adjust: impl FnOnce(ServerBuilder<P>) -> ServerBuilder<P> + Send + 'static) -> Self {
        self.adjust.push(Box::new(adjust));
        self
    }
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Serving")]
struct ServeFlags {
    /// Where to listen: unix:///absolute/path or tcp://ADDRESS:PORT [default: unix:///run/actuator/NAME/actuator.sock]
    #[arg(long, env = "ACTUATOR_LISTEN", value_name = "ADDRESS")]
    listen: Option<Listen>,
    /// A user that may connect to the Unix socket, beside root and the provider's own
    #[arg(
        long = "allow-peer-uid",
        env = "ACTUATOR_ALLOW_PEER_UIDS",
        value_name = "UID",
        value_delimiter = ','
    )]
    allow_peer_uids: Vec<u32>,
    /// Serve gRPC reflection
    #[arg(long, env = "ACTUATOR_REFLECTION")]
    reflection: bool,
    /// Allow plain TCP, on loopback addresses only
    #[arg(long, env = "ACTUATOR_INSECURE_PLAIN_TCP", conflicts_with = "tls_cert")]
    insecure_plain_tcp: bool,
    /// The server's certificate with its chain (PEM), read again when it changes
    #[arg(long, env = "ACTUATOR_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "tls_client_ca"])]
    tls_cert: Option<PathBuf>,
    /// The server's private key (PEM), read again when it changes
    #[arg(long, env = "ACTUATOR_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The authorities that clients' certificates come from (PEM), read again when it changes
    #[arg(long, env = "ACTUATOR_TLS_CLIENT_CA", value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// A DNS name that a client's certificate may carry; none: whoever the authorities vouch for
    #[arg(
        long = "tls-client-name",
        env = "ACTUATOR_TLS_CLIENT_NAMES",
        value_name = "NAME",
        value_delimiter = ',',
        requires = "tls_cert"
    )]
    tls_client_names: Vec<String>,
    /// Seconds to wait at the end for mutations that run
    #[arg(long, env = "ACTUATOR_DRAIN_SECONDS", value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=3600))]
    drain_seconds: u64,
    /// Serve metrics for Prometheus over HTTP at ADDRESS:PORT, path /metrics
    #[arg(long, env = "ACTUATOR_METRICS_LISTEN", value_name = "ADDRESS:PORT")]
    metrics_listen: Option<SocketAddr>,
    /// How log lines look
    #[arg(
        long,
        env = "ACTUATOR_LOG_FORMAT",
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    log_format: LogFormat,
    /// What is logged: a level, or target=level pairs
    #[arg(long, env = "ACTUATOR_LOG_LEVEL", default_value = "info", value_parser = parse_level, value_name = "LEVEL")]
    log_level: String,
    /// Send traces to this OpenTelemetry collector (gRPC), for example http://127.0.0.1:4317
    #[arg(long, env = "OTEL_EXPORTER_OTLP_ENDPOINT", value_name = "URL")]
    otlp_endpoint: Option<String>,
}

impl ServeFlags {
    fn tcp_security(&self) -> TcpSecurity {
        match (&self.tls_cert, &self.tls_key, &self.tls_client_ca) {
            (Some(certificate), Some(key), Some(client_authorities)) => TcpSecurity::MutualTls(TlsFiles {
                certificate: certificate.clone(),
                key: key.clone(),
                client_authorities: client_authorities.clone(),
                client_names: self.tls_client_names.clone(),
            }),
            _ if self.insecure_plain_tcp => TcpSecurity::PlainLoopback,
            _ => TcpSecurity::Refused,
        }
    }

    /// What is wrong with the flags taken together.
    fn conflict(&self, listen: &Listen) -> Option<String> {
        match (listen, self.tcp_security()) {
            (Listen::Unix(_), TcpSecurity::MutualTls(_)) => {
                Some("--tls-cert is for tcp:// addresses; a Unix socket is protected by its mode".to_owned())
            }
            (Listen::Tcp(address), TcpSecurity::Refused) => Some(format!(
                "--listen tcp://{address} needs --tls-cert, --tls-key and --tls-client-ca, or --insecure-plain-tcp on a loopback address"
            )),
            (Listen::Tcp(address), TcpSecurity::PlainLoopback) if !address.ip().is_loopback() => Some(format!(
                "--insecure-plain-tcp is for loopback addresses only, and {address} is none; use --tls-cert, --tls-key and --tls-client-ca"
            )),
            _ => None,
        }
    }
}

/// Runs a provider as a whole program: parses the flags that every provider has and
/// those of `A`, sets up logs, traces and metrics, lets `build` make the provider,
/// serves it until SIGTERM or SIGINT, and ends in order.
///
/// Exit codes: 0 after an orderly end, 1 when the provider cannot be served, 2 with one
/// line on standard error when the flags are wrong.
pub fn run<A, P, F, Fut, E>(program: Program, build: F) -> ExitCode
where
    A: Args,
    P: Provider,
    F: FnOnce(A) -> Fut,
    Fut: Future<Output = Result<Setup<P>, E>>,
    E: Into<BoxError>,
{
    let (flags, own) = match parse::<A>(program, std::env::args_os()) {
        Ok(parsed) => parsed,
        Err(Parsed::Shown(text)) => {
            let _ = write!(std::io::stdout(), "{text}");
            return ExitCode::SUCCESS;
        }
        Err(Parsed::Wrong(line)) => return usage(program, &line),
    };
    let listen = flags.listen.clone().unwrap_or_else(|| default_listen(program));
    if let Some(conflict) = flags.conflict(&listen) {
        return usage(program, &conflict);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(program, &error),
    };
    let code = match runtime.block_on(serve(program, flags, listen, build(own))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failed(program, error.as_ref()),
    };
    // What still runs has had its time.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn default_listen(program: Program) -> Listen {
    let name = program.name.trim_start_matches("provider-");
    Listen::Unix(PathBuf::from(format!("/run/actuator/{name}/actuator.sock")))
}

fn usage(program: Program, line: &str) -> ExitCode {
    let _ = writeln!(
        std::io::stderr(),
        "{}: {line}; see {} --help",
        program.name,
        program.name
    );
    ExitCode::from(USAGE)
}

fn failed(program: Program, error: &(dyn std::error::Error + 'static)) -> ExitCode {
    let mut words = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_words = cause.to_string();
        if !words.contains(&cause_words) {
            words = format!("{words}: {cause_words}");
        }
        source = cause.source();
    }
    let _ = writeln!(std::io::stderr(), "{}: {words}", program.name);
    ExitCode::FAILURE
}

enum Parsed {
    /// Help or the version.
    Shown(String),
    /// What is wrong, on one line.
    Wrong(String),
}

fn parse<A: Args>(program: Program, arguments: impl Iterator<Item = OsString>) -> Result<(ServeFlags, A), Parsed> {
    let command = Command::new(program.name)
        .version(program.version)
        .about(program.about)
        .after_help(program.examples);
    let command = ServeFlags::augment_args(A::augment_args(command));
    let parsed = command.try_get_matches_from(arguments).and_then(|matches| {
        let flags = ServeFlags::from_arg_matches(&matches)?;
        let own = A::from_arg_matches(&matches)?;
        Ok((flags, own))
    });
    parsed.map_err(|error| match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => Parsed::Shown(error.render().to_string()),
        _ => Parsed::Wrong(one_line(&error.render().to_string())),
    })
}

/// The first paragraph of what clap says, on one line.
fn one_line(text: &str) -> String {
    let paragraph: Vec<&str> = text
        .lines()
        .map(str::trim)
        .skip_while(|line| line.is_empty())
        .take_while(|line| !line.is_empty())
        .collect();
    paragraph.join(" ").trim_start_matches("error: ").to_owned()
}

async fn serve<P, Fut, E>(program: Program, flags: ServeFlags, listen: Listen, build: Fut) -> Result<(), BoxError>
where
    P: Provider,
    Fut: Future<Output = Result<Setup<P>, E>>,
    E: Into<BoxError>,
{
    let telemetry = setup::init(&Options {
        log_format: flags.log_format,
        log_level: flags.log_level.clone(),
        otlp_endpoint: flags.otlp_endpoint.clone(),
        service_name: program.name.to_owned(),
        service_version: program.version.to_owned(),
    })?;
    let shutdown = CancellationToken::new();
    stop_on_signals(&shutdown)?;
    let result = serve_until(flags, &listen, build, &shutdown).await;
    shutdown.cancel();
    telemetry.flush().await;
    result
}

async fn serve_until<P, Fut, E>(
    flags: ServeFlags,
    listen: &Listen,
    build: Fut,
    shutdown: &CancellationToken,
) -> Result<(), BoxError>
where
    P: Provider,
    Fut: Future<Output = Result<Setup<P>, E>>,
    E: Into<BoxError>,
{
    let setup = build.await.map_err(Into::into)?;
    let own = nix::unistd::geteuid().as_raw();
    let mut builder = Server::builder(setup.provider)
        .reflection(flags.reflection)
        .tcp_security(flags.tcp_security())
        .drain(Duration::from_secs(flags.drain_seconds))
        .peer_uids(flags.allow_peer_uids.iter().copied().chain([own, 0]));
    for adjust in setup.adjust {
        builder = adjust(builder);
    }
    let server = builder.build()?.bind(listen).await?;
    let metrics = match flags.metrics_listen {
        None => None,
        Some(address) => {
            let (listener, address) = metrics_listener::bind(address)
                .await
                .map_err(|error| format!("unable to serve metrics on {address}: {error}"))?;
            tracing::info!(%address, "serving metrics");
            Some(tokio::spawn(metrics_listener::serve(
                listener,
                server.scrape(),
                shutdown.child_token(),
            )))
        }
    };
    server.serve(shutdown.clone()).await?;
    shutdown.cancel();
    if let Some(metrics) = metrics {
        let _ = metrics.await;
    }
    Ok(())
}

/// The first SIGTERM or SIGINT asks for an orderly end, the second one ends at once.
fn stop_on_signals(shutdown: &CancellationToken) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let shutdown = shutdown.clone();
    tokio::spawn(async move {
        for orderly in [true, false] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if orderly {
                shutdown.cancel();
            } else {
                tracing::warn!("asked to stop a second time; stopping at once");
                std::process::exit(1);
            }
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Args)]
    struct Own {
        /// Where the state is
        #[arg(long, env = "SDK_TEST_STATE_DIR")]
        state_dir: Option<PathBuf>,
        /// A number without which nothing works
        #[arg(long)]
        number: u8,
    }

    const PROGRAM: Program =
        Program::new("provider-test", "1.2.3", "A provider for tests").with_examples("Examples:\n  provider-test");

    fn parsed(arguments: &[&str]) -> Result<(ServeFlags, Own), Parsed> {
        let arguments = std::iter::once("provider-test").chain(arguments.iter().copied());
        parse(PROGRAM, arguments.map(OsString::from))
    }

    fn wrong(arguments: &[&str]) -> String {
        match parsed(arguments) {
            Err(Parsed::Wrong(line)) => line,
            Err(Parsed::Shown(text)) => panic!("shown: {text}"),
            Ok((flags, _)) => flags
                .conflict(&flags.listen.clone().unwrap_or_else(|| default_listen(PROGRAM)))
                .expect("a conflict"),
        }
    }

    #[test]
    fn bad_flags_get_one_clear_line() {
        for (arguments, words) in [
            (vec![], "--number"),
            (vec!["--number", "300"], "300"),
            (vec!["--number", "1", "--lisen", "x"], "--lisen"),
            (vec!["--number", "1", "--listen", "/run/x"], "unix:///absolute/path"),
            (vec!["--number", "1", "--tls-cert", "a"], "--tls-key"),
            (vec!["--number", "1", "--log-level", "a=loud"], "write error, warn"),
            (
                vec!["--number", "1", "--listen", "tcp://127.0.0.1:0"],
                "--insecure-plain-tcp",
            ),
            (
                vec!["--number", "1", "--listen", "tcp://0.0.0.0:0", "--insecure-plain-tcp"],
                "loopback addresses only",
            ),
        ] {
            let line = wrong(&arguments);
            assert!(line.contains(words) && !line.contains('\n'), "{arguments:?}: {line}");
        }
    }

    #[test]
    fn good_flags_are_taken_together() {
        let arguments = ["--number", "7", "--listen", "tcp://127.0.0.1:0", "--insecure-plain-tcp"];
        let Ok((flags, own)) = parsed(&arguments) else {
            panic!("refused")
        };
        assert_eq!((own.number, own.state_dir), (7, None));
        assert_eq!(flags.tcp_security(), TcpSecurity::PlainLoopback);
        assert_eq!(
            default_listen(PROGRAM).to_string(),
            "unix:///run/actuator/test/actuator.sock"
        );
    }

    #[test]
    fn help_and_version_are_shown() {
        for (flag, words) in [
            ("--help", "Examples:"),
            ("--help", "ACTUATOR_LISTEN"),
            ("--version", "1.2.3"),
        ] {
            match parsed(&[flag]) {
                Err(Parsed::Shown(text)) => assert!(text.contains(words), "{text}"),
                _ => panic!("{flag} is not shown"),
            }
        }
    }
}
