//! Counting the synaptic operations of a trained network, layer by layer.

use std::collections::{BTreeMap, BTreeSet};

use candle_core::Tensor;
use serde::{Deserialize, Serialize};
use snn_core::{Connections, FiringRates, LayerDescription, spikes_by_position};

use super::config::ExperimentConfig;
use super::networks::{Autoencoder, SpikingDenoiser};
use crate::error::{Error, Result};
use crate::report::energy::{Cost, Energy, Line, PROTOCOL};

/// Spikes of every layer, while batches pass.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Activity {
    pub(crate) rates: FiringRates,
    /// By layer: spikes by position, and the images they are of.
    positions: BTreeMap<String, (Vec<f64>, f64)>,
}

impl Activity {
    /// Adds a layer's spikes `[T, N, C, H, W]`.
    pub(crate) fn record(&mut self, layer: &str, spikes: &Tensor) -> candle_core::Result<()> {
        self.rates.record(layer, spikes)?;
        let (found, images) = (spikes_by_position(spikes)?, spikes.dim(1)? as f64);
        let entry = self.positions.entry(layer.to_owned()).or_insert_with(|| (vec![0.; found.len()], 0.));
        entry.0.iter_mut().zip(found).for_each(|(sum, n)| *sum += n);
        entry.1 += images;
        Ok(())
    }

    /// Adds what was recorded elsewhere, of the batch that follows.
    pub(super) fn merge(&mut self, next: Self) {
        self.rates.merge(&next.rates);
        for (layer, (found, images)) in next.positions {
            let entry = self.positions.entry(layer).or_insert_with(|| (vec![0.; found.len()], 0.));
            entry.0.iter_mut().zip(found).for_each(|(sum, n)| *sum += n);
            entry.1 += images;
        }
    }

    /// A layer's accumulates for an image, from the spikes of those that it reads.
    fn accumulates(&self, connections: &Connections, sources: &[String]) -> Result<f64> {
        let count = |source: &String| {
            let found = self.positions.get(source).filter(|(_, images)| *images > 0.);
            let (spikes, images) =
                found.ok_or_else(|| Error::config("energy.layer", source, "has not been observed"))?;
            Ok(connections.accumulates(spikes) / images)
        };
        sources.iter().map(count).sum()
    }
}

impl Energy {
    /// Of networks whose layers have been observed on images and codes. `foretold`: the order is the config's, so that the passes
    /// that an image takes are known.
    pub(crate) fn new(
        cfg: &ExperimentConfig,
        (autoencoder, denoiser): (&dyn Autoencoder, Option<&dyn SpikingDenoiser>),
        foretold: bool,
        activity: &Activity,
    ) -> Result<Self> {
        let layers = |network: &str, layers: Vec<LayerDescription>| -> Vec<LayerDescription> {
            layers.into_iter().map(|layer| layer.within(network)).collect()
        };
        let line = |name: String, cost: Cost| Line { name, cost };
        let in_autoencoder = layers(autoencoder.name(), autoencoder.layers()?);
        let (mut all, mut work) = (lines(&in_autoencoder, activity)?, Vec::new());
        if !all.is_empty() {
            work.push(line("reconstruct an image".to_owned(), sum(&all, &|_| true)));
        }
        if let Some(denoiser) = denoiser {
            let of_denoiser = lines(&layers(denoiser.name(), denoiser.describe_layers()?), activity)?;
            let (pass, decoding) = (sum(&of_denoiser, &|_| true), upstream(&in_autoencoder));
            let decode = sum(&all, &|name| decoding.contains(name));
            work.push(line("one pass of the denoiser".to_owned(), pass.clone()));
            if foretold && !in_autoencoder.is_empty() {
                let steps = cfg.sampling.steps.unwrap_or(cfg.sdid.steps);
                let passes = cfg.sampling.order.mean_passes(cfg.sdid.height * cfg.sdid.width, steps);
                let name = format!("generate an image: {passes:.1} passes, then decode");
                work.push(line(name, pass.times_plus(passes, &decode)));
            }
            all.extend(of_denoiser);
        }
        Ok(Self { protocol: PROTOCOL.to_owned(), layers: all, work })
    }

    /// Of a variational autoencoder, whose layers have been observed while it reconstructed images; the names of its prior's begin so.
    pub(crate) fn of_vae(layers: &[LayerDescription], prior: &str, activity: &Activity) -> Result<Self> {
        let (lines, decoding) = (lines(layers, activity)?, upstream(layers));
        let reconstruct = sum(&lines, &|name| !name.starts_with(prior));
        let generate = sum(&lines, &|name| name.starts_with(prior) || decoding.contains(name));
        let work = [("reconstruct an image", reconstruct), ("generate an image", generate)];
        let work = work.into_iter().map(|(name, cost)| Line { name: name.to_owned(), cost }).collect();
        Ok(Self { protocol: PROTOCOL.to_owned(), layers: lines, work })
    }
}

/// The sum of the layers that are a part of something.
fn sum(lines: &[Line], part: &dyn Fn(&str) -> bool) -> Cost {
    let chosen = lines.iter().filter(|line| part(&line.name));
    chosen.fold(Cost::default(), |sum, line| line.cost.times_plus(1., &sum))
}

/// A line for each layer of a network.
fn lines(layers: &[LayerDescription], activity: &Activity) -> Result<Vec<Line>> {
    let line = |layer: &LayerDescription| {
        let (name, dense) = (layer.name.clone(), layer.connections.macs());
        if layer.reads.is_empty() || layer.reads_numbers {
            return Ok(Line { name, cost: Cost::new(dense, dense, 0.) });
        }
        let accumulates = activity.accumulates(&layer.connections, &layer.reads)?;
        Ok(Line { name, cost: Cost::new(dense, 0., accumulates) })
    };
    layers.iter().map(line).collect()
}

/// The last layer and all whose spikes it depends on: of an autoencoder, those that decode, since codes are no spikes.
fn upstream(layers: &[LayerDescription]) -> BTreeSet<&str> {
    let mut found: BTreeSet<&str> = layers.last().map(|last| last.name.as_str()).into_iter().collect();
    for layer in layers.iter().rev() {
        if found.contains(layer.name.as_str()) {
            found.extend(layer.reads.iter().map(String::as_str));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use candle_core::{DType, Device};
    use snn_core::{ConvConfig, LifConfig, ParamStore, Readout, ReadoutLayer, Seed, SpikingLayer};

    use super::*;

    /// Two 3x3 convolutions with padding on a 2x2 map, where every position reaches all four.
    fn network() -> candle_core::Result<Vec<LayerDescription>> {
        let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
        let (same, lif, vb) = (ConvConfig::new(3, 1, 1), LifConfig::default(), store.builder());
        let first = SpikingLayer::conv(2, 3, same, lif, vb.pp("first"))?.connections([2, 2, 2])?;
        let next = SpikingLayer::conv(3, 5, same, lif, vb.pp("next"))?.connections([3, 2, 2])?;
        // Reads the last and the first layer.
        let head =
            ReadoutLayer::conv(5 + 3, 7, same, Readout::Mean, vb.pp("head"))?.connections([8, 2, 2])?;
        let mut layers = LayerDescription::in_a_row("layers", &[], vec![first, next]);
        layers.push(LayerDescription::new("head", &["layers.1", "layers.0"], head));
        Ok(layers.into_iter().map(|layer| layer.within("sdid")).collect())
    }

    #[test]
    fn operations_are_those_counted_by_hand() {
        let mut activity = Activity::default();
        // Two batches of one and three images: 4 and 2 spikes of layer 0, 1 and 0 of layer 1.
        for (images, spikes) in [(1, [4, 1]), (3, [2, 0])] {
            for (layer, (channels, count)) in [3usize, 5].into_iter().zip(spikes).enumerate() {
                let length = 2 * images * channels * 4;
                let values: Vec<f32> = (0..length).map(|i| f32::from(i < count)).collect();
                let spikes = Tensor::from_vec(values, (2, images, channels, 2, 2), &Device::Cpu).unwrap();
                activity.record(&format!("sdid.layers.{layer}"), &spikes).unwrap();
            }
        }
        let lines = lines(&network().unwrap(), &activity).unwrap();
        let [first, next, head] = &lines[..] else { panic!("{lines:?}") };
        // 2 inputs x 3 outputs x 4 positions x 4 targets, real-valued.
        assert_eq!((first.cost.dense_macs, first.cost.macs, first.cost.accumulates), (96., 96., 0.));
        assert_eq!(first.cost.nanojoules, first.cost.dense_nanojoules);
        // 6 spikes in 4 images, each to 4 positions of 5 channels.
        assert_eq!((next.cost.dense_macs, next.cost.macs), (3. * 5. * 16., 0.));
        assert_eq!(next.cost.accumulates, 6. / 4. * 4. * 5.);
        // 6 + 1 spikes in 4 images, to 4 positions of 7 channels.
        assert_eq!(head.cost.accumulates, 7. / 4. * 4. * 7.);
        assert!((head.cost.nanojoules - 0.9e-3 * 49.).abs() < 1e-12);
        assert!((head.cost.dense_nanojoules - 4.6e-3 * 8. * 7. * 16.).abs() < 1e-12);
        assert!((activity.rates.rates()["sdid.layers.1"] - 1. / (4. * 2. * 5. * 4.)).abs() < 1e-8);
    }

    #[test]
    fn what_decodes_is_what_the_last_layer_depends_on() {
        let connections = network().unwrap().pop().unwrap().connections;
        let layer = |name, reads: &[&str]| LayerDescription::new(name, reads, connections.clone());
        let layers = [layer("encoder.0", &[]), layer("encoder.1", &["encoder.0"]), layer("generator", &[])];
        let decoder = [layer("decoder.0", &["generator"]), layer("head", &["decoder.0"])];
        let found = [&layers[..], &decoder].concat();
        assert_eq!(upstream(&found), ["generator", "decoder.0", "head"].into());
    }

    #[test]
    fn a_layer_that_was_not_observed_is_named() {
        let message = lines(&network().unwrap(), &Activity::default()).unwrap_err().to_string();
        assert!(message.contains("sdid.layers.0"), "{message}");
    }
}
