//! Turns a spec, and what was found behind its references, into values that
//! cannot be wrong. Every refusal is a condition with a remedy: a user error
//! waits for a change, it never loops.

use std::collections::BTreeMap;

use freehold_api::conditions::{Claim, types};
use freehold_api::recipe::Recipe;
use freehold_api::task::{Class, OutputFormat, Resources, Source};
use freehold_core::money::{Amount, Rate, mul_div};
use freehold_core::spec::{MAX_ASKED, SpecGpu, SpecRequirements, SpecResources};
use freehold_core::{Address, units};

use super::kind::{TaskSpecView, Workload};
use super::reasons::valid;

/// Shortest time that a lease is worth placing an order for.
pub const LEAST_LEASE_SECONDS: u64 = 60;
/// Shortest time that an order is funded for at once, as the API server wants it too.
const LEAST_SLICE_SECONDS: u64 = 300;
/// No GPU has more memory; asking for it can only wait in vain.
const MOST_GPU_MEMORY: u64 = 1 << 40;
const DEFAULT_HOLDBACK_BPS: u16 = 2000;
const MAX_HOLDBACK_BPS: u16 = 5000;

/// What the chain and the account say that bears on a task's terms.
#[derive(Clone, Debug, PartialEq)]
pub struct ChainFacts {
    pub decimals: u8,
    pub bid_window: u64,
    pub start_window: u64,
    pub review_window: u64,
    /// Plain http is possible (development clusters allow private addresses).
    pub allows_http: bool,
}

/// Money and time, parsed.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    pub max_rate: Rate,
    /// The same in an hour, as it was written.
    pub max_hourly: Amount,
    pub budget: Amount,
    /// Seconds that an order is funded for at a time; all of its time where it is not topped up.
    pub slice: Option<u64>,
    pub holdback_bps: u16,
    pub bid_window: u64,
    pub start_window: u64,
    pub review_window: u64,
    pub active_deadline: u64,
    pub ttl: Option<u64>,
    pub providers: Filter,
}

impl Limits {
    /// What `seconds` cost at the highest rate.
    pub fn at_most(&self, seconds: u64) -> Amount {
        Amount(mul_div(self.max_hourly.0, u128::from(seconds), 3600))
    }

    /// What the shortest lease costs at the highest rate.
    pub fn least(&self) -> Amount {
        self.at_most(LEAST_LEASE_SECONDS).max(Amount(1))
    }
}

/// Which providers will do.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Filter {
    pub attributes: BTreeMap<String, String>,
    pub any_auditor: Vec<Address>,
    pub all_auditors: Vec<Address>,
    pub addresses: Vec<Address>,
}

/// What was found behind a reference to bytes.
#[derive(Clone, Debug, PartialEq)]
pub enum Found {
    /// In the tenant's store by now.
    Held {
        sha256: String,
        size: u64,
    },
    /// For the provider's gateway to fetch.
    Remote,
    Missing(String),
    /// Not there yet.
    Waiting(String),
    /// Never to come.
    Failed(String),
}

#[derive(Clone, Debug, PartialEq)]
pub struct Input {
    pub name: &'static str,
    pub sha256: String,
    /// Bytes; 0 where unknown.
    pub size: u64,
    pub file_name: String,
    pub uri: Option<String>,
}

/// The work of a task, resolved: all that a manifest needs beside ids.
#[derive(Clone, Debug, PartialEq)]
pub struct Work {
    pub image: String,
    pub args: Vec<String>,
    pub recipe: Option<Recipe>,
    pub output: Option<OutputFormat>,
    pub resources: SpecResources,
    pub require: SpecRequirements,
    pub inputs: Vec<Input>,
}

fn invalid(message: impl Into<String>) -> Claim {
    Claim::no(types::VALID, valid::INVALID_SPEC, message)
}

/// Money and time of the task; independent of its inputs.
pub fn limits(spec: &TaskSpecView, chain: &ChainFacts) -> Result<Limits, Claim> {
    match spec.class {
        Class::None => {}
    }
    let market = &spec.market;
    let amount = |field: &str, text: &str| {
        Amount::parse(text, chain.decimals).map_err(|e| invalid(format!("market.{field}: {e}.")))
    };
    let rate_text = market.max_rate_per_hour.as_ref().map(|t| t.as_str()).unwrap_or_default();
    let hourly = amount("maxRatePerHour", rate_text)?;
    let budget = amount("budget", market.budget.as_str())?;
    let max_rate = Rate::per_hour(hourly);
    if max_rate.0 == 0 {
        return Err(invalid("market.maxRatePerHour is 0: no provider works for nothing; raise it."));
    }
    let window = |field: &str, asked: Option<&str>, default: u64| match asked {
        None => Ok(default),
        Some(text) => match units::seconds(text).filter(|s| *s > 0) {
            Some(seconds) => Ok(seconds),
            None => Err(invalid(format!("market.{field} `{text}` is no positive duration; write one such as 5m."))),
        },
    };
    let bid_window = window("bidWindow", market.bid_window.as_ref().map(|d| d.as_str()), chain.bid_window)?;
    let start_window = window("startWindow", market.start_window.as_ref().map(|d| d.as_str()), chain.start_window)?;
    let review_window = window("reviewWindow", market.review_window.as_ref().map(|d| d.as_str()), chain.review_window)?;
    at_least("bidWindow", bid_window, chain.bid_window)?;
    at_least("startWindow", start_window, chain.start_window)?;
    at_least("reviewWindow", review_window, chain.review_window)?;
    let ttl = match &spec.ttl_after_finished {
        None => None,
        Some(text) => Some(
            units::seconds(text)
                .ok_or_else(|| invalid(format!("ttlAfterFinished `{text}` is no duration; write one such as 24h.")))?,
        ),
    };
    let limits = Limits {
        max_rate,
        max_hourly: hourly,
        budget,
        slice: market.top_up.as_ref().map(|top_up| slice(top_up.slice.as_str())).transpose()?,
        holdback_bps: holdback(market.holdback.as_ref().map(|p| p.as_str()))?,
        bid_window,
        start_window,
        review_window,
        active_deadline: deadline(&spec.active_deadline, bid_window)?,
        ttl,
        providers: filter(spec)?,
    };
    let least = limits.least();
    if limits.budget < least {
        return Err(invalid(format!(
            "market.budget {} pays for {} s at market.maxRatePerHour {rate_text}; the shortest lease is {LEAST_LEASE_SECONDS} s. Raise the budget to at least {}.",
            market.budget,
            max_rate.seconds_until(limits.budget),
            least.format(chain.decimals),
        )));
    }
    Ok(limits)
}

/// Windows below the chain's profile would be refused by the contract, or leave no time to act.
fn at_least(field: &str, asked: u64, profile: u64) -> Result<(), Claim> {
    if asked >= profile {
        return Ok(());
    }
    Err(invalid(format!(
        "market.{field} {} is shorter than the account's {}; leave it out or raise it.",
        units::go_duration(asked),
        units::go_duration(profile)
    )))
}

fn holdback(asked: Option<&str>) -> Result<u16, Claim> {
    let Some(text) = asked else { return Ok(DEFAULT_HOLDBACK_BPS) };
    let percent: u16 = text
        .trim_end_matches('%')
        .parse()
        .map_err(|_| invalid(format!("market.holdback `{text}` is no percentage such as 20%.")))?;
    let bps = percent.saturating_mul(100);
    if bps > MAX_HOLDBACK_BPS {
        return Err(invalid(format!("market.holdback {text} is above 50%, the most that the market takes; lower it.")));
    }
    Ok(bps)
}

fn deadline(text: &str, bid_window: u64) -> Result<u64, Claim> {
    let seconds = units::seconds(text).unwrap_or(0);
    let least = bid_window + LEAST_LEASE_SECONDS;
    if seconds < least {
        return Err(invalid(format!(
            "activeDeadline `{text}` leaves no time to lease: bids are open for {}; set at least {}.",
            units::go_duration(bid_window),
            units::go_duration(least)
        )));
    }
    Ok(seconds)
}

fn slice(text: &str) -> Result<u64, Claim> {
    let refusal =
        || invalid(format!("market.topUp.slice `{text}` is no duration of at least 5m; write one such as 1h."));
    units::seconds(text).filter(|seconds| *seconds >= LEAST_SLICE_SECONDS).ok_or_else(refusal)
}

fn filter(spec: &TaskSpecView) -> Result<Filter, Claim> {
    let Some(asked) = &spec.market.providers else { return Ok(Filter::default()) };
    let addresses = |field: &str, texts: &[freehold_api::scalars::EvmAddress]| {
        texts
            .iter()
            .map(|t| {
                t.as_str()
                    .parse::<Address>()
                    .map_err(|_| invalid(format!("market.providers.{field}: `{t}` is no address.")))
            })
            .collect::<Result<Vec<_>, _>>()
    };
    let audited = asked.audited_by.clone().unwrap_or_default();
    Ok(Filter {
        attributes: asked.attributes.clone(),
        any_auditor: addresses("auditedBy.anyOf", &audited.any_of)?,
        all_auditors: addresses("auditedBy.allOf", &audited.all_of)?,
        addresses: addresses("addresses", &asked.addresses)?,
    })
}

/// The work, given what was found behind `dataset`/`input` and the model.
pub fn work(
    spec: &TaskSpecView,
    chain: &ChainFacts,
    trainer_image: &str,
    data: &Found,
    model: Option<&Found>,
) -> Result<Work, Claim> {
    let resources = resources(&spec.resources)?;
    let (data_name, source) = &spec.data;
    let mut inputs = vec![data_input(data_name, source, data, chain)?];
    if let (Some((name, _)), Some(found)) = (&spec.model, model) {
        inputs.push(model_input(name, found)?);
    }
    let (image, args, recipe) = match &spec.workload {
        Workload::Recipe(recipe) => (trainer_image.to_owned(), vec!["train".to_owned()], Some((**recipe).clone())),
        Workload::Infer => (trainer_image.to_owned(), vec!["infer".to_owned()], None),
        Workload::Image { image, args } => (image.clone(), args.clone(), None),
    };
    let require = SpecRequirements {
        attributes: spec.market.providers.as_ref().map(|p| p.attributes.clone()).unwrap_or_default(),
        accept_shared_kernel: spec.isolation.accept_shared_kernel,
        runtime_class: spec.isolation.runtime_class_name.as_ref().map(|n| n.0.clone()),
    };
    Ok(Work { image, args, recipe, output: spec.output, resources, require, inputs })
}

fn predictions(format: OutputFormat) -> &'static str {
    match format {
        OutputFormat::Csv => "predictions.csv",
        OutputFormat::Npy => "predictions.npy",
        OutputFormat::Jsonl => "predictions.jsonl",
    }
}

fn resources(asked: &Resources) -> Result<SpecResources, Claim> {
    // Beyond, no provider would take the order.
    let bytes = |field: &str, text: &str| match units::units(text) {
        Some(n) if n > MAX_ASKED => {
            Err(invalid(format!("resources.{field} `{text}` is more than anybody has: ask for at most 10^15 bytes.")))
        }
        Some(n) if n > 0 => Ok(n),
        _ => Err(invalid(format!("resources.{field} `{text}` is no positive quantity such as 4Gi."))),
    };
    let cpu = asked.cpu.as_str();
    let cpu_millis = units::millis(cpu)
        .and_then(|m| u64::try_from(m).ok())
        .filter(|m| (1..=MAX_ASKED).contains(m))
        .ok_or_else(|| invalid(format!("resources.cpu `{cpu}` is no possible quantity such as 2 or 500m.")))?;
    let gpu = match &asked.gpu {
        None => None,
        Some(gpu) => {
            let memory = match &gpu.memory {
                None => 0,
                Some(text) => bytes("gpu.memory", text.as_str())?,
            };
            possible(gpu.count, memory, gpu.mig_profile.as_deref())?;
            Some(SpecGpu { count: gpu.count, models: gpu.models.clone(), memory, mig_profile: gpu.mig_profile.clone() })
        }
    };
    Ok(SpecResources {
        cpu_millis,
        memory: bytes("memory", asked.memory.as_str())?,
        disk: bytes("disk", asked.disk.as_str())?,
        gpu,
    })
}

/// Refuses what no device of any maker can be.
fn possible(count: u32, memory: u64, mig: Option<&str>) -> Result<(), Claim> {
    if memory > MOST_GPU_MEMORY {
        return Err(invalid(format!(
            "resources.gpu.memory asks for {} GiB on one device; no GPU has more than {} GiB. Ask for less, or for more devices.",
            memory >> 30,
            MOST_GPU_MEMORY >> 30
        )));
    }
    let Some(profile) = mig else { return Ok(()) };
    let slices: u64 = profile.split('g').next().and_then(|s| s.parse().ok()).unwrap_or(1);
    let slice_memory: u64 =
        profile.split('.').nth(1).and_then(|rest| rest.split('g').next()).and_then(|s| s.parse().ok()).unwrap_or(0);
    if memory > slice_memory << 30 {
        return Err(invalid(format!(
            "resources.gpu.memory asks for {} GiB, a {profile} slice has {slice_memory} GiB. Ask for a larger migProfile or less memory.",
            memory >> 30
        )));
    }
    // A device splits into seven slices, and all devices of a lease are on one node of at most sixteen.
    if slices * u64::from(count) > 7 * 16 {
        return Err(invalid(format!("{count} slices of {profile} do not fit any node. Ask for fewer.")));
    }
    Ok(())
}

fn data_input(name: &'static str, source: &Source, found: &Found, chain: &ChainFacts) -> Result<Input, Claim> {
    let file_name = file_name(source).ok_or_else(|| {
        invalid(format!("{name}.fileName is needed to tell the format of the bytes; set one such as digits.csv.gz."))
    })?;
    let input = |sha256: &str, size: u64, uri: Option<String>| Input {
        name,
        sha256: sha256.to_owned(),
        size,
        file_name: file_name.clone(),
        uri,
    };
    match found {
        Found::Held { sha256, size } => {
            if let Some(stated) = source.sha256.as_ref().filter(|s| s.as_str() != sha256) {
                return Err(Claim::no(
                    types::VALID,
                    valid::DIGEST_MISMATCH,
                    format!(
                        "{name}.sha256 says {stated}, the bytes of {} have {sha256}. Correct the digest, or the bytes.",
                        describe(source)
                    ),
                ));
            }
            Ok(input(sha256, *size, None))
        }
        Found::Remote => {
            let uri = source.uri.as_ref().map(|u| u.as_str()).unwrap_or_default();
            if uri.starts_with("http://") && !chain.allows_http {
                return Err(invalid(format!(
                    "{name}.uri `{uri}` is plain http, which gateways refuse. Serve the file over https."
                )));
            }
            let sha256 = source.sha256.as_ref().map(|s| s.as_str()).unwrap_or_default();
            Ok(input(sha256, 0, Some(uri.to_owned())))
        }
        Found::Missing(what) | Found::Failed(what) => {
            Err(Claim::no(types::VALID, valid::INPUT_NOT_FOUND, format!("{name}: {what}")))
        }
        Found::Waiting(what) => Err(Claim::unknown(types::VALID, valid::INPUT_NOT_FOUND, format!("{name}: {what}"))),
    }
}

fn describe(source: &Source) -> String {
    match (&source.config_map_ref, &source.artifact) {
        (Some(key), _) => format!("key `{}` of ConfigMap `{}`", key.key, key.name),
        (None, Some(_)) => "the artifact".into(),
        (None, None) => "the uri".into(),
    }
}

fn model_input(name: &'static str, found: &Found) -> Result<Input, Claim> {
    match found {
        Found::Held { sha256, size } => {
            Ok(Input { name, sha256: sha256.clone(), size: *size, file_name: "model.safetensors".into(), uri: None })
        }
        Found::Remote => Err(invalid(format!("{name} cannot be fetched by uri."))),
        Found::Missing(what) => Err(Claim::no(types::VALID, valid::INPUT_NOT_FOUND, format!("{name}: {what}"))),
        Found::Waiting(what) => Err(Claim::unknown(types::VALID, valid::WAITING_FOR_MODEL, what.clone())),
        Found::Failed(what) => Err(Claim::no(types::VALID, valid::MODEL_FAILED, what.clone())),
    }
}

/// What was asked for, else the last part of key or address, if it is a plain name.
fn file_name(source: &Source) -> Option<String> {
    let from_uri = || {
        let uri = source.uri.as_ref()?.as_str();
        let path = uri.split(['?', '#']).next()?;
        path.split("://").nth(1)?.split_once('/')?.1.rsplit('/').next().map(str::to_owned)
    };
    let name = source
        .file_name
        .clone()
        .or_else(|| source.config_map_ref.as_ref().map(|key| key.key.clone()))
        .or_else(from_uri)?;
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let starts = name.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    (starts && name.len() <= 128 && name.bytes().all(plain)).then_some(name)
}

/// A file that the result must hold, if it is known.
pub fn expected_output(spec: &TaskSpecView) -> Option<&'static str> {
    match &spec.workload {
        Workload::Recipe(_) => Some("model.safetensors"),
        Workload::Infer => spec.output.map(predictions),
        Workload::Image { .. } => None,
    }
}
