//! One target under libFuzzer. `FREEHOLD_FUZZ` names it; `list` asks for all names, `seeds:FOLDER` writes the inputs
//! to begin with. See hack/fuzz.sh.

#![no_main]

use std::alloc::System;
use std::path::Path;
use std::sync::OnceLock;

use cap::Cap;
use freehold_fuzz::{TARGETS, Target, seeds, target};

/// What a reader may ask for, by each byte of its input.
const TIMES: usize = 1024;

/// More than that ends the process, which libFuzzer reports as a crash.
#[global_allocator]
static HEAP: Cap<System> = Cap::new(System, usize::MAX);

static CHOSEN: OnceLock<&Target> = OnceLock::new();

fn choose() {
    let name = std::env::var("FREEHOLD_FUZZ").unwrap_or_default();
    if name == "list" {
        TARGETS.iter().for_each(|one| println!("{}\t{}\t{}", one.name, one.longest, one.reads));
        std::process::exit(0);
    }
    if let Some(folder) = name.strip_prefix("seeds:") {
        let written = seeds::all().iter().try_for_each(|seed| {
            let folder = Path::new(folder).join(seed.target);
            std::fs::create_dir_all(&folder)?;
            std::fs::write(folder.join(seed.name), &seed.bytes)
        });
        written.unwrap_or_else(|error| eprintln!("error: seeds cannot be written: {error}"));
        std::process::exit(0);
    }
    let Some(found) = target(&name) else {
        eprintln!("error: FREEHOLD_FUZZ is \"{name}\"; use list to see what there is");
        std::process::exit(2);
    };
    // libFuzzer's hook aborts at once; a reader may catch a panic of a library below it. What is not caught still is
    // a crash, and whoever reports it needs room.
    drop(std::panic::take_hook());
    let tell = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        let _ = HEAP.set_limit(usize::MAX);
        tell(panic);
    }));
    CHOSEN.get_or_init(|| found);
}

libfuzzer_sys::fuzz_target!(init: choose(), |data: &[u8]| {
    if let Some(chosen) = CHOSEN.get() {
        let within = HEAP.set_limit(HEAP.allocated() + chosen.room() + TIMES * data.len());
        (chosen.run)(data);
        let _ = within.and_then(|()| HEAP.set_limit(usize::MAX));
    }
});
