//! Many connections to operators that are open before anything is asked, so that what is asked is asked at once.

use crate::support::operator::Operator;
use futures::StreamExt as _;
use std::time::Duration;

/// A client that trusts the operator's CA and nothing else.
pub fn client(operator: &Operator) -> reqwest::ClientBuilder {
    let pem = std::fs::read(operator.ca_file()).expect("the CA");
    reqwest::Client::builder().tls_certs_only([reqwest::Certificate::from_pem(&pem).expect("a certificate")])
}

/// A client with a connection for each of `urls`, which are those of `operator` or of replicas with its CA.
pub async fn connected(operator: &Operator, urls: &[String]) -> reqwest::Client {
    let http = client(operator).pool_max_idle_per_host(urls.len()).timeout(Duration::from_secs(60)).build().expect("a client");
    // Few at a time: of a thousand handshakes at once some take longer than an operator waits for a request.
    let open = urls.iter().map(|url| {
        let sent = insist(http.get(format!("{url}/healthz")));
        async { sent.await?.text().await }
    });
    let opened: Vec<reqwest::Result<String>> = futures::stream::iter(open).buffer_unordered(32).collect().await;
    opened.into_iter().for_each(|opened| _ = opened.expect("a connection"));
    http
}

/// Sends a request; again if the connection ended before there was an answer, or could not be opened among so many.
pub async fn insist(request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
    for tries in 1..5 {
        let Some(again) = request.try_clone() else { break };
        match again.send().await {
            Err(error) if error.is_request() => tokio::time::sleep(Duration::from_millis(200 * tries)).await,
            sent => return sent,
        }
    }
    request.send().await
}
