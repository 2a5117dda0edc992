//! A provider on another machine, as far as TLS can tell: real core and real provider-fake
//! over mutual TLS. The main job; certificates that change under way; and each refusal with
//! its condition, and how it is mended.

use std::net::TcpListener;

use e2e::certificates::{Authority, Mounted, NOW, Pair};
use e2e::process::Process;
use e2e::separate::Separate;
use e2e::{binaries, manifests, wait};
use kube::api::Api;
use outrigger_api::Provider;

type Result<T = ()> = anyhow::Result<T>;

const SERVER: &str = "provider.test";
const CORE: &str = "core.test";

/// An API server, and a core and a provider that meet over TLS.
struct Remote {
    plane: Separate,
    authority: Authority,
    server: Mounted,
    core: Mounted,
    port: u16,
    provider: Option<Process>,
    controller: Option<Process>,
}

impl Remote {
    async fn new() -> Result<Self> {
        let plane = Separate::start(&[]).await?;
        let authority = Authority::new("the test's authority")?;
        let folder = plane.kubeconfig();
        let server = Mounted::new(
            &folder.with_file_name("server-tls"),
            &authority.pem(),
            &authority.issue(SERVER, NOW)?,
        )?;
        let core = Mounted::new(
            &folder.with_file_name("core-tls"),
            &authority.pem(),
            &authority.issue(CORE, NOW)?,
        )?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        Ok(Self {
            plane,
            authority,
            server,
            core,
            port,
            provider: None,
            controller: None,
        })
    }

    fn log(&self, name: &str) -> std::path::PathBuf {
        self.plane.kubeconfig().with_file_name(name)
    }

    fn said(&self, name: &str) -> String {
        std::fs::read_to_string(self.log(name)).unwrap_or_default()
    }

    async fn stop_provider(&mut self) -> Result {
        match self.provider.take() {
            Some(mut provider) => provider.kill().await,
            None => Ok(()),
        }
    }

    fn start_provider(&mut self) -> Result {
        let arguments = [
            "--listen".to_owned(),
            format!("tcp://127.0.0.1:{}", self.port),
            "--state-dir".to_owned(),
            self.plane.cloud().to_string_lossy().into_owned(),
            "--tls-cert".to_owned(),
            self.server.path("tls.crt"),
            "--tls-key".to_owned(),
            self.server.path("tls.key"),
            "--tls-client-ca".to_owned(),
            self.server.path("ca.crt"),
            "--tls-client-name".to_owned(),
            CORE.to_owned(),
        ];
        self.start_provider_with(&arguments)
    }

    fn start_provider_with(&mut self, arguments: &[String]) -> Result {
        self.provider = Some(Process::start(
            &binaries()?.join("provider-fake"),
            arguments,
            &[],
            &self.log("remote-provider.log"),
        )?);
        Ok(())
    }

    fn endpoint(&self) -> String {
        format!("https://127.0.0.1:{}", self.port)
    }

    /// The core, with the provider as its flags name it; without it when `flags` is false.
    fn start_core(&mut self, flags: bool) -> Result {
        let mut arguments = vec![
            "--kubeconfig".to_owned(),
            self.plane.kubeconfig().to_string_lossy().into_owned(),
            "--identity".to_owned(),
            "e2e".to_owned(),
        ];
        if flags {
            arguments.extend([
                "--provider".to_owned(),
                format!("fake={}", self.endpoint()),
                "--provider-tls".to_owned(),
                format!("fake={}", self.core.folder().display()),
                "--provider-server-name".to_owned(),
                format!("fake={SERVER}"),
            ]);
        }
        self.controller = Some(Process::start(
            &binaries()?.join("core-controller"),
            &arguments,
            &[],
            &self.log("remote-core.log"),
        )?);
        Ok(())
    }

    /// Waits for a condition of the Provider, and returns its message.
    async fn condition(&self, type_: &str, status: &str, reason: &str) -> Result<String> {
        let providers: Api<Provider> = Api::all(self.plane.client().await?);
        let wanted = |provider: &Provider| {
            provider
                .status
                .iter()
                .flat_map(|status| &status.conditions)
                .find(|condition| condition.type_ == type_ && condition.status == status && condition.reason == reason)
                .map(|condition| condition.message.clone())
        };
        let what = format!("the Provider's {type_} is {status} with {reason}");
        let found = wait::until(providers, wait::PATIENCE, &what, |all| {
            all.iter().any(|provider| wanted(provider).is_some())
        })
        .await
        .map_err(|error| error.context(self.said("remote-core.log") + &self.said("remote-provider.log")))?;
        Ok(found.iter().find_map(|provider| wanted(provider)).unwrap_or_default())
    }

    async fn ready(&self) -> Result {
        self.condition("Ready", "True", "Ready").await.map(drop)
    }

    /// The core's certificates are changed to these; the refusal shows on the object.
    async fn refused(&self, reason: &str, words: &[&str]) -> Result {
        let message = self.condition("Reachable", "False", reason).await?;
        for words in words {
            assert!(message.contains(words), "{words} is missing in: {message}");
        }
        Ok(())
    }

    /// No key, whole or in part, is in anything that was logged or is shown.
    async fn tells_no_key(&self, pairs: &[&Pair]) -> Result {
        let shown = self.plane.kubectl().get_json(&["providers"]).await?.to_string();
        let told = shown + &self.said("remote-core.log") + &self.said("remote-provider.log");
        for pair in pairs {
            for line in pair.key.lines().filter(|line| !line.starts_with("-----")) {
                assert!(!told.contains(line), "a key was told");
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_main_job_over_mutual_tls_goes_on_while_certificates_change() -> Result {
    let mut remote = Remote::new().await?;
    remote.start_provider()?;
    remote.start_core(true)?;
    let (kubectl, client) = (remote.plane.kubectl(), remote.plane.client().await?);
    remote.ready().await?;
    // The provider that a flag named is shown, its certificates named and not told.
    let provider = kubectl.get_json(&["provider", "fake"]).await?;
    assert_eq!(provider["spec"]["endpoint"], remote.endpoint());
    assert_eq!(provider["spec"]["tls"]["source"], "Flag");
    assert_eq!(provider["spec"]["tls"]["serverName"], SERVER);

    kubectl.apply(&manifests::deployment(3)).await?;
    let first = wait::machines_running(&client, 3).await?;

    // Half of a new pair is written: the former goes on, and both sides say so.
    let (core, server) = (remote.authority.issue(CORE, NOW)?, remote.authority.issue(SERVER, NOW)?);
    let half = Pair {
        certificate: core.certificate.clone(),
        key: server.key.clone(),
    };
    let authorities = remote.authority.pem();
    remote.core.swap(&authorities, &half)?;
    let message = remote.condition("Reachable", "True", "FormerConnectionInUse").await?;
    assert!(message.contains("do not belong together"), "{message}");
    let scale = |replicas: &'static str| ["scale", "machinedeployment", "demo-workers", "--replicas", replicas];
    kubectl.run(&scale("5")).await?;
    wait::machines_running(&client, 5).await?;

    // Whole ones, of another authority, in the midst of the next change: the authorities
    // first, both of them, then the certificates.
    let second = Authority::new("the next authority")?;
    let both = authorities + &second.pem();
    remote.server.swap(&both, &server)?;
    remote.core.swap(&both, &core)?;
    remote.condition("Reachable", "True", "Connected").await?;
    kubectl.run(&scale("8")).await?;
    let (new_core, new_server) = (second.issue(CORE, NOW)?, second.issue(SERVER, NOW)?);
    remote.server.swap(&both, &new_server)?;
    remote.core.swap(&both, &new_core)?;
    let last = wait::machines_running(&client, 8).await?;
    let (first, last) = (wait::keys(&first)?, wait::keys(&last)?);
    assert!(first.iter().all(|key| last.contains(key)), "a machine was lost");
    let audit = remote.plane.audit().await?;
    audit.exactly(&last)?;
    audit.clean()?;

    kubectl.run(&["delete", "cluster", "demo", "--timeout", "120s"]).await?;
    wait::machines_gone(&client).await?;
    let audit = remote.plane.audit().await?;
    audit.exactly(&[])?;
    remote.tells_no_key(&[&core, &server, &new_core, &new_server]).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_refused_says_why_on_both_sides_and_is_mended() -> Result {
    let mut remote = Remote::new().await?;
    remote.start_provider()?;
    remote.start_core(true)?;
    remote.ready().await?;
    let authorities = remote.authority.pem();
    let stranger = Authority::new("a stranger")?;
    let good = remote.authority.issue(CORE, NOW)?;

    // The core's side: what the provider refuses. Each begins from a dead connection.
    let expired = remote.authority.issue(CORE, (2001, 2002))?;
    let future = remote.authority.issue(CORE, (2095, 2096))?;
    let foreign = stranger.issue(CORE, NOW)?;
    let misnamed = remote.authority.issue("somebody.test", NOW)?;
    for (pair, words, log) in [
        (&expired, "it has expired", "has expired on 2002-01-01"),
        (
            &foreign,
            "no authority that the provider knows",
            "is not signed by any authority",
        ),
        (&misnamed, "--tls-client-name", "allowed are [core.test]"),
        (&future, "not valid yet", "begins on 2095-01-01"),
    ] {
        remote.stop_provider().await?;
        remote.core.swap(&authorities, pair)?;
        remote.condition("Reachable", "False", "Unreachable").await?;
        remote.start_provider()?;
        remote.refused("CoreCertificateRefused", &[words, "tls.crt"]).await?;
        assert!(remote.said("remote-provider.log").contains(log), "{log}");
        remote.core.swap(&authorities, &good)?;
        remote.ready().await?;
    }

    // The provider's side: what the core refuses.
    for (pair, reason, words) in [
        (
            remote.authority.issue(SERVER, (2001, 2002))?,
            "ProviderCertificateExpired",
            "2002-01-01",
        ),
        (
            remote.authority.issue(SERVER, (2095, 2096))?,
            "ProviderCertificateNotYetValid",
            "2095-01-01",
        ),
        (stranger.issue(SERVER, NOW)?, "ProviderCertificateUntrusted", "ca.crt"),
        (
            remote.authority.issue("other.test", NOW)?,
            "ProviderNameMismatch",
            "but for other.test",
        ),
    ] {
        remote.stop_provider().await?;
        remote.server.swap(&authorities, &pair)?;
        remote.start_provider()?;
        remote.refused(reason, &[words]).await?;
        assert!(
            remote
                .said("remote-provider.log")
                .contains("the client refuses this provider's certificate")
        );
        remote
            .server
            .swap(&authorities, &remote.authority.issue(SERVER, NOW)?)?;
        // Other files of its own have the core look at once.
        remote.core.swap(&authorities, &remote.authority.issue(CORE, NOW)?)?;
        remote.ready().await?;
    }

    // TLS to a provider that serves none.
    remote.stop_provider().await?;
    let plain = [
        "--listen".to_owned(),
        format!("tcp://127.0.0.1:{}", remote.port),
        "--state-dir".to_owned(),
        remote.plane.cloud().to_string_lossy().into_owned(),
        "--insecure-plain-tcp".to_owned(),
    ];
    remote.start_provider_with(&plain)?;
    remote.condition("Reachable", "False", "Unreachable").await?;
    // The provider says what is wrong; all that the core sees is that it hangs up.
    let log = remote.log("remote-provider.log");
    let told = async {
        while !std::fs::read_to_string(&log)
            .unwrap_or_default()
            .contains("the client speaks TLS")
        {
            // A log is no event that could be awaited.
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(wait::PATIENCE, told).await?;
    remote.stop_provider().await?;
    remote.start_provider()?;
    remote.ready().await?;
    remote
        .tells_no_key(&[&good, &expired, &future, &foreign, &misnamed])
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_object_names_its_certificates_in_a_secret() -> Result {
    let mut remote = Remote::new().await?;
    remote.start_provider()?;
    remote.start_core(false)?;
    let kubectl = remote.plane.kubectl();
    let secret = |authorities: &str, pair: &Pair| {
        serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
            "metadata": { "name": "fake-tls", "namespace": "default" },
            "stringData": { "ca.crt": authorities, "tls.crt": pair.certificate, "tls.key": pair.key },
        })
        .to_string()
    };
    let (authorities, good) = (remote.authority.pem(), remote.authority.issue(CORE, NOW)?);
    let foreign = Authority::new("a stranger")?.issue(CORE, NOW)?;
    kubectl.apply(&secret(&authorities, &foreign)).await?;
    let object = serde_json::json!({
        "apiVersion": "cluster.outrigger.dev/v1alpha1", "kind": "Provider",
        "metadata": { "name": "fake" },
        "spec": {
            "endpoint": remote.endpoint(),
            "tls": { "secretRef": { "namespace": "default", "name": "fake-tls" }, "serverName": SERVER },
        },
    });
    kubectl.apply(&object.to_string()).await?;
    remote
        .refused("CoreCertificateRefused", &["tls.crt of the Secret default/fake-tls"])
        .await?;
    kubectl.apply(&secret(&authorities, &good)).await?;
    remote.ready().await?;
    remote.tells_no_key(&[&good, &foreign]).await
}
