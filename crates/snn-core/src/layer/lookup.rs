//! First layers that read tokens: their input is a sum of looked-up vectors.

use candle_core::{DType, Result, Tensor, bail};

use super::check::Sizes;
use super::drive::Finish;
use super::prepared::ascending;
use crate::ops::chain::{Tables, Tokens, Vectors};
use crate::{Drive, PreparedStack, Readout, SpikingStack, embedding};

/// Learned vectors for the tokens of a map, for its positions, and for what is said of the whole item, such as its class:
///
/// ```text
/// x[n, :, p] = token[h[n, p]] + position[p] + sum_j of_item[j][i_j[n]]
/// ```
///
/// # Examples
/// ```
/// # use candle_core::{DType, Device, Tensor};
/// # use snn_core::{ConvConfig, Drive, LifConfig, ParamStore, Readout, Seed, SpikingLayer, SpikingStack, TokenEmbedding};
/// # fn main() -> candle_core::Result<()> {
/// let table = |name: &str, rows| Seed(0).normal(name, (rows, 8), (0., 1.), DType::F32, &Device::Cpu);
/// let embedding = TokenEmbedding::new(table("token", 32)?, table("position", 49)?, vec![table("class", 10)?])?;
/// let store = ParamStore::new(Seed(0), DType::F32, &Device::Cpu);
/// let layer = SpikingLayer::conv(8, 16, ConvConfig::new(3, 1, 1), LifConfig::default(), store.builder())?;
/// let stack = SpikingStack::new(vec![layer]);
///
/// let (maps, classes) = (Tensor::zeros((2, 7, 7), DType::U32, &Device::Cpu)?, Tensor::new(&[3u32, 7], &Device::Cpu)?);
/// let xs = embedding.forward(&maps, &[classes.clone()])?; // [2, 8, 7, 7]: to train with
/// let all = stack.readout(Drive::Constant(&xs, 4), Readout::Mean, false)?;
///
/// let prepared = stack.prepare_on_tokens(&embedding, (7, 7))?; // and for sampling
/// let every: Vec<_> = vec![(0..49).collect(); 2];
/// let same = prepared.readout_of_at(&maps, &[classes], 4, Readout::Mean, &[0], &every)?;
/// assert_eq!(same.dims(), all.dims());
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct TokenEmbedding {
    token: Tensor,
    position: Tensor,
    of_item: Vec<Tensor>,
}

impl TokenEmbedding {
    /// Makes one of tables of vectors, a row each, all of them `[number, C]` and of one element type.
    ///
    /// # Errors
    /// Returns an error if a table has another rank, another `C` or another element type than the first.
    pub fn new(token: Tensor, position: Tensor, of_item: Vec<Tensor>) -> Result<Self> {
        let channels = token.dims2()?.1;
        for table in [&position].into_iter().chain(&of_item) {
            if table.dims2()?.1 != channels || table.dtype() != token.dtype() {
                let (token, table) = ((token.dtype(), token.dims()), (table.dtype(), table.dims()));
                bail!("embedding: tables of {token:?} and {table:?}, which have no sum")
            }
        }
        Ok(Self { token, position, of_item })
    }

    /// Looks the vectors up and adds them, differentiable in all tables.
    ///
    /// # Shapes
    /// `maps: u32 [N, H, W]`, and for each table of what is said of an item `of_item[j]: u32 [N]` -> `[N, C, H, W]`.
    /// # Errors
    /// Returns an error if the shapes or the types do not fit, and on the CPU if a table has not as many vectors.
    pub fn forward(&self, maps: &Tensor, of_item: &[Tensor]) -> Result<Tensor> {
        let (n, h, w) = self.check(maps, of_item)?;
        let channels = self.token.dim(1)?;
        let tokens = embedding(&self.token, &maps.flatten_all()?)?.reshape((n, h * w, channels))?;
        let mut sum = tokens.broadcast_add(&self.position)?;
        for (table, numbers) in self.of_item.iter().zip(of_item) {
            sum = sum.broadcast_add(&embedding(table, numbers)?.unsqueeze(1)?)?;
        }
        sum.transpose(1, 2)?.contiguous()?.reshape((n, channels, h, w))
    }

    /// The size of the maps, if all that is looked up has the shape and the type that it should.
    fn check(&self, maps: &Tensor, of_item: &[Tensor]) -> Result<(usize, usize, usize)> {
        let (n, h, w) = maps.dims3()?;
        if self.position.dim(0)? != h * w {
            bail!("embedding: maps of {h} x {w}, and vectors of {} positions", self.position.dim(0)?)
        }
        if of_item.len() != self.of_item.len() {
            bail!(
                "embedding: {} tables of what is said of an item, and numbers for {}",
                self.of_item.len(),
                of_item.len()
            )
        }
        for (i, numbers) in of_item.iter().enumerate() {
            if numbers.dims() != [n] {
                bail!("embedding: numbers {i} of the items are {:?}, the maps want [{n}]", numbers.dims())
            }
        }
        match [maps].into_iter().chain(of_item).find(|numbers| numbers.dtype() != DType::U32) {
            Some(numbers) => bail!("embedding: wants u32, not {:?}", numbers.dtype()),
            None => Ok((n, h, w)),
        }
    }

    fn vectors(&self) -> Result<Vectors> {
        let values = |table: &Tensor| table.flatten_all()?.to_vec1::<f32>();
        Ok(Vectors {
            token: values(&self.token)?,
            position: values(&self.position)?,
            of_item: self.of_item.iter().map(values).collect::<Result<_>>()?,
        })
    }
}

/// A [`PreparedStack`] whose input is looked up: [`SpikingStack::prepare_on_tokens`] makes it.
///
/// On the CPU in f32 what the first layer makes of each vector is laid out once, `(tokens + positions + ...) * kernel * C_out` floats, and
/// its currents are sums of that: one addition for each tap where there were `C_in` multiplications. Elsewhere, and where this would be more
/// than 256 MiB, the vectors are looked up and the layer computes.
#[derive(Debug)]
pub struct PreparedTokenStack {
    embedding: TokenEmbedding,
    stack: PreparedStack,
    pub(super) tables: Option<Tables>,
}

impl SpikingStack {
    /// Prepares the stack for maps of tokens of this size, of which `embedding` makes its input.
    ///
    /// # Errors
    /// Returns the errors of [`prepare`](Self::prepare) for what the embedding makes of the maps, and an error if it has not a vector for each
    /// position.
    pub fn prepare_on_tokens(
        &self,
        embedding: &TokenEmbedding,
        (h, w): (usize, usize),
    ) -> Result<PreparedTokenStack> {
        let (positions, channels) = embedding.position.dims2()?;
        if h.checked_mul(w) != Some(positions) {
            bail!("embedding: maps of {h} x {w}, and vectors of {positions} positions")
        }
        let stack = self.prepare(&[channels, h, w])?;
        let tables =
            if embedding.token.dtype() == DType::F32 { stack.tables(|| embedding.vectors())? } else { None };
        Ok(PreparedTokenStack { embedding: embedding.clone(), stack, tables })
    }
}

impl PreparedTokenStack {
    /// Computes [`PreparedStack::readout_of_at`] of maps `[N, H, W]`, and of what is said of each of them, as constant input of so many
    /// time steps.
    ///
    /// # Errors
    /// Returns the errors of [`PreparedStack::readout_of_at`] and of [`TokenEmbedding::forward`].
    pub fn readout_of_at(
        &self,
        maps: &Tensor,
        of_item: &[Tensor],
        time_steps: usize,
        readout: Readout,
        layers: &[usize],
        positions: &[Vec<u32>],
    ) -> Result<Tensor> {
        let (items, h, w) = self.embedding.check(maps, of_item)?;
        if self.stack.map[1..] != [h, w] {
            bail!("a stack prepared for maps of {:?}, not [{h}, {w}]", &self.stack.map[1..])
        }
        let Some(tables) = self.tables.as_ref().filter(|_| items > 0 && time_steps > 0) else {
            let xs = self.embedding.forward(maps, of_item)?;
            return self.stack.readout_of_at(Drive::Constant(&xs, time_steps), readout, layers, positions);
        };
        let tokens = Tokens::new(maps, of_item)?;
        let numbers: Vec<_> = self.embedding.of_item.iter().map(|table| table.dims()[0]).collect();
        tokens.check(self.embedding.token.dim(0)?, &numbers)?;
        let sizes = Sizes { like: &self.embedding.token, time_steps, items };
        let (finish, at) = (Finish::SumsOf(readout, layers), ascending(positions));
        self.stack.run_on_tokens((&tokens, tables), sizes, finish, Some(&at))?.squeeze(0)
    }
}
