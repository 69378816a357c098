//! `chain-proxy UPSTREAM ADDRESS…`: an endpoint that can be made to misbehave at each address, before one node.
//! `PUT /fault` sets what it does, `GET /counts` tells how many answers that changed.

use std::net::SocketAddr;

use freehold_testkit::proxy::Proxy;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let upstream = arguments.next().ok_or("usage: chain-proxy UPSTREAM ADDRESS…")?;
    let mut proxies = Vec::new();
    for address in arguments {
        let address: SocketAddr = address.parse().map_err(|error| format!("{address} is no address: {error}"))?;
        proxies.push(Proxy::start(address, &upstream).await?);
    }
    futures::future::join_all(proxies.into_iter().map(Proxy::serve)).await;
    Ok(())
}
