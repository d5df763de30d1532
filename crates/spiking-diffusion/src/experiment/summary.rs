//! What there is to say of a finished run.

use candle_core::Device;
use snn_train::{RunDir, TrainingConfig};

use super::config::{ClassesFrom, ExperimentConfig};
use super::device;
use super::evaluation::{Evaluation, RATE_IMAGES};
use crate::error::Result;
use crate::report::{Epochs, Machine, Report};

impl Report {
    /// Reports on networks whose stages you have called yourself, or which are your own, by what [`evaluate`](crate::evaluate) has found of them.
    /// Steps, images and sampling are those of the config, and times those that the run's folder has recorded; what makes the run again is not
    /// known, and [`neighbours`](crate::neighbours), [`distance`](crate::Metrics::distance) and [`fad`](crate::Metrics::fad) are none where you put none
    /// in. [`save`](Self::save) writes it, and `table1` reads it.
    ///
    /// # Errors
    /// Returns an error if the times cannot be read.
    pub fn of(cfg: &ExperimentConfig, evaluation: Evaluation, run: &RunDir, device: &Device) -> Result<Self> {
        let (seconds, machine) = (run.seconds()?, Machine::here(&device::name(device)));
        let train = cfg.data.train_images;
        let steps = |training: &TrainingConfig| training.steps(train).unwrap_or(0);
        let seen = |training: &TrainingConfig| steps(training) * training.batch_size;
        let epochs = |training: &TrainingConfig| {
            steps(training) as f64 / training.steps_per_epoch(train).unwrap_or(1) as f64
        };
        let (epochs, mut images) = match &cfg.vae {
            None => (
                Epochs { vqsvae: epochs(&cfg.vqsvae_training), sdid: epochs(&cfg.sdid_training) },
                vec![
                    ("vqsvae", seen(&cfg.vqsvae_training)),
                    ("encode", train),
                    ("sdid", seen(&cfg.sdid_training)),
                ],
            ),
            Some(vae) => (
                Epochs { vqsvae: epochs(&vae.training), sdid: 0. },
                vec![(vae.network.kind(), seen(&vae.training))],
            ),
        };
        images.push(("sample", cfg.samples));
        let speed = |&(stage, n): &(&str, usize)| Some((stage.to_owned(), n as f64 / seconds.get(stage)?));
        Ok(Self {
            dataset: cfg.data.name.clone(),
            synthetic: cfg.data.synthetic,
            partial: cfg.data.partial.clone(),
            seed: cfg.seed.0,
            model: (!cfg.model.is_the_papers()).then(|| cfg.model.name().to_owned()),
            preset: cfg.preset.name().to_owned(),
            epochs,
            train_images: train,
            test_images: cfg.data.test_images,
            held_out: cfg.data.held_out,
            samples: cfg.samples,
            classes: cfg.classes_that_are(ClassesFrom::Labels),
            clusters: cfg.classes_that_are(ClassesFrom::Clusters),
            neighbours: None,
            protocol: protocol(cfg, &evaluation),
            command: None,
            metrics: evaluation.metrics,
            firing_rates: evaluation.firing_rates,
            energy: Some(evaluation.energy),
            images_per_second: images.iter().filter_map(speed).collect(),
            seconds,
            machine,
        })
    }
}

fn protocol(cfg: &ExperimentConfig, evaluation: &Evaluation) -> String {
    let metrics = &evaluation.metrics;
    let distance = metrics.distance.as_ref().map_or(String::new(), |d| {
        format!(
            " FID and KID: {} generated images (seed {}, 8 bits) against the first {} test images; FID of the test \
             reconstructions: those test images against themselves through the autoencoder; definitions of {}; \
             features: {}; subsets by seed {}.{}",
            d.generated_images,
            cfg.seed.0,
            d.real_images,
            d.protocol,
            d.extractor,
            d.seed,
            d.warnings.iter().map(|warning| format!(" Warning: {warning}.")).collect::<String>(),
        )
    });
    let fad = metrics.fad.as_ref().map_or(String::new(), |d| {
        format!(
            " FAD: {} generated images, and the reconstructions of the first {} test images, in 8 bits; {}.",
            d.generated_images, d.reconstructed_images, d.network,
        )
    });
    let cut = |name: &str, training: &TrainingConfig| {
        training.max_steps.map_or(String::new(), |most| format!(" {name}: at most {most} steps of training."))
    };
    if let Some(vae) = &cfg.vae {
        return format!("{}{distance}{fad}{}", protocol_of_vae(cfg), cut("Autoencoder", &vae.training));
    }
    let classes = cfg.sdid.classes.map_or(String::new(), |classes| {
        let from = match cfg.classes_from {
            ClassesFrom::Labels => "labels",
            ClassesFrom::Clusters => "clusters of the training images",
        };
        format!(
            " Each sample's class, one of {classes} {from}, is drawn first, by its share; the bits tell an image's class, and then its \
             tokens, where the denoiser is told the class."
        )
    });
    let cuts = cut("VQ-SVAE", &cfg.vqsvae_training) + &cut("SDID", &cfg.sdid_training);
    let rates = match evaluation.firing_rates.is_empty() {
        true => String::new(),
        false => format!(
            " Firing rates: VQ-SVAE on all test images, SDID on the codes of the first {} test images masked at random times.",
            RATE_IMAGES.min(cfg.data.test_images)
        ),
    };
    let top_k = cfg.sampling.top_k.map_or(String::new(), |k| format!(", top-k {k}"));
    let top_p = cfg.sampling.top_p.map_or(String::new(), |p| format!(", top-p {p}"));
    let thresholds =
        cfg.sampling.v_threshold_scale.map_or(String::new(), |scale| format!(", thresholds x {scale}"));
    format!(
        "MSE and SSIM: all {} test images, pixels in [-0.5, 0.5]; SSIM with an 11x11 Gaussian window, sigma 1.5, zero \
         padding, mean over images. Bits per token: Eq. 14 / (H'W' ln 2) on the codes of the first {} test images, {} \
         stratified diffusion times each; comparable only between runs on the same codes. Codes in use and perplexity: \
         all test images.{rates} Samples: seed {}, {} steps, order {:?}, temperature {}{top_k}{top_p}{thresholds}.{classes}{cuts}{distance}{fad}",
        cfg.data.test_images,
        metrics.bits_per_token_images,
        cfg.evaluation.bound.strata,
        cfg.seed.0,
        cfg.sampling.steps.unwrap_or(cfg.sdid.steps),
        cfg.sampling.order,
        cfg.sampling.temperature,
    )
}

fn protocol_of_vae(cfg: &ExperimentConfig) -> String {
    let ([_, height, width], data) = (cfg.image(), &cfg.vqsvae.image);
    let resized = if (height, width) == (data.height, data.width) {
        String::new()
    } else {
        format!(
            "All images, those of the data too, are of {height} x {width} pixels (the data's bytes resized by Pillow's bilinear filter). "
        )
    };
    format!(
        "{resized}MSE and SSIM: all {} test images, pixels in [-0.5, 0.5], each reconstructed once, from one draw of its latent variables; \
         SSIM with an 11x11 Gaussian window, sigma 1.5, zero padding, mean over images. Firing rates: the same pass. Samples: seed {}, \
         from the prior.",
        cfg.data.test_images, cfg.seed.0,
    )
}
