//! Currents that are looked up, against the layers on what is looked up.

use proptest::prelude::*;
use proptest::test_runner::RngSeed;
use rand::Rng;

use super::random::{mixed_case, positions};
use super::*;
use crate::TokenEmbedding;

const PSP: Readout = Readout::Psp { tau: 3. };
/// Of tokens, times and classes.
const VECTORS: [usize; 3] = [11, 5, 3];

/// What a stack reads.
struct Drawn {
    embedding: TokenEmbedding,
    maps: Tensor,
    of_item: Vec<Tensor>,
}

impl Drawn {
    fn new(case: &Case, seed: u64, dtype: DType) -> Result<Self> {
        let [channels, h, w] = case.map[..] else { panic!("tokens lie on maps") };
        let table = |name: &str, rows| {
            Seed(seed).normal(name, (rows, channels), (0., 0.6), DType::F32, &Device::Cpu)?.to_dtype(dtype)
        };
        let of_item = vec![table("time", VECTORS[1])?, table("class", VECTORS[2])?];
        let embedding = TokenEmbedding::new(table("token", VECTORS[0])?, table("position", h * w)?, of_item)?;
        let mut rng = Seed(seed).rng("numbers");
        let mut numbers = |len: usize, below: usize| -> Vec<u32> {
            (0..len).map(|_| rng.random_range(0..below as u32)).collect()
        };
        let maps =
            Tensor::from_vec(numbers(case.batch * h * w, VECTORS[0]), (case.batch, h, w), &Device::Cpu)?;
        let mut of_item = |below| Tensor::from_vec(numbers(case.batch, below), case.batch, &Device::Cpu);
        Ok(Self { embedding, maps, of_item: vec![of_item(VECTORS[1])?, of_item(VECTORS[2])?] })
    }

    fn input(&self) -> Result<Tensor> {
        self.embedding.forward(&self.maps, &self.of_item)
    }
}

/// By hand, vector by vector.
#[test]
fn the_input_is_the_sum_of_what_is_looked_up() -> Result<()> {
    let case = Case { map: vec![2, 1, 3], batch: 2, ..Case::default() };
    let table = |rows: &[[f32; 2]]| Tensor::from_slice(rows.as_flattened(), (rows.len(), 2), &Device::Cpu);
    let token = table(&[[0., 0.], [1., 10.], [2., 20.]])?;
    let position = table(&[[100., 0.], [200., 0.], [300., 0.]])?;
    let embedding = TokenEmbedding::new(token, position, vec![table(&[[0., 0.5], [0., 0.25]])?])?;
    let maps = Tensor::new(&[[[0u32, 1, 2]], [[2, 2, 0]]], &Device::Cpu)?;
    let of_item = [Tensor::new(&[0u32, 1], &Device::Cpu)?];
    let wanted = [[[100f32, 201., 302.], [0.5, 10.5, 20.5]], [[102., 202., 300.], [20.25, 20.25, 0.25]]];
    let xs = embedding.forward(&maps, &of_item)?;
    assert_eq!(xs.dims(), [2, case.map[0], 1, 3]);
    assert_eq!(xs.squeeze(2)?.to_vec3::<f32>()?, wanted);
    Ok(())
}

/// A model and what it reads, clear of the threshold as in [`Case::draw`].
fn draw(case: &Case) -> Result<(Model, u64)> {
    for seed in 0..100 {
        let model = Model::new(case, seed)?;
        if case.margin(&model, &Drawn::new(case, seed, DType::F32)?.input()?)? > MARGIN {
            return Ok((model, seed));
        }
    }
    panic!("no seed of a hundred keeps the potentials clear of the threshold: {case:?}");
}

fn check_looked_up(case: &Case) -> Result<()> {
    let (model, seed) = draw(case)?;
    let (last, map) = (case.layers.len() - 1, positions(case).last().copied().unwrap_or(1) as u32);
    for dtype in [DType::F32, DType::F64] {
        let (drawn, stack) =
            (Drawn::new(case, seed, dtype)?, SpikingStack::new(model.copy(case, dtype)?.layers));
        let prepared = stack.prepare_on_tokens(&drawn.embedding, (case.map[1], case.map[2]))?;
        assert_eq!(prepared.tables.is_some(), dtype == DType::F32);
        let (xs, steps) = (drawn.input()?, case.time_steps);
        let all = stack.readout(Drive::Constant(&xs, steps), PSP, false)?;
        let some: Vec<Vec<u32>> =
            (0..case.batch as u32).map(|n| (0..n.min(map)).map(|i| (i * 7 + n) % map).collect()).collect();
        for at in [vec![(0..map).rev().collect(); case.batch], some] {
            let got = prepared.readout_of_at(&drawn.maps, &drawn.of_item, steps, PSP, &[last], &at)?;
            assert_relative("looked up", &got, &super::prepared::only(&all, &at)?, 1e-6);
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(6),
        ..Default::default()
    })]

    #[test]
    fn any_stack_is_the_same_on_what_is_looked_up(
        case in mixed_case().prop_filter("maps", |case| case.map.len() == 3)
    ) {
        check_looked_up(&Case { constant: true, train: false, ..case }).unwrap();
    }
}

fn same(layers: usize) -> Case {
    let layer = (Conv(ConvConfig::new(3, 1, 1)), 5);
    Case { layers: vec![layer; layers], map: vec![3, 4, 4], constant: true, train: false, ..Case::default() }
}

/// A net of several layers' sums, and one whose neurons have no kernel.
#[test]
fn several_layers_are_summed_and_neurons_of_ones_own_looked_up_for() -> Result<()> {
    let case = same(3);
    let (model, seed) = draw(&case)?;
    let drawn = Drawn::new(&case, seed, DType::F32)?;
    let (xs, every) = (drawn.input()?, vec![(0..16).collect(); case.batch]);
    let mut own = model.layers.clone();
    own[1] = own[1].clone().with_neuron(std::sync::Arc::new(crate::Analog::Relu));
    for (layers, has_tables) in [(model.layers, true), (own, false)] {
        let stack = SpikingStack::new(layers);
        let prepared = stack.prepare_on_tokens(&drawn.embedding, (4, 4))?;
        assert_eq!(prepared.tables.is_some(), has_tables);
        let wanted = stack.readout_of(Drive::Constant(&xs, 4), PSP, &[2, 0], false)?;
        let got = prepared.readout_of_at(&drawn.maps, &drawn.of_item, 4, PSP, &[2, 0], &every)?;
        assert_relative("sums", &got, &wanted, 1e-6);
        let none = drawn.maps.narrow(0, 0, 0)?;
        let of_none: Vec<_> = drawn.of_item.iter().map(|t| t.narrow(0, 0, 0)).collect::<Result<_>>()?;
        assert!(
            prepared.readout_of_at(&none, &of_none, 4, PSP, &[2], &[]).is_ok_and(|t| t.elem_count() == 0)
        );
    }
    Ok(())
}

/// 22,000 tokens through nine taps to 512 channels would be 400 MB.
#[test]
fn tables_that_are_too_large_are_not_made() -> Result<()> {
    let case = Case { layers: vec![(Conv(ConvConfig::new(3, 1, 1)), 512)], ..same(1) };
    let stack = SpikingStack::new(Model::new(&case, 0)?.layers);
    let Drawn { embedding: few, maps, of_item } = Drawn::new(&case, 0, DType::F32)?;
    let table = |rows| Tensor::ones((rows, 3), DType::F32, &Device::Cpu);
    let many = TokenEmbedding::new(table(22_000)?, table(16)?, vec![table(5)?, table(3)?])?;
    for (embedding, has_tables) in [(few, true), (many, false)] {
        let prepared = stack.prepare_on_tokens(&embedding, (4, 4))?;
        assert_eq!(prepared.tables.is_some(), has_tables);
        let every = vec![(0..16).collect(); case.batch];
        let got = prepared.readout_of_at(&maps, &of_item, 4, PSP, &[0], &every)?;
        let xs = embedding.forward(&maps, &of_item)?;
        assert_eq!(got.dims(), stack.readout(Drive::Constant(&xs, 4), PSP, false)?.dims());
    }
    Ok(())
}

#[test]
fn what_cannot_be_looked_up_is_named() -> Result<()> {
    let case = same(1);
    let drawn = Drawn::new(&case, 0, DType::F32)?;
    let Drawn { embedding, maps, of_item } = &drawn;
    let [time, class] = &of_item[..] else { panic!("two") };
    let stack = SpikingStack::new(case.draw()?.0.layers);
    let prepared = stack.prepare_on_tokens(embedding, (4, 4))?;
    let of = |number: u32| Tensor::full(number, case.batch, &Device::Cpu);
    let (many, floats) = (of(3)?, class.to_dtype(DType::F32)?);
    for (maps, of_item, words) in [
        (&Tensor::full(11u32, (2, 4, 4), &Device::Cpu)?, vec![time.clone(), class.clone()], "11"),
        (maps, vec![time.clone(), many], "3"),
        (maps, vec![time.clone()], "numbers for 1"),
        (
            maps,
            vec![time.clone(), class.narrow(0, 0, 1)?],
            "numbers 1 of the items are [1], the maps want [2]",
        ),
        (maps, vec![time.clone(), floats], "wants u32, not F32"),
        (&maps.narrow(1, 0, 3)?, of_item.clone(), "maps of 3 x 4, and vectors of 16 positions"),
    ] {
        let at = vec![vec![0]; case.batch];
        for result in
            [embedding.forward(maps, &of_item), prepared.readout_of_at(maps, &of_item, 4, PSP, &[0], &at)]
        {
            let error = result.expect_err(words).to_string();
            assert!(error.contains(words), "{words}: {error}");
        }
    }
    let at = |at: &[Vec<u32>]| prepared.readout_of_at(maps, of_item, 4, PSP, &[0], at);
    assert!(at(&[vec![16], vec![]]).is_err() && at(&[vec![0]]).is_err(), "positions");
    let turned =
        prepared.readout_of_at(&maps.reshape((case.batch, 2, 8))?, of_item, 4, PSP, &[0], &[vec![], vec![0]]);
    assert!(turned.is_err_and(|e| e.to_string().contains("maps of [4, 4], not [2, 8]")));
    for map in [(4, 3), (usize::MAX, 2)] {
        assert!(stack.prepare_on_tokens(embedding, map).is_err(), "not a vector for each position");
    }
    let table = |shape: (usize, usize), dtype| Tensor::zeros(shape, dtype, &Device::Cpu);
    let token = table((2, 3), DType::F32)?;
    for other in [table((2, 4), DType::F32)?, table((2, 3), DType::F64)?] {
        assert!(TokenEmbedding::new(token.clone(), token.clone(), vec![other]).is_err());
    }
    Ok(())
}
