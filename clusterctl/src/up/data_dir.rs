//! The folder of a management plane: what lies where, and that only one process
//! uses it at a time.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

/// The longest path of a Unix socket that the protocol allows, in bytes.
const MAX_SOCKET_PATH_BYTES: usize = 100;

/// A management plane's folder, locked for as long as this lives.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    _lock: File,
}

impl DataDir {
    /// Makes the folder where it is missing, readable by its owner alone, and locks it.
    pub fn open(path: &Path) -> anyhow::Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .with_context(|| format!("failed to make the data folder {}", path.display()))?;
        let path = path
            .canonicalize()
            .with_context(|| format!("failed to resolve the data folder {}", path.display()))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&lock_path)
            .with_context(|| format!("failed to open {}", lock_path.display()))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                bail!(
                    "the data folder {} is in use by another clusterctl; stop it, or give another --data-dir",
                    path.display()
                )
            }
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("failed to lock {}", lock_path.display()))
            }
        }
    }

    /// Where data is kept when no folder is given.
    pub fn default_path() -> anyhow::Result<PathBuf> {
        let from_env = |name: &str| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        };
        from_env("XDG_DATA_HOME")
            .or_else(|| from_env("HOME").map(|home| home.join(".local/share")))
            .map(|base| base.join("outrigger"))
            .context("neither HOME nor XDG_DATA_HOME is set; give --data-dir")
    }

    /// The folder itself, absolute.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The API server's file.
    pub fn store(&self) -> PathBuf {
        self.path.join("state.redb")
    }

    /// Certificates and keys of the API server.
    pub fn identity(&self) -> PathBuf {
        self.path.join("pki")
    }

    /// The kubeconfig of the administrator.
    pub fn kubeconfig(&self) -> PathBuf {
        self.path.join("kubeconfig")
    }

    /// The address that was served last, so that a kubeconfig stays good.
    pub fn remembered_address(&self) -> Option<std::net::SocketAddr> {
        std::fs::read_to_string(self.path.join("address"))
            .ok()?
            .trim()
            .parse()
            .ok()
    }

    /// Remembers the served address.
    pub fn remember_address(&self, address: std::net::SocketAddr) -> anyhow::Result<()> {
        write_private(&self.path.join("address"), format!("{address}\n").as_bytes())
    }

    /// The folder of one provider, made where it is missing.
    pub fn provider(&self, name: &str) -> anyhow::Result<PathBuf> {
        let folder = self.path.join("providers").join(name);
        private_folder(&folder)?;
        Ok(folder)
    }

    /// The socket of one provider: in its folder, or, where that path is too long for a
    /// socket, in a folder of the temporary directory that only this user may enter.
    pub fn provider_socket(&self, name: &str) -> anyhow::Result<PathBuf> {
        let socket = self.path.join("providers").join(name).join("actuator.sock");
        if socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES {
            return Ok(socket);
        }
        let short = short_folder(&self.path)?.join(name);
        private_folder(&short)?;
        let socket = short.join("actuator.sock");
        if socket.as_os_str().len() > MAX_SOCKET_PATH_BYTES {
            bail!(
                "the socket {} of provider {name} has a path of more than {MAX_SOCKET_PATH_BYTES} bytes; give a shorter --data-dir",
                socket.display()
            );
        }
        Ok(socket)
    }
}

/// A folder for sockets, named after the data folder so that a later start finds it again.
fn short_folder(data_dir: &Path) -> anyhow::Result<PathBuf> {
    use std::hash::{DefaultHasher, Hash as _, Hasher as _};
    let mut hasher = DefaultHasher::new();
    data_dir.hash(&mut hasher);
    let user = nix::unistd::getuid();
    let folder = std::env::temp_dir().join(format!("outrigger-{user}-{:016x}", hasher.finish()));
    private_folder(&folder)?;
    let metadata = std::fs::symlink_metadata(&folder)?;
    let ours = std::os::unix::fs::MetadataExt::uid(&metadata) == user.as_raw();
    if !metadata.is_dir() || !ours || metadata.permissions().mode() & 0o077 != 0 {
        bail!(
            "{} is not a folder of this user alone; remove it, or give a shorter --data-dir",
            folder.display()
        );
    }
    Ok(folder)
}

fn private_folder(path: &Path) -> anyhow::Result<()> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .with_context(|| format!("failed to make the folder {}", path.display()))
}

/// Writes a file that only its owner may read, whole or not at all.
pub fn write_private(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let scratch = path.with_extension("new");
    let write = || -> std::io::Result<()> {
        let mut file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(true)
            .mode(0o600)
            .open(&scratch)?;
        file.write_all(content)?;
        file.sync_all()?;
        std::fs::rename(&scratch, path)
    };
    write().with_context(|| format!("failed to write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_is_used_by_one_at_a_time() {
        let parent = tempfile::tempdir().expect("tempdir");
        let path = parent.path().join("plane");
        let first = DataDir::open(&path).expect("opens");
        let error = DataDir::open(&path).expect_err("must be locked").to_string();
        assert!(error.contains("in use by another clusterctl"), "{error}");
        drop(first);
        DataDir::open(&path).expect("opens again");
        let mode = std::fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[test]
    fn a_long_folder_gets_a_short_socket() {
        let parent = tempfile::tempdir().expect("tempdir");
        let dir = DataDir::open(&parent.path().join("x".repeat(120))).expect("opens");
        let socket = dir.provider_socket("fake").expect("fits");
        assert!(socket.as_os_str().len() <= MAX_SOCKET_PATH_BYTES);
        assert_eq!(
            dir.provider_socket("fake").expect("fits"),
            socket,
            "must be found again"
        );
        std::fs::remove_dir_all(socket.parent().and_then(Path::parent).expect("has parents")).expect("removes");
    }

    #[test]
    fn private_files_are_private() {
        let parent = tempfile::tempdir().expect("tempdir");
        let path = parent.path().join("secret");
        write_private(&path, b"x").expect("writes");
        assert_eq!(
            std::fs::metadata(&path).expect("is there").permissions().mode() & 0o777,
            0o600
        );
    }
}
