//! Every request to the API server passes here, and has a failpoint before it
//! and one behind its answer: so the operator can be ended at each point where
//! it awaits the cluster, those of code that is yet to be written included. The
//! chain's are in `rpc`, the gateways' in `task::gateways` and
//! `compute_lease::gateway`.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use freehold_chain::failpoint::crossing;
use http::{Method, Request};
use kube::client::ClientBuilder;
use kube::{Client, Config};
use tower::{BoxError, Layer, Service};

/// For the head of an answer. A request whose answer never comes would hold its pass, and the object, for ever.
const PATIENCE: Duration = Duration::from_secs(60);
/// Without a byte of an answer that has begun; a watch is ended by the API server after 290 s.
const SILENCE: Duration = Duration::from_secs(300);

/// The operator's client of the API server.
pub fn client(mut config: Config) -> Result<Client, kube::Error> {
    config.read_timeout = Some(SILENCE);
    Ok(ClientBuilder::try_from(config)?.with_layer(&Crossings).build())
}

#[derive(Clone)]
struct Crossings;

impl<S> Layer<S> for Crossings {
    type Service = Crossing<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Crossing(inner)
    }
}

#[derive(Clone)]
struct Crossing<S>(S);

impl<S, B> Service<Request<B>> for Crossing<S>
where
    S: Service<Request<B>, Response: 'static, Error: Into<BoxError> + 'static, Future: Send + 'static>,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let watch = request.uri().query().is_some_and(|query| query.contains("watch="));
        Box::pin(crossing(move || name(&method, &path, watch), in_time(PATIENCE, self.0.call(request))))
    }
}

async fn in_time<T, E>(patience: Duration, answer: impl Future<Output = Result<T, E>>) -> Result<T, BoxError>
where
    E: Into<BoxError>,
{
    match tokio::time::timeout(patience, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(format!("the API server did not answer within {} s", patience.as_secs()).into()),
    }
}

/// `kube.<verb>.<resource>`, with the subresource where there is one.
fn name(method: &Method, path: &str, watch: bool) -> String {
    let mut parts = path.trim_start_matches('/').split('/');
    match parts.next() {
        Some("api") => parts.next(),
        Some("apis") => parts.nth(1),
        _ => return format!("kube.other.{}", path.trim_start_matches('/').replace('/', ".")),
    };
    let mut parts: Vec<&str> = parts.collect();
    // A namespace before a resource is a place; alone it is the resource.
    if parts.first() == Some(&"namespaces") && parts.len() > 2 && !["status", "finalize"].contains(&parts[2]) {
        parts.drain(..2);
    }
    let resource = parts.first().copied().unwrap_or("discovery");
    let named = parts.len() > 1;
    let verb = match *method {
        Method::GET if watch => "watch",
        Method::GET if named => "get",
        Method::GET => "list",
        Method::POST => "create",
        Method::PUT => "update",
        Method::PATCH => "patch",
        Method::DELETE => "delete",
        _ => "other",
    };
    match parts.get(2) {
        Some(sub) => format!("kube.{verb}.{resource}.{sub}"),
        None => format!("kube.{verb}.{resource}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::{Path, PathBuf};

    #[test]
    fn a_point_is_named_by_what_is_asked() {
        let named = |method, path| name(&method, path, false);
        assert_eq!(named(Method::POST, "/api/v1/namespaces"), "kube.create.namespaces");
        assert_eq!(named(Method::DELETE, "/api/v1/namespaces/fh-lease-1"), "kube.delete.namespaces");
        assert_eq!(named(Method::GET, "/api/v1/namespaces/x/pods/y/log"), "kube.get.pods.log");
        assert_eq!(
            named(Method::PATCH, "/apis/freehold.dev/v1alpha1/computeaccounts/a/status"),
            "kube.patch.computeaccounts.status"
        );
        assert_eq!(named(Method::GET, "/apis/batch/v1/namespaces/x/jobs"), "kube.list.jobs");
        assert_eq!(name(&Method::GET, "/apis/batch/v1/jobs", true), "kube.watch.jobs");
    }

    #[tokio::test]
    async fn an_answer_that_never_comes_is_an_error() {
        let never = std::future::pending::<Result<(), BoxError>>();
        let error = in_time(Duration::ZERO, never).await.expect_err("nobody answers");
        assert_eq!(error.to_string(), "the API server did not answer within 0 s");
        assert!(in_time(PATIENCE, async { Ok::<_, BoxError>(()) }).await.is_ok());
    }

    /// What opens a way out of the process.
    const WAYS_OUT: [&str; 6] = [
        "Client::try_default(",
        "ClientBuilder::",
        "reqwest::Client::",
        "TcpStream::connect",
        "GatewayClient::new(",
        "RpcClient::new",
    ];

    fn sources(folder: &Path, out: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).expect("folder") {
            let path = entry.expect("entry").path();
            if path.is_dir() && !path.ends_with("tests") {
                sources(&path, out);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                out.push(path);
            }
        }
    }

    /// A reconciler that finds another way out would await where nothing can end it.
    #[test]
    fn every_way_out_of_the_operator_passes_a_failpoint() {
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut files = Vec::new();
        for folder in ["src", "../chain/src", "../freehold/src"] {
            sources(&here.join(folder), &mut files);
        }
        let mut found = 0;
        for file in files {
            let text = std::fs::read_to_string(&file).expect("source");
            let code = text.split("#[cfg(test)]").next().unwrap_or_default();
            if WAYS_OUT.iter().any(|way| code.contains(way)) {
                found += 1;
                let guarded = code.contains("crossing(") || file.ends_with("rpc/pool.rs") || file.ends_with("rpc.rs");
                assert!(guarded, "{} opens a way out and calls no failpoint::crossing", file.display());
            }
        }
        assert!(found >= 4, "{found} ways out: the search no longer finds them");
    }
}
