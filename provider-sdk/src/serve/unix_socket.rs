//! Binding a Unix socket so that at no moment anybody else can reach it: it is made in
//! a private folder, gets its mode there, and is then moved into place in one step. A
//! umask would do the same for the whole process, its other threads included.

use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The mode of the socket.
const SOCKET_MODE: u32 = 0o660;
/// The mode of its folder where it is made here.
const FOLDER_MODE: u32 = 0o750;
/// How long another process may hold the folder while it binds.
const LOCK_PATIENCE: Duration = Duration::from_secs(5);

/// Why a socket is not served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// The path, or its folder, is a symbolic link.
    #[error("{0:?} is a symbolic link; give the path that it points to")]
    SymbolicLink(PathBuf),
    /// Something else is there.
    #[error("{0:?} is there and is not a socket; remove it or choose another path")]
    NotASocket(PathBuf),
    /// The folder's place is taken by something else.
    #[error("{0:?} is not a folder; choose another path for the socket")]
    NotAFolder(PathBuf),
    /// Another process serves it.
    #[error("{0:?} is served by another process; stop that one or choose another path")]
    InUse(PathBuf),
    /// Another process holds the folder.
    #[error("another process has locked {0:?} for too long; stop it or choose another folder")]
    Locked(PathBuf),
    /// The system said no.
    #[error("unable to {what} {path:?}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// With what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// A socket that is bound and removed when it is dropped, unless another process has
/// taken its place by then.
#[derive(Debug)]
pub(crate) struct BoundSocket {
    path: PathBuf,
    identity: (u64, u64),
}

/// Binds the socket. Blocks for as long as the file system takes, and at most some
/// seconds where another process binds in the same folder.
pub(crate) fn bind(path: &Path) -> Result<(UnixListener, BoundSocket), SocketError> {
    let folder = path.parent().unwrap_or(Path::new("/"));
    prepare_folder(folder)?;
    let _lock = lock(folder)?;
    make_way(path)?;

    let private = private_folder(folder)?;
    let inside = private.0.join("s");
    let listener = UnixListener::bind(&inside).map_err(failed("bind a socket in", folder))?;
    fs::set_permissions(&inside, Permissions::from_mode(SOCKET_MODE)).map_err(failed("set the mode of", &inside))?;
    let metadata = fs::symlink_metadata(&inside).map_err(failed("look at", &inside))?;
    fs::rename(&inside, path).map_err(failed("put the socket at", path))?;
    listener
        .set_nonblocking(true)
        .map_err(failed("prepare the socket at", path))?;
    let bound = BoundSocket {
        path: path.to_owned(),
        identity: (metadata.dev(), metadata.ino()),
    };
    Ok((listener, bound))
}

impl Drop for BoundSocket {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            tracing::warn!(path = %self.path.display(), %error, "unable to remove the socket");
        }
    }
}

fn failed(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> SocketError {
    let path = path.to_owned();
    move |source| SocketError::Io { what, path, source }
}

fn prepare_folder(folder: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(folder) {
        Ok(metadata) if metadata.is_symlink() => Err(SocketError::SymbolicLink(folder.to_owned())),
        Ok(metadata) if !metadata.is_dir() => Err(SocketError::NotAFolder(folder.to_owned())),
        Ok(metadata) => {
            if metadata.mode() & 0o002 != 0 {
                tracing::warn!(folder = %folder.display(), "everybody may write to the socket's folder; use one of mode 0750");
            }
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            DirBuilder::new()
                .recursive(true)
                .mode(FOLDER_MODE)
                .create(folder)
                .map_err(failed("create the folder", folder))?;
            // Whatever the umask of the process took away.
            fs::set_permissions(folder, Permissions::from_mode(FOLDER_MODE)).map_err(failed("set the mode of", folder))
        }
        Err(error) => Err(failed("look at", folder)(error)),
    }
}

/// Two processes that start at the same moment would both find a stale socket: one of
/// them waits here. The lock goes with the file.
fn lock(folder: &Path) -> Result<File, SocketError> {
    let file = File::open(folder).map_err(failed("open the folder", folder))?;
    let started = std::time::Instant::now();
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::WouldBlock) if started.elapsed() < LOCK_PATIENCE => {
                std::thread::sleep(Duration::from_millis(10));
            }
            Err(fs::TryLockError::WouldBlock) => return Err(SocketError::Locked(folder.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(failed("lock the folder", folder)(error)),
        }
    }
}

/// Leaves a stale socket to be replaced, and refuses everything else.
fn make_way(path: &Path) -> Result<(), SocketError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed("look at", path)(error)),
    };
    if metadata.is_symlink() {
        return Err(SocketError::SymbolicLink(path.to_owned()));
    }
    if !metadata.file_type().is_socket() {
        return Err(SocketError::NotASocket(path.to_owned()));
    }
    match UnixStream::connect(path) {
        // Nobody listens: its process is dead.
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(path = %path.display(), "replacing the socket of a process that is gone");
            Ok(())
        }
        // Somebody listens, or it cannot be told.
        Ok(_) => Err(SocketError::InUse(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(SocketError::InUse(path.to_owned())),
        Err(error) => Err(failed("tell whether anybody serves", path)(error)),
    }
}

/// A folder that only this user can enter, removed when dropped. Its name is so short
/// that whatever path the protocol allows fits the system's limit too.
struct PrivateFolder(PathBuf);

impl Drop for PrivateFolder {
    fn drop(&mut self) {
        let _ = fs::remove_file(self.0.join("s"));
        let _ = fs::remove_dir(&self.0);
    }
}

fn private_folder(folder: &Path) -> Result<PrivateFolder, SocketError> {
    const ATTEMPTS: usize = 64;
    let mut last = io::Error::from(io::ErrorKind::AlreadyExists);
    for _ in 0..ATTEMPTS {
        let path = folder.join(format!(".{:04x}", rand::random::<u16>()));
        match DirBuilder::new().mode(0o700).create(&path) {
            Ok(()) => return Ok(PrivateFolder(path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last = error,
            Err(error) => return Err(failed("create a folder in", folder)(error)),
        }
    }
    Err(failed("create a folder in", folder)(last))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("there").mode() & 0o7777
    }

    fn names(folder: &Path) -> Vec<String> {
        fs::read_dir(folder)
            .expect("a folder")
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect()
    }

    #[test]
    fn folder_and_socket_have_their_modes_and_nothing_is_left() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("fake/actuator.sock");
        let (listener, bound) = bind(&path).expect("bound");
        assert_eq!(mode(&path), 0o660);
        assert_eq!(mode(path.parent().expect("a folder")), 0o750);
        assert_eq!(names(path.parent().expect("a folder")), ["actuator.sock"]);
        UnixStream::connect(&path).expect("it is served");
        drop((listener, bound));
        assert!(names(path.parent().expect("a folder")).is_empty());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("a.sock");
        // A listener that is closed leaves its file behind, as a killed process does.
        drop(UnixListener::bind(&path).expect("bound"));
        let (_listener, bound) = bind(&path).expect("replaced");
        let error = bind(&path).expect_err("in use");
        assert!(matches!(error, SocketError::InUse(_)), "{error}");
        UnixStream::connect(&path).expect("still served");

        // Another one has taken the place: it is not ours to remove.
        fs::remove_file(&path).expect("removed");
        let _other = UnixListener::bind(&path).expect("bound");
        drop(bound);
        assert!(path.exists());
    }

    #[test]
    fn links_and_other_things_are_refused() {
        let root = tempfile::tempdir().expect("a folder");
        let path = root.path().join("a.sock");
        std::os::unix::fs::symlink(root.path().join("b.sock"), &path).expect("a link");
        assert!(matches!(bind(&path), Err(SocketError::SymbolicLink(_))));

        let file = root.path().join("file");
        fs::write(&file, "mine").expect("written");
        assert!(matches!(bind(&file), Err(SocketError::NotASocket(_))));
        assert_eq!(fs::read_to_string(&file).expect("there"), "mine");
        assert!(matches!(bind(&file.join("a.sock")), Err(SocketError::NotAFolder(_))));

        let linked = root.path().join("linked");
        std::os::unix::fs::symlink(root.path(), &linked).expect("a link");
        assert!(matches!(
            bind(&linked.join("c.sock")),
            Err(SocketError::SymbolicLink(_))
        ));
    }

    #[test]
    fn the_longest_path_can_be_bound() {
        let root = tempfile::tempdir().expect("a folder");
        let folder = root.path().to_str().expect("UTF-8").to_owned();
        let length = |name: usize| 100 - folder.len() - 1 - name - 1;
        // A long folder with the shortest name is the worst case.
        let path = root.path().join("f".repeat(length(1))).join("s");
        assert_eq!(path.as_os_str().len(), 100);
        bind(&path).expect("bound");
    }
}
