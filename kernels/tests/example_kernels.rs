//! The committed PTX of each kernel declares what its module documents: target, entry, parameters, shared memory.

use lightos_kernels::ptx::ast::{Item, Space, Statement, Type};
use lightos_kernels::ptx::parse;
use lightos_kernels::{Geometry, reduction, sgemm, softmax, vector_add};

/// The kernel's parameter types in order, after the checks that all four share.
fn parameters(text: &str, entry: &str) -> Vec<Type> {
    let module = parse(text).expect("committed PTX");
    assert_eq!(module.target, ["sm_75"], "must run on every GPU since Turing");
    assert!(module.version <= (8, 4), "drivers before 550 do not read PTX {:?}", module.version);
    assert_eq!(module.address_size, 64);
    let entries: Vec<_> = module
        .items
        .iter()
        .filter_map(|item| match item {
            Item::Function(function) if function.entry => Some(function),
            _ => None,
        })
        .collect();
    let [function] = entries[..] else { panic!("{} entries", entries.len()) };
    assert_eq!(function.name, entry);
    let body = function.body.as_ref().expect("a body");
    assert!(body.iter().any(|statement| matches!(statement, Statement::Instruction(_))));
    assert!(function.params.iter().all(|param| param.space == Space::Param && param.dims.is_empty()));
    function.params.iter().map(|param| param.ty).collect()
}

/// Static shared memory that the kernel's body or its module declares.
fn shared_bytes(text: &str) -> u64 {
    let module = parse(text).expect("committed PTX");
    let mut variables = Vec::new();
    for item in &module.items {
        match item {
            Item::Variable(variable) => variables.push(variable),
            Item::Function(function) => {
                variables.extend(function.body.iter().flatten().filter_map(|statement| match statement {
                    Statement::Variable(variable) => Some(variable),
                    _ => None,
                }));
            }
            Item::Directive(_) => {}
        }
    }
    variables
        .iter()
        .filter(|variable| variable.space == Space::Shared)
        .map(|variable| {
            let elements: u64 = variable.dims.iter().map(|size| size.unwrap_or(0)).product();
            elements * u64::from(variable.ty.size_bytes())
        })
        .sum()
}

#[test]
fn vector_add_takes_three_pointers_and_a_length() {
    assert_eq!(parameters(vector_add::PTX, vector_add::ENTRY), [Type::U64, Type::U64, Type::U64, Type::U32]);
    assert_eq!(shared_bytes(vector_add::PTX), 0);
}

#[test]
fn sgemm_takes_sizes_scalars_and_matrices() {
    assert_eq!(
        parameters(sgemm::PTX, sgemm::ENTRY),
        [Type::U32, Type::U32, Type::U32, Type::F32, Type::U64, Type::U64, Type::F32, Type::U64]
    );
    let tile_bytes = u64::from(sgemm::TILE * sgemm::TILE) * 4;
    assert_eq!(shared_bytes(sgemm::PTX), 2 * tile_bytes);
}

#[test]
fn reduction_takes_two_pointers_and_a_length() {
    assert_eq!(parameters(reduction::PTX, reduction::ENTRY), [Type::U64, Type::U64, Type::U32]);
    assert_eq!(shared_bytes(reduction::PTX), 32 * 4);
    assert_eq!(reduction::geometry(1).grid, [1, 1, 1]);
    assert_eq!(reduction::geometry(u32::MAX).grid, [reduction::MAX_BLOCKS, 1, 1]);
}

#[test]
fn softmax_takes_two_pointers_and_a_width() {
    assert_eq!(parameters(softmax::PTX, softmax::ENTRY), [Type::U64, Type::U64, Type::U32]);
    // Its shared memory is dynamic: the geometry brings it.
    assert_eq!(shared_bytes(softmax::PTX), 0);
    assert_eq!(softmax::geometry(7), Geometry { grid: [7, 1, 1], block: [256, 1, 1], shared_bytes: 1024 });
}
