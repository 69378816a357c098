//! How the work ended, in the words that conditions use. Pure.

use freehold_api::lease::Exit;

/// What a pod says about its trainer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrainerEnd {
    pub code: i32,
    /// The kubelet's word, such as `OOMKilled` or `Error`.
    pub reason: String,
    /// Last lines of its log.
    pub message: Option<String>,
}

/// How a Job failed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobEnd {
    /// Reason of the Failed condition: PodFailurePolicy, BackoffLimitExceeded, DeadlineExceeded.
    pub reason: String,
    pub message: String,
    pub failures: u32,
}

/// Reasons of our own stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    DeviceLost,
    DiskExceeded,
    EscrowExhausted,
    Evicted,
    ImageUnavailable,
    NodeLost,
    StartMissed,
}

impl Stop {
    pub const ALL: [Self; 7] = [
        Self::DeviceLost,
        Self::DiskExceeded,
        Self::EscrowExhausted,
        Self::Evicted,
        Self::ImageUnavailable,
        Self::NodeLost,
        Self::StartMissed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::DeviceLost => "DeviceLost",
            Self::DiskExceeded => "DiskExceeded",
            Self::EscrowExhausted => "EscrowExhausted",
            Self::Evicted => "Evicted",
            Self::ImageUnavailable => "ImageUnavailable",
            Self::NodeLost => "NodeLost",
            Self::StartMissed => "StartMissed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|stop| stop.as_str() == text)
    }

    /// What the tenant reads.
    pub fn sentence(self) -> &'static str {
        match self {
            Self::DeviceLost => {
                "A GPU of the lease failed; the trainer was asked to save a checkpoint and the lease is closed."
            }
            Self::DiskExceeded => "The work wrote more than spec.resources.disk; raise it.",
            Self::EscrowExhausted => {
                "The lease reached its end; raise spec.market.budget or spec.activeDeadline for more time."
            }
            Self::Evicted => {
                "The provider evicted the lease; the trainer was asked to save a checkpoint and the lease is closed."
            }
            Self::ImageUnavailable => {
                "The provider's nodes cannot pull the image; check spec.trainer.image and that its registry is public."
            }
            Self::NodeLost => "The node was lost and no other one can take the work; the lease is closed.",
            Self::StartMissed => "The start window passed before the lease could start.",
        }
    }
}

/// `EX_USAGE`, `EX_DATAERR`: another try elsewhere ends alike.
pub fn of_job(job: &JobEnd, trainer: Option<&TrainerEnd>) -> Exit {
    let code = trainer.map_or(-1, |end| end.code);
    let reason = match (job.reason.as_str(), trainer) {
        ("DeadlineExceeded", _) => "DeadlineExceeded",
        (_, Some(TrainerEnd { code: 64, .. })) => "BadUsage",
        (_, Some(TrainerEnd { code: 65, .. })) => "BadData",
        (_, Some(end)) if end.reason == "OOMKilled" => "OutOfMemory",
        (_, Some(TrainerEnd { code: 0, .. }) | None) => "HandlingFailed",
        ("BackoffLimitExceeded", _) => "BackoffLimitExceeded",
        _ => "Crashed",
    };
    let message = trainer.and_then(|end| end.message.clone()).unwrap_or_else(|| job.message.clone());
    exit(code, reason, &message, job.failures)
}

pub fn of_stop(stop: Stop, failures: u32) -> Exit {
    exit(-1, stop.as_str(), stop.sentence(), failures)
}

/// A pod that outgrew its own disk; pressure of the node is another matter and is retried.
pub fn is_disk_eviction(reason: &str, message: &str) -> bool {
    let own = ["ephemeral-storage", "ephemeral local storage", "emptydir", "local ephemeral"];
    let lower = message.to_ascii_lowercase();
    reason == "Evicted" && lower.contains("exceed") && own.iter().any(|word| lower.contains(word))
}

fn exit(code: i32, reason: &str, message: &str, failures: u32) -> Exit {
    let message: String = message.trim().chars().take(1024).collect();
    Exit {
        code: code.clamp(-1, 255),
        reason: reason.into(),
        message: (!message.is_empty()).then(|| message.into()),
        failures: failures.min(10_000),
    }
}

#[cfg(test)]
#[path = "tests/exit.rs"]
mod tests;
