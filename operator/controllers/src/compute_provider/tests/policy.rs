use freehold_chain::view::Health;
use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, NOW, OURS};

struct World {
    provider: ComputeProviderSpec,
    limits: Limits,
    view: ChainView,
    classes: Vec<String>,
    order: Order,
    spec: OrderSpec,
    standing: Standing,
    bid_before: bool,
}

fn world() -> World {
    World {
        provider: fixtures::provider(),
        limits: Limits {
            max_leases: 2,
            max_bids_per_tenant: 2,
            max_penalty: Amount(1_000_000),
            max_bond: Amount(1_000_000),
            validity: 60,
        },
        view: fixtures::view(Vec::new()),
        classes: vec!["gvisor".into()],
        order: fixtures::open(1, 1),
        spec: fixtures::spec(1),
        standing: Standing::default(),
        bid_before: false,
    }
}

fn verdict(world: &World) -> Verdict {
    check(&Case {
        provider: &world.provider,
        limits: &world.limits,
        view: &world.view,
        runtime_classes: &world.classes,
        order: &world.order,
        spec: &world.spec,
        standing: world.standing,
        bid_before: world.bid_before,
    })
}

fn input(name: &str, size: u64) -> freehold_core::spec::SpecInput {
    freehold_core::spec::SpecInput { name: name.into(), sha256: "3".repeat(64), size }
}

#[test]
fn an_ordinary_order_is_bid_on() {
    assert_eq!(verdict(&world()), Ok(()));
}

#[rstest]
#[case("Blind", |w: &mut World| w.view.health = Health::Stale { head: 7 })]
#[case("Cordoned", |w: &mut World| w.provider.cordoned = true)]
#[case("NotRegistered", |w: &mut World| w.view.providers.clear())]
#[case("NotRegistered", |w: &mut World| w.provider.gateway_url = "https://moved.example.org".into())]
#[case("OwnOrder", |w: &mut World| w.order.slot.tenant = OURS)]
#[case("AlreadyBid", |w: &mut World| w.bid_before = true)]
#[case("BiddingEnds", |w: &mut World| w.order.slot.deadline = NOW + 3)]
#[case("OtherToken", |w: &mut World| w.order.terms.token = OURS)]
#[case("UnknownClass", |w: &mut World| w.order.terms.class = 1)]
#[case("UnknownClass", |w: &mut World| w.spec.class = "exact".into())]
#[case("AttributeMismatch", |w: &mut World| { w.spec.require.attributes.insert("region".into(), "us-*".into()); })]
#[case("AttributeMismatch", |w: &mut World| { w.spec.require.attributes.insert("tier".into(), "*".into()); })]
#[case("SharedKernel", |w: &mut World| w.spec.require.accept_shared_kernel = false)]
#[case("NoRuntimeClass", |w: &mut World| w.spec.require.runtime_class = Some("kata".into()))]
#[case("StartWindowTooShort", |w: &mut World| w.view.block_time = 31)]
#[case("MaxLeases", |w: &mut World| (w.standing.leases, w.standing.bids) = (1, 1))]
#[case("TenantCap", |w: &mut World| w.standing.tenant_bids = 2)]
#[case("PenaltyTooHigh", |w: &mut World| w.order.terms.noShowPenalty = 1_000_001)]
#[case("PenaltyTooHigh", |w: &mut World| w.order.terms.noShowPenalty = 200_001)]
#[case("SpecUnusable", |w: &mut World| w.spec.image = "freehold.dev/trainer:latest".into())]
#[case("SpecUnusable", |w: &mut World| w.spec.manifest = "A".repeat(64))]
#[case("SpecUnusable", |w: &mut World| w.spec.resources.gpu.as_mut().unwrap().count = 0)]
#[case("SpecUnusable", |w: &mut World| w.spec.inputs = vec![input("A", 1)])]
#[case("SpecUnusable", |w: &mut World| w.spec.inputs = vec![input("a", 1); 2])]
#[case("SpecUnusable", |w: &mut World| w.spec.inputs = (0..17).map(|n| input(&format!("i{n}"), 1)).collect())]
#[case("SpecUnusable", |w: &mut World| w.spec.resources.cpu_millis = u64::MAX)]
#[case("SpecUnusable", |w: &mut World| w.spec.resources.memory = (1 << 53) + 1)]
#[case("InputsTooLarge", |w: &mut World| w.spec.inputs = vec![input("a", 4 << 30), input("b", 1)])]
#[case("BondTooHigh", |w: &mut World| w.order.terms.bond = 1_000_001)]
#[case("BalanceTooLow", |w: &mut World| (w.view.balances.free, w.view.balances.wallet) = (Amount(99_999), Amount(100_000)))]
#[case("BalanceTooLow", |w: &mut World| w.standing.pending_bonds = Amount(1_000_800_001))]
fn each_predicate_refuses(#[case] reason: &str, #[case] change: fn(&mut World)) {
    let mut world = world();
    // A late bidding end, so that a long block time only meets its own predicate.
    world.order.slot.deadline = NOW + 100;
    change(&mut world);
    let refusal = verdict(&world).expect_err("refused");
    assert_eq!(refusal.reason, reason);
    assert!(!refusal.message.is_empty());
}

#[rstest]
#[case(|w: &mut World| { w.spec.require.attributes.insert("region".into(), "eu-*".into()); })]
#[case(|w: &mut World| { w.spec.require.accept_shared_kernel = false; w.spec.require.runtime_class = Some("gvisor".into()); })]
#[case(|w: &mut World| (w.view.balances.free, w.view.balances.wallet) = (Amount(0), Amount(200_000)))]
fn what_is_offered_passes(#[case] change: fn(&mut World)) {
    let mut world = world();
    change(&mut world);
    assert_eq!(verdict(&world), Ok(()));
}

#[rstest]
#[case(Rate(0), false)]
#[case(Rate::per_hour(Amount(2_000_000)), true)]
#[case(Rate::per_hour(Amount(130_000_000)), false)]
fn the_escrow_has_to_last_a_minute(#[case] rate: Rate, #[case] enough: bool) {
    assert_eq!(lasts_long_enough(&world().order, rate).is_ok(), enough);
}
