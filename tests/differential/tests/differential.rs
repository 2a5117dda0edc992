//! Every case of `cases/` against both servers. `cargo test -p differential -- watch::` runs
//! a part; `OUTRIGGER_DIFFERENTIAL_SHOW=1` prints what was asked and answered.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use differential::case::{Case, File};
use differential::compare;
use differential::differences::{self, Known};
use differential::run::{self, Names, Seen};
use differential::server::{Embedded, Real, Server};
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::{OnceCell, RwLock};

/// At once: cases wait more than they work.
const AT_ONCE: usize = 8;

struct Stage {
    runtime: Runtime,
    servers: OnceCell<Result<(Embedded, Real), String>>,
    known: Vec<Known>,
    run: String,
    alone: RwLock<()>,
}

struct Loaded {
    name: String,
    file: File,
    ready: OnceCell<Result<(), String>>,
}

impl Stage {
    async fn servers(&self) -> Result<(Server, Server, bool), String> {
        let started = self
            .servers
            .get_or_init(|| async {
                let both = async { anyhow::Ok((Embedded::start().await?, Real::start(false).await?)) };
                both.await.map_err(|error| format!("{error:#}"))
            })
            .await;
        let (embedded, real) = started.as_ref().map_err(Clone::clone)?;
        Ok((embedded.server.clone(), real.server.clone(), real.server.controllers))
    }

    async fn run(&self, loaded: &Loaded, number: usize, case: &Case) -> Result<(), String> {
        let (embedded, real, controllers) = self.servers().await?;
        if case.controllers && !controllers {
            println!(
                "{}::{} was left out: KUBEBUILDER_ASSETS has no controllers",
                loaded.name, case.case
            );
            return Ok(());
        }
        let names = Names::new(&self.run, &loaded.name, number);
        let ready = loaded.ready.get_or_init(|| async {
            let made = tokio::try_join!(
                run::prepare(&embedded, &names, &loaded.file.definitions),
                run::prepare(&real, &names, &loaded.file.definitions),
            );
            made.map(|_| ()).map_err(|error| format!("{error:#}"))
        });
        ready.await.clone()?;
        let (_shared, _exclusive);
        if case.alone {
            _exclusive = self.alone.write().await;
        } else {
            _shared = self.alone.read().await;
        }
        let played = tokio::join!(run::play(&embedded, &names, case), run::play(&real, &names, case));
        let (embedded, real) = match played {
            (Ok(embedded), Ok(real)) => (embedded, real),
            (left, right) => {
                let errors = [left.err(), right.err()].into_iter().flatten();
                return Err(errors.map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n"));
            }
        };
        if std::env::var_os("OUTRIGGER_DIFFERENTIAL_SHOW").is_some() {
            show(case, &embedded, &real);
        }
        let found = compare::compare(&embedded, &real);
        let wrong = differences::unexpected(&format!("{}::{}", loaded.name, case.case), &found, &self.known);
        if wrong.is_empty() {
            return Ok(());
        }
        let requests = real
            .iter()
            .enumerate()
            .map(|(index, seen)| format!("  {index}: {}", seen.request));
        Err(format!(
            "{}\n{}",
            requests.collect::<Vec<_>>().join("\n"),
            wrong.join("\n")
        ))
    }
}

fn show(case: &Case, embedded: &[Seen], real: &[Seen]) {
    println!("== {}", case.case);
    for (index, (embedded, real)) in embedded.iter().zip(real).enumerate() {
        println!("step {index}: {}", real.request);
        println!("  real:     {}", real.answer);
        if embedded.answer != real.answer {
            println!("  embedded: {}", embedded.answer);
        }
    }
}

fn files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("cases");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    files
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let known = differences::read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("differences.yaml")).unwrap();
    let stage = Arc::new(Stage {
        runtime: tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
            .unwrap(),
        servers: OnceCell::new(),
        known,
        run: format!("{:05x}", rand::random::<u32>() & 0xf_ffff),
        alone: RwLock::new(()),
    });
    let mut trials = Vec::new();
    let mut names = Vec::new();
    let mut loaded = Vec::new();
    for path in files() {
        let file = File::read(&path).unwrap();
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let file = Arc::new(Loaded {
            name,
            file,
            ready: OnceCell::new(),
        });
        for (number, case) in file.file.cases.iter().enumerate() {
            let (stage, file, case) = (Arc::clone(&stage), Arc::clone(&file), case.clone());
            let name = format!("{}::{}", file.name, case.case);
            names.push(name.clone());
            trials.push(Trial::test(name, move || {
                stage
                    .runtime
                    .block_on(stage.run(&file, number, &case))
                    .map_err(Failed::from)
            }));
        }
        loaded.push(file);
    }
    let known_names: Vec<String> = stage
        .known
        .iter()
        .map(|known| known.case.clone())
        .filter(|case| !names.contains(case))
        .collect();
    trials.push(Trial::test(
        "the list of differences names cases that are there",
        move || {
            if known_names.is_empty() {
                Ok(())
            } else {
                Err(format!("no such cases: {known_names:?}").into())
            }
        },
    ));
    let outcome = libtest_mimic::run(&arguments, trials);
    // Not dropped by the last test: what was started ends, whatever the outcome.
    let mut stage = Arc::into_inner(stage).expect("the tests have ended");
    if let Some(Ok((embedded, real))) = stage.servers.take() {
        stage.runtime.block_on(async {
            for file in &loaded {
                if file.ready.initialized() {
                    let names = Names::new(&stage.run, &file.name, 0);
                    if let Err(error) = run::clean(&real.server, &names, &file.file.definitions).await {
                        eprintln!("{error:#}");
                    }
                }
            }
            embedded.stop().await;
            if let Err(error) = real.stop().await {
                eprintln!("{error:#}");
            }
        });
    }
    outcome.exit();
}
