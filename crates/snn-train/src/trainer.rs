//! A training of any network: what it is given, what each step is given and returns, and what it leaves.

use std::path::{Path, PathBuf};

use candle_core::{DType, Device, Tensor};
use snn_core::{Checkpoint, Model, ParamStore, Seed, on_workers};

use crate::error::{Error, Result};
use crate::session::Session;
use crate::state::States;
use crate::{Progress, RunDir, TrainingConfig};

/// What a step is given: the items of its batch, or of its [shard](TrainingConfig::shards) of it, and where in the training it is.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    /// The numbers of the items, each below the number of all items; as many as the config's batch size, or as are in a shard of it.
    pub items: &'a [u32],
    /// The place of the first of these items in the whole batch: 0, or where the shard begins. If you draw a step's random numbers for the
    /// whole batch and take those of the items, they do not depend on the shards.
    pub first: usize,
    /// How many items the whole batch has: the config's batch size.
    pub whole: usize,
    /// The step, counted from 0 over all epochs. If you name the step's random streams by it, they need not be saved.
    pub step: usize,
    /// The epoch, counted from 0.
    pub epoch: usize,
}

/// What a step returns: the loss, and what else is to be recorded.
#[derive(Clone, Debug)]
pub struct StepLoss {
    /// The scalar whose gradient the parameters go down.
    pub loss: Tensor,
    /// The further [columns](Trainer::columns) of the CSV: scalars, which are read together with the loss where they have its element type
    /// and device.
    pub columns: Vec<Tensor>,
}

impl From<Tensor> for StepLoss {
    /// A loss without further columns.
    fn from(loss: Tensor) -> Self {
        Self { loss, columns: Vec::new() }
    }
}

impl StepLoss {
    /// The loss and the columns as numbers, read in one go where they are alike: a GPU is waited for once.
    pub(crate) fn numbers(&self) -> Result<Vec<f64>> {
        let all: Vec<&Tensor> = std::iter::once(&self.loss).chain(&self.columns).collect();
        let like_loss =
            |x: &&Tensor| x.dtype() == self.loss.dtype() && x.device().same_device(self.loss.device());
        let host = |x: &Tensor| x.to_device(&Device::Cpu)?.to_dtype(DType::F64);
        if all.iter().all(like_loss) {
            return Ok(host(&Tensor::stack(&all, 0)?)?.to_vec1()?);
        }
        all.into_iter().map(|x| Ok(host(x)?.to_scalar()?)).collect()
    }
}

/// Trains the parameters of one network, whatever it is.
///
/// Each step gets the next batch of a seeded order and returns a loss, and the parameters go down its gradient by AdamW (or
/// [Muon](TrainingConfig::muon)), with the config's schedule and clipping. Where the config asks for their [average](TrainingConfig::average), they are that in the end. With a [run's folder](Self::in_run), a stage named `net` writes a row for each step to
/// `net.csv`, and while it lasts keeps its state in `net.state.safetensors`, with the state before it. From there it resumes
/// exactly: a training that was stopped and resumed ends with the same bytes as one that never was.
///
/// # Examples
/// A line through three points:
/// ```
/// use candle_core::{DType, Device, Tensor};
/// use snn_core::{AdamWConfig, ParamStore, Seed};
/// use snn_train::{Batch, Silent, StepLoss, Trainer, TrainingConfig};
///
/// # fn main() -> snn_train::Result<()> {
/// let (xs, ys) = (Tensor::new(&[0f32, 1., 2., 3.], &Device::Cpu)?, Tensor::new(&[1f32, 3., 5., 7.], &Device::Cpu)?);
/// let params = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let (slope, offset) = (params.builder().get(1, "slope")?, params.builder().get(1, "offset")?);
///
/// let adamw = AdamWConfig { lr: 0.1, weight_decay: 0., ..AdamWConfig::default() };
/// let cfg = TrainingConfig { batch_size: 2, adamw, ..TrainingConfig::new(200) };
/// Trainer::new("line", &cfg, &params, 4, Seed(0)).train(&mut Silent, |batch: Batch<'_>| -> snn_train::Result<StepLoss> {
///     let items = Tensor::new(batch.items, &Device::Cpu)?;
///     let guess = xs.index_select(&items, 0)?.broadcast_mul(&slope)?.broadcast_add(&offset)?;
///     Ok((guess - ys.index_select(&items, 0)?)?.sqr()?.mean_all()?.into())
/// })?;
/// assert!((slope.to_vec1::<f32>()?[0] - 2.).abs() < 0.1);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct Trainer<'a> {
    pub(crate) name: &'a str,
    pub(crate) cfg: &'a TrainingConfig,
    pub(crate) params: &'a ParamStore,
    pub(crate) items: usize,
    pub(crate) seed: Seed,
    pub(crate) columns: Vec<String>,
    pub(crate) run: Option<&'a RunDir>,
}

impl<'a> Trainer<'a> {
    /// A training of `params` on the items `0..items`, which writes no files. `name` names its random streams, and its files
    /// [in a run's folder](Self::in_run).
    #[must_use]
    pub fn new(
        name: &'a str,
        cfg: &'a TrainingConfig,
        params: &'a ParamStore,
        items: usize,
        seed: Seed,
    ) -> Self {
        Self { name, cfg, params, items, seed, columns: Vec::new(), run: None }
    }

    /// The same training with further columns in its CSV, between `loss` and `grad_norm`. Each step returns their
    /// [values](StepLoss::columns).
    #[must_use]
    pub fn columns<S: AsRef<str>>(self, names: &[S]) -> Self {
        Self { columns: names.iter().map(|name| name.as_ref().to_owned()).collect(), ..self }
    }

    /// The same training in a run's folder, where it writes a CSV and checkpoints, resumes, and records the time that it takes.
    #[must_use]
    pub fn in_run(self, run: &'a RunDir) -> Self {
        Self { run: Some(run), ..self }
    }

    /// Trains to the end, from the last checkpoint if there is one.
    ///
    /// On the CPU each step runs [on the threads that operations compute on](on_workers), and so `step` must not wait for others that call
    /// operations, nor may another thread use the parameters that are trained: give it copies, in a network of their own.
    ///
    /// # Errors
    /// Returns the errors of `step`, and an error if the config does not [validate](TrainingConfig::validate), cuts its batches into
    /// shards, which [`train_over`](Self::train_over) computes, or there are too few items for one batch; if a loss, a gradient or a parameter is not finite (the last checkpoint stays); if a stop was
    /// asked for (a checkpoint is written first); or if a file cannot be read or written.
    pub fn train<E: From<Error> + Send>(
        &self,
        progress: &mut dyn Progress,
        mut step: impl FnMut(Batch<'_>) -> Result<StepLoss, E> + Send,
    ) -> Result<(), E> {
        if let Some(shards) = self.cfg.shards.filter(|&shards| shards > 1) {
            let reason = "this training takes its batches whole: use `train_over`";
            return Err(Error::config("shards", shards, reason).into());
        }
        let mut session = Session::open(self, progress)?;
        progress.begin(self.name, session.total, session.done());
        while let Some(value) = on_workers(self.params.device(), || session.step(&mut step))? {
            progress.advance(session.done(), Some(value));
            session.keep(progress.stop_requested())?;
        }
        session.end(progress)?;
        Ok(())
    }

    /// Trains a model and writes it to the file `<name>.safetensors` of the run's folder. If the file is there already, nothing
    /// is trained and the model gets its parameters from the file.
    ///
    /// # Errors
    /// Returns the errors of [`train`](Self::train), and an error if there is no run's folder or if the file is not of this
    /// model.
    pub fn train_model<M: Model, E: From<Error> + Send>(
        &self,
        model: &M,
        progress: &mut dyn Progress,
        step: impl FnMut(Batch<'_>) -> Result<StepLoss, E> + Send,
    ) -> Result<(), E> {
        let path = self.result()?;
        if path.exists() {
            self.read(model.kind(), &path)?;
        } else {
            self.train(progress, step)?;
            self.write(model, &path)?;
        }
        self.states().map_or(Ok(()), |states| states.discard())?;
        Ok(())
    }

    /// The file of the trained model.
    pub(crate) fn result(&self) -> Result<PathBuf> {
        let run =
            self.run.ok_or_else(|| Error::config("run", self.name, "needs a run's folder: `in_run`"))?;
        Ok(run.file(&format!("{}.safetensors", self.name)))
    }

    pub(crate) fn write<M: Model>(&self, model: &M, path: &Path) -> Result<()> {
        Ok(model.checkpoint(self.params).and_then(|checkpoint| checkpoint.save(path))?)
    }

    pub(crate) fn read(&self, kind: &str, path: &Path) -> Result<()> {
        let checkpoint = Checkpoint::load(path, kind, self.params.device())?;
        Ok(self.params.restore(&checkpoint, "")?)
    }

    pub(crate) fn states(&self) -> Option<States<'a>> {
        self.run.map(|run| States { run, stage: self.name })
    }

    pub(crate) fn finite(&self, what: &'static str, step: usize, value: f64) -> Result<f64> {
        if value.is_finite() {
            return Ok(value);
        }
        let kept = self.states().and_then(|states| states.files().into_iter().find(|path| path.exists()));
        Err(Error::NotFinite { stage: self.name.to_owned(), what, step, value, kept })
    }
}
