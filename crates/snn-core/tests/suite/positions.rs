//! Read-outs at some positions, of maps and of features, which have one.

use candle_core::{DType, Device, Tensor};
use snn_core::{
    Connections, Drive, LifConfig, ParamStore, Readout, ReadoutLayer, Seed, SpikingLayer, SpikingStack,
    spikes_by_position,
};

use crate::common::{Result, assert_close, flat};
use crate::layer::C_OUT;
use crate::layer::Kind::{Conv, ConvTranspose, Linear};

/// Everything that a read-out layer does at some positions, for maps and for features, which have one position.
#[test]
fn a_readout_at_some_positions_is_picked_from_all() -> Result {
    for kind in [Conv, ConvTranspose, Linear] {
        let what = format!("{kind:?}");
        let store = ParamStore::new(Seed(5), DType::F64, &Device::Cpu);
        let layer = kind.readout_layer(Readout::Psp { tau: 4. }, &store)?;
        let sums = kind.input(1, 3)?.get(0)?;
        let sums = [sums.narrow(1, 0, 1)?, sums.narrow(1, 1, 2)?];
        let all = layer.forward_sums(&sums, 4)?;
        let map: usize = all.dims()[2..].iter().product();
        let positions = [vec![map as u32 - 1, 0], vec![], vec![0]];
        let some = layer.forward_sums_at(&sums, 4, &positions)?;
        assert_eq!(some.dims(), [3, C_OUT], "{what}");
        let rows = all.reshape((3, C_OUT, map))?;
        for (row, (item, position)) in [(0, map - 1), (0, 0), (2, 0)].into_iter().enumerate() {
            assert_close(&what, &some.get(row)?, &rows.get(item)?.get_on_dim(1, position)?, 1e-13);
        }
        // What the positions depend on is all that they depend on.
        let source: Vec<usize> = sums[0].dims()[2..].to_vec();
        let (h, w) = if let [h, w] = source[..] { (h, w) } else { (1, 1) };
        let seen = layer.reach((h, w), &positions)?;
        assert_eq!(seen[1], Vec::<u32>::new(), "{what}");
        let keep: Vec<f64> = (0..3 * h * w)
            .map(|i| f64::from(u8::from(seen[i / (h * w)].contains(&((i % (h * w)) as u32)))))
            .collect();
        let shape = [vec![3, 1], source].concat();
        let keep = Tensor::from_vec(keep, shape, &Device::Cpu)?;
        let only = sums.each_ref().map(|sum| sum.broadcast_mul(&keep).expect("a mask"));
        let masked = layer.forward_sums_at(&only, 4, &positions)?;
        assert_close(&what, &masked, &some, 1e-13);

        assert!(
            layer.forward_sums_at(&sums, 4, &[vec![map as u32], vec![], vec![]]).is_err(),
            "{what}: outside"
        );
        assert!(layer.forward_sums_at(&sums, 4, &[vec![0]]).is_err(), "{what}: one list for three items");
        assert!(layer.forward_sums_at(&sums, 0, &positions).is_err(), "{what}: no time");
        assert!(layer.forward_sums(&sums, 0).is_err(), "{what}: no time");
        assert!(layer.forward_sums(&sums[..1], 4).is_err(), "{what}: channels");
        assert!(layer.forward_sums_at(&sums[..1], 4, &positions).is_err(), "{what}: channels");
        assert!(layer.reach((h, w), &[vec![map as u32]]).is_err(), "{what}: outside");
    }
    let store = ParamStore::new(Seed(5), DType::F32, &Device::Cpu);
    let linear = ReadoutLayer::linear(3, 2, Readout::Mean, store.builder())?;
    let sums = [Tensor::ones((2, 3), DType::F32, &Device::Cpu)?];
    let some = linear.forward_sums_at(&sums, 4, &[vec![0], vec![0]])?;
    assert_eq!(flat(&some)?, flat(&linear.forward_sums(&sums, 4)?)?);
    assert_eq!(linear.reach((1, 1), &[vec![0], vec![]])?, [vec![0], vec![]]);
    let error = linear.reach((2, 2), &[vec![0]]).unwrap_err().to_string();
    assert!(error.contains("linear: input [.., 3, 2, 2]"), "{error}");
    let map = [Tensor::ones((2, 3, 1, 1), DType::F32, &Device::Cpu)?];
    let error = linear.forward_sums(&map, 4).unwrap_err().to_string();
    assert!(error.contains("sum 0 is [2, 3, 1, 1]") && error.contains("[N, C]"), "{error}");
    Ok(())
}

/// A linear layer's spikes, connections and read-outs are those of a map of one position.
#[test]
fn a_linear_layer_is_a_map_of_one_position() -> Result {
    let store = ParamStore::new(Seed(5), DType::F32, &Device::Cpu);
    let (lif, vb) = (LifConfig::default(), store.builder());
    let layers = vec![SpikingLayer::linear(3, 5, lif, vb.pp(0))?, SpikingLayer::linear(5, 2, lif, vb.pp(1))?];
    let stack = SpikingStack::new(layers);
    let x = (Tensor::ones((4, 3), DType::F32, &Device::Cpu)? * 3.)?;
    let drive = Drive::Constant(&x, 6);
    let spikes = stack.forward(drive, false)?;
    assert_eq!(spikes.dims(), [6, 4, 2]);
    let counts = spikes_by_position(&spikes)?;
    assert_eq!(counts, [flat(&spikes)?.iter().sum::<f64>()]);
    let connections = stack.connections([3, 1, 1])?;
    assert_eq!(connections.iter().map(Connections::macs).collect::<Vec<_>>(), [15., 10.]);
    assert_eq!(connections[1].target(), [2, 1, 1]);
    assert_eq!(connections[1].accumulates(&[7.]), 14.);
    assert!(stack.connections([3, 2, 1]).is_err());
    let prepared = stack.prepare(&[3])?;
    let (all, at) = (stack.readout(drive, Readout::Mean, false)?, [vec![0], vec![], vec![0], vec![]]);
    assert_eq!(flat(&prepared.readout(drive, Readout::Mean)?)?, flat(&all)?);
    let some = prepared.readout_at(drive, Readout::Mean, &at)?;
    assert_eq!(flat(&some.narrow(0, 0, 1)?)?, flat(&all.narrow(0, 0, 1)?)?);
    assert_eq!(flat(&some.narrow(0, 1, 1)?)?, [0.; 2]);
    assert!(prepared.readout_at(drive, Readout::Mean, &[vec![1], vec![], vec![], vec![]]).is_err());
    assert!(spikes_by_position(&x).is_err());
    Ok(())
}
