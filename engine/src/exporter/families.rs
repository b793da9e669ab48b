//! Writing metric families, one call each.
use prometheus_client::encoding::{DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, NoLabelSet};
use prometheus_client::metrics::MetricType;
use shards::metrics::Histogram;
use std::fmt::Result;

/// Names and values of labels.
pub(super) type Labels<'a> = &'a [(&'a str, &'a str)];

/// A histogram read and, where it has several writers, added up.
pub(super) struct Reading {
    bounds: &'static [f64],
    counts: Vec<u64>,
    sum: f64,
}

impl Reading {
    /// Nothing observed.
    pub(super) fn empty(bounds: &'static [f64]) -> Reading {
        Reading { bounds, counts: vec![0; bounds.len() + 1], sum: 0.0 }
    }

    /// Counts by bound, with one more for what is above the last, and the sum of all values.
    pub(super) fn new(bounds: &'static [f64], counts: Vec<u64>, sum: f64) -> Reading {
        Reading { bounds, counts, sum }
    }

    /// Histograms over the same bounds, added up.
    pub(super) fn of<'a, const N: usize>(
        bounds: &'static [f64; N],
        histograms: impl Iterator<Item = &'a Histogram<N>>,
    ) -> Reading {
        let mut total = Reading::empty(bounds);
        for histogram in histograms {
            let (counts, sum) = histogram.read();
            for (all, count) in total.counts.iter_mut().zip(counts) {
                *all += count;
            }
            total.sum += sum;
        }
        total
    }
}

/// Families, as they are written one after another.
pub(super) struct Families<'a>(pub(super) DescriptorEncoder<'a>);

impl Families<'_> {
    /// One level.
    pub(super) fn gauge(&mut self, name: &str, help: &str, value: impl EncodeGaugeValue) -> Result {
        self.0.encode_descriptor(name, help, None, MetricType::Gauge)?.encode_gauge(&value)
    }

    /// One level for each set of labels.
    pub(super) fn gauges<'l, V: EncodeGaugeValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_gauge(&value)?;
        }
        Ok(())
    }

    /// One count; `name` is the full one, with `_total`.
    pub(super) fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Result {
        self.0
            .encode_descriptor(base(name), help, None, MetricType::Counter)?
            .encode_counter::<NoLabelSet, _, u64>(&value, None)
    }

    /// One count for each set of labels; `name` is the full one, with `_total`.
    pub(super) fn counters<'l, V: EncodeCounterValue>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, V)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(base(name), help, None, MetricType::Counter)?;
        for (labels, value) in rows {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&value, None)?;
        }
        Ok(())
    }

    /// One histogram.
    pub(super) fn histogram(&mut self, name: &str, help: &str, reading: &Reading) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        let (buckets, count) = buckets(reading);
        family.encode_histogram::<NoLabelSet>(reading.sum, count, &buckets, None)
    }

    /// One histogram for each set of labels.
    pub(super) fn histograms<'l>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (Labels<'l>, Reading)>,
    ) -> Result {
        let mut family = self.0.encode_descriptor(name, help, None, MetricType::Histogram)?;
        for (labels, reading) in rows {
            let (buckets, count) = buckets(&reading);
            family.encode_family(&labels)?.encode_histogram::<NoLabelSet>(reading.sum, count, &buckets, None)?;
        }
        Ok(())
    }
}

/// The library appends `_total` to counters by itself.
fn base(name: &str) -> &str {
    debug_assert!(name.ends_with("_total"), "{name} is a counter and must end in _total");
    name.strip_suffix("_total").unwrap_or(name)
}

/// Bounds with their own counts (the library adds them up), and the count of all.
fn buckets(reading: &Reading) -> (Vec<(f64, u64)>, u64) {
    let bounds = reading.bounds.iter().copied().chain([f64::INFINITY]);
    (bounds.zip(reading.counts.iter().copied()).collect(), reading.counts.iter().sum())
}
