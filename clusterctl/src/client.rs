//! A Kubernetes client from the usual flags.

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::cli::ConnectionArgs;

/// Connects as the flags say: `--kubeconfig`, else `$KUBECONFIG`, else `~/.kube/config`.
pub async fn connect(args: &ConnectionArgs) -> anyhow::Result<Client> {
    let options = KubeConfigOptions {
        context: args.context.clone(),
        ..Default::default()
    };
    let mut config = match &args.kubeconfig {
        Some(file) => {
            let kubeconfig = Kubeconfig::read_from(file)
                .with_context(|| format!("failed to read the kubeconfig {}", file.display()))?;
            Config::from_custom_kubeconfig(kubeconfig, &options)
                .await
                .with_context(|| format!("failed to use the kubeconfig {}", file.display()))?
        }
        None => Config::from_kubeconfig(&options)
            .await
            .context("no usable kubeconfig; give --kubeconfig, or export KUBECONFIG as `clusterctl up` prints it")?,
    };
    if let Some(namespace) = &args.namespace {
        config.default_namespace.clone_from(namespace);
    }
    Client::try_from(config).context("failed to make a Kubernetes client")
}
