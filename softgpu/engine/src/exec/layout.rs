//! Sizes and places of data: variables, kernel parameters, initialisers.

use lightos_kernels::ptx::ast::{Initializer, Type, Variable};

use super::ParamInfo;
use super::decode::{Decoded, invalid, unsupported};
use super::operand::constant_bits;
use super::words::type_bytes;

/// Size and alignment of a variable in bytes. An unsized array (`name[]`) has size 0.
pub fn variable_size(variable: &Variable) -> Decoded<(u64, u64)> {
    if let Type::TexRef | Type::SamplerRef | Type::SurfRef = variable.ty {
        return unsupported(format!("'{}' is a texture, sampler or surface reference", variable.name));
    }
    let element = u64::from(type_bytes(variable.ty)) * u64::from(variable.vector.max(1));
    let mut bytes = element;
    for dim in &variable.dims {
        bytes = match bytes.checked_mul(dim.unwrap_or(0)) {
            Some(bytes) if bytes < 1 << 46 => bytes,
            _ => return unsupported(format!("variable '{}' is too large", variable.name)),
        };
    }
    let align =
        u64::from(variable.align.unwrap_or(0)).max(if variable.align.is_some() { 1 } else { element });
    if !align.is_power_of_two() {
        return invalid(format!("alignment of '{}' is no power of two", variable.name));
    }
    Ok((bytes, align))
}

/// Offsets and sizes of kernel parameters: each at its natural or declared alignment, in order.
pub fn kernel_params(params: &[Variable]) -> Decoded<Vec<ParamInfo>> {
    let mut end = 0;
    let mut infos = Vec::with_capacity(params.len());
    for variable in params {
        let (bytes, align) = variable_size(variable)?;
        let offset = (end as u64).next_multiple_of(align) as usize;
        end = offset + bytes as usize;
        infos.push(ParamInfo { offset, size: bytes as usize });
    }
    Ok(infos)
}

/// Writes `init` at the start of `bytes`; `address` gives a symbol's value, generic where asked for.
pub fn initialise(
    variable: &Variable,
    init: &Initializer,
    bytes: &mut [u8],
    address: &dyn Fn(&str, bool) -> Option<u64>,
) -> Decoded {
    // An initialiser of nested lists fills sub-arrays, each from its own start.
    let element = type_bytes(variable.ty) as usize;
    let mut strides = vec![element];
    if variable.vector > 1 {
        strides.push(element * variable.vector as usize);
    }
    for dim in variable.dims.iter().skip(1).rev() {
        strides.push(strides[strides.len() - 1] * dim.unwrap_or(1) as usize);
    }
    let strides = strides.as_slice();
    fill(variable, init, bytes, strides, address)
}

fn fill(
    variable: &Variable,
    init: &Initializer,
    bytes: &mut [u8],
    strides: &[usize],
    address: &dyn Fn(&str, bool) -> Option<u64>,
) -> Decoded {
    let put = |bytes: &mut [u8], value: u64| {
        let Some(target) = bytes.get_mut(..strides[0]) else {
            return invalid(format!("too many initialisers for '{}'", variable.name));
        };
        let source = value.to_le_bytes();
        for (to, from) in target.iter_mut().zip(source) {
            *to = from;
        }
        Ok(())
    };
    match init {
        Initializer::Value(constant) => put(bytes, constant_bits(constant, variable.ty)?),
        Initializer::Address { symbol, offset, generic, mask } => {
            let Some(base) = address(symbol, *generic) else {
                return invalid(format!("unknown symbol '{symbol}' in an initialiser"));
            };
            let value = base.wrapping_add_signed(*offset);
            // `0xFF00(x)` takes the masked bits, shifted down to fill one byte.
            put(bytes, mask.map_or(value, |mask| (value & mask) >> mask.trailing_zeros().min(63)))
        }
        Initializer::List(items) => {
            let mut at = 0;
            for item in items {
                let nested = matches!(item, Initializer::List(_)) && strides.len() > 1;
                let (step, inner) = if nested {
                    (strides[strides.len() - 1], &strides[..strides.len() - 1])
                } else {
                    (strides[0], strides)
                };
                let Some(rest) = bytes.get_mut(at..) else {
                    return invalid(format!("too many initialisers for '{}'", variable.name));
                };
                let room = if nested { step.min(rest.len()) } else { rest.len() };
                fill(variable, item, &mut rest[..room], inner, address)?;
                at += step;
            }
            Ok(())
        }
    }
}
