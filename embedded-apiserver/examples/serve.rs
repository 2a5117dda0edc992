//! Serves the embedded API server: `cargo run --example serve -- DATA_DIR [ADDRESS]`, and try kubectl on it.

use std::net::SocketAddr;
use std::path::PathBuf;

use embedded_apiserver::ApiServer;
use tokio_util::sync::CancellationToken;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let folder = PathBuf::from(arguments.next().ok_or("usage: serve DATA_DIR [ADDRESS]")?);
    let listen: SocketAddr = arguments.next().as_deref().unwrap_or("127.0.0.1:0").parse()?;
    std::fs::create_dir_all(&folder)?;
    let server = ApiServer::builder().data_file(folder.join("objects")).build().await?;
    let shutdown = CancellationToken::new();
    let running = server.serve(listen, &folder.join("identity"), shutdown.clone()).await?;
    let kubeconfig = folder.join("kubeconfig");
    running.write_kubeconfig(&kubeconfig)?;
    #[allow(clippy::print_stdout)] // an example speaks to its user
    {
        println!(
            "listening on {}; export KUBECONFIG={}",
            running.local_addr(),
            kubeconfig.display()
        );
    }
    tokio::signal::ctrl_c().await?;
    shutdown.cancel();
    running.ended().await;
    Ok(())
}
