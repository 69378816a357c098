//! What a pass over a lease knows: seen on the chain, in the cluster and at the gateway.

use std::collections::BTreeMap;

use freehold_api::Goal;
use freehold_api::lease::{Exit, LeasePhase};
use freehold_api::scalars::Bytes32;
use freehold_api::transaction::TransactionState;
use freehold_core::B256;
use freehold_core::order::OrderState;

use super::devices::Devices;
use super::exit::{JobEnd, Stop, TrainerEnd};
use super::plan::Effect;

/// What the chain says of the order, as far as this lease goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chain {
    /// Unknown, open, or leased to someone else: a reorganisation took it away, or has not given it yet.
    NotOurs,
    Awaiting {
        start_by: u64,
    },
    Running {
        end_at: u64,
    },
    Delivered {
        review_by: u64,
        result: B256,
    },
    Settled(OrderState),
}

impl Chain {
    pub fn is_over(self) -> bool {
        matches!(self, Self::NotOurs | Self::Settled(_))
    }
}

/// Manifest and inputs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Handover {
    /// The gateway does not answer.
    Unknown(String),
    NoManifest,
    /// Names of what is missing, with what went wrong in fetching it.
    Missing(Vec<String>),
    /// All is held, and the manifest is not what was ordered.
    Invalid(String),
    Complete,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Absent,
    Active,
    Terminating,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobFact {
    pub suspended: bool,
    /// Stopped by us: why, and when by the chain's clock.
    pub stopped: Option<(Stop, u64)>,
    pub complete: bool,
    pub failed: Option<JobEnd>,
    pub failures: u32,
}

/// The newest pod of the Job.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodFact {
    pub node: Option<String>,
    /// Its node is up.
    pub node_ready: bool,
    /// Neither succeeded nor failed.
    pub active: bool,
    pub trainer_running: bool,
    pub trainer: Option<TrainerEnd>,
    /// A container cannot start: the kubelet's reason and message.
    pub waiting: Option<(String, String)>,
    /// Seconds that it has been without a node that is up.
    pub nodeless_for: u64,
    /// Seconds since the container before ended, if the next one's image cannot be had.
    pub imageless_for: u64,
    /// Evicted because it outgrew its disk.
    pub disk_exceeded: bool,
}

/// Goals about this order that were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asked(pub BTreeMap<&'static str, TransactionState>);

impl Asked {
    /// Asked for, and not failed.
    pub fn live(&self, goal: &str) -> bool {
        self.0.get(goal).is_some_and(|state| *state != TransactionState::Failed)
    }
}

#[derive(Clone, Debug)]
pub struct Facts {
    pub order: B256,
    /// The chain's clock, in unix seconds.
    pub now: u64,
    /// Seconds before a deadline in which a transaction may come too late.
    pub margin: u64,
    /// Why the chain cannot be trusted now.
    pub blind: Option<String>,
    pub latest: Chain,
    pub confirmed: Chain,
    /// The confirmed block is not older than the newest one was when the lease was found.
    pub caught_up: bool,
    pub handover: Handover,
    /// A node has room for it now.
    pub has_room: bool,
    pub space: Space,
    pub job: Option<JobFact>,
    pub pod: Option<PodFact>,
    /// Any pod of the lease is still there and not over.
    pub pods_active: bool,
    pub devices: Devices,
    /// SHA-256 of `result.json`, once the gateway holds every output.
    pub result: Option<B256>,
    pub asked: Asked,
    /// `Running` was last said to be true.
    pub said_running: bool,
    /// The provider gives the lease up.
    pub evicted: bool,
    /// Phase and exit as last written.
    pub phase: LeasePhase,
    pub exit: Option<Exit>,
}

impl Handover {
    pub fn explain(&self) -> (&'static str, String) {
        match self {
            Self::Unknown(error) => {
                ("GatewayUnreachable", format!("The gateway does not answer the operator: {error}"))
            }
            Self::NoManifest => ("Waiting", "Waiting for the tenant's manifest.".into()),
            Self::Missing(names) => ("PullingInputs", format!("Waiting for inputs: {}.", names.join(", "))),
            Self::Invalid(why) => ("Invalid", why.clone()),
            Self::Complete => ("Held", "Manifest and inputs are held.".into()),
        }
    }
}

impl Facts {
    pub fn id(&self) -> Bytes32 {
        self.order.to_string().into()
    }

    /// The goal, unless it was asked for already.
    pub fn ask(&self, goal: Goal) -> Option<Effect> {
        (!self.asked.live(goal.name())).then_some(Effect::Ask(goal))
    }

    /// A ComputeLease that is deleted while its lease lives goes at once and is made again, so holding it serves nobody.
    /// An evicted one stays to the end, or what was decided would go with it.
    pub fn may_go(&self) -> bool {
        let gone = self.space == Space::Absent;
        let unheld = match self.evicted {
            true => gone && self.latest.is_over() && self.confirmed.is_over(),
            false => gone || !self.latest.is_over(),
        };
        self.blind.is_none() && unheld
    }

    pub fn stopped(&self) -> Option<(Stop, u64)> {
        self.job.as_ref().and_then(|job| job.stopped)
    }
}
