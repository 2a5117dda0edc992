//! The mirror suite: our own core survives any provider, however it misbehaves. Each row
//! is a test of its own; all share one core, with a namespace and a provider for each.
//!
//! `MIRROR_LOG=debug` prints what the core logs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod answers;
mod lasting;
mod lies;
mod owned;
mod scene;
mod sessions;
mod stalled;
mod statuses;
mod streams;
mod table;
mod world;

use std::future::Future;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};

use crate::scene::{ROW, Scene};
use crate::world::World;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use libtest_mimic::{Arguments, Failed, Trial};
use tokio::runtime::Runtime;

/// How many rows are under way at a time: they wait most of the time.
const AT_A_TIME: usize = 32;

/// What a row does.
type Run = Box<dyn FnOnce(Arc<World>) -> BoxFuture<'static, anyhow::Result<()>> + Send>;

/// One row of a table.
pub struct Row {
    /// Reads as the rule.
    pub name: String,
    run: Run,
}

impl Row {
    /// A row.
    pub fn new<F>(name: impl Into<String>, run: impl FnOnce(Arc<World>) -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self {
            name: name.into(),
            run: Box::new(move |world| run(world).boxed()),
        }
    }

    /// A row with a provider that is right until it is told otherwise.
    pub fn scene<F>(name: impl Into<String>, play: impl FnOnce(Scene) -> F + Send + 'static) -> Self
    where
        F: Future<Output = anyhow::Result<()>> + Send + 'static,
    {
        Self::new(name, |world| async move { play(Scene::new(&world).await?).await })
    }
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    rows.extend(table::rows());
    rows.extend(statuses::rows());
    rows.extend(lies::rows());
    rows.extend(sessions::rows());
    rows.extend(streams::rows());
    rows.extend(stalled::rows());
    rows.extend(owned::rows());
    rows.extend(lasting::rows());
    rows
}

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(AT_A_TIME);
    let runtime = Arc::new(Runtime::new().unwrap());
    let world = Arc::new(OnceLock::<Arc<World>>::new());
    let trials = rows()
        .into_iter()
        .map(|row| {
            let (runtime, world) = (Arc::clone(&runtime), Arc::clone(&world));
            Trial::test(row.name, move || {
                let world = Arc::clone(world.get_or_init(|| Arc::new(runtime.block_on(World::start()).unwrap())));
                let outcome = runtime.block_on(async { tokio::time::timeout(ROW, (row.run)(world)).await });
                match outcome {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Failed::from(format!("{error:#}"))),
                    Err(_) => Err(Failed::from(format!("not over after {ROW:?}"))),
                }
            })
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Some(world) = world.get() {
        let stopped = runtime.block_on(world.stop_core());
        assert!(stopped.is_ok(), "the core did not end well: {stopped:?}");
    }
    conclusion.exit_code()
}
