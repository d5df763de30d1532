//! Images as files: the same whatever the batch size and the threads, and only what is missing is drawn.

use std::path::Path;

use candle_core::Device;
use spiking_diffusion::absorbing_diffusion::{SamplingConfig, Schedule};
use spiking_diffusion::generation::{self, Formats, Saved};
use spiking_diffusion::judge::{Against, FeatureNetwork, Judge};
use spiking_diffusion::metrics::Pixels;
use spiking_diffusion::snn_core::Seed;
use spiking_diffusion::sweep::{self, Sweep};
use spiking_diffusion::{Experiment, Progress, Result, Silent, Trained};

use crate::{few_digits, rejects, tiny};

const BOTH: Formats = Formats { png: true, safetensors: true };

fn trained(folder: &Path) -> Trained {
    let (data, run) = (few_digits(), folder.join("run"));
    let mut cfg = tiny(&data);
    // Enough for images that differ.
    (cfg.vqsvae.time_steps, cfg.vqsvae.codebook_std, cfg.vqsvae_training.epochs) = (4, 1., 12);
    Experiment::new(&cfg, &data).out(&run).run(&mut Silent).unwrap();
    Trained::load(&run, &Device::Cpu).unwrap()
}

fn save(trained: &Trained, count: usize, out: &Path, formats: Formats) -> Result<Saved> {
    generation::save(trained, count, out, formats, &Device::Cpu, &mut Silent)
}

fn png(folder: &Path, i: usize) -> Vec<u8> {
    std::fs::read(folder.join(format!("png/{i:07}.png"))).unwrap()
}

fn tensors(folder: &Path) -> Vec<u8> {
    std::fs::read(folder.join("images-0000.safetensors")).unwrap()
}

#[test]
fn an_image_depends_neither_on_the_batch_size_nor_on_threads() {
    let folder = tempfile::tempdir().unwrap();
    let mut trained = trained(folder.path());
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    save(&trained, 7, &a, BOTH).unwrap();
    for (batch_size, threads) in [(1, 1), (3, 2), (7, 5)] {
        trained.cfg.sampling.batch_size = batch_size;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| save(&trained, 7, &b, BOTH)).unwrap();
        assert!(tensors(&a) == tensors(&b), "{batch_size} {threads}");
        (0..7).for_each(|i| assert!(png(&a, i) == png(&b, i), "{i}: {batch_size} {threads}"));
        std::fs::remove_dir_all(&b).unwrap();
    }
    assert!(png(&a, 0) != png(&a, 1));
    // The very pixels of the run's own samples.
    let samples = trained.samples(7, &Device::Cpu, &mut Silent).unwrap();
    let read = candle_core::safetensors::load(a.join("images-0000.safetensors"), &Device::Cpu).unwrap();
    let clamped = (samples + 0.5).unwrap().clamp(0f32, 1f32).unwrap();
    let difference = (clamped - &read["images"]).unwrap().abs().unwrap().max_all().unwrap();
    assert_eq!(difference.to_scalar::<f32>().unwrap(), 0.);
    let first = read["images"].get(0).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let shown = image::open(a.join("png/0000000.png")).unwrap();
    assert_eq!((shown.color(), shown.width(), shown.height()), (image::ColorType::L8, 28, 28));
    assert!(first.iter().zip(shown.as_bytes()).all(|(x, &byte)| (x * 255.).round() as u8 == byte));
}

#[test]
fn only_what_is_missing_or_broken_is_drawn() {
    let folder = tempfile::tempdir().unwrap();
    let (trained, out) = (trained(folder.path()), folder.path().join("out"));
    let drawn = |count, formats| save(&trained, count, &out, formats).unwrap();
    let only_png = Formats { png: true, safetensors: false };
    assert_eq!(drawn(4, only_png), Saved { drawn: 4, present: 0 });
    assert_eq!(drawn(6, only_png), Saved { drawn: 2, present: 4 });
    let whole: Vec<_> = (0..6).map(|i| png(&out, i)).collect();
    std::fs::remove_file(out.join("png/0000001.png")).unwrap();
    std::fs::write(out.join("png/0000004.png"), &whole[4][..whole[4].len() - 30]).unwrap();
    assert_eq!(drawn(6, only_png), Saved { drawn: 2, present: 4 });
    (0..6).for_each(|i| assert!(png(&out, i) == whole[i], "{i}"));
    assert_eq!(drawn(6, BOTH), Saved { drawn: 6, present: 0 });
    assert_eq!(drawn(6, BOTH), Saved { drawn: 0, present: 6 });
    let bytes = tensors(&out);
    std::fs::write(out.join("images-0000.safetensors"), &bytes[..bytes.len() - 1]).unwrap();
    assert_eq!(drawn(6, BOTH), Saved { drawn: 6, present: 0 });
    assert!(tensors(&out) == bytes);
    // Fewer than there are: nothing to do.
    assert_eq!(drawn(3, BOTH), Saved { drawn: 0, present: 3 });
    // Nor do tensors of more images make way for those of fewer, when another format is asked for.
    std::fs::remove_dir_all(out.join("png")).unwrap();
    assert_eq!(drawn(3, BOTH), Saved { drawn: 3, present: 0 });
    assert!(tensors(&out) == bytes);
}

#[test]
fn a_stop_keeps_what_is_there_and_other_images_are_refused() {
    struct Stop;
    impl Progress for Stop {
        fn stop_requested(&self) -> bool {
            true
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let (mut trained, out) = (trained(folder.path()), folder.path().join("out"));
    trained.cfg.sampling.batch_size = 2;
    let formats = Formats { png: true, safetensors: false };
    let stopped = generation::save(&trained, 5, &out, formats, &Device::Cpu, &mut Stop);
    rejects(stopped, &["stopped", "`generate`", "2 of 5"]);
    assert_eq!(save(&trained, 5, &out, formats).unwrap(), Saved { drawn: 3, present: 2 });

    trained.cfg.sampling.temperature = 0.5.into();
    rejects(save(&trained, 5, &out, formats), &["out", "`temperature`", "0.75", "0.5"]);
    trained.cfg.sampling.temperature = 0.75.into();
    trained.cfg.seed = Seed(1);
    rejects(save(&trained, 5, &out, formats), &["`seed`"]);
    trained.cfg.seed = Seed(0);
    trained.sha256 = "another run".into();
    rejects(save(&trained, 5, &out, formats), &["`networks_sha256`", "another run"]);
    rejects(save(&trained, 5, &folder.path().join("run"), formats), &["run", "generation.json"]);
    let none = Formats { png: false, safetensors: false };
    rejects(save(&trained, 5, &out, none), &["format"]);
    rejects(save(&trained, 0, &out, formats), &["images", "0"]);
}

#[test]
fn a_sweep_is_a_table_of_temperatures() {
    let folder = tempfile::tempdir().unwrap();
    let trained = trained(folder.path());
    let judge = |against, count| {
        let pixels = FeatureNetwork::Extractor(Box::new(Pixels::new(1, 28, 28)));
        Judge::new(pixels, against, &few_digits(), count, &mut Silent)
    };
    let judges = [judge(Against::Train, 100).unwrap(), judge(Against::Test, 24).unwrap()];
    let sweep = |temperatures: &[f64], count, judges| {
        let setting = |&t: &f64| SamplingConfig { temperature: t.into(), ..trained.cfg.sampling };
        let settings: Vec<_> = temperatures.iter().map(setting).collect();
        sweep::sweep(&trained, &settings, count, judges, &Device::Cpu, &mut Silent)
    };
    let found = sweep(&[0.01, 0.2, 100.], 6, &judges).unwrap();
    assert_eq!(
        found.rows.iter().map(|row| row.sampling.temperature).collect::<Vec<_>>(),
        [0.01, 0.2, 100.].map(Schedule::Constant)
    );
    assert!(found.rows.windows(2).all(|w| w[0].codebook_perplexity < w[1].codebook_perplexity), "{found:?}");
    assert!(found.rows.iter().all(|row| row.distances.iter().all(|d| d.is_finite() && *d > 0.)));
    assert!(found.rows.iter().all(|row| row.distances.len() == 2 && row.distances[0] != row.distances[1]));
    assert!(found.judges[0].contains("first 100 training images"), "{:?}", found.judges);
    assert!(found.to_markdown().contains("Distance 2: pixels 1x28x28, against all 24 test images."));
    // The distance is that of the images that are drawn, and the codes are theirs.
    let mut cold = Trained::load(&folder.path().join("run"), &Device::Cpu).unwrap();
    cold.cfg.sampling.temperature = 0.01.into();
    let images = cold.samples(6, &Device::Cpu, &mut Silent).unwrap();
    assert_eq!(judges[1].distance(&images, &mut Silent).unwrap(), found.rows[0].distances[1]);
    let plain = sweep(&[0.2], 6, &[]).unwrap();
    assert_eq!(plain.rows[0].codes_used, found.rows[1].codes_used);
    let page = plain.to_markdown();
    assert!(
        page.contains("| 0.2 |") && page.contains("No distance") && !page.contains("| distance 1 |"),
        "{page}"
    );
    found.save(&folder.path().join("sweep")).unwrap();
    let json = std::fs::read(folder.path().join("sweep/sweep.json")).unwrap();
    assert_eq!(serde_json::from_slice::<Sweep>(&json).unwrap(), found);
    rejects(sweep(&[], 6, &[]), &["sweep", "0 settings"]);
    rejects(sweep(&[0.], 6, &[]), &["temperature", "0"]);
    rejects(sweep(&[1.], 1, &[]), &["1 images"]);
    rejects(judge(Against::Train, 161), &["161 images", "160 training images"]);
    rejects(judge(Against::Test, 1), &["1 images", "24 test images"]);
}
