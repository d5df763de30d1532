//! Pickles of state dicts. Nothing in one is ever executed: Candle's reader makes data of it, and only what PyTorch rebuilds
//! tensors from is taken.

use std::collections::BTreeMap;

use candle_core::DType;
use candle_core::pickle::{Object, Stack};

/// What is wrong with a file or a tensor in it.
pub(super) type Reason = String;

/// What a state dict says of a tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Entry {
    pub(super) dtype: DType,
    /// The storage that holds its elements, maybe among others.
    pub(super) storage: String,
    /// Counted in elements, as are the strides.
    pub(super) offset: usize,
    pub(super) dims: Vec<usize>,
    pub(super) strides: Vec<usize>,
}

/// All names of a state dict, each with its tensor or the reason why there is none.
pub(super) type Entries = BTreeMap<String, Result<Entry, Reason>>;

/// Objects that a pickle may make in all, copies and second looks included. A state dict makes about fifty a tensor.
const OBJECTS: usize = 1 << 22;
/// How deep objects may lie in one another; those of a tensor are five deep.
const DEPTH: usize = 32;

/// Opcodes before which something must be seen to, because Candle takes lengths on trust.
const TEXT: u8 = b'X';
const LONG: u8 = 0x8a;

/// Reads one pickle, and moves `rest` behind it.
pub(super) fn unpickle(rest: &mut &[u8]) -> Result<Object, Reason> {
    let (mut stack, mut left) = (Stack::empty(), OBJECTS);
    loop {
        check_length(rest)?;
        if stack.read(rest).map_err(|e| e.to_string())? {
            return stack.finalize().map_err(|e| e.to_string());
        }
        // A few bytes can ask for copies of copies, or for objects so deep in one another that dropping them overflows the
        // program's stack; each op adds one level at most.
        let size = stack.stack().last().map_or(Some(0), |top| size(top, DEPTH, left));
        let size = size.ok_or("objects too many or too deep in one another for a state dict")?;
        left = left.checked_sub(size + 1).ok_or("more objects than a state dict has")?;
    }
}

fn check_length(rest: &[u8]) -> Result<(), Reason> {
    match rest {
        [TEXT, a, b, c, d, text @ ..] if text.len() < u32::from_le_bytes([*a, *b, *c, *d]) as usize => {
            Err("cut off within a string".into())
        }
        [LONG, bytes, ..] if *bytes > 8 => Err(format!("holds a number of {bytes} bytes")),
        _ => Ok(()),
    }
}

/// The number of objects in one, unless they are more than `most`, or deeper than `depth`.
fn size(object: &Object, depth: usize, most: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let mut sum = 1;
    let mut add = |part: &Object| {
        sum += size(part, depth, most.checked_sub(sum)?)?;
        Some(())
    };
    match object {
        Object::Tuple(parts) | Object::List(parts) => parts.iter().try_for_each(add)?,
        Object::Dict(pairs) => pairs.iter().flat_map(|(key, value)| [key, value]).try_for_each(add)?,
        Object::Reduce { callable, args } | Object::Build { callable, args } => {
            [callable, args].into_iter().try_for_each(|part| add(part))?;
        }
        Object::PersistentLoad(id) => add(id)?,
        Object::Unicode(text) => sum += text.len() / size_of::<Object>(),
        _ => {}
    }
    (sum <= most).then_some(sum)
}

/// What the attributes of an ordered dict are called, of which PyTorch's modules leave one.
const METADATA: &str = "_metadata";

/// The tensors of an unpickled state dict.
pub(super) fn entries(state: &Object) -> Result<Entries, Reason> {
    let Object::Dict(pairs) = state else { return Err(format!("holds no state dict but {}", name(state))) };
    let mut entries = Entries::new();
    for (key, value) in pairs {
        let found = match key {
            Object::Unicode(key) if key == METADATA => continue,
            Object::Unicode(key) => entries.insert(key.clone(), entry(value)),
            _ => entries.insert(name(key), Err("is not named by a string".into())),
        };
        if found.is_some() {
            return Err(format!("holds {} twice", name(key)));
        }
    }
    Ok(entries)
}

fn entry(value: &Object) -> Result<Entry, Reason> {
    let no_tensor = || format!("is no tensor but {}", name(value));
    let Object::Reduce { callable, args } = value else { return Err(no_tensor()) };
    let (Object::Class { module_name, class_name }, Object::Tuple(args)) = (&**callable, &**args) else {
        return Err(no_tensor());
    };
    match (module_name.as_str(), class_name.as_str(), args.as_slice()) {
        ("torch._utils", "_rebuild_tensor_v2", args) => rebuild(args),
        ("torch._utils", "_rebuild_parameter", [tensor, ..]) => entry(tensor),
        ("torch._tensor", "_rebuild_from_type_v2", [inner, _, args, ..]) => {
            entry(&Object::Reduce { callable: Box::new(inner.clone()), args: Box::new(args.clone()) })
        }
        _ => Err(no_tensor()),
    }
}

/// `_rebuild_tensor_v2(storage, offset, size, stride, ..)`, where `storage` is `("storage", class, key, device, elements)`.
fn rebuild(args: &[Object]) -> Result<Entry, Reason> {
    let strange = || "is a tensor of a form that is not known".to_owned();
    let [Object::PersistentLoad(storage), offset, size, stride, ..] = args else { return Err(strange()) };
    let Object::Tuple(storage) = &**storage else { return Err(strange()) };
    let [_, Object::Class { class_name, .. }, Object::Unicode(storage), ..] = storage.as_slice() else {
        return Err(strange());
    };
    let dims = numbers(size).ok_or_else(strange)?;
    let strides = numbers(stride).filter(|strides| strides.len() == dims.len()).ok_or_else(strange)?;
    let offset = number(offset).ok_or_else(strange)?;
    Ok(Entry { dtype: dtype(class_name)?, storage: storage.clone(), offset, dims, strides })
}

fn dtype(class: &str) -> Result<DType, Reason> {
    Ok(match class {
        "FloatStorage" => DType::F32,
        "DoubleStorage" => DType::F64,
        "HalfStorage" => DType::F16,
        "BFloat16Storage" => DType::BF16,
        "ByteStorage" => DType::U8,
        "LongStorage" => DType::I64,
        _ => return Err(format!("is of the type {class}, which is not read here")),
    })
}

fn numbers(object: &Object) -> Option<Vec<usize>> {
    let Object::Tuple(numbers) = object else { return None };
    numbers.iter().map(number).collect()
}

fn number(object: &Object) -> Option<usize> {
    match object {
        Object::Int(number) => usize::try_from(*number).ok(),
        Object::Long(number) => usize::try_from(*number).ok(),
        _ => None,
    }
}

/// For messages.
fn name(object: &Object) -> String {
    match object {
        Object::Class { module_name, class_name } => format!("`{module_name}.{class_name}`"),
        Object::Reduce { callable, .. } | Object::Build { callable, .. } => {
            format!("what {} makes (not called)", name(callable))
        }
        Object::Unicode(text) => format!("`{text}`"),
        Object::Dict(_) => "a dict".into(),
        Object::Tuple(_) | Object::List(_) => "a list".into(),
        Object::Int(number) => format!("`{number}`"),
        Object::Long(number) => format!("`{number}`"),
        Object::Float(number) => format!("`{number}`"),
        Object::Bool(_) | Object::None | Object::Mark | Object::PersistentLoad(_) => "something else".into(),
    }
}
