//! What a load reports: the figures of a kernel, and the words of the instruction that failed.

use lightos_kernels::ptx::ast::{self, Item, Module, Span};

use super::KernelInfo;
use super::decode::Decoded;
use super::layout::kernel_params;
use super::op::Function;
use super::scope::ModuleScope;

/// The instruction that starts at `span`, dotted.
pub fn opcode_at(module: &Module, span: Span) -> Option<String> {
    fn find(body: &[ast::Statement], span: Span) -> Option<String> {
        body.iter().find_map(|statement| match statement {
            ast::Statement::Instruction(i) if i.span == span => {
                let words = std::iter::once(i.opcode.as_str()).chain(i.modifiers.iter().map(String::as_str));
                Some(words.collect::<Vec<_>>().join("."))
            }
            ast::Statement::Block(inner) => find(inner, span),
            _ => None,
        })
    }
    module.items.iter().find_map(|item| match item {
        Item::Function(f) => find(f.body.as_deref()?, span),
        _ => None,
    })
}

/// The figures that `cuFuncGetAttribute` answers.
pub fn describe(
    module: &Module,
    source: &ast::Function,
    function: &Function,
    scope: &ModuleScope<'_>,
) -> Decoded<KernelInfo> {
    let params = kernel_params(&source.params)?;
    let param_bytes = params.last().map_or(0, |p| p.offset + p.size);
    let directive = |name: &str| {
        let found = source.directives.iter().find(|d| d.name == name)?;
        let mut axes = [1u32; 3];
        for (axis, text) in axes.iter_mut().zip(found.args.split(',')) {
            *axis = text.trim().parse().ok()?;
        }
        Some(axes)
    };
    let required_block = directive("reqntid");
    let product = |axes: [u32; 3]| axes.iter().fold(1u32, |product, &n| product.saturating_mul(n));
    let max_threads_per_block = required_block.or(directive("maxntid")).map_or(1024, product).clamp(1, 1024);
    // Virtual registers say little about the real allocation; what the occupancy rules need is a figure that lets the
    // largest block of this kernel launch.
    let estimate = (function.frame.words + 2 * function.frame.longs) / 4 + 16;
    let limit =
        directive("maxnreg").map_or(255, |n| n[0]).min(65_536 / max_threads_per_block.next_multiple_of(32));
    let sm = module.target.iter().find_map(|t| t.strip_prefix("sm_"));
    let digits = sm.map_or("", |t| t.trim_end_matches(|c: char| !c.is_ascii_digit()));
    Ok(KernelInfo {
        name: source.name.clone(),
        params,
        param_bytes,
        static_shared_bytes: scope.shared_bytes,
        const_bytes: scope.const_bytes as u32,
        local_bytes: function.local_bytes,
        registers: estimate.next_multiple_of(8).min(limit),
        max_threads_per_block,
        required_block,
        target_sm: digits.parse().unwrap_or(0),
    })
}
