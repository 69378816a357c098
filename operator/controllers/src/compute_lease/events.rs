//! What there is to tell of a lease, on the provider's side. Pure.

use freehold_api::conditions::{find, types};
use freehold_api::lease::ComputeLeaseStatus;

use crate::news::News;

/// In the order in which they come to hold.
const MILESTONES: [&str; 7] = [
    types::MANIFEST_RECEIVED,
    types::CAPACITY_HELD,
    types::DEVICES_MATCH,
    types::RUNNING,
    types::DELIVERED,
    types::CLOSED,
    types::CLEANED_UP,
];
/// Reasons of ordinary progress: no event, the phase tells.
const ORDINARY: [&str; 11] = [
    "Waiting",
    "Placing",
    "Starting",
    "ContainerWaiting",
    "Finished",
    "Delivering",
    "Live",
    "Unconfirmed",
    "Archiving",
    "Terminating",
    "Closed",
];

/// What is new between two statuses.
pub fn news(old: &ComputeLeaseStatus, new: &ComputeLeaseStatus) -> Vec<News> {
    let changed = MILESTONES.iter().filter_map(|type_| {
        let now = find(&new.conditions, type_)?;
        let before = find(&old.conditions, type_);
        let same = before.is_some_and(|before| before.status == now.status && before.reason == now.reason);
        (!same).then_some(now)
    });
    changed
        .filter_map(|condition| match condition.status.as_str() {
            "True" => Some(News::good(&condition.type_, &condition.message)),
            "False" if !ORDINARY.contains(&condition.reason.as_str()) => {
                Some(News::bad(&condition.reason, &condition.message))
            }
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use freehold_api::conditions::{Claim, set};
    use jiff::Timestamp;

    fn status(claims: &[Claim]) -> ComputeLeaseStatus {
        let mut status = ComputeLeaseStatus::default();
        for claim in claims {
            set(&mut status.conditions, claim.clone(), None, Timestamp::UNIX_EPOCH);
        }
        status
    }

    #[test]
    fn milestones_and_troubles_are_told_once() {
        let held = Claim::yes(types::MANIFEST_RECEIVED, "Held", "Manifest and inputs are held.");
        let placing = Claim::no(types::CAPACITY_HELD, "Placing", "The pod is being placed.");
        let lost = Claim::no(types::DEVICES_MATCH, "DeviceLost", "GPU-a is gone.");
        let first = status(&[held.clone(), placing.clone()]);
        let told = news(&ComputeLeaseStatus::default(), &first);
        assert_eq!(told, [News::good("ManifestReceived", "Manifest and inputs are held.")]);
        let second = status(&[held, placing, lost]);
        assert_eq!(news(&first, &second), [News::bad("DeviceLost", "GPU-a is gone.")]);
        assert_eq!(news(&second, &second), []);
    }
}
