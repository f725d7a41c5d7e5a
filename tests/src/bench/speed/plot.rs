//! The plot: rates over requests in flight, against the bare loop.

use std::io;
use std::path::Path;

use plotters::prelude::*;

use super::raw::Raw;
use super::rest::Load;

/// Draws it to `path`.
pub(super) fn write(path: &Path, loads: &[Load], raw: &Raw) -> io::Result<()> {
    draw(path, loads, raw).map_err(|error| io::Error::other(error.to_string()))
}

fn draw(path: &Path, loads: &[Load], raw: &Raw) -> Result<(), Box<dyn std::error::Error>> {
    let singles: Vec<_> = loads.iter().filter(|load| load.name.starts_with("rest_")).collect();
    let points = || singles.iter().map(|load| (load.in_flight as f64, load.rate() / 1000.0));
    let limit = raw.two_threads(0) / 1000.0;
    let top = loads.iter().map(|load| load.rate() / 1000.0).fold(limit, f64::max) * 1.1;
    let root = SVGBackend::new(path, (800, 480)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption("ECDSA signatures per second, key held, check on", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(60)
        .build_cartesian_2d((0.9..300.0).log_scale(), 0.0..top)?;
    chart
        .configure_mesh()
        .x_desc("requests in flight")
        .y_desc("thousands per second")
        .x_label_formatter(&|n| format!("{n:.0}"))
        .draw()?;
    chart
        .draw_series(LineSeries::new(points(), BLUE.stroke_width(2)).point_size(3))?
        .label("REST, HTTP/1.1")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], BLUE));
    for (name, label, color) in [("h2c_64", "REST, HTTP/2", GREEN), ("batch_1000", "batches of 1,000 (any)", MAGENTA)] {
        let Some(load) = loads.iter().find(|load| load.name == name) else { continue };
        let line = [(0.9, load.rate() / 1000.0), (300.0, load.rate() / 1000.0)];
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(1)))?
            .label(label)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color));
    }
    chart
        .draw_series(LineSeries::new([(0.9, limit), (300.0, limit)], RED.stroke_width(1)))?
        .label("two threads of the bare loop")
        .legend(|(x, y)| PathElement::new([(x, y), (x + 20, y)], RED));
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    root.present()?;
    Ok(())
}
