//! The syntax tree. Every node that can be wrong keeps the [`Span`] it was read from.

use std::fmt;

/// Line and column (both from 1) of a node's first character.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    pub line: u32,
    pub column: u32,
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// One PTX translation unit.
#[derive(Clone, Debug, PartialEq)]
pub struct Module {
    /// `.version 8.3` is `(8, 3)`.
    pub version: (u32, u32),
    /// `.target sm_90a, debug` is `["sm_90a", "debug"]`.
    pub target: Vec<String>,
    /// `.address_size`, 32 or 64; 64 where absent.
    pub address_size: u32,
    pub items: Vec<Item>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    Variable(Variable),
    Function(Function),
    /// Directives without meaning for execution, kept verbatim so that the printer gives them back:
    /// `.file`, `.section { … }`, `.pragma`, `.alias`.
    Directive(Directive),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Linkage {
    #[default]
    Internal,
    Visible,
    Extern,
    Weak,
    Common,
}

/// PTX state spaces. `Generic` is the absence of a space on a memory instruction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    Register,
    Special,
    Const,
    Global,
    Local,
    Param,
    Shared,
    Texture,
    Generic,
}

/// Fundamental types, ISA section "Fundamental Types", plus the packed forms that appear as operand types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Type {
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    TF32,
    F32,
    /// Two f32 in a 64-bit register.
    F32x2,
    F64,
    E4M3,
    E5M2,
    E4M3x2,
    E5M2x2,
    U16x2,
    S16x2,
    Pred,
    TexRef,
    SamplerRef,
    SurfRef,
}

/// A variable in any space: `.shared .align 4 .b8 name[1024];`, `.reg .b32 %r<10>;`, a parameter, a global with an
/// initialiser.
#[derive(Clone, Debug, PartialEq)]
pub struct Variable {
    pub linkage: Linkage,
    pub space: Space,
    /// Bytes; `None` where the text names none (natural alignment holds).
    pub align: Option<u32>,
    /// `.v2` and `.v4`; 1 otherwise.
    pub vector: u32,
    pub ty: Type,
    pub name: String,
    /// `name[4][2]` is `[Some(4), Some(2)]`; `name[]` is `[None]`.
    pub dims: Vec<Option<u64>>,
    /// `%r<10>` declares `%r0` to `%r9`.
    pub count: Option<u32>,
    pub init: Option<Initializer>,
    /// `.ptr .global .align 16` on a kernel parameter, kept verbatim in order; also `.managed`, `.attribute(...)`.
    pub attributes: Vec<String>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Initializer {
    List(Vec<Initializer>),
    Value(Constant),
    /// An address of another variable or function, `generic(x)+8` or `x+8`, optionally masked (`0xFF(x)`).
    Address {
        symbol: String,
        offset: i64,
        generic: bool,
        mask: Option<u64>,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub struct Function {
    pub linkage: Linkage,
    /// True for `.entry`.
    pub entry: bool,
    pub name: String,
    pub returns: Vec<Variable>,
    pub params: Vec<Variable>,
    /// `.maxntid 256, 1, 1`, `.minnctapersm 2`, `.reqntid`, `.maxnreg`, `.noreturn`, `.explicitcluster`, ...
    pub directives: Vec<Directive>,
    /// `None` for a prototype.
    pub body: Option<Vec<Statement>>,
    pub span: Span,
}

/// A dotted directive with its arguments as written. `name` is without the dot.
#[derive(Clone, Debug, PartialEq)]
pub struct Directive {
    pub name: String,
    /// The text between the name and the end of the directive, tokens separated by one blank.
    pub args: String,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Statement {
    Label(String, Span),
    Variable(Variable),
    Instruction(Instruction),
    /// `{ … }`: a scope for registers, variables and labels.
    Block(Vec<Statement>),
    /// `.loc`, `.pragma`, and the labelled call tables below.
    Directive(Directive),
    /// `label: .branchtargets a, b;`
    BranchTargets {
        label: String,
        targets: Vec<String>,
        span: Span,
    },
    /// `label: .calltargets f, g;`
    CallTargets {
        label: String,
        targets: Vec<String>,
        span: Span,
    },
    /// `label: .callprototype (.param .b32 _) _ (.param .b64 _);`
    CallPrototype {
        label: String,
        returns: Vec<Variable>,
        params: Vec<Variable>,
        noreturn: bool,
        /// What else follows: `.abi_preserve 8`.
        directives: Vec<Directive>,
        span: Span,
    },
}

/// `@!%p1 ld.global.nc.v4.f32 {%f1,%f2,%f3,%f4}, [%rd1+16];`
#[derive(Clone, Debug, PartialEq)]
pub struct Instruction {
    pub guard: Option<Guard>,
    /// The word before the first dot: `ld`.
    pub opcode: String,
    /// The dotted words after it, in order, without dots: `["global", "nc", "v4", "f32"]`. A word that holds `::`
    /// stays one (`L2::128B`, `shared::cta`).
    pub modifiers: Vec<String>,
    pub operands: Vec<Operand>,
    pub span: Span,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Guard {
    pub register: String,
    pub negated: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register (`%tid.x` is one identifier), variable, function or label.
    Ident(String),
    Constant(Constant),
    /// `!%p1`.
    Not(String),
    /// `-%f1` does not exist in PTX; a minus belongs to a constant.
    /// `[base+offset]`; an absolute address has a `Constant` base.
    Address {
        base: Box<Operand>,
        offset: i64,
    },
    /// `name+8` used as a value (mov of an address).
    Offset {
        base: String,
        offset: i64,
    },
    /// `{a, b, c, d}`.
    Vector(Vec<Operand>),
    /// `a|b`: the two destinations of setp, shfl, match, elect.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`: the argument and return lists of `call`.
    List(Vec<Operand>),
    /// `_`.
    Sink,
    /// `[tex, {x, y}]` and other bracketed lists (tex, cp.async.bulk.tensor, mbarrier with several).
    Bracket(Vec<Operand>),
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Constant {
    /// An integer literal or constant expression, already evaluated. `unsigned` where it had a `U` suffix or
    /// does not fit in i64.
    Int { value: u64, unsigned: bool },
    /// `0f3F800000`: the bits as written.
    F32(u32),
    /// `0d3FF0000000000000` or a decimal literal.
    F64(u64),
}
