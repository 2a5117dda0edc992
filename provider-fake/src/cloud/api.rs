//! The calls of the simulated cloud. Not for: how they are decided (see `instances` and
//! `networks`) nor how they are carried out (see `ledger`).

use std::sync::Arc;

use super::catalogue::{MACHINE_TYPES, MachineTypeInfo};
use super::instances::{self, Circumstances, InstanceRef, ModifyInstance, Removal, RunInstance};
use super::ledger::Ledger;
use super::model::{Action, Change, Instance, InstanceState, Network, Resource, Target};
use super::networks::{self, CreateNetwork, ModifyNetwork, NetworkRef, NetworkView};
use super::{Caller, Cloud, CloudError};

/// A part of a list, in the order of the ids.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<T> {
    /// What is in it.
    pub items: Vec<T>,
    /// Whether there is more behind it.
    pub more: bool,
}

/// How an instance dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillMode {
    /// It is gone with everything that hangs on it, as a spot instance.
    Vanish,
    /// It is there and switched off.
    Stop,
    /// It is there and will never be well again.
    Fail,
}

impl Cloud {
    /// Makes an instance, or finds the one that the token made.
    pub async fn run_instance(&self, caller: &Caller, request: &RunInstance) -> Result<Arc<Instance>, CloudError> {
        self.mutate("RunInstance", &request.key, caller, |on| instances::run(on, request))
            .await
    }

    /// Changes an instance in place.
    pub async fn modify_instance(
        &self,
        caller: &Caller,
        request: &ModifyInstance,
    ) -> Result<Arc<Instance>, CloudError> {
        let key = &request.instance.key;
        self.mutate("ModifyInstance", key, caller, |on| instances::modify(on, request))
            .await
    }

    /// Removes an instance and spends its key.
    pub async fn terminate_instance(
        &self,
        caller: &Caller,
        wanted: &InstanceRef,
    ) -> Result<Removal<Instance>, CloudError> {
        self.mutate("TerminateInstance", &wanted.key, caller, |on| {
            instances::terminate(on, wanted)
        })
        .await
    }

    /// Shows an instance; `None` when it is not there, or not to be seen yet.
    pub async fn describe_instance(
        &self,
        caller: &Caller,
        wanted: &InstanceRef,
    ) -> Result<Option<Arc<Instance>>, CloudError> {
        let look = |ledger: &Ledger, on: &Circumstances<'_>| find_seen(ledger, on, wanted);
        self.read("DescribeInstance", &wanted.key, caller, look).await
    }

    /// Shows what an instance's console says; `None` when the instance is not there.
    pub async fn console_output(&self, caller: &Caller, wanted: &InstanceRef) -> Result<Option<String>, CloudError> {
        let look = |ledger: &Ledger, on: &Circumstances<'_>| {
            Ok(find_seen(ledger, on, wanted)?.map(|instance| instances::console(&instance, on.now)))
        };
        self.read("GetConsoleOutput", &wanted.key, caller, look).await
    }

    /// Shows the instances of a management cluster, or of one of its clusters, whose ids
    /// come after `after`.
    pub async fn list_instances(
        &self,
        caller: &Caller,
        management_cluster: &str,
        cluster: Option<&str>,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<Arc<Instance>>, CloudError> {
        let after = after.unwrap_or_default();
        let wanted = |it: &Instance| {
            it.owner.management_cluster == management_cluster
                && cluster.is_none_or(|cluster| it.owner.cluster == cluster)
                && it.id.as_str() > after
        };
        let look = |ledger: &Ledger, on: &Circumstances<'_>| {
            let from = (std::ops::Bound::Excluded(after), std::ops::Bound::Unbounded);
            let there = ledger.state.instances.range::<str, _>(from).map(|(_, it)| it);
            let seen = there.filter_map(|it| ledger.seen_instances.seen(&it.key, Some(it), on.now));
            let mut items: Vec<Arc<Instance>> = seen.filter(|it| wanted(it)).take(limit + 1).cloned().collect();
            let gone = ledger.seen_instances.old_states(on.now);
            let gone = gone.filter(|it| wanted(it) && !ledger.state.instances.contains_key(&it.id));
            items.extend(gone.cloned());
            items.sort_by(|a, b| a.id.cmp(&b.id));
            Ok(page_of(items, limit))
        };
        self.read("ListInstances", "", caller, look).await
    }

    /// Makes a network, or finds the one that the token made.
    pub async fn create_network(&self, caller: &Caller, request: &CreateNetwork) -> Result<NetworkView, CloudError> {
        self.mutate("CreateNetwork", &request.key, caller, |on| {
            networks::create(on, request)
        })
        .await
    }

    /// Makes the load balancer that belongs to a network, or finds it.
    pub async fn create_load_balancer(&self, caller: &Caller, wanted: &NetworkRef) -> Result<NetworkView, CloudError> {
        self.mutate("CreateLoadBalancer", &wanted.key, caller, |on| {
            networks::create_load_balancer(on, wanted)
        })
        .await
    }

    /// Changes a network in place.
    pub async fn modify_network(&self, caller: &Caller, request: &ModifyNetwork) -> Result<NetworkView, CloudError> {
        self.mutate("ModifyNetwork", &request.network.key, caller, |on| {
            networks::modify(on, request)
        })
        .await
    }

    /// Removes a network with its load balancer and spends its key.
    pub async fn delete_network(&self, caller: &Caller, wanted: &NetworkRef) -> Result<Removal<Network>, CloudError> {
        self.mutate("DeleteNetwork", &wanted.key, caller, |on| networks::delete(on, wanted))
            .await
    }

    /// Sets the full set of targets of a network's load balancer.
    pub async fn set_targets(
        &self,
        caller: &Caller,
        wanted: &NetworkRef,
        targets: &[Target],
        generation: i64,
    ) -> Result<(NetworkView, Vec<Option<InstanceState>>), CloudError> {
        self.mutate("SetLoadBalancerTargets", &wanted.key, caller, |on| {
            let (view, changes) = networks::set_targets(on, wanted, targets, generation)?;
            let state = |target: &Target| on.state.instance_of(&target.key).map(|instance| instance.state);
            Ok(((view, targets.iter().map(state).collect()), changes))
        })
        .await
    }

    /// Shows a network with its load balancer; `None` when it is not there, or not to be
    /// seen yet.
    pub async fn describe_network(
        &self,
        caller: &Caller,
        wanted: &NetworkRef,
    ) -> Result<Option<NetworkView>, CloudError> {
        let look = |ledger: &Ledger, on: &Circumstances<'_>| {
            let current = on
                .state
                .network_of(&wanted.key)
                .map(|network| networks::view(on, network));
            let seen = ledger
                .seen_networks
                .seen(&wanted.key, current.as_ref(), on.now)
                .cloned();
            networks::check(on, wanted, seen.as_ref().map(|view| view.network.as_ref()))?;
            Ok(seen)
        };
        self.read("DescribeNetwork", &wanted.key, caller, look).await
    }

    /// Shows the networks of a management cluster whose ids come after `after`.
    pub async fn list_networks(
        &self,
        caller: &Caller,
        management_cluster: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Page<NetworkView>, CloudError> {
        let after = after.unwrap_or_default();
        let wanted = |view: &NetworkView| {
            view.network.owner.management_cluster == management_cluster && view.network.id.as_str() > after
        };
        let look = |ledger: &Ledger, on: &Circumstances<'_>| {
            let there = ledger
                .state
                .networks
                .values()
                .map(|network| networks::view(on, network));
            let seen = there.filter_map(|view| {
                ledger
                    .seen_networks
                    .seen(&view.network.key, Some(&view), on.now)
                    .cloned()
            });
            let gone = ledger.seen_networks.old_states(on.now);
            let gone = gone
                .filter(|view| !ledger.state.networks.contains_key(&view.network.id))
                .cloned();
            let mut items: Vec<NetworkView> = seen.chain(gone).filter(wanted).collect();
            items.sort_by(|a, b| a.network.id.cmp(&b.network.id));
            Ok(page_of(items, limit))
        };
        self.read("ListNetworks", "", caller, look).await
    }

    /// Shows the machine types, and in which zones one more of each can be had.
    pub async fn machine_types(
        &self,
        caller: &Caller,
    ) -> Result<Vec<(&'static MachineTypeInfo, Vec<(String, bool)>)>, CloudError> {
        let look = |_: &Ledger, on: &Circumstances<'_>| {
            let availability = |info: &MachineTypeInfo| {
                let zones = on.settings.zones.iter();
                zones
                    .map(|zone| (zone.clone(), instances::is_available(on, zone, info.name)))
                    .collect()
            };
            Ok(MACHINE_TYPES.iter().map(|info| (info, availability(info))).collect())
        };
        self.read("DescribeMachineTypes", "", caller, look).await
    }

    /// Lets an instance die, by its id or its key. Not a call of the API: neither gate
    /// nor faults. Tells whether there was one that could.
    pub async fn kill_instance(&self, id_or_key: &str, mode: KillMode) -> Result<bool, CloudError> {
        let settings = self.settings();
        let seq = {
            let mut ledger = self.0.ledger.lock();
            ledger.advance(self.0.clock.now(), &settings);
            let state = &ledger.state;
            let Some(instance) = state.instances.get(id_or_key).or_else(|| state.instance_of(id_or_key)) else {
                return Ok(false);
            };
            let with = |action: Action, instance_state: InstanceState, failure: Option<String>| {
                let next = Instance {
                    state: instance_state,
                    failure,
                    ..Instance::clone(instance)
                };
                vec![Change::to(action, Resource::Instance(Arc::new(next)))]
            };
            let changes = match mode {
                // Its key is spent already, whoever ends it.
                KillMode::Vanish if instance.state == InstanceState::ShuttingDown => {
                    state.instance_gone(instance, Action::Deleted)
                }
                _ if instance.state == InstanceState::ShuttingDown => return Ok(false),
                KillMode::Vanish => state.instance_gone(instance, Action::Lost),
                KillMode::Stop => with(Action::Stopped, InstanceState::Stopped, None),
                KillMode::Fail => with(
                    Action::Failed,
                    InstanceState::Failed,
                    Some("the instance was made to fail".to_owned()),
                ),
            };
            let seq = ledger.record_changes(changes, &settings);
            self.0.news.send_replace(seq);
            seq
        };
        self.0
            .durability
            .clone()
            .synced(seq)
            .await
            .map_err(|problem| super::broken(&problem))?;
        Ok(true)
    }

    /// Every resource there is, as it is. Not a call of the API.
    pub fn resources(&self) -> Vec<Resource> {
        let mut ledger = self.0.ledger.lock();
        ledger.advance(self.0.clock.now(), &self.settings());
        ledger.state.resources().collect()
    }
}

fn find_seen(
    ledger: &Ledger,
    on: &Circumstances<'_>,
    wanted: &InstanceRef,
) -> Result<Option<Arc<Instance>>, CloudError> {
    let current = on.state.instance_of(&wanted.key);
    let seen = ledger.seen_instances.seen(&wanted.key, current, on.now);
    instances::check(on, wanted, seen.map(Arc::as_ref))?;
    Ok(seen.cloned())
}

fn page_of<T>(mut items: Vec<T>, limit: usize) -> Page<T> {
    let more = items.len() > limit;
    items.truncate(limit);
    Page { items, more }
}
