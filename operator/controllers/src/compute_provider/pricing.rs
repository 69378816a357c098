//! What work costs. A table, and an expression for what a table cannot say.
//! Prices are whole nano-tokens an hour until the last step. Pure.

use cel::common::ast::{EntryExpr, Expr};
use cel::{Context, Program, Value};
use freehold_api::provider::Pricing;
use freehold_core::money::{Amount, RATE_SCALE, Rate, mul_div};
use freehold_core::spec::SpecResources;
use freehold_core::units::glob;

/// Decimals of the table's amounts, and so of everything computed here.
const NANO_DECIMALS: u8 = 9;
const GIB: u128 = 1 << 30;
/// What an expression may read (documented in the kind).
const VARIABLES: [&str; 6] = ["rate", "gpus", "model", "class", "duration", "tenant"];

#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("spec.pricing.{field}: {source}")]
    Amount { field: String, source: freehold_core::money::Error },
    #[error("spec.pricing.expression does not compile: {0}")]
    Syntax(String),
    #[error("spec.pricing.expression reads `{0}`; it may read rate, gpus, model, class, duration and tenant")]
    Unknown(String),
    #[error(
        "spec.pricing.expression uses a loop (all, exists, map, filter); write it without, so that it always ends soon"
    )]
    Loop,
    #[error("spec.pricing.expression failed: {0}")]
    Failed(String),
    #[error("spec.pricing.expression yielded {0}; it has to yield a whole number of nano-tokens an hour")]
    NotAnInteger(String),
    #[error("spec.pricing.gpu has no price for `{0}`; add it, or `*` for all others")]
    NoPrice(String),
    #[error("spec.pricing.expression wants no bid on this order")]
    Declined,
}

/// A parsed price list.
#[derive(Debug)]
pub struct PriceList {
    /// By pattern, the most specific first.
    gpu: Vec<(String, u128)>,
    cpu: u128,
    memory: u128,
    disk: u128,
    minimum: u128,
    expression: Option<Program>,
}

/// What is priced.
#[derive(Clone, Debug)]
pub struct Priced<'a> {
    pub resources: &'a SpecResources,
    /// Product name of the GPUs that it would get.
    pub model: Option<&'a str>,
    pub class: &'a str,
    /// Longest that the lease may take, in seconds.
    pub duration: u64,
    pub tenant: String,
}

impl PriceList {
    pub fn parse(pricing: &Pricing) -> Result<Self, Error> {
        let mut gpu = pricing
            .gpu
            .iter()
            .map(|(model, price)| Ok((model.clone(), nano(&format!("gpu[{model}]"), price.as_str())?)))
            .collect::<Result<Vec<_>, Error>>()?;
        gpu.sort_by_key(|(pattern, _)| (pattern.contains('*'), std::cmp::Reverse(pattern.len()), pattern.clone()));
        Ok(Self {
            gpu,
            cpu: nano("cpu", pricing.cpu.0.as_str())?,
            memory: nano("memory", pricing.memory.0.as_str())?,
            disk: nano("disk", pricing.disk.0.as_str())?,
            minimum: nano("minimum", pricing.minimum.0.as_str())?,
            expression: pricing.expression.as_deref().map(compile).transpose()?,
        })
    }

    /// Nano-tokens an hour; never below the minimum.
    pub fn nano_per_hour(&self, work: &Priced<'_>) -> Result<u128, Error> {
        let table = self.table(work)?.max(self.minimum);
        let Some(program) = &self.expression else { return Ok(table) };
        let wanted = evaluate(program, table, work)?;
        u128::try_from(wanted).map(|wanted| wanted.max(self.minimum)).map_err(|_| Error::Declined)
    }

    fn table(&self, work: &Priced<'_>) -> Result<u128, Error> {
        let resources = work.resources;
        let gpus = match (&resources.gpu, work.model) {
            (Some(gpu), model) => self.gpu_price(model.unwrap_or_default())?.saturating_mul(u128::from(gpu.count)),
            (None, _) => 0,
        };
        let parts = [
            gpus,
            mul_div(self.cpu, u128::from(resources.cpu_millis), 1000),
            mul_div(self.memory, u128::from(resources.memory), GIB),
            mul_div(self.disk, u128::from(resources.disk), GIB),
        ];
        Ok(parts.into_iter().fold(0, u128::saturating_add))
    }

    fn gpu_price(&self, model: &str) -> Result<u128, Error> {
        let matching = self.gpu.iter().find(|(pattern, _)| glob(pattern, model));
        matching.map(|(_, price)| *price).ok_or_else(|| Error::NoPrice(model.to_owned()))
    }
}

/// What the chain holds: smallest units a second, times 10^12; floored, as the tenant's limit is.
pub fn rate(nano_per_hour: u128, decimals: u8) -> Rate {
    let scale = |digits: u8| 10u128.saturating_pow(u32::from(digits));
    if decimals <= NANO_DECIMALS {
        return Rate(mul_div(nano_per_hour, RATE_SCALE, 3600 * scale(NANO_DECIMALS - decimals)));
    }
    Rate(mul_div(nano_per_hour, RATE_SCALE.saturating_mul(scale(decimals - NANO_DECIMALS)), 3600))
}

fn nano(field: &str, text: &str) -> Result<u128, Error> {
    let amount = Amount::parse(text, NANO_DECIMALS);
    amount.map(|amount| amount.0).map_err(|source| Error::Amount { field: field.to_owned(), source })
}

fn compile(source: &str) -> Result<Program, Error> {
    let program = Program::compile(source).map_err(|error| Error::Syntax(error.to_string()))?;
    if has_loop(&program.expression().expr) {
        return Err(Error::Loop);
    }
    let references = program.references();
    if let Some(unknown) = references.variables().into_iter().find(|name| !VARIABLES.contains(name)) {
        return Err(Error::Unknown(unknown.to_owned()));
    }
    Ok(program)
}

/// Without comprehensions an expression takes time linear in its length.
fn has_loop(expr: &Expr) -> bool {
    match expr {
        Expr::Comprehension(_) => true,
        Expr::Call(call) => {
            call.target.as_ref().is_some_and(|target| has_loop(&target.expr))
                || call.args.iter().any(|arg| has_loop(&arg.expr))
        }
        Expr::List(list) => list.elements.iter().any(|element| has_loop(&element.expr)),
        Expr::Map(map) => map.entries.iter().any(|entry| entry_has_loop(&entry.expr)),
        Expr::Struct(made) => made.entries.iter().any(|entry| entry_has_loop(&entry.expr)),
        Expr::Select(select) => has_loop(&select.operand.expr),
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => false,
    }
}

fn entry_has_loop(entry: &EntryExpr) -> bool {
    match entry {
        EntryExpr::StructField(field) => has_loop(&field.value.expr),
        EntryExpr::MapEntry(entry) => has_loop(&entry.key.expr) || has_loop(&entry.value.expr),
    }
}

fn evaluate(program: &Program, table: u128, work: &Priced<'_>) -> Result<i128, Error> {
    let too_large = |_| Error::Failed("the rate does not fit 63 bits".to_owned());
    let mut context = Context::default();
    context.add_variable_from_value("rate", i64::try_from(table).map_err(too_large)?);
    let gpus = work.resources.gpu.as_ref().map_or(0, |gpu| gpu.count);
    context.add_variable_from_value("gpus", i64::from(gpus));
    context.add_variable_from_value("model", work.model.unwrap_or_default().to_owned());
    context.add_variable_from_value("class", work.class.to_owned());
    context.add_variable_from_value("duration", i64::try_from(work.duration).unwrap_or(i64::MAX));
    context.add_variable_from_value("tenant", work.tenant.clone());
    match program.execute(&context).map_err(|error| Error::Failed(error.to_string()))? {
        Value::Int(rate) => Ok(i128::from(rate)),
        Value::UInt(rate) => Ok(i128::from(rate)),
        other => Err(Error::NotAnInteger(format!("{other:?}"))),
    }
}

#[cfg(test)]
#[path = "tests/pricing.rs"]
mod tests;
