//! A small client of AWS: one place that signs, sends, times out, repeats reads and
//! decodes errors. Which actions there are is in [`action`]; what they take and give is in
//! [`crate::ec2`]. Not for: deciding anything.

pub mod action;
pub mod credentials;
pub mod failure;
pub mod http;
pub mod query;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use ::http::{Request, Response, header};
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use bytes::Bytes;
use serde::de::DeserializeOwned;

use action::{Access, Action, Service};
use credentials::Source;
use failure::{Failure, Refusal};
use http::{Http, HttpError};
use query::Parameters;

/// The version of EC2's protocol.
const EC2_VERSION: &str = "2016-11-15";
/// How long one answer to a read may take.
const READ_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the answer to a mutation may take: some take EC2 many seconds.
const WRITE_TIMEOUT: Duration = Duration::from_secs(40);
/// How often a read is sent, and how long is waited in between at first.
const READ_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// How often each action was sent, by all clients of a process.
#[derive(Debug)]
pub struct Counts([AtomicU64; Action::ALL.len()]);

impl Default for Counts {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Counts {
    fn count(&self, action: Action) {
        let place = Action::ALL.iter().position(|known| *known == action);
        if let Some(count) = place.and_then(|place| self.0.get(place)) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The actions that were sent, with how often.
    pub fn all(&self) -> Vec<(Action, u64)> {
        Action::ALL
            .iter()
            .zip(&self.0)
            .map(|(action, count)| (*action, count.load(Ordering::Relaxed)))
            .filter(|(_, count)| *count > 0)
            .collect()
    }
}

/// What all clients of a process share.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The connections.
    pub http: Http,
    /// Where every service is, instead of AWS: for tests and private endpoints.
    pub endpoint: Option<String>,
    /// What was sent.
    pub counts: Arc<Counts>,
}

/// AWS as one caller sees it in one region. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    wire: Wire,
    region: String,
    source: Arc<Source>,
}

impl Client {
    /// A client for this region with these credentials.
    pub fn new(wire: Wire, region: impl Into<String>, source: Arc<Source>) -> Self {
        Self {
            wire,
            region: region.into(),
            source,
        }
    }

    /// The region it speaks to.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The same caller in another region.
    #[must_use]
    pub fn in_region(&self, region: impl Into<String>) -> Self {
        Self::new(self.wire.clone(), region, Arc::clone(&self.source))
    }

    /// Calls an action of EC2.
    pub async fn query<T: DeserializeOwned>(&self, action: Action, parameters: Parameters) -> Result<T, Failure> {
        let body = parameters
            .with("Action", action.name())
            .with("Version", EC2_VERSION)
            .encode();
        let answer = self
            .call(action, "application/x-www-form-urlencoded; charset=utf-8", body.into())
            .await?;
        let text = std::str::from_utf8(&answer).map_err(|error| unreadable(action, &error))?;
        quick_xml::de::from_str(text).map_err(|error| unreadable(action, &error))
    }

    /// Calls an action of a service that speaks JSON.
    pub async fn json<T: DeserializeOwned>(&self, action: Action, request: &serde_json::Value) -> Result<T, Failure> {
        let body = request.to_string();
        let answer = self.call(action, "application/x-amz-json-1.1", body.into()).await?;
        serde_json::from_slice(&answer).map_err(|error| unreadable(action, &error))
    }

    async fn call(&self, action: Action, content_type: &'static str, body: Bytes) -> Result<Bytes, Failure> {
        let mut tries = 1;
        loop {
            let failure = match self.send(action, content_type, body.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            let again = action.access() == Access::Read && failure.is_passing() && tries < READ_TRIES;
            tracing::debug!(
                action = action.name(),
                region = self.region,
                tries,
                again,
                ?failure,
                "a call failed"
            );
            if !again {
                return Err(failure);
            }
            let pause = FIRST_PAUSE * 2_u32.pow(tries - 1);
            tokio::time::sleep(pause.mul_f64(rand::random_range(0.5..1.5))).await;
            tries += 1;
        }
    }

    async fn send(&self, action: Action, content_type: &'static str, body: Bytes) -> Result<Bytes, Failure> {
        let credentials = self.source.current().await;
        let credentials = credentials.map_err(|why| Failure::Credentials { action, why })?;
        let request = self
            .request(action, content_type, body, &credentials)
            .map_err(|why| Failure::NotSent { action, why })?;
        let timeout = match action.access() {
            Access::Read => READ_TIMEOUT,
            Access::Write => WRITE_TIMEOUT,
        };
        self.wire.counts.count(action);
        let answer = self
            .wire
            .http
            .send(request, timeout)
            .await
            .map_err(|error| match error {
                HttpError::NotSent(why) => Failure::NotSent { action, why },
                HttpError::Lost(_) | HttpError::TimedOut(_) => Failure::Lost {
                    action,
                    why: error.to_string(),
                },
            })?;
        read(action, answer)
    }

    fn request(
        &self,
        action: Action,
        content_type: &'static str,
        body: Bytes,
        credentials: &Credentials,
    ) -> Result<Request<Bytes>, String> {
        let service = action.service();
        let address = match &self.wire.endpoint {
            Some(endpoint) => format!("{}/", endpoint.trim_end_matches('/')),
            None => format!("https://{}/", host(service, &self.region)),
        };
        let mut request = Request::post(&address).header(header::CONTENT_TYPE, content_type);
        if service == Service::Ssm {
            request = request.header("x-amz-target", format!("AmazonSSM.{}", action.name()));
        }
        let mut request = request.body(body).map_err(|error| error.to_string())?;
        let identity = credentials.clone().into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(service.name())
            .time(SystemTime::now())
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| error.to_string())?
            .into();
        let headers = request
            .headers()
            .iter()
            .filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let signable = SignableRequest::new("POST", &address, headers, SignableBody::Bytes(request.body()))
            .map_err(|error| error.to_string())?;
        let (instructions, _) = sign(signable, &parameters)
            .map_err(|error| error.to_string())?
            .into_parts();
        instructions.apply_to_request_http1x(&mut request);
        Ok(request)
    }
}

/// The name of a service's host; the regions of China have a domain of their own.
fn host(service: Service, region: &str) -> String {
    let domain = if region.starts_with("cn-") {
        "amazonaws.com.cn"
    } else {
        "amazonaws.com"
    };
    format!("{}.{region}.{domain}", service.name())
}

fn read(action: Action, answer: Response<Bytes>) -> Result<Bytes, Failure> {
    let (head, body) = answer.into_parts();
    if head.status.is_success() {
        return Ok(body);
    }
    Err(Failure::Refused(Refusal::read(
        action,
        head.status,
        &head.headers,
        &body,
    )))
}

/// An answer of success that cannot be read: what was asked for has been done, as far as
/// anybody knows.
fn unreadable(action: Action, error: &dyn std::error::Error) -> Failure {
    Failure::Lost {
        action,
        why: format!("the answer cannot be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_follow_the_partition() {
        assert_eq!(host(Service::Ec2, "eu-central-1"), "ec2.eu-central-1.amazonaws.com");
        assert_eq!(host(Service::Ssm, "cn-north-1"), "ssm.cn-north-1.amazonaws.com.cn");
    }

    #[test]
    fn what_was_sent_is_counted() {
        let counts = Counts::default();
        counts.count(Action::RunInstances);
        counts.count(Action::GetParameter);
        counts.count(Action::GetParameter);
        assert_eq!(counts.all(), [(Action::RunInstances, 1), (Action::GetParameter, 2)]);
    }
}
