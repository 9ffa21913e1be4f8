//! An HTTP client inside a host: one connection at a time, fully in view of the test.
//!
//! Nothing is pooled or retried behind the caller's back: [`Connection::open`] is one TCP
//! connection, and [`Client::once`] is a new one for one request, with a source port of its own.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::HOST;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use crate::host::Host;

/// How long a request may take, from connecting to the last byte of the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a client sends its requests, and what it says there.
#[derive(Clone)]
pub struct Client {
    address: SocketAddr,
    host: String,
    tls: Option<Arc<ClientConfig>>,
    headers: HeaderMap,
    timeout: Duration,
}

/// One connection, kept alive between requests.
pub struct Connection {
    sender: SendRequest<Full<Bytes>>,
    local: SocketAddr,
    client: Client,
    driver: AbortHandle,
}

/// An answer, read to its end.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The whole body.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, Error)]
pub enum RequestError {
    /// The server's host refused, or could not be reached.
    #[error("connecting to {address}: {cause}")]
    Connect {
        /// Where to.
        address: SocketAddr,
        /// What the kernel said.
        cause: io::Error,
    },
    /// The TLS handshake failed.
    #[error("TLS handshake with {address}: {cause}")]
    Tls {
        /// With whom.
        address: SocketAddr,
        /// What rustls said.
        cause: io::Error,
    },
    /// The connection ended, or the answer is no HTTP.
    #[error("HTTP: {0}")]
    Http(#[from] hyper::Error),
    /// The server went on with HTTP.
    #[error("{0} came instead of another protocol")]
    NotUpgraded(StatusCode),
    /// No whole answer in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
}

impl Client {
    /// A client for plain HTTP/1.1 at `address` that asks for `host`.
    #[must_use]
    pub fn new(address: SocketAddr, host: &str) -> Self {
        let headers = HeaderMap::new();
        Self {
            address,
            host: host.to_owned(),
            tls: None,
            headers,
            timeout: REQUEST_TIMEOUT,
        }
    }

    /// The same client over TLS.
    #[must_use]
    pub fn with_tls(mut self, tls: Arc<ClientConfig>) -> Self {
        self.tls = Some(tls);
        self
    }

    /// The same client with one more header in each request.
    ///
    /// # Panics
    ///
    /// When the value is no header value.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        let value = HeaderValue::from_str(value).expect("the caller gives a header value");
        self.headers.append(name, value);
        self
    }

    /// The same client that presents a bearer token (RFC 6750).
    #[must_use]
    pub fn with_token(self, token: &str) -> Self {
        self.with_header(http::header::AUTHORIZATION, &format!("Bearer {token}"))
    }

    /// The same client with another time limit per request.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = timeout;
        self
    }

    /// Gets `path` over a connection of its own.
    ///
    /// # Errors
    ///
    /// When there is no whole answer in time.
    pub async fn once(&self, path: &str) -> Result<Reply, RequestError> {
        let exchange = async { Connection::open(self).await?.get(path).await };
        self.in_time(exchange).await
    }

    /// A request with this client's headers.
    fn request(&self, method: Method, path: &str, body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("tests ask for paths that are paths");
        *request.headers_mut() = self.headers.clone();
        let host = HeaderValue::from_str(&self.host).expect("a host name is a header value");
        request.headers_mut().insert(HOST, host);
        request
    }

    async fn in_time<T>(
        &self,
        exchange: impl Future<Output = Result<T, RequestError>>,
    ) -> Result<T, RequestError> {
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RequestError::TimedOut(self.timeout)),
        }
    }
}

impl Connection {
    /// Connects, and shakes hands where TLS is asked for.
    ///
    /// # Errors
    ///
    /// When that fails or takes longer than the client's limit.
    pub async fn open(client: &Client) -> Result<Self, RequestError> {
        client.in_time(Self::open_unlimited(client)).await
    }

    async fn open_unlimited(client: &Client) -> Result<Self, RequestError> {
        let address = client.address;
        let connect_error = |cause| RequestError::Connect { address, cause };
        let stream = TcpStream::connect(address).await.map_err(connect_error)?;
        stream.set_nodelay(true).map_err(connect_error)?;
        let local = stream.local_addr().map_err(connect_error)?;
        let Some(tls) = &client.tls else {
            return Self::speak_http(stream, local, client).await;
        };
        let tls_error = |cause| RequestError::Tls { address, cause };
        let name = ServerName::try_from(client.host.clone())
            .map_err(|error| tls_error(io::Error::new(io::ErrorKind::InvalidInput, error)))?;
        let connector = TlsConnector::from(Arc::clone(tls));
        let stream = connector.connect(name, stream).await.map_err(tls_error)?;
        Self::speak_http(stream, local, client).await
    }

    async fn speak_http<S>(
        stream: S,
        local: SocketAddr,
        client: &Client,
    ) -> Result<Self, RequestError>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, driver) = handshake(TokioIo::new(stream)).await?;
        // An error of the connection reaches the request that waits for it.
        let driver = tokio::spawn(driver.with_upgrades()).abort_handle();
        Ok(Self {
            sender,
            local,
            client: client.clone(),
            driver,
        })
    }

    /// The client's own end; it stays the same for as long as this is the same connection.
    #[must_use]
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// Gets `path`.
    ///
    /// # Errors
    ///
    /// When there is no whole answer in time.
    pub async fn get(&mut self, path: &str) -> Result<Reply, RequestError> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    /// Sends `body` to `path` and reads the whole answer.
    ///
    /// # Errors
    ///
    /// When there is no whole answer in time.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Reply, RequestError> {
        let request = self.client.request(method, path, body);
        let client = self.client.clone();
        let exchange = async {
            let (head, body) = self.sender.send_request(request).await?.into_parts();
            let body = body.collect().await?.to_bytes();
            Ok(Reply {
                status: head.status,
                headers: head.headers,
                body,
            })
        };
        client.in_time(exchange).await
    }

    /// Gets `path` and hands the body over as it comes.
    ///
    /// # Errors
    ///
    /// When the head of the answer is not there in time.
    pub async fn stream(&mut self, path: &str) -> Result<(StatusCode, Incoming), RequestError> {
        let request = self.client.request(Method::GET, path, Bytes::new());
        let client = self.client.clone();
        let exchange = async {
            let response = self.sender.send_request(request).await?;
            Ok((response.status(), response.into_body()))
        };
        client.in_time(exchange).await
    }

    /// Asks for `path` as a WebSocket client would, and hands over the bytes both ways.
    ///
    /// # Errors
    ///
    /// When the answer is not 101, or is not there in time.
    pub async fn upgrade(&mut self, path: &str) -> Result<TokioIo<Upgraded>, RequestError> {
        let mut request = self.client.request(Method::GET, path, Bytes::new());
        for (name, value) in [
            ("connection", "upgrade"),
            ("upgrade", "websocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }
        let client = self.client.clone();
        let exchange = async {
            let response = self.sender.send_request(request).await?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                return Err(RequestError::NotUpgraded(response.status()));
            }
            Ok(TokioIo::new(hyper::upgrade::on(response).await?))
        };
        client.in_time(exchange).await
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Reply {
    /// The body as JSON of type `T`; an error shows what came instead.
    ///
    /// # Errors
    ///
    /// When the body is not such JSON.
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_slice(&self.body).map_err(|error| {
            anyhow::anyhow!(
                "{error} in {}: {}",
                self.status,
                String::from_utf8_lossy(&self.body)
            )
        })
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        write!(formatter, "{scheme}://{} at {}", self.host, self.address)
    }
}

/// Runs asynchronous work on a thread inside `host`, where its sockets are made.
///
/// # Panics
///
/// When the machine has no file descriptor left for a runtime.
pub fn inside<T: Send, F: Future<Output = T>>(host: &Host, work: impl FnOnce() -> F + Send) -> T {
    host.namespace().enter(|| runtime().block_on(work()))
}

/// A runtime for one thread, which is all that a thread inside a host may have.
#[must_use]
pub fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime needs only file descriptors")
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpSocket};

    use super::*;
    use crate::service::{self, Identity, WhoAmI};

    async fn client() -> Client {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let identity = Identity {
            service: "users".to_owned(),
            instance: "users-1".to_owned(),
        };
        tokio::spawn(service::serve(listener, identity));
        Client::new(address, "api.example.com")
    }

    #[tokio::test]
    async fn a_request_arrives_with_its_headers_from_the_port_it_left() {
        let client = client().await.with_token("abc");
        let mut connection = Connection::open(&client).await.unwrap();
        let first: WhoAmI = connection.get("/whoami").await.unwrap().json().unwrap();
        let second: WhoAmI = connection
            .get("/users/whoami")
            .await
            .unwrap()
            .json()
            .unwrap();
        assert_eq!(first.instance, "users-1");
        assert_eq!(first.headers["authorization"], ["Bearer abc"]);
        assert_eq!(first.headers["host"], ["api.example.com"]);
        assert_eq!(
            (first.peer, second.peer),
            (connection.local(), connection.local())
        );
    }

    #[tokio::test]
    async fn a_body_comes_back_and_a_stream_is_the_pattern() {
        let client = client().await;
        let mut connection = Connection::open(&client).await.unwrap();
        let reply = connection
            .send(Method::POST, "/echo", "hello".into())
            .await
            .unwrap();
        assert_eq!(reply.body, "hello");

        let (status, body) = connection.stream("/bytes/100000").await.unwrap();
        let bytes = body.collect().await.unwrap().to_bytes();
        assert_eq!((status, bytes.len()), (StatusCode::OK, 100_000));
        assert_eq!(bytes[..65_536], service::pattern_block(0));
    }

    #[tokio::test]
    async fn an_upgrade_gives_the_bytes_and_a_refusal_its_status() {
        let client = client().await;
        let mut connection = Connection::open(&client).await.unwrap();
        let mut socket = connection.upgrade("/websocket").await.unwrap();
        socket.write_all(b"hello").await.unwrap();
        let mut answer = [0; 5];
        socket.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"hello");

        let mut connection = Connection::open(&client).await.unwrap();
        let refused = connection.upgrade("/healthz").await.unwrap_err();
        assert_eq!(
            refused.to_string(),
            "200 OK came instead of another protocol"
        );
    }

    #[tokio::test]
    async fn no_server_and_a_slow_one_are_told_apart() {
        // Bound, and so nobody else's, but not listening.
        let closed = TcpSocket::new_v4().unwrap();
        closed.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let refused = Client::new(closed.local_addr().unwrap(), "api.example.com")
            .once("/")
            .await
            .unwrap_err();
        assert!(matches!(refused, RequestError::Connect { .. }), "{refused}");

        let impatient = client().await.with_timeout(Duration::from_millis(50));
        let late = impatient.once("/slow?ms=60000").await.unwrap_err();
        assert!(matches!(late, RequestError::TimedOut(_)), "{late}");
    }
}
