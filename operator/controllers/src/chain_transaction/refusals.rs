//! What the signer refuses, and when it is asked again: its policy may have changed, or its
//! period may have room again. Losing this memory costs a question.

use std::collections::BTreeMap;

use freehold_chain::signer::Refusal;

/// Seconds before the signer is asked again at first; each further refusal doubles it.
const SOONEST: u64 = 10;
const LATEST: u64 = 300;

struct Refused {
    reason: String,
    /// Unix seconds.
    again: u64,
    wait: u64,
}

#[derive(Default)]
pub struct Refusals(BTreeMap<String, Refused>);

impl Refusals {
    pub fn remember(&mut self, goal: &str, refusal: &Refusal, now: u64) {
        let wait = self.0.get(goal).map_or(SOONEST, |known| (known.wait * 2).min(LATEST));
        let reason = format!("the signer refused by its rule {refusal}");
        self.0.insert(goal.to_owned(), Refused { reason, again: now + wait, wait });
    }

    /// Why the goal waits, until it is time to ask again.
    pub fn of(&self, goal: &str, now: u64) -> Option<&str> {
        self.0.get(goal).filter(|refused| now < refused.again).map(|refused| refused.reason.as_str())
    }

    pub fn forget(&mut self, goal: &str) {
        self.0.remove(goal);
    }

    /// Goals that are gone are asked for by nobody.
    pub fn retain(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|goal, _| exists(goal));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signer_is_asked_again_ever_later() {
        let mut refusals = Refusals::default();
        let refusal = Refusal::new("spend", 5, 4);
        refusals.remember("goal", &refusal, 100);
        assert!(refusals.of("goal", 109).is_some_and(|reason| reason.contains("`spend`")));
        assert_eq!(refusals.of("goal", 110), None);
        refusals.remember("goal", &refusal, 110);
        assert!(refusals.of("goal", 129).is_some());
        for _ in 0..20 {
            refusals.remember("goal", &refusal, 200);
        }
        assert_eq!(refusals.of("goal", 500), None);
        refusals.forget("goal");
        refusals.remember("goal", &refusal, 1_000);
        assert_eq!(refusals.of("goal", 1_010), None, "patience begins anew");
        refusals.retain(|goal| goal != "goal");
        assert_eq!(refusals.of("goal", 1_000), None);
    }
}
