use freehold_api::transaction::TransactionState;
use freehold_core::order::OrderState;
use proptest::prelude::*;
use rstest::rstest;

use super::super::facts::Asked;
use super::*;

const NOW: u64 = 1_000;
const RESULT: B256 = B256::repeat_byte(7);

fn facts(chain: Chain) -> Facts {
    Facts {
        order: B256::repeat_byte(1),
        now: NOW,
        margin: 15,
        blind: None,
        latest: chain,
        confirmed: chain,
        caught_up: true,
        handover: Handover::Complete,
        has_room: true,
        space: Space::Active,
        job: None,
        pod: None,
        pods_active: false,
        devices: Devices::NotYet,
        result: None,
        asked: Asked::default(),
        said_running: false,
        evicted: false,
        phase: LeasePhase::default(),
        exit: None,
    }
}

fn awaiting() -> Facts {
    Facts { space: Space::Absent, ..facts(Chain::Awaiting { start_by: NOW + 100 }) }
}

/// The pod is on its node and waits for the start.
fn placed() -> Facts {
    Facts {
        space: Space::Active,
        job: Some(JobFact::default()),
        pod: Some(PodFact { node: Some("node-a".into()), node_ready: true, active: true, ..PodFact::default() }),
        pods_active: true,
        devices: Devices::Match(vec!["GPU-0".into()]),
        ..awaiting()
    }
}

fn working() -> Facts {
    let chain = Chain::Running { end_at: NOW + 500 };
    let pod = placed().pod.map(|pod| PodFact { trainer_running: true, ..pod });
    Facts { latest: chain, confirmed: chain, pod, phase: LeasePhase::Running, ..placed() }
}

fn job(change: impl FnOnce(&mut JobFact)) -> Option<JobFact> {
    let mut job = JobFact::default();
    change(&mut job);
    Some(job)
}

fn ended(code: i32) -> TrainerEnd {
    TrainerEnd { code, reason: "Error".into(), message: Some("line 3: label `x`".into()) }
}

/// Phase and what is done, in words.
fn told(facts: &Facts) -> (LeasePhase, Vec<String>) {
    let next = next(facts);
    (next.phase, next.effects.iter().map(word).collect())
}

fn word(effect: &Effect) -> String {
    match effect {
        Effect::Ask(goal) => goal.name().to_owned(),
        Effect::Create => "create".into(),
        Effect::Stop(stop) => format!("stop {}", stop.as_str()),
        Effect::ArchiveLogs => "archive".into(),
        Effect::DeleteNamespace => "delete".into(),
    }
}

fn says(facts: &Facts, type_: &str) -> (String, &'static str) {
    let next = next(facts);
    let claim =
        next.claims.iter().rev().find(|claim| claim.type_ == type_).unwrap_or_else(|| panic!("nothing about {type_}"));
    (claim.status.as_str().to_owned(), claim.reason)
}

#[rstest]
#[case::no_manifest(Handover::NoManifest, 100, LeasePhase::AwaitingInputs, "")]
#[case::inputs_missing(Handover::Missing(vec!["dataset".into()]), 100, LeasePhase::AwaitingInputs, "")]
#[case::gateway_down(Handover::Unknown("refused".into()), 100, LeasePhase::AwaitingInputs, "")]
#[case::no_manifest_in_time(Handover::NoManifest, 15, LeasePhase::Failed, "decline")]
#[case::inputs_not_in_time(Handover::Missing(vec!["dataset".into()]), 10, LeasePhase::Failed, "decline")]
#[case::another_manifest(Handover::Invalid("image differs".into()), 100, LeasePhase::Failed, "decline")]
#[case::all_there(Handover::Complete, 100, LeasePhase::Starting, "create")]
fn before_the_pod(#[case] handover: Handover, #[case] left: u64, #[case] phase: LeasePhase, #[case] done: &str) {
    let chain = Chain::Awaiting { start_by: NOW + left };
    let done: Vec<String> = Some(done.to_owned()).filter(|word| !word.is_empty()).into_iter().collect();
    assert_eq!(told(&Facts { latest: chain, handover, ..awaiting() }), (phase, done));
}

#[test]
fn without_room_it_waits_and_then_declines() {
    let full = Facts { has_room: false, ..awaiting() };
    assert_eq!(told(&full), (LeasePhase::AwaitingInputs, vec![]));
    assert_eq!(says(&full, types::CAPACITY_HELD), ("False".into(), "NoCapacity"));
    let late = Facts { now: NOW + 90, ..full };
    assert_eq!(told(&late), (LeasePhase::Failed, vec!["decline".into()]));
}

#[rstest]
#[case::devices_match(|_: &mut Facts| (), "start")]
#[case::no_gpu(|f: &mut Facts| f.devices = Devices::NotNeeded, "start")]
#[case::not_shown_yet(|f: &mut Facts| f.devices = Devices::NotYet, "")]
#[case::not_shown_in_time(|f: &mut Facts| (f.devices, f.now) = (Devices::NotYet, NOW + 90), "decline")]
#[case::other_devices(|f: &mut Facts| f.devices = Devices::Mismatch("a T4".into()), "decline")]
#[case::lost(|f: &mut Facts| f.devices = Devices::Lost("GPU-0 fell off the bus".into()), "decline")]
#[case::unplaced(|f: &mut Facts| f.pod.as_mut().unwrap().node = None, "")]
#[case::unplaced_in_time(|f: &mut Facts| { f.pod.as_mut().unwrap().node = None; f.now = NOW + 90; }, "decline")]
#[case::node_lost(|f: &mut Facts| f.pod.as_mut().unwrap().node_ready = false, "decline")]
#[case::fetch_failed(|f: &mut Facts| f.job = job(|j| j.failed = Some(JobEnd::default())), "decline")]
fn between_pod_and_start(#[case] change: fn(&mut Facts), #[case] done: &str) {
    let mut facts = placed();
    change(&mut facts);
    let done: Vec<String> = Some(done.to_owned()).filter(|word| !word.is_empty()).into_iter().collect();
    assert_eq!(told(&facts).1, done);
}

#[test]
fn a_start_on_its_way_is_not_declined() {
    let mut facts = Facts { now: NOW + 95, devices: Devices::NotYet, ..placed() };
    facts.asked.0.insert("start", TransactionState::Submitted);
    assert_eq!(told(&facts), (LeasePhase::Starting, vec![]));
}

#[test]
fn a_missed_start_stops_and_later_reclaims_the_bond() {
    let missed = Facts { now: NOW + 101, ..placed() };
    assert_eq!(told(&missed), (LeasePhase::Failed, vec!["stop StartMissed".into()]));
    let stopped = Facts { job: job(|j| j.stopped = Some((Stop::StartMissed, NOW))), now: NOW + 116, ..placed() };
    assert_eq!(told(&stopped), (LeasePhase::Failed, vec!["noShow".into()]));
}

#[rstest]
#[case::works(|_: &mut Facts| (), LeasePhase::Running, &[], "Training")]
#[case::foreign_suspend(|f: &mut Facts| f.job = job(|j| j.suspended = true), LeasePhase::Running, &[], "SuspendedByQueue")]
#[case::pulling(|f: &mut Facts| f.pod.as_mut().unwrap().trainer_running = false, LeasePhase::Running, &[], "PullingInputs")]
#[case::retrying(|f: &mut Facts| f.pod = None, LeasePhase::Running, &[], "Retrying")]
#[case::drained(|f: &mut Facts| { let p = f.pod.as_mut().unwrap(); (p.node, p.node_ready, p.trainer_running) = (None, false, false) }, LeasePhase::Running, &[], "NodeLost")]
#[case::node_lost(|f: &mut Facts| { let p = f.pod.as_mut().unwrap(); (p.node_ready, p.trainer_running) = (false, false) }, LeasePhase::Running, &[], "NodeLost")]
#[case::device_lost(|f: &mut Facts| f.devices = Devices::Lost("GPU-0 fell off the bus".into()), LeasePhase::Running, &["stop DeviceLost"], "DeviceLost")]
#[case::disk(|f: &mut Facts| f.pod.as_mut().unwrap().disk_exceeded = true, LeasePhase::Running, &["stop DiskExceeded"], "DiskExceeded")]
#[case::end_of_escrow(|f: &mut Facts| f.now = NOW + 501, LeasePhase::Running, &["stop EscrowExhausted"], "EscrowExhausted")]
#[case::nowhere_to_go(|f: &mut Facts| { let p = f.pod.as_mut().unwrap(); (p.node, p.nodeless_for) = (None, 301) }, LeasePhase::Running, &["stop NodeLost"], "NodeLost")]
#[case::node_gone(|f: &mut Facts| { let p = f.pod.as_mut().unwrap(); (p.node_ready, p.nodeless_for) = (false, 301) }, LeasePhase::Running, &["stop NodeLost"], "NodeLost")]
#[case::no_image(|f: &mut Facts| f.pod.as_mut().unwrap().imageless_for = 601, LeasePhase::Running, &["stop ImageUnavailable"], "ImageUnavailable")]
#[case::bad_data(|f: &mut Facts| { f.job = job(|j| j.failed = Some(JobEnd { reason: "PodFailurePolicy".into(), ..JobEnd::default() })); f.pod.as_mut().unwrap().trainer = Some(ended(65)) }, LeasePhase::Failed, &["closeOrder"], "BadData")]
#[case::gave_up(|f: &mut Facts| { f.job = job(|j| j.failed = Some(JobEnd { reason: "BackoffLimitExceeded".into(), ..JobEnd::default() })); f.pod.as_mut().unwrap().trainer = Some(ended(139)) }, LeasePhase::Failed, &["closeOrder"], "BackoffLimitExceeded")]
#[case::complete(|f: &mut Facts| f.job = job(|j| j.complete = true), LeasePhase::Finished, &[], "Finished")]
#[case::rebuilt(|f: &mut Facts| f.job = None, LeasePhase::Running, &["create"], "Rebuilding")]
fn while_it_runs(
    #[case] change: fn(&mut Facts),
    #[case] phase: LeasePhase,
    #[case] done: &[&str],
    #[case] reason: &str,
) {
    let mut facts = working();
    change(&mut facts);
    assert_eq!(told(&facts), (phase, done.iter().map(|word| (*word).to_owned()).collect()));
    assert_eq!(says(&facts, types::RUNNING).1, reason);
}

#[test]
fn a_result_is_delivered_only_once_every_output_is_held() {
    let complete = Facts { job: job(|j| j.complete = true), ..working() };
    assert_eq!(says(&complete, types::DELIVERED).1, "UploadIncomplete");
    let held = Facts { result: Some(RESULT), ..complete.clone() };
    assert_eq!(told(&held), (LeasePhase::Finished, vec!["deliver".into()]));
    let late = Facts { now: NOW + 501, ..held };
    assert_eq!(told(&late).1, ["stop EscrowExhausted"], "after the end nothing can be delivered");
}

#[test]
fn a_stop_waits_for_the_checkpoint_then_closes() {
    let stopped = Facts {
        job: job(|j| j.stopped = Some((Stop::DeviceLost, NOW))),
        exit: Some(exit::of_stop(Stop::DeviceLost, 0)),
        ..working()
    };
    assert_eq!(told(&stopped), (LeasePhase::Running, vec![]));
    let gone = Facts { pods_active: false, ..stopped.clone() };
    assert_eq!(told(&gone), (LeasePhase::Failed, vec!["closeOrder".into()]));
    let stuck = Facts { now: NOW + STOP_SECONDS, ..stopped };
    assert_eq!(told(&stuck), (LeasePhase::Failed, vec!["closeOrder".into()]));
    assert_eq!(next(&gone).exit.unwrap().reason.as_str(), "DeviceLost");
}

#[test]
fn silence_accepts_after_the_review() {
    let delivered = facts(Chain::Delivered { review_by: NOW, result: RESULT });
    assert_eq!(told(&delivered), (LeasePhase::Delivered, vec![]));
    let silent = Facts { now: NOW + 1, ..delivered };
    assert_eq!(told(&silent), (LeasePhase::Delivered, vec!["acceptResult".into()]));
}

#[rstest]
#[case::newest_only(Chain::Settled(OrderState::Closed), Chain::Running { end_at: 0 }, Space::Active, &[])]
#[case::confirmed(Chain::Settled(OrderState::Closed), Chain::Settled(OrderState::Closed), Space::Active, &["archive", "delete"])]
#[case::terminating(Chain::Settled(OrderState::Closed), Chain::Settled(OrderState::Closed), Space::Terminating, &[])]
#[case::gone(Chain::Settled(OrderState::Closed), Chain::Settled(OrderState::Closed), Space::Absent, &[])]
#[case::reorganised_away(Chain::NotOurs, Chain::NotOurs, Space::Active, &["archive", "delete"])]
#[case::settled_in_a_lost_branch(Chain::Running { end_at: 2_000 }, Chain::Settled(OrderState::Closed), Space::Active, &[])]
#[case::just_accepted(Chain::Awaiting { start_by: 2_000 }, Chain::NotOurs, Space::Active, &["start"])]
fn the_end_waits_for_depth(
    #[case] latest: Chain,
    #[case] confirmed: Chain,
    #[case] space: Space,
    #[case] done: &[&str],
) {
    let facts = Facts { latest, confirmed, space, ..placed() };
    assert_eq!(told(&facts).1, done.to_vec());
}

/// Another operator's word, or an endpoint's that is ahead of ours.
#[test]
fn a_view_from_before_the_lease_ends_nothing() {
    let early = Facts { caught_up: false, phase: LeasePhase::Starting, ..facts(Chain::NotOurs) };
    assert_eq!(told(&early), (LeasePhase::Starting, vec![]));
    assert_eq!(says(&early, types::CLOSED), ("False".into(), "Unconfirmed"));
    assert!(next(&early).claims.iter().all(|claim| claim.type_ != types::CLEANED_UP));
}

#[test]
fn a_lease_that_a_reorganisation_gives_back_is_not_cleaned_up() {
    let away = Facts { space: Space::Absent, ..facts(Chain::NotOurs) };
    assert_eq!(says(&away, types::CLEANED_UP), ("True".into(), "Gone"));
    assert_eq!(says(&awaiting(), types::CLEANED_UP), ("False".into(), "Live"));
    assert_eq!(says(&working(), types::CLEANED_UP), ("False".into(), "Live"));
}

#[test]
fn cleaned_up_is_said_when_nothing_is_left() {
    let over = Facts { space: Space::Absent, ..facts(Chain::Settled(OrderState::Accepted)) };
    assert_eq!(says(&over, types::CLEANED_UP), ("True".into(), "Gone"));
    assert_eq!(says(&over, types::CLOSED), ("True".into(), "Accepted"));
}

#[test]
fn what_ended_does_not_run() {
    let settled = Chain::Settled(OrderState::Closed);
    let closed = Facts { latest: settled, confirmed: settled, said_running: true, ..working() };
    assert_eq!(says(&closed, types::RUNNING), ("False".into(), "Closed"));
}

#[test]
fn between_two_pods_the_devices_still_match() {
    let between = Facts { devices: Devices::NotYet, ..working() };
    assert!(next(&between).claims.iter().all(|claim| claim.type_ != types::DEVICES_MATCH));
    let starting = Facts { devices: Devices::NotYet, ..placed() };
    assert_eq!(says(&starting, types::DEVICES_MATCH), ("Unknown".into(), "Waiting"));
}

#[test]
fn sight_that_comes_back_is_told() {
    let blind = Facts { blind: Some("stale".into()), ..working() };
    assert_eq!(says(&blind, types::CLOSED), ("Unknown".into(), "ChainUnreachable"));
    assert_eq!(says(&working(), types::CLOSED), ("False".into(), "Live"));
}

fn any_chain() -> impl Strategy<Value = Chain> {
    let time = NOW - 200..NOW + 200;
    prop_oneof![
        Just(Chain::NotOurs),
        time.clone().prop_map(|start_by| Chain::Awaiting { start_by }),
        time.clone().prop_map(|end_at| Chain::Running { end_at }),
        time.prop_map(|review_by| Chain::Delivered { review_by, result: RESULT }),
        Just(Chain::Settled(OrderState::Closed)),
    ]
}

fn any_job() -> impl Strategy<Value = Option<JobFact>> {
    let end = Just(JobEnd { reason: "BackoffLimitExceeded".into(), message: "gave up".into(), failures: 4 });
    let stop = prop::sample::select(Stop::ALL.to_vec());
    prop::option::of(
        (any::<bool>(), prop::option::of((stop, NOW - 300..NOW)), any::<bool>(), prop::option::of(end)).prop_map(
            |(suspended, stopped, complete, failed)| JobFact { suspended, stopped, complete, failed, failures: 1 },
        ),
    )
}

fn any_devices() -> impl Strategy<Value = Devices> {
    prop_oneof![
        Just(Devices::NotNeeded),
        Just(Devices::NotYet),
        Just(Devices::Match(vec!["GPU-0".into()])),
        Just(Devices::Mismatch("a T4".into())),
        Just(Devices::Lost("GPU-0 fell off the bus".into())),
    ]
}

fn any_handover() -> impl Strategy<Value = Handover> {
    prop_oneof![
        Just(Handover::Unknown("refused".into())),
        Just(Handover::NoManifest),
        Just(Handover::Missing(vec!["dataset".into()])),
        Just(Handover::Invalid("image".into())),
        Just(Handover::Complete),
    ]
}

fn any_facts() -> impl Strategy<Value = Facts> {
    let space = prop_oneof![Just(Space::Absent), Just(Space::Active), Just(Space::Terminating)];
    let pod = prop::option::of((any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(on, ready, disk)| PodFact {
        node: on.then(|| "node-a".into()),
        node_ready: ready,
        active: true,
        disk_exceeded: disk,
        ..PodFact::default()
    }));
    let first = (any_chain(), any_chain(), any_handover(), any::<bool>(), space);
    let second = (any_job(), pod, any::<bool>(), any_devices(), any::<bool>(), any::<bool>());
    (first, second).prop_map(
        |((latest, confirmed, handover, has_room, space), (job, pod, pods_active, devices, result, caught_up))| Facts {
            latest,
            confirmed,
            caught_up,
            handover,
            has_room,
            space,
            job,
            pod,
            pods_active,
            devices,
            result: result.then_some(RESULT),
            ..facts(latest)
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_blind_operator_does_nothing(facts in any_facts()) {
        let blind = Facts { blind: Some("the head stands".into()), phase: LeasePhase::Running, ..facts };
        let next = next(&blind);
        prop_assert_eq!(next.effects, vec![]);
        prop_assert_eq!(next.phase, LeasePhase::Running, "what was written stays");
    }

    #[test]
    fn what_was_asked_for_is_not_asked_for_again(facts in any_facts()) {
        let first = next(&facts);
        let mut again = facts;
        for effect in &first.effects {
            if let Effect::Ask(goal) = effect {
                again.asked.0.insert(goal.name(), TransactionState::Pending);
            }
        }
        let goals = |next: Next| next.effects.into_iter().filter(|effect| matches!(effect, Effect::Ask(_))).count();
        prop_assert_eq!(goals(next(&again)), 0);
    }

    #[test]
    fn a_namespace_goes_only_when_both_blocks_agree(facts in any_facts()) {
        let deletes = next(&facts).effects.contains(&Effect::DeleteNamespace);
        prop_assert!(!deletes || (facts.latest.is_over() && facts.confirmed.is_over() && facts.caught_up));
    }

    #[test]
    fn rent_begins_only_with_everything_held(facts in any_facts()) {
        let starts = next(&facts).effects.iter().any(|effect| matches!(effect, Effect::Ask(Goal::Start { .. })));
        prop_assert!(!starts || facts.handover == Handover::Complete);
    }

    #[test]
    fn a_job_is_stopped_once(facts in any_facts()) {
        let stops = next(&facts).effects.iter().any(|effect| matches!(effect, Effect::Stop(_)));
        prop_assert!(!stops || facts.job.is_some_and(|job| job.stopped.is_none()));
    }

    #[test]
    fn the_same_facts_give_the_same_plan(facts in any_facts()) {
        let (a, b) = (next(&facts), next(&facts));
        prop_assert_eq!(a.effects, b.effects);
        prop_assert_eq!(a.claims, b.claims);
    }
}

/// What an eviction asks for, by where the lease stands.
#[rstest]
#[case::waits_for_inputs(awaiting(), &["decline"])]
#[case::placed(placed(), &["decline"])]
#[case::runs(working(), &["stop Evicted"])]
#[case::lost_its_objects(Facts { job: None, ..working() }, &["closeOrder"])]
#[case::is_done(Facts { job: job(|job| job.complete = true), result: Some(RESULT), ..working() }, &["deliver"])]
fn an_evicted_lease_is_given_up_where_it_stands(#[case] facts: Facts, #[case] expected: &[&str]) {
    let next = next(&Facts { evicted: true, ..facts });
    let done: Vec<String> = next
        .effects
        .iter()
        .map(|effect| match effect {
            Effect::Ask(goal) => goal.name().to_owned(),
            Effect::Stop(stop) => format!("stop {}", stop.as_str()),
            other => format!("{other:?}"),
        })
        .collect();
    assert_eq!(done, expected);
}

#[test]
fn an_eviction_closes_once_the_last_checkpoint_is_safe_and_tells_the_tenant() {
    let stopped = Facts { job: job(|job| job.stopped = Some((Stop::Evicted, NOW))), evicted: true, ..working() };
    assert_eq!(next(&stopped).effects, [], "the trainer saves");
    let next = next(&Facts { pods_active: false, ..stopped });
    assert_eq!(next.exit.expect("an exit").reason.as_str(), "Evicted");
    assert!(matches!(&next.effects[..], [Effect::Ask(Goal::CloseOrder { .. })]));
}

#[test]
fn an_eviction_does_not_decline_beside_a_start_that_is_on_its_way() {
    let asked = Asked([("start", TransactionState::Submitted)].into());
    assert_eq!(next(&Facts { evicted: true, asked, ..placed() }).effects, []);
}

#[test]
fn a_deleted_lease_goes_and_is_made_again_unless_it_is_evicted() {
    let settled = Chain::Settled(OrderState::Closed);
    let at = |chain, space, evicted| Facts { space, evicted, ..facts(chain) }.may_go();
    for live in [awaiting().latest, working().latest] {
        assert!(at(live, Space::Active, false), "it is made again at once");
        assert!(!at(live, Space::Active, true) && !at(live, Space::Absent, true), "the eviction would be forgotten");
    }
    assert!(!at(settled, Space::Active, false) && !at(settled, Space::Active, true), "the namespace goes first");
    assert!(at(settled, Space::Absent, false) && at(settled, Space::Absent, true));
    let unconfirmed = Facts { latest: settled, space: Space::Absent, evicted: true, ..working() };
    assert!(!unconfirmed.may_go(), "a reorganisation may bring it back");
    assert!(!Facts { blind: Some("stale".into()), space: Space::Absent, ..facts(settled) }.may_go());
}
