//! Sockets between two users of one machine: what the kernel tells of a peer counts, for
//! the core and for the provider, and who is not expected is refused until a flag names them.
//!
//! A second user can be had by root only. Without root the tests say that they are left out;
//! the rules themselves are then checked in the units of both sides.

#![allow(clippy::print_stderr)] // what is left out is said

use std::os::unix::fs::{PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;
use e2e::process::Process;
use e2e::separate::Separate;
use e2e::{binaries, wait};
use kube::api::Api;
use outrigger_api::Provider;
use tempfile::TempDir;

type Result<T = ()> = anyhow::Result<T>;

/// The user that owns nothing, as on every Linux.
const NOBODY: u32 = 65_534;

/// A folder that every user may enter, with a copy of provider-fake that every user may run.
struct Shared {
    folder: TempDir,
}

impl Shared {
    /// None, with a word on standard error, where this user cannot become another one.
    fn new() -> Result<Option<Self>> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("left out: only root can start processes of a second user");
            return Ok(None);
        }
        // In a user namespace root may be the only user that there is.
        let becomes = run(Command::new("setpriv").args(identity(NOBODY)).arg("true"));
        if let Err(error) = becomes {
            eprintln!("left out: this root cannot start processes of a second user: {error:#}");
            return Ok(None);
        }
        // One that this user cannot run either is no matter of users, and fails the test.
        let built = binaries()?.join("provider-fake");
        run(Command::new(&built).arg("--version"))?;
        // The temporary folder of this user may be closed to others, or have a longer name than
        // a socket's address takes; the system's own are not.
        let places = [
            "/tmp".into(),
            "/var/tmp".into(),
            "/dev/shm".into(),
            std::env::temp_dir(),
        ];
        let mut refused = Vec::new();
        for place in places {
            match Self::within(&place, &built) {
                Ok(shared) => return Ok(Some(shared)),
                Err(error) => refused.push(format!("{}: {error:#}", place.display())),
            }
        }
        let refused = refused.join("; ");
        eprintln!("left out: no folder was found in which a second user may run a program: {refused}");
        Ok(None)
    }

    fn within(place: &Path, built: &Path) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("or").tempdir_in(place)?;
        // After the fact, because the umask takes away from what is asked for.
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
        // The folder in which it was built may be closed to others. Another process copies: a
        // descriptor open for writing here could be inherited by what other tests start, and
        // a program open for writing cannot be started.
        let program = folder.path().join("provider-fake");
        run(Command::new("install").args(["-m", "755"]).args([built, &program]))?;
        run(Command::new("setpriv")
            .args(identity(NOBODY))
            .arg(&program)
            .arg("--version"))?;
        chown(&program, Some(NOBODY), Some(NOBODY)).context("failed to give a file to a second user")?;
        Ok(Self { folder })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn endpoint(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    fn socket(&self) -> PathBuf {
        self.path("run/p/actuator.sock")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.path("provider.log")).unwrap_or_default()
    }

    /// Starts the provider as this user.
    fn start(&self, user: u32, flags: &[&str]) -> Result<Process> {
        for name in ["run", "state"] {
            std::fs::create_dir_all(self.path(name))?;
            chown(self.path(name), Some(user), Some(user))?;
            // Whatever the umask took away, so that only what the provider makes decides.
            std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o755))?;
        }
        let (endpoint, state) = (self.endpoint(), self.path("state").display().to_string());
        let program = self.path("provider-fake").display().to_string();
        let mut arguments = vec![&*program, "--listen", &*endpoint, "--state-dir", &*state];
        arguments.extend(flags);
        as_user(user, &arguments, &self.path("provider.log"))
    }

    /// The status with which a client of this user is answered over HTTP; an error tells how it was refused.
    async fn asked_by(&self, user: u32) -> Result<std::result::Result<String, i32>> {
        let output = tokio::process::Command::new("setpriv")
            .args(identity(user))
            .args([
                "curl",
                "-s",
                "-o",
                "/dev/null",
                "-w",
                "%{http_code}",
                "--max-time",
                "30",
            ])
            .args(["--http2-prior-knowledge", "--unix-socket"])
            .arg(self.socket())
            .args([
                "-X",
                "POST",
                "-H",
                "content-type: application/grpc",
                "http://localhost/",
            ])
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await?;
        Ok(if output.status.success() {
            Ok(String::from_utf8(output.stdout)?)
        } else {
            Err(output.status.code().unwrap_or_default())
        })
    }
}

/// Runs a command to its end; what it said is part of the error.
fn run(command: &mut Command) -> Result {
    let output = command.stdin(Stdio::null()).output();
    let program = command.get_program().display();
    let output = output.with_context(|| format!("failed to start {program}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(
        output.status.success(),
        "{program} ended with {}: {said}",
        output.status
    );
    Ok(())
}

fn identity(user: u32) -> [String; 3] {
    [
        format!("--reuid={user}"),
        format!("--regid={user}"),
        "--clear-groups".to_owned(),
    ]
}

/// Starts a program as this user; `setpriv` becomes the program, so that its signals are the program's.
fn as_user(user: u32, command: &[&str], log: &Path) -> Result<Process> {
    let mut arguments: Vec<String> = identity(user).into();
    arguments.extend(command.iter().map(|&argument| argument.to_owned()));
    Process::start(Path::new("setpriv"), arguments, &[], log)
}

/// Waits until something holds; for what tells nobody when it changes.
async fn until(what: &str, holds: impl Fn() -> bool) -> Result {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let ended = tokio::time::timeout(wait::PATIENCE, waiting).await;
    ended.map_err(|_| anyhow::anyhow!("it did not come to pass: {what}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_core_trusts_no_provider_of_another_user_until_a_flag_names_that_user() -> Result {
    let Some(shared) = Shared::new()? else { return Ok(()) };
    let plane = Separate::start(&[]).await?;
    let _provider = shared.start(NOBODY, &[])?;
    let log = shared.path("core.log");
    let start = |flags: &[&str]| {
        let mut arguments = vec![
            "--kubeconfig".to_owned(),
            plane.kubeconfig().to_string_lossy().into_owned(),
            "--provider".to_owned(),
            format!("fake={}", shared.endpoint()),
            "--identity".to_owned(),
            "e2e".to_owned(),
        ];
        arguments.extend(flags.iter().map(|&flag| flag.to_owned()));
        Process::start(&binaries()?.join("core-controller"), &arguments, &[], &log)
    };
    let told = async |status: &str, words: &str| -> Result {
        let told = |provider: &Provider| {
            let conditions = provider.status.iter().flat_map(|status| &status.conditions);
            conditions
                .filter(|condition| condition.type_ == "Reachable" && condition.status == status)
                .any(|condition| condition.message.contains(words))
        };
        let what = format!("the Provider's Reachable is {status} with {words:?}");
        let providers: Api<Provider> = Api::all(plane.client().await?);
        wait::until(providers, wait::PATIENCE, &what, |all| all.iter().any(|one| told(one)))
            .await
            .map(drop)
            .map_err(|error| error.context(std::fs::read_to_string(&log).unwrap_or_default() + &shared.said()))
    };

    let mut core = start(&[])?;
    told("False", "runs as user 65534, and user 0 or root was expected").await?;
    told("False", "start the core with --allow-peer-uid 65534").await?;
    core.terminate(wait::PATIENCE).await?;
    let mut core = start(&["--allow-peer-uid", "65534"])?;
    told("True", "").await?;
    core.terminate(wait::PATIENCE).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_serves_no_other_user_until_a_flag_names_that_user() -> Result {
    let Some(shared) = Shared::new()? else { return Ok(()) };
    let mut provider = shared.start(0, &[])?;
    until("the provider listens", || shared.socket().exists()).await?;
    let mode = |path: &Path| std::fs::metadata(path).map(|found| found.permissions().mode() & 0o777);
    let folder = shared.path("run/p");
    assert_eq!(mode(&shared.socket())?, 0o660);
    assert_eq!(mode(&folder)?, 0o750);
    assert_eq!(shared.asked_by(0).await?, Ok("200".to_owned()), "{}", shared.said());

    // The modes keep another user out (curl's 7: no connection), so that the provider has nothing to say …
    let said = "a connection of a user that is not allowed is refused; allow it with --allow-peer-uid";
    assert_eq!(shared.asked_by(NOBODY).await?, Err(7), "{}", shared.said());
    assert!(!shared.said().contains(said), "{}", shared.said());
    // … and where somebody opened them, the provider does. How curl calls that depends on how
    // far it came before the connection was closed; that the provider did it, its log tells.
    let open = |place: &Path, mode| std::fs::set_permissions(place, std::fs::Permissions::from_mode(mode));
    open(&folder, 0o755)?;
    open(&shared.socket(), 0o666)?;
    let refused = shared.asked_by(NOBODY).await?;
    assert!(refused.is_err(), "{refused:?}");
    until("the refusal is logged", || shared.said().contains(said)).await?;
    assert!(shared.said().contains("65534"), "{}", shared.said());
    assert_eq!(shared.asked_by(0).await?, Ok("200".to_owned()), "{}", shared.said());
    provider.terminate(wait::PATIENCE).await?;

    let mut provider = shared.start(0, &["--allow-peer-uid", "65534"])?;
    until("the provider listens", || shared.socket().exists()).await?;
    open(&folder, 0o755)?;
    open(&shared.socket(), 0o666)?;
    assert_eq!(
        shared.asked_by(NOBODY).await?,
        Ok("200".to_owned()),
        "{}",
        shared.said()
    );
    provider.terminate(wait::PATIENCE).await?;
    Ok(())
}
