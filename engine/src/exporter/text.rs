//! OpenMetrics text, as our library writes it, turned into Prometheus text 0.0.4, as every scraper reads it.
use std::collections::BTreeMap;

/// Gives counters the name of their samples (`…_total`), drops `# EOF` and units, and sorts families by name.
pub(super) fn to_prometheus(open_metrics: &str) -> String {
    let mut families: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut name = String::new();
    for line in open_metrics.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            // HELP comes first of each family, but only TYPE tells whether it is a counter.
            name = rest.split(' ').next().unwrap_or_default().to_owned();
            families.insert(name.clone(), vec![line.to_owned()]);
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            if let Some(base) = rest.strip_suffix(" counter")
                && let Some(lines) = families.remove(base)
            {
                name = format!("{base}_total");
                let renamed = lines.iter().map(|line| line.replacen(base, &name, 1));
                families.insert(name.clone(), renamed.chain([format!("# TYPE {name} counter")]).collect());
            } else if let Some(lines) = families.get_mut(&name) {
                lines.push(line.to_owned());
            }
        } else if !line.starts_with('#')
            && let Some(lines) = families.get_mut(&name)
        {
            lines.push(line.to_owned());
        }
    }
    let mut out = String::with_capacity(open_metrics.len() + 1024);
    for line in families.values().flatten() {
        out.push_str(line);
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_renamed_and_families_sorted() {
        let open_metrics = "\
# HELP b Some b.
# TYPE b counter
b_total{kind=\"x\"} 1
b_total{kind=\"y\"} 2
# HELP a_seconds Some a.
# TYPE a_seconds histogram
# UNIT a_seconds seconds
a_seconds_sum 0.0
a_seconds_count 0
a_seconds_bucket{le=\"+Inf\"} 0
# HELP b_x Some gauge.
# TYPE b_x gauge
b_x 1
# EOF
";
        let prometheus = "\
# HELP a_seconds Some a.
# TYPE a_seconds histogram
a_seconds_sum 0.0
a_seconds_count 0
a_seconds_bucket{le=\"+Inf\"} 0
# HELP b_total Some b.
# TYPE b_total counter
b_total{kind=\"x\"} 1
b_total{kind=\"y\"} 2
# HELP b_x Some gauge.
# TYPE b_x gauge
b_x 1
";
        assert_eq!(to_prometheus(open_metrics), prometheus);
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(to_prometheus("# EOF\n"), "");
    }
}
