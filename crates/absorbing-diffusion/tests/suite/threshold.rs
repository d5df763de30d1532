//! Thresholds scaled while images are drawn, against networks that were built with them.

use absorbing_diffusion::{
    AbsorbingProcess, Conditioned, Denoiser, NoisyCodes, Sampler, SamplingConfig, Sdid, SdidConfig,
    TokenInput,
};
use candle_core::{Device, Tensor};
use snn_core::{LifConfig, ParamStore, Seed};

use crate::sdid::{INPUTS, bits, inputs, narrow, settled};
use crate::{rejects, uniform};

const SCALES: [f64; 3] = [0.8, 1., 1.3];

fn scaled_by(scale: f64) -> SamplingConfig {
    SamplingConfig { v_threshold_scale: Some(scale), ..Default::default() }
}

/// The same parameters in a network whose config has the scaled threshold.
fn built_with(scale: f64, cfg: &SdidConfig, params: &ParamStore) -> Sdid {
    let lif = LifConfig { v_threshold: cfg.lif.v_threshold * scale, ..cfg.lif };
    Sdid::new(&SdidConfig { lif, ..cfg.clone() }, params.builder()).unwrap()
}

fn sample(denoiser: &dyn Denoiser, cfg: &SdidConfig, config: &SamplingConfig) -> Vec<u32> {
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let sampler = Sampler::new(&process, denoiser, config).unwrap();
    let codes = sampler.sample(0..40, (cfg.height, cfg.width), Seed(3), &Device::Cpu, &mut |_, _| ());
    codes.unwrap().flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn scaled_thresholds_are_those_of_a_network_built_with_them() {
    for token_input in INPUTS {
        let cfg = narrow(token_input);
        let (params, sdid) = settled(&cfg);
        let ((h_t, t), at) = (inputs(&cfg, 5), vec![vec![0, 5], vec![], vec![3], (0..6).collect(), vec![1]]);
        let logits = |sdid: &Sdid, scale: Option<f64>| {
            let prepared = match scale {
                None => sdid.prepare().unwrap(),
                Some(scale) => sdid.prepare_at_threshold(scale).unwrap(),
            };
            bits(&prepared.logits_at(&NoisyCodes::new(&h_t, &t, &[]), &at).unwrap())
        };
        let plain = logits(&sdid, None);
        for scale in SCALES {
            let (twin, got) = (built_with(scale, &cfg, &params), logits(&sdid, Some(scale)));
            assert!(got == logits(&twin, None), "{token_input:?}, {scale}");
            assert_eq!(got == plain, scale == 1., "{token_input:?}, {scale}");
            let drawn = sample(&sdid, &cfg, &scaled_by(scale));
            assert!(drawn == sample(&twin, &cfg, &SamplingConfig::default()), "{token_input:?}, {scale}");
        }
        // The network itself is what it was.
        assert!(logits(&sdid, None) == plain);
    }
}

#[test]
fn guided_images_of_a_class_have_them_too() {
    let cfg = SdidConfig { classes: Some(3), ..narrow(TokenInput::Embedding { dim: 6 }) };
    let (params, sdid) = settled(&cfg);
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let guided = |sdid| Conditioned::<Sdid>::new(sdid, vec![2, 0, 1]).unwrap().guided(1.5, &process).unwrap();
    let borrowed = Conditioned::new(&sdid, vec![2, 0, 1]).unwrap().guided(1.5, &process).unwrap();
    let drawn = sample(&borrowed, &cfg, &scaled_by(0.8));
    assert!(drawn == sample(&guided(built_with(0.8, &cfg, &params)), &cfg, &SamplingConfig::default()));
    assert!(drawn != sample(&borrowed, &cfg, &SamplingConfig::default()));
}

#[test]
fn thresholds_that_cannot_be_scaled_are_named() {
    for scale in [0., -1., f64::NAN, f64::INFINITY] {
        rejects(scaled_by(scale).validate(), &["sampling.v_threshold_scale", &scale.to_string()]);
    }
    let process = AbsorbingProcess::new(3, 6).unwrap();
    let with = |denoiser: &dyn Denoiser, scale| {
        let config = scaled_by(scale);
        let sampler = Sampler::new(&process, denoiser, &config)?;
        sampler.sample(0..2, (2, 3), Seed(0), &Device::Cpu, &mut |_, _| ()).map(|_: Tensor| ())
    };
    let blank = uniform(3, (2, 3));
    rejects(with(&blank, 0.9), &["sampling.v_threshold_scale", "0.9", "no thresholds"]);
    let lif = LifConfig { v_reset: snn_core::Reset::Hard(0.5), ..LifConfig::default() };
    let cfg = SdidConfig { lif, ..narrow(TokenInput::Raw) };
    let sdid = Sdid::new(&cfg, ParamStore::new(Seed(0), candle_core::DType::F32, &Device::Cpu).builder());
    rejects(with(&sdid.unwrap(), 0.4), &["lif.v_threshold", "0.4", "reset potential"]);
}

#[test]
fn a_file_holds_the_scale_where_it_is_set() {
    let config = scaled_by(0.9);
    let text = r#"{"order":"posterior","temperature":1.0,"v_threshold_scale":0.9,"batch_size":64}"#;
    assert_eq!(serde_json::to_string(&config).unwrap(), text);
    assert_eq!(serde_json::from_str::<SamplingConfig>(text).unwrap(), config);
}
