//! The architecture as data: a tree of operations with named convolutions.

use super::{InceptionLayer, InceptionVariant};

/// One operation on the activations of an image; `C` is a convolution, described or loaded.
pub(crate) enum Op<C> {
    /// Convolution, batch norm and ReLU.
    Conv(C),
    /// 3x3 average, stride 1, padding 1; the padding counts as zeros or not at all.
    AveragePool { count_padding: bool },
    /// 3x3 maximum; the padding never wins.
    MaxPool { stride: usize, padding: usize },
    /// Branches from the same input, their channels one after the other.
    Concat(Vec<Vec<Op<C>>>),
}

impl<C> Op<C> {
    /// The same operation with each convolution replaced, in order.
    pub(crate) fn try_map<D, E>(self, load: &mut impl FnMut(C) -> Result<D, E>) -> Result<Op<D>, E> {
        Ok(match self {
            Self::Conv(conv) => Op::Conv(load(conv)?),
            Self::AveragePool { count_padding } => Op::AveragePool { count_padding },
            Self::MaxPool { stride, padding } => Op::MaxPool { stride, padding },
            Self::Concat(branches) => {
                let branches = branches.into_iter().map(|ops| try_map_all(ops, load));
                Op::Concat(branches.collect::<Result<_, E>>()?)
            }
        })
    }
}

/// [`Op::try_map`] on a chain of operations.
pub(crate) fn try_map_all<C, D, E>(
    ops: Vec<Op<C>>,
    load: &mut impl FnMut(C) -> Result<D, E>,
) -> Result<Vec<Op<D>>, E> {
    ops.into_iter().map(|op| op.try_map(load)).collect()
}

/// A convolution by name and size.
#[derive(Debug, Clone)]
pub(crate) struct ConvSpec {
    pub(crate) name: String,
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// Height and width.
    pub(crate) kernel: [usize; 2],
    pub(crate) stride: usize,
    /// Rows above and below, columns left and right.
    pub(crate) padding: [usize; 2],
}

type Ops = Vec<Op<ConvSpec>>;

/// Everything up to `layer`, without the global average and the classifier.
pub(crate) fn trunk(variant: InceptionVariant, layer: InceptionLayer) -> Ops {
    let average = Op::AveragePool { count_padding: variant == InceptionVariant::ImageNet };
    let stages: [(InceptionLayer, Box<dyn Fn() -> Ops>); 4] = [
        (InceptionLayer::Pool64, Box::new(stem)),
        (InceptionLayer::Pool192, Box::new(second_stem)),
        (InceptionLayer::Mixed768, Box::new(|| middle(&average))),
        (InceptionLayer::Pool2048, Box::new(|| last(variant, &average))),
    ];
    let wanted = stages.into_iter().filter(|(stage, _)| *stage <= layer);
    wanted.flat_map(|(_, ops)| ops()).collect()
}

fn stem() -> Ops {
    let chain = Chain::new("", 3).valid("Conv2d_1a_3x3", 32, 3, 2).valid("Conv2d_2a_3x3", 32, 3, 1);
    chain.same("Conv2d_2b_3x3", 64, [3, 3]).pool(HALVE).ops
}

fn second_stem() -> Ops {
    let chain = Chain::new("", 64).valid("Conv2d_3b_1x1", 80, 1, 1);
    chain.valid("Conv2d_4a_3x3", 192, 3, 1).pool(HALVE).ops
}

fn middle(average: &Op<ConvSpec>) -> Ops {
    vec![
        block_35("Mixed_5b.", 192, 32, average),
        block_35("Mixed_5c.", 256, 64, average),
        block_35("Mixed_5d.", 288, 64, average),
        shrink_35("Mixed_6a."),
        block_17("Mixed_6b.", 128, average),
        block_17("Mixed_6c.", 160, average),
        block_17("Mixed_6d.", 160, average),
        block_17("Mixed_6e.", 192, average),
    ]
}

/// TensorFlow's network of 2015 takes the maximum in its last block, where torchvision takes the average.
fn last(variant: InceptionVariant, average: &Op<ConvSpec>) -> Ops {
    const MAXIMUM: Op<ConvSpec> = Op::MaxPool { stride: 1, padding: 1 };
    let pool = match variant {
        InceptionVariant::Fid => &MAXIMUM,
        InceptionVariant::ImageNet => average,
    };
    vec![shrink_17("Mixed_7a."), block_8("Mixed_7b.", 1280, average), block_8("Mixed_7c.", 2048, pool)]
}

/// 35 x 35: 1x1, 5x5 and two 3x3 kernels side by side.
fn block_35(name: &str, inputs: usize, pooled: usize, pool: &Op<ConvSpec>) -> Op<ConvSpec> {
    let start = || Chain::new(name, inputs);
    Op::Concat(vec![
        start().one("branch1x1", 64).ops,
        start().one("branch5x5_1", 48).same("branch5x5_2", 64, [5, 5]).ops,
        double_3x3(start()).same("branch3x3dbl_3", 96, [3, 3]).ops,
        start().pool(copy_pool(pool)).one("branch_pool", pooled).ops,
    ])
}

fn double_3x3(start: Chain<'_>) -> Chain<'_> {
    start.one("branch3x3dbl_1", 64).same("branch3x3dbl_2", 96, [3, 3])
}

/// From 35 x 35 to 17 x 17.
fn shrink_35(name: &str) -> Op<ConvSpec> {
    let start = || Chain::new(name, 288);
    Op::Concat(vec![
        start().valid("branch3x3", 384, 3, 2).ops,
        double_3x3(start()).valid("branch3x3dbl_3", 96, 3, 2).ops,
        start().pool(HALVE).ops,
    ])
}

/// 17 x 17: 7x7 kernels as pairs of lines, `narrow` channels wide inside.
fn block_17(name: &str, narrow: usize, pool: &Op<ConvSpec>) -> Op<ConvSpec> {
    let start = || Chain::new(name, 768);
    let single = start().one("branch7x7_1", narrow).same("branch7x7_2", narrow, [1, 7]);
    let double = start().one("branch7x7dbl_1", narrow).same("branch7x7dbl_2", narrow, [7, 1]);
    let double = double.same("branch7x7dbl_3", narrow, [1, 7]).same("branch7x7dbl_4", narrow, [7, 1]);
    Op::Concat(vec![
        start().one("branch1x1", 192).ops,
        single.same("branch7x7_3", 192, [7, 1]).ops,
        double.same("branch7x7dbl_5", 192, [1, 7]).ops,
        start().pool(copy_pool(pool)).one("branch_pool", 192).ops,
    ])
}

/// From 17 x 17 to 8 x 8.
fn shrink_17(name: &str) -> Op<ConvSpec> {
    let start = || Chain::new(name, 768);
    let lines = start().one("branch7x7x3_1", 192).same("branch7x7x3_2", 192, [1, 7]);
    Op::Concat(vec![
        start().one("branch3x3_1", 192).valid("branch3x3_2", 320, 3, 2).ops,
        lines.same("branch7x7x3_3", 192, [7, 1]).valid("branch7x7x3_4", 192, 3, 2).ops,
        start().pool(HALVE).ops,
    ])
}

/// 8 x 8: 3x3 kernels that fork into a row and a column.
fn block_8(name: &str, inputs: usize, pool: &Op<ConvSpec>) -> Op<ConvSpec> {
    let start = || Chain::new(name, inputs);
    let double = start().one("branch3x3dbl_1", 448).same("branch3x3dbl_2", 384, [3, 3]);
    Op::Concat(vec![
        start().one("branch1x1", 320).ops,
        start().one("branch3x3_1", 384).fork("branch3x3_2a", "branch3x3_2b", 384).ops,
        double.fork("branch3x3dbl_3a", "branch3x3dbl_3b", 384).ops,
        start().pool(copy_pool(pool)).one("branch_pool", 192).ops,
    ])
}

const HALVE: Op<ConvSpec> = Op::MaxPool { stride: 2, padding: 0 };

fn copy_pool(pool: &Op<ConvSpec>) -> Op<ConvSpec> {
    match *pool {
        Op::MaxPool { stride, padding } => Op::MaxPool { stride, padding },
        Op::AveragePool { count_padding } => Op::AveragePool { count_padding },
        Op::Conv(_) | Op::Concat(_) => Op::Concat(Vec::new()),
    }
}

/// Operations one after the other, and the number of channels behind the last.
struct Chain<'a> {
    block: &'a str,
    channels: usize,
    ops: Ops,
}

impl<'a> Chain<'a> {
    fn new(block: &'a str, channels: usize) -> Self {
        Self { block, channels, ops: Vec::new() }
    }

    fn conv(mut self, name: &str, outputs: usize, kernel: [usize; 2], at: (usize, [usize; 2])) -> Self {
        let (inputs, (stride, padding)) = (self.channels, at);
        let name = format!("{}{name}", self.block);
        self.ops.push(Op::Conv(ConvSpec { name, inputs, outputs, kernel, stride, padding }));
        self.channels = outputs;
        self
    }

    /// 1x1.
    fn one(self, name: &str, outputs: usize) -> Self {
        self.valid(name, outputs, 1, 1)
    }

    /// Square kernel without padding.
    fn valid(self, name: &str, outputs: usize, side: usize, stride: usize) -> Self {
        self.conv(name, outputs, [side; 2], (stride, [0; 2]))
    }

    /// The output is as large as the input.
    fn same(self, name: &str, outputs: usize, kernel: [usize; 2]) -> Self {
        self.conv(name, outputs, kernel, (1, kernel.map(|side| side / 2)))
    }

    fn pool(mut self, pool: Op<ConvSpec>) -> Self {
        self.ops.push(pool);
        self
    }

    /// A row kernel and a column kernel on the same input.
    fn fork(mut self, row: &str, column: &str, outputs: usize) -> Self {
        let start = || Chain::new(self.block, self.channels);
        let (row, column) = (start().same(row, outputs, [1, 3]), start().same(column, outputs, [3, 1]));
        self.ops.push(Op::Concat(vec![row.ops, column.ops]));
        self.channels = 2 * outputs;
        self
    }
}
