//! Neurons of one's own in the spiking denoiser.

use std::sync::Arc;

use absorbing_diffusion::{AbsorbingProcess, NoisyCodes, Sampler, SamplingConfig, TokenInput};
use candle_core::{Device, Result, Tensor};
use snn_core::{LifConfig, Model, NeuronModel, Seed, lif_step};

use crate::sdid::{inputs, narrow, settled};

/// The configured neuron, as a model of a user's own.
#[derive(Debug)]
struct Again(LifConfig);

impl NeuronModel for Again {
    fn step(&self, x: &Tensor, state: &[Tensor]) -> Result<(Tensor, Vec<Tensor>)> {
        let v = match state {
            [v] => v.clone(),
            _ => x.zeros_like()?,
        };
        let (spikes, v) = lif_step(x, &v, &self.0)?;
        Ok((spikes, vec![v]))
    }
}

/// The same neurons, brought in from outside, make the same denoiser: logits, gradients, samples.
#[test]
fn neurons_of_ones_own_are_those_of_every_layer() {
    let cfg = narrow(TokenInput::Embedding { dim: 6 });
    let ((params, built_in), (own_params, own)) = (settled(&cfg), settled(&cfg));
    let mut names = Vec::new();
    let own = own.map_layers(|name, layer| {
        names.push(name.to_owned());
        Ok(layer.with_neuron(Arc::new(Again(cfg.lif))))
    });
    let own = own.unwrap();
    assert_eq!(names, ["layers.0", "layers.1", "layers.2", "layers.3", "layers.4"]);
    // Nor does anybody take the one for the other where it is saved.
    assert_eq!((built_in.kind(), own.kind()), ("sdid", "sdid of changed layers"));
    assert_eq!(own.checkpoint(&own_params).unwrap().kind, own.kind());

    let deaf = LifConfig { v_threshold: 1e6, ..cfg.lif };
    let silent = settled(&cfg).1.map_layers(|_, layer| Ok(layer.with_neuron(Arc::new(Again(deaf)))));
    let (h_t, t) = inputs(&cfg, 4);
    let mut see = |_: &str, spikes: &Tensor| {
        assert_eq!(spikes.sum_all()?.to_scalar::<f32>()?, 0.);
        Ok(())
    };
    silent.unwrap().logits_observed(&NoisyCodes::new(&h_t, &t, &[]), false, &mut see).unwrap();

    let close = |what: &str, a: &Tensor, b: &Tensor| {
        let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f32>().unwrap());
        let size = b.iter().fold(1e-6f32, |size, x| size.max(x.abs()));
        assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-4 * size), "{what}: {a:?} {b:?}");
    };
    for train in [false, true] {
        let [a, b] = [&built_in, &own].map(|sdid| sdid.forward_t(&h_t, &t, train).unwrap());
        close("logits", &b, &a);
        if train {
            let [a, b] = [(&params, a), (&own_params, b)].map(|(params, logits)| {
                params.gradients(&logits.sqr().unwrap().sum_all().unwrap().backward().unwrap()).unwrap()
            });
            a.iter().for_each(|(name, wanted)| close(name, &b[name], wanted));
        }
    }
    let process = AbsorbingProcess::new(cfg.codes, cfg.steps).unwrap();
    let config = SamplingConfig::default();
    let [a, b] = [&built_in, &own].map(|sdid| {
        let sampler = Sampler::new(&process, sdid, &config).unwrap();
        let codes =
            sampler.sample(0..6, (cfg.height, cfg.width), Seed(1), &Device::Cpu, &mut |_, _| ()).unwrap();
        codes.flatten_all().unwrap().to_vec1::<u32>().unwrap()
    });
    assert_eq!(a, b);
}
