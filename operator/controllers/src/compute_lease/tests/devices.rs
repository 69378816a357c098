use rstest::rstest;

use super::*;
use crate::compute_provider::fixtures::{self, GIB, H100, gpu_node, held_by, resources};

const NAMESPACE: &str = "fh-lease-1";

fn judged(gpus: u32, known: &[&str], devices: Vec<GpuDevice>) -> Devices {
    let known: Vec<String> = known.iter().map(|uuid| (*uuid).to_owned()).collect();
    judge(resources(gpus).gpu.as_ref(), NAMESPACE, &known, &[gpu_node(devices)])
}

fn ours(index: u32) -> GpuDevice {
    held_by(fixtures::device(index, H100), NAMESPACE)
}

#[test]
fn what_was_sold_matches() {
    let others = held_by(fixtures::device(1, H100), "fh-lease-2");
    assert_eq!(judged(1, &[], vec![ours(0), others]), Devices::Match(vec!["GPU-0".into()]));
    assert_eq!(judged(2, &[], vec![ours(0), ours(1)]), Devices::Match(vec!["GPU-0".into(), "GPU-1".into()]));
    assert_eq!(judged(0, &[], vec![]), Devices::NotNeeded);
    assert_eq!(judged(1, &[], vec![fixtures::device(0, H100)]), Devices::NotYet);
}

#[rstest]
#[case::count(vec![ours(0), ours(1)])]
#[case::model(vec![held_by(fixtures::device(0, "Tesla T4"), NAMESPACE)])]
#[case::memory(vec![GpuDevice { memory_bytes: 8 * GIB, ..ours(0) }])]
#[case::slice(vec![GpuDevice { mig_profile: Some("1g.10gb".into()), ..ours(0) }])]
fn anything_else_does_not(#[case] devices: Vec<GpuDevice>) {
    assert!(matches!(judged(1, &[], devices), Devices::Mismatch(_)));
}

#[rstest]
#[case(DeviceState::Lost, "GPU-0 fell off the bus")]
#[case(DeviceState::XidError, "GPU-0 reported Xid 79")]
#[case(DeviceState::EccError, "GPU-0 has 3 uncorrected ECC errors")]
fn a_sick_device_is_named(#[case] state: DeviceState, #[case] complaint: &str) {
    let sick = GpuDevice { state, xid: Some(79), uncorrected_ecc_errors: 3, ..ours(0) };
    assert_eq!(judged(1, &[], vec![sick.clone()]), Devices::Lost(complaint.into()));
    let without_pod = GpuDevice { pod: None, ..sick.clone() };
    assert_eq!(judged(1, &["GPU-0"], vec![without_pod.clone()]), Devices::Lost(complaint.into()));
    assert_eq!(
        judged(1, &["GPU-0"], vec![without_pod, ours(1)]),
        Devices::Match(vec!["GPU-1".into()]),
        "a new pod got another"
    );
    assert_eq!(judged(1, &[], vec![GpuDevice { pod: None, ..sick }]), Devices::NotYet, "not this lease's");
}
