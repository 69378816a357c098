use freehold_api::provider::Price;
use proptest::prelude::*;

use super::*;
use crate::compute_provider::fixtures::{self, GIB, H100, resources};

fn list(change: impl FnOnce(&mut Pricing)) -> Result<PriceList, Error> {
    let mut pricing = fixtures::pricing();
    change(&mut pricing);
    PriceList::parse(&pricing)
}

fn priced(resources: &SpecResources) -> Priced<'_> {
    Priced {
        resources,
        model: resources.gpu.as_ref().map(|_| H100),
        class: "none",
        duration: 7200,
        tenant: fixtures::TENANT.to_string(),
    }
}

fn with_expression(text: &str) -> Result<u128, Error> {
    let list = list(|pricing| pricing.expression = Some(text.into()))?;
    list.nano_per_hour(&priced(&resources(1)))
}

#[test]
fn the_table_adds_up() {
    // 1 H100 0.40 + 1 core 0.01 + 2 GiB 0.002 + 4 GiB of disk 0.0004
    let nano = list(|_| ()).unwrap().nano_per_hour(&priced(&resources(1))).unwrap();
    assert_eq!(nano, 412_400_000);
    assert_eq!(rate(nano, 6).hourly(), Amount(412_400));
    assert_eq!(rate(500_000_000, 6), Rate::per_hour(Amount(500_000)), "as a tenant writes its limit");
    assert_eq!(rate(500_000_000, 18), Rate::per_hour(Amount(500_000_000_000_000_000)));
}

#[test]
fn the_most_specific_name_wins_and_an_unknown_one_has_no_price() {
    let of = |model: &str, gpu: &[(&str, &str)]| {
        let list = list(|pricing| pricing.gpu = gpu.iter().map(|(m, p)| ((*m).into(), (*p).into())).collect()).unwrap();
        list.gpu_price(model)
    };
    let prices = [("*", "1"), ("*H100*", "2"), (H100, "3")];
    assert_eq!(of(H100, &prices), Ok(3_000_000_000));
    assert_eq!(of("NVIDIA H100 NVL", &prices), Ok(2_000_000_000));
    assert_eq!(of("Tesla T4", &prices), Ok(1_000_000_000));
    assert_eq!(of("Tesla T4", &prices[1..]), Err(Error::NoPrice("Tesla T4".into())));
}

#[test]
fn an_expression_may_change_or_refuse_a_price() {
    assert_eq!(with_expression("rate * 9 / 10"), Ok(371_160_000));
    assert_eq!(with_expression("duration > 3600 && gpus == 1 ? rate / 2 : rate"), Ok(206_200_000));
    assert_eq!(with_expression("model.contains('H100') && class == 'none' ? 600000000 : -1"), Ok(600_000_000));
    assert_eq!(with_expression("tenant.startsWith('0x11') ? -1 : rate"), Err(Error::Declined));
    assert_eq!(with_expression("0"), Ok(50_000_000), "the minimum holds");
}

#[test]
fn an_expression_is_held_to_the_sandbox() {
    assert!(matches!(with_expression("rate *"), Err(Error::Syntax(_))));
    assert_eq!(with_expression("[1, 2].map(x, x * 2)[0]"), Err(Error::Loop));
    assert_eq!(with_expression("rate + [1].filter(x, x > 0).size()"), Err(Error::Loop));
    assert_eq!(with_expression("secret + 1"), Err(Error::Unknown("secret".into())));
    assert!(matches!(with_expression("1.5"), Err(Error::NotAnInteger(_))));
    assert!(matches!(with_expression("rate / 0"), Err(Error::Failed(_))));
    assert!(matches!(with_expression("rate * 9223372036854775807"), Err(Error::Failed(_))));
}

#[test]
fn a_price_that_cannot_be_read_names_its_field() {
    let error = list(|pricing| pricing.cpu = Price("1.2.3".into())).unwrap_err();
    assert!(error.to_string().starts_with("spec.pricing.cpu: "), "{error}");
}

proptest! {
    #[test]
    fn more_never_costs_less_and_never_less_than_the_minimum(
        cpu in 1u64..256_000, memory in 1u64..1 << 42, disk in 1u64..1 << 44, gpus in 0u32..16,
        more in (0u64..64_000, 0u64..1 << 40, 0u64..1 << 40, 0u32..8), minimum in 0u64..1_000_000_000,
    ) {
        let list = list(|pricing| pricing.minimum = Price(Amount(u128::from(minimum)).format(9).into())).unwrap();
        let of = |cpu_millis, memory, disk, gpus| {
            let mut wanted = resources(gpus);
            (wanted.cpu_millis, wanted.memory, wanted.disk) = (cpu_millis, memory, disk);
            list.nano_per_hour(&priced(&wanted)).unwrap()
        };
        let small = of(cpu, memory, disk, gpus);
        let large = of(cpu + more.0, memory + more.1, disk + more.2, gpus + more.3);
        prop_assert!(small <= large);
        prop_assert!(small >= u128::from(minimum));
        for decimals in [0, 6, 9, 18] {
            prop_assert!(rate(small, decimals) <= rate(large, decimals));
            prop_assert!(rate(small, decimals) >= rate(u128::from(minimum), decimals));
        }
    }
}

#[test]
fn gib_is_binary() {
    let mut wanted = resources(0);
    (wanted.cpu_millis, wanted.disk, wanted.memory) = (0, 0, 1024 * GIB);
    assert_eq!(list(|_| ()).unwrap().nano_per_hour(&priced(&wanted)), Ok(1_024_000_000));
}
