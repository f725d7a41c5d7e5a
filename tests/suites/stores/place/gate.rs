//! A way to a server on which the weather changes. moto forgets everything when it ends, so it is never
//! moto that goes.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

/// How the way is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Weather {
    /// Nothing stands in it.
    Clear,
    /// Connections are closed at once.
    Shut,
    /// Requests are taken and never answered.
    Stalled,
    /// Answers come a second late.
    Slow,
    /// Every request is throttled, in AWS's words.
    Throttling,
    /// Every request is answered by something that is not AWS's.
    Garbage,
}

/// The way, which clients take for the server.
pub(super) struct Gate {
    pub(super) address: SocketAddr,
    weather: watch::Sender<Weather>,
}

impl Gate {
    pub(super) async fn open(server: SocketAddr) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let weather = watch::Sender::new(Weather::Clear);
        let changes = weather.subscribe();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mut changes = changes.clone();
                let now = *changes.borrow_and_update();
                tokio::spawn(async move {
                    // A connection lives under the weather that it was opened in.
                    tokio::select! {
                        () = pass(client, server, now) => {}
                        _ = changes.changed() => {}
                    }
                });
            }
        });
        Self { address, weather }
    }

    pub(super) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

async fn pass(mut client: TcpStream, server: SocketAddr, weather: Weather) {
    match weather {
        Weather::Shut => {}
        Weather::Stalled => std::future::pending().await,
        Weather::Throttling => {
            let body = r#"{"__type":"com.amazonaws#ThrottlingException","message":"Rate exceeded"}"#;
            answer(client, "400 Bad Request", body).await;
        }
        Weather::Garbage => answer(client, "200 OK", "<html>\u{1F480} not what you asked for").await,
        Weather::Clear | Weather::Slow => {
            let Ok(mut server) = TcpStream::connect(server).await else { return };
            if weather == Weather::Clear {
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                return;
            }
            let ((mut from_client, mut to_client), (mut from_server, mut to_server)) = (client.split(), server.split());
            let late = async {
                let mut answer = vec![0; 256 * 1024];
                while let Ok(length @ 1..) = from_server.read(&mut answer).await {
                    sleep(Duration::from_secs(1)).await;
                    if to_client.write_all(&answer[..length]).await.is_err() {
                        break;
                    }
                }
            };
            let _ = tokio::join!(tokio::io::copy(&mut from_client, &mut to_server), late);
        }
    }
}

/// Answers one request, whatever it is, and hangs up.
async fn answer(mut client: TcpStream, status: &str, body: &str) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match client.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut request = vec![0; length];
    if client.read_exact(&mut request).await.is_err() {
        return;
    }
    let reply = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    let _ = client.write_all(reply.as_bytes()).await;
    let _ = client.shutdown().await;
}
