//! Any number of tensors as one argument of an operation, each with a gradient of its own.
//!
//! An operation of Candle's has three arguments at most. Joined into one tensor, the weights of all layers would be copied forward,
//! and their gradients cut apart and added to zeros twice more backward. Here one number stands for them; its gradient is again a
//! number, the ticket by which each tensor finds its own.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{CpuStorage, CustomOp2, DType, Device, Layout, Result, Shape, Tensor};

/// Gradients on their way, by ticket; each waits for the tensor of its number.
#[derive(Debug, Default)]
struct Waiting {
    tickets: u64,
    gradients: HashMap<u64, Vec<Option<Tensor>>>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Bundle {
    waiting: Arc<Mutex<Waiting>>,
}

impl Bundle {
    /// What stands for these tensors, and where their gradients are handed in.
    pub(super) fn new(tensors: &[Tensor]) -> Result<(Tensor, Self)> {
        let waiting = Arc::new(Mutex::new(Waiting::default()));
        let join = |token: Tensor, (i, tensor): (usize, &Tensor)| {
            token.apply_op2(tensor, Member { i, waiting: waiting.clone() })
        };
        let token =
            tensors.iter().enumerate().try_fold(Tensor::zeros((), DType::F64, &Device::Cpu)?, join)?;
        Ok((token, Self { waiting }))
    }

    /// The gradient of what stands for the tensors, given theirs.
    pub(super) fn gradient(&self, gradients: Vec<Tensor>) -> Result<Tensor> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.tickets += 1;
        let ticket = waiting.tickets;
        waiting.gradients.insert(ticket, gradients.into_iter().map(Some).collect());
        Tensor::new(ticket as f64, &Device::Cpu)
    }
}

/// Joins the tensor of number `i` to those before it.
struct Member {
    i: usize,
    waiting: Arc<Mutex<Waiting>>,
}

impl CustomOp2 for Member {
    fn name(&self) -> &'static str {
        "bundle"
    }

    fn cpu_fwd(&self, _: &CpuStorage, _: &Layout, _: &CpuStorage, _: &Layout) -> Result<(CpuStorage, Shape)> {
        Ok((CpuStorage::F64(vec![0.]), ().into()))
    }

    fn bwd(
        &self,
        token: &Tensor,
        _tensor: &Tensor,
        _joined: &Tensor,
        ticket: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let number = ticket.to_scalar::<f64>()? as u64;
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let gradient =
            waiting.gradients.get_mut(&number).and_then(|all| all.get_mut(self.i)).and_then(Option::take);
        if token.track_op() {
            return Ok((Some(ticket.clone()), gradient));
        }
        // No tensor before this one wants a gradient.
        waiting.gradients.remove(&number);
        Ok((None, gradient))
    }
}

#[cfg(test)]
mod tests {
    use candle_core::Var;

    use super::*;

    /// Two gradients of one bundle at once, one of them asked for in between, and a tensor that wants none.
    #[test]
    fn each_tensor_gets_its_own_gradient() -> Result<()> {
        let values = |values: &[f32]| Tensor::new(values, &Device::Cpu);
        let (a, fixed, b) =
            (Var::from_tensor(&values(&[1., 2.])?)?, values(&[3.])?, Var::from_tensor(&values(&[4.])?)?);
        let (token, bundle) = Bundle::new(&[fixed.clone(), a.as_tensor().clone(), b.as_tensor().clone()])?;
        assert!(token.track_op());
        let gradients = |x: f32| Ok(vec![values(&[0.])?, values(&[x, -x])?, values(&[2. * x])?]);
        let (first, second): (Result<_>, Result<_>) = (gradients(5.), gradients(7.));
        let (first, second) = (bundle.gradient(first?)?, bundle.gradient(second?)?);
        // As an operation would, whose gradient in the token is the ticket.
        for (ticket, x) in [(second, 7.), (first, 5.)] {
            let grads = (&token * ticket)?.backward()?;
            assert_eq!(grads.get(&a).map(Tensor::to_vec1::<f32>).transpose()?, Some(vec![x, -x]));
            assert_eq!(grads.get(&b).map(Tensor::to_vec1::<f32>).transpose()?, Some(vec![2. * x]));
            assert!(grads.get(&fixed).is_none());
        }
        let waiting = bundle.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        assert!(waiting.gradients.is_empty(), "{waiting:?}");
        Ok(())
    }

    #[test]
    fn tensors_that_want_nothing_ask_for_nothing() -> Result<()> {
        let (token, _) = Bundle::new(&[Tensor::zeros(3, DType::F32, &Device::Cpu)?])?;
        assert!(!token.track_op());
        Ok(())
    }
}
