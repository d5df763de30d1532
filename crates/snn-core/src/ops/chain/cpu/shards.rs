//! Statistics of a batch that is computed in shards: from those of one shard to those of all.

use candle_core::Result;

use super::neuron::Sums;
use super::norm::Moments;
use crate::exchange::{self, Exchange};
use crate::ops::batch_norm::check_count_of_all;

impl Moments {
    /// Of all shards.
    pub(super) fn of_all(self, exchange: &dyn Exchange) -> Result<Self> {
        let merge = |total: &mut [f64], next: &[f64]| {
            let merged = Self::from_numbers(total).merge(&Self::from_numbers(next)).into_numbers();
            total.copy_from_slice(&merged);
        };
        let all = Self::from_numbers(&exchange.merge(self.into_numbers(), merge)?);
        check_count_of_all(all.count())?;
        Ok(all)
    }
}

impl Sums {
    /// Of all shards, but for the leak, whose gradient is no matter of the norm.
    pub(super) fn of_all(&self, exchange: &dyn Exchange) -> Result<Self> {
        let all = exchange.merge([self.grad.as_slice(), &self.grad_current].concat(), exchange::add)?;
        let (grad, grad_current) = all.split_at(self.grad.len());
        Ok(Self { grad: grad.to_vec(), grad_current: grad_current.to_vec(), rate: self.rate })
    }
}
