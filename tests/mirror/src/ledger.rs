//! The truth: what exists in the scripted provider's cloud, what was ever made there, and
//! which calls came. Nothing in here lies; lies are told by the script.

use std::collections::BTreeMap;

use actuator_proto::v1;

/// A call of the protocol that the suite tells apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // named after the RPCs
pub enum Call {
    GetProtocols,
    GetInfo,
    Probe,
    ValidateConfig,
    CreateCluster,
    ClusterExists,
    UpdateCluster,
    DeleteCluster,
    CreateMachine,
    MachineExists,
    UpdateMachine,
    DeleteMachine,
    WatchMachines,
    SetEndpointMembers,
    /// Anything else.
    Other,
}

impl Call {
    /// The call of this HTTP path.
    pub fn of(path: &str) -> Self {
        match path.rsplit('/').next().unwrap_or_default() {
            "GetProtocols" => Self::GetProtocols,
            "GetInfo" => Self::GetInfo,
            "Probe" => Self::Probe,
            "ValidateConfig" => Self::ValidateConfig,
            "CreateCluster" => Self::CreateCluster,
            "ClusterExists" => Self::ClusterExists,
            "UpdateCluster" => Self::UpdateCluster,
            "DeleteCluster" => Self::DeleteCluster,
            "CreateMachine" => Self::CreateMachine,
            "MachineExists" => Self::MachineExists,
            "UpdateMachine" => Self::UpdateMachine,
            "DeleteMachine" => Self::DeleteMachine,
            "WatchMachines" => Self::WatchMachines,
            "SetEndpointMembers" => Self::SetEndpointMembers,
            _ => Self::Other,
        }
    }

    /// How a trace writes it: clusters in capitals.
    pub fn letter(self) -> Option<char> {
        match self {
            Self::CreateCluster => Some('C'),
            Self::ClusterExists => Some('E'),
            Self::UpdateCluster => Some('U'),
            Self::DeleteCluster => Some('D'),
            Self::CreateMachine => Some('c'),
            Self::MachineExists => Some('e'),
            Self::UpdateMachine => Some('u'),
            Self::DeleteMachine => Some('d'),
            _ => None,
        }
    }

    fn deletes(self) -> bool {
        matches!(self, Self::DeleteCluster | Self::DeleteMachine)
    }
}

/// A call that came.
#[derive(Debug, Clone)]
pub struct Came {
    /// Which call.
    pub call: Call,
    /// The name of the object that it was for; empty where there is none.
    pub object: String,
    /// Whether the script had its way with it.
    pub scripted: bool,
}

/// A machine or the infrastructure of a cluster.
#[derive(Debug, Clone)]
pub struct Resource {
    /// Whether it is a cluster's.
    pub cluster: bool,
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub owner: v1::Ownership,
    /// The digest that was asked for last.
    pub digest: Vec<u8>,
    /// The generation that was asked for last.
    pub generation: i64,
    /// Whether it runs, or is ready.
    pub runs: bool,
    /// Whether an Update has changed it.
    pub changed: bool,
}

/// The ledger.
#[derive(Debug, Default)]
pub struct Ledger {
    /// What exists, by key.
    pub resources: BTreeMap<String, Resource>,
    /// Every resource that was ever made: key, object UID and id.
    pub made: Vec<(String, String, String)>,
    /// Every call, in order.
    pub came: Vec<Came>,
    /// Whether a user has deleted anything: before, no Delete may come.
    pub deletions_wanted: bool,
    /// What the core did that it must never do.
    pub violations: Vec<String>,
}

impl Ledger {
    /// Notes a call.
    pub fn note(&mut self, call: Call, object: &str, scripted: bool) {
        if call.deletes() && !self.deletions_wanted {
            self.violations
                .push(format!("{call:?} for {object:?}, which nobody deleted"));
        }
        self.came.push(Came {
            call,
            object: object.to_owned(),
            scripted,
        });
    }

    /// Makes a resource, or finds the one of this key.
    pub fn make(&mut self, key: &str, wanted: Resource) -> Resource {
        if let Some(known) = self.resources.get(key) {
            return known.clone();
        }
        if key != actuator_proto::key::derive(&wanted.owner.object_uid) {
            self.violations
                .push(format!("the key {key:?} does not follow from the UID of its object"));
        }
        self.made
            .push((key.to_owned(), wanted.owner.object_uid.clone(), wanted.id.clone()));
        self.resources.insert(key.to_owned(), wanted.clone());
        wanted
    }

    /// The calls for an object as letters, an exclamation mark after each that the script
    /// had its way with.
    pub fn trace(&self, object: &str) -> String {
        let mut trace = String::new();
        for came in self.came.iter().filter(|came| came.object == object) {
            if let Some(letter) = came.call.letter() {
                trace.push(letter);
                if came.scripted {
                    trace.push('!');
                }
            }
        }
        trace
    }

    /// How often a call came.
    pub fn count(&self, call: Call) -> usize {
        self.came.iter().filter(|came| came.call == call).count()
    }

    /// The machines that exist.
    pub fn machines(&self) -> impl Iterator<Item = &Resource> {
        self.resources.values().filter(|resource| !resource.cluster)
    }

    /// What is wrong: something made twice for one object, or what the core never may do.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = self.violations.clone();
        let mut seen = BTreeMap::<&str, usize>::new();
        for (_, uid, _) in &self.made {
            *seen.entry(uid).or_default() += 1;
        }
        for (uid, times) in seen.into_iter().filter(|(_, times)| *times > 1) {
            faults.push(format!("{times} resources were made for the object {uid}"));
        }
        faults
    }
}
