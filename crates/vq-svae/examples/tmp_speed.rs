#[global_allocator]
static A: mimalloc::MiMalloc = mimalloc::MiMalloc;
use candle_core::{DType, Device};
use snn_core::*;
use vq_svae::*;
fn main() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let t: usize = std::env::args().nth(1).unwrap().parse()?;
    let cfg = VqSvaeConfig { time_steps: t, ..VqSvaeConfig::paper(ImageSpec::MNIST) };
    let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
    let model = VqSvae::new(&cfg, params.builder())?;
    let mut opt = AdamW::new(params.trainable(), AdamWConfig::default())?;
    let x = Seed(1).uniform("x", (32, 1, 28, 28), (-0.5, 0.5), DType::F32, &Device::Cpu)?;
    for _ in 0..6 {
        let t0 = std::time::Instant::now();
        let out = model.forward_t(&x, true)?;
        let loss = model.losses(&x, &out)?.total()?;
        let t1 = t0.elapsed();
        let g = loss.backward()?;
        let t2 = t0.elapsed();
        opt.step(&params.gradients(&g)?, 1.)?;
        println!("fwd {:?} fwd+bwd {:?} all {:?} loss {}", t1, t2, t0.elapsed(), loss.to_scalar::<f32>()?);
    }
    Ok(())
}
