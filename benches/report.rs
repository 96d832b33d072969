//! The one table of a run.

use std::fmt::Write as _;

use serde::Serialize;

use crate::Result;

/// One figure.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// What was measured.
    pub figure: String,
    /// How much.
    pub value: f64,
    /// Of what.
    pub unit: &'static str,
    /// The bound that this machine sets, in the same unit.
    pub ceiling: Option<f64>,
    /// What the value should be.
    pub aim: String,
    /// Whether it is.
    pub met: Option<bool>,
    /// What else there is to say.
    pub note: String,
}

impl Row {
    /// A figure without an aim.
    pub fn new(figure: impl Into<String>, value: f64, unit: &'static str) -> Self {
        Self {
            figure: figure.into(),
            value,
            unit,
            ..Self::default()
        }
    }

    /// The bound beside it.
    pub fn ceiling(mut self, ceiling: f64) -> Self {
        self.ceiling = Some(ceiling);
        self
    }

    /// The aim that the value is at most this.
    pub fn at_most(mut self, aim: f64) -> Self {
        self.aim = format!("≤ {}", number(aim));
        self.met = Some(self.value <= aim);
        self
    }

    /// The aim that the value is at least this.
    pub fn at_least(mut self, aim: f64) -> Self {
        self.aim = format!("≥ {}", number(aim));
        self.met = Some(self.value >= aim);
        self
    }

    /// A remark.
    pub fn note(mut self, note: impl Into<String>) -> Self {
        self.note = note.into();
        self
    }
}

/// All figures so far.
#[derive(Default)]
pub struct Report {
    rows: Vec<Row>,
}

impl Report {
    /// Adds a figure, and shows it at once.
    pub fn add(&mut self, row: Row) {
        let met = row.met.map_or("", |met| if met { " met" } else { " MISSED" });
        let ceiling = row
            .ceiling
            .map_or(String::new(), |ceiling| format!(" (ceiling {})", number(ceiling)));
        eprintln!(
            "  {}: {} {}{ceiling} {}{met} {}",
            row.figure,
            number(row.value),
            row.unit,
            row.aim,
            row.note
        );
        self.rows.push(row);
    }

    /// The table as Markdown.
    pub fn markdown(&self) -> String {
        let mut cells = vec![["figure", "value", "unit", "ceiling", "aim", "", "note"].map(str::to_owned)];
        for row in &self.rows {
            cells.push([
                row.figure.clone(),
                number(row.value),
                row.unit.to_owned(),
                row.ceiling.map(number).unwrap_or_default(),
                row.aim.clone(),
                row.met
                    .map_or("", |met| if met { "met" } else { "**missed**" })
                    .to_owned(),
                row.note.clone(),
            ]);
        }
        let widths: Vec<usize> = (0..cells[0].len())
            .map(|at| cells.iter().map(|row| row[at].chars().count()).max().unwrap_or(0))
            .collect();
        let mut out = String::new();
        for (at, row) in cells.iter().enumerate() {
            out.push('|');
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(out, " {cell:<width$} |");
            }
            out.push('\n');
            if at == 0 {
                let lines: Vec<String> = widths.iter().map(|width| "-".repeat(width + 2)).collect();
                let _ = writeln!(out, "|{}|", lines.join("|"));
            }
        }
        out
    }

    /// The figures as JSON.
    pub fn json(&self) -> Result<String> {
        Ok(serde_json::to_string(&self.rows)?)
    }
}

/// A number with three figures that count.
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    let text = format!("{value:.digits$}");
    let (whole, rest) = text
        .split_once('.')
        .map_or((text.as_str(), ""), |(whole, rest)| (whole, rest));
    let mut grouped = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) && digit.is_ascii_digit() && whole.len() > 4 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    if rest.is_empty() {
        grouped
    } else {
        format!("{grouped}.{rest}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.1234, "0.123"),
            (5.678, "5.68"),
            (1234.5, "1234"),
            (123_456.0, "123,456"),
        ] {
            assert_eq!(number(value), text);
        }
    }

    #[test]
    fn aims_are_judged() {
        assert_eq!(Row::new("x", 2.0, "ms").at_most(3.0).met, Some(true));
        assert_eq!(Row::new("x", 2.0, "ms").at_least(3.0).met, Some(false));
    }
}
