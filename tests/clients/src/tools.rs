//! Where the clients are that `.ci/tools test` installs: on the PATH, or in its folder outside
//! the checkout. What is made from files of this folder (a lock file, a program) is found by
//! their hash, so that no test ever runs what an older checkout left there.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use sha2::{Digest as _, Sha256};

/// As many characters of the hash name a folder.
const KEY: usize = 12;

/// The folder of this crate, where the clients' own sources are.
pub fn sources() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder that `.ci/tools` fills.
fn folder() -> anyhow::Result<PathBuf> {
    if let Some(folder) = std::env::var_os("OUTRIGGER_TOOLS") {
        return Ok(folder.into());
    }
    let cache = match std::env::var_os("XDG_CACHE_HOME") {
        Some(cache) => PathBuf::from(cache),
        None => Path::new(&std::env::var_os("HOME").context("HOME is not set, so the tools cannot be found")?)
            .join(".cache"),
    };
    Ok(cache.join("outrigger/tools"))
}

/// A program: on the PATH, or as `.ci/tools test` installed it.
pub fn program(name: &str) -> anyhow::Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path)
        .chain([folder()?.join("bin")])
        .map(|folder| folder.join(name))
        .find(|candidate| candidate.is_file());
    found.with_context(|| {
        format!("{name} is neither on the PATH nor in the tools' folder; run `.ci/tools test`, which installs it")
    })
}

/// What `.ci/tools test` made from the files of the folder `client` that end in one of `endings`.
pub fn made_from(client: &str, endings: &[&str]) -> anyhow::Result<PathBuf> {
    let made = folder()?.join(format!("clients-{client}-{}", key(&sources().join(client), endings)?));
    if !made.is_dir() {
        bail!(
            "what tests/clients/{client} needs is not at {}; run `.ci/tools test`, which installs it",
            made.display()
        );
    }
    Ok(made)
}

/// The hash of the files' contents, in the order of their names: `cat FILES | sha256sum`.
fn key(folder: &Path, endings: &[&str]) -> anyhow::Result<String> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder).with_context(|| format!("unable to read {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if endings.iter().any(|ending| name.ends_with(ending)) {
            files.push(path);
        }
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(std::fs::read(&file).with_context(|| format!("unable to read {}", file.display()))?);
    }
    let mut key = hex::encode(hash.finalize());
    key.truncate(KEY);
    Ok(key)
}
