//! The report: sections of tables of named figures, as Markdown for people and as JSON for programs. What
//! is measured is the sections' matter.

#![allow(clippy::print_stdout, reason = "the report is the purpose")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;
use std::thread::available_parallelism;

use serde_json::{Map, Value, json};

/// All that one run measured, and on what.
pub(super) struct Report {
    machine: Machine,
    pub(super) sections: Vec<Section>,
    /// What holds on other machines too, by name.
    pub(super) ratios: BTreeMap<&'static str, f64>,
}

/// One topic.
pub(super) struct Section {
    /// Its name in the JSON.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// How it was measured and how it is to be read, in Markdown.
    pub(super) notes: &'static str,
    pub(super) tables: Vec<Table>,
}

/// One table; each row has one value per column.
pub(super) struct Table {
    /// Its name in the JSON.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) columns: Vec<Column>,
    pub(super) rows: Vec<Row>,
}

/// One column.
pub(super) struct Column {
    /// Its name in the JSON.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// The unit of its values, if it is not that of their row.
    pub(super) unit: Option<Unit>,
}

/// One figure, in each of the table's columns.
pub(super) struct Row {
    /// Its name in the JSON.
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) values: Vec<f64>,
}

/// A figure in one column, before there is a row of them.
pub(super) struct Figure {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) unit: Unit,
    pub(super) value: f64,
}

/// What a value counts.
#[derive(Clone, Copy)]
pub(super) enum Unit {
    Microseconds,
    Milliseconds,
    Seconds,
    PerSecond,
    Mebibytes,
    Calls,
    Ratio,
}

struct Machine {
    cores: usize,
    memory_gib: u64,
    kernel: String,
    /// How many processes wanted a core in the minute before.
    load: String,
}

impl Report {
    /// An empty report, of this machine.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { machine: Machine::this()?, sections: Vec::new(), ratios: BTreeMap::new() })
    }

    /// Prints the report and writes it to `directory`.
    pub(super) fn publish(&self, directory: &Path) -> io::Result<()> {
        let markdown = self.markdown();
        fs::create_dir_all(directory)?;
        fs::write(directory.join("report.md"), &markdown)?;
        fs::write(directory.join("report.json"), format!("{:#}\n", self.json()))?;
        println!("{markdown}");
        Ok(())
    }

    fn markdown(&self) -> String {
        let Machine { cores, memory_gib, kernel, load } = &self.machine;
        let mut text = format!(
            "# Benchmarks\n\n\
             `make bench` wrote this (`target/bench/report.md`, and the figures in `target/bench/report.json`): {cores} \
             cores, {memory_gib} GiB of memory, Linux {kernel}, load average {load} before the run. Everything runs on the \
             same cores: caller, parent, enclave, mock-kms and moto. Ratios hold elsewhere; times are this machine's.\n"
        );
        for section in &self.sections {
            let _ = write!(text, "\n## {}\n\n{}", section.title, section.notes);
            for table in &section.tables {
                table.write(&mut text);
            }
        }
        text
    }

    fn json(&self) -> Value {
        let Machine { cores, memory_gib, kernel, load } = &self.machine;
        let sections: Map<String, Value> = self
            .sections
            .iter()
            .map(|section| {
                let tables: Map<String, Value> =
                    section.tables.iter().map(|table| (table.name.to_owned(), table.json())).collect();
                (section.name.to_owned(), tables.into())
            })
            .collect();
        let ratios: Map<String, Value> =
            self.ratios.iter().map(|(name, ratio)| ((*name).to_owned(), rounded(*ratio))).collect();
        json!({
            "machine": { "cores": cores, "memory_gib": memory_gib, "kernel": kernel, "load": load },
            "ratios": ratios,
            "sections": sections,
        })
    }
}

impl Table {
    fn write(&self, text: &mut String) {
        let titles: Vec<&str> = self.columns.iter().map(|column| column.title).collect();
        let _ = writeln!(text, "\n| {} | {} |\n|---|{}", self.title, titles.join(" | "), "---:|".repeat(titles.len()));
        for row in &self.rows {
            let values = self.columns.iter().zip(&row.values);
            let values: Vec<String> =
                values.map(|(column, value)| column.unit.unwrap_or(row.unit).write(*value)).collect();
            let _ = writeln!(text, "| {} | {} |", row.title, values.join(" | "));
        }
    }

    fn json(&self) -> Value {
        let row = |row: &Row| {
            let mut figures: Map<String, Value> = self
                .columns
                .iter()
                .zip(&row.values)
                .map(|(column, value)| (column.name.to_owned(), rounded(*value)))
                .collect();
            figures.insert("unit".to_owned(), row.unit.name().into());
            (row.name.to_owned(), figures.into())
        };
        self.rows.iter().map(row).collect::<Map<_, _>>().into()
    }
}

fn rounded(value: f64) -> Value {
    json!((value * 1000.0).round() / 1000.0)
}

impl Unit {
    const fn name(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::Milliseconds => "ms",
            Self::Seconds => "s",
            Self::PerSecond => "1/s",
            Self::Mebibytes => "MiB",
            Self::Calls => "calls",
            Self::Ratio => "ratio",
        }
    }

    fn write(self, value: f64) -> String {
        match self {
            _ if value.is_nan() => String::new(),
            Self::Microseconds => format!("{value:.0} µs"),
            Self::Milliseconds if value < 10.0 => format!("{value:.2} ms"),
            Self::Milliseconds if value < 100.0 => format!("{value:.1} ms"),
            Self::Milliseconds => format!("{value:.0} ms"),
            Self::Seconds => format!("{value:.1} s"),
            Self::PerSecond if value < 1000.0 => format!("{value:.0}/s"),
            // Three digits of it: no run repeats more.
            Self::PerSecond if value < 10_000.0 => format!("{:.2} k/s", value / 1000.0),
            Self::PerSecond => format!("{:.1} k/s", value / 1000.0),
            Self::Mebibytes => format!("{value:.1} MiB"),
            Self::Calls => format!("{}", (value * 100.0).round() / 100.0),
            Self::Ratio => format!("{value:.2}"),
        }
    }
}

impl Machine {
    fn this() -> io::Result<Self> {
        let meminfo = fs::read_to_string("/proc/meminfo")?;
        let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let total_kib: u64 = total.and_then(|kib| kib.parse().ok()).unwrap_or_default();
        // Without what a distributor or a provider adds: that names a machine, not a kernel.
        let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let kernel = release.trim().split('-').next().unwrap_or_default().to_owned();
        let load = fs::read_to_string("/proc/loadavg")?;
        let load = load.split_whitespace().next().unwrap_or_default().to_owned();
        let cores = available_parallelism()?.get();
        Ok(Self { cores, memory_gib: (total_kib + (1 << 19)) >> 20, kernel, load })
    }
}
