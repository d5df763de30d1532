//! Autoregressive spiking layers: what prior and posterior have in common.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::VarBuilder;
use snn_core::{Drive, LayerDescription, Norm, Observer, SpikingLayer, SpikingStack, SpikingState};

use crate::FsvaeConfig;
use crate::body::run;

/// Linear spiking layers that end in `k` candidates for each latent variable. Their membranes carry what has been; what they are told at
/// a time step is what was drawn at the step before.
#[derive(Debug)]
pub(crate) struct Chain {
    name: &'static str,
    layers: SpikingStack,
    latent: usize,
    candidates: usize,
    normed: bool,
}

impl Chain {
    /// `name` is that of its parameters and of its layers.
    pub(crate) fn new(
        name: &'static str,
        inputs: usize,
        cfg: &FsvaeConfig,
        vb: &VarBuilder<'_>,
    ) -> Result<Self> {
        let vb = vb.pp(name);
        let (mut layers, mut c_in) = (Vec::new(), inputs);
        for (i, &c_out) in cfg.hidden.iter().chain([&(cfg.body.latent * cfg.candidates)]).enumerate() {
            layers.push(SpikingLayer::linear(c_in, c_out, cfg.chains, vb.pp(i))?);
            c_in = c_out;
        }
        Ok(Self {
            name,
            layers: SpikingStack::new(layers),
            latent: cfg.body.latent,
            candidates: cfg.candidates,
            normed: cfg.chains.norm != Norm::None,
        })
    }

    /// The candidates at every time step: `[T, N, inputs]` -> `[T, N, C, k]`.
    pub(crate) fn forward(
        &self,
        inputs: &Tensor,
        train: bool,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<Tensor> {
        let (t, n, _) = inputs.dims3()?;
        let name = |i: usize| format!("{}.{i}", self.name);
        let spikes = run(&self.layers, Drive::Spikes(inputs), train, &name, observe)?;
        spikes.reshape((t, n, self.latent, self.candidates))
    }

    /// Its layers, the first of which reads these.
    pub(crate) fn describe(&self, reads: &[&str]) -> Result<Vec<LayerDescription>> {
        let connections = self.layers.connections([self.latent * reads.len(), 1, 1])?;
        Ok(LayerDescription::in_a_row(self.name, reads, connections))
    }

    /// Draws one time step after the other, by running statistics and without gradient, the membranes kept: `O(T)`.
    ///
    /// # Shapes
    /// `xs: [T, N, inputs - C]`, what is told beside the draw before, if anything; `picks: [T, N, C]`.
    pub(crate) fn by_steps(&self, xs: Option<&Tensor>, picks: &Tensor, dtype: DType) -> Result<Course> {
        let (steps, n, c) = picks.dims3()?;
        let mut state = SpikingState::default();
        let (mut before, mut candidates) = (Vec::with_capacity(steps), Vec::with_capacity(steps));
        let mut z = Tensor::zeros((n, c), dtype, picks.device())?;
        for t in 0..steps {
            let told = match xs {
                Some(xs) => Tensor::cat(&[&xs.get(t)?, &z], 1)?,
                None => z.clone(),
            };
            let made = self.layers.step(&told, &mut state)?.reshape((n, c, self.candidates))?;
            before.push(z);
            z = pick(&made, &picks.get(t)?)?;
            candidates.push(made);
        }
        Ok(Course { before: Tensor::stack(&before, 0)?, candidates: Tensor::stack(&candidates, 0)? })
    }

    /// Draws in training, where a norm takes its statistics from the whole pass: each step but the last is a pass over all steps so
    /// far, without gradient, which also moves the running statistics. Returns `before` of a [`Course`].
    pub(crate) fn by_prefixes(&self, xs: &Tensor, picks: &Tensor) -> Result<Tensor> {
        let (steps, n, c) = picks.dims3()?;
        let xs = xs.detach();
        let mut before = vec![Tensor::zeros((n, c), xs.dtype(), xs.device())?];
        for t in 0..steps - 1 {
            let told = Tensor::cat(&[xs.narrow(0, 0, t + 1)?, Tensor::stack(&before, 0)?], 2)?;
            before.push(pick(&self.last(&told)?, &picks.get(t)?)?);
        }
        Tensor::stack(&before, 0)
    }

    /// The candidates of the last time step of a pass in training, without gradient: `[N, C, k]`.
    pub(crate) fn last(&self, told: &Tensor) -> Result<Tensor> {
        Ok(self.forward(told, true, None)?.get(told.dim(0)? - 1)?.detach())
    }

    /// Whether a pass in training depends on how long it is.
    pub(crate) fn is_normed(&self) -> bool {
        self.normed
    }
}

/// What was drawn step by step.
pub(crate) struct Course {
    /// The draw before each time step, zeros before the first: `[T, N, C]`.
    pub(crate) before: Tensor,
    /// Of every time step: `[T, N, C, k]`.
    pub(crate) candidates: Tensor,
}

/// Picks one candidate of each latent variable: `[.., C, k]` by u32 `[.., C]`, below `k` -> `[.., C]`, differentiable.
pub(crate) fn pick(candidates: &Tensor, picks: &Tensor) -> Result<Tensor> {
    candidates.contiguous()?.gather(&picks.unsqueeze(D::Minus1)?.contiguous()?, D::Minus1)?.squeeze(D::Minus1)
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use snn_core::{ParamStore, Seed};

    use super::*;
    use crate::Draws;

    /// The twin: every prefix from rest.
    fn by_evaluated_prefixes(chain: &Chain, xs: Option<&Tensor>, picks: &Tensor) -> Tensor {
        let (steps, n, c) = picks.dims3().unwrap();
        let mut before = Tensor::zeros((1, n, c), DType::F64, &Device::Cpu).unwrap();
        let mut told = None;
        for t in 0..steps {
            let own = before.clone();
            let tell = |xs: &Tensor| Tensor::cat(&[xs.narrow(0, 0, t + 1).unwrap(), own.clone()], 2).unwrap();
            let all = chain.forward(&xs.map_or(own.clone(), tell), false, None).unwrap();
            let z = pick(&all.get(t).unwrap(), &picks.get(t).unwrap()).unwrap();
            before = Tensor::cat(&[before, z.unsqueeze(0).unwrap()], 0).unwrap();
            told = Some(all);
        }
        told.unwrap()
    }

    #[test]
    fn steps_are_what_prefixes_from_rest_end_with() {
        let values = |xs: &Tensor| xs.flatten_all().unwrap().to_vec1::<f64>().unwrap();
        for cfg in [FsvaeConfig::table1(), FsvaeConfig::original(1)] {
            let mut cfg = FsvaeConfig { candidates: 3, hidden: vec![7, 9], ..cfg };
            (cfg.body.time_steps, cfg.body.latent) = (6, 4);
            let params = ParamStore::new(Seed(3), DType::F64, &Device::Cpu);
            let vb = params.builder();
            let (posterior, prior) =
                (Chain::new("q", 8, &cfg, &vb).unwrap(), Chain::new("p", 4, &cfg, &vb).unwrap());
            for (_, var) in params.trainable() {
                let wide = Seed(5).normal("wide", var.dims(), (0.5, 1.5), DType::F64, &Device::Cpu).unwrap();
                var.set(&wide).unwrap();
            }
            let xs =
                Seed(4).uniform("x", (6, 2, 4), (0., 2.), DType::F64, &Device::Cpu).unwrap().floor().unwrap();
            let picks = Draws::picks(&cfg, 2, Seed(4), "z", &Device::Cpu).unwrap();
            for (chain, xs) in [(&posterior, Some(&xs)), (&prior, None)] {
                let course = chain.by_steps(xs, &picks, DType::F64).unwrap();
                let wanted = values(&by_evaluated_prefixes(chain, xs, &picks));
                assert_eq!(values(&course.candidates), wanted);
                assert!(wanted.contains(&0.) && wanted.contains(&1.), "{wanted:?}");
            }
        }
    }
}
