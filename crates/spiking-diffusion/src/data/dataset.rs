//! A data set in memory.

use sha2::{Digest, Sha256};

use super::split::Split;
use crate::error::{Error, Result};

/// Holds the images that a run trains on and those that it is tested on: two splits of images of one shape.
#[derive(Clone, Debug)]
pub struct Dataset {
    /// Its name, as in reports and default folders.
    pub name: String,
    /// Whether a program drew it.
    pub synthetic: bool,
    /// What its files lack of the official ones, if they do.
    pub partial: Option<String>,
    /// How many of the last training images stand where the test images would; 0 where [`test`](Self::test) is the test set.
    pub held_out: usize,
    /// What networks are trained on.
    pub train: Split,
    /// What they are measured on.
    pub test: Split,
}

impl Dataset {
    /// Joins two splits.
    ///
    /// # Errors
    /// Returns an error if the splits' images have different shapes.
    /// # Examples
    /// ```
    /// use spiking_diffusion::data::{Dataset, Split};
    /// # fn main() -> spiking_diffusion::Result<()> {
    /// let grey = |n: usize| Split::new(vec![128; n * 64], vec![0; n], (1, 8, 8));
    /// let data = Dataset::new("grey", grey(100)?, grey(10)?)?;
    /// assert_eq!((data.train.len(), data.image()), (100, (1, 8, 8)));
    /// # Ok(()) }
    /// ```
    pub fn new(name: impl Into<String>, train: Split, test: Split) -> Result<Self> {
        if train.image() != test.image() {
            let shapes = format!("{:?} and {:?}", train.image(), test.image());
            return Err(Error::config("data", shapes, "training and test images must have one shape"));
        }
        Ok(Self { name: name.into(), synthetic: false, partial: None, held_out: 0, train, test })
    }

    /// Returns `(channels, height, width)`, the same for every image.
    #[must_use]
    pub fn image(&self) -> (usize, usize, usize) {
        self.train.image()
    }

    /// SHA-256 of all pixels and labels.
    pub(crate) fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        [&self.train, &self.test].into_iter().for_each(|split| split.hash(&mut hash));
        format!("{:x}", hash.finalize())
    }

    /// Makes the same data set of images of this height and width, resized as Pillow's bilinear filter resizes bytes.
    ///
    /// # Errors
    /// Returns an error if a side is 0.
    /// # Examples
    /// ```
    /// let digits = spiking_diffusion::data::synthetic_digits()?;
    /// assert_eq!(digits.resized(32, 32)?.image(), (1, 32, 32));
    /// # Ok::<(), spiking_diffusion::Error>(())
    /// ```
    pub fn resized(&self, height: usize, width: usize) -> Result<Self> {
        let (train, test) = (self.train.resized((height, width))?, self.test.resized((height, width))?);
        Ok(Self { name: self.name.clone(), partial: self.partial.clone(), train, test, ..*self })
    }

    /// Puts the last `n` training images in the place of the test images: whatever is chosen, such as a preset, is chosen by these, and the
    /// test images stay unseen until the end.
    ///
    /// # Errors
    /// Returns an error if `n` is 0, if there are not more training images than that, or if images are held out already.
    /// # Examples
    /// ```
    /// let digits = spiking_diffusion::data::synthetic_digits()?;
    /// let (all, last) = (digits.train.len(), digits.train.bytes(digits.train.len() - 1)?.to_vec());
    /// let chosen_by = digits.hold_out(100)?;
    /// assert_eq!((chosen_by.train.len(), chosen_by.test.len()), (all - 100, 100));
    /// assert_eq!(chosen_by.test.bytes(99)?, last);
    /// # Ok::<(), spiking_diffusion::Error>(())
    /// ```
    pub fn hold_out(self, n: usize) -> Result<Self> {
        if self.held_out > 0 {
            let reason = format!("{} images are held out already", self.held_out);
            return Err(Error::config("held_out", n, reason));
        }
        let all = self.train.len();
        if !(1..all).contains(&n) {
            let reason = format!("must be at least 1 and leave some of the {all} training images");
            return Err(Error::config("held_out", n, reason));
        }
        let last: Vec<u32> = (all - n..all).map(|i| i as u32).collect();
        Ok(Self { test: self.train.select(&last)?, train: self.train.first(all - n)?, held_out: n, ..self })
    }

    /// Keeps at most the first `n` training images. The test images stay.
    ///
    /// # Errors
    /// Returns an error if `n` is 0.
    pub fn limit(self, n: usize) -> Result<Self> {
        Ok(Self { train: self.train.first(n)?, ..self })
    }
}
