//! Sizes of the published networks, and configs that cannot be built.

use candle_core::DType;
use fsvae::{Divergence, Fsvae, FsvaeConfig, ScheduledSampling};
use snn_core::{LayerConfig, LifConfig, ParamStore, Readout, Seed};

use crate::rejects;

fn parameters(cfg: &FsvaeConfig) -> usize {
    let params = ParamStore::new(Seed(0), DType::F32, &candle_core::Device::Cpu);
    Fsvae::new(cfg, params.builder()).unwrap();
    params.parameter_count()
}

#[test]
fn the_published_networks_have_their_sizes() {
    // Weights and biases of a layer; two numbers more a channel where there is a norm.
    let linear = |c_in: usize, c_out: usize| (c_in + 1) * c_out;
    let maps = 10 * 32
        + 289 * 64
        + 65 * 16
        + 2 * (32 + 64 + 16)
        + (16 * 9 + 1) * 64
        + 577 * 32
        + 289
        + 2 * (64 + 32);
    let posterior = linear(112, 112) + linear(112, 224) + linear(224, 1120);
    let prior = linear(56, 112) + linear(112, 224) + linear(224, 1120);
    assert_eq!(
        parameters(&FsvaeConfig::table1()),
        maps + linear(784, 56) + posterior + prior + linear(56, 784)
    );

    let normed = |c_in: usize, c_out: usize| linear(c_in, c_out) + 2 * c_out;
    let conv = |c_in: usize, c_out: usize| normed(9 * c_in, c_out);
    let encoder = conv(1, 32) + conv(32, 64) + conv(64, 128) + conv(128, 256) + normed(1024, 128);
    let decoder =
        normed(128, 1024) + conv(256, 128) + conv(128, 64) + conv(64, 32) + conv(32, 32) + linear(9 * 32, 1);
    let chains = normed(128, 256) + normed(256, 256) + 2 * (normed(256, 512) + normed(512, 2560));
    assert_eq!(parameters(&FsvaeConfig::original(1)), encoder + decoder + chains);
    assert_eq!(FsvaeConfig::original_large(3).body.latent_map(), [512, 2, 2]);
}

#[test]
fn what_cannot_be_built_is_named() {
    let reject = |change: &dyn Fn(&mut FsvaeConfig), parts: &[&str]| {
        let mut cfg = FsvaeConfig::original(1);
        change(&mut cfg);
        rejects(cfg.validate(), parts);
    };
    reject(&|cfg| cfg.body.time_steps = 0, &["fsvae.body.time_steps", "0", "at least 1"]);
    reject(&|cfg| cfg.candidates = 0, &["fsvae.candidates"]);
    reject(&|cfg| cfg.body.latent = 0, &["fsvae.body.latent"]);
    reject(&|cfg| cfg.body.image[0] = 0, &["fsvae.body.image"]);
    reject(&|cfg| cfg.body.mix = Some(0), &["fsvae.body.mix"]);
    reject(&|cfg| cfg.hidden = vec![4, 0], &["fsvae.hidden"]);
    reject(&|cfg| cfg.body.image = [1, 28, 28], &["fsvae.body.image", "[1, 28, 28]", "2^4"]);
    reject(&|cfg| cfg.body.image = [1, 8, 32], &["fsvae.body.image"]);
    reject(&|cfg| cfg.body.encoder = vec![1; 70], &["fsvae.body.decoder"]);
    reject(&|cfg| (cfg.body.encoder, cfg.body.decoder) = (vec![1; 70], vec![1; 70]), &["fsvae.body.image"]);
    reject(&|cfg| cfg.body.decoder = vec![1], &["fsvae.body.decoder", "which has 4"]);
    reject(&|cfg| (cfg.body.encoder, cfg.body.decoder) = (vec![], vec![]), &["fsvae.body.decoder"]);
    let lif = LifConfig { tau: Some(0.5), ..LifConfig::default() };
    reject(&|cfg| cfg.chains = LayerConfig::from(lif), &["fsvae.chains", "tau", "0.5"]);
    reject(&|cfg| cfg.body.readout = Readout::Psp { tau: 0. }, &["fsvae.body.readout"]);
    reject(&|cfg| cfg.divergence = Divergence::Mmd { tau: 0.5 }, &["fsvae.divergence.mmd.tau"]);
    reject(
        &|cfg| cfg.divergence = Divergence::Kld { weight: 1., floor: 0. },
        &["fsvae.divergence.kld.floor"],
    );
    let scheduled = cfg_scheduled();
    reject(
        &|cfg| cfg.scheduled = Some(ScheduledSampling { end: 1.5, ..scheduled }),
        &["fsvae.scheduled.end", "1.5"],
    );
    reject(
        &|cfg| cfg.scheduled = Some(ScheduledSampling { noise: f64::NAN, ..scheduled }),
        &["fsvae.scheduled.noise"],
    );
}

fn cfg_scheduled() -> ScheduledSampling {
    FsvaeConfig::original(1).scheduled.unwrap()
}

#[test]
fn a_config_survives_json() {
    for cfg in [FsvaeConfig::table1(), FsvaeConfig::original(3), FsvaeConfig::original_large(1)] {
        let json = serde_json::to_string(&cfg).unwrap();
        assert_eq!(serde_json::from_str::<FsvaeConfig>(&json).unwrap(), cfg);
        assert_eq!(json.contains("scheduled"), cfg.scheduled.is_some());
    }
}
