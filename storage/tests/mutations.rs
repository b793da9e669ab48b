//! Every conversation with a store, with servers that are almost right: the seeds of the fuzz targets, damaged some
//! ten thousand times. What must hold stands in `fuzz/properties/`, so that a fuzzer with feedback asks the same.
//!
//! A failure names its seed and shows its input; in a file, the input is one for `cargo fuzz run <name> <file>`, too.
#[path = "../../protocol/fuzz/mutate.rs"]
#[expect(unreachable_pub, reason = "shared with the parsers' tests")]
mod mutate;
#[path = "../fuzz/properties/mod.rs"]
#[expect(unreachable_pub, reason = "a library for the fuzz targets")]
mod properties;

use mutate::{Mutator, assert_holds};
use std::path::{Path, PathBuf};

/// The seeds that are kept with the sources, in the order of their names; not what a fuzzer has left beside them.
fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    paths.retain(|path| path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"seed-")));
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("the file can be read")).collect()
}

fn damaged(name: &str, times: u64) {
    let property = properties::ALL.into_iter().find(|(known, _)| *known == name);
    let (_, check) = property.unwrap_or_else(|| panic!("there is no property {name}"));
    let seeds = seeds(name);
    assert!(!seeds.is_empty(), "{name} has no seeds");
    for (at, seed) in seeds.iter().enumerate() {
        assert_holds(name, at as u64, seed, || check(seed));
    }
    for seed in 0..times {
        let input = Mutator::with_seed(seed).mutated(&seeds);
        assert_holds(name, seed, &input, || check(&input));
    }
}

macro_rules! damaged {
    ($($name:ident: $times:literal,)*) => {
        $(#[test] fn $name() { damaged(stringify!($name), $times); })*

        #[test]
        fn every_property_is_asked() {
            let asked = [$(stringify!($name)),*];
            assert_eq!(asked, properties::ALL.map(|(name, _)| name));
        }
    };
}

damaged! {
    kept_records: 20_000,
    postgres_session: 10_000,
    redis_commands: 10_000,
    redis_session: 10_000,
    redis_topology: 10_000,
    urls: 20_000,
}
