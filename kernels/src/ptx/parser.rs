//! Tokens to the tree: recursive descent with one token of lookahead. This file owns the cursor and the module level;
//! its children own declarations, statements, operands and constant expressions.

mod declaration;
mod expression;
mod operand;
mod statement;

use super::ast::{Directive, Item, Linkage, Module, Space, Span};
use super::error::{ParseError, ParseErrorKind};
use super::lexer::{Kind, Lexer, Token};

/// Deepest nesting of blocks, vectors, initialisers and parentheses that is read. Compilers stay below ten; the
/// bound keeps hostile text from overflowing the stack of the thread that loads it.
pub const MAX_NESTING: u32 = 64;

type Parse<T> = Result<T, ParseError>;

/// Reads one translation unit. The text ends at its first NUL, if it has one.
pub fn parse(text: &str) -> Result<Module, ParseError> {
    Parser::new(text)?.module()
}

#[derive(Debug)]
struct Parser<'t> {
    lexer: Lexer<'t>,
    token: Token<'t>,
    depth: u32,
}

impl<'t> Parser<'t> {
    fn new(text: &'t str) -> Parse<Self> {
        let mut lexer = Lexer::new(text);
        let token = lexer.next()?;
        Ok(Self { lexer, token, depth: 0 })
    }

    /// Takes the current token.
    fn bump(&mut self) -> Parse<Token<'t>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.token, next))
    }

    fn unexpected<T>(&self, expected: &'static str) -> Parse<T> {
        let found = self.token.quote();
        Err(ParseErrorKind::Unexpected { expected, found }.at(self.token.span))
    }

    /// Takes the punctuation if it comes next.
    fn eat(&mut self, punct: &str) -> Parse<bool> {
        let found = self.token.is(punct);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn expect(&mut self, punct: &'static str) -> Parse<()> {
        if self.eat(punct)? { Ok(()) } else { self.unexpected(quoted(punct)) }
    }

    fn eat_word(&mut self, word: &str) -> Parse<bool> {
        let found = self.token.word() == Some(word);
        if found {
            self.bump()?;
        }
        Ok(found)
    }

    fn ident(&mut self, expected: &'static str) -> Parse<String> {
        if self.token.kind == Kind::Ident {
            Ok(self.bump()?.text.to_owned())
        } else {
            self.unexpected(expected)
        }
    }

    /// Runs `inner` one level deeper.
    fn nested<T>(&mut self, inner: impl FnOnce(&mut Self) -> Parse<T>) -> Parse<T> {
        if self.depth == MAX_NESTING {
            return Err(ParseErrorKind::Nesting.at(self.token.span));
        }
        self.depth += 1;
        let result = inner(self);
        self.depth -= 1;
        result
    }

    /// `a, b, c` up to `close`, which is taken; nothing between is fine.
    fn list<T>(&mut self, close: &'static str, mut item: impl FnMut(&mut Self) -> Parse<T>) -> Parse<Vec<T>> {
        let mut items = Vec::new();
        if self.eat(close)? {
            return Ok(items);
        }
        loop {
            items.push(item(self)?);
            if !self.eat(",")? {
                self.expect(close)?;
                return Ok(items);
            }
        }
    }

    fn module(mut self) -> Parse<Module> {
        if !self.eat_word("version")? {
            return self.unexpected("`.version`");
        }
        let version = self.version()?;
        if !self.eat_word("target")? {
            return self.unexpected("`.target`");
        }
        let mut module = Module { version, target: self.targets()?, address_size: 64, items: Vec::new() };
        while self.token.kind != Kind::End {
            self.item(&mut module)?;
        }
        Ok(module)
    }

    fn version(&mut self) -> Parse<(u32, u32)> {
        let (major, minor) = match self.token.kind {
            Kind::F64(_) => self.token.text.split_once('.').unwrap_or_default(),
            _ => return self.unexpected("a version such as 8.3"),
        };
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => {
                self.bump()?;
                Ok((major, minor))
            }
            _ => self.unexpected("a version such as 8.3"),
        }
    }

    fn targets(&mut self) -> Parse<Vec<String>> {
        let mut targets = Vec::new();
        loop {
            targets.push(self.ident("a target")?);
            if !self.eat(",")? {
                return Ok(targets);
            }
        }
    }

    fn item(&mut self, module: &mut Module) -> Parse<()> {
        if self.eat(";")? {
            return Ok(());
        }
        let span = self.token.span;
        match self.token.word() {
            Some("address_size") => {
                self.bump()?;
                module.address_size = match self.token.kind {
                    Kind::Int { value: 32, .. } => 32,
                    Kind::Int { value: 64, .. } => 64,
                    _ => return self.unexpected("32 or 64"),
                };
                self.bump()?;
            }
            Some("file" | "loc" | "section" | "pragma" | "alias") => {
                let directive = self.directive()?;
                module.items.push(Item::Directive(directive));
            }
            _ => {
                let linkage = self.linkage()?;
                match self.token.word() {
                    Some(word @ ("entry" | "func")) => {
                        self.bump()?;
                        let function = self.function(linkage, word == "entry", span)?;
                        module.items.push(Item::Function(function));
                    }
                    Some(word) if Space::from_word(word).is_some() => {
                        self.variables(linkage, span, &mut |variable| {
                            module.items.push(Item::Variable(variable));
                        })?;
                    }
                    _ => return self.unexpected("a directive, a variable or a function"),
                }
            }
        }
        Ok(())
    }

    fn linkage(&mut self) -> Parse<Linkage> {
        let mut linkage = Linkage::Internal;
        while let Some(found) = self.token.word().and_then(Linkage::from_word) {
            linkage = found;
            self.bump()?;
        }
        Ok(linkage)
    }

    /// The directives that are kept as text. Each has its own end: `;`, a brace, or its last argument.
    fn directive(&mut self) -> Parse<Directive> {
        let span = self.token.span;
        let name = self.bump()?.text.trim_start_matches('.').to_owned();
        let mut args = Words::default();
        match name.as_str() {
            "section" => self.section(&mut args)?,
            "file" => self.file(&mut args)?,
            "loc" => self.loc(&mut args)?,
            _ => {
                while !self.token.is(";") {
                    self.take_into(&mut args, "`;`")?;
                }
                self.bump()?;
            }
        }
        Ok(Directive { name, args: args.0, span })
    }

    fn section(&mut self, args: &mut Words) -> Parse<()> {
        let mut open = 0_u64;
        loop {
            if self.token.is("{") {
                open += 1;
            } else if self.token.is("}") {
                open = match open.checked_sub(1) {
                    Some(open) => open,
                    None => return self.unexpected("`{`"),
                };
                if open == 0 {
                    return self.take_into(args, "`}`");
                }
            }
            self.take_into(args, "`}`")?;
        }
    }

    /// `.file 1 "a.cu", 1234, 567`: index, name, and optionally time and size.
    fn file(&mut self, args: &mut Words) -> Parse<()> {
        self.int_into(args)?;
        if self.token.kind != Kind::Text {
            return self.unexpected("a file name");
        }
        self.take_into(args, "a file name")?;
        while self.token.is(",") {
            self.take_into(args, "`,`")?;
            self.int_into(args)?;
        }
        Ok(())
    }

    /// `.loc 1 8 3, function_name $L__info_string0+4, inlined_at 1 20 5`.
    fn loc(&mut self, args: &mut Words) -> Parse<()> {
        for _ in 0..3 {
            self.int_into(args)?;
        }
        while self.token.is(",") {
            self.take_into(args, "`,`")?;
            match self.token.text {
                "function_name" => {
                    self.take_into(args, "`function_name`")?;
                    args.push(&self.ident("a label")?);
                    if self.token.is("+") {
                        self.take_into(args, "`+`")?;
                        self.int_into(args)?;
                    }
                }
                "inlined_at" => {
                    self.take_into(args, "`inlined_at`")?;
                    for _ in 0..3 {
                        self.int_into(args)?;
                    }
                }
                _ => return self.unexpected("`function_name` or `inlined_at`"),
            }
        }
        Ok(())
    }

    fn int_into(&mut self, args: &mut Words) -> Parse<()> {
        match self.token.kind {
            Kind::Int { .. } => self.take_into(args, "an integer"),
            _ => self.unexpected("an integer"),
        }
    }

    fn take_into(&mut self, args: &mut Words, expected: &'static str) -> Parse<()> {
        if self.token.kind == Kind::End {
            return self.unexpected(expected);
        }
        args.push(self.bump()?.text);
        Ok(())
    }

    /// An integer constant expression that fits `T`.
    fn integer<T: TryFrom<u64>>(&mut self, what: &'static str) -> Parse<T> {
        let span = self.token.span;
        let range = || ParseErrorKind::Range { what }.at(span);
        let value = self.int_expression()?.filter_unsigned().ok_or_else(range)?;
        T::try_from(value).map_err(|_| range())
    }

    fn alignment(&mut self) -> Parse<u32> {
        let span = self.token.span;
        let align: u32 = self.integer("the alignment")?;
        if align.is_power_of_two() {
            Ok(align)
        } else {
            Err(ParseErrorKind::Range { what: "the alignment" }.at(span))
        }
    }

    fn here(&self) -> Span {
        self.token.span
    }
}

/// Tokens joined by one blank.
#[derive(Debug, Default)]
struct Words(String);

impl Words {
    fn push(&mut self, text: &str) {
        if !self.0.is_empty() {
            self.0.push(' ');
        }
        self.0.push_str(text);
    }
}

fn quoted(punct: &'static str) -> &'static str {
    match punct {
        "{" => "`{`",
        "}" => "`}`",
        "[" => "`[`",
        "]" => "`]`",
        "(" => "`(`",
        ")" => "`)`",
        ">" => "`,` or `>`",
        ":" => "`:`",
        ";" => "`,` or `;`",
        _ => "punctuation",
    }
}
