//! Where lines and spans go: standard error as text or JSON, and an OpenTelemetry
//! collector where one is named.

use std::io::IsTerminal as _;
use std::panic::PanicHookInfo;
use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{FilterExt, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

/// How long exporting may take, each time and at the end.
const EXPORT: Duration = Duration::from_secs(5);

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// What is wanted.
#[derive(Debug, Clone)]
pub(crate) struct Options {
    pub(crate) log_format: LogFormat,
    pub(crate) log_level: String,
    pub(crate) otlp_endpoint: Option<String>,
    pub(crate) service_name: String,
    pub(crate) service_version: String,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    #[error("the OTLP endpoint {0:?} cannot be used")]
    Exporter(String, #[source] opentelemetry_otlp::ExporterBuildError),
    #[error("logging is set up already")]
    Twice(#[source] tracing_subscriber::util::TryInitError),
}

/// Keeps the exporter; [`Telemetry::flush`] sends what is left.
pub(crate) struct Telemetry(Option<SdkTracerProvider>);

impl Telemetry {
    pub(crate) async fn flush(self) {
        if let Some(provider) = self.0 {
            // It blocks; and at the very end there is nobody left to tell.
            let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(EXPORT)).await;
        }
    }
}

/// What a user may give as the level: `info`, or `info,provider_fake=debug`.
pub(crate) fn parse_level(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|error| format!("{error}; write error, warn, info, debug or trace, or target=level pairs"))
}

/// Sets up logging and tracing for the whole process; within a tokio runtime.
pub(crate) fn init(options: &Options) -> Result<Telemetry, SetupError> {
    let exporter = options
        .otlp_endpoint
        .as_ref()
        .map(|endpoint| {
            opentelemetry_otlp::SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint)
                .with_timeout(EXPORT)
                .build()
                .map_err(|error| SetupError::Exporter(endpoint.clone(), error))
        })
        .transpose()?;
    let provider = exporter.map(|exporter| {
        let resource = Resource::builder()
            .with_service_name(options.service_name.clone())
            .with_attribute(opentelemetry::KeyValue::new(
                "service.version",
                options.service_version.clone(),
            ))
            .build();
        SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource)
            .build()
    });
    let spans = provider
        .as_ref()
        .map(|provider| tracing_opentelemetry::layer().with_tracer(provider.tracer("provider-sdk")));
    let lines = match options.log_format {
        LogFormat::Text => fmt::layer()
            .with_ansi(std::io::stderr().is_terminal())
            .with_writer(std::io::stderr)
            .boxed(),
        LogFormat::Json => json_layer(std::io::stderr),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(env_filter(&options.log_level).and(quiet_libraries())))
        .with(spans.with_filter(LevelFilter::INFO.and(quiet_libraries())))
        .try_init()
        .map_err(SetupError::Twice)?;
    std::panic::set_hook(Box::new(log_panic));
    Ok(Telemetry(provider))
}

fn json_layer<S, W>(writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: tracing::Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> fmt::MakeWriter<'a> + Send + Sync + 'static,
{
    fmt::layer()
        .json()
        .flatten_event(true)
        .with_span_list(false)
        .with_writer(writer)
        .boxed()
}

fn env_filter(level: &str) -> EnvFilter {
    EnvFilter::try_new(level).unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Libraries below us print what goes over the wire, secrets included: their details are
/// never shown, whatever level is asked for.
fn quiet_libraries() -> Targets {
    Targets::new().with_default(LevelFilter::TRACE).with_targets(
        [
            "h2",
            "hyper",
            "hyper_util",
            "tonic",
            "tower",
            "rustls",
            "tokio_util",
            "opentelemetry",
            "opentelemetry_sdk",
        ]
        .map(|library| (library, LevelFilter::WARN)),
    )
}

/// Says where a panic was. Its words only if they are a literal of the program: others
/// may hold a secret.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic
        .location()
        .map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let words = panic
        .payload()
        .downcast_ref::<&'static str>()
        .copied()
        .unwrap_or("(its words are withheld)");
    tracing::error!(location, words, "panic");
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_json_with_the_span_and_libraries_stay_quiet() {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let layer = json_layer(move || writer.clone());
        let filtered = layer.with_filter(env_filter("trace").and(quiet_libraries()));
        let subscriber = tracing_subscriber::registry().with(filtered);
        tracing::subscriber::with_default(subscriber, || {
            let _span = tracing::info_span!("call", key = "k-1").entered();
            tracing::info!(seconds = 1.5, "answered");
            tracing::trace!(target: "h2::codec", "secret bytes");
        });
        let text = String::from_utf8(buffer.0.lock().clone()).expect("UTF-8");
        let lines: Vec<serde_json::Value> = text
            .lines()
            .map(|line| serde_json::from_str(line).expect("JSON"))
            .collect();
        assert_eq!(lines.len(), 1, "{text}");
        assert_eq!(lines[0]["message"], "answered");
        assert_eq!(lines[0]["span"]["key"], "k-1");
    }

    #[test]
    fn levels_are_checked() {
        assert!(parse_level("info,provider_fake=debug").is_ok());
        assert!(parse_level("provider=loud").is_err());
    }
}
