//! Whole networks: equal to the layers that they are made of, however they are run.

use candle_core::{DType, Device, ModuleT, Tensor, Var};
use snn_core::{
    Analog, ConvConfig, DescribeLayers, Drive, FiringRates, LayerConfig, LifConfig, ParamStore, Pool,
    Readout, ReadoutLayer, Seed, SewFunction, SpikingLayer, SpikingNetwork, SpikingStack,
};

use crate::common::{Result, assert_close, flat, gradients};

const TIME_STEPS: usize = 4;

fn store(dtype: DType) -> ParamStore {
    ParamStore::new(Seed(3), dtype, &Device::Cpu)
}

/// Lets all neurons fire.
fn lively(params: &ParamStore) -> Result {
    for (name, var) in params.vars() {
        if name.ends_with("bn.bias") {
            var.set(&(var.ones_like()? * 0.8)?)?;
        }
        if name.ends_with("running_var") {
            var.set(&(var.ones_like()? * 0.1)?)?;
        }
    }
    Ok(())
}

/// Conv, conv, flatten, linear, read-out.
fn classifier(params: &ParamStore) -> Result<SpikingNetwork> {
    let halve = ConvConfig::new(3, 2, 1);
    let network = SpikingNetwork::builder(&[1, 8, 6], LifConfig::default(), params.builder())
        .conv(5, halve)
        .conv(7, halve)
        .flatten()
        .linear(11)
        .readout(3, Readout::Psp { tau: 3. })
        .build()?;
    lively(params)?;
    Ok(network)
}

/// Everything that a network can have.
fn mixed(params: &ParamStore, readout: Readout) -> Result<SpikingNetwork> {
    let same = ConvConfig::new(3, 1, 1);
    let network = SpikingNetwork::builder(&[2, 9, 8], LifConfig::default(), params.builder())
        .conv(4, same)
        .pool(Pool::Average { kernel: 2 })
        .residual(SewFunction::Add, |block| block.conv(6, same).conv(4, same))
        .residual_with_shortcut(
            SewFunction::Iand,
            |block| block.pool(Pool::Max { kernel: 2 }).conv(5, same),
            |shortcut| shortcut.conv(5, ConvConfig::new(2, 2, 0)),
        )
        .flatten()
        .readout(3, readout)
        .build()?;
    lively(params)?;
    Ok(network)
}

fn images(item: (usize, usize, usize), dtype: DType) -> Result<Tensor> {
    Ok(Seed(4).normal("images", (3, item.0, item.1, item.2), (0., 1.), dtype, &Device::Cpu)?)
}

#[test]
fn a_network_is_its_layers_by_hand() -> Result {
    for dtype in [DType::F32, DType::F64] {
        for train in [true, false] {
            let (ours, by_hand) = (store(dtype), store(dtype));
            let (network, vb) = (classifier(&ours)?, by_hand.builder());
            let (halve, lif) = (ConvConfig::new(3, 2, 1), LifConfig::default());
            let maps = SpikingStack::new(vec![
                SpikingLayer::conv(1, 5, halve, lif, vb.pp("0.0"))?,
                SpikingLayer::conv(5, 7, halve, lif, vb.pp("0.1"))?,
            ]);
            let linear = SpikingLayer::linear(7 * 2 * 2, 11, lif, vb.pp("2.0"))?;
            let head = ReadoutLayer::linear(11, 3, Readout::Psp { tau: 3. }, vb.pp("head"))?;
            lively(&by_hand)?;
            let images = images((1, 8, 6), dtype)?;
            let outcome = |params: &ParamStore, logits: Tensor| -> Result<Vec<(String, Tensor)>> {
                let trainable = params.trainable();
                let vars: Vec<&Var> = trainable.iter().map(|(_, var)| var).collect();
                let names = trainable.iter().map(|(name, _)| name.clone());
                let weights = Tensor::new(&[[1f64, -2., 3.]], &Device::Cpu)?.broadcast_as(logits.shape())?;
                let mut all: Vec<_> = names.zip(gradients(&logits, &weights, &vars)?).collect();
                all.extend(params.vars().into_iter().map(|(name, var)| (name, var.as_tensor().clone())));
                all.push(("logits".to_owned(), logits.detach()));
                Ok(all)
            };
            let got = outcome(&ours, network.readout(Drive::Constant(&images, TIME_STEPS), train)?)?;
            let spikes = maps.forward(Drive::Constant(&images, TIME_STEPS), train)?.flatten_from(2)?;
            let sum =
                SpikingStack::new(vec![linear]).readout(Drive::Spikes(&spikes), head.readout(), train)?;
            let wanted = outcome(&by_hand, head.forward_sums(&[sum], TIME_STEPS)?)?;
            assert_eq!(got.len(), wanted.len());
            for ((name, got), (other, wanted)) in got.iter().zip(&wanted) {
                assert_eq!(name, other);
                assert_close(&format!("{dtype:?}, {train}: {name}"), got, wanted, 0.);
            }
            let gradient =
                got.iter().find(|(name, _)| name == "0.0.conv.weight").ok_or("no such gradient")?;
            assert!(flat(&gradient.1)?.iter().any(|g| *g != 0.));
        }
    }
    Ok(())
}

#[test]
fn however_it_is_run_a_network_says_the_same() -> Result {
    for dtype in [DType::F32, DType::F64] {
        for readout in [Readout::Mean, Readout::Psp { tau: 3. }, Readout::ExponentialSum { decay: 0.8 }] {
            let params = store(dtype);
            let (network, images) = (mixed(&params, readout)?, images((2, 9, 8), dtype)?);
            let drive = Drive::Constant(&images, TIME_STEPS);
            let (spikes, logits) = (network.forward(drive, false)?, network.readout(drive, false)?);
            assert!(flat(&spikes)?.iter().any(|s| *s > 0.), "{dtype:?}: silent");
            let bound = if dtype == DType::F32 { 1e-6 } else { 1e-14 };
            assert_close("head of spikes", &network.head().ok_or("head")?.forward(&spikes)?, &logits, bound);

            let mut rates = FiringRates::default();
            let mut look = |name: &str, spikes: &Tensor| rates.record(name, spikes);
            assert_close("observed", &network.readout_observed(drive, false, &mut look)?, &logits, bound);
            assert_close("observed", &network.forward_observed(drive, false, &mut look)?, &spikes, 0.);
            // Whatever a layer reads has been seen, and so has every layer.
            let layers = network.describe_layers()?;
            for name in layers.iter().flat_map(|layer| layer.reads.iter().chain([&layer.name])) {
                assert!(name == "head" || rates.rates().contains_key(name), "{name} was not observed");
            }

            let prepared = network.prepare()?;
            assert_close("prepared", &prepared.forward(drive)?, &spikes, 0.);
            assert_close("prepared", &prepared.readout(drive)?, &logits, bound);

            let train = snn_core::direct_encode(&images, TIME_STEPS)?;
            assert_close("module", &network.forward_t(&train, false)?, &logits, bound);
        }
    }
    Ok(())
}

#[test]
fn training_moves_the_statistics_of_all_layers_or_of_none() -> Result {
    let params = store(DType::F32);
    let (network, images) = (mixed(&params, Readout::Mean)?, images((2, 9, 8), DType::F32)?);
    let drive = Drive::Constant(&images, TIME_STEPS);
    let moved = |before: &std::collections::BTreeMap<String, Tensor>| -> Result<Vec<String>> {
        let mut moved = Vec::new();
        for (name, var) in params.vars() {
            if flat(&var)? != flat(&before[&name])? {
                moved.push(name);
            }
        }
        Ok(moved)
    };
    let before = params.snapshot("")?;
    let refused = network.readout_observed(drive, true, &mut |name, _| match name {
        "3.shortcut.0.0" => candle_core::bail!("enough"),
        _ => Ok(()),
    });
    assert!(refused.is_err_and(|e| e.to_string().contains("enough")));
    network.readout(drive, false)?;
    assert_eq!(moved(&before)?, Vec::<String>::new());
    network.readout(drive, true)?;
    let layers = network.describe_layers()?;
    assert_eq!(moved(&before)?.len(), 2 * (layers.len() - 1));
    Ok(())
}

#[test]
fn a_layer_says_what_it_reads_and_how_much_that_costs() -> Result {
    let params = store(DType::F32);
    let network = classifier(&params)?;
    let layers = network.describe_layers()?;
    let named: Vec<_> =
        layers.iter().map(|l| (l.name.as_str(), l.reads.join(" "), l.connections.macs())).collect();
    let (halves, flat) = (|from: f64, to: f64, pairs: f64| from * to * pairs, 7. * 2. * 2.);
    // Rows of 8 and 4, columns of 6 and 3, at stride 2.
    assert_eq!(named[0], ("0.0", String::new(), halves(1., 5., 11. * 8.)));
    assert_eq!(named[1], ("0.1", "0.0".to_owned(), halves(5., 7., 5. * 4.)));
    assert_eq!(named[2], ("2.0", "0.1".to_owned(), flat * 11.));
    assert_eq!(named[3], ("head", "2.0".to_owned(), 11. * 3.));
    // Two spikes at each of the four positions in front of the flattening reach all eleven.
    assert_eq!(layers[2].connections.accumulates(&[2.; 4]), 8. * 11.);

    let layers = mixed(&store(DType::F32), Readout::Mean)?.describe_layers()?;
    let reads: Vec<_> = layers.iter().map(|layer| (layer.name.as_str(), layer.reads.join(" "))).collect();
    let wanted = [
        ("0.0", ""),
        ("2.0.0", "1"),
        ("2.0.1", "2.0.0"),
        ("3.1.0", "3.0"),
        ("3.shortcut.0.0", "2"),
        ("head", "3"),
    ];
    assert_eq!(reads, wanted.map(|(name, reads)| (name, reads.to_owned())));
    Ok(())
}

/// What counts operations multiplies behind layers that make numbers, and adds behind those that make spikes.
#[test]
fn layers_without_spikes_are_known_to_make_numbers() -> Result {
    let spiking = LayerConfig::from(LifConfig::default());
    let network = SpikingNetwork::builder(&[4], spiking, store(DType::F32).builder())
        .linear(5)
        .neuron(spiking.with_analog(Analog::Relu))
        .linear(6)
        .neuron(LifConfig::default())
        .linear(7)
        .readout(3, Readout::Mean)
        .build()?;
    let reads: Vec<_> = network.describe_layers()?.iter().map(|layer| layer.reads_numbers).collect();
    assert_eq!(reads, [false, false, true, false]);

    // So are the means of spikes, and sums of them and what the network is given; maxima of spikes are spikes.
    let same = ConvConfig::new(3, 1, 1);
    let params = store(DType::F32);
    let network = SpikingNetwork::builder(&[3, 8, 8], spiking, params.builder())
        .residual(SewFunction::Add, |block| block.conv(3, same))
        .conv(4, same)
        .pool(Pool::Max { kernel: 2 })
        .conv(4, same)
        .pool(Pool::Average { kernel: 2 })
        .conv(4, same)
        .residual(SewFunction::Add, |block| block.conv(4, same))
        .conv(4, same)
        .build()?;
    let reads: Vec<_> = network.describe_layers()?.iter().map(|layer| layer.reads_numbers).collect();
    assert_eq!(reads, [false, true, false, true, false, false]);
    Ok(())
}

#[test]
fn what_does_not_fit_is_refused_by_name() -> Result {
    let (lif, same) = (LifConfig::default(), ConvConfig::new(3, 1, 1));
    let start = || SpikingNetwork::builder(&[2, 6, 6], lif, store(DType::F32).builder());
    let message =
        |built: candle_core::Result<SpikingNetwork>| built.err().map(|e| e.to_string()).unwrap_or_default();
    for (built, name, reason) in [
        (start().build(), "", "no parts"),
        (start().linear(3).build(), "part 0.0", "flatten"),
        (start().conv(0, same).build(), "part 0.0", "c_out"),
        (start().conv(3, same).conv(3, ConvConfig::new(9, 1, 0)).build(), "part 0.1", "kernel of 9"),
        (start().conv(3, same).flatten().conv(4, same).build(), "part 2.0", "[C, H, W]"),
        (start().flatten().flatten().build(), "part 1", "maps"),
        (start().conv(3, same).pool(Pool::Max { kernel: 7 }).build(), "part 1", "pool.kernel"),
        (start().pool(Pool::Average { kernel: 0 }).build(), "part 0", "pool.kernel"),
        (start().residual(SewFunction::Add, |b| b).build(), "part 0", "wants layers"),
        (start().residual(SewFunction::Add, |b| b.conv(3, same)).build(), "part 0", "goes round"),
        (start().residual(SewFunction::Add, |b| b.linear(2)).build(), "part 0.0.0", "flatten"),
        (start().readout(3, Readout::Mean).build(), "head", "read-out"),
        (start().flatten().readout_conv(3, same, Readout::Mean).build(), "head", "read-out"),
        (start().flatten().readout(3, Readout::Mean).flatten().build(), "part 1", "nothing follows"),
        (start().neuron(LifConfig { tau: Some(0.), ..lif }).conv(3, same).build(), "part 0.0", "neuron.tau"),
    ] {
        let message = message(built);
        assert!(message.contains(name) && message.contains(reason), "{name}, {reason}: {message}");
    }
    let network = start().conv(3, same).build()?;
    let other = Tensor::ones((1, 2, 5, 6), DType::F32, &Device::Cpu)?;
    let drive = Drive::Constant(&other, 2);
    assert!(network.forward(drive, false).is_err_and(|e| e.to_string().contains("[2, 6, 6]")));
    assert!(network.prepare()?.forward(drive).is_err());
    assert!(network.readout(drive, false).is_err_and(|e| e.to_string().contains("without a read-out")));
    Ok(())
}

#[test]
fn no_images_are_no_error() -> Result {
    for dtype in [DType::F32, DType::F64] {
        let network = mixed(&store(dtype), Readout::Mean)?;
        let none = images((2, 9, 8), dtype)?.narrow(0, 0, 0)?;
        let drive = Drive::Constant(&none, TIME_STEPS);
        assert_eq!(network.readout(drive, false)?.dims(), [0, 3]);
        assert_eq!(network.prepare()?.forward(drive)?.dims(), [TIME_STEPS, 0, 20]);
        assert!(network.forward(drive, true).is_err(), "statistics of nothing");
    }
    Ok(())
}

#[test]
fn a_prepared_network_goes_where_it_likes() -> Result {
    fn everywhere<T: Send + Sync + 'static>(value: T) -> T {
        value
    }
    let images = images((1, 8, 6), DType::F32)?;
    let (prepared, wanted) = {
        let network = everywhere(classifier(&store(DType::F32))?);
        (everywhere(network.prepare()?), network.readout(Drive::Constant(&images, TIME_STEPS), false)?)
    };
    let there = std::thread::spawn(move || prepared.readout(Drive::Constant(&images, TIME_STEPS)));
    let logits = there.join().map_err(|_| "the thread panicked")??;
    assert_close("in another thread", &logits, &wanted, 1e-6);
    Ok(())
}
