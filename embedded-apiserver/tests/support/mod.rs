//! A client of the server in process that sees every byte, and the objects that the tests speak of.

#![allow(dead_code)] // each test crate uses its part
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests

use embedded_apiserver::{ApiServer, Service};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use serde_json::{Value, json};
use tower::ServiceExt as _;

pub struct Answer {
    pub code: u16,
    pub headers: http::HeaderMap,
    pub body: Value,
}

#[derive(Clone)]
pub struct Client(pub Service);

impl Client {
    pub async fn new() -> Self {
        Self(ApiServer::builder().in_memory().build().await.unwrap().service())
    }

    pub async fn with_widgets() -> Self {
        let client = Self::new().await;
        let made = client
            .post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", &definition())
            .await;
        assert_eq!(made.code, 201, "{}", made.body);
        client
    }

    pub async fn raw(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(bytes::Bytes::from(body))).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        let (head, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let body = serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into_owned().into());
        Answer {
            code: head.status.as_u16(),
            headers: head.headers,
            body,
        }
    }

    pub async fn send(&self, method: Method, path: &str, media: &str, body: &Value) -> Answer {
        self.raw(
            method,
            path,
            &[("content-type", media)],
            serde_json::to_vec(body).unwrap(),
        )
        .await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.raw(Method::GET, path, &[], Vec::new()).await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::POST, path, "application/json", body).await
    }

    pub async fn put(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PUT, path, "application/json", body).await
    }

    pub async fn merge(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/merge-patch+json", body)
            .await
    }

    pub async fn apply(&self, path: &str, body: &Value) -> Answer {
        self.send(Method::PATCH, path, "application/apply-patch+yaml", body)
            .await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        self.raw(Method::DELETE, path, &[], Vec::new()).await
    }

    /// A watch, as an iterator over its events.
    pub async fn watch(&self, path: &str) -> Events {
        let request = Request::get(path).body(Full::new(bytes::Bytes::new())).unwrap();
        let response = self.0.clone().oneshot(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        Events {
            body: response.into_body(),
            text: Vec::new(),
        }
    }
}

pub struct Events {
    body: embedded_apiserver::Body,
    text: Vec<u8>,
}

impl Events {
    pub async fn next(&mut self) -> Option<(String, Value)> {
        loop {
            if let Some(end) = self.text.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.text.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                return Some((event["type"].as_str().unwrap().to_owned(), event["object"].clone()));
            }
            let wait = std::time::Duration::from_secs(20);
            let frame = tokio::time::timeout(wait, self.body.frame())
                .await
                .expect("no event came")?;
            self.text.extend_from_slice(&frame.unwrap().into_data().unwrap());
        }
    }

    pub async fn names(&mut self, count: usize) -> Vec<String> {
        let mut seen = Vec::new();
        for _ in 0..count {
            let (kind, object) = self.next().await.unwrap();
            seen.push(format!(
                "{kind} {}",
                object["metadata"]["name"].as_str().unwrap_or_default()
            ));
        }
        seen
    }
}

pub fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": "widgets.example.com" },
        "spec": {
            "group": "example.com",
            "scope": "Namespaced",
            "names": { "plural": "widgets", "kind": "Widget", "shortNames": ["wd"], "categories": ["gadgets"] },
            "versions": [
                version("v1", true, true),
                version("v1beta1", true, false),
                version("v1alpha1", false, false),
            ],
        },
    })
}

pub fn version(name: &str, served: bool, storage: bool) -> Value {
    json!({
        "name": name,
        "served": served,
        "storage": storage,
        "deprecated": name == "v1beta1",
        "subresources": {
            "status": {},
            "scale": {
                "specReplicasPath": ".spec.replicas",
                "statusReplicasPath": ".status.replicas",
                "labelSelectorPath": ".status.selector",
            },
        },
        "selectableFields": [{ "jsonPath": ".spec.color" }],
        "additionalPrinterColumns": [{ "name": "Color", "type": "string", "jsonPath": ".spec.color" }],
        "schema": { "openAPIV3Schema": {
            "type": "object",
            "properties": {
                "spec": {
                    "type": "object",
                    "properties": {
                        "replicas": { "type": "integer", "default": 1, "minimum": 0 },
                        "color": { "type": "string" },
                        "fixed": {
                            "type": "string",
                            "x-kubernetes-validations": [{ "rule": "self == oldSelf", "message": "fixed is immutable" }],
                        },
                    },
                },
                "status": {
                    "type": "object",
                    "properties": { "replicas": { "type": "integer" }, "selector": { "type": "string" } },
                },
            },
        } },
    })
}

pub const WIDGETS: &str = "/apis/example.com/v1/namespaces/default/widgets";
pub const MAPS: &str = "/api/v1/namespaces/default/configmaps";

pub fn widget(name: &str, spec: Value) -> Value {
    json!({ "apiVersion": "example.com/v1", "kind": "Widget", "metadata": { "name": name }, "spec": spec })
}

pub fn map(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name } })
}

pub fn revision(answer: &Value) -> u64 {
    answer["metadata"]["resourceVersion"].as_str().unwrap().parse().unwrap()
}

pub fn owned(name: &str, owner: &Value, block: bool) -> Value {
    let mut object = map(name);
    object["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "blockOwnerDeletion": block,
    }]);
    object
}
