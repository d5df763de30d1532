//! Features of the images in a file, for `scripts/parity-inception`.
//!
//! `inception_features WEIGHTS IMAGES OUT VARIANT LAYER PROTOCOL [REPEATS]`: IMAGES is a `.safetensors` file with
//! `images [N, C, H, W]` in `[0, 1]`; OUT gets `features [N, D]`. Prints the fastest of REPEATS passes in images a
//! second.
#![allow(clippy::print_stdout, reason = "a program")]

use std::collections::HashMap;
use std::time::Instant;

use candle_core::{Device, safetensors};
use spiking_diffusion_metrics::{
    FeatureExtractor, Inception, InceptionConfig, InceptionLayer, InceptionVariant, InceptionWeights,
    extract_batches,
};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [weights, images, out, variant, layer, protocol, rest @ ..] = &args[..] else {
        return Err("usage: inception_features WEIGHTS IMAGES OUT VARIANT LAYER PROTOCOL [REPEATS]".into());
    };
    let config = config(variant, layer_of(layer)?, protocol)?;
    let inception = Inception::new(config, &InceptionWeights::open(weights)?)?;
    let images = safetensors::load(images, &Device::Cpu)?.remove("images").ok_or("no `images`")?;
    let repeats: usize = rest.first().map_or(Ok(1), |text| text.parse())?;
    let mut fastest = f64::INFINITY;
    let mut features = extract_batches(&inception, &images.narrow(0, 0, 1)?, 1)?;
    for _ in 0..repeats {
        let start = Instant::now();
        features = extract_batches(&inception, &images, 16)?;
        fastest = fastest.min(start.elapsed().as_secs_f64());
    }
    println!("{}: {:.3} images/s", inception.name(), images.dim(0)? as f64 / fastest);
    Ok(safetensors::save(&HashMap::from([("features", features)]), out)?)
}

fn layer_of(name: &str) -> Result<InceptionLayer, String> {
    match name {
        "64" => Ok(InceptionLayer::Pool64),
        "192" => Ok(InceptionLayer::Pool192),
        "768" => Ok(InceptionLayer::Mixed768),
        "2048" => Ok(InceptionLayer::Pool2048),
        "logits_unbiased" => Ok(InceptionLayer::LogitsUnbiased),
        "logits" => Ok(InceptionLayer::Logits),
        _ => Err(format!("unknown layer `{name}`")),
    }
}

fn config(variant: &str, layer: InceptionLayer, protocol: &str) -> Result<InceptionConfig, String> {
    let variant = match variant {
        "fid" => InceptionVariant::Fid,
        "imagenet" => InceptionVariant::ImageNet,
        _ => return Err(format!("unknown variant `{variant}`")),
    };
    let config = match protocol {
        "pytorch-fid" => InceptionConfig::pytorch_fid(layer),
        "torch-fidelity" => InceptionConfig::torch_fidelity(layer),
        "clean-fid" => InceptionConfig::clean_fid(layer),
        "torchvision" => InceptionConfig::torchvision(layer),
        _ => return Err(format!("unknown protocol `{protocol}`")),
    };
    Ok(InceptionConfig { variant, ..config })
}
