//! The tree back to text: `Display` for every node. One statement to a line, numbers in exact notation (`0f`, `0d`),
//! so that what is printed reads back to the same tree.

use std::fmt::{self, Display, Formatter};

use super::ast::{
    Constant, Directive, Function, Initializer, Instruction, Item, Linkage, Module, Operand, Statement,
    Variable,
};

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (major, minor) = self.version;
        writeln!(f, ".version {major}.{minor}")?;
        writeln!(f, ".target {}", Separated(&self.target, ", "))?;
        writeln!(f, ".address_size {}", self.address_size)?;
        for item in &self.items {
            match item {
                Item::Variable(variable) => writeln!(f, "{variable};")?,
                Item::Function(function) => writeln!(f, "\n{function}")?,
                Item::Directive(directive) => writeln!(f, "{directive}")?,
            }
        }
        Ok(())
    }
}

/// Things with something between them.
struct Separated<'a, T>(&'a [T], &'static str);

impl<T: Display> Display for Separated<'_, T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        for (index, item) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(self.1)?;
            }
            item.fmt(f)?;
        }
        Ok(())
    }
}

fn linkage(linkage: Linkage, f: &mut Formatter<'_>) -> fmt::Result {
    match linkage {
        Linkage::Internal => Ok(()),
        _ => write!(f, ".{} ", linkage.word()),
    }
}

impl Display for Directive {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { name, args, .. } = self;
        match name.as_str() {
            // These end where their arguments end.
            "file" | "loc" | "section" => write!(f, ".{name} {args}"),
            "pragma" | "alias" => write!(f, ".{name} {args};"),
            "attribute" => write!(f, ".attribute{args}"),
            _ if args.is_empty() => write!(f, ".{name}"),
            _ => write!(f, ".{name} {args}"),
        }
    }
}

/// Without the `;`: a parameter has none.
impl Display for Variable {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        linkage(self.linkage, f)?;
        write!(f, ".{}", self.space.word())?;
        let pointer = |attribute: &&String| attribute.starts_with(".ptr");
        for attribute in self.attributes.iter().filter(|attribute| !pointer(attribute)) {
            write!(f, " {attribute}")?;
        }
        if let Some(align) = self.align {
            write!(f, " .align {align}")?;
        }
        if self.vector != 1 {
            write!(f, " .v{}", self.vector)?;
        }
        write!(f, " .{}", self.ty.word())?;
        for attribute in self.attributes.iter().filter(pointer) {
            write!(f, " {attribute}")?;
        }
        write!(f, " {}", self.name)?;
        if let Some(count) = self.count {
            write!(f, "<{count}>")?;
        }
        for dim in &self.dims {
            match dim {
                Some(size) => write!(f, "[{size}]")?,
                None => f.write_str("[]")?,
            }
        }
        match &self.init {
            Some(init) => write!(f, " = {init}"),
            None => Ok(()),
        }
    }
}

impl Display for Initializer {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(items) => write!(f, "{{{}}}", Separated(items, ", ")),
            Self::Value(constant) => constant.fmt(f),
            Self::Address { symbol, offset, generic, mask } => {
                if let Some(mask) = mask {
                    write!(f, "{mask:#X}(")?;
                }
                match generic {
                    true => write!(f, "generic({symbol})")?,
                    false => f.write_str(symbol)?,
                }
                if *offset != 0 {
                    write!(f, "+{offset}")?;
                }
                if mask.is_some() { f.write_str(")") } else { Ok(()) }
            }
        }
    }
}

impl Display for Constant {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Int { value, unsigned: true } => write!(f, "{value}U"),
            Self::Int { value, unsigned: false } => match value.cast_signed() {
                // The magnitude alone would read as unsigned.
                i64::MIN => write!(f, "(.s64){value:#X}"),
                value => value.fmt(f),
            },
            Self::F32(bits) => write!(f, "0f{bits:08X}"),
            Self::F64(bits) => write!(f, "0d{bits:016X}"),
        }
    }
}

impl Display for Function {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        linkage(self.linkage, f)?;
        f.write_str(if self.entry { ".entry" } else { ".func" })?;
        let before = |directive: &&Directive| directive.name == "attribute";
        for directive in self.directives.iter().filter(before) {
            write!(f, " {directive}")?;
        }
        if !self.returns.is_empty() {
            write!(f, " ({})", Separated(&self.returns, ", "))?;
        }
        write!(f, " {}(", self.name)?;
        if !self.params.is_empty() {
            write!(f, "\n    {}\n", Separated(&self.params, ",\n    "))?;
        }
        f.write_str(")")?;
        for directive in self.directives.iter().filter(|directive| !before(directive)) {
            write!(f, "\n{directive}")?;
        }
        let Some(body) = &self.body else { return f.write_str(";") };
        f.write_str("\n{\n")?;
        statements(body, 1, f)?;
        f.write_str("}")
    }
}

/// Statements, one to a line; labels stand at the margin of their block.
fn statements(body: &[Statement], level: usize, f: &mut Formatter<'_>) -> fmt::Result {
    for statement in body {
        let level = if matches!(statement, Statement::Label(..)) { level - 1 } else { level };
        for _ in 0..level {
            f.write_str("    ")?;
        }
        match statement {
            Statement::Block(inner) => {
                f.write_str("{\n")?;
                statements(inner, level + 1, f)?;
                writeln!(f, "{:width$}}}", "", width = level * 4)?;
            }
            other => writeln!(f, "{other}")?,
        }
    }
    Ok(())
}

impl Display for Statement {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Label(label, _) => write!(f, "{label}:"),
            Self::Variable(variable) => write!(f, "{variable};"),
            Self::Instruction(instruction) => instruction.fmt(f),
            Self::Block(inner) => {
                f.write_str("{\n")?;
                statements(inner, 1, f)?;
                f.write_str("}")
            }
            Self::Directive(directive) => directive.fmt(f),
            Self::BranchTargets { label, targets, .. } => {
                write!(f, "{label}: .branchtargets {};", Separated(targets, ", "))
            }
            Self::CallTargets { label, targets, .. } => {
                write!(f, "{label}: .calltargets {};", Separated(targets, ", "))
            }
            Self::CallPrototype { label, returns, params, noreturn, directives, .. } => {
                write!(f, "{label}: .callprototype")?;
                if !returns.is_empty() {
                    write!(f, " ({})", Separated(returns, ", "))?;
                }
                write!(f, " _ ({})", Separated(params, ", "))?;
                f.write_str(if *noreturn { " .noreturn" } else { "" })?;
                directives.iter().try_for_each(|directive| write!(f, " {directive}"))?;
                f.write_str(";")
            }
        }
    }
}

impl Display for Instruction {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(guard) = &self.guard {
            write!(f, "@{}{} ", if guard.negated { "!" } else { "" }, guard.register)?;
        }
        f.write_str(&self.opcode)?;
        for modifier in &self.modifiers {
            write!(f, ".{modifier}")?;
        }
        if !self.operands.is_empty() {
            write!(f, " {}", Separated(&self.operands, ", "))?;
        }
        f.write_str(";")
    }
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ident(name) => f.write_str(name),
            Self::Constant(constant) => constant.fmt(f),
            Self::Not(name) => write!(f, "!{name}"),
            // The assembler takes `+-4` and not `-4`.
            Self::Address { base, offset: 0 } => write!(f, "[{base}]"),
            Self::Address { base, offset } => write!(f, "[{base}+{offset}]"),
            Self::Offset { base, offset } => write!(f, "{base}+{offset}"),
            Self::Vector(items) => write!(f, "{{{}}}", Separated(items, ", ")),
            Self::Pair(first, second) => write!(f, "{first}|{second}"),
            Self::List(items) => write!(f, "({})", Separated(items, ", ")),
            Self::Sink => f.write_str("_"),
            Self::Bracket(items) => write!(f, "[{}]", Separated(items, ", ")),
        }
    }
}
