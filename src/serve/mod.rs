//! Connections of the open internet: a limit on how many there are and how many one client has, on how long their
//! headers take and how long a client may read nothing, and an orderly end. `axum::serve` has none of these. Web and
//! the ledger serve with it.

pub mod client;
pub mod reader;

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::ConnectInfo;
use axum::http::Request;
use futures::Future;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tower::ServiceExt;

use client::site;
use reader::{End, Reader};

/// What a client gets.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at the same time.
    pub connections: usize,
    /// Those of one client, where connections come from clients and not from a proxy.
    pub per_client: Option<usize>,
    /// How long a client may read nothing of an answer.
    pub write_timeout: Duration,
    /// Until the headers of a request are there; on an idle connection, until the next request begins.
    pub header_timeout: Duration,
    /// How long requests may go on after the end was asked for.
    pub drain: Duration,
}

/// The longest headers of a request, in bytes: without a limit, hyper keeps 400 kB for each connection that sends
/// slowly.
const HEADERS: usize = 64 << 10;

/// Serves until `stop`, then lets what is under way end.
pub async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    stop: impl Future<Output = ()>,
) -> std::io::Result<()> {
    // HTTP/1.1 alone: to find out which version a client speaks, the builder would wait without a limit. What stands in
    // front of web speaks HTTP/2 with browsers.
    let mut builder = Builder::new(TokioExecutor::new()).http1_only();
    builder.http1().timer(TokioTimer::new()).header_read_timeout(limits.header_timeout).max_buf_size(HEADERS);
    let places = Arc::new(Semaphore::new(limits.connections));
    let clients = Clients::default();
    let graceful = GracefulShutdown::new();
    let mut stop = std::pin::pin!(stop);
    loop {
        let accept = async {
            // While all places are taken, new connections wait in the kernel's queue.
            let place = places.clone().acquire_owned().await;
            (listener.accept().await, place)
        };
        let (accepted, place) = tokio::select! {
            accepted = accept => accepted,
            () = &mut stop => break,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, for example: some end soon.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let Some(client) = clients.enter(site(peer.ip()), limits.per_client.unwrap_or(usize::MAX)) else {
            // It gets no answer: its other connections are open.
            continue;
        };
        drop(stream.set_nodelay(true));
        let end = End::default();
        let reader = Reader::new(stream, limits.write_timeout, end.clone());
        let service = TowerToHyperService::new(routes.clone().map_request(move |mut request: Request<_>| {
            request.extensions_mut().insert(ConnectInfo(peer));
            request.extensions_mut().insert(end.clone());
            request
        }));
        let connection = builder.serve_connection(TokioIo::new(reader), service).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // How a client ends its connection is its own affair.
            drop(connection.await);
            drop((client, place));
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests did not end in time");
    }
    Ok(())
}

/// How many connections each client has.
#[derive(Clone, Debug, Default)]
struct Clients(Arc<Mutex<HashMap<IpAddr, usize>>>);

/// One of them, for as long as it lives.
struct Connected {
    clients: Clients,
    client: IpAddr,
}

impl Clients {
    /// One more connection of a client, unless it has so many.
    fn enter(&self, client: IpAddr, most: usize) -> Option<Connected> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = all.entry(client).or_default();
        if *count >= most {
            return None;
        }
        *count += 1;
        Some(Connected { clients: self.clone(), client })
    }
}

impl Drop for Connected {
    fn drop(&mut self) {
        let mut all = self.clients.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = all.get_mut(&self.client) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.client);
            }
        }
    }
}
