//! The enclave's way to KMS: a byte pump from its socket to one fixed remote. It sees TLS records and
//! nothing else; whatever it did to them, the enclave would notice. AWS's `vsock-proxy` does the same
//! and works in its place.

use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, warn};

use crate::transport::{Listener, Stream};

/// `host:port`: the one remote that the proxy reaches.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Remote {
    host: String,
    port: u16,
}

/// Connections at one time. The enclave keeps a small pool; more than this is a fault.
const MAX_CONNECTIONS: usize = 256;

/// How long TCP may take to connect.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long a connection may carry nothing in either direction. KMS closes idle ones sooner.
const IDLE_DEADLINE: Duration = Duration::from_secs(300);

/// The same once one side has ended. The enclave gives up a call after three seconds and makes another: what a
/// dead remote never ends must not take all places.
const LINGER: Duration = Duration::from_secs(5);

/// One read.
const CHUNK: usize = 16 * 1024;

impl Remote {
    /// The HTTPS port of a host.
    #[must_use]
    pub const fn https(host: String) -> Self {
        Self { host, port: 443 }
    }

    /// The host's name or address.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }
}

/// Serves connections for ever. Whoever connects reaches `remote` and cannot name another.
pub async fn serve(listener: Listener, remote: Remote) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let stream = match listener.accept().await {
            Ok(stream) => stream,
            Err(error) => {
                warn!(%error, "the KMS proxy cannot accept a connection");
                // Out of file descriptors, most likely: let some close.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            warn!(limit = MAX_CONNECTIONS, "the KMS proxy refuses a connection: too many");
            continue;
        };
        let remote = remote.clone();
        tokio::spawn(async move {
            match relay(stream, &remote).await {
                Ok(()) => debug!("a KMS connection ended"),
                Err(error) => warn!(%remote, %error, "a KMS connection failed"),
            }
            drop(place);
        });
    }
}

async fn relay(inside: Stream, remote: &Remote) -> io::Result<()> {
    let connect = TcpStream::connect((remote.host.as_str(), remote.port));
    let outside = timeout(CONNECT_DEADLINE, connect).await.map_err(|_| io::ErrorKind::TimedOut)??;
    outside.set_nodelay(true)?;
    pump_both(inside, outside, IDLE_DEADLINE, LINGER).await
}

/// Carries bytes both ways until both sides have ended, one has failed, or `idle` has passed without a
/// byte. The end of one direction is passed on and leaves the other open, until `linger` has passed without one.
async fn pump_both<A, B>(a: A, b: B, idle: Duration, linger: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite,
    B: AsyncRead + AsyncWrite,
{
    let (a_read, a_write) = tokio::io::split(a);
    let (b_read, b_write) = tokio::io::split(b);
    let (activity, mut active) = watch::channel(Instant::now());
    let (mut there, mut back) = (pin!(pump(a_read, b_write, &activity)), pin!(pump(b_read, a_write, &activity)));
    let there_ended = tokio::select! {
        ended = &mut there => ended.map(|()| true)?,
        ended = &mut back => ended.map(|()| false)?,
        () = idle_for(idle, &mut active) => return Ok(()),
    };
    let rest = async { if there_ended { back.await } else { there.await } };
    tokio::select! {
        ended = rest => ended,
        () = idle_for(linger, &mut active) => Ok(()),
    }
}

/// Returns once nothing has happened for so long.
async fn idle_for(time: Duration, active: &mut watch::Receiver<Instant>) {
    loop {
        let due = *active.borrow_and_update() + time;
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}

async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &watch::Sender<Instant>,
) -> io::Result<()> {
    let mut chunk = vec![0; CHUNK];
    loop {
        let length = from.read(&mut chunk).await?;
        let Some(bytes) = chunk.get(..length).filter(|bytes| !bytes.is_empty()) else {
            // The other side may be gone already, which ends this direction just as well.
            let _ = to.shutdown().await;
            activity.send_replace(Instant::now());
            return Ok(());
        };
        to.write_all(bytes).await?;
        to.flush().await?;
        activity.send_replace(Instant::now());
    }
}

impl TryFrom<String> for Remote {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        const WRONG: &str = "not a remote: HOST:PORT, for example kms.eu-central-1.amazonaws.com:443";
        let (host, port) = text.rsplit_once(':').ok_or(WRONG)?;
        let port: u16 = port.parse().map_err(|_| WRONG)?;
        let host_char = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b':' | b'[' | b']');
        if host.is_empty() || port == 0 || !host.bytes().all(host_char) {
            return Err(WRONG);
        }
        Ok(Self { host: host.trim_matches(['[', ']']).to_owned(), port })
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::duplex;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn remotes_are_a_host_and_a_port() {
        for good in ["kms.eu-central-1.amazonaws.com:443", "127.0.0.1:8443", "[::1]:8443"] {
            assert!(Remote::try_from(good.to_owned()).is_ok(), "{good}");
        }
        for bad in ["", "kms", "kms:", ":443", "kms:0", "kms:70000", "https://kms:443"] {
            assert!(Remote::try_from(bad.to_owned()).is_err(), "{bad}");
        }
    }

    #[tokio::test]
    async fn the_end_of_one_direction_leaves_the_other_open() {
        let ((mut client, inside), (outside, mut server)) = (duplex(64), duplex(64));
        let pump = tokio::spawn(pump_both(inside, outside, LONG, LONG));
        client.write_all(b"question").await.expect("written");
        client.shutdown().await.expect("ended");
        let mut question = Vec::new();
        server.read_to_end(&mut question).await.expect("read");
        assert_eq!(question, b"question");
        server.write_all(b"answer").await.expect("written");
        drop(server);
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.expect("read");
        assert_eq!(answer, b"answer");
        pump.await.expect("no panic").expect("no error");
    }

    #[tokio::test]
    async fn an_idle_connection_is_closed() {
        let ((mut client, inside), (outside, _server)) = (duplex(64), duplex(64));
        tokio::spawn(pump_both(inside, outside, SHORT, LONG));
        let mut nothing = Vec::new();
        assert_eq!(client.read_to_end(&mut nothing).await.expect("closed"), 0);
    }

    #[tokio::test]
    async fn a_side_that_does_not_read_is_dropped_at_the_deadline() {
        for remote_is_deaf in [true, false] {
            let ((client, inside), (outside, server)) = (duplex(64), duplex(64));
            tokio::spawn(pump_both(inside, outside, SHORT, LONG));
            let (mut speaker, deaf) = if remote_is_deaf { (client, server) } else { (server, client) };
            // More than fits on the way.
            let spoken = timeout(LONG, speaker.write_all(&[0; 2 * CHUNK])).await.expect("it waits for ever");
            assert!(spoken.is_err(), "the other side does not read");
            drop(deaf);
        }
    }

    #[tokio::test]
    async fn a_remote_that_does_not_end_does_not_keep_what_the_enclave_has_given_up() {
        let ((client, inside), (outside, _server)) = (duplex(64), duplex(64));
        let pump = tokio::spawn(pump_both(inside, outside, LONG, SHORT));
        drop(client);
        timeout(LONG, pump).await.expect("it lingers").expect("no panic").expect("no error");
    }
}
