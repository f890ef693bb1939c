//! How often others are called, with what outcome, and how long it takes: brokers and the API server. In: calls, as they pass. Out: counters and
//! histograms. Left to others: the calls themselves; nothing is changed or tried again here.

use crate::observe::brokers::Opener;
use async_trait::async_trait;
use futures::future::BoxFuture;
use kube::client::Body;
use prometheus_client::encoding::EncodeLabelSet;
use qscaler_broker::{BrokerError, ControlSender, QueueQuery, QueueStats, Reports};
use qscaler_core::message::ControlMessage;
use qscaler_core::scale::QueueSample;
use qscaler_core::workload::ControlAddress;
use qscaler_runtime::metrics::{Counter, Family, Histogram, Registry};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;
use tower::{BoxError, Layer, Service};

/// Calls, seconds: from a broker next door to the longest that is waited for.
const SECONDS: [f64; 10] = [0.001, 0.002_5, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 5.0, 15.0];

type Buckets = fn() -> Histogram;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    operation: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    operation: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Asked {
    verb: &'static str,
    resource: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    verb: &'static str,
    resource: String,
    code: String,
}

/// Calls of brokers and of the API server; clones count together.
#[derive(Clone, Debug)]
pub struct Calls {
    broker: Family<Ended, Counter>,
    broker_seconds: Family<Operation, Histogram, Buckets>,
    api: Family<Answered, Counter>,
    api_seconds: Family<Asked, Histogram, Buckets>,
}

impl Calls {
    /// Registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let buckets: Buckets = || Histogram::new(SECONDS);
        Self {
            broker: registry.add(
                "qscaler_broker_calls",
                "Calls of brokers, by operation (measure, declare, reports, publish, purge, remove) and outcome (ok, error, late: given up on)",
                Family::default(),
            ),
            broker_seconds: registry.add("qscaler_broker_call_seconds", "Time of calls of brokers", Family::new_with_constructor(buckets)),
            api: registry.add(
                "qscaler_api_requests",
                "Requests to the API server, by verb, resource and status code; code error: no answer",
                Family::default(),
            ),
            api_seconds: registry.add(
                "qscaler_api_request_seconds",
                "Time of requests to the API server, watches left out",
                Family::new_with_constructor(buckets),
            ),
        }
    }

    /// The same brokers, each call counted.
    #[must_use]
    pub fn of_brokers(&self, opener: Opener) -> Opener {
        let (stats, control) = (self.clone(), self.clone());
        Opener {
            stats: Arc::new(move |url| Ok(Arc::new(Stats { inner: (opener.stats)(url)?, calls: stats.clone() }) as Arc<dyn QueueStats>)),
            control: Arc::new(move |url| Ok(Arc::new(Control { inner: (opener.control)(url)?, calls: control.clone() }) as Arc<dyn ControlSender>)),
        }
    }

    /// A layer of a client of the API server that counts its requests.
    #[must_use]
    pub fn of_api(&self) -> ApiLayer {
        ApiLayer(self.clone())
    }

    /// One call of each kind, for the reference page.
    #[cfg(test)]
    pub(crate) fn example(&self) {
        drop(Pending { calls: self, operation: "measure", began: Instant::now(), outcome: "ok" });
        self.answered("patch", "qworkers/status".to_owned(), "200".to_owned(), Instant::now());
    }

    fn answered(&self, verb: &'static str, resource: String, code: String, began: Instant) {
        self.api.get_or_create(&Answered { verb, resource: resource.clone(), code }).inc();
        if verb != "watch" {
            self.api_seconds.get_or_create(&Asked { verb, resource }).observe(began.elapsed().as_secs_f64());
        }
    }

    async fn broker<T>(&self, operation: &'static str, call: impl Future<Output = Result<T, BrokerError>>) -> Result<T, BrokerError> {
        // A call that is dropped half way was given up on.
        let mut pending = Pending { calls: self, operation, began: Instant::now(), outcome: "late" };
        let answer = call.await;
        pending.outcome = if answer.is_ok() { "ok" } else { "error" };
        answer
    }
}

struct Pending<'a> {
    calls: &'a Calls,
    operation: &'static str,
    began: Instant,
    outcome: &'static str,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Self { calls, operation, began, outcome } = self;
        calls.broker.get_or_create(&Ended { operation, outcome }).inc();
        calls.broker_seconds.get_or_create(&Operation { operation }).observe(began.elapsed().as_secs_f64());
    }
}

struct Stats {
    inner: Arc<dyn QueueStats>,
    calls: Calls,
}

#[async_trait]
impl QueueStats for Stats {
    async fn sample_each(&self, queries: &[QueueQuery]) -> Result<Vec<Result<QueueSample, BrokerError>>, BrokerError> {
        self.calls.broker("measure", self.inner.sample_each(queries)).await
    }

    fn gap(&self, queries: &[QueueQuery]) -> Option<Arc<str>> {
        self.inner.gap(queries)
    }
}

struct Control {
    inner: Arc<dyn ControlSender>,
    calls: Calls,
}

#[async_trait]
impl ControlSender for Control {
    async fn declare(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.calls.broker("declare", self.inner.declare(address)).await
    }

    async fn publish(&self, address: &ControlAddress, message: &ControlMessage) -> Result<(), BrokerError> {
        self.calls.broker("publish", self.inner.publish(address, message)).await
    }

    async fn purge(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.calls.broker("purge", self.inner.purge(address)).await
    }

    async fn reports(&self, address: &ControlAddress, max: usize) -> Result<Reports, BrokerError> {
        self.calls.broker("reports", self.inner.reports(address, max)).await
    }

    async fn remove(&self, address: &ControlAddress) -> Result<(), BrokerError> {
        self.calls.broker("remove", self.inner.remove(address)).await
    }
}

/// See [`Calls::of_api`].
#[derive(Clone, Debug)]
pub struct ApiLayer(Calls);

impl<S> Layer<S> for ApiLayer {
    type Service = Api<S>;

    fn layer(&self, inner: S) -> Api<S> {
        Api { inner, calls: self.0.clone() }
    }
}

/// A client's service with its requests counted.
#[derive(Clone, Debug)]
pub struct Api<S> {
    inner: S,
    calls: Calls,
}

impl<S, B> Service<http::Request<Body>> for Api<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>>,
    S::Future: Send + 'static,
    S::Error: Into<BoxError>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<S::Response, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let (verb, resource) = asked(request.method(), request.uri());
        let (calls, began, answer) = (self.calls.clone(), Instant::now(), self.inner.call(request));
        Box::pin(async move {
            let answer = answer.await;
            let code = answer.as_ref().map_or_else(|_| "error".to_owned(), |response| response.status().as_u16().to_string());
            calls.answered(verb, resource, code, began);
            answer
        })
    }
}

/// The verb as RBAC has it, and the resource with its subresource; names of objects are left out.
fn asked(method: &http::Method, uri: &http::Uri) -> (&'static str, String) {
    let mut parts: Vec<&str> = uri.path().split('/').filter(|part| !part.is_empty()).collect();
    let skip = match parts.first() {
        Some(&"api") => 2,
        Some(&"apis") => 3,
        _ => return ("get", "other".to_owned()),
    };
    parts.drain(..skip.min(parts.len()));
    if parts.first() == Some(&"namespaces") && parts.len() > 2 {
        parts.drain(..2);
    }
    let (resource, named) = match parts.as_slice() {
        [] => ("discovery".to_owned(), false),
        [kind] => ((*kind).to_owned(), false),
        [kind, _] => ((*kind).to_owned(), true),
        [kind, _, sub, ..] => (format!("{kind}/{sub}"), true),
    };
    let watches = uri.query().is_some_and(|q| q.split('&').any(|part| part == "watch=true" || part == "watch=1"));
    let verb = match *method {
        http::Method::GET if watches => "watch",
        http::Method::GET if named => "get",
        http::Method::GET => "list",
        http::Method::POST => "create",
        http::Method::PUT => "update",
        http::Method::PATCH => "patch",
        http::Method::DELETE => "delete",
        _ => "other",
    };
    (verb, resource)
}

#[cfg(test)]
mod tests {
    use super::*;
    use qscaler_broker::Retry;
    use std::time::Duration;

    #[test]
    fn a_request_is_named_as_in_rbac_and_without_the_names_of_objects() {
        for (method, uri, verb, resource) in [
            ("GET", "/api/v1/pods?limit=500", "list", "pods"),
            ("GET", "/api/v1/pods?watch=true&x=1", "watch", "pods"),
            ("GET", "/api/v1/namespaces/shop", "get", "namespaces"),
            ("GET", "/api/v1/namespaces", "list", "namespaces"),
            ("GET", "/api/v1/namespaces/shop/secrets/broker", "get", "secrets"),
            ("PUT", "/apis/apps/v1/namespaces/shop/deployments/orders/scale", "update", "deployments/scale"),
            ("PATCH", "/api/v1/namespaces/shop/pods/orders-1/resize", "patch", "pods/resize"),
            ("POST", "/apis/events.k8s.io/v1/namespaces/shop/events", "create", "events"),
            ("DELETE", "/apis/qscaler.dev/v1alpha1/namespaces/shop/qworkers/orders", "delete", "qworkers"),
            ("GET", "/apis/qscaler.dev/v1alpha1", "list", "discovery"),
            ("GET", "/version", "get", "other"),
            ("GET", "/", "get", "other"),
        ] {
            let asked = asked(&method.parse().expect("a method"), &uri.parse().expect("a path"));
            assert_eq!(asked, (verb, resource.to_owned()), "{method} {uri}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_of_a_broker_is_counted_by_its_outcome_also_when_it_was_given_up_on() {
        let mut registry = Registry::default();
        let calls = Calls::new(&mut registry);
        let error = || BrokerError { operation: "x", place: "y".into(), message: "z".into(), retry: Retry::Later };
        assert!(calls.broker("measure", async { Ok(()) }).await.is_ok());
        assert!(calls.broker("measure", async { Err::<(), _>(error()) }).await.is_err());
        assert!(tokio::time::timeout(Duration::from_secs(1), calls.broker("publish", std::future::pending::<Result<(), _>>())).await.is_err());
        let text = registry.text();
        for (operation, outcome) in [("measure", "ok"), ("measure", "error"), ("publish", "late")] {
            assert!(text.contains(&format!("qscaler_broker_calls_total{{operation=\"{operation}\",outcome=\"{outcome}\"}} 1\n")), "{text}");
        }
    }
}
