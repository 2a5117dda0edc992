//! What was acknowledged is there after `kill -9`, whole, and revisions never go back; a full disk is told and heals.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)] // helpers of tests are tests

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use embedded_apiserver::ApiServer;
use futures::TryStreamExt as _;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{Api, DeleteParams, ListParams, PostParams, WatchEvent, WatchParams};
use rand::{Rng as _, SeedableRng as _};
use serde_json::json;
use sha2::{Digest as _, Sha256};

const DATA_FILE: &str = "EMBEDDED_APISERVER_TEST_DATA_FILE";
const ROUND: &str = "EMBEDDED_APISERVER_TEST_ROUND";

const KILLS: usize = 100;
const WRITERS: u64 = 6;

/// An object whose content follows from a number: what is read back whole can be told from what is not.
fn map(name: &str, seed: u64) -> ConfigMap {
    let digest = hex::encode(Sha256::digest(format!("{name} {seed}")));
    let size = if seed % 40 == 39 { 40 } else { 1 + seed % 8 };
    let payload = digest.repeat(size as usize);
    serde_json::from_value(json!({
        "metadata": { "name": name },
        "data": { "seed": seed.to_string(), "payload": payload },
    }))
    .unwrap()
}

/// The number of which an object is made, if it is whole.
fn seed_of(map_read: &ConfigMap) -> u64 {
    let data = map_read.data.as_ref().unwrap();
    let seed = data["seed"].parse().unwrap();
    let name = map_read.metadata.name.as_deref().unwrap();
    assert_eq!(Some(data), map(name, seed).data.as_ref(), "{name} is not whole");
    seed
}

fn revision_of(map: &ConfigMap) -> u64 {
    map.metadata.resource_version.as_deref().unwrap().parse().unwrap()
}

async fn open(path: &Path) -> (ApiServer, Api<ConfigMap>) {
    let server = ApiServer::builder().data_file(path).build().await.unwrap();
    let maps = Api::default_namespaced(kube::Client::new(server.service(), "default"));
    (server, maps)
}

/// In one write, so that a line comes whole or not at all, whenever the kill comes.
fn say(line: String) {
    std::io::stdout().write_all(format!("\n{line}\n").as_bytes()).unwrap();
}

/// The child of the kills: writes without end, saying before each write what it wants and after it what was
/// acknowledged. Does nothing in a normal test run.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_writes() {
    let (Ok(path), Ok(round)) = (std::env::var(DATA_FILE), std::env::var(ROUND)) else {
        return;
    };
    let round: u64 = round.parse().unwrap();
    let (server, maps) = open(Path::new(&path)).await;
    say(format!("revision {}", server.revision()));
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        let maps = maps.clone();
        writers.spawn(async move {
            for at in 0..100_000 {
                let name = format!("r{round}-w{writer}-{at}");
                create(&maps, &name, at).await;
                if at % 3 == 0 {
                    replace(&maps, &name, at + 1000).await;
                }
                if at % 2 == 0 {
                    delete(&maps, &name).await;
                }
                // One object of each writer lives through all the kills.
                let lasting = format!("lasting-{writer}");
                match maps.get_opt(&lasting).await.unwrap() {
                    None => create(&maps, &lasting, 1).await,
                    Some(present) => replace(&maps, &lasting, seed_of(&present) + 1).await,
                }
            }
        });
    }
    writers.join_all().await;
}

async fn create(maps: &Api<ConfigMap>, name: &str, seed: u64) {
    say(format!("want {name} {seed}"));
    let made = maps.create(&PostParams::default(), &map(name, seed)).await.unwrap();
    say(format!("done {name} {seed} {}", revision_of(&made)));
}

async fn replace(maps: &Api<ConfigMap>, name: &str, seed: u64) {
    say(format!("want {name} {seed}"));
    let made = maps
        .replace(name, &PostParams::default(), &map(name, seed))
        .await
        .unwrap();
    say(format!("done {name} {seed} {}", revision_of(&made)));
}

async fn delete(maps: &Api<ConfigMap>, name: &str) {
    say(format!("want {name} gone"));
    maps.delete(name, &DeleteParams::default()).await.unwrap();
    say(format!("done {name} gone 0"));
}

struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Killed {
    fn start(mut command: Command) -> (Self, BufReader<ChildStdout>) {
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut child = Self(child);
        let output = BufReader::new(child.0.stdout.take().unwrap());
        (child, output)
    }
}

fn this_test(name: &str) -> Vec<String> {
    let program = std::env::current_exe().unwrap().to_string_lossy().into_owned();
    let arguments = ["--exact", name, "--nocapture", "--test-threads=1"];
    std::iter::once(program).chain(arguments.map(str::to_owned)).collect()
}

/// An object's seed, or none when it is gone.
type Seed = Option<u64>;

/// What the children said, put together over all rounds.
#[derive(Default)]
struct Model {
    acknowledged: BTreeMap<String, Seed>,
    revisions: BTreeMap<String, u64>,
    /// Writes without an answer, of one round or of several: each happened or not.
    open: BTreeMap<String, Vec<Seed>>,
    last_revision: u64,
}

impl Model {
    /// Takes in a line; whether it acknowledged something.
    fn hear(&mut self, line: &str) -> bool {
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["revision", revision] => {
                let revision: u64 = revision.parse().unwrap();
                assert!(revision >= self.last_revision, "the revision went back");
                self.last_revision = revision;
                false
            }
            ["want", name, seed] => {
                self.open.entry(name.to_owned()).or_default().push(seed.parse().ok());
                false
            }
            ["done", name, seed, revision] => {
                let seed = seed.parse().ok();
                let asked = self.open.remove(name).unwrap_or_default();
                assert_eq!(asked.last(), Some(&seed), "{name} was answered and not asked");
                self.acknowledged.insert(name.to_owned(), seed);
                let revision: u64 = revision.parse().unwrap();
                self.revisions.insert(name.to_owned(), revision);
                self.last_revision = self.last_revision.max(revision);
                true
            }
            _ => false,
        }
    }

    /// Holds what is stored against what was said.
    fn check(&mut self, stored: &[ConfigMap]) {
        let mut found: BTreeMap<&str, &ConfigMap> = stored
            .iter()
            .map(|map| (map.metadata.name.as_deref().unwrap(), map))
            .collect();
        for (name, wanted) in std::mem::take(&mut self.open) {
            // Each is right; from now on it is as it was found.
            let present = found.get(name.as_str()).map(|map| seed_of(map));
            if wanted.contains(&present) {
                self.acknowledged.insert(name.clone(), present);
                self.revisions.remove(&name);
            } else {
                let before = self.acknowledged.get(&name).copied().flatten();
                assert_eq!(
                    present, before,
                    "{name} is neither as before its last writes nor as after one"
                );
            }
        }
        for (name, seed) in &self.acknowledged {
            let present = found.remove(name.as_str());
            assert_eq!(present.map(seed_of), *seed, "{name} is not as it was acknowledged");
            if let (Some(present), Some(revision)) = (present, self.revisions.get(name)) {
                assert_eq!(
                    revision_of(present),
                    *revision,
                    "{name} has another revision than was answered"
                );
            }
        }
        assert!(found.is_empty(), "nobody wrote {:?}", found.keys());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_hundred_kills() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    let mut random = rand::rngs::StdRng::seed_from_u64(7);
    let mut model = Model::default();
    let mut system_uid = None;
    for round in 0..KILLS {
        let words = this_test("child_that_writes");
        let mut command = Command::new(&words[0]);
        command
            .args(&words[1..])
            .env(DATA_FILE, &path)
            .env(ROUND, round.to_string());
        let (mut child, output) = Killed::start(command);
        let mut lines = output.lines();
        // Some die at their first writes, some in the midst of many, wherever they are.
        let enough = random.random_range(1..60);
        let mut written = 0;
        while written < enough {
            let line = lines.next().expect("the child ended by itself").unwrap();
            written += usize::from(model.hear(&line));
        }
        child.0.kill().unwrap();
        child.0.wait().unwrap();
        // What it had said before it died counts too.
        for line in lines.map_while(Result::ok) {
            model.hear(&line);
        }
        if round % 5 != 4 {
            continue;
        }
        let (server, maps) = open(&path).await;
        let list = maps.list(&ListParams::default()).await.unwrap();
        model.check(&list.items);
        assert!(server.revision() >= model.last_revision, "the revision went back");
        model.last_revision = server.revision();
        assert!(list.items.iter().all(|map| revision_of(map) <= server.revision()));
        let namespaces: Api<Namespace> = Api::all(kube::Client::new(server.service(), "default"));
        let uid = namespaces.get("kube-system").await.unwrap().metadata.uid;
        assert_eq!(*system_uid.get_or_insert_with(|| uid.clone()), uid);
        watch_goes_on_or_expires(&maps, &list.metadata.resource_version.unwrap(), &mut model).await;
    }
    let lived = model.acknowledged.values().flatten().count();
    assert!(lived > KILLS, "only {lived} objects were written");
    let alone: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(alone.len(), 1, "something was left beside the data file: {alone:?}");
}

/// After a start: an old revision cannot be watched from, the client is told to list again; the present one can.
async fn watch_goes_on_or_expires(maps: &Api<ConfigMap>, since: &str, model: &mut Model) {
    let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), "2").await.unwrap());
    let Some(WatchEvent::Error(expired)) = watch.try_next().await.unwrap() else {
        panic!("the watch from a revision that is gone did not end with an error");
    };
    assert_eq!((expired.code, expired.reason.as_str()), (410, "Expired"));
    let mut watch = std::pin::pin!(maps.watch(&WatchParams::default(), since).await.unwrap());
    let name = format!("watched-{since}");
    let made = maps.create(&PostParams::default(), &map(&name, 3)).await.unwrap();
    assert_eq!(revision_of(&made), since.parse::<u64>().unwrap() + 1);
    let Some(WatchEvent::Added(seen)) = watch.try_next().await.unwrap() else {
        panic!("the watch did not go on");
    };
    assert_eq!(
        (seen.metadata.name.as_deref(), seed_of(&seen)),
        (Some(name.as_str()), 3)
    );
    model.last_revision = revision_of(&made);
    model.acknowledged.insert(name, Some(3));
}

/// The child that may not write more than its limit: fills the file, says how that ended, and reads on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_fills_the_disk() {
    let Ok(path) = std::env::var(DATA_FILE) else { return };
    if std::env::var(ROUND).is_ok() {
        return;
    }
    let (_server, maps) = open(Path::new(&path)).await;
    for at in 0..100_000 {
        let name = format!("fill-{at}");
        let large = map(&name, 39 + 40 * at);
        match maps.create(&PostParams::default(), &large).await {
            Ok(made) => say(format!("made {name} {}", revision_of(&made))),
            Err(kube::Error::Api(status)) => {
                say(format!("refused {} {}", status.code, status.message));
                break;
            }
            Err(error) => panic!("{error}"),
        }
    }
    let again = maps.create(&PostParams::default(), &map("again", 1)).await.is_ok();
    let listed = maps.list(&ListParams::default()).await.unwrap().items;
    for map in &listed {
        seed_of(map);
    }
    say(format!("listed {} {again}", listed.len()));
    let mut line = String::new();
    std::io::stdin().read_line(&mut line).unwrap();
    if line.trim() == "room" {
        // The file is tried again in a while, without a restart.
        let mut made = maps.create(&PostParams::default(), &map("healed", 1)).await;
        while let Err(error) = &made {
            assert!(
                matches!(error, kube::Error::Api(status) if status.code == 500),
                "{error}"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
            made = maps.create(&PostParams::default(), &map("healed", 1)).await;
        }
        say(format!("made healed {}", revision_of(&made.unwrap())));
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    drop(open(&path).await);
    let size = std::fs::metadata(&path).unwrap().len();
    // The limit on the size of files stands for the disk. Its signal is left to the error that comes with it.
    let mut command = Command::new("bash");
    command
        .args(["-c", "trap '' XFSZ; ulimit -S -f \"$0\"; exec \"$@\""])
        .arg((size / 1024 + 600).to_string())
        .args(this_test("child_that_fills_the_disk"))
        .env(DATA_FILE, &path);
    let (mut child, output) = Killed::start(command);
    let mut made = Vec::new();
    let mut refused = None;
    let mut listed = false;
    for line in output.lines().map_while(Result::ok) {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        match words[..] {
            ["made", name, revision] => made.push((name.to_owned(), revision.parse::<u64>().unwrap())),
            ["refused", code, message] => refused = Some((code.to_owned(), message.to_owned())),
            ["listed", count, again] => {
                assert_eq!(
                    made.len(),
                    count.parse::<usize>().unwrap(),
                    "something was lost while the disk was full"
                );
                assert_eq!(again, "false");
                listed = true;
                make_room(&mut child.0);
            }
            _ => {}
        }
    }
    assert!(child.0.wait().unwrap().success());
    let (code, message) = refused.expect("the disk was never full");
    assert_eq!(code, "500");
    assert!(message.contains("could not be written"), "{message}");
    assert!(message.contains("free some disk space"), "{message}");
    assert!(made.len() > 10, "only {} objects were made", made.len());
    assert!(listed, "the full server did not list");

    // With room again: everything that was acknowledged is there, and writes work.
    let (server, maps) = open(&path).await;
    let found: BTreeMap<String, u64> = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .items
        .iter()
        .map(|map| {
            seed_of(map);
            (map.metadata.name.clone().unwrap(), revision_of(map))
        })
        .collect();
    for (name, revision) in &made {
        assert_eq!(found.get(name), Some(revision), "{name} was acknowledged and is lost");
    }
    assert!(server.revision() >= made.last().unwrap().1);
    maps.create(&PostParams::default(), &map("afterwards", 1))
        .await
        .unwrap();
}

/// Lifts the limit of a child, where the system has the tool for it, and says that it is lifted.
#[cfg(unix)]
fn make_room(child: &mut Child) {
    let lifted = Command::new("prlimit")
        .args(["--pid", &child.id().to_string(), "--fsize=unlimited:"])
        .status();
    let mut input = child.stdin.take().unwrap();
    if lifted.is_ok_and(|status| status.success()) {
        input.write_all(b"room\n").unwrap();
    } else {
        println!("there is no prlimit: that writing goes on without a restart is not tested");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dropped_server_lets_its_file_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("data");
    for round in 0..20 {
        let (_server, maps) = open(&path).await;
        maps.create(&PostParams::default(), &map(&format!("m{round}"), round))
            .await
            .unwrap();
        assert_eq!(
            maps.list(&ListParams::default()).await.unwrap().items.len(),
            round as usize + 1
        );
    }
}
