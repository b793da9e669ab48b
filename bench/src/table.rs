//! Figures, for people and for programs.
use crate::{BenchError, trying};
use serde::Serialize;
use serde_json::{Map, Value};
use std::path::Path;

/// Figures of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Table {
    /// What was measured.
    pub title: String,
    /// One object for each row.
    pub rows: Vec<Map<String, Value>>,
    #[serde(skip)]
    columns: Vec<&'static str>,
}

impl Table {
    /// An empty table.
    pub fn new(title: &str, columns: &[&'static str]) -> Table {
        Table { title: title.to_owned(), rows: Vec::new(), columns: columns.to_vec() }
    }

    /// Adds a row with a value for each column.
    pub fn push<const N: usize>(&mut self, values: [Value; N]) {
        debug_assert_eq!(N, self.columns.len(), "a value for each column");
        self.rows.push(self.columns.iter().map(|name| (*name).to_owned()).zip(values).collect());
    }

    /// The table for people: texts to the left, numbers to the right.
    pub fn text(&self) -> String {
        let cell = |value: Option<&Value>| match value {
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_f64() => format!("{:.3}", number.as_f64().unwrap_or(0.0)),
            Some(value) => value.to_string(),
            None => String::new(),
        };
        let mut lines: Vec<Vec<String>> = vec![self.columns.iter().map(|name| (*name).to_owned()).collect()];
        lines.extend(self.rows.iter().map(|row| self.columns.iter().map(|name| cell(row.get(*name))).collect()));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let mut out = format!("{}\n", self.title);
        for line in &lines {
            for (column, text) in line.iter().enumerate() {
                let is_text = self.rows.iter().any(|row| row.get(self.columns[column]).is_some_and(Value::is_string));
                let width = widths[column];
                out.push_str(&if is_text { format!("  {text:<width$}") } else { format!("  {text:>width$}") });
            }
            out.truncate(out.trim_end().len());
            out.push('\n');
        }
        out
    }

    /// Writes the rows as JSON, if a file was named.
    pub fn write_json(&self, path: Option<&Path>) -> Result<(), BenchError> {
        let Some(path) = path else { return Ok(()) };
        let text = serde_json::to_vec_pretty(self).map_err(trying("JSON"))?;
        std::fs::write(path, text).map_err(trying(&path.display().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up() {
        let mut table = Table::new("t", &["name", "n", "x"]);
        table.push(["a".into(), 12_000.into(), 0.5.into()]);
        table.push(["long".into(), 7.into(), 1.25.into()]);
        assert_eq!(table.text(), "t\n  name      n      x\n  a     12000  0.500\n  long      7  1.250\n");
    }
}
