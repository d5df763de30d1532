//! Where parameters live: seeded, ordered by name, and loaded strictly.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Shape, Tensor, Var, bail};
use candle_nn::init::NormalOrUniform;
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};

use super::statistic::asked;
use crate::error::Result;
use crate::room::room;
use crate::{Checkpoint, Seed};

/// Holds the parameters and running statistics of a model in training: creates them from a seed, hands the optimiser those
/// that it moves, and saves and loads all of them.
///
/// A layer that asks the [`VarBuilder`] for a name gets a variable. The first time, the variable is created from the stream
/// `init/<name>` of the seed, so that initial values depend on the seed and the name only. Running statistics, which layers
/// ask for with [`statistic`](crate::statistic), are stored with the parameters but are not [trainable](Self::trainable).
/// What a variable is called does not decide which of the two it is.
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device};
/// # use snn_core::{ParamStore, Seed};
/// # fn main() -> candle_core::Result<()> {
/// let store = ParamStore::new(Seed(1), DType::F32, &Device::Cpu);
/// let weight = store.builder().pp("layer").get((2, 3), "weight")?;
/// assert_eq!(store.trainable()[0].0, "layer.weight");
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ParamStore {
    seed: Seed,
    dtype: DType,
    device: Device,
    entries: Arc<Mutex<BTreeMap<String, Entry>>>,
}

#[derive(Clone)]
struct Entry {
    var: Var,
    role: Role,
}

#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// An optimiser moves it.
    Parameter,
    /// Its layer moves it, and has asked for it as a statistic.
    Statistic,
    /// Its layer moves it, but goes on asking for it as a parameter: somebody else has declared it a statistic.
    Declared,
}

impl std::fmt::Debug for ParamStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParamStore").field("seed", &self.seed).field("names", &self.lock().keys()).finish()
    }
}

impl ParamStore {
    /// An empty store, in which parameters are created as layers ask for them.
    #[must_use]
    pub fn new(seed: Seed, dtype: DType, device: &Device) -> Self {
        Self { seed, dtype, device: device.clone(), entries: Arc::default() }
    }

    /// The builder from which a model gets its parameters.
    #[must_use]
    pub fn builder(&self) -> VarBuilder<'static> {
        VarBuilder::from_backend(Box::new(self.clone()), self.dtype, self.device.clone())
    }

    /// The device that the variables are on.
    #[must_use]
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// All variables with their names, running statistics included, in the order of the names.
    #[must_use]
    pub fn vars(&self) -> Vec<(String, Var)> {
        self.lock().iter().map(|(name, entry)| (name.clone(), entry.var.clone())).collect()
    }

    /// The variables that an optimiser moves, with their names.
    #[must_use]
    pub fn trainable(&self) -> Vec<(String, Var)> {
        let entries = self.lock();
        let trainable = entries.iter().filter(|(_, entry)| entry.role == Role::Parameter);
        trainable.map(|(name, entry)| (name.clone(), entry.var.clone())).collect()
    }

    /// Keeps the optimiser away from a running statistic of a layer that asks for it as a parameter, such as the `running_mean`
    /// and `running_var` of `candle_nn::batch_norm`, which weight decay would otherwise shrink.
    ///
    /// # Errors
    /// Returns an error if there is no variable of this name.
    pub fn declare_statistic(&self, name: &str) -> candle_core::Result<()> {
        match self.lock().get_mut(name) {
            Some(entry) if entry.role == Role::Parameter => entry.role = Role::Declared,
            Some(_) => {}
            None => bail!("{name}: no such parameter, to be declared a statistic"),
        }
        Ok(())
    }

    /// The number of trainable parameters, counted by element.
    #[must_use]
    pub fn parameter_count(&self) -> usize {
        self.trainable().iter().map(|(_, var)| var.elem_count()).sum()
    }

    /// Collects the gradient of every trainable parameter, by name, for the optimiser; a parameter on which the loss does not
    /// depend has exact zeros.
    ///
    /// # Shapes
    /// Each gradient has the shape of its parameter.
    /// # Errors
    /// Returns an error if zeros cannot be allocated.
    pub fn gradients(&self, grads: &GradStore) -> candle_core::Result<BTreeMap<String, Tensor>> {
        let gradient = |var: &Var| grads.get(var).cloned().map_or_else(|| var.zeros_like(), Ok);
        self.trainable().into_iter().map(|(name, var)| Ok((name, gradient(&var)?))).collect()
    }

    /// Copies all values, to be put into a checkpoint; `prefix` goes before each name.
    ///
    /// # Shapes
    /// Each copy has the shape of its variable.
    /// # Errors
    /// Returns an error if a tensor cannot be copied.
    pub fn snapshot(&self, prefix: &str) -> candle_core::Result<BTreeMap<String, Tensor>> {
        self.vars()
            .into_iter()
            .map(|(name, var)| Ok((format!("{prefix}{name}"), var.as_tensor().copy()?)))
            .collect()
    }

    /// Sets every variable to the checkpoint's tensor named `<prefix><name>`.
    ///
    /// # Errors
    /// Returns an error, and sets nothing, if a tensor is missing or has another shape than its variable, or if a tensor under
    /// the prefix belongs to no variable.
    pub fn restore(&self, checkpoint: &Checkpoint, prefix: &str) -> Result<()> {
        let entries = self.lock();
        for name in checkpoint.tensors.keys().filter_map(|name| name.strip_prefix(prefix)) {
            if !entries.contains_key(name) {
                return Err(checkpoint.error(format!("unexpected tensor `{prefix}{name}`")));
            }
        }
        let mut values = Vec::with_capacity(entries.len());
        for (name, Entry { var, .. }) in entries.iter() {
            values.push((var, checkpoint.tensor_like(&format!("{prefix}{name}"), var)?));
        }
        values.into_iter().try_for_each(|(var, value)| Ok(var.set(&value)?))
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn create(&self, name: &str, shape: &Shape, init: Init) -> candle_core::Result<Var> {
        room(name, shape.dims(), self.dtype)?;
        let label = format!("init/{name}");
        let (dtype, device) = (self.dtype, &self.device);
        let value = match init {
            Init::Const(value) => (Tensor::ones(shape, dtype, device)? * value)?,
            Init::Randn { mean, stdev } => self.seed.normal(&label, shape, (mean, stdev), dtype, device)?,
            Init::Uniform { lo, up } => self.seed.uniform(&label, shape, (lo, up), dtype, device)?,
            Init::Kaiming { dist, fan, non_linearity } => {
                let std = non_linearity.gain() / (fan.for_shape(shape) as f64).sqrt();
                match dist {
                    NormalOrUniform::Normal => self.seed.normal(&label, shape, (0., std), dtype, device)?,
                    NormalOrUniform::Uniform => {
                        let bound = 3f64.sqrt() * std;
                        self.seed.uniform(&label, shape, (-bound, bound), dtype, device)?
                    }
                }
            }
        };
        Var::from_tensor(&value)
    }
}

impl SimpleBackend for ParamStore {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        _: &Device,
    ) -> candle_core::Result<Tensor> {
        if dtype != self.dtype {
            bail!("{name}: asked for {dtype:?} of a store of {:?}", self.dtype)
        }
        let role = if asked() { Role::Statistic } else { Role::Parameter };
        let mut entries = self.lock();
        if let Some(entry) = entries.get(name) {
            if entry.var.shape() != &shape {
                bail!("{name}: asked for {shape:?}, exists as {:?}", entry.var.shape())
            }
            match (role, entry.role) {
                (Role::Statistic, Role::Parameter) => {
                    bail!("{name}: asked for as a running statistic, exists as a parameter")
                }
                (Role::Parameter, Role::Statistic) => {
                    bail!("{name}: asked for as a parameter, exists as a running statistic")
                }
                _ => {}
            }
            return Ok(entry.var.as_tensor().clone());
        }
        let var = self.create(name, &shape, init)?;
        let tensor = var.as_tensor().clone();
        entries.insert(name.to_owned(), Entry { var, role });
        Ok(tensor)
    }

    fn get_unchecked(&self, name: &str, _: DType, _: &Device) -> candle_core::Result<Tensor> {
        match self.lock().get(name) {
            Some(entry) => Ok(entry.var.as_tensor().clone()),
            None => bail!("{name}: no such parameter, and no shape to create it with"),
        }
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.lock().contains_key(name)
    }
}
