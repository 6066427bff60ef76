//! Figures, their summary, and how they are shown: a table for people, JSON for programs.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

use crate::Result;
use crate::subject::Pair;

/// Ratios within this distance of 1 are called level: less than the noise between two runs.
const LEVEL: f64 = 0.02;

/// Which direction is an improvement.
#[derive(Clone, Copy, PartialEq)]
pub enum Better {
    Lower,
    Higher,
}

/// The figure shown for one side, and the smallest and largest figure seen.
#[derive(Clone, Copy)]
pub struct Summary {
    pub value: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// What a side that could not be measured has.
    pub const NONE: Self = Self { value: f64::NAN, min: f64::NAN, max: f64::NAN };

    /// The median of repeated measurements, with their extremes. Panics never: no samples give NaN.
    pub fn median(samples: &[f64]) -> Self {
        Self { value: quantile(samples, 0.5), min: quantile(samples, 0.0), max: quantile(samples, 1.0) }
    }

    /// The q-quantile of all samples; the spread is that of the same quantile within each block.
    pub fn quantile(blocks: &[Vec<f64>], q: f64) -> Self {
        let per_block: Vec<f64> = blocks.iter().map(|b| quantile(b, q)).collect();
        let value = quantile(&blocks.concat(), q);
        Self { value, min: quantile(&per_block, 0.0), max: quantile(&per_block, 1.0) }
    }

    fn to_json(self) -> Value {
        json!({"value": self.value, "min": self.min, "max": self.max})
    }
}

/// The q-quantile, interpolated between neighbours; NaN for an empty list.
pub fn quantile(samples: &[f64], q: f64) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    // Casts are exact here: lengths are far below 2^52.
    let rank = q * sorted.len().saturating_sub(1) as f64;
    let at = |place: f64| sorted.get(place as usize).copied().unwrap_or(f64::NAN);
    let (below, above) = (at(rank.floor()), at(rank.ceil()));
    below + (above - below) * rank.fract()
}

/// One line of the table.
pub struct Row {
    pub name: &'static str,
    pub unit: &'static str,
    pub better: Better,
    pub sides: Pair<Summary>,
    pub notes: Vec<String>,
    /// Sides that could not be measured, each with its reason; their figures are NaN.
    pub failures: Vec<String>,
}

impl Row {
    /// A row whose figures are the medians of repeated measurements.
    pub fn of_medians(name: &'static str, unit: &'static str, better: Better, samples: &Pair<Vec<f64>>) -> Self {
        let sides = Pair { ours: Summary::median(&samples.ours), reference: Summary::median(&samples.reference) };
        Self::new(name, unit, better, sides)
    }

    /// A row that the reference can't have.
    pub fn ours_only(name: &'static str, unit: &'static str, better: Better, ours: Summary) -> Self {
        Self::new(name, unit, better, Pair { ours, reference: Summary::NONE })
    }

    /// A row without notes.
    pub fn new(name: &'static str, unit: &'static str, better: Better, sides: Pair<Summary>) -> Self {
        Self { name, unit, better, sides, notes: Vec::new(), failures: Vec::new() }
    }

    /// Adds a line that is printed below the table.
    pub fn note(mut self, text: String) -> Self {
        self.notes.push(text);
        self
    }

    /// Ours divided by the reference.
    fn ratio(&self) -> f64 {
        self.sides.ours.value / self.sides.reference.value
    }

    /// "better", "worse" or "level"; with a question mark when the spreads of the two sides overlap; "ours only" when the
    /// reference has no such thing.
    fn verdict(&self) -> &'static str {
        let (ratio, ours, reference) = (self.ratio(), self.sides.ours, self.sides.reference);
        if !ratio.is_finite() {
            return if self.failures.is_empty() && ours.value.is_finite() { "ours only" } else { "unknown" };
        }
        if (ratio - 1.0).abs() <= LEVEL {
            return "level";
        }
        let overlap = ours.min <= reference.max && reference.min <= ours.max;
        match ((ratio < 1.0) == (self.better == Better::Lower), overlap) {
            (true, false) => "better",
            (true, true) => "better?",
            (false, false) => "worse",
            (false, true) => "worse?",
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "row": self.name, "unit": self.unit,
            "betterIs": if self.better == Better::Lower { "lower" } else { "higher" },
            "ours": self.sides.ours.to_json(), "reference": self.sides.reference.to_json(),
            "ratio": self.ratio(), "verdict": self.verdict(), "notes": self.notes, "failures": self.failures,
        })
    }
}

/// Everything one run found.
#[derive(Default)]
pub struct Report {
    /// Name and value, in the order shown.
    pub header: Vec<(&'static str, String)>,
    pub rows: Vec<Row>,
    /// Groups that could not be measured: name and reason.
    pub failures: Vec<(&'static str, String)>,
}

impl Report {
    /// Whether every row has a figure for both sides.
    pub fn is_complete(&self) -> bool {
        self.failures.is_empty() && self.rows.iter().all(|row| row.failures.is_empty())
    }

    /// The table with its header, notes and failures.
    pub fn print(&self) {
        for (name, value) in &self.header {
            println!("{name:<10} {value}");
        }
        println!();
        let titles = ["row", "unit", "ours", "reference", "ratio", "", "ours min..max", "reference min..max"];
        let mut lines = vec![titles.map(str::to_owned)];
        lines.extend(self.rows.iter().map(cells));
        let widths: [usize; 8] = std::array::from_fn(|c| lines.iter().map(|l| l[c].len()).max().unwrap_or(0));
        for line in &lines {
            print_line(line, &widths);
        }
        println!();
        for row in &self.rows {
            for note in &row.notes {
                println!("note: {}: {note}", row.name);
            }
        }
        for row in &self.rows {
            for reason in &row.failures {
                println!("FAILED: {}: {reason}", row.name);
            }
        }
        for (group, reason) in &self.failures {
            println!("FAILED: {group}: {reason}");
        }
    }

    /// Writes the same as JSON.
    pub fn write_json(&self, path: &Path) -> Result<()> {
        let header: serde_json::Map<String, Value> =
            self.header.iter().map(|(k, v)| ((*k).to_owned(), Value::from(v.as_str()))).collect();
        let failures: Vec<Value> = self.failures.iter().map(|(g, r)| json!({"group": g, "reason": r})).collect();
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let all = json!({"header": header, "rows": rows, "failures": failures});
        fs::write(path, format!("{all:#}\n")).map_err(|e| format!("{}: {e}", path.display()))?;
        Ok(())
    }
}

fn cells(row: &Row) -> [String; 8] {
    let (ours, reference) = (row.sides.ours, row.sides.reference);
    let ratio = if row.ratio().is_finite() { format!("{:.3}", row.ratio()) } else { "-".to_owned() };
    [
        row.name.to_owned(),
        row.unit.to_owned(),
        show(ours.value),
        show(reference.value),
        ratio,
        row.verdict().to_owned(),
        format!("{}..{}", show(ours.min), show(ours.max)),
        format!("{}..{}", show(reference.min), show(reference.max)),
    ]
}

fn print_line(line: &[String; 8], widths: &[usize; 8]) {
    let mut text = String::new();
    for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
        let padded = if column < 2 { format!("{cell:<width$}  ") } else { format!("{cell:>width$}  ") };
        text.push_str(&padded);
    }
    println!("{}", text.trim_end());
}

/// About four significant digits.
fn show(value: f64) -> String {
    match value.abs() {
        v if !v.is_finite() => "-".to_owned(),
        v if v >= 1000.0 => format!("{value:.0}"),
        v if v >= 100.0 => format!("{value:.1}"),
        v if v >= 10.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}
