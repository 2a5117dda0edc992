//! What moto lacks of AWS, in front of it: tokens that make a call idempotent, keys that
//! are refused, and faults: errors, lost answers, instances that are not seen yet. It also
//! writes down what was called.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use parking_lot::Mutex;
use provider_aws::client::http::Http;
use tokio::task::JoinHandle;

use super::moto::Moto;

/// Access keys that begin so are refused.
pub const BAD_KEY: &str = "AKIABAD";

/// What goes wrong with one call.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// It is refused with this status and code, and nothing is done.
    Refuse(u16, &'static str),
    /// It is done, and the answer is lost on its way.
    LoseAnswer,
    /// The answer shows nothing, as if EC2 did not know yet.
    ShowNothing,
}

type Token = Arc<tokio::sync::Mutex<Option<(Bytes, Bytes)>>>;

struct Shared {
    upstream: String,
    http: Http,
    faults: Mutex<Vec<(String, Fault)>>,
    called: Mutex<Vec<String>>,
    tokens: Mutex<HashMap<String, Token>>,
    /// moto answers one call at a time; a crowd before its door would only time out.
    room: tokio::sync::Semaphore,
}

/// A cloud with faults. It ends with the test.
pub struct Cloud {
    shared: Arc<Shared>,
    address: String,
    server: JoinHandle<()>,
    _moto: Moto,
}

impl Cloud {
    /// Starts one with an empty account.
    pub async fn start() -> Self {
        let moto = tokio::task::spawn_blocking(Moto::start).await.expect("moto");
        let shared = Arc::new(Shared {
            upstream: moto.address(),
            http: Http::new().expect("a client"),
            faults: Mutex::default(),
            called: Mutex::default(),
            tokens: Mutex::default(),
            room: tokio::sync::Semaphore::new(2),
        });
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = format!("http://{}", listener.local_addr().expect("an address"));
        let router = Router::new().fallback(handle).with_state(Arc::clone(&shared));
        let server = tokio::spawn(async move {
            let _ = axum::serve(listener, router).await;
        });
        Self {
            shared,
            address,
            server,
            _moto: moto,
        }
    }

    /// Where it is.
    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// The next call of this action goes wrong; called twice, the next two do.
    pub fn fault(&self, action: &str, fault: Fault) {
        self.shared.faults.lock().push((action.to_owned(), fault));
    }

    /// How often an action was called.
    pub fn called(&self, action: &str) -> usize {
        self.shared
            .called
            .lock()
            .iter()
            .filter(|called| *called == action)
            .count()
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn handle(State(shared): State<Arc<Shared>>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.expect("a body");
    let form: HashMap<String, String> = fields(&body);
    let action = form.get("Action").cloned().unwrap_or_default();
    shared.called.lock().push(action.clone());
    let authorization = head.headers.get("authorization").and_then(|value| value.to_str().ok());
    if authorization.is_none_or(|value| value.contains(&format!("Credential={BAD_KEY}"))) {
        return refused(401, "AuthFailure");
    }
    let fault = {
        let mut faults = shared.faults.lock();
        let place = faults.iter().position(|(name, _)| *name == action);
        place.map(|place| faults.remove(place).1)
    };
    match fault {
        Some(Fault::Refuse(status, code)) => refused(status, code),
        Some(Fault::ShowNothing) => {
            let body = format!("<{action}Response><requestId>r</requestId></{action}Response>");
            Response::new(Body::from(body))
        }
        fault => {
            let (status, answer) = with_token(&shared, &form, &head.headers, &body).await;
            let mut response = match fault {
                // The connection breaks before the body has ended.
                Some(_) => Response::new(Body::from_stream(futures::stream::iter([
                    Ok(answer.slice(..answer.len() / 2)),
                    Err(std::io::Error::other("lost")),
                ]))),
                None => Response::new(Body::from(answer)),
            };
            *response.status_mut() = status;
            response
        }
    }
}

/// The same token and parameters get the same answer, others are refused, as EC2 does it.
async fn with_token(
    shared: &Shared,
    form: &HashMap<String, String>,
    headers: &HeaderMap,
    body: &Bytes,
) -> (StatusCode, Bytes) {
    let Some(token) = form.get("ClientToken") else {
        return forward(shared, headers, body).await;
    };
    let known = Arc::clone(shared.tokens.lock().entry(token.clone()).or_default());
    let mut known = known.lock().await;
    match &*known {
        Some((same, answer)) if same == body => (StatusCode::OK, answer.clone()),
        Some(_) => (StatusCode::BAD_REQUEST, error("IdempotentParameterMismatch").into()),
        None => {
            let (status, answer) = forward(shared, headers, body).await;
            if status.is_success() {
                *known = Some((body.clone(), answer.clone()));
            }
            (status, answer)
        }
    }
}

async fn forward(shared: &Shared, headers: &HeaderMap, body: &Bytes) -> (StatusCode, Bytes) {
    let mut request = Request::post(format!("{}/", shared.upstream))
        .body(body.clone())
        .expect("a request");
    for name in [
        "authorization",
        "content-type",
        "x-amz-date",
        "x-amz-target",
        "x-amz-security-token",
    ] {
        if let Some(value) = headers.get(name) {
            request.headers_mut().insert(name, value.clone());
        }
    }
    let _room = shared.room.acquire().await.expect("it stays open");
    let answer = shared.http.send(request, Duration::from_secs(30)).await;
    let answer = answer.expect("moto answers");
    (answer.status(), answer.into_body())
}

fn error(code: &str) -> String {
    format!(
        "<Response><Errors><Error><Code>{code}</Code><Message>as the test wants it</Message></Error></Errors><RequestID>r-proxy</RequestID></Response>"
    )
}

fn refused(status: u16, code: &str) -> Response {
    let mut response = Response::new(Body::from(error(code)));
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    response
}

/// The names and values of a form; what a test looks at needs no unescaping.
fn fields(body: &[u8]) -> HashMap<String, String> {
    String::from_utf8_lossy(body)
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect()
}
