//! Callers, many at once, on a thread of their own: hyper's client over HTTP/1.1 or HTTP/2, latencies in an
//! HdrHistogram. A reply that is not the one to its request ends the run.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hdrhistogram::Histogram;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::{http1, http2};
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode, Version};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Builder;
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::sleep;

/// What is asked, over and over.
#[derive(Clone)]
pub(super) struct Question {
    /// The parent.
    pub(super) address: SocketAddr,
    /// Asked in turn.
    pub(super) paths: Arc<[String]>,
    /// The body of the n-th request.
    pub(super) body: fn(u64) -> Bytes,
}

impl Question {
    fn path(&self, number: u64) -> &str {
        self.paths.get(number as usize % self.paths.len().max(1)).map_or("/", String::as_str)
    }
}

/// How callers connect.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Http {
    /// HTTP/1.1, a connection for each request in flight.
    One,
    /// HTTP/2 without TLS, this many connections.
    Two(usize),
}

/// What a run came to.
pub(super) struct Run {
    pub(super) elapsed: Duration,
    /// Of answers with 200, in microseconds.
    pub(super) latency: Histogram<u64>,
    /// Of answers with 429 or 503.
    pub(super) refusal: Histogram<u64>,
    /// Requests that the generator held back, because too many of its own were unanswered.
    pub(super) held_back: u64,
}

impl Run {
    /// Answers with 200 per second.
    pub(super) fn rate(&self) -> f64 {
        self.latency.len() as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency below which this share of the answers is, in microseconds.
    pub(super) fn quantile(&self, quantile: f64) -> f64 {
        self.latency.value_at_quantile(quantile) as f64
    }

    fn new() -> io::Result<Self> {
        // Up to a minute.
        let histogram = || Histogram::new_with_max(60_000_000, 3).map_err(io::Error::other);
        Ok(Self { elapsed: Duration::ZERO, latency: histogram()?, refusal: histogram()?, held_back: 0 })
    }

    fn add(&mut self, answer: &Answer) {
        let histogram = if answer.status == StatusCode::OK { &mut self.latency } else { &mut self.refusal };
        histogram.saturating_record(u64::try_from(answer.latency.as_micros()).unwrap_or(u64::MAX));
    }

    fn merge(&mut self, other: &Self) -> io::Result<()> {
        self.latency.add(&other.latency).map_err(io::Error::other)?;
        self.refusal.add(&other.refusal).map_err(io::Error::other)
    }
}

struct Answer {
    status: StatusCode,
    latency: Duration,
}

/// `in_flight` callers, each of whom asks again as soon as it is answered, until the time is over. A refusal ends
/// the run.
pub(super) async fn closed(question: &Question, http: Http, in_flight: usize, time: Duration) -> io::Result<Run> {
    let question = question.clone();
    on_a_thread(async move {
        let number = Arc::new(AtomicU64::new(0));
        let mut senders = Vec::new();
        match http {
            Http::One => {
                for _ in 0..in_flight {
                    senders.push(Sender::http1(question.address).await?);
                }
            }
            Http::Two(connections) => {
                for _ in 0..connections {
                    senders.push(Sender::http2(question.address).await?);
                }
                senders = senders.iter().cycle().take(in_flight).filter_map(Sender::another).collect();
            }
        }
        let started = Instant::now();
        let mut callers = JoinSet::new();
        for mut sender in senders {
            let (question, number) = (question.clone(), Arc::clone(&number));
            callers.spawn(async move {
                let mut run = Run::new()?;
                while started.elapsed() < time {
                    let answer = sender.ask(&question, number.fetch_add(1, Ordering::Relaxed)).await?;
                    if answer.status != StatusCode::OK {
                        return Err(io::Error::other(format!("an answer with {}", answer.status)));
                    }
                    run.add(&answer);
                }
                Ok(run)
            });
        }
        let mut all = Run::new()?;
        while let Some(run) = callers.join_next().await {
            all.merge(&run.map_err(io::Error::other)??)?;
        }
        all.elapsed = started.elapsed();
        Ok(all)
    })
    .await
}

/// One caller who asks for each path once, over HTTP/1.1.
pub(super) async fn each(question: &Question) -> io::Result<()> {
    let mut sender = Sender::http1(question.address).await?;
    for number in 0..question.paths.len() as u64 {
        let answer = sender.ask(question, number).await?;
        if answer.status != StatusCode::OK {
            return Err(io::Error::other(format!("an answer with {}", answer.status)));
        }
    }
    Ok(())
}

/// `rate` requests per second, whether the ones before are answered or not, but never more than `unanswered` at one
/// time. Every request that was sent is answered in the end, or the run fails.
pub(super) async fn open(
    question: &Question,
    connections: usize,
    rate: f64,
    unanswered: usize,
    time: Duration,
) -> io::Result<Run> {
    const TICK: Duration = Duration::from_millis(1);
    let question = question.clone();
    on_a_thread(async move {
        let mut senders = Vec::new();
        for _ in 0..connections {
            senders.push(Sender::http2(question.address).await?);
        }
        let outstanding = Arc::new(AtomicUsize::new(0));
        let mut all = Run::new()?;
        let mut asked: JoinSet<io::Result<Answer>> = JoinSet::new();
        let (started, mut sent) = (Instant::now(), 0_u64);
        while started.elapsed() < time {
            let due = (started.elapsed().as_secs_f64() * rate) as u64;
            while sent < due {
                sent += 1;
                if outstanding.load(Ordering::Relaxed) >= unanswered {
                    all.held_back += 1;
                    continue;
                }
                outstanding.fetch_add(1, Ordering::Relaxed);
                let Some(mut sender) = senders.get(sent as usize % connections).and_then(Sender::another) else {
                    return Err(io::Error::other("no connection"));
                };
                let (question, outstanding) = (question.clone(), Arc::clone(&outstanding));
                asked.spawn(async move {
                    let answer = sender.ask(&question, sent).await;
                    outstanding.fetch_sub(1, Ordering::Relaxed);
                    answer
                });
            }
            while let Some(answer) = asked.try_join_next() {
                all.add(&answer.map_err(io::Error::other)??);
            }
            sleep(TICK).await;
        }
        all.elapsed = started.elapsed();
        while let Some(answer) = asked.join_next().await {
            all.add(&answer.map_err(io::Error::other)??);
        }
        Ok(all)
    })
    .await
}

/// Callers have one core at most, and no thread of theirs wakes another.
async fn on_a_thread<T: Send + 'static>(work: impl Future<Output = io::Result<T>> + Send + 'static) -> io::Result<T> {
    let run = move || Builder::new_current_thread().enable_all().build()?.block_on(work);
    spawn_blocking(run).await.map_err(io::Error::other)?
}

enum Sender {
    One(http1::SendRequest<Full<Bytes>>),
    Two(http2::SendRequest<Full<Bytes>>),
}

impl Sender {
    async fn http1(address: SocketAddr) -> io::Result<Self> {
        let (sender, connection) = http1::handshake(connect(address).await?).await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::One(sender))
    }

    async fn http2(address: SocketAddr) -> io::Result<Self> {
        let handshake = http2::Builder::new(TokioExecutor::new()).handshake(connect(address).await?);
        let (sender, connection) = handshake.await.map_err(io::Error::other)?;
        tokio::spawn(connection);
        Ok(Self::Two(sender))
    }

    /// Another one on the same HTTP/2 connection.
    fn another(&self) -> Option<Self> {
        match self {
            Self::Two(sender) => Some(Self::Two(sender.clone())),
            Self::One(_) => None,
        }
    }

    async fn ask(&mut self, question: &Question, number: u64) -> io::Result<Answer> {
        let path = question.path(number);
        let request_id = format!("bench-{number}");
        let builder = Request::builder()
            .method(Method::POST)
            .header(CONTENT_TYPE, "application/json")
            .header("x-request-id", &request_id);
        let body = Full::new((question.body)(number));
        let started = Instant::now();
        let response = match self {
            Self::One(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                let request = builder.uri(path).header(HOST, "localhost").body(body).map_err(io::Error::other)?;
                sender.send_request(request).await
            }
            Self::Two(sender) => {
                sender.ready().await.map_err(io::Error::other)?;
                let uri = format!("http://localhost{path}");
                let request = builder.uri(uri).version(Version::HTTP_2).body(body).map_err(io::Error::other)?;
                sender.send_request(request).await
            }
        };
        let response = response.map_err(io::Error::other)?;
        let status = response.status();
        let same = response.headers().get("x-request-id").is_some_and(|id| id.as_bytes() == request_id.as_bytes());
        let body = response.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let latency = started.elapsed();
        let signed = body.starts_with(b"{\"signature\"") || body.starts_with(b"{\"results\"");
        match status {
            StatusCode::OK if same && signed => Ok(Answer { status, latency }),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE if same => Ok(Answer { status, latency }),
            _ => Err(io::Error::other(format!("{status}: {}", String::from_utf8_lossy(&body)))),
        }
    }
}

async fn connect(address: SocketAddr) -> io::Result<TokioIo<TcpStream>> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    Ok(TokioIo::new(stream))
}
