//! Plays a case against one server and records what came back, normalised.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use kube::client::Body;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

use crate::case::{Case, How, Piece, Step, Until};
use crate::normal;
use crate::server::Server;

/// One answer, or the events read.
const PATIENCE: Duration = Duration::from_mins(2);
/// An answer that has to become so.
const UNTIL: Duration = Duration::from_secs(90);
/// Headers that are compared always.
const HEADERS: [&str; 7] = [
    "content-type",
    "cache-control",
    "warning",
    "retry-after",
    "content-encoding",
    "allow",
    "location",
];

/// What one step brought.
#[derive(Debug, Clone)]
pub struct Seen {
    /// The request, for people.
    pub request: String,
    /// `{code, headers, body}` or `{events, ended}`, normalised.
    pub answer: Value,
}

/// The names of one case in one run: the same for both servers.
#[derive(Debug, Clone)]
pub struct Names {
    /// The id of the run.
    pub run: String,
    /// The case's namespace.
    pub namespace: String,
    /// The file's API group.
    pub group: String,
    /// The case's API group.
    pub own: String,
}

impl Names {
    /// Names for a case: its file's and its own number.
    pub fn new(run: &str, file: &str, number: usize) -> Self {
        Self {
            run: run.to_owned(),
            namespace: format!("{file}-{number}-{run}"),
            group: format!("{file}-{run}.example.com"),
            own: format!("{file}-{number}-{run}.example.com"),
        }
    }

    fn variables(&self) -> BTreeMap<String, String> {
        [
            ("ns", &self.namespace),
            ("group", &self.group),
            ("own", &self.own),
            ("run", &self.run),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value.clone()))
        .collect()
    }
}

/// Makes the definitions that a file's cases share, and waits until they are served.
pub async fn prepare(server: &Server, names: &Names, definitions: &[Value]) -> anyhow::Result<()> {
    let player = Player::new(server, names);
    for definition in definitions {
        let definition = player.fill(definition);
        let made = player
            .simple(
                Method::POST,
                "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
                Some(&definition),
            )
            .await?;
        ensure!(made.0 == 201, "{} refused the definition: {}", server.name, made.1);
        let group = definition["spec"]["group"].as_str().unwrap_or_default();
        let plural = definition["spec"]["names"]["plural"].as_str().unwrap_or_default();
        for version in definition["spec"]["versions"].as_array().into_iter().flatten() {
            let path = format!(
                "/apis/{group}/{}/{plural}",
                version["name"].as_str().unwrap_or_default()
            );
            let until = Instant::now() + UNTIL;
            while version["served"] == true && player.simple(Method::GET, &path, None).await?.0 != 200 {
                ensure!(Instant::now() < until, "{} does not serve {path}", server.name);
                sleep(Duration::from_millis(50)).await;
            }
        }
    }
    Ok(())
}

/// Takes away what [`prepare`] made.
pub async fn clean(server: &Server, names: &Names, definitions: &[Value]) -> anyhow::Result<()> {
    let player = Player::new(server, names);
    for definition in definitions {
        let name = player.fill(&definition["metadata"]["name"]);
        let path = format!(
            "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{}",
            name.as_str().unwrap_or_default()
        );
        player.simple(Method::DELETE, &path, None).await?;
    }
    Ok(())
}

/// Plays the case, in a namespace of its own.
pub async fn play(server: &Server, names: &Names, case: &Case) -> anyhow::Result<Vec<Seen>> {
    let mut player = Player::new(server, names);
    let namespace = json!({ "metadata": { "name": names.namespace } });
    let made = player
        .simple(Method::POST, "/api/v1/namespaces", Some(&namespace))
        .await?;
    ensure!(made.0 == 201, "{} refused the namespace: {}", server.name, made.1);
    let mut seen = Vec::new();
    let mut outcome = Ok(());
    for (index, step) in case.steps.iter().enumerate() {
        match player.step(step).await {
            Ok(answer) => seen.push(answer),
            Err(error) => {
                outcome = Err(error.context(format!("step {index} against the {} server", server.name)));
                break;
            }
        }
    }
    if !server.throwaway {
        player
            .simple(Method::DELETE, &format!("/api/v1/namespaces/{}", names.namespace), None)
            .await?;
    }
    outcome.map(|()| seen)
}

struct Player<'a> {
    server: &'a Server,
    variables: BTreeMap<String, String>,
    /// Values kept from answers, which are not compared.
    kept: BTreeMap<String, String>,
    watches: BTreeMap<String, Watch>,
}

struct Watch {
    request: String,
    body: Body,
    text: Vec<u8>,
}

impl<'a> Player<'a> {
    fn new(server: &'a Server, names: &Names) -> Self {
        Self {
            server,
            variables: names.variables(),
            kept: BTreeMap::new(),
            watches: BTreeMap::new(),
        }
    }

    fn fill_text(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for (name, value) in &self.variables {
            text = text.replace(&format!("${{{name}}}"), value);
        }
        text
    }

    fn fill(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(map) => map
                .iter()
                .map(|(key, value)| (self.fill_text(key), self.fill(value)))
                .collect::<Map<_, _>>()
                .into(),
            other => other.clone(),
        }
    }

    async fn simple(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<(u16, Value)> {
        let bytes = body.map(ToString::to_string).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("content-type", "application/json")
            .body(Body::from(bytes.into_bytes()))?;
        let response = timeout(PATIENCE, self.server.admin.send(request))
            .await
            .context("no answer")??;
        let code = response.status().as_u16();
        let bytes = response.into_body().collect().await?.to_bytes();
        Ok((code, serde_json::from_slice(&bytes).unwrap_or_default()))
    }

    async fn step(&mut self, step: &Step) -> anyhow::Result<Seen> {
        if let Some(name) = &step.read {
            return self.read(name, step).await;
        }
        if let Some(watch) = &step.watch {
            let (name, path) = watch.split_once(' ').context("watch is `NAME /path`")?;
            return self.open(name, path, step).await;
        }
        let line = step.send.as_deref().unwrap_or_default();
        let (method, path) = line.split_once(' ').context("send is `METHOD /path`")?;
        let method: Method = method.parse()?;
        let path = self.fill_text(path);
        let end = Instant::now() + UNTIL;
        loop {
            let response = self.send(method.clone(), &path, step).await?;
            let (code, headers, body) = collect(response).await?;
            if let Some(until) = &step.until
                && !self.holds(until, code, &body)
            {
                ensure!(
                    Instant::now() < end,
                    "{method} {path} did not become {until:?} in time, the last answer was {code} {body}"
                );
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            for (name, pointer) in &step.keep {
                let found = match body.pointer(pointer) {
                    Some(Value::String(text)) => text.clone(),
                    Some(other) => other.to_string(),
                    None => bail!("nothing to keep at {pointer}: {method} {path} answered {code} {body}"),
                };
                self.variables.insert(name.clone(), found.clone());
                self.kept.insert(name.clone(), found);
            }
            let answer = if step.compare.nothing {
                json!({})
            } else {
                json!({
                    "code": code,
                    "headers": self.headers(&headers, step),
                    "body": normal::body(body, &self.kept, &self.how(step)),
                })
            };
            return Ok(Seen {
                request: format!("{method} {path}"),
                answer,
            });
        }
    }

    /// How a step's answer is compared, with the variables filled in.
    fn how(&self, step: &Step) -> How {
        let mut how = step.compare.clone();
        for select in &mut how.select {
            select.within = select.within.iter().map(|value| self.fill(value)).collect();
        }
        for pointer in how.only.iter_mut().chain(&mut how.ignore) {
            *pointer = self.fill_text(pointer);
        }
        how
    }

    fn holds(&self, until: &Until, code: u16, body: &Value) -> bool {
        if until.code.is_some_and(|wanted| wanted != code) {
            return false;
        }
        match &until.pointer {
            None => true,
            Some(pointer) => match (body.pointer(pointer), &until.equals) {
                (None, wanted) => wanted.as_ref().is_some_and(Value::is_null),
                (Some(_), None) => true,
                (Some(found), Some(wanted)) => *found == self.fill(wanted),
            },
        }
    }

    fn headers(&self, headers: &http::HeaderMap, step: &Step) -> Value {
        let mut wanted: Vec<&str> = HEADERS.to_vec();
        for header in &step.compare.headers {
            match header.strip_prefix('-') {
                Some(without) => wanted.retain(|name| *name != without),
                None => wanted.push(header),
            }
        }
        let mut shown = Map::new();
        for name in wanted {
            let values: Vec<Value> = headers
                .get_all(name)
                .iter()
                .map(|value| normal::text(&String::from_utf8_lossy(value.as_bytes()), &self.kept).into())
                .collect();
            if !values.is_empty() {
                shown.insert(name.to_owned(), values.into());
            }
        }
        shown.into()
    }

    async fn send(&self, method: Method, path: &str, step: &Step) -> anyhow::Result<Response<Body>> {
        let mut body = Vec::new();
        let mut sent = true;
        if let Some(value) = &step.body {
            body = serde_json::to_vec(&self.fill(value))?;
        } else if let Some(text) = &step.text {
            body = self.fill_text(text).into_bytes();
        } else if !step.pieces.is_empty() {
            for piece in &step.pieces {
                match piece {
                    Piece::Once(text) => body.extend_from_slice(self.fill_text(text).as_bytes()),
                    Piece::Many { repeat, times } => body.extend_from_slice(repeat.repeat(*times).as_bytes()),
                }
            }
        } else {
            sent = false;
        }
        let mut request = Request::builder().method(method).uri(path);
        match step.content.as_deref() {
            Some("none") => {}
            Some(media) => request = request.header("content-type", media),
            None if sent => request = request.header("content-type", "application/json"),
            None => {}
        }
        if !step.headers.contains_key("user-agent") {
            request = request.header("user-agent", "differential/1.0");
        }
        for (name, value) in &step.headers {
            request = request.header(name, self.fill_text(value));
        }
        if let Some(user) = &step.user {
            request = request.header("impersonate-user", self.fill_text(user));
            for group in &step.groups {
                request = request.header("impersonate-group", self.fill_text(group));
            }
        }
        let client = if step.anonymous {
            &self.server.anonymous
        } else {
            &self.server.admin
        };
        let request = request.body(Body::from(body))?;
        Ok(timeout(PATIENCE, client.send(request))
            .await
            .with_context(|| format!("{path} was not answered"))??)
    }

    async fn open(&mut self, name: &str, path: &str, step: &Step) -> anyhow::Result<Seen> {
        let path = self.fill_text(path);
        let request = format!("watch {path}");
        let response = self.send(Method::GET, &path, step).await?;
        let code = response.status().as_u16();
        if code != 200 {
            let (code, headers, body) = collect(response).await?;
            return Ok(Seen {
                request,
                answer: json!({
                    "code": code,
                    "headers": self.headers(&headers, step),
                    "body": normal::body(body, &self.kept, &self.how(step)),
                }),
            });
        }
        let headers = self.headers(response.headers(), step);
        let watch = Watch {
            request: request.clone(),
            body: response.into_body(),
            text: Vec::new(),
        };
        self.watches.insert(name.to_owned(), watch);
        Ok(Seen {
            request,
            answer: json!({ "code": code, "headers": headers }),
        })
    }

    async fn read(&mut self, name: &str, step: &Step) -> anyhow::Result<Seen> {
        let watch = self
            .watches
            .get_mut(name)
            .with_context(|| format!("no watch is named {name}"))?;
        let mut events = Vec::new();
        let mut ended = false;
        let end = Instant::now() + PATIENCE;
        while step.events.is_none_or(|wanted| events.len() < wanted) {
            match tokio::time::timeout_at(end, watch.next()).await {
                Ok(Some(event)) => events.push(event?),
                Ok(None) => {
                    ended = true;
                    break;
                }
                // What did not come is a difference, not an error: the other server may have sent it.
                Err(_) => {
                    ended = false;
                    break;
                }
            }
        }
        let request = format!("read {}", watch.request);
        for (name, pointer) in &step.keep {
            let found = Value::from(events.clone());
            let found = found
                .pointer(pointer)
                .with_context(|| format!("nothing to keep at {pointer}"))?;
            let found = found.as_str().map_or_else(|| found.to_string(), ToOwned::to_owned);
            self.variables.insert(name.clone(), found.clone());
            self.kept.insert(name.clone(), found);
        }
        let events = normal::body(events.into(), &self.kept, &self.how(step));
        Ok(Seen {
            request,
            answer: json!({ "events": events, "ended": ended }),
        })
    }
}

impl Watch {
    async fn next(&mut self) -> Option<anyhow::Result<Value>> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).context("an event is not JSON"));
            }
            match self.body.frame().await? {
                Ok(frame) => {
                    if let Ok(data) = frame.into_data() {
                        self.text.extend_from_slice(&data);
                    }
                }
                Err(error) => return Some(Err(anyhow::anyhow!("the watch broke: {error}"))),
            }
        }
    }
}

async fn collect(response: Response<Body>) -> anyhow::Result<(u16, http::HeaderMap, Value)> {
    let (head, body) = response.into_parts();
    let bytes: Bytes = timeout(PATIENCE, body.collect())
        .await
        .context("the answer did not end")??
        .to_bytes();
    let mut plain = Vec::new();
    let bytes: &[u8] = if head
        .headers
        .get("content-encoding")
        .is_some_and(|coding| coding == "gzip")
    {
        flate2::read::GzDecoder::new(bytes.as_ref()).read_to_end(&mut plain)?;
        &plain
    } else {
        &bytes
    };
    let text = String::from_utf8_lossy(bytes);
    let yaml = head
        .headers
        .get("content-type")
        .is_some_and(|kind| kind == "application/yaml");
    // How YAML is folded and quoted says nothing.
    let read = if yaml {
        serde_saphyr::from_str(&text).ok()
    } else {
        serde_json::from_slice(bytes).ok()
    };
    let body = read.unwrap_or_else(|| text.into_owned().into());
    Ok((head.status.as_u16(), head.headers, body))
}
