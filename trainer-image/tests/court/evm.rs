//! An EVM that holds the contract.

use alloy_primitives::{Address, Bytes, hex};
use alloy_sol_types::{SolCall, SolInterface, sol};
use revm::context::TxEnv;
use revm::context_interface::result::ExecutionResult;
use revm::database::InMemoryDB;
use revm::handler::{MainnetContext, MainnetEvm};
use revm::primitives::TxKind;
use revm::state::{AccountInfo, Bytecode};
use revm::{Context, ExecuteEvm, MainBuilder, MainContext};

sol! {
    #[derive(Debug, PartialEq, Eq)]
    LeafCourt,
    "../contracts/abi/LeafCourt.json"
}

const CODE: &str = include_str!("../../../contracts/abi/LeafCourt.bin");
const AT: Address = Address::repeat_byte(0xC0);

pub(crate) type Question = LeafCourt::judgeCall;

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Found(bool),
    Refused(String),
}

pub(crate) struct Court {
    evm: MainnetEvm<MainnetContext<InMemoryDB>>,
}

impl Court {
    pub(crate) fn new() -> Self {
        let code = hex::decode(CODE.trim()).expect("the contract's code in hexadecimal");
        let mut chain = InMemoryDB::default();
        chain.insert_account_info(AT, AccountInfo::from_bytecode(Bytecode::new_raw(code.into())));
        let context = Context::mainnet().with_db(chain);
        let evm = context.modify_cfg_chained(|cfg| cfg.disable_nonce_check = true).build_mainnet();
        Self { evm }
    }

    /// What the contract says, and the gas of the transaction.
    pub(crate) fn judge(&mut self, question: &Question) -> (Verdict, u64) {
        let data = Bytes::from(question.abi_encode());
        let transaction = TxEnv::builder().kind(TxKind::Call(AT)).gas_limit(16_000_000).data(data).build();
        let result = self.evm.transact(transaction.expect("a transaction")).expect("an execution").result;
        let gas = result.tx_gas_used();
        match result {
            ExecutionResult::Success { output, .. } => {
                let right = Question::abi_decode_returns(output.data()).expect("a boolean");
                (Verdict::Found(right), gas)
            }
            ExecutionResult::Revert { output, .. } => {
                let error = LeafCourt::LeafCourtErrors::abi_decode(&output);
                (Verdict::Refused(error.map_or_else(|_| output.to_string(), |error| format!("{error:?}"))), gas)
            }
            ExecutionResult::Halt { reason, .. } => (Verdict::Refused(format!("{reason:?}")), gas),
        }
    }
}
