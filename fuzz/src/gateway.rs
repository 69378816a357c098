//! What comes to a gateway and to a courier, and what a gateway says to a tenant.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use alloy::primitives::{Address, B256};
use freehold_api::TrainingTask;
use freehold_api::lease::ComputeLease;
use freehold_controllers::task::status;
use freehold_core::access::{self, Claims, Expected, Scope};
use freehold_core::progress::{self, MAX_METRICS, MAX_STEPS, ProgressLine};
use freehold_core::result::ResultFile;
use freehold_core::wire::{CheckpointNote, Event, LeaseReport, Problem, WorkReport};
use freehold_gateway::address::{Cidr, Policy};
use freehold_gateway::courier::{metrics_of, step_of, tail::Tail};
use freehold_gateway::digest::Digest;
use freehold_gateway::{artifacts, cidrs, host_of, logs, range};
use http::{HeaderMap, HeaderValue, header};
use kube::CustomResourceExt;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bytes::Bytes;
use crate::schema;

pub const NOW: u64 = 1_800_000_000;
pub const HOST: &str = "gateway.example.org";
pub const MARKET: Address = Address::repeat_byte(7);
pub const LEASE: B256 = B256::repeat_byte(1);
/// Whose key signs the seeds.
static TENANT: LazyLock<Address> = LazyLock::new(|| crate::signer::KEY.address());

/// A token that is believed says what was expected, and the same claims make the same token again.
pub fn token(data: &[u8]) {
    let Ok(header) = std::str::from_utf8(data) else { return };
    for scope in [Scope::Read, Scope::Write, Scope::Logs] {
        match access::verify(header, &expected(scope)) {
            Ok(claims) => believed(&claims, header, scope),
            Err(error) => assert!(error.to_string().len() <= 4096, "a token is refused at length"),
        }
    }
}

fn expected(scope: Scope) -> Expected<'static> {
    Expected { lease: LEASE, host: HOST, scope, tenant: *TENANT, chain_id: 31337, market: MARKET, now: NOW }
}

#[cfg(test)]
pub fn believes(header: &str) -> bool {
    access::verify(header, &expected(Scope::Read)).is_ok()
}

fn believed(claims: &Claims, header: &str, scope: Scope) {
    assert_eq!(claims.lease, LEASE);
    assert!(claims.host.eq_ignore_ascii_case(HOST));
    assert!(claims.expiry > NOW && claims.expiry <= NOW + access::MAX_LIFE);
    assert!(claims.scopes.split(' ').any(|one| one == scope.as_str()));
    assert!(header.starts_with(access::SCHEME));
}

/// Headers: `Content-Range`, `Range`, `Content-Length`, then the query of a log.
pub fn range(data: &[u8]) {
    let mut data = Bytes(data);
    let size = data.u64();
    let (announced, asked, length, follow, tail) = (data.text(), data.text(), data.text(), data.text(), data.text());
    if let Ok(chunk) = range::content_range(&announced) {
        assert!(chunk.length > 0 && chunk.start.checked_add(chunk.length).is_some_and(|end| end <= chunk.total));
        let printed = format!("bytes {}-{}/{}", chunk.start, chunk.start + chunk.length - 1, chunk.total);
        assert_eq!(range::content_range(&printed), Ok(chunk));
    }
    if let Ok(Some(part)) = range::range(&asked, size) {
        assert!(part.start < part.end && part.end <= size, "{part:?} of {size}");
    }
    let mut headers = HeaderMap::new();
    for (name, text) in [(header::CONTENT_RANGE, &announced), (header::CONTENT_LENGTH, &length)] {
        if let Ok(value) = HeaderValue::from_str(text)
            && !text.is_empty()
        {
            headers.insert(name, value);
        }
    }
    if let Ok(chunk) = artifacts::chunk(&headers) {
        assert!(chunk.length <= freehold_core::wire::CHUNK);
        assert!(chunk.start.checked_add(chunk.length).is_some_and(|end| end <= chunk.total));
    }
    let query: HashMap<String, String> =
        [("follow".to_owned(), follow), ("tail".to_owned(), tail)].into_iter().filter(|(_, v)| v != "-").collect();
    if let Ok(query) = logs::Query::parse(&query) {
        assert!(query.tail.is_none_or(|lines| lines <= 100_000));
    }
}

/// A block of addresses, an address, a URL, a digest, a file name.
pub fn address(data: &[u8]) {
    let mut data = Bytes(data);
    let (block, literal, url, digest, name) = (data.text(), data.text(), data.text(), data.text(), data.text());
    let address = literal.parse::<IpAddr>().ok();
    if let (Ok(block), Some(address)) = (block.parse::<Cidr>(), address) {
        let only = Policy { allowed: vec![block], refused: vec![] };
        if block.contains(address) && !address.is_ipv6() {
            assert!(only.admits(address, true), "a block admits what it contains");
        }
        let never = Policy { allowed: vec![], refused: vec![block] };
        assert!(!never.admits(address, true), "plain http is for allowed blocks alone");
        assert!(!(block.contains(address) && address.is_ipv4() && never.admits(address, false)));
    }
    if let Some(address) = address
        && Policy::default().admits(address, false)
    {
        assert!(!address.is_loopback() && !address.is_unspecified() && !address.is_multicast());
    }
    let _ = cidrs(&block);
    if let Ok(url) = reqwest::Url::parse(&url) {
        judged(&url);
    }
    if let Ok(digest) = digest.parse::<Digest>() {
        assert_eq!(digest.as_str().parse(), Ok(digest.clone()));
        assert!(freehold_core::canonical::b256_of_hex(digest.as_str()).is_some());
    }
    assert!(step_of(&name).is_none_or(|step| step <= MAX_STEPS));
}

/// No literal address that is not public passes, however it is written.
fn judged(url: &reqwest::Url) {
    let Ok(plain) = Policy::default().judge(url) else { return };
    assert!(!plain && url.scheme() == "https");
    let host = url.host_str().expect("a URL without a host was admitted");
    assert!(host_of(url).is_some_and(|found| found.starts_with(host)));
    let literal = host.trim_matches(['[', ']']).parse::<IpAddr>();
    assert!(literal.map_or(true, |address| Policy::default().admits(address, false)), "{host}");
}

/// Pieces of progress.jsonl as they are written; the first byte says how they are cut.
pub fn progress(data: &[u8]) {
    let Some((cut, file)) = data.split_first() else { return };
    let mut tail = Tail::default();
    for piece in file.chunks(usize::from(*cut).max(1) * 16) {
        if let Some(line) = tail.take(piece) {
            shown(&line);
        }
    }
    // However it comes, the last line of what came at once is the same.
    let mut whole = file.to_vec();
    whole.push(b'\n');
    let once = Tail::default().take(&whole);
    let lines = file.split(|byte| *byte == b'\n').rev().filter_map(|line| std::str::from_utf8(line).ok());
    assert_eq!(once.map(same), lines.into_iter().find_map(progress::parse).map(same));
}

/// Numbers are compared as they are printed: an infinite one is no JSON, and none has a payload.
fn same(line: ProgressLine) -> Value {
    serde_json::to_value(line).expect("a line is printed")
}

/// What is read fits a status, and another reader reads the same.
fn shown(line: &ProgressLine) {
    static STATUS: LazyLock<Value> = LazyLock::new(|| schema::of(&TrainingTask::crd(), "status/progress"));
    assert!(line.step <= MAX_STEPS && line.steps <= MAX_STEPS && line.metrics.len() <= MAX_METRICS);
    assert_eq!(line.clone().bounded(), *line, "what was read needs no bounds");
    let printed = serde_json::to_string(line).expect("a line is printed");
    let again = progress::parse(&printed).expect("what was printed is read");
    assert_eq!((again.step, again.steps, &again.at), (line.step, line.steps, &line.at));
    assert_eq!(again.metrics.len(), line.metrics.len());
    let progress = serde_json::to_value(status::progress(line)).expect("a status is printed");
    let refused = schema::refusal(&STATUS, &progress);
    assert_eq!(refused, None, "a status is refused");
}

/// What a gateway says is cut down to what a status takes.
pub fn report(data: &[u8]) {
    static STATUS: LazyLock<Value> = LazyLock::new(|| schema::of(&ComputeLease::crd(), "status"));
    let fits = |status: Value| {
        let refused = schema::refusal(&STATUS, &status);
        assert_eq!(refused, None, "a status is refused");
    };
    let checkpoint = |note: &CheckpointNote| json!({ "step": note.step, "sha256": note.sha256, "size": note.size });
    if let Some(report) = read::<LeaseReport>(data) {
        let report = report.bounded();
        report.progress.iter().for_each(shown);
        report.checkpoints.iter().for_each(resumable);
        fits(json!({
            "exit": report.exit, "checkpoint": report.checkpoints.last().map(checkpoint), "resultSha256": report.result,
            "progress": report.progress.as_ref().map(status::progress),
        }));
    }
    if let Some(report) = read::<WorkReport>(data) {
        let report = report.bounded();
        report.progress.iter().for_each(shown);
        report.checkpoints.iter().for_each(resumable);
    }
    if let Some(note) = read::<CheckpointNote>(data)
        && note.fits()
    {
        resumable(&note);
    }
    let _ = (read::<Event>(data), read::<Problem>(data));
}

fn read<T: DeserializeOwned + Serialize>(data: &[u8]) -> Option<T> {
    serde_json::from_slice(data).ok()
}

/// A checkpoint that is remembered can be the input of another attempt.
fn resumable(note: &CheckpointNote) {
    assert!(
        freehold_core::spec::is_file_name(&note.file_name),
        "`{}` would be refused in a manifest",
        note.file_name.escape_debug()
    );
}

/// A result that is read is printed in one way only; metrics are short decimals.
pub fn result(data: &[u8]) {
    if let Ok(file) = ResultFile::parse(data) {
        let printed = file.to_bytes().expect("a result is printed");
        assert_eq!(ResultFile::parse(&printed).ok(), Some(file), "what is printed is read");
    }
    for (name, value) in metrics_of(data) {
        assert!(name.len() <= 64 && value.len() <= 40);
        assert!(value.trim_start_matches('-').bytes().all(|b| b.is_ascii_digit() || b == b'.'), "{value}");
    }
}
