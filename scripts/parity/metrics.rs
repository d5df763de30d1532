//! All metrics of the tensors in a file, for `scripts/parity-metrics`.
//!
//! `metrics INPUTS RESIZED`: INPUTS is a `.safetensors` file with `features.{a, b} [N, D]`, `kid.{a, b} [S, M]` (rows of
//! the subsets), `logits [N, C]`, `images.{a, b} [N, C, H, W]` in `[0, 1]`; what is missing is left out. Prints one JSON
//! object, with the seconds that the distances took; RESIZED gets the first images, 299 x 299, by each method.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{Device, Tensor, safetensors};
use serde_json::{Map, Value, json};
use spiking_diffusion_metrics::{
    Ball, FeatureStats, Resize, SsimConfig, SubsetPair, frechet_distance, frechet_distance_of_features,
    inception_score, kernel_distance, mean, mse, prdc, psnr, resize, ssim,
};

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;
type Inputs = HashMap<String, Tensor>;

/// Metrics by name.
struct Found(Map<String, Value>);

impl Found {
    fn add(&mut self, name: &str, value: impl Into<Value>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn timed<T>(&mut self, name: &str, run: impl FnOnce() -> Result<T>) -> Result<T> {
        let start = Instant::now();
        let value = run()?;
        self.add(&format!("seconds.{name}"), start.elapsed().as_secs_f64());
        Ok(value)
    }
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [inputs, resized] = &args[..] else {
        return Err("usage: metrics INPUTS RESIZED".into());
    };
    let inputs = safetensors::load(inputs, &Device::Cpu)?;
    let mut found = Found(Map::new());
    distances(&inputs, &mut found)?;
    if let Some(logits) = inputs.get("logits") {
        let score = inception_score(logits, 10)?;
        found.add("is_mean", score.mean);
        found.add("is_std", score.std);
    }
    if let Some((a, b)) = pair(&inputs, "images") {
        of_images(a, b, &mut found)?;
        let methods = [
            ("bilinear", Resize::Bilinear),
            ("corner", Resize::BilinearCorner),
            ("bicubic", Resize::Bicubic),
        ];
        let outputs = methods.map(|(name, method)| Ok((name, resize(a, (299, 299), method)?)));
        safetensors::save(&outputs.into_iter().collect::<Result<HashMap<_, _>>>()?, resized)?;
    }
    println!("{}", Value::Object(found.0));
    Ok(())
}

fn pair<'a>(inputs: &'a Inputs, name: &str) -> Option<(&'a Tensor, &'a Tensor)> {
    inputs.get(&format!("{name}.a")).zip(inputs.get(&format!("{name}.b")))
}

fn distances(inputs: &Inputs, found: &mut Found) -> Result<()> {
    let Some((a, b)) = pair(inputs, "features") else { return Ok(()) };
    let stats = [FeatureStats::from_features(a)?, FeatureStats::from_features(b)?];
    let fid = found.timed("fid", || Ok(frechet_distance(&stats[0], &stats[1])?))?;
    found.add("fid", fid);
    found.add("fid_of_features", frechet_distance_of_features(a, b)?);
    if let Some((rows_a, rows_b)) = pair(inputs, "kid") {
        let subsets: Vec<SubsetPair> = indices(rows_a)?.into_iter().zip(indices(rows_b)?).collect();
        let kid = found.timed("kid", || Ok(kernel_distance(a, b, &subsets)?))?;
        found.add("kid_mean", kid.mean);
        found.add("kid_std", kid.std);
    }
    for (name, ball) in [("open", Ball::Open), ("closed", Ball::Closed)] {
        let prdc = found.timed(name, || Ok(prdc(a, b, 3, ball)?))?;
        found.add(name, json!(prdc));
    }
    Ok(())
}

fn indices(rows: &Tensor) -> Result<Vec<Vec<usize>>> {
    let rows = rows.to_vec2::<i64>()?;
    Ok(rows.into_iter().map(|row| row.into_iter().map(|index| index as usize).collect()).collect())
}

fn of_images(a: &Tensor, b: &Tensor, found: &mut Found) -> Result<()> {
    found.add("mse", mean(&mse(a, b)?)?);
    found.add("psnr", mean(&psnr(a, b, 1.0)?)?);
    found.add("ssim_gaussian", mean(&ssim(a, b, &SsimConfig::standard())?)?);
    found.add("ssim_uniform", mean(&ssim(a, b, &SsimConfig::uniform())?)?);
    found.add("ssim_mirrored", mean(&ssim(a, b, &SsimConfig::torchmetrics())?)?);
    Ok(())
}
