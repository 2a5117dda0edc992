//! kubectl beside the real server: every case of `kubectl/` against both, and what it prints
//! compared. `cargo test -p clients --test kubectl -- apply::` runs a part;
//! `OUTRIGGER_CLIENTS_SHOW=1` prints what the real one printed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clients::script::{self, Case, File, Names, Place, Seen};
use clients::tools;
use differential::server::{Embedded, Real};
use kube::config::Kubeconfig;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

/// At once: every case runs two processes.
const AT_ONCE: usize = 4;

struct Servers {
    embedded: Embedded,
    real: Real,
    places: [Place; 2],
    _folder: tempfile::TempDir,
}

struct Stage {
    runtime: Runtime,
    servers: OnceCell<Result<Servers, String>>,
    run: String,
}

struct Loaded {
    name: String,
    file: File,
    ready: OnceCell<Result<(), String>>,
}

async fn start() -> anyhow::Result<Servers> {
    let kubectl = tools::program("kubectl")?;
    let programs = kubectl.parent().unwrap_or(Path::new("/")).to_owned();
    let folder = tempfile::tempdir()?;
    let embedded = Embedded::start().await?;
    let real = Real::start(false).await?;
    let place = |name, kubeconfig: &Path| {
        let own = folder.path().join(name);
        std::fs::create_dir_all(&own)?;
        anyhow::Ok(Place {
            name,
            folder: own,
            kubeconfig: Kubeconfig::read_from(kubeconfig)?,
            programs: programs.clone(),
        })
    };
    let places = [
        place("embedded", &embedded.kubeconfig)?,
        place("real", &real.kubeconfig)?,
    ];
    Ok(Servers {
        embedded,
        real,
        places,
        _folder: folder,
    })
}

impl Stage {
    fn names(&self, loaded: &Loaded, number: usize) -> Names {
        Names {
            namespace: format!("k{}-{}-{number}", self.run, loaded.name),
            group: format!("{}.k{}.example.com", loaded.name, self.run),
            run: self.run.clone(),
        }
    }

    async fn run(&self, loaded: &Loaded, number: usize, case: &Case) -> Result<(), String> {
        let servers = self
            .servers
            .get_or_init(|| async { start().await.map_err(|error| format!("{error:#}")) })
            .await;
        let servers = servers.as_ref().map_err(Clone::clone)?;
        if case.controllers && !servers.real.server.controllers {
            println!(
                "{}::{} was left out: KUBEBUILDER_ASSETS has no controllers",
                loaded.name, case.case
            );
            return Ok(());
        }
        let [embedded, real] = &servers.places;
        let shared = self.names(loaded, 0);
        let ready = loaded.ready.get_or_init(|| async {
            tokio::try_join!(
                embedded.prepare(&shared, &loaded.file),
                real.prepare(&shared, &loaded.file)
            )
            .map(|_| ())
            .map_err(|error| format!("{error:#}"))
        });
        ready.await.clone()?;
        let names = self.names(loaded, number + 1);
        let played = tokio::join!(
            embedded.play(&names, &loaded.file, case),
            real.play(&names, &loaded.file, case)
        );
        let (embedded, real) = match played {
            (Ok(embedded), Ok(real)) => (embedded, real),
            (left, right) => {
                let errors = [left.err(), right.err()].into_iter().flatten();
                return Err(errors.map(|error| format!("{error:#}")).collect::<Vec<_>>().join("\n"));
            }
        };
        if std::env::var_os("OUTRIGGER_CLIENTS_SHOW").is_some() {
            show(case, &real);
        }
        let wrong = script::wrong(&names, case, &embedded, &real);
        if wrong.is_empty() {
            Ok(())
        } else {
            Err(wrong.join("\n\n"))
        }
    }
}

fn show(case: &Case, seen: &[Seen]) {
    let mut text = format!("== {}\n", case.case);
    for seen in seen {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "$ {}\n{}\n{}\n({})\n",
            seen.command, seen.out, seen.err, seen.code
        );
    }
    println!("{text}");
}

fn files() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(tools::sources().join("kubectl")).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

fn main() {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_ONCE);
    rustls::crypto::ring::default_provider().install_default().unwrap();
    let stage = Arc::new(Stage {
        runtime: Runtime::new().unwrap(),
        servers: OnceCell::new(),
        run: format!("{:05x}", rand::random::<u32>() & 0xf_ffff),
    });
    let mut trials = Vec::new();
    let mut loaded = Vec::new();
    for path in files() {
        let file: File = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap())
            .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let file = Arc::new(Loaded {
            name: path.file_stem().unwrap().to_string_lossy().into_owned(),
            file,
            ready: OnceCell::new(),
        });
        for (number, case) in file.file.cases.iter().enumerate() {
            let (stage, file, case) = (Arc::clone(&stage), Arc::clone(&file), case.clone());
            trials.push(Trial::test(format!("{}::{}", file.name, case.case), move || {
                let run = stage.run(&file, number, &case);
                stage.runtime.block_on(run).map_err(Failed::from)
            }));
        }
        loaded.push(file);
    }
    let outcome = libtest_mimic::run(&arguments, trials);
    // Not dropped by the last test: what was started ends, whatever the outcome.
    let mut stage = Arc::into_inner(stage).expect("the tests have ended");
    if let Some(Ok(servers)) = stage.servers.take() {
        let Servers {
            embedded, real, places, ..
        } = servers;
        let shared: Vec<_> = loaded.iter().map(|file| (file, stage.names(file, 0))).collect();
        stage.runtime.block_on(async {
            for (file, names) in &shared {
                if file.ready.initialized()
                    && let Err(error) = places[1].clean(names, &file.file).await
                {
                    eprintln!("{error:#}");
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
