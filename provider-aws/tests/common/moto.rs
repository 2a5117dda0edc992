//! moto's server as a process of a test's own, on a port of its own.

use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

/// A simulated AWS. It ends with the test.
pub struct Moto {
    child: Child,
    port: u16,
}

impl Moto {
    /// Starts one with an empty account.
    pub fn start() -> Self {
        let mut child = Command::new(program())
            .args(["-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("moto_server starts");
        let log = BufReader::new(child.stderr.take().expect("its log"));
        let (told, port) = std::sync::mpsc::channel();
        // To its end, so that it never waits for somebody to read.
        std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                let found = line
                    .rsplit_once("http://127.0.0.1:")
                    .and_then(|(_, port)| port.trim().parse().ok());
                if let Some(port) = found {
                    let _ = told.send(port);
                }
            }
        });
        let port = port
            .recv_timeout(std::time::Duration::from_mins(1))
            .expect("moto_server says where it listens");
        Self { child, port }
    }

    /// Where it is.
    pub fn address(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On the PATH, or where `.ci/tools test` puts it.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let tools = std::env::var_os("OUTRIGGER_TOOLS").map(PathBuf::from).or_else(|| {
        let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        let cache = cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")));
        Some(cache?.join("outrigger/tools"))
    });
    std::env::split_paths(&path)
        .chain(tools.map(|tools| tools.join("bin")))
        .map(|folder| folder.join("moto_server"))
        .find(|candidate| candidate.is_file())
        .expect("moto_server is installed; run `.ci/tools test`, which does so")
}
