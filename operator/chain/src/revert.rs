//! Reverts as sentences, and whether waiting can help.

use alloy::sol;
use alloy::sol_types::SolInterface;

use crate::bindings::market::Market::MarketErrors as E;
use crate::bindings::registry::ProviderRegistry::ProviderRegistryErrors as R;

sol! {
    /// What Solidity itself, OpenZeppelin's and Solady's tokens revert with.
    #[derive(Debug)]
    interface Common {
        error Error(string reason);
        error Panic(uint256 code);
        error ERC20InsufficientBalance(address sender, uint256 balance, uint256 needed);
        error ERC20InsufficientAllowance(address spender, uint256 allowance, uint256 needed);
        error InsufficientBalance();
        error InsufficientAllowance();
    }
}

/// What to do about a revert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The same call can succeed later, or the view of the chain will say that it never can.
    Later,
    /// Tokens or allowance are short.
    Money,
    /// The same call will never succeed, and no view would tell.
    Never,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revert {
    pub class: Class,
    /// Name of the error and a sentence.
    pub sentence: String,
}

impl Revert {
    fn new(class: Class, sentence: impl Into<String>) -> Self {
        Self { class, sentence: sentence.into() }
    }
}

/// Longest reason of a contract's own that is told.
const LONGEST: usize = 256;

/// Reads revert data.
pub fn explain(data: &[u8]) -> Revert {
    if let Ok(error) = E::abi_decode(data) {
        return market(error);
    }
    if let Ok(error) = R::abi_decode(data) {
        return Revert::new(Class::Never, registry(error));
    }
    match Common::CommonErrors::abi_decode(data) {
        Ok(Common::CommonErrors::Error(error)) => Revert::new(
            Class::Later,
            format!("the contract refused: {}", error.reason.chars().take(LONGEST).collect::<String>()),
        ),
        Ok(Common::CommonErrors::Panic(panic)) => {
            Revert::new(Class::Never, format!("the contract panicked with code {}", panic.code))
        }
        Ok(Common::CommonErrors::ERC20InsufficientBalance(e)) => {
            Revert::new(Class::Money, format!("the wallet holds {} of the token, {} are needed", e.balance, e.needed))
        }
        Ok(Common::CommonErrors::ERC20InsufficientAllowance(e)) => Revert::new(
            Class::Money,
            format!("the Market may draw {} of the token, {} are needed", e.allowance, e.needed),
        ),
        Ok(Common::CommonErrors::InsufficientBalance(_)) => {
            Revert::new(Class::Money, "the wallet holds too little of the token")
        }
        Ok(Common::CommonErrors::InsufficientAllowance(_)) => {
            Revert::new(Class::Money, "the Market's allowance is too low")
        }
        Err(_) if data.is_empty() => Revert::new(Class::Later, "the call reverted without a reason"),
        Err(_) => Revert::new(
            Class::Later,
            format!("the call reverted with unknown data 0x{}", hex::encode(&data[..data.len().min(68)])),
        ),
    }
}

fn market(error: E) -> Revert {
    use Class::{Later, Money, Never};
    match error {
        E::Market_FreeTooLow(e) => {
            Revert::new(Money, format!("Market_FreeTooLow: {} are free in the ledger, {} were asked", e.free, e.asked))
        }
        E::TransferFromFailed(_) => Revert::new(
            Money,
            "TransferFromFailed: the token did not let the Market draw; raise the wallet's balance or the allowance",
        ),
        E::TransferFailed(_) => Revert::new(Later, "TransferFailed: the token refused the transfer"),
        E::Market_TokenMoved(e) => Revert::new(
            Never,
            format!(
                "Market_TokenMoved: token {} moved {} where {} were asked; such tokens are not supported",
                e.token, e.moved, e.asked
            ),
        ),
        E::Market_TokenHasNoCode(e) => Revert::new(
            Never,
            format!("Market_TokenHasNoCode: there is no contract at {}; correct spec.token", e.token),
        ),
        E::Market_AmountZero(_) => Revert::new(Later, "Market_AmountZero: there is nothing to move"),
        E::Market_RecipientZero(_) => Revert::new(Never, "Market_RecipientZero: the recipient is the zero address"),
        E::Market_OrderExists(e) => Revert::new(Later, format!("Market_OrderExists: order {} stands already", e.id)),
        E::Market_WrongState(e) => {
            Revert::new(Later, format!("Market_WrongState: the order is {}", state_name(e.state)))
        }
        E::Market_TooEarly(e) => {
            Revert::new(Later, format!("Market_TooEarly: possible after {} (Unix time)", e.deadline))
        }
        E::Market_BidLive(e) => {
            Revert::new(Later, format!("Market_BidLive: the bid can win until {} (Unix time)", e.until))
        }
        E::Market_TooLate(e) => {
            Revert::new(Later, format!("Market_TooLate: the deadline was {} (Unix time)", e.deadline))
        }
        E::Market_BidExpired(e) => {
            Revert::new(Later, format!("Market_BidExpired: the bid was valid until {} (Unix time)", e.validUntil))
        }
        E::Market_BidUnknown(e) => {
            Revert::new(Later, format!("Market_BidUnknown: {} has no bid on the order", e.provider))
        }
        E::Market_BidChanged(e) => Revert::new(
            Later,
            format!("Market_BidChanged: the bid of {} is now {} until {}", e.provider, e.price, e.validUntil),
        ),
        E::Market_BidWon(e) => Revert::new(
            Later,
            format!("Market_BidWon: the bid of {} won; its bond stays until the lease settles", e.provider),
        ),
        E::Market_NotTenant(e) => {
            Revert::new(Later, format!("Market_NotTenant: {} is not the order's tenant", e.caller))
        }
        E::Market_NotProvider(e) => {
            Revert::new(Later, format!("Market_NotProvider: {} is not the lease's provider", e.caller))
        }
        E::Market_TermsMismatch(e) => {
            Revert::new(Later, format!("Market_TermsMismatch: the stored terms of order {} are others", e.id))
        }
        E::Market_BidByOutOfRange(e) => Revert::new(
            Never,
            format!(
                "Market_BidByOutOfRange: bids would end at {}, the chain asks for {} to {}; lengthen spec.chain.windows.bids",
                e.bidBy, e.min, e.max
            ),
        ),
        E::Market_StartWindowOutOfRange(e) => Revert::new(
            Never,
            format!(
                "Market_StartWindowOutOfRange: {} s, the chain asks for {} to {}; change spec.chain.windows.start",
                e.startWindow, e.min, e.max
            ),
        ),
        E::Market_WindowOutOfRange(e) => Revert::new(
            Never,
            format!(
                "Market_WindowOutOfRange: {} s, the chain asks for {} to {}; change spec.chain.windows.review",
                e.window, e.min, e.max
            ),
        ),
        E::Market_DurationOutOfRange(e) => Revert::new(
            Never,
            format!(
                "Market_DurationOutOfRange: {} s, the chain asks for {} to {}; change the task's activeDeadline",
                e.duration, e.min, e.max
            ),
        ),
        E::Market_BondOutOfRange(e) => {
            Revert::new(Never, format!("Market_BondOutOfRange: {}, the chain asks for {} to {}", e.bond, e.min, e.max))
        }
        E::Market_HoldbackTooHigh(e) => {
            Revert::new(Never, format!("Market_HoldbackTooHigh: {} of 10000, at most {}", e.holdbackBps, e.max))
        }
        E::Market_SpecTooLong(e) => {
            Revert::new(Never, format!("Market_SpecTooLong: {} bytes, at most {}", e.length, e.max))
        }
        other => Revert::new(Never, format!("{other:?}")),
    }
}

fn registry(error: R) -> String {
    match error {
        R::ProviderRegistry_GatewayLength(e) => format!(
            "ProviderRegistry_GatewayLength: the gateway's address has {} characters, {} to {} are possible",
            e.length, e.min, e.max
        ),
        R::ProviderRegistry_AttributesTooLong(e) => format!(
            "ProviderRegistry_AttributesTooLong: the attributes have {} bytes, at most {} are possible",
            e.length, e.max
        ),
        R::ProviderRegistry_NotRegistered(e) => {
            format!("ProviderRegistry_NotRegistered: {} is not registered", e.provider)
        }
        other => format!("{other:?}"),
    }
}

fn state_name(state: u8) -> &'static str {
    freehold_core::order::OrderState::from_u8(state).map_or("in an unknown state", |state| state.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bindings::Market;
    use alloy::primitives::{Address, B256};
    use alloy::sol_types::SolError;

    #[test]
    fn a_custom_error_becomes_a_sentence() {
        let data = Market::Market_TokenHasNoCode { token: Address::repeat_byte(1) }.abi_encode();
        let revert = explain(&data);
        assert_eq!(revert.class, Class::Never);
        assert!(
            revert.sentence.starts_with("Market_TokenHasNoCode: there is no contract at 0x0101"),
            "{}",
            revert.sentence
        );
    }

    #[test]
    fn money_and_time_can_get_better() {
        let money = Market::TransferFromFailed {}.abi_encode();
        assert_eq!(explain(&money).class, Class::Money);
        let state = Market::Market_WrongState { id: B256::ZERO, state: 3 }.abi_encode();
        let state = explain(&state);
        assert_eq!((state.class, state.sentence.as_str()), (Class::Later, "Market_WrongState: the order is Running"));
    }

    #[test]
    fn strange_data_is_shown() {
        let long = Common::Error { reason: "x".repeat(5000) }.abi_encode();
        assert!(explain(&long).sentence.len() < 400, "a contract may give any reason");
        assert_eq!(explain(&[]).sentence, "the call reverted without a reason");
        assert!(explain(&[1, 2, 3, 4]).sentence.contains("0x01020304"));
    }
}
