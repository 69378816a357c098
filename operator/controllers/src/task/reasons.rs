//! Reasons of a task's conditions (design/cluster.md section 7), by condition.

pub mod valid {
    pub const VALID: &str = "Valid";
    pub const INVALID_SPEC: &str = "InvalidSpec";
    pub const ACCOUNT_NOT_FOUND: &str = "AccountNotFound";
    pub const INPUT_NOT_FOUND: &str = "InputNotFound";
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
    pub const WAITING_FOR_MODEL: &str = "WaitingForModel";
    pub const MODEL_FAILED: &str = "ModelFailed";
}

pub mod funded {
    pub const FUNDED: &str = "Funded";
    pub const PLACING: &str = "PlacingOrder";
    pub const RETRYING: &str = "Retrying";
    pub const NO_BUDGET: &str = "NoBudget";
    pub const BUDGET_EXCEEDED: &str = "BudgetExceeded";
    pub const INSUFFICIENT_BALANCE: &str = "InsufficientBalance";
    pub const GAS_LOW: &str = "GasLow";
    pub const SIGNER_REFUSED: &str = "SignerRefused";
    pub const ORDER_FAILED: &str = "OrderFailed";
    pub const ESCROW_EXHAUSTED: &str = "EscrowExhausted";
    pub const FOREIGN_ORDER: &str = "ForeignOrder";
    pub const ADOPTING: &str = "AdoptingOrder";
    pub const ADOPTION_REFUSED: &str = "AdoptionRefused";
}

pub mod leased {
    pub const LEASED: &str = "Leased";
    pub const WAITING_FOR_BIDS: &str = "WaitingForBids";
    pub const NO_BIDS: &str = "NoBids";
    pub const PRICE_TOO_HIGH: &str = "PriceTooHigh";
    pub const NO_MATCHING_PROVIDER: &str = "NoMatchingProvider";
    pub const NO_SHOW: &str = "NoShow";
    pub const DECLINED: &str = "Declined";
    pub const PROVIDER_CLOSED: &str = "ProviderClosed";
    pub const RESULT_REJECTED: &str = "ResultRejected";
    pub const CANCELLED: &str = "Cancelled";
    pub const ENDED: &str = "Ended";
}

pub mod running {
    pub const RUNNING: &str = "Running";
    pub const FINISHED: &str = "Finished";
    pub const HANDING_OVER: &str = "HandingOver";
    pub const STARTING: &str = "Starting";
    pub const PULLING_INPUTS: &str = "PullingInputs";
    pub const INPUT_UNAVAILABLE: &str = "InputUnavailable";
    pub const PROVIDER_UNREACHABLE: &str = "ProviderUnreachable";
    pub const STOPPED: &str = "Stopped";
}

pub mod result {
    pub const DELIVERED: &str = "Delivered";
    pub const UPLOAD_INCOMPLETE: &str = "UploadIncomplete";
    pub const DIGEST_MISMATCH: &str = "DigestMismatch";
}

pub mod verified {
    pub const ACCEPTED: &str = "Accepted";
    pub const WINDOW_OPEN: &str = "WindowOpen";
    pub const REJECTED: &str = "Rejected";
}

pub mod settled {
    pub const SETTLED: &str = "Settled";
    pub const REFUND_PENDING: &str = "RefundPending";
    pub const CONFIRMING: &str = "Confirming";
}

pub mod failed {
    pub const DEADLINE_EXCEEDED: &str = "DeadlineExceeded";
    pub const BACKOFF_LIMIT_EXCEEDED: &str = "BackoffLimitExceeded";
    pub const ESCROW_EXHAUSTED: &str = "EscrowExhausted";
    pub const RESULT_REJECTED: &str = "ResultRejected";
    pub const INPUT_UNAVAILABLE: &str = "InputUnavailable";
    pub const PROVIDER_CLOSED: &str = "ProviderClosed";
    pub const BAD_USAGE: &str = "BadUsage";
    pub const BAD_DATA: &str = "BadData";
    pub const DISK_EXCEEDED: &str = "DiskExceeded";
    pub const OUT_OF_MEMORY: &str = "OutOfMemory";
    /// A terminal exit whose reason is none of the known ones.
    pub const CRASHED: &str = "Crashed";
}

pub mod other {
    pub const COMPLETE: &str = "Complete";
    pub const SUSPENDED: &str = "Suspended";
    pub const SUSPENDING: &str = "Suspending";
    pub const CLOSING: &str = "ClosingLease";
    pub const WAIVED: &str = "VerdictWaived";
    pub const CHAIN_UNREACHABLE: &str = "ChainUnreachable";
    pub const GOAL_FAILED: &str = "TransactionFailed";
}
