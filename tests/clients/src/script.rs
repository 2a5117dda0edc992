//! kubectl's cases: what a `kubectl/*.yaml` file may say, and playing one against a server.
//!
//! A case is a few commands of bash, run in a folder and a namespace of the case's own; every
//! command's exit code and output are kept. Commands find `$ns`, `$group` (an API group of the
//! file's own: its `definitions` live there) and `$run` in their environment; in files and
//! definitions they are written `${ns}`, `${group}`, `${run}`.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail};
use kube::config::Kubeconfig;
use regex::Regex;
use serde::Deserialize;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use crate::process;
use crate::text::normal;

/// How long something that the server does by itself may take.
const PATIENCE: Duration = Duration::from_mins(2);
/// Between two tries of a command that waits for it.
const AGAIN: Duration = Duration::from_millis(100);

/// One file of cases.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    /// CustomResourceDefinitions that all cases share: made once, before the first of them.
    #[serde(default)]
    pub definitions: String,
    /// Files that every case finds in its folder.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The cases.
    pub cases: Vec<Case>,
}

/// A few commands.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows; unique in its file.
    pub case: String,
    /// It needs the garbage collector and the namespace controller, which binaries of envtest do not bring.
    #[serde(default)]
    pub controllers: bool,
    /// Files that it finds in its folder, besides the file's.
    #[serde(default)]
    pub files: BTreeMap<String, String>,
    /// The commands, in order.
    pub steps: Vec<Step>,
}

/// One command.
#[derive(Debug, Clone, Deserialize)]
#[serde(untagged)]
pub enum Step {
    /// It has to succeed.
    Plain(String),
    /// It says more about itself.
    Full(Box<Full>),
}

/// One command, and what is expected of it.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Full {
    /// The command.
    #[serde(default)]
    pub run: String,
    /// Its exit code.
    #[serde(default)]
    pub code: i32,
    /// What its output, as the real server answers, has to contain.
    #[serde(default)]
    pub prints: Option<String>,
    /// Runs it again and again, until its output contains this.
    #[serde(default)]
    pub until: Option<String>,
    /// Its lines may come in any order.
    #[serde(default)]
    pub unordered: bool,
    /// Patterns that are masked, besides those that always are; a comment says why.
    #[serde(default)]
    pub mask: Vec<String>,
    /// Starts it beside the others, under this name.
    #[serde(default)]
    pub start: Option<String>,
    /// Reads from the one of this name...
    #[serde(default)]
    pub read: Option<String>,
    /// ...as many lines.
    #[serde(default)]
    pub lines: usize,
}

impl Step {
    fn full(&self) -> Full {
        match self {
            Self::Plain(run) => Full {
                run: run.clone(),
                ..Full::default()
            },
            Self::Full(full) => (**full).clone(),
        }
    }
}

/// What a case is called on both servers.
#[derive(Debug, Clone)]
pub struct Names {
    /// Its namespace.
    pub namespace: String,
    /// Its file's API group.
    pub group: String,
    /// The run.
    pub run: String,
}

impl Names {
    /// With the variables filled in.
    pub fn fill(&self, text: &str) -> String {
        text.replace("${ns}", &self.namespace)
            .replace("${group}", &self.group)
            .replace("${run}", &self.run)
    }
}

/// What one command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The command.
    pub command: String,
    /// Its exit code.
    pub code: i32,
    /// Its standard output, made comparable.
    pub out: String,
    /// Its standard error, made comparable.
    pub err: String,
}

/// Where kubectl finds one server: a folder with its caches, and the programs.
#[derive(Debug, Clone)]
pub struct Place {
    /// The server's name.
    pub name: &'static str,
    /// A folder of this server's own.
    pub folder: PathBuf,
    /// The administrator's kubeconfig.
    pub kubeconfig: Kubeconfig,
    /// The folder that kubectl is in.
    pub programs: PathBuf,
}

impl Place {
    /// The kubeconfig for one namespace, with the names that both servers share.
    fn kubeconfig(&self, namespace: &str) -> anyhow::Result<String> {
        let mut kubeconfig = self.kubeconfig.clone();
        let (cluster, user, context) = (
            kubeconfig
                .clusters
                .first_mut()
                .context("the kubeconfig has no cluster")?,
            kubeconfig
                .auth_infos
                .first_mut()
                .context("the kubeconfig has no user")?,
            kubeconfig
                .contexts
                .first_mut()
                .context("the kubeconfig has no context")?,
        );
        "it".clone_into(&mut cluster.name);
        "admin".clone_into(&mut user.name);
        "it".clone_into(&mut context.name);
        let context = context.context.as_mut().context("the kubeconfig's context is empty")?;
        "it".clone_into(&mut context.cluster);
        context.user = Some("admin".to_owned());
        context.namespace = Some(namespace.to_owned());
        kubeconfig.current_context = Some("it".to_owned());
        Ok(serde_json::to_string(&kubeconfig)?)
    }

    /// A folder for a case, with its files and its kubeconfig.
    fn folder(&self, names: &Names, files: &[&BTreeMap<String, String>]) -> anyhow::Result<PathBuf> {
        let folder = self.folder.join(&names.namespace);
        std::fs::create_dir_all(&folder)?;
        for (name, text) in files.iter().copied().flatten() {
            let path = folder.join(name);
            if let Some(parent) = path.parent() {
                std::fs::create_dir_all(parent)?;
            }
            // kubectl takes what begins with a brace for JSON.
            let text = names.fill(text);
            let yaml = Path::new(name).extension().is_some_and(|extension| extension == "yaml");
            let start = if text.starts_with('{') && yaml { "---\n" } else { "" };
            std::fs::write(path, format!("{start}{text}"))?;
        }
        std::fs::write(folder.join("kubeconfig"), self.kubeconfig(&names.namespace)?)?;
        Ok(folder)
    }

    fn command(&self, names: &Names, folder: &Path, line: &str) -> anyhow::Result<Command> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let path = std::env::join_paths([self.programs.clone()].into_iter().chain(std::env::split_paths(&path)))?;
        let mut command = Command::new("bash");
        command
            .args(["-euo", "pipefail", "-c", line])
            .current_dir(folder)
            .env("PATH", path)
            .env("KUBECONFIG", folder.join("kubeconfig"))
            .env("HOME", &self.folder)
            .env("TMPDIR", folder)
            .env("TZ", "UTC")
            .env("ns", &names.namespace)
            .env("group", &names.group)
            .env("run", &names.run)
            .kill_on_drop(true);
        Ok(command)
    }

    async fn once(&self, names: &Names, folder: &Path, step: &Full, masks: &[(Regex, String)]) -> anyhow::Result<Seen> {
        let output = process::output(self.command(names, folder, &step.run)?, None).await?;
        let read = |bytes: &[u8]| normal(&String::from_utf8_lossy(bytes), masks);
        Ok(Seen {
            command: step.run.clone(),
            code: output.status.code().unwrap_or(-1),
            out: read(&output.stdout),
            err: read(&output.stderr),
        })
    }

    /// Makes what all cases of a file share.
    pub async fn prepare(&self, names: &Names, file: &File) -> anyhow::Result<()> {
        if file.definitions.is_empty() {
            return Ok(());
        }
        let files = BTreeMap::from([("definitions".to_owned(), file.definitions.clone())]);
        let folder = self.folder(names, &[&files])?;
        let line = "kubectl apply -f definitions && kubectl wait --for=condition=Established -f definitions";
        process::good(self.command(names, &folder, line)?, None).await?;
        Ok(())
    }

    /// Removes what [`Place::prepare`] made.
    pub async fn clean(&self, names: &Names, file: &File) -> anyhow::Result<()> {
        if file.definitions.is_empty() {
            return Ok(());
        }
        let folder = self.folder(names, &[])?;
        let command = self.command(names, &folder, "kubectl delete --ignore-not-found --wait=false -f -")?;
        process::good(command, Some(&names.fill(&file.definitions))).await?;
        Ok(())
    }

    /// Plays a case, in a namespace that is made for it and removed after it.
    pub async fn play(&self, names: &Names, file: &File, case: &Case) -> anyhow::Result<Vec<Seen>> {
        let folder = self.folder(names, &[&file.files, &case.files])?;
        process::good(self.command(names, &folder, "kubectl create namespace $ns")?, None).await?;
        let seen = self.steps(names, &folder, case).await;
        // A case may have become someone else, who may not remove it.
        std::fs::write(folder.join("kubeconfig"), self.kubeconfig(&names.namespace)?)?;
        let gone = self.command(
            names,
            &folder,
            "kubectl delete namespace $ns --wait=false --ignore-not-found",
        )?;
        process::good(gone, None).await?;
        seen.with_context(|| format!("on the {} server", self.name))
    }

    async fn steps(&self, names: &Names, folder: &Path, case: &Case) -> anyhow::Result<Vec<Seen>> {
        let mut started: HashMap<String, (Child, Lines<BufReader<ChildStdout>>)> = HashMap::new();
        let mut seen = Vec::new();
        for step in &case.steps {
            let step = step.full();
            let masks = step
                .mask
                .iter()
                .map(|mask| Ok((Regex::new(mask)?, "MASKED".to_owned())));
            let masks = masks.collect::<anyhow::Result<Vec<_>>>()?;
            if let Some(name) = &step.start {
                let mut command = self.command(names, folder, &format!("exec {}", step.run))?;
                let log = std::fs::File::create(folder.join(format!("{name}.log")))?;
                let mut child = command
                    .stdin(Stdio::null())
                    .stdout(Stdio::piped())
                    .stderr(log)
                    .spawn()?;
                let output = child.stdout.take().context("the output is piped")?;
                started.insert(name.clone(), (child, BufReader::new(output).lines()));
                continue;
            }
            let mut found = if let Some(name) = &step.read {
                let (_, lines) = started
                    .get_mut(name)
                    .with_context(|| format!("nothing was started as {name}"))?;
                read(name, lines, step.lines, &masks).await?
            } else {
                self.patiently(names, folder, &step, &masks).await?
            };
            if step.unordered {
                let mut lines: Vec<&str> = found.out.lines().collect();
                lines.sort_unstable();
                found.out = lines.join("\n");
            }
            seen.push(found);
        }
        Ok(seen)
    }

    async fn patiently(
        &self,
        names: &Names,
        folder: &Path,
        step: &Full,
        masks: &[(Regex, String)],
    ) -> anyhow::Result<Seen> {
        let until = tokio::time::Instant::now() + PATIENCE;
        loop {
            let seen = self.once(names, folder, step, masks).await?;
            let there = |text: &String| seen.out.contains(&names.fill(text)) || seen.err.contains(&names.fill(text));
            if step.until.as_ref().is_none_or(there) {
                return Ok(seen);
            }
            if tokio::time::Instant::now() > until {
                bail!(
                    "{} never printed {:?}, but\n{}{}",
                    step.run,
                    step.until,
                    seen.out,
                    seen.err
                );
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}

async fn read(
    name: &str,
    lines: &mut Lines<BufReader<ChildStdout>>,
    wanted: usize,
    masks: &[(Regex, String)],
) -> anyhow::Result<Seen> {
    let mut text = String::new();
    for _ in 0..wanted {
        let line = tokio::time::timeout(PATIENCE, lines.next_line()).await;
        let line = line.with_context(|| format!("{name} printed no more than\n{text}"))??;
        text += &line.with_context(|| format!("{name} ended after\n{text}"))?;
        text.push('\n');
    }
    Ok(Seen {
        command: format!("(read from {name})"),
        code: 0,
        out: normal(&text, masks),
        err: String::new(),
    })
}

/// What is wrong: with what the real server answered, or between the two.
pub fn wrong(names: &Names, case: &Case, embedded: &[Seen], real: &[Seen]) -> Vec<String> {
    let steps = case.steps.iter().map(Step::full).filter(|step| step.start.is_none());
    let mut wrong = Vec::new();
    for ((step, embedded), real) in steps.zip(embedded).zip(real) {
        if real.code != step.code {
            wrong.push(format!(
                "{}\nexits with {} on the real server, not with {}:\n{}{}",
                step.run, real.code, step.code, real.out, real.err
            ));
        }
        if let Some(prints) = step.prints.as_ref().map(|text| names.fill(text))
            && !real.out.contains(&prints)
            && !real.err.contains(&prints)
        {
            wrong.push(format!(
                "{}\ndoes not print {prints:?} on the real server, but\n{}{}",
                step.run, real.out, real.err
            ));
        }
        if embedded != real {
            wrong.push(format!(
                "{}\n{}",
                real.command,
                difference(&shown(embedded), &shown(real))
            ));
        }
    }
    wrong
}

fn shown(seen: &Seen) -> String {
    format!(
        "exit code {}\n{}\n--- standard error\n{}",
        seen.code, seen.out, seen.err
    )
}

/// The lines that one has and the other has not, in their order, with what they share left out.
fn difference(embedded: &str, real: &str) -> String {
    let (left, right): (Vec<&str>, Vec<&str>) = (embedded.lines().collect(), real.lines().collect());
    let start = left.iter().zip(&right).take_while(|(a, b)| a == b).count();
    let end = left[start..]
        .iter()
        .rev()
        .zip(right[start..].iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    let mut told = vec![format!("  (from line {})", start + 1)];
    told.extend(
        left[start..left.len() - end]
            .iter()
            .map(|line| format!("  embedded: {line}")),
    );
    told.extend(
        right[start..right.len() - end]
            .iter()
            .map(|line| format!("  real:     {line}")),
    );
    told.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_differs_is_told() {
        assert_eq!(
            difference("a\nb\nc\nd", "a\nx\nd"),
            "  (from line 2)\n  embedded: b\n  embedded: c\n  real:     x"
        );
    }
}
