//! Clients that ask too much, too slowly, or nothing at all: the server answers or refuses, stays up, and serves a
//! normal client beside them. All over sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

mod attack;

use std::time::Duration;

use attack::{Plane, child, lines_of};
use bytes::Bytes;
use embedded_apiserver::HistoryLimits;
use futures::{StreamExt as _, TryStreamExt as _};
use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};

const MAPS: &str = "/api/v1/namespaces/default/configmaps";
/// No single step of a test takes longer, on a busy machine either.
const PATIENCE: Duration = Duration::from_mins(2);

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let Ok(done) = tokio::time::timeout(PATIENCE, future).await else {
        panic!("{what} took too long");
    };
    done
}

fn map(name: &str, data: &str) -> ConfigMap {
    serde_json::from_value(json!({ "metadata": { "name": name }, "data": { "a": data } })).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watcher_that_does_not_read_is_dropped_and_blocks_no_writer() {
    let limits = HistoryLimits {
        events: 1000,
        bytes: 1 << 20,
    };
    let plane = Plane::start(limits).await;
    let maps = plane.maps();
    let made = maps.create(&PostParams::default(), &map("large", "")).await.unwrap();
    let since = made.metadata.resource_version.unwrap();

    // Little room on the way, so that the server soon has nowhere to write to.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(16 << 10).unwrap();
    let stream = socket.connect(plane.address()).await.unwrap();
    let mut slow = plane.encrypt(stream, b"http/1.1").await;
    let request =
        format!("GET {MAPS}?watch=true&resourceVersion={since} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    slow.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    slow.read_exact(&mut start).await.unwrap();
    assert_eq!(&start, b"HTTP/1.1 200");

    let mut quick = maps.watch(&WatchParams::default(), &since).await.unwrap().boxed();
    // Far more than the history and all buffers on the way hold.
    let writes = 400;
    let text = "x".repeat(64 << 10);
    for at in 0..writes {
        let patch = Patch::Merge(json!({ "data": { "a": format!("{at} {text}") } }));
        let parameters = PatchParams::default();
        let write = maps.patch("large", &parameters, &patch);
        within("a write beside a slow watcher", write).await.unwrap();
        // Who reads sees every write.
        let event = within("an event", quick.try_next()).await.unwrap();
        let Some(WatchEvent::Modified(seen)) = event else {
            panic!("an event was lost");
        };
        assert!(seen.data.unwrap()["a"].starts_with(&format!("{at} ")));
    }
    // The slow one gets what was on its way, is told that it came too late, and that is the end.
    let mut rest = Vec::new();
    let _ = within("the end of the slow watch", slow.read_to_end(&mut rest)).await;
    let rest = String::from_utf8_lossy(&rest);
    let seen = rest.matches("\"type\":\"MODIFIED\"").count();
    assert!(
        seen < writes,
        "the server kept every event for a watcher that did not read"
    );
    assert!(
        rest.contains("\"type\":\"ERROR\"") && rest.contains("\"code\":410"),
        "no word of the end"
    );
    plane.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_see_every_write_in_order() {
    let plane = Plane::start(HistoryLimits::default()).await;
    let mut watchers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let connection = plane.http2().await;
        for _ in 0..250 {
            let mut connection = connection.clone();
            let request = plane.request(
                Method::GET,
                &format!("{MAPS}?watch=true&resourceVersion=0"),
                Bytes::new(),
            );
            let mut body = within("the start of a watch", connection.send_request(request))
                .await
                .unwrap()
                .into_body();
            watchers.spawn(async move {
                let mut text = Vec::new();
                while text.split(|byte| *byte == b'\n').count() <= 5 {
                    text.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
                }
                lines_of(&text)
            });
        }
    }
    let maps = plane.maps();
    for at in 0..5 {
        maps.create(&PostParams::default(), &map(&format!("m{at}"), ""))
            .await
            .unwrap();
    }
    let seen = within("the events of all watchers", watchers.join_all()).await;
    assert_eq!(seen.len(), 1000);
    for events in seen {
        let names: Vec<_> = events
            .iter()
            .map(|event| event["object"]["metadata"]["name"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(names, ["m0", "m1", "m2", "m3", "m4"]);
    }
    plane.serves().await;
}

/// The child: serves until its input ends. Does nothing in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_serves() {
    let Ok(folder) = std::env::var(attack::FOLDER) else {
        return;
    };
    let plane = Plane::start_in(folder.into(), HistoryLimits::default()).await;
    println!("\nserving {}", plane.address());
    let ended = tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink()));
    ended.await.unwrap().unwrap();
    drop(plane);
}

/// The server as a process of its own that may have `descriptors` open; `flood` connections come and stay silent.
async fn survives_a_flood(descriptors: usize, flood: usize, most: usize) {
    let folder = tempfile::tempdir().unwrap();
    let mut server = child("child_that_serves", folder.path(), descriptors);
    let address: String = server.line("serving ").await;
    let address = address.parse().unwrap();
    let plane = Plane::of(address, folder.path());
    plane.serves().await;
    let kept = plane.new_client().await;
    let before = server.descriptors();

    let mut silent = Vec::with_capacity(flood);
    for at in 0..flood {
        silent.push(within("a connection", TcpStream::connect(address)).await.unwrap());
        if at % 1000 == 999 {
            plane.serves().await;
            // Who has asked before is not sent away for those who never did.
            let maps: Api<ConfigMap> = Api::default_namespaced(kept.clone());
            within("a list", maps.list(&ListParams::default())).await.unwrap();
            let open = server.descriptors();
            assert!(open <= most, "the server has {open} descriptors open");
        }
    }
    // Some go half way into the handshake and stop there.
    for stream in silent.iter_mut().rev().take(100) {
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03").await;
    }
    plane.serves().await;
    drop(silent);
    // Everything is given back.
    within("the return of the descriptors", async {
        while server.descriptors() > before + 16 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    plane.serves().await;
    server.end().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_connections_starve_no_one() {
    // As many as this process may have, where that is fewer.
    let flood = attack::descriptor_limit().saturating_sub(500).min(10_000);
    survives_a_flood(8192, flood, 4096 + 64).await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_runs_out_of_descriptors_goes_on() {
    survives_a_flood(128, 1000.min(attack::descriptor_limit().saturating_sub(200)), 128).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_headers_and_bodies_hold_up_no_one() {
    let plane = Plane::start(HistoryLimits::default()).await;
    let mut slow = Vec::new();
    for at in 0..60 {
        let mut stream = plane.tls(b"http/1.1").await;
        let start = if at % 2 == 0 {
            format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-ty")
        } else {
            format!(
                "POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100000\r\n\r\n{{"
            )
        };
        stream.write_all(start.as_bytes()).await.unwrap();
        slow.push(stream);
    }
    for _ in 0..5 {
        for stream in &mut slow {
            stream.write_all(b" ").await.unwrap();
        }
        plane.serves().await;
    }
    drop(slow);
    plane.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_and_deep_bodies_are_answered() {
    let plane = Plane::start(HistoryLimits::default()).await;
    plane
        .maps()
        .create(&PostParams::default(), &map("there", ""))
        .await
        .unwrap();
    let there = format!("{MAPS}/there");
    let limit = 3 << 20;
    let filled = |size: usize| {
        let start = r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"large"},"data":{"a":""#;
        let end = r#""}}"#;
        format!("{start}{}{end}", "x".repeat(size - start.len() - end.len()))
    };
    // What is too large for any request, and what is too large for this kind.
    for (size, codes) in [(limit + 1, [413, 413]), (limit, [413, 422])] {
        let code = plane.answer(Method::POST, MAPS, "application/json", filled(size)).await;
        assert!(codes.contains(&code), "{size} bytes were answered {code}");
    }
    for depth in [200, 10_000, 100_000] {
        let arrays = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        let objects = format!("{}1{}", r#"{"a":"#.repeat(depth), "}".repeat(depth));
        for deep in [&arrays, &objects] {
            let body = format!(
                r#"{{"apiVersion":"v1","kind":"ConfigMap","metadata":{{"name":"there","annotations":{deep}}},"data":{deep}}}"#
            );
            for media in ["application/json", "application/yaml"] {
                let code = plane.answer(Method::POST, MAPS, media, body.clone()).await;
                assert!(
                    (400..500).contains(&code),
                    "{media} nested {depth} deep was answered {code}"
                );
            }
            let operations = format!(r#"[{{"op":"add","path":"/data","value":{deep}}}]"#);
            for (media, body) in [
                ("application/merge-patch+json", &body),
                ("application/strategic-merge-patch+json", &body),
                ("application/apply-patch+yaml", &body),
                ("application/json-patch+json", &operations),
                ("application/json-patch+json", deep),
                ("application/merge-patch+json", deep),
            ] {
                let path = format!("{there}?fieldManager=deep");
                let code = plane.answer(Method::PATCH, &path, media, body.clone()).await;
                // Of an apply with wrong types the real server says 500, too.
                let most = if media.starts_with("application/apply") {
                    500
                } else {
                    499
                };
                assert!(code <= most, "{media} nested {depth} deep was answered {code}");
            }
            let code = plane
                .answer(Method::DELETE, &there, "application/json", deep.clone())
                .await;
            // And of options that are no object.
            assert!(code <= 500, "options nested {depth} deep were answered {code}");
            let _ = plane.maps().create(&PostParams::default(), &map("there", "")).await;
        }
        plane.serves().await;
    }
    // A long selector, as long as a request line may be.
    let selector = format!("{MAPS}?labelSelector={}", "a%20in%20(b),".repeat(2000));
    let code = plane
        .answer(Method::GET, &selector, "application/json", String::new())
        .await;
    assert!(code < 500, "a long selector was answered {code}");
    plane.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_lists_at_once_are_answered_whole() {
    let plane = Plane::start(HistoryLimits::default()).await;
    let maps = plane.maps();
    let text = "x".repeat(500);
    futures::stream::iter(0..1500)
        .map(|at| {
            let (maps, map) = (maps.clone(), map(&format!("m{at}"), &text));
            async move { maps.create(&PostParams::default(), &map).await }
        })
        .buffer_unordered(32)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await
        .unwrap();
    let mut lists = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let connection = plane.http2().await;
        for _ in 0..8 {
            let mut connection = connection.clone();
            let request = plane.request(Method::GET, MAPS, Bytes::new());
            lists.spawn(async move {
                let body = connection.send_request(request).await.unwrap().into_body();
                let bytes = body.collect().await.unwrap().to_bytes();
                let list: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
                list["items"].as_array().unwrap().len()
            });
        }
    }
    plane.serves().await;
    let lengths = within("all lists", lists.join_all()).await;
    assert_eq!(lengths.len(), 64);
    assert!(lengths.into_iter().all(|length| (1500..1502).contains(&length)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn streams_that_are_reset_at_once_and_too_many_of_them_harm_only_their_connection() {
    let plane = Plane::start(HistoryLimits::default()).await;
    // Reset as soon as they are sent: the server may end such a connection, and then it is ended.
    let connection = plane.http2().await;
    for at in 0..3000 {
        let mut connection = connection.clone();
        let request = plane.request(Method::GET, &format!("{MAPS}?limit={at}"), Bytes::new());
        let sent = connection.send_request(request);
        let _ = tokio::time::timeout(Duration::from_micros(50), sent).await;
        if connection.is_closed() {
            break;
        }
    }
    plane.serves().await;
    // More watches than a connection may have: the rest wait for their turn at the client.
    let connection = plane.http2().await;
    let mut watches = tokio::task::JoinSet::new();
    for _ in 0..1200 {
        let mut connection = connection.clone();
        let request = plane.request(Method::GET, &format!("{MAPS}?watch=true"), Bytes::new());
        watches.spawn(async move { connection.send_request(request).await.map(|answer| answer.status()) });
    }
    plane.serves().await;
    watches.shutdown().await;
    plane.serves().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn huge_headers_and_garbage_are_refused() {
    let plane = Plane::start(HistoryLimits::default()).await;
    let many: String = vec!["x-many: y\r\n"; 5000].concat();
    let attacks: Vec<Vec<u8>> = vec![
        format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(2 << 20)).into(),
        format!("GET {MAPS} HTTP/1.1\r\nhost: x\r\n{many}\r\n").into(),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n", "y".repeat(2 << 20)).into(),
        format!(
            "GET {MAPS} HTTP/1.1\r\nhost: x\r\n\r\n\0\0garbage {} HTTP/9\r\n\r\n",
            "\x7f".repeat(500)
        )
        .into(),
        format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n").into(),
        format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 7\r\n\r\n12345").into(),
        format!("POST {MAPS} HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n").into(),
        vec![0xff; 100_000],
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nnot a frame at all, not at all".to_vec(),
    ];
    for attack in attacks {
        let mut stream = plane.tls(b"http/1.1").await;
        // The server may have closed before all was sent: that is an answer.
        let _ = stream.write_all(&attack).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let _ = within("the answer to garbage", read).await;
        let text = String::from_utf8_lossy(&answer);
        assert!(
            !text.contains("HTTP/1.1 5"),
            "{}",
            text.chars().take(300).collect::<String>()
        );
    }
    // Not even TLS.
    for attack in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &vec![0; 50_000],
        b"\x16\x03\x01\xff\xff garbage",
    ] {
        let mut stream = TcpStream::connect(plane.address()).await.unwrap();
        let _ = stream.write_all(attack).await;
        let _ = stream.shutdown().await;
        let mut answer = Vec::new();
        let _ = within("the end of what is no TLS", stream.read_to_end(&mut answer)).await;
    }
    plane.serves().await;
    // A large header over HTTP/2 too.
    let mut connection = plane.http2().await;
    let request = Request::get(format!("https://{}{MAPS}", plane.address()))
        .header("x", "y".repeat(1 << 20))
        .body(Full::new(Bytes::new()))
        .unwrap();
    if let Ok(answer) = within("the answer", connection.send_request(request)).await {
        assert!(answer.status().is_client_error(), "{}", answer.status());
    }
    plane.serves().await;
}
