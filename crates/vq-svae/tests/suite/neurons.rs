//! Neurons of one's own in the network.

use std::sync::Arc;

use candle_core::{DType, Device, Result, Tensor};
use snn_core::{Checkpoint, LifConfig, Model, NeuronModel, ParamStore, Seed, lif_step};
use vq_svae::{ImageSpec, VqSvae, VqSvaeConfig};

use crate::{Fixture, tiny};

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

fn assert_close(what: &str, a: &Tensor, b: &Tensor) {
    let [a, b] = [a, b].map(|x| x.flatten_all().unwrap().to_vec1::<f64>().unwrap());
    let size = b.iter().fold(1e-9f64, |size, x| size.max(x.abs()));
    assert!(a.iter().zip(&b).all(|(a, b)| (a - b).abs() <= 1e-9 * size), "{what}: {a:?} {b:?}");
}

/// The same neurons, brought in from outside, make the same network: images, losses, gradients, codes.
#[test]
fn neurons_of_ones_own_are_those_of_every_layer() {
    for cfg in [tiny(VqSvaeConfig::paper), tiny(VqSvaeConfig::released_code)] {
        let built_in = Fixture::lively(&cfg, 3, DType::F64);
        let mut own = Fixture::lively(&cfg, 3, DType::F64);
        let mut names = Vec::new();
        own.model = own
            .model
            .map_layers(|name, layer| {
                names.push(name.to_owned());
                Ok(layer.with_neuron(Arc::new(Again(cfg.lif))))
            })
            .unwrap();
        assert_eq!(names, ["encoder.0", "encoder.1", "encoder.2", "generator", "decoder.0", "decoder.1"]);

        let (channels, height, width) = (cfg.image.channels, cfg.image.height, cfg.image.width);
        let images = Seed(5)
            .uniform("images", (3, channels, height, width), (-0.5, 0.5), DType::F64, &Device::Cpu)
            .unwrap();
        for fixture in [&built_in, &own] {
            fixture.settle(&images);
        }
        let [a, b] = [&built_in, &own].map(|fixture| fixture.model.forward_t(&images, true).unwrap());
        assert_close("images", &b.reconstruction, &a.reconstruction);
        assert_close("spikes", &b.spikes_q, &a.spikes_q);
        let gradients = [(&built_in, &a), (&own, &b)].map(|(fixture, out)| {
            let losses = fixture.model.losses(&images, out).unwrap();
            fixture.params.gradients(&losses.total().unwrap().backward().unwrap()).unwrap()
        });
        for (name, wanted) in &gradients[0] {
            assert_close(name, &gradients[1][name], wanted);
        }
        let [a, b] = [&built_in, &own].map(|fixture| fixture.model.encode(&images).unwrap());
        assert_eq!(
            a.flatten_all().unwrap().to_vec1::<u32>().unwrap(),
            b.flatten_all().unwrap().to_vec1::<u32>().unwrap()
        );
        let [a, b] =
            [(&built_in, &a), (&own, &b)].map(|(fixture, codes)| fixture.model.decode(codes).unwrap());
        assert_close("decoded", &b, &a);
    }
}

/// An error of the user's is returned, and another neuron is another network.
#[test]
fn what_is_made_of_a_layer_counts() {
    let cfg = tiny(VqSvaeConfig::paper);
    let fails = Fixture::new(&cfg, 3, DType::F64).model.map_layers(|name, _| candle_core::bail!("no {name}"));
    assert!(fails.unwrap_err().to_string().contains("no encoder.0"));

    let deaf = LifConfig { v_threshold: 1e6, ..cfg.lif };
    let fixture = Fixture::lively(&cfg, 3, DType::F64);
    let images =
        Tensor::zeros((1, cfg.image.channels, cfg.image.height, cfg.image.width), DType::F64, &Device::Cpu);
    let silent = fixture.model.map_layers(|_, layer| Ok(layer.with_neuron(Arc::new(Again(deaf))))).unwrap();
    let out = silent.forward_t(&images.unwrap(), false).unwrap();
    assert_eq!(out.spikes_e.sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.);
    assert_eq!(out.spikes_q.sum_all().unwrap().to_scalar::<f64>().unwrap(), 0.);
}

/// What a network of changed layers has learned is not read into one of the config's.
#[test]
fn a_checkpoint_of_changed_layers_is_read_into_such_layers_alone() {
    let cfg = tiny(VqSvaeConfig::paper);
    let Fixture { model, params, .. } = Fixture::lively(&cfg, 3, DType::F32);
    let own =
        |model: VqSvae| model.map_layers(|_, layer| Ok(layer.with_neuron(Arc::new(Again(cfg.lif))))).unwrap();
    let (model, folder) = (own(model), tempfile::tempdir().unwrap());
    let file = folder.path().join("own.safetensors");
    model.checkpoint(&params).unwrap().save(&file).unwrap();
    let refused = VqSvae::load(&file, &Device::Cpu).unwrap_err().to_string();
    assert!(
        refused.contains("vq-svae of changed layers") && refused.contains("own.safetensors"),
        "{refused}"
    );

    let fresh = ParamStore::new(Seed(9), DType::F32, &Device::Cpu);
    let again = own(VqSvae::new(&cfg, fresh.builder()).unwrap());
    fresh.restore(&Checkpoint::load(&file, again.kind(), &Device::Cpu).unwrap(), "").unwrap();
    let ImageSpec { channels, height, width } = cfg.image;
    let range = (-0.5, 0.5);
    let images = Seed(5).uniform("images", (3, channels, height, width), range, DType::F32, &Device::Cpu);
    let images = images.unwrap();
    let [a, b] = [&model, &again].map(|model| model.encode(&images).unwrap().to_vec3::<u32>().unwrap());
    assert_eq!(a, b);
}
