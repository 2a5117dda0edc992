//! Providers in other languages, written from the `.proto` files alone (a folder each), and
//! what each of them has to do: pass the conformance suite ([`suite`]) and be the provider of
//! a real core ([`job`]). Not for: anything that knows one of them; its test file does.

pub mod job;
pub mod suite;

use std::path::PathBuf;

use e2e::provider::ProviderCommand;

/// A provider that somebody else could have written.
#[derive(Debug, Clone)]
pub struct ThirdParty {
    /// How it is started and its simulated cloud audited.
    pub provider: ProviderCommand,
    /// What the suite has to know of it, as `--config` takes it.
    pub config: PathBuf,
    /// A cluster `demo` with a MachineDeployment `demo-workers` of three machines.
    pub manifest: PathBuf,
}
