//! Whether a config can work, alone and on its data.

use snn_train::TrainingConfig;
use vq_svae::ImageSpec;

use super::config::{ClassesFrom, DataConfig, ExperimentConfig};
use super::limits;
use super::model::ModelName;
use crate::data::Dataset;
use crate::error::{Error, Result};

impl ExperimentConfig {
    /// Checks that a run can work with this config, before anything is trained.
    ///
    /// # Errors
    /// Returns an error, with the field, its value and the reason, if a part does not validate, if the parts do not fit each other
    /// (`sdid` must have the codebook size and map of `vqsvae`), or if something is beyond all size: a number that f32 does not hold,
    /// a tensor of more than 2^32 numbers, more samples than a picture has room for.
    pub fn validate(&self) -> Result<()> {
        let tree = self.to_value()?;
        for part in ["vqsvae", "vqsvae_training", "sdid", "sdid_training", "vae"] {
            limits::numbers(part, &tree[part])?;
        }
        self.validate_model()?;
        if let Some(vae) = &self.vae {
            vae.validate()?;
        }
        self.vqsvae.validate()?;
        self.sdid.validate()?;
        self.sampling.validate()?;
        self.evaluation.bound.validate().map_err(|e| match e {
            absorbing_diffusion::Error::Core(e) => e.within("evaluation").into(),
            e => Error::from(e),
        })?;
        for (stage, training) in self.trainings() {
            training.validate().map_err(|e| e.within(stage))?;
            if training.batch_size < 2 {
                let reason =
                    "must be at least 2: a batch's items are normalised and compared with each other";
                return Err(Error::config(format!("{stage}.batch_size"), training.batch_size, reason));
            }
        }
        let (height, width) = self.vqsvae.image.code_map();
        let pairs = [
            ("sdid.codes", self.sdid.codes, self.vqsvae.codes),
            ("sdid.height", self.sdid.height, height),
            ("sdid.width", self.sdid.width, width),
        ];
        for (field, value, wanted) in pairs {
            if value != wanted {
                return Err(Error::config(field, value, format!("the autoencoder's codes need {wanted}")));
            }
        }
        if let Some(share) = self.label_dropout {
            if !(0. ..1.).contains(&share) {
                return Err(Error::config("label_dropout", share, "must lie in [0, 1)"));
            }
            if self.sdid.classes.is_none() {
                return Err(Error::config("label_dropout", share, "needs `sdid.classes`"));
            }
        }
        if self.classes_from == ClassesFrom::Clusters && self.sdid.classes.is_none() {
            let reason = "needs `sdid.classes`, their number; without classes `labels`";
            return Err(Error::config("classes_from", "clusters", reason));
        }
        let counts = [
            ("samples", self.samples, 1),
            ("evaluation.bound_images", self.evaluation.bound_images, 2),
            ("evaluation.batch_size", self.evaluation.batch_size, 1),
        ];
        if self.evaluation.distance_images == 1 {
            return Err(Error::config("evaluation.distance_images", 1, "must be 0 (none) or at least 2"));
        }
        if let Some((field, count, least)) = counts.into_iter().find(|(_, count, least)| count < least) {
            return Err(Error::config(field, count, format!("must be at least {least}")));
        }
        limits::tensors(self)?;
        limits::pictures(self)
    }

    /// Rejects what cannot work on this data, before anything is trained.
    pub(crate) fn validate_for(&self, data: &Dataset) -> Result<()> {
        self.validate()?;
        let found = DataConfig::of(data);
        if self.data != found {
            let reason = format!("the data are {found:?}; start from `ExperimentConfig::for_data`");
            return Err(Error::config("data", format!("{:?}", self.data), reason));
        }
        let ImageSpec { channels, height, width } = self.vqsvae.image;
        if (channels, height, width) != data.image() {
            let reason = format!("the images of the data are {:?}", data.image());
            return Err(Error::config("vqsvae.image", format!("{:?}", (channels, height, width)), reason));
        }
        if self.image()[0] != channels {
            let reason = format!("the images of the data have {channels} channels");
            return Err(Error::config("vae.network.body.image", format!("{:?}", self.image()), reason));
        }
        if data.test.len() < 2 {
            return Err(Error::config("data.test_images", data.test.len(), "must be at least 2"));
        }
        self.validate_classes(data)?;
        for (stage, training) in self.trainings() {
            training.steps(data.train.len()).map_err(|e| e.within(stage))?;
        }
        Ok(())
    }

    /// Refuses fewer classes than there are labels, and more clusters than there are images.
    pub(super) fn validate_classes(&self, data: &Dataset) -> Result<()> {
        let Some(classes) = self.sdid.classes else { return Ok(()) };
        let refuse = |reason| Err(Error::config("sdid.classes", classes, reason));
        if self.classes_from == ClassesFrom::Clusters {
            return match data.train.len() {
                images if classes > images => {
                    refuse(format!("there are {images} training images to make clusters of"))
                }
                _ => Ok(()),
            };
        }
        for (name, split) in [("training", &data.train), ("test", &data.test)] {
            let largest = split.labels().iter().max().map_or(0, |&label| usize::from(label));
            if classes <= largest {
                return refuse(format!("the labels of the {name} images go up to {largest}"));
            }
        }
        Ok(())
    }

    /// Refuses a model whose parts are not there.
    fn validate_model(&self) -> Result<()> {
        let wanted = match self.model {
            ModelName::Fsvae | ModelName::FsvaeOriginal | ModelName::Esvae => true,
            ModelName::SpikingDiffusion | ModelName::Ann | ModelName::AnnTwin => false,
        };
        if wanted != self.vae.is_some() {
            let reason = if wanted { "needs `vae`" } else { "has no `vae`" };
            return Err(Error::config("model", self.model.name(), reason));
        }
        Ok(())
    }

    pub(crate) fn trainings_mut(&mut self) -> Vec<&mut TrainingConfig> {
        match &mut self.vae {
            Some(vae) => vec![&mut vae.training],
            None => vec![&mut self.vqsvae_training, &mut self.sdid_training],
        }
    }

    pub(crate) fn trainings(&self) -> Vec<(&'static str, &TrainingConfig)> {
        match &self.vae {
            Some(vae) => vec![("vae.training", &vae.training)],
            None => {
                vec![("vqsvae_training", &self.vqsvae_training), ("sdid_training", &self.sdid_training)]
            }
        }
    }
}
