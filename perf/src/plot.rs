//! Pictures, as SVG.

use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::ValueFormatter;
use plotters::prelude::*;

/// A named row of points.
#[derive(Clone, Debug)]
pub struct Curve {
    /// What it is.
    pub name: String,
    /// Its points, by x.
    pub points: Vec<(f64, f64)>,
}

/// The contents of a picture.
#[derive(Clone, Copy, Debug)]
pub struct Labels<'a> {
    /// Above it.
    pub title: &'a str,
    /// Below it.
    pub x: &'a str,
    /// Beside it.
    pub y: &'a str,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const SIZE: (u32, u32) = (900, 520);

fn told(file: &Path) -> impl Fn(DrawingAreaErrorKind<std::io::Error>) -> String {
    let name = file.display().to_string();
    move |error| format!("plot {name}: {error}")
}

fn range(curves: &[Curve], pick: impl Fn(&(f64, f64)) -> f64) -> Option<(f64, f64)> {
    let values = || curves.iter().flat_map(|curve| &curve.points).map(&pick).filter(|v| v.is_finite());
    let least = values().reduce(f64::min)?;
    Some((least, values().reduce(f64::max)?))
}

fn colour(index: usize) -> RGBColor {
    [RGBColor(31, 119, 180), RGBColor(214, 39, 40), RGBColor(44, 160, 44), RGBColor(148, 103, 189)][index % 4]
}

/// Points joined by lines: x logarithmic, y from zero.
///
/// # Errors
/// A sentence that names the file.
pub fn lines(file: &Path, labels: Labels<'_>, curves: &[Curve]) -> Result<(), String> {
    let (Some(x), Some(y)) = (range(curves, |p| p.0), range(curves, |p| p.1)) else {
        return Err(format!("plot {}: there is nothing to show", file.display()));
    };
    let area: Area<'_> = SVGBackend::new(file, SIZE).into_drawing_area();
    let span = (x.0 * 0.9..(x.1 * 1.1).max(x.0 * 1.2)).log_scale();
    draw(&area, labels, span, 0.0..y.1 * 1.15, curves, &|x| crate::report::short(*x).trim_end().to_owned())
        .and_then(|()| area.present())
        .map_err(told(file))
}

/// Panels below each other, each with points joined by lines: both axes linear and from zero.
///
/// # Errors
/// A sentence that names the file.
pub fn over_time(file: &Path, panels: &[(Labels<'_>, Vec<Curve>)]) -> Result<(), String> {
    let area: Area<'_> = SVGBackend::new(file, SIZE).into_drawing_area();
    for (part, (labels, curves)) in area.split_evenly((panels.len().max(1), 1)).iter().zip(panels) {
        let (Some(x), Some(y)) = (range(curves, |p| p.0), range(curves, |p| p.1)) else {
            return Err(format!("plot {}: there is nothing to show", file.display()));
        };
        let (span, height) = (0.0..x.1.max(1e-3), 0.0..(y.1 * 1.15).max(1.0));
        draw(part, *labels, span, height, curves, &|x| format!("{x}")).map_err(told(file))?;
    }
    area.present().map_err(told(file))
}

/// Distributions of latency: the share of deliveries on a scale of nines, microseconds on a logarithmic one.
///
/// # Errors
/// A sentence that names the file.
pub fn distributions(file: &Path, title: &str, curves: &[Curve]) -> Result<(), String> {
    let nines = |share: f64| 1.0 / (1.0 - share.min(0.999_999_9));
    let curves: Vec<Curve> = curves
        .iter()
        .map(|curve| {
            let points = curve.points.iter().map(|(share, ns)| (nines(*share), (ns / 1e3).max(0.001)));
            Curve { name: curve.name.clone(), points: points.collect() }
        })
        .collect();
    let (Some(x), Some(y)) = (range(&curves, |p| p.0), range(&curves, |p| p.1)) else {
        return Err(format!("plot {}: there is nothing to show", file.display()));
    };
    let area: Area<'_> = SVGBackend::new(file, SIZE).into_drawing_area();
    let labels = Labels { title, x: "percentile", y: "microseconds" };
    let span = (1.0..x.1.max(10.0)).log_scale();
    let height = (y.0 * 0.8..(y.1 * 1.3).max(y.0 * 2.0)).log_scale();
    draw(&area, labels, span, height, &curves, &|x| format!("{}", percent(*x)))
        .and_then(|()| area.present())
        .map_err(told(file))
}

/// 10 is 90, 100 is 99, 1000 is 99.9, rounded so that the float does not show.
fn percent(nines: f64) -> f64 {
    ((1.0 - 1.0 / nines) * 1e7).round() / 1e5
}

fn draw<X, Y>(
    area: &Area<'_>,
    labels: Labels<'_>,
    x: X,
    y: Y,
    curves: &[Curve],
    x_label: &dyn Fn(&f64) -> String,
) -> Result<(), DrawingAreaErrorKind<std::io::Error>>
where
    X: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    Y: plotters::coord::ranged1d::AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(labels.title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(x, y)?;
    chart.configure_mesh().x_desc(labels.x).y_desc(labels.y).x_label_formatter(x_label).draw()?;
    for (index, curve) in curves.iter().enumerate() {
        let colour = colour(index);
        let line = LineSeries::new(curve.points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)?
            .label(&curve.name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        if curve.points.len() <= 20 {
            chart.draw_series(curve.points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK).draw()?;
    Ok(())
}
