//! What lies between two machines that are far from each other.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional},
    net::{
        TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
};

/// Everything takes `each_way` longer. Until either end is closed.
pub(crate) async fn pass(client: &mut TcpStream, server: &mut TcpStream, each_way: Duration) {
    if each_way.is_zero() {
        let _ = copy_bidirectional(client, server).await;
        return;
    }
    let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
    tokio::select! {
        _ = pass_late(from_client, to_server, each_way) => {}
        _ = pass_late(from_server, to_client, each_way) => {}
    }
}

async fn pass_late(mut from: ReadHalf<'_>, mut to: WriteHalf<'_>, each_way: Duration) -> std::io::Result<()> {
    let mut bytes = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut bytes).await?;
        if read == 0 {
            return Ok(());
        }
        tokio::time::sleep(each_way).await;
        to.write_all(bytes.get(..read).unwrap_or_default()).await?;
    }
}
