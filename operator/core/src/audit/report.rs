//! What an audit says, in a form that people and programs read: every number a decimal string.

use serde::Serialize;

use crate::order::Terms;

/// Sums of one order, in the token's smallest unit (decimal strings, since JSON numbers are not exact).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// By the tenant, top-ups included.
    pub funded: String,
    /// Locked by the provider of the lease.
    pub bond: String,
    /// Kept by the provider for work, penalties of the tenant included; its bond not.
    pub paid: String,
    /// Back to the tenant, the provider's penalty included.
    pub refunded: String,
    pub burned: String,
    /// What the provider lost of its bond.
    pub bond_lost: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    pub event: String,
    pub block: u64,
    /// RFC 3339.
    pub time: String,
    pub transaction: String,
    /// What moved, in a few words of integers.
    pub money: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub order_id: String,
    pub state: String,
    pub tenant: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    pub token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_hash: Option<String>,
    pub terms: TermsReport,
    /// The order's spec, as the tenant published it.
    pub spec: serde_json::Value,
    pub transitions: Vec<Transition>,
    pub totals: Totals,
    /// Empty when everything holds.
    pub findings: Vec<String>,
}

/// The terms with every number as a decimal string, since JSON numbers are not exact.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TermsReport {
    pub token: String,
    pub max_price: String,
    pub audit_reserve: String,
    pub bond: String,
    pub no_show_penalty: String,
    /// Unix seconds.
    pub bid_by: String,
    /// Seconds.
    pub start_window: String,
    /// Seconds.
    pub duration: String,
    /// Seconds.
    pub window: String,
    pub holdback_bps: String,
    pub class: String,
    pub spec_hash: String,
    pub rules_hash: String,
    pub origin: String,
}

impl From<&Terms> for TermsReport {
    fn from(terms: &Terms) -> Self {
        Self {
            token: terms.token.to_string(),
            max_price: terms.maxPrice.to_string(),
            audit_reserve: terms.auditReserve.to_string(),
            bond: terms.bond.to_string(),
            no_show_penalty: terms.noShowPenalty.to_string(),
            bid_by: terms.bidBy.to_string(),
            start_window: terms.startWindow.to_string(),
            duration: terms.duration.to_string(),
            window: terms.window.to_string(),
            holdback_bps: terms.holdbackBps.to_string(),
            class: terms.class.to_string(),
            spec_hash: terms.specHash.to_string(),
            rules_hash: terms.rulesHash.to_string(),
            origin: terms.origin.to_string(),
        }
    }
}
