//! Secrets stay where they belong, and the socket is nobody else's.

use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};

use actuator_proto::limits::MAX_SOCKET_PATH_BYTES;
use actuator_proto::v1::{self, MachinePhase};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use crate::context::Context;
use crate::dial::{self, Endpoint};
use crate::holds;
use crate::requests;
use crate::rule::{
    Rule,
    Severity::{Critical, Major, Minor},
    Stop, Verdict,
};

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::required(
            "security.status-holds-no-secret",
            Critical,
            "Neither credentials nor bootstrap data come back in a status.",
            status,
        )
        .machines(1),
        Rule::required(
            "security.errors-hold-no-secret",
            Critical,
            "Neither credentials nor bootstrap data come back in an error.",
            errors,
        ),
        Rule::required(
            "security.socket-mode",
            Major,
            "The socket is a socket, no link, and not for everybody.",
            socket,
        ),
        Rule::required(
            "security.socket-path",
            Minor,
            "The path of the socket has at most 100 bytes.",
            socket_path,
        ),
        Rule::required(
            "security.plain-clients-are-refused",
            Critical,
            "An endpoint with mutual TLS serves nobody without a certificate.",
            plain,
        ),
        Rule::required(
            "security.strangers-are-refused",
            Critical,
            "An endpoint with mutual TLS serves nobody with a certificate that no authority of its own has signed.",
            strangers,
        ),
        Rule::required(
            "security.answers-hold-no-secret",
            Critical,
            "In the whole run no answer and no error told a secret.",
            answers,
        )
        .last(),
        Rule::required(
            "security.logs-hold-no-secret",
            Critical,
            "In the whole run no secret was written to logs, metrics or spans.",
            logs,
        )
        .faults()
        .last(),
    ]
}

/// The sentinel, and every credential, are looked for by the calls themselves; here they
/// are sent where a provider is most likely to repeat them.
fn told(context: &Context) -> Verdict {
    let told = context.calls.shared().noticed.lock().secrets.clone();
    holds!(told.is_empty(), "a secret is in {}", told.join(" and in "));
    Ok(())
}

async fn status(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "secret");
    context.create(&request).await?;
    context.phase(&request, MachinePhase::Running).await?;
    told(&context)
}

async fn errors(context: Context) -> Verdict {
    let request = context.create_machine(&*context.cluster().await?, "leak");
    // Bootstrap data that its digest does not fit, of a format that is none, too large.
    let mut mangled = request.clone();
    if let Some(bootstrap) = &mut mangled.bootstrap {
        bootstrap.sha256 = vec![0; 32];
    }
    let mut odd = request.clone();
    if let Some(bootstrap) = &mut odd.bootstrap {
        let most = context
            .info
            .limits
            .as_ref()
            .map_or(0, |limits| limits.max_bootstrap_bytes);
        bootstrap.data.resize(usize::try_from(most).unwrap_or(0) + 1, b'\n');
        *bootstrap = requests::bootstrap(bootstrap.data.clone(), bootstrap.format());
    }
    for request in [mangled, odd] {
        let _ = context.calls.call(request).await;
    }
    for credentials in [context.bad.clone(), context.rotated.clone()].into_iter().flatten() {
        let exists = v1::MachineExistsRequest {
            credentials: Some(credentials),
            ..requests::machine_exists(&request)
        };
        let _ = context.calls.call(exists).await;
    }
    told(&context)
}

async fn socket(context: Context) -> Verdict {
    let Endpoint::Unix(path) = &context.suite.endpoint else {
        return Err(Stop::inapplicable("the endpoint is no Unix socket"));
    };
    let found = tokio::fs::symlink_metadata(path).await.map_err(Stop::broken)?;
    holds!(found.file_type().is_socket(), "{} is no socket", path.display());
    let mode = found.permissions().mode() & 0o777;
    holds!(
        mode % 0o10 == 0,
        "{} has the mode {mode:o}: everybody may connect",
        path.display()
    );
    Ok(())
}

async fn socket_path(context: Context) -> Verdict {
    let Endpoint::Unix(path) = &context.suite.endpoint else {
        return Err(Stop::inapplicable("the endpoint is no Unix socket"));
    };
    let bytes = path.as_os_str().len();
    holds!(bytes <= MAX_SOCKET_PATH_BYTES, "{} has {bytes} bytes", path.display());
    Ok(())
}

async fn plain(context: Context) -> Verdict {
    let Endpoint::Https(authority) = &context.suite.endpoint else {
        return Err(Stop::inapplicable("the endpoint has no mutual TLS"));
    };
    // Without TLS at all, and with TLS but without a certificate: nothing may be answered.
    let plain = tcp(authority).await?;
    holds!(!is_served(plain).await, "it speaks plain HTTP/2 there");
    if let Some(stream) = dial::as_stranger(authority, tcp(authority).await?, None).await {
        holds!(!is_served(stream).await, "it serves a client that shows no certificate");
    }
    Ok(())
}

async fn strangers(context: Context) -> Verdict {
    let Endpoint::Https(authority) = &context.suite.endpoint else {
        return Err(Stop::inapplicable("the endpoint has no mutual TLS"));
    };
    let stranger = dial::Stranger::new().map_err(Stop::broken)?;
    if let Some(stream) = dial::as_stranger(authority, tcp(authority).await?, Some(stranger)).await {
        holds!(
            !is_served(stream).await,
            "it serves a client whose certificate it cannot know: nobody but the client itself has signed it"
        );
    }
    Ok(())
}

async fn tcp(authority: &str) -> Result<tokio::net::TcpStream, Stop> {
    let uri: http::Uri = format!("https://{authority}").parse().map_err(Stop::broken)?;
    tokio::net::TcpStream::connect((uri.host().unwrap_or_default(), uri.port_u16().unwrap_or(443)))
        .await
        .map_err(Stop::broken)
}

/// Whether HTTP/2 is answered: a server begins with its settings, a frame of type 4, where
/// one that refuses sends an alert of TLS or nothing.
async fn is_served(mut stream: impl AsyncRead + AsyncWrite + Unpin) -> bool {
    let mut answer = [0_u8; 9];
    let asked = async {
        stream
            .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0")
            .await?;
        stream.flush().await?;
        stream.read_exact(&mut answer).await
    };
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), asked).await;
    matches!(read, Ok(Ok(_))) && answer[0] == 0 && answer[3] == 4
}

async fn answers(context: Context) -> Verdict {
    told(&context)
}

async fn logs(context: Context) -> Verdict {
    if context.config.logs.is_empty() && context.config.metrics.is_none() {
        return Err(Stop::skipped("the config names no logs and no metrics"));
    }
    let secrets = context.calls.shared().secrets.read().clone();
    for path in &context.config.logs {
        let text = tokio::fs::read(path)
            .await
            .map_err(|error| Stop::skipped(format!("{}: {error}", path.display())))?;
        holds!(!text.is_empty(), "{} is empty: nothing was looked at", path.display());
        let line = text.split(|byte| *byte == b'\n').position(|line| secrets.within(line));
        holds!(
            line.is_none(),
            "line {} of {} holds a secret",
            line.unwrap_or_default() + 1,
            path.display()
        );
    }
    if let Some(url) = &context.config.metrics {
        let text = fetch(url).await?;
        holds!(!secrets.within(&text), "the metrics hold a secret");
    }
    Ok(())
}

/// What a plain HTTP server answers.
async fn fetch(url: &str) -> Result<Vec<u8>, Stop> {
    let uri: http::Uri = url.parse().map_err(Stop::skipped)?;
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(80));
    let fetching = async {
        let mut stream = tokio::net::TcpStream::connect((host.as_str(), port)).await?;
        let request = format!("GET {} HTTP/1.0\r\nHost: {host}\r\n\r\n", uri.path());
        stream.write_all(request.as_bytes()).await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        std::io::Result::Ok(text)
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), fetching)
        .await
        .map_err(|_| Stop::skipped(format!("{url} did not answer")))?
        .map_err(|error| Stop::skipped(format!("{url}: {error}")))
}
