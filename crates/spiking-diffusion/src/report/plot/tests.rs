use image::RgbImage;

use super::*;

type TestResult<T = ()> = std::result::Result<T, Box<dyn std::error::Error>>;

fn drawn(charts: &[Chart]) -> TestResult<RgbImage> {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("plot.png");
    save(&path, charts, 1)?;
    Ok(image::open(&path)?.into_rgb8())
}

fn count(picture: &RgbImage, wanted: impl Fn(Color) -> bool) -> usize {
    picture.pixels().filter(|pixel| wanted(pixel.0)).count()
}

fn ink(picture: &RgbImage) -> usize {
    count(picture, |[r, g, b]| r == g && g == b && r < 120)
}

#[test]
fn titles_and_labels_are_drawn() -> TestResult {
    let blank = ink(&drawn(&[Chart::new("", "", "")])?);
    for chart in [Chart::new("A title", "", ""), Chart::new("", "step", ""), Chart::new("", "", "loss")] {
        assert!(ink(&drawn(std::slice::from_ref(&chart))?) > blank + 50, "{chart:?}");
    }
    Ok(())
}

#[test]
fn a_series_is_drawn_in_its_colour_and_named() -> TestResult {
    let line = |name: &str, mark| {
        Chart::new("", "x", "y").with(Series::new(name, PALETTE[1], [(0., 0.), (1., 1.)]).mark(mark))
    };
    let pixels = |name: &str, mark| {
        Ok::<_, Box<dyn std::error::Error>>(count(&drawn(&[line(name, mark)])?, |c| c == PALETTE[1]))
    };
    let (full, dashed, dots) = (pixels("", Mark::Line)?, pixels("", Mark::Dashed)?, pixels("", Mark::Dots)?);
    assert!(
        full > 500 && (full / 3..full).contains(&dashed) && (10..full / 3).contains(&dots),
        "{full} {dashed} {dots}"
    );
    assert_eq!(pixels("", Mark::Faint)?, 0); // paler
    let (unnamed, named) = (drawn(&[line("", Mark::Line)])?, drawn(&[line("total", Mark::Line)])?);
    assert!(ink(&named) > ink(&unnamed) + 50);
    Ok(())
}

#[test]
fn points_that_cannot_be_shown_leave_gaps() -> TestResult {
    let chart = |points: &[(f64, f64)]| {
        Chart::new("", "x", "y").with(Series::new("", PALETTE[0], points.iter().copied()))
    };
    let pixels = |chart| Ok::<_, Box<dyn std::error::Error>>(count(&drawn(&[chart])?, |c| c == PALETTE[0]));
    let whole = [(0., 1.), (1., 2.), (2., 3.), (3., 4.)];
    let broken = [(0., 1.), (1., 2.), (1.5, f64::NAN), (1.6, f64::INFINITY), (2., 3.), (3., 4.)];
    let (whole, broken) = (pixels(chart(&whole))?, pixels(chart(&broken))?);
    assert!(broken < whole && broken > whole / 2, "{broken} of {whole}");
    let negative = [(0., 1.), (1., 2.), (1.5, 0.), (1.6, -5.), (2., 3.), (3., 4.)];
    assert!(pixels(chart(&negative).log_y())? > whole / 3);
    assert_eq!(pixels(chart(&[(0., -1.)]).log_y())?, 0);
    Ok(())
}

#[test]
fn equal_charts_give_equal_bytes_whatever_the_order_of_calls() -> TestResult {
    let chart = Chart::new("t", "x", "y").with(Series::new("s", PALETTE[0], [(0., 1.), (1., 3.)]));
    let first = drawn(std::slice::from_ref(&chart))?;
    drawn(&[Chart::default().log_y()])?;
    assert_eq!(first, drawn(&[chart])?);
    Ok(())
}

#[test]
fn many_points_are_drawn_quickly() -> TestResult {
    let points = (0..200_000).map(|i| (f64::from(i), (f64::from(i) * 0.7).sin()));
    let clock = std::time::Instant::now();
    drawn(&[Chart::new("", "", "").with(Series::new("", PALETTE[0], points).mark(Mark::Faint))])?;
    assert!(clock.elapsed().as_secs() < 20);
    Ok(())
}

#[test]
fn errors_name_the_argument_or_the_file() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("no folder").join("plot.png");
    let message = |charts: &[Chart], columns| save(&path, charts, columns).unwrap_err().to_string();
    assert!(message(&[], 1).contains("plot.png: cannot hold 0 charts"));
    assert!(message(&vec![Chart::default(); 101], 1).contains("101 charts"));
    assert!(message(&[Chart::default()], 0).contains("0 columns"));
    assert!(message(&[Chart::default()], 1).contains("plot.png"));
    Ok(())
}

#[test]
fn bars_are_as_long_as_their_values() -> TestResult {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("bars.png");
    let bar =
        |name: &str, value: f64, color| Bar { name: name.into(), value, label: format!("{value}"), color };
    save_bars(&path, "rates", &[bar("long", 4., PALETTE[0]), bar("short", 1., PALETTE[1])])?;
    let picture = image::open(&path)?.into_rgb8();
    let [long, short] = [0, 1].map(|i| count(&picture, |c| c == PALETTE[i]) as f64);
    assert!(short > 500. && (long / short - 4.).abs() < 0.1, "{long} {short}");
    let message = |bars: &[Bar]| save_bars(&path, "", bars).unwrap_err().to_string();
    assert!(message(&[]).contains("0 bars"));
    assert!(message(&[bar("x", f64::NAN, PALETTE[0])]).contains("`x` of length NaN"));
    assert!(message(&[bar("x", -1., PALETTE[0])]).contains("`x` of length -1"));

    let column = Series::new("", PALETTE[2], [(0., 2.), (1., 4.)]).mark(Mark::Bars);
    let columns = drawn(&[Chart::new("", "", "").with(column)])?;
    assert!(count(&columns, |c| c == PALETTE[2]) > 50_000);
    Ok(())
}
