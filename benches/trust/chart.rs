//! Curves over time, drawn as an SVG.

use std::fmt::Write as _;

/// One pair of axes.
pub(super) struct Panel {
    /// What is above it.
    pub(super) title: String,
    /// A curve's name and its points: seconds and values.
    pub(super) curves: Vec<(String, Vec<(f64, f64)>)>,
}

/// The panels, one below the other, with a mark at each of `marks`.
pub(super) fn draw(title: &str, panels: &[Panel], marks: &[f64]) -> String {
    let end = panels
        .iter()
        .flat_map(|panel| panel.curves.iter().flat_map(|(_, points)| points))
        .fold(1.0, |end: f64, &(time, _)| end.max(time));
    let height = 50.0 + PANEL * panels.len() as f64 + 30.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"13\" role=\"img\">\n\
         <title>{title}</title>\n<rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#fff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" fill=\"#222\">{title}</text>\n"
    );
    let x = |time: f64| LEFT + time / end * (WIDTH - LEFT - RIGHT);
    for (number, panel) in panels.iter().enumerate() {
        let top = 50.0 + PANEL * number as f64;
        let (low, high) = (top + 24.0, top + PANEL - 26.0);
        let values = panel.curves.iter().flat_map(|(_, points)| points);
        let most = values.fold(0.0, |most: f64, &(_, value)| most.max(value));
        let step = step_of(most);
        let top_value = (most / step).ceil().max(1.0) * step;
        let y = |value: f64| high - value / top_value * (high - low);
        let _ = writeln!(
            svg,
            "<text x=\"{LEFT}\" y=\"{}\" fill=\"#222\">{}</text>",
            top + 14.0,
            panel.title
        );
        let mut value = 0.0;
        while value <= top_value * 1.001 {
            let at = y(value);
            let _ = writeln!(
                svg,
                "<path d=\"M{LEFT} {at:.1}H{}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\" fill=\"#555\">{value}</text>",
                WIDTH - RIGHT,
                LEFT - 6.0,
                at + 4.0
            );
            value += step;
        }
        for &mark in marks {
            let _ = writeln!(
                svg,
                "<path d=\"M{:.1} {low}V{high}\" stroke=\"#bbb\" stroke-dasharray=\"2 3\"/>",
                x(mark)
            );
        }
        for (which, (name, points)) in panel.curves.iter().enumerate() {
            let colour = COLOURS[which % COLOURS.len()];
            let line: String = points
                .iter()
                .filter(|(_, value)| value.is_finite())
                .map(|&(time, value)| format!("{:.1},{:.1} ", x(time), y(value)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>\
                 <text x=\"{}\" y=\"{}\" fill=\"{colour}\" text-anchor=\"end\">{name}</text>",
                line.trim_end(),
                WIDTH - RIGHT - 150.0 * which as f64,
                top + 14.0
            );
        }
    }
    let bottom = 50.0 + PANEL * panels.len() as f64;
    let step = step_of(end / 60.0);
    let (unit, name, step) = if end >= 120.0 {
        (60.0, "min", step)
    } else {
        (1.0, "s", step_of(end))
    };
    let mut time = 0.0;
    while time * unit <= end * 1.001 {
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\" fill=\"#555\">{time} {name}</text>",
            x(time * unit),
            bottom + 4.0
        );
        time += step;
    }
    svg + "</svg>\n"
}

/// Round steps, four or so of them to `most`.
fn step_of(most: f64) -> f64 {
    let rough = (most / 4.0).max(1e-3);
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .find(|it| it * power >= rough);
    step.unwrap_or(10.0) * power
}

const WIDTH: f64 = 900.0;
const PANEL: f64 = 190.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 36.0;
const COLOURS: [&str; 3] = ["#0b6bcb", "#c2410c", "#15803d"];
