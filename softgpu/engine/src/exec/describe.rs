//! What a load reports: the figures of a kernel, and the words of the instruction that failed.

use lightos_kernels::ptx::ast::{self, Item, Module, Span};

use super::KernelInfo;
use super::decode::{Decoded, unsupported};
use super::layout::kernel_params;
use super::op::Function;
use super::scope::ModuleScope;

/// 32-bit registers of a multiprocessor, and what a thread may have of them.
const REGISTER_FILE: u32 = 65_536;
const LEAST_REGISTERS: u32 = 16;
const MOST_REGISTERS: u32 = 255;
/// Registers are counted in steps of this.
const REGISTER_STEP: u32 = 8;
/// For the stack pointer and the return address.
const SYSTEM_REGISTERS: u32 = 2;

/// The limit of `CU_JIT_MAX_REGISTERS`, which the driver writes at a module's end as `.pragma "maxrregcount 40";`.
fn register_limit(module: &Module) -> u32 {
    let limits = module.items.iter().filter_map(|item| match item {
        Item::Directive(directive) if directive.name == "pragma" => {
            directive.args.trim_matches('"').strip_prefix("maxrregcount ")?.parse().ok()
        }
        _ => None,
    });
    limits.min().unwrap_or(MOST_REGISTERS)
}

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

/// The figures that `cuFuncGetAttribute` answers. `callees` is the most registers that a device function of the module
/// needs.
pub fn describe(
    module: &Module,
    source: &ast::Function,
    function: &Function,
    scope: &ModuleScope<'_>,
    callees: u32,
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
    let clustered = source.directives.iter().any(|d| d.name == "reqnctapercluster");
    if clustered && directive("reqnctapercluster") != Some([1; 3]) {
        return unsupported(".reqnctapercluster: clusters of more than one block");
    }
    let required_block = directive("reqntid");
    let product = |axes: [u32; 3]| axes.iter().fold(1u32, |product, &n| product.saturating_mul(n));
    let max_threads_per_block = required_block.or(directive("maxntid")).map_or(1024, product).clamp(1, 1024);
    // The largest block that the kernel's bounds allow must fit, and as many of them as it asks for.
    let blocks = directive("minnctapersm").map_or(1, |n| n[0].max(1));
    let threads = max_threads_per_block.next_multiple_of(32).saturating_mul(blocks);
    let limit = directive("maxnreg").map_or(MOST_REGISTERS, |n| n[0]).min(register_limit(module));
    let limit = limit.min(REGISTER_FILE / threads).clamp(LEAST_REGISTERS, MOST_REGISTERS);
    let own = super::pressure::registers(source);
    let live = if function.calls.is_empty() { own } else { own.max(callees) };
    let registers = live.saturating_add(SYSTEM_REGISTERS).next_multiple_of(REGISTER_STEP);
    let sm = module.target.iter().find_map(|t| t.strip_prefix("sm_"));
    let digits = sm.map_or("", |t| t.trim_end_matches(|c: char| !c.is_ascii_digit()));
    Ok(KernelInfo {
        name: source.name.clone(),
        params,
        param_bytes,
        static_shared_bytes: scope.shared_bytes,
        const_bytes: scope.const_bytes as u32,
        local_bytes: function.local_bytes,
        registers: registers.clamp(LEAST_REGISTERS, limit),
        max_threads_per_block,
        required_block,
        target_sm: digits.parse().unwrap_or(0),
    })
}
