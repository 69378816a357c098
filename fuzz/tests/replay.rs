//! Every committed input through its parser: seeds, and what once broke it. No fuzz engine is needed.

use std::path::{Path, PathBuf};

use freehold_fuzz::{TARGETS, Target};

fn inputs(folder: &str, target: &Target) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder).join(target.name);
    let listed = std::fs::read_dir(folder).into_iter().flatten();
    let mut paths: Vec<PathBuf> = listed.map(|entry| entry.expect("a folder is listed").path()).collect();
    paths.sort();
    paths
}

#[test]
fn inputs_that_are_kept_break_nothing() {
    let kept = TARGETS.iter().flat_map(|target| {
        let paths = [inputs("corpus", target), inputs("regressions", target)].concat();
        paths.into_iter().map(move |path| (target, path))
    });
    for (target, path) in kept {
        let bytes = std::fs::read(&path).expect("an input is read");
        let broken = std::panic::catch_unwind(|| (target.run)(&bytes)).is_err();
        assert!(!broken, "{} breaks on {}", target.name, path.display());
    }
}

#[test]
fn every_parser_has_an_input_to_begin_with() {
    let without: Vec<&str> =
        TARGETS.iter().filter(|one| inputs("corpus", one).is_empty()).map(|one| one.name).collect();
    assert!(without.is_empty(), "write corpus/ anew (see hack/fuzz.sh): nothing there for {without:?}");
}
