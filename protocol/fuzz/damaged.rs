//! One test a property: it is asked of the seeds of its fuzz target, and of damaged ones.
use crate::mutate::{Mutator, assert_holds, seeds};

/// A property, by the name of its fuzz target.
type Property = (&'static str, fn(&[u8]));

/// Asks the property `name` of each seed, and of damaged ones so many times.
pub(crate) fn ask(all: &[Property], name: &str, times: u64) {
    let property = all.iter().find(|(known, _)| *known == name);
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

/// The tests of all properties, and one that none was left out.
macro_rules! damaged {
    ($all:path: $($name:ident: $times:literal,)*) => {
        $(#[test] fn $name() { $crate::damaged::ask(&$all, stringify!($name), $times); })*

        #[test]
        fn every_property_is_asked() {
            let asked = [$(stringify!($name)),*];
            assert_eq!(asked, $all.map(|(name, _)| name));
        }
    };
}
pub(crate) use damaged;
