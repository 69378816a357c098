//! Whether a goal can be paid, once everything under way is paid for.

use freehold_core::money::Amount;

use super::{Entry, Facts, Ledger, Policy};

/// What is left to spend once everything under way is paid for.
pub struct Purse<'a> {
    facts: &'a Facts,
    policy: &'a Policy,
    tokens: Amount,
    fees: u128,
}

impl<'a> Purse<'a> {
    pub fn new(ledger: &Ledger, entries: &[Entry], facts: &'a Facts, policy: &'a Policy) -> Self {
        let unmined = |entry: &&Entry| {
            ledger.slot_of(&entry.name).is_some_and(|slot| slot.nonce >= facts.nonce_latest) && !entry.state.is_final()
        };
        let (mut tokens, mut fees) = (Amount::ZERO, 0u128);
        for entry in entries.iter().filter(unmined) {
            tokens = tokens.saturating_add(entry.cost);
            fees = fees.saturating_add(fee_of(entry, entry.max_fee.unwrap_or(facts.fee)));
        }
        Self { facts, policy, tokens, fees }
    }

    /// Sets aside what the goal costs, or says what is missing.
    pub fn take(&mut self, entry: &Entry) -> Result<(), (&'static str, String)> {
        let fees = self.fees.saturating_add(fee_of(entry, self.facts.fee));
        if fees > self.facts.gas {
            let (have, need) = (Amount(self.facts.gas).format(18), Amount(fees).format(18));
            return Err((
                "GasLow",
                format!("The account holds {have} of the chain's coin for fees, {need} may be needed. Send it some."),
            ));
        }
        if let Some(left) = self.policy.fees_left.filter(|left| fees > *left) {
            let (have, need) = (Amount(left).format(18), Amount(fees).format(18));
            return Err((
                "FeeCap",
                format!("spec.caps.fees leaves {have} in this period, {need} may be needed. Raise it, or wait."),
            ));
        }
        if entry.cost > Amount::ZERO {
            self.take_tokens(entry.cost)?;
        }
        self.fees = fees;
        Ok(())
    }

    fn take_tokens(&mut self, cost: Amount) -> Result<(), (&'static str, String)> {
        let whole = |amount: Amount| amount.format(self.policy.decimals);
        let need = self.tokens.saturating_add(cost);
        let have = self.facts.free.saturating_add(self.facts.wallet);
        if need > have {
            let message = format!(
                "The account holds {} tokens (wallet and Market), {} are needed. Send it the difference.",
                whole(have),
                whole(need)
            );
            return Err(("InsufficientBalance", message));
        }
        if let Some(left) = self.policy.tokens_left.filter(|left| need > *left) {
            let message = format!(
                "spec.caps.tokens leaves {} in this period, {} are needed. Raise it, or wait.",
                whole(left),
                whole(need)
            );
            return Err(("TokenCap", message));
        }
        if need > self.facts.free.saturating_add(self.facts.allowance) {
            return Err((
                "Waiting",
                format!(
                    "The Market may draw {} tokens, {} are needed; an approval is on its way.",
                    whole(self.facts.allowance),
                    whole(need)
                ),
            ));
        }
        self.tokens = need;
        Ok(())
    }
}

fn fee_of(entry: &Entry, fee: u128) -> u128 {
    fee.saturating_mul(u128::from(entry.gas))
}
