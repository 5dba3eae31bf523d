//! What the reader makes of each construct, and where it points when text is wrong.

use lightos_kernels::ptx::ast::{
    Constant, Function, Initializer, Instruction, Item, Linkage, Module, Operand, Space, Span, Statement,
    Type, Variable,
};
use lightos_kernels::ptx::{MAX_NESTING, ParseErrorKind, parse};

const ODD: &str = include_str!("fixtures/odd-syntax.ptx");
const HEAD: &str = ".version 8.0\n.target sm_75\n.address_size 64\n";

fn odd() -> Module {
    parse(ODD).expect("the fixture is PTX")
}

fn variable<'a>(module: &'a Module, name: &str) -> &'a Variable {
    let found = module.items.iter().find_map(|item| match item {
        Item::Variable(variable) if variable.name == name => Some(variable),
        _ => None,
    });
    found.expect(name)
}

fn function<'a>(module: &'a Module, name: &str) -> &'a Function {
    let found = module.items.iter().find_map(|item| match item {
        Item::Function(function) if function.name == name => Some(function),
        _ => None,
    });
    found.expect(name)
}

/// One instruction, read on its own.
fn instruction(text: &str) -> Instruction {
    let module = parse(&format!("{HEAD}.func f {{ {text} }}")).expect(text);
    match function(&module, "f").body.as_deref() {
        Some([Statement::Instruction(instruction)]) => instruction.clone(),
        other => panic!("{text}: {other:?}"),
    }
}

fn int(value: i64) -> Constant {
    Constant::Int { value: value.cast_unsigned(), unsigned: false }
}

fn ident(name: &str) -> Operand {
    Operand::Ident(name.to_owned())
}

fn address(base: &str, offset: i64) -> Operand {
    Operand::Address { base: Box::new(ident(base)), offset }
}

#[test]
fn module_head() {
    let module = odd();
    assert_eq!(module.version, (8, 3));
    assert_eq!(module.target, ["sm_90a", "debug"]);
    assert_eq!(module.address_size, 64);
    assert_eq!(parse(".version 6.0 .target sm_30").expect("short head").address_size, 64);
}

#[test]
fn variables_and_initialisers() {
    let module = odd();
    let limits = variable(&module, "limits");
    assert_eq!((limits.space, limits.align, limits.ty), (Space::Global, Some(4), Type::U32));
    assert_eq!(limits.dims, [Some(2), Some(3)]);
    let value = |constant| Initializer::Value(constant);
    let four = Constant::Int { value: 4, unsigned: true };
    assert_eq!(
        limits.init,
        Some(Initializer::List(vec![
            Initializer::List(vec![value(int(1)), value(int(2)), value(int(3))]),
            Initializer::List(vec![value(int(15)), value(four), value(int(-6))]),
        ]))
    );
    assert_eq!(
        variable(&module, "coefficients").init,
        Some(Initializer::List(vec![
            value(Constant::F32(0x3F80_0000)),
            value(Constant::F64(1.5_f64.to_bits())),
            value(Constant::F64((-0.25_f64).to_bits())),
        ]))
    );
    let address = |symbol: &str, offset, generic, mask| Initializer::Address {
        symbol: symbol.to_owned(),
        offset,
        generic,
        mask,
    };
    assert_eq!(
        variable(&module, "table").init,
        Some(Initializer::List(vec![
            address("counter", 0, false, None),
            address("limits", 8, true, None),
            address("limits", 4, true, None),
        ]))
    );
    assert_eq!(
        variable(&module, "bytes").init,
        Some(Initializer::List(vec![
            address("counter", 0, false, Some(0xFF)),
            address("counter", 0, false, Some(0xFF00)),
            address("counter", 1, true, Some(0xFF)),
            value(int(7)),
        ]))
    );
    let minus_one = Constant::Int { value: u64::MAX, unsigned: true };
    assert_eq!(
        variable(&module, "sums").init,
        Some(Initializer::List([int(13), int(17), minus_one, int(10)].map(value).into()))
    );
    let quad = variable(&module, "quad");
    assert_eq!((quad.vector, quad.align), (4, Some(16)));
    assert_eq!(quad.attributes, [".attribute(.managed)"]);
    assert_eq!(variable(&module, "shared_by_all").attributes, [".attribute(.unified(12,34))"]);
    let dynamic = variable(&module, "dynamic");
    assert_eq!((dynamic.linkage, &dynamic.dims[..]), (Linkage::Extern, &[None][..]));
    assert_eq!(variable(&module, "tentative").linkage, Linkage::Common);
}

#[test]
fn functions_and_their_heads() {
    let module = odd();
    let twice = function(&module, "twice");
    assert_eq!((twice.linkage, twice.entry, twice.returns.len()), (Linkage::Weak, false, 1));
    assert_eq!(twice.params[0].space, Space::Register);
    assert!(function(&module, "nothing").body.is_none());
    assert_eq!(function(&module, "vprintf").params.len(), 2);
    assert_eq!(function(&module, "abort_now").directives[0].name, "noreturn");
    let entry = function(&module, "everything");
    assert!(entry.entry);
    let attributes: Vec<_> = entry.params.iter().map(|param| param.attributes.concat()).collect();
    assert_eq!(attributes, [".ptr .global .align 16", "", ".ptr", ""]);
    assert_eq!((entry.params[1].align, &entry.params[1].dims[..]), (Some(8), &[Some(24)][..]));
    let directives: Vec<_> =
        entry.directives.iter().map(|directive| (directive.name.as_str(), directive.args.as_str())).collect();
    assert_eq!(
        directives,
        [
            ("maxntid", "256 , 1 , 1"),
            ("minnctapersm", "2"),
            ("reqnctapercluster", "2 , 1 , 1"),
            ("explicitcluster", ""),
            ("pragma", "\"nounroll\""),
        ]
    );
}

#[test]
fn register_ranges_and_lists() {
    let module = odd();
    let body = function(&module, "everything").body.as_ref().expect("a body");
    let registers: Vec<_> = body
        .iter()
        .filter_map(|statement| match statement {
            Statement::Variable(variable) if variable.space == Space::Register => {
                Some((variable.name.as_str(), variable.ty, variable.vector, variable.count))
            }
            _ => None,
        })
        .collect();
    assert_eq!(
        registers,
        [
            ("p", Type::Pred, 1, None),
            ("q", Type::Pred, 1, None),
            ("%p", Type::Pred, 1, Some(4)),
            ("%r", Type::B32, 1, Some(10)),
            ("$x", Type::B32, 1, None),
            ("%rd", Type::B64, 1, Some(6)),
            ("%v", Type::F32, 4, None),
        ]
    );
}

#[test]
fn labelled_tables() {
    let module = odd();
    let body = function(&module, "everything").body.as_ref().expect("a body");
    let targets = body.iter().find_map(|statement| match statement {
        Statement::BranchTargets { label, targets, .. } => Some((label.as_str(), targets.join(" "))),
        _ => None,
    });
    assert_eq!(targets, Some(("targets", "$L__BB0_1 done".to_owned())));
    let functions = body.iter().find_map(|statement| match statement {
        Statement::CallTargets { targets, .. } => Some(targets.join(" ")),
        _ => None,
    });
    assert_eq!(functions.as_deref(), Some("twice nothing"));
    let prototype = body.iter().find_map(|statement| match statement {
        Statement::CallPrototype { label, returns, params, noreturn, .. } => {
            Some((label.as_str(), returns.len(), params[1].dims.clone(), *noreturn))
        }
        _ => None,
    });
    assert_eq!(prototype, Some(("prototype_0", 1, vec![Some(12)], true)));
}

#[test]
fn prototypes_keep_their_directives() {
    let text = format!("{HEAD}.func f {{ P: .callprototype _ (.param .b64 _) .abi_preserve 4 .noreturn; }}");
    let module = parse(&text).expect("a prototype");
    let body = function(&module, "f").body.as_deref();
    let Some([Statement::CallPrototype { noreturn: true, directives, .. }]) = body else {
        panic!("{body:?}");
    };
    assert_eq!((directives.len(), directives[0].to_string().as_str()), (1, ".abi_preserve 4"));
    let (mut module, mut again) = (module.clone(), parse(&module.to_string()).expect("the printed text"));
    module.erase_spans();
    again.erase_spans();
    assert!(module == again);
}

#[test]
fn operands() {
    let read = instruction("@!%p1 ld.global.L2::128B.v4.f32 {%f1, _}, [%rd1 + -16];");
    let guard = read.guard.expect("a guard");
    assert_eq!((guard.register.as_str(), guard.negated), ("%p1", true));
    assert_eq!((read.opcode.as_str(), read.modifiers.join(" ")), ("ld", "global L2::128B v4 f32".to_owned()));
    assert_eq!(read.operands, [Operand::Vector(vec![ident("%f1"), Operand::Sink]), address("%rd1", -16)]);
    assert_eq!(
        instruction("setp.lt.s32 p|_, %r1, -5, !q;").operands,
        [
            Operand::Pair(Box::new(ident("p")), Box::new(Operand::Sink)),
            ident("%r1"),
            Operand::Constant(int(-5)),
            Operand::Not("q".to_owned()),
        ]
    );
    assert_eq!(instruction("mov.u32 %r1, %tid.x;").operands[1], ident("%tid.x"));
    assert_eq!(
        instruction("mov.u64 %rd1, foo+8;").operands[1],
        Operand::Offset { base: "foo".to_owned(), offset: 8 }
    );
    assert_eq!(
        instruction("st.shared.u32 [16], 1;").operands[0],
        Operand::Address { base: Box::new(Operand::Constant(int(16))), offset: 0 }
    );
    assert_eq!(
        instruction("tex.1d.v4.s32.s32 {a}, [t, {x}];").operands[1],
        Operand::Bracket(vec![ident("t"), Operand::Vector(vec![ident("x")])])
    );
    assert_eq!(
        instruction("call.uni (r), foo, (a, b);").operands,
        [Operand::List(vec![ident("r")]), ident("foo"), Operand::List(vec![ident("a"), ident("b")])]
    );
    assert_eq!(instruction("ret;").operands, []);
}

#[test]
fn constant_expressions() {
    let value = |text: &str| match instruction(&format!("mov.b64 %rd1, {text};")).operands.pop() {
        Some(Operand::Constant(constant)) => constant,
        other => panic!("{text}: {other:?}"),
    };
    let unsigned = |value| Constant::Int { value, unsigned: true };
    assert_eq!(value("2 + 3 * 4"), int(14));
    assert_eq!(value("10 - 4 - 3"), int(3));
    assert_eq!(value("-7 / 2"), int(-3));
    assert_eq!(value("-7 >> 1"), int(-4));
    assert_eq!(value("-1 < 0"), int(1));
    assert_eq!(value("-1 < 0U"), int(0));
    assert_eq!(value("1 << 70"), int(0));
    assert_eq!(value("!5 + 1"), int(1));
    assert_eq!(value("6 & 3 ^ 1 | 8"), int(11));
    assert_eq!(value("1 == 2 || 3 && 4"), int(1));
    assert_eq!(value("0 ? 1 : 0 ? 2 : 3"), int(3));
    assert_eq!(value("(.u64)-1 / 2"), unsigned(u64::MAX / 2));
    assert_eq!(value("(.s64)3.9"), int(3));
    assert_eq!(value("1.5 * 2.0"), Constant::F64(3.0_f64.to_bits()));
    assert_eq!(value("-0x8000000000000000"), unsigned(1 << 63));
    assert_eq!(value("-9223372036854775807 - 1"), int(i64::MIN));
}

#[test]
fn errors_name_the_place_and_the_token() {
    let error = |text: &str| parse(&format!("{HEAD}{text}")).expect_err(text);
    let wrong = error(".entry k(.param .u64 a)\n{\n  add.u32 %r1 %r2;\n}");
    assert_eq!(wrong.to_string(), "line 6, column 15: expected `,` or `;`, found `%r2`");
    assert_eq!(wrong.span, Span { line: 6, column: 15 });
    assert_eq!(
        error(".func f {").to_string(),
        "line 4, column 10: expected a statement or `}`, found the end of the text"
    );
    assert_eq!(
        error(".func f ()\n.alias g, f;").to_string(),
        "line 5, column 1: expected `{` or `;`, found `.alias`"
    );
    assert_eq!(error(".global .u32 a[1/0];").kind, ParseErrorKind::DivisionByZero);
    assert_eq!(error(".global .u32 a[-1];").kind, ParseErrorKind::Range { what: "the array size" });
    assert_eq!(error(".global .align 3 .u32 a;").kind, ParseErrorKind::Range { what: "the alignment" });
    assert_eq!(
        error(".func f { .reg .b32 r<99999999999>; }").kind,
        ParseErrorKind::Range { what: "the register count" }
    );
    let long = format!(".global .attribute({}) .u32 a, b;", "x".repeat(300));
    assert_eq!(error(&long).kind, ParseErrorKind::Range { what: "the attribute's length" });
    let many = format!(".global {} .u32 a, b;", ".attribute(.managed) ".repeat(9));
    assert_eq!(error(&many).kind, ParseErrorKind::Range { what: "the number of attributes" });
    assert_eq!(error(".func f { mov.f32 a, 1.5 & 2.5; }").kind, ParseErrorKind::FloatOperator);
    assert_eq!(
        parse("").expect_err("empty").to_string(),
        "line 1, column 1: expected `.version`, found the end of the text"
    );
    assert!(parse(".version 8 .target sm_75").is_err());
}

#[test]
fn nesting_ends_in_an_error() {
    let deep = 100_000;
    for (open, close) in [
        ("{", "}"),
        ("mov.b32 a, {", "};"),
        ("mov.b32 a, (", ");"),
        ("mov.b32 a, - ", ""),
        ("mov.b32 a, !", ""),
    ] {
        let (first, more) = match open.rsplit_once(' ') {
            Some((first, "")) => (first, "- "),
            Some((first, more)) => (first, more),
            None => ("", open),
        };
        let text = format!("{HEAD}.func f {{ {first} {} 1 {close}", more.repeat(deep));
        let error = parse(&text).expect_err(open);
        assert_eq!(error.kind, ParseErrorKind::Nesting, "{open}");
    }
    let error = parse(&format!("{HEAD}.global .u32 a = {}", "{".repeat(deep))).expect_err("deep initialiser");
    assert_eq!(error.kind, ParseErrorKind::Nesting);
    let levels = MAX_NESTING as usize - 1;
    let blocks = format!("{HEAD}.func f {{ {}{} }}", "{".repeat(levels), "}".repeat(levels));
    assert!(parse(&blocks).is_ok());
}

#[test]
fn a_nul_ends_the_text() {
    let text = format!("{HEAD}.global .u32 a;\0\0 not PTX at all");
    assert_eq!(parse(&text).expect("reads to the NUL").items.len(), 1);
    let windows = ODD.replace('\n', "\r\n");
    assert_eq!(parse(&windows).expect("CRLF"), odd());
}
