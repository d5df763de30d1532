//! Runs as one file.

use candle_core::{DType, Device, Tensor};
use spiking_diffusion::{Experiment, Silent, Trained, pack};

use crate::{few_digits, rejects, tiny};

fn samples(trained: &Trained) -> Vec<f32> {
    let images = trained.samples(6, &Device::Cpu, &mut Silent).unwrap();
    images.flatten_all().unwrap().to_vec1().unwrap()
}

#[test]
fn a_packed_run_draws_what_the_run_draws() {
    let root = tempfile::tempdir().unwrap();
    let (run, at) = (root.path().join("run"), |name: &str| root.path().join(name));
    let data = few_digits();
    Experiment::new(&tiny(&data), &data).out(&run).run(&mut Silent).unwrap();
    pack(&run, &at("f32"), DType::F32).unwrap();
    pack(&run, &at("f16"), DType::F16).unwrap();
    let [folder, exact, half] =
        [run.clone(), at("f32"), at("f16")].map(|path| Trained::load(&path, &Device::Cpu).unwrap());
    assert_eq!((&exact.cfg, &half.cfg), (&folder.cfg, &folder.cfg));
    assert!(folder.sha256 != exact.sha256 && exact.sha256 != half.sha256);
    assert_eq!(samples(&exact), samples(&folder));
    let codes = Tensor::zeros((1, 7, 7), DType::U32, &Device::Cpu).unwrap();
    let image = |trained: &Trained| trained.autoencoder.decode(&codes).unwrap();
    let off = (image(&half) - image(&folder)).unwrap().abs().unwrap().max_all().unwrap();
    let off = off.to_scalar::<f32>().unwrap();
    assert!(off < 0.05, "a spike more or less at the most: {off}");
    let size = |name: &str| std::fs::metadata(at(name)).unwrap().len();
    assert!(size("f16") < size("f32") * 2 / 3);

    rejects(pack(&run, &at("f16"), DType::F16), &["f16", "not overwritten"]);
    rejects(pack(&run, &at("u8"), DType::U8), &["`dtype` = U8", "f16, bf16 or f32"]);
    rejects(pack(&at("none"), &at("none.out"), DType::F16), &["none"]);
    assert!(!at("u8").exists() && !at("none.out").exists());
    let mut bytes = std::fs::read(at("f16")).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(at("damaged"), bytes).unwrap();
    rejects(Trained::load(&at("damaged"), &Device::Cpu), &["damaged", "SHA-256"]);
    rejects(
        Trained::load(&run.join("vqsvae.safetensors"), &Device::Cpu),
        &["holds a `vq-svae`, not a `run`"],
    );
}

/// Ten digits by which anybody would know the model in the box; the report in `models/` has its numbers.
#[cfg(feature = "mnist-model")]
#[test]
fn the_model_in_the_box_draws_digits() {
    let trained = Trained::mnist(&Device::Cpu).unwrap();
    assert_eq!((trained.cfg.data.name.as_str(), trained.cfg.data.train_images), ("mnist", 60_000));
    let images = trained.samples(16, &Device::Cpu, &mut Silent).unwrap();
    assert_eq!(images.dims(), [16, 1, 28, 28]);
    // Strokes on black: a digit covers a tenth to a third of its image, and the border stays empty.
    let lit = |images: &Tensor| images.ge(0f32).unwrap().to_dtype(DType::F32).unwrap().mean_all().unwrap();
    let share = lit(&images).to_scalar::<f32>().unwrap();
    assert!((0.07..0.25).contains(&share), "{share}");
    let border = lit(&images.narrow(2, 0, 2).unwrap()).to_scalar::<f32>().unwrap();
    assert!(border < 0.02, "{border}");
}
