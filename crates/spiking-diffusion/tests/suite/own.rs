//! A denoiser and an order that are not ours go the whole way: training, generation, a sweep, evaluation.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use spiking_diffusion::absorbing_diffusion::{
    AbsorbingProcess, BitsPerToken, Denoiser, Draft, NoisyCodes, Order, RevealOrder, RngCore, SamplingConfig,
    bits_per_token,
};
use spiking_diffusion::generation::{self, Formats, Saved};
use spiking_diffusion::snn_core::{
    ConvConfig, DescribeLayers, LayerDescription, LifConfig, Model, Observer, ParamStore, Readout,
    ReadoutLayer, SpikingLayer, VarBuilder,
};
use spiking_diffusion::vq_svae::VqSvae;
use spiking_diffusion::{
    Codes, Evaluation, ExperimentConfig, Networks, RunDir, Silent, SpikingDenoiser, Trained, data::Dataset,
    encode_dataset, evaluate, generate, sweep, train_denoiser, train_vqsvae,
};

use crate::{few_digits, rejects, tiny};

const DIM: usize = 4;
const WIDTH: usize = 8;
const CODES: usize = 128;
const CPU: Device = Device::Cpu;

/// One spiking layer over the sum of a token's vector and a class's.
struct Net {
    tokens: Tensor,
    classes: Tensor,
    layer: SpikingLayer,
    head: ReadoutLayer,
}

impl Model for Net {
    const KIND: &'static str = "class-net";
    type Config = ();
    type Error = snn_core::Error;

    fn build((): &(), vb: VarBuilder<'_>) -> snn_core::Result<Self> {
        let same = ConvConfig::new(3, 1, 1);
        let randn = candle_nn::Init::Randn { mean: 0., stdev: 1. };
        Ok(Self {
            tokens: vb.get_with_hints((CODES + 1, DIM), "tokens", randn)?,
            classes: vb.get_with_hints((10, DIM), "classes", randn)?,
            layer: SpikingLayer::conv(DIM, WIDTH, same, LifConfig::default(), vb.pp("layer"))?,
            head: ReadoutLayer::conv(WIDTH, CODES, same, Readout::Mean, vb.pp("head"))?,
        })
    }

    fn config(&self) -> &() {
        &()
    }
}

/// The network, told the class of each image.
struct OfClass<'a> {
    net: &'a Net,
    classes: Vec<u8>,
}

impl OfClass<'_> {
    fn spikes(&self, &NoisyCodes { h_t, images, .. }: &NoisyCodes<'_>, train: bool) -> Result<Tensor> {
        let (n, h, w) = h_t.dims3()?;
        let classes: Vec<u32> = images.iter().map(|&i| self.classes[i].into()).collect();
        let classes = self.net.classes.index_select(&Tensor::new(classes, &CPU)?, 0)?.reshape((n, 1, DIM))?;
        let tokens = self.net.tokens.index_select(&h_t.flatten_all()?, 0)?.reshape((n, h * w, DIM))?;
        let current = tokens.broadcast_add(&classes)?.transpose(1, 2)?.contiguous()?;
        self.net.layer.forward_constant(&current.reshape((n, DIM, h, w))?, 2, train)
    }
}

impl Denoiser for OfClass<'_> {
    fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> Result<Tensor> {
        self.net.head.forward(&self.spikes(noisy, train)?)
    }
}

impl DescribeLayers for OfClass<'_> {
    fn describe_layers(&self) -> Result<Vec<LayerDescription>> {
        let layer = LayerDescription::new("layer", &[], self.net.layer.connections([DIM, 7, 7])?);
        Ok(vec![layer, LayerDescription::new("head", &["layer"], self.net.head.connections([WIDTH, 7, 7])?)])
    }
}

impl SpikingDenoiser for OfClass<'_> {
    fn name(&self) -> &str {
        "class-net"
    }

    fn observe(&self, noisy: &NoisyCodes<'_>, see: &mut Observer<'_>) -> Result<Tensor> {
        let spikes = self.spikes(noisy, false)?;
        see("layer", &spikes)?;
        self.net.head.forward(&spikes)
    }
}

/// Reveals from the first token to the last.
struct LineByLine;

impl RevealOrder for LineByLine {
    fn propose(&self, draft: &Draft<'_>, _: &mut dyn RngCore) -> Vec<usize> {
        draft.masked().into_iter().take(draft.due()).collect()
    }
}

/// One of ours in disguise.
struct Disguised(Order);

impl RevealOrder for Disguised {
    fn propose(&self, draft: &Draft<'_>, rng: &mut dyn RngCore) -> Vec<usize> {
        self.0.propose(draft, rng)
    }
}

/// A run whose denoiser is the network above, trained with the class of each training image.
struct Run {
    data: Dataset,
    cfg: ExperimentConfig,
    vqsvae: VqSvae,
    codes: Codes,
    net: Net,
}

fn run(folder: &Path) -> Run {
    let data = few_digits();
    let mut cfg = tiny(&data);
    (cfg.vqsvae.time_steps, cfg.vqsvae.codebook_std, cfg.vqsvae_training.epochs) = (4, 1., 12);
    cfg.sdid_training.epochs = 6;
    // Hot enough that images differ.
    cfg.sampling.temperature = 3.0.into();
    let run = RunDir::open(folder, &cfg, false).unwrap();
    let vqsvae = train_vqsvae(&cfg, &data.train, &run, &CPU, &mut Silent).unwrap();
    let codes = encode_dataset(&cfg, &vqsvae, &data, &run, &CPU, &mut Silent).unwrap();
    let params = ParamStore::new(cfg.seed.child("class-net"), DType::F32, &CPU);
    let net = Net::build(&(), params.builder()).unwrap();
    let denoiser = OfClass { net: &net, classes: data.train.labels().to_vec() };
    train_denoiser(&cfg, &net, &params, &denoiser, &codes.train, &run, &mut Silent).unwrap();
    Run { data, cfg, vqsvae, codes, net }
}

impl Run {
    fn images(&self, classes: &[u8], order: Option<&dyn RevealOrder>) -> Vec<Vec<f32>> {
        let denoiser = OfClass { net: &self.net, classes: classes.to_vec() };
        let networks = Networks::new(&self.vqsvae, &denoiser);
        let networks = order.map_or(networks, |order| networks.with_order(order));
        let images = generate(&self.cfg, networks, 0..classes.len(), &CPU, &mut Silent).unwrap();
        images.flatten_from(1).unwrap().to_vec2().unwrap()
    }

    fn evaluate(&self, networks: Networks<'_>) -> Evaluation {
        evaluate(&self.cfg, networks, &self.data.test, &self.codes.test, &CPU, &mut Silent).unwrap()
    }

    /// The bound, by the diffusion's own function.
    fn bits(&self, denoiser: &dyn Denoiser) -> BitsPerToken {
        let process = AbsorbingProcess::new(CODES, self.cfg.sdid.steps).unwrap();
        let (codes, evaluation) = (self.codes.test.narrow(0, 0, 16).unwrap(), &self.cfg.evaluation);
        bits_per_token(&process, denoiser, &codes, &evaluation.bound, self.cfg.seed).unwrap()
    }
}

#[test]
fn an_own_denoiser_with_a_condition_per_image_is_trained_drawn_from_and_measured() {
    let folder = tempfile::tempdir().unwrap();
    let run = run(folder.path());

    // The training told it the numbers of the training images: their classes' vectors, and no others, have moved.
    let fresh = ParamStore::new(run.cfg.seed.child("class-net"), DType::F32, &CPU);
    let fresh = Net::build(&(), fresh.builder()).unwrap().classes;
    let moved = (&run.net.classes - fresh).unwrap().abs().unwrap().max(1).unwrap().to_vec1::<f32>().unwrap();
    let seen = |class: usize| run.data.train.labels().contains(&(class as u8));
    moved
        .iter()
        .enumerate()
        .filter(|(class, _)| seen(*class))
        .for_each(|(class, x)| assert!(*x > 0.01, "{class}"));
    // What was trained is in the run's folder.
    let file = folder.path().join("class-net.safetensors");
    let net = Net::load(&file, &CPU).unwrap();
    assert_eq!(net.tokens.to_vec2::<f32>().unwrap(), run.net.tokens.to_vec2::<f32>().unwrap());

    // An image follows from its own class, wherever the others are.
    let (threes, mixed) = (run.images(&[3; 4], None), run.images(&[0, 3, 8, 3], None));
    assert!(threes[1] == mixed[1] && threes[3] == mixed[3]);
    assert!(threes[0] != mixed[0] && threes[2] != mixed[2]);

    // The bound is that of the classes of the test images.
    let [right, wrong] =
        [run.data.test.labels().to_vec(), vec![3; 24]].map(|classes| OfClass { net: &run.net, classes });
    let found = run.evaluate(Networks::spiking(&run.vqsvae, &right));
    let bits = run.bits(&right);
    assert_eq!(
        (found.metrics.bits_per_token, found.metrics.bits_per_token_standard_error),
        (bits.mean, bits.standard_error)
    );
    assert_ne!(bits.mean, run.bits(&wrong).mean);
    // So are the firing rates, of its own layers under its own name.
    let others = run.evaluate(Networks::spiking(&run.vqsvae, &wrong));
    assert_ne!(found.firing_rates["class-net.layer"], others.firing_rates["class-net.layer"]);
    let names: Vec<_> = found.energy.layers.iter().map(|line| line.name.as_str()).collect();
    assert_eq!(names[names.len() - 2..], ["class-net.layer", "class-net.head"]);
    assert_eq!(found.energy.work.len(), 3);

    // Without observation the numbers are the same, and only the autoencoder has rates.
    let plain = run.evaluate(Networks::new(&run.vqsvae, &right));
    assert_eq!(plain.metrics, found.metrics);
    assert!(
        plain.firing_rates.keys().all(|name| name.starts_with("vqsvae.")) && plain.firing_rates.len() == 6
    );
    assert_eq!(plain.energy.work.len(), 1);
    let own_order = run.evaluate(Networks::spiking(&run.vqsvae, &right).with_order(&LineByLine));
    assert_eq!(own_order.energy.work[..], found.energy.work[..2]);

    // A finished run with this denoiser is measured in the same two ways.
    let trained = Trained::with_denoiser(folder.path(), right, "the true classes", &CPU).unwrap();
    assert_eq!(run.evaluate(trained.networks()).firing_rates, plain.firing_rates);
    assert_eq!(run.evaluate(trained.spiking().networks()).firing_rates, found.firing_rates);
}

#[test]
fn an_own_order_draws_everywhere() {
    let folder = tempfile::tempdir().unwrap();
    let (mut run, out) = (run(folder.path()), folder.path().join("images"));
    run.cfg.sampling.order = Order::Posterior;
    let posterior = run.images(&[3; 4], None);
    let disguised = run.images(&[3; 4], Some(&Disguised(Order::ExactK)));
    let lines = run.images(&[3; 4], Some(&LineByLine));
    run.cfg.sampling.order = Order::ExactK;
    assert!(run.images(&[3; 4], None) == disguised);
    assert!(disguised != posterior && lines != disguised);

    // Nothing is borrowed, so a finished run holds both.
    struct Owned(Net);
    impl Denoiser for Owned {
        fn logits(&self, noisy: &NoisyCodes<'_>, train: bool) -> Result<Tensor> {
            OfClass { net: &self.0, classes: vec![3; 100] }.logits(noisy, train)
        }
    }
    let trained = |name: &str| {
        let net = Net::load(&folder.path().join("class-net.safetensors"), &CPU).unwrap();
        Trained::with_denoiser(folder.path(), Owned(net), name, &CPU).unwrap()
    };
    let threes = trained("threes").with_order("line by line", LineByLine);
    let samples = threes.samples(4, &CPU, &mut Silent).unwrap().flatten_from(1).unwrap();
    assert!(samples.to_vec2::<f32>().unwrap() == lines);

    let formats = Formats { png: false, safetensors: true };
    let save = |trained: &Trained<Owned>| generation::save(trained, 4, &out, formats, &CPU, &mut Silent);
    assert_eq!(save(&threes).unwrap(), Saved { drawn: 4, present: 0 });
    let read = candle_core::safetensors::load(out.join("images-0000.safetensors"), &CPU).unwrap();
    let clamped = (samples + 0.5).unwrap().clamp(0f32, 1f32).unwrap();
    let saved = read["images"].flatten_from(1).unwrap();
    assert_eq!(saved.to_vec2::<f32>().unwrap(), clamped.to_vec2::<f32>().unwrap());
    // Other images are told apart by the names of their order and of their denoiser.
    rejects(save(&trained("threes")), &["`own_order`", "line by line"]);
    rejects(
        save(&trained("threes").with_order("lines", LineByLine)),
        &["`own_order`", "line by line", "lines"],
    );
    rejects(save(&trained("fours").with_order("line by line", LineByLine)), &["`networks_sha256`"]);
    assert_eq!(save(&threes).unwrap(), Saved { drawn: 0, present: 4 });

    let sweep = |trained: &Trained<Owned>| {
        let sampling = SamplingConfig { temperature: 3.0.into(), ..trained.cfg.sampling };
        sweep::sweep(trained, &[sampling], 8, &[], &CPU, &mut Silent).unwrap().rows[0].clone()
    };
    assert_ne!(sweep(&threes).codebook_perplexity, sweep(&trained("threes")).codebook_perplexity);
    assert!(sweep(&threes).passes.is_none() && sweep(&trained("threes")).passes.is_some());
}
