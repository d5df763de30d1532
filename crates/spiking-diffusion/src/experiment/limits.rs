//! What no later stage could take, found before anything is trained: numbers that f32 does not hold, tensors that no memory
//! holds, pictures that their files do not hold.

use absorbing_diffusion::TokenInput;
use serde_json::Value;

use super::config::{ClassesFrom, ExperimentConfig};
use crate::error::{Error, Result};
use crate::report::size::{canvas, film_fits, square, table_of_classes};

/// Most numbers in one tensor: 16 GiB of f32.
const MOST: f64 = 4_294_967_296.;

/// A dimension of a tensor: the field that sets it, and its size.
type Dimension = (&'static str, usize);

/// Rejects numbers that f32, in which networks compute, turns into infinity or 0.
pub(super) fn numbers(field: &str, value: &Value) -> Result<()> {
    match value {
        Value::Object(fields) => {
            fields.iter().try_for_each(|(name, value)| numbers(&format!("{field}.{name}"), value))
        }
        Value::Number(number) if number.is_f64() => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            if number == 0. || (number as f32).is_normal() {
                return Ok(());
            }
            let reason =
                "must be 0, or a number that f32 holds, in which networks compute (1e-37 to 3e38 in size)";
            Err(Error::config(field, format!("{number:?}"), reason))
        }
        _ => Ok(()),
    }
}

/// Rejects sizes whose product is a tensor of more than 2^32 numbers; the largest of them is named.
pub(super) fn tensors(cfg: &ExperimentConfig) -> Result<()> {
    match &cfg.vae {
        None => {
            autoencoder(cfg)?;
            denoiser(cfg)?;
        }
        Some(vae) => {
            let batch = cfg.evaluation.batch_size.max(cfg.sampling.batch_size);
            for (field, sizes) in vae.largest(batch) {
                fits("spikes", &sizes.map(|size| (field, size)))?;
            }
        }
    }
    let [channels, height, width] = match &cfg.vae {
        Some(vae) => vae.network.image().map(|size| ("vae.network.body.image", size)),
        None => image(cfg),
    };
    for count in [("samples", cfg.samples), ("evaluation.distance_images", cfg.evaluation.distance_images)] {
        fits("images", &[count, channels, height, width])?;
    }
    Ok(())
}

/// Channels, height and width of the images.
fn image(cfg: &ExperimentConfig) -> [Dimension; 3] {
    let image = &cfg.vqsvae.image;
    [
        ("vqsvae.image.channels", image.channels),
        ("vqsvae.image.height", image.height),
        ("vqsvae.image.width", image.width),
    ]
}

fn autoencoder(cfg: &ExperimentConfig) -> Result<()> {
    let (vqsvae, [channels, (high, height), (wide, width)]) = (&cfg.vqsvae, image(cfg));
    let [e0, e1] = vqsvae.encoder_channels.map(|n| ("vqsvae.encoder_channels", n));
    let [d0, d1] = vqsvae.decoder_channels.map(|n| ("vqsvae.decoder_channels", n));
    let code = ("vqsvae.code_channels", vqsvae.code_channels);
    let hidden = |field, sizes: &[usize]| sizes.iter().map(|&size| (field, size)).collect::<Vec<_>>();
    let encoder_hidden = hidden("vqsvae.encoder_hidden", &vqsvae.encoder_hidden);
    let decoder_hidden = hidden("vqsvae.decoder_hidden", &vqsvae.decoder_hidden);
    let layers =
        [&[channels, e0, e1][..], &encoder_hidden, &[code, code], &decoder_hidden, &[d0, d1, channels]]
            .concat();
    layers.windows(2).try_for_each(|pair| fits("weights", &[pair[0], pair[1], ("", 9)]))?;
    fits("codebook entries", &[("vqsvae.codes", vqsvae.codes), code])?;
    let images = cfg.data.train_images.max(cfg.data.test_images);
    let batches = [
        ("vqsvae_training.batch_size", cfg.vqsvae_training.batch_size),
        ("evaluation.batch_size", cfg.evaluation.batch_size.min(images)),
    ];
    for batch in batches {
        let small = [&[e1, code][..], &encoder_hidden, &decoder_hidden].concat();
        for (layer, stride) in
            [(e0, 2), (d0, 2), (d1, 1)].into_iter().chain(small.into_iter().map(|l| (l, 4)))
        {
            let time = ("vqsvae.time_steps", vqsvae.time_steps);
            fits("spikes", &[time, batch, layer, (high, height / stride), (wide, width / stride)])?;
        }
    }
    Ok(())
}

fn denoiser(cfg: &ExperimentConfig) -> Result<()> {
    let (sdid, evaluation) = (&cfg.sdid, &cfg.evaluation);
    let (codes, height, width) =
        (("sdid.codes", sdid.codes), ("sdid.height", sdid.height), ("sdid.width", sdid.width));
    let input = match sdid.token_input {
        TokenInput::Raw => ("", 2),
        TokenInput::Embedding { dim } => ("sdid.token_input.embedding.dim", dim),
    };
    // The mask and t = 0 add a row each, which a limit so round need not count.
    fits("numbers of the embedding", &[codes, input])?;
    fits("numbers of the embedding", &[("sdid.steps", sdid.steps), input])?;
    fits("numbers of the embedding", &[height, width, input])?;
    fits("numbers of the embedding", &[("sdid.classes", sdid.classes.unwrap_or(1)), input])?;
    let layers: Vec<_> = sdid.channels.iter().map(|&n| ("sdid.channels", n)).collect();
    let all = [&[input][..], &layers, &[codes]].concat();
    all.windows(2).try_for_each(|pair| fits("weights", &[pair[0], pair[1], ("", 9)]))?;
    layers.first().map_or(Ok(()), |&first| fits("weights", &[first, codes, ("", 9)]))?;
    let drawn = cfg.samples.max(evaluation.distance_images);
    let batches = [
        ("sdid_training.batch_size", cfg.sdid_training.batch_size),
        ("evaluation.bound.batch_size", evaluation.bound.batch_size.min(evaluation.bound_images)),
        ("sampling.batch_size", cfg.sampling.batch_size.min(drawn)),
    ];
    for batch in batches {
        for &layer in &layers {
            fits("spikes", &[("sdid.time_steps", sdid.time_steps), batch, layer, height, width])?;
        }
        fits("numbers of the input", &[batch, input, height, width])?;
        fits("logits", &[batch, codes, height, width])?;
    }
    Ok(())
}

fn fits(what: &str, dimensions: &[Dimension]) -> Result<()> {
    let count: f64 = dimensions.iter().map(|&(_, size)| size as f64).product();
    match dimensions.iter().max_by_key(|(_, size)| *size) {
        Some(&(field, size)) if count > MOST => {
            let reason = format!("makes a tensor of {count:.1e} {what}, more than 2^32 (16 GiB)");
            Err(Error::config(field, size, reason))
        }
        _ => Ok(()),
    }
}

/// Rejects images, or a number of them, that the run's pictures cannot show. After [`tensors`].
pub(super) fn pictures(cfg: &ExperimentConfig) -> Result<()> {
    let [_, height, width] = cfg.image();
    let tile = (height, width);
    if cfg.vae.is_none() && !film_fits(tile, cfg.samples) {
        let size = format!("{height} x {width}");
        return Err(Error::config("vqsvae.image", size, "too large for unmasking.gif"));
    }
    if canvas(tile, square(cfg.samples), 1).is_none() {
        let reason =
            "too many for one picture, samples.png; `generate` writes any number once the run is finished";
        return Err(Error::config("samples", cfg.samples, reason));
    }
    if let Some(classes) = cfg.sdid.classes {
        let (file, size) = match cfg.classes_from {
            ClassesFrom::Labels => ("classes.png", canvas(tile, table_of_classes(classes), classes)),
            ClassesFrom::Clusters => ("clusters.png", canvas(tile, square(classes), 1)),
        };
        if size.is_none() {
            let reason = format!("too many for one picture, {file}");
            return Err(Error::config("sdid.classes", classes, reason));
        }
    }
    Ok(())
}
