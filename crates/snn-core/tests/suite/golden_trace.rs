//! Firing rate, PSP and read-outs against their recursions in PyTorch.

use candle_core::{DType, Tensor};
use snn_core::{Readout, psp, rate};

use crate::common::{Golden, Result, assert_close, gradients};

fn check(name: &str, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) -> Result {
    let golden = Golden::load("trace")?;
    let spikes = golden.var("spikes", DType::F64)?;
    let ys = f(&spikes)?;
    assert_close(name, &ys, golden.get(name)?, 1e-12);
    let grad = gradients(&ys, golden.get(&format!("{name}.w"))?, &[&spikes])?.remove(0);
    assert_close(&format!("{name}: gradient"), &grad, golden.get(&format!("{name}.gx"))?, 1e-12);
    Ok(())
}

#[test]
fn rate_is_eq_4() -> Result {
    check("rate", rate)?;
    check("rate", |spikes| Readout::Mean.apply(spikes))
}

#[test]
fn psp_is_eq_5() -> Result {
    check("psp.tau2", |spikes| psp(spikes, 2.))?;
    check("psp.tau5", |spikes| psp(spikes, 5.))
}

#[test]
fn exponential_sum_is_the_released_read_out() -> Result {
    check("readout.decay0.8", |spikes| Readout::ExponentialSum { decay: 0.8 }.apply(spikes))?;
    // Five times the last PSP of tau = 5.
    check("readout.decay0.8", |spikes| Readout::Psp { tau: 5. }.apply(spikes)? * 5.)
}

#[test]
fn psp_readout_is_the_last_psp() -> Result {
    let golden = Golden::load("trace")?;
    for tau in [1., 2., 5.] {
        let spikes = golden.get("spikes")?;
        let last = psp(spikes, tau)?.get(15)?;
        assert_close(&format!("tau = {tau}"), &Readout::Psp { tau }.apply(spikes)?, &last, 1e-15);
    }
    Ok(())
}
