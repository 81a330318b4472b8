//! Traces by OTLP, where `OTEL_EXPORTER_OTLP_ENDPOINT` is set: a trace for each Tenant, from signup to Active.
//!
//! Web, the controller and their replicas need not tell one another which trace a tenant has: its id is the object's
//! uid, which both are 16 random bytes. All spans hang under one whose id follows from the uid as well; it is sent once
//! the tenant is Active or Failed. Spans are therefore made here and not by `tracing`, whose spans begin and end in one
//! process.

use std::borrow::Cow;
use std::cell::Cell;
use std::sync::OnceLock;
use std::time::SystemTime;

use async_trait::async_trait;
use opentelemetry::trace::{
    SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer as _, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{IdGenerator, RandomIdGenerator, SdkTracer, SdkTracerProvider};

/// The longest that one export may take.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);
/// The largest answer of a collector that is read.
const ANSWER: usize = 64 << 10;

struct Exporter {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

thread_local! {
    /// The ids of the next span without a parent.
    static ROOT: Cell<Option<(TraceId, SpanId)>> = const { Cell::new(None) };
}

/// Sends spans from now on, if the environment says where to. Must be called within the runtime.
pub fn init_traces(part: &'static str) -> Result<(), TracesError> {
    let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty());
    if !set("OTEL_EXPORTER_OTLP_ENDPOINT") && !set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") {
        return Ok(());
    }
    let client = reqwest::Client::builder().timeout(TIMEOUT).redirect(reqwest::redirect::Policy::none()).build();
    let sender = Sender { client: client.map_err(TracesError::of)?, runtime: tokio::runtime::Handle::current() };
    let exporter = SpanExporter::builder().with_http().with_http_client(sender).build().map_err(TracesError::of)?;
    let name = std::env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| format!("tenant-operator-{part}"));
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_id_generator(Ids(RandomIdGenerator::default()))
        .with_resource(Resource::builder().with_service_name(name).build())
        .build();
    let tracer = provider.tracer("tenant-operator");
    drop(EXPORTER.set(Exporter { provider, tracer }));
    Ok(())
}

/// Sends what is left. Blocks, so it is called beside the runtime.
pub fn flush_traces() {
    if let Some(exporter) = EXPORTER.get()
        && let Err(error) = exporter.provider.shutdown()
    {
        tracing::warn!(%error, "some spans were not sent");
    }
}

/// Traces cannot be sent as the environment says.
#[derive(Debug, thiserror::Error)]
#[error("traces: {0}; correct the OTEL_EXPORTER_OTLP_ variables")]
pub struct TracesError(String);

impl TracesError {
    fn of(error: impl std::fmt::Display) -> Self {
        Self(error.to_string())
    }
}

/// The id of a Tenant's trace, as its log lines and a tracing backend have it: the object's uid without dashes.
pub fn trace_id(uid: &str) -> String {
    uid.replace('-', "")
}

fn ids(uid: &str) -> Option<(TraceId, SpanId)> {
    let trace = TraceId::from_hex(&trace_id(uid)).ok().filter(|id| *id != TraceId::INVALID)?;
    let bytes = trace.to_bytes();
    let span = SpanId::from_bytes(std::array::from_fn(|i| bytes[i] ^ bytes[i + 8]));
    (span != SpanId::INVALID).then_some((trace, span))
}

/// A part of a tenant's way. It ends when it is dropped; nothing is sent unless traces are on.
pub struct Span(Option<Context>);

impl Span {
    /// A part of the trace of the Tenant with this uid, begun at `start`.
    pub fn of_tenant(uid: &str, name: &'static str, start: SystemTime) -> Self {
        let Some((exporter, (trace, root))) = EXPORTER.get().zip(ids(uid)) else { return Self(None) };
        let parent = SpanContext::new(trace, root, TraceFlags::SAMPLED, true, TraceState::default());
        Self::under(exporter, &Context::new().with_remote_span_context(parent), name, start)
    }

    /// The way of a tenant from its creation until now.
    pub fn whole(uid: &str, start: SystemTime) -> Self {
        let Some((exporter, root)) = EXPORTER.get().zip(ids(uid)) else { return Self(None) };
        ROOT.set(Some(root));
        let span = Self::under(exporter, &Context::new(), "onboarding", start);
        ROOT.set(None);
        span
    }

    /// A part of this part.
    #[must_use]
    pub fn part(&self, name: impl FnOnce() -> String) -> Self {
        let Some((exporter, context)) = EXPORTER.get().zip(self.0.as_ref()) else { return Self(None) };
        Self::under(exporter, context, name(), SystemTime::now())
    }

    fn under(exporter: &Exporter, parent: &Context, name: impl Into<Cow<'static, str>>, start: SystemTime) -> Self {
        let span =
            exporter.tracer.span_builder(name).with_start_time(start).start_with_context(&exporter.tracer, parent);
        Self(Some(parent.with_span(span)))
    }

    /// Says more of it. Never a secret.
    pub fn set(&self, key: &'static str, value: impl Into<String>) {
        if let Some(context) = &self.0 {
            context.span().set_attribute(KeyValue::new(key, value.into()));
        }
    }

    /// It failed.
    pub fn fail(&self, why: impl Into<String>) {
        if let Some(context) = &self.0 {
            context.span().set_status(Status::error(why.into()));
        }
    }
}

#[derive(Debug)]
struct Ids(RandomIdGenerator);

impl IdGenerator for Ids {
    fn new_trace_id(&self) -> TraceId {
        ROOT.get().map_or_else(|| self.0.new_trace_id(), |(trace, _)| trace)
    }

    fn new_span_id(&self) -> SpanId {
        ROOT.get().map_or_else(|| self.0.new_span_id(), |(_, span)| span)
    }
}

/// Sends on the program's own runtime: spans are batched by a thread that has none.
#[derive(Debug)]
struct Sender {
    client: reqwest::Client,
    runtime: tokio::runtime::Handle,
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let sent = self.runtime.spawn(async move {
            let mut answer = client.execute(request.try_into()?).await?;
            let mut body = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                body.extend_from_slice(&chunk[..chunk.len().min(ANSWER - body.len())]);
            }
            let response = Response::builder().status(answer.status()).body(Bytes::from(body))?;
            Ok::<_, HttpError>(response)
        });
        sent.await?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ids_follow_from_the_uid() {
        let (trace, span) = ids("0f8fad5b-d9cb-469f-a165-70867728950e").expect("a uid");
        assert_eq!(trace.to_string(), "0f8fad5bd9cb469fa16570867728950e");
        assert_eq!(span.to_string(), "aeeadddd".to_owned() + "aee3d391");
        for wrong in ["", "x", "00000000-0000-0000-0000-000000000000", "0f8fad5b-d9cb-469f-0f8f-ad5bd9cb469f"] {
            assert!(ids(wrong).is_none(), "{wrong}");
        }
    }
}
