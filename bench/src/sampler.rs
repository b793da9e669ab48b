//! Nanoseconds of one call (or of each of the units a call does), by batches long enough for the clock and many enough for a median.
use crate::machine;
use crate::table::Table;
use hdrhistogram::Histogram;

/// A batch lasts at least this long, so that reading the clock is not what is measured.
const BATCH_NS_MIN: u64 = 200_000;
/// Calls of one batch, at most.
const BATCH_CALLS_MAX: u64 = 1 << 24;
/// The histogram holds picoseconds, so that a call of a few nanoseconds keeps its digits.
const PICOSECONDS_MAX: u64 = 10_000_000_000_000;

/// What is measured, and for how long.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Milliseconds for each row.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    pub row_ms: u64,
    /// Only rows whose name contains this.
    #[arg(long, default_value = "")]
    pub only: String,
}

/// One function to measure.
pub struct Row {
    /// What it does, with the size of its input.
    pub name: &'static str,
    /// What the figure is of: so many of them are done by a call.
    pub units: u64,
    /// Calls it once. Inputs and results must go through [`std::hint::black_box`].
    pub call: Box<dyn FnMut()>,
}

impl Row {
    /// A row whose figure is of one call.
    pub fn new(name: &'static str, call: impl FnMut() + 'static) -> Row {
        Row::of_units(name, 1, call)
    }

    /// A row whose figure is of each of the `units` that a call does.
    pub fn of_units(name: &'static str, units: u64, call: impl FnMut() + 'static) -> Row {
        Row { name, units, call: Box::new(call) }
    }
}

/// Measures the rows that were asked for and returns the medians and the spread of their batches.
pub fn measure(title: &str, mut rows: Vec<Row>, args: &Args) -> Table {
    rows.retain(|row| row.name.contains(&args.only));
    let mut table = Table::new(title, &["name", "median_ns", "p10_ns", "p90_ns", "batches", "calls_per_batch"]);
    for mut row in rows {
        let calls = calibrate(&mut *row.call);
        let mut batches = histogram();
        let until_ns = machine::now_ns() + args.row_ms * 1_000_000;
        while machine::now_ns() < until_ns || batches.is_empty() {
            let nanoseconds = batch(&mut *row.call, calls);
            batches.saturating_record(nanoseconds * 1_000 / (calls * row.units));
        }
        let at = |quantile: f64| batches.value_at_quantile(quantile) as f64 / 1e3;
        let count = batches.len();
        table.push([row.name.into(), at(0.5).into(), at(0.1).into(), at(0.9).into(), count.into(), calls.into()]);
    }
    table
}

fn histogram() -> Histogram<u64> {
    // The bounds are constants the constructor accepts.
    Histogram::new_with_bounds(1, PICOSECONDS_MAX, 3).unwrap_or_else(|_| unreachable!("constant bounds"))
}

/// How many calls make a batch. Doubling up to there also warms the caches.
fn calibrate(call: &mut dyn FnMut()) -> u64 {
    let mut calls = 1;
    while calls < BATCH_CALLS_MAX && batch(call, calls) < BATCH_NS_MIN {
        calls *= 2;
    }
    calls
}

fn batch(call: &mut dyn FnMut(), calls: u64) -> u64 {
    let start_ns = machine::now_ns();
    for _ in 0..calls {
        call();
    }
    machine::now_ns() - start_ns
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;
    use std::rc::Rc;

    #[test]
    fn every_row_is_called_and_reported() {
        let called = Rc::new(Cell::new(0u64));
        let counter = Rc::clone(&called);
        let rows = vec![
            Row::new("count", move || counter.set(counter.get() + 1)),
            Row::new("other", || panic!("it was not asked for")),
        ];
        let table = measure("t", rows, &Args { row_ms: 0, only: "cou".to_owned() });
        assert_eq!(table.rows.len(), 1);
        let row = &table.rows[0];
        assert_eq!((row["name"].as_str(), row["batches"].as_u64()), (Some("count"), Some(1)));
        assert!(called.get() >= row["calls_per_batch"].as_u64().unwrap());
    }
}
