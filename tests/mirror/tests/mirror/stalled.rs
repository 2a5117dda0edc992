//! A provider that hangs never slows another provider's machines: theirs come and go
//! while it hangs throughout. Nothing here is timed; the figure is in `make bench`.

use std::sync::Arc;

use anyhow::ensure;
use mirror::ledger::{Call, Ledger};
use mirror::provider::Act;
use outrigger_api::Machine;

use crate::Row;
use crate::scene::{Scene, is_running};
use crate::world::{PATIENCE, World};

/// How many machines each of the two has: more than calls may be under way to one.
const MACHINES: usize = 40;

pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    for (name, calls) in [
        ("creates", &[Call::CreateMachine][..]),
        (
            "every_call_about_machines",
            &[Call::CreateMachine, Call::MachineExists, Call::ValidateConfig],
        ),
        (
            "every_call",
            &[
                Call::CreateMachine,
                Call::MachineExists,
                Call::ValidateConfig,
                Call::Probe,
                Call::GetProtocols,
            ],
        ),
    ] {
        rows.push(Row::new(
            format!("stalled::a_provider_that_never_answers_{name}_holds_nobody_up"),
            move |world| never_answers(world, calls),
        ));
    }
    rows.push(Row::new(
        "stalled::a_provider_that_never_answers_deletions_holds_nobody_up",
        never_deletes,
    ));
    rows.push(Row::new(
        "stalled::a_provider_that_never_accepts_holds_nobody_up",
        never_accepts,
    ));
    rows
}

async fn fill(scene: &Scene) -> anyhow::Result<()> {
    for index in 0..MACHINES {
        scene.make_machine(&format!("m{index}")).await?;
    }
    Ok(())
}

/// Machines of this scene come and go.
async fn come_and_go(scene: Scene) -> anyhow::Result<()> {
    fill(&scene).await?;
    for index in 0..MACHINES {
        scene
            .until_one(&format!("m{index}"), "a machine that runs", is_running)
            .await?;
    }
    scene.finish().await
}

/// None of the scene's machines runs; the provider hangs still.
async fn all_wait(scene: &Scene) -> anyhow::Result<()> {
    let machines = scene.api::<Machine>().list(&Default::default()).await?;
    ensure!(machines.items.len() == MACHINES, "{} machines", machines.items.len());
    ensure!(!machines.iter().any(is_running), "the provider did not hang");
    Ok(())
}

async fn never_answers(world: Arc<World>, calls: &'static [Call]) -> anyhow::Result<()> {
    let (well, hangs) = (Scene::new(&world).await?, Scene::new(&world).await?);
    well.cluster().await?;
    hangs.cluster().await?;
    for call in calls {
        hangs.provider.script(*call, Act::Stall);
    }
    if calls.contains(&Call::GetProtocols) {
        hangs.provider.restart()?;
        let dialled = |ledger: &Ledger| ledger.count(Call::GetProtocols) >= 2;
        hangs.provider.until(PATIENCE, "the second dial", dialled).await?;
        fill(&hangs).await?;
    } else {
        fill(&hangs).await?;
        let first = calls.contains(&Call::ValidateConfig).then_some(Call::ValidateConfig);
        let first = first.unwrap_or(Call::CreateMachine);
        let asked = |ledger: &Ledger| ledger.count(first) >= 1;
        hangs.provider.until(PATIENCE, "a call that hangs", asked).await?;
    }
    come_and_go(well).await?;
    all_wait(&hangs).await?;
    hangs.provider.heal();
    for index in 0..MACHINES {
        hangs
            .until_one(&format!("m{index}"), "a machine that runs", is_running)
            .await?;
    }
    hangs.finish().await
}

async fn never_deletes(world: Arc<World>) -> anyhow::Result<()> {
    let (well, hangs) = (Scene::new(&world).await?, Scene::new(&world).await?);
    well.cluster().await?;
    hangs.cluster().await?;
    fill(&hangs).await?;
    for index in 0..MACHINES {
        hangs
            .until_one(&format!("m{index}"), "a machine that runs", is_running)
            .await?;
    }
    hangs.provider.script(Call::DeleteMachine, Act::Stall);
    for index in 0..MACHINES {
        hangs.delete::<Machine>(&format!("m{index}")).await?;
    }
    let asked = |ledger: &Ledger| ledger.count(Call::DeleteMachine) >= 2;
    hangs.provider.until(PATIENCE, "deletions that hang", asked).await?;
    // Not even the creations of the provider itself are held up.
    hangs.make_machine("late").await?;
    hangs.until_one("late", "a machine that runs", is_running).await?;
    come_and_go(well).await?;
    let left = hangs.api::<Machine>().list(&Default::default()).await?.items.len();
    ensure!(left == MACHINES + 1, "{left} machines are left");
    hangs.provider.heal();
    hangs.finish().await
}

async fn never_accepts(world: Arc<World>) -> anyhow::Result<()> {
    let (well, hangs) = (Scene::new(&world).await?, Scene::without_provider(&world).await?);
    well.cluster().await?;
    hangs.provider.never_accept()?;
    hangs.connect().await?;
    hangs.make_cluster().await?;
    fill(&hangs).await?;
    come_and_go(well).await?;
    all_wait(&hangs).await?;
    hangs.provider.restart()?;
    for index in 0..MACHINES {
        hangs
            .until_one(&format!("m{index}"), "a machine that runs", is_running)
            .await?;
    }
    hangs.finish().await
}
