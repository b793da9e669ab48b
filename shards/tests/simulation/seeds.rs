//! Which seeds a test runs: a few in the ordinary run, as many as asked for by `ARA_SEEDS`, one alone by `ARA_SEED`.

/// Runs a world for each seed. A failure says how to run its seed alone.
pub(crate) fn for_each_seed(few: u64, mut run: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number of seeds"));
    let seeds = match (number("ARA_SEED"), number("ARA_SEEDS")) {
        (Some(one), _) => one..one + 1,
        (None, many) => 0..many.unwrap_or(few),
    };
    for seed in seeds {
        let words = Words(seed);
        run(seed);
        std::mem::forget(words);
    }
}

/// Said when a seed's world panics.
struct Words(u64);

impl Drop for Words {
    fn drop(&mut self) {
        let test = std::thread::current().name().unwrap_or("the name of this test").to_owned();
        eprintln!("seed {0} alone: ARA_SEED={0} cargo nextest run -p shards --test simulation '{test}'", self.0);
    }
}
