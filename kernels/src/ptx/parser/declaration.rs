//! Variables in every space, parameters, initialisers, and the heads of functions.

use super::{Parse, Parser, Words};
use crate::ptx::ast::{Constant, Directive, Function, Initializer, Linkage, Space, Span, Type, Variable};
use crate::ptx::error::ParseErrorKind;
use crate::ptx::lexer::{Kind, Token};

/// Longest `.attribute(…)` in bytes, and most of them on one variable. Each name of a declaration gets a copy, so
/// without a bound a short text could ask for memory quadratic in its length.
const MAX_ATTRIBUTE_BYTES: usize = 256;
const MAX_ATTRIBUTES: usize = 8;

impl Parser<'_> {
    /// `.space type a, b<4>, c[2] = {1, 2};` gives one variable per name.
    pub(super) fn variables(
        &mut self,
        linkage: Linkage,
        span: Span,
        give: &mut dyn FnMut(Variable),
    ) -> Parse<()> {
        let head = self.variable_head(linkage, span)?;
        loop {
            let mut variable = head.clone();
            variable.name = self.ident("a name")?;
            if self.eat("<")? {
                variable.count = Some(self.register_count()?);
            }
            self.dimensions(&mut variable)?;
            if self.eat("=")? {
                variable.init = Some(self.initializer()?);
            }
            give(variable);
            if !self.eat(",")? {
                return self.expect(";");
            }
        }
    }

    /// The `10` of `%r<10>`; a plain number, since `>` would read on as an operator.
    fn register_count(&mut self) -> Parse<u32> {
        let Kind::Int { value, .. } = self.token.kind else { return self.unexpected("a register count") };
        let count = u32::try_from(value)
            .map_err(|_| ParseErrorKind::Range { what: "the register count" }.at(self.here()))?;
        self.bump()?;
        self.expect(">")?;
        Ok(count)
    }

    /// Everything before the name. `.attribute(…)` comes before `.ptr` in `attributes`, however written.
    fn variable_head(&mut self, linkage: Linkage, span: Span) -> Parse<Variable> {
        let Some(space) = self.token.word().and_then(Space::from_word) else {
            return self.unexpected("a state space");
        };
        self.bump()?;
        let (mut align, mut vector, mut ty) = (None, 1, None);
        let (mut attributes, mut pointer) = (Vec::new(), None);
        while let Some(word) = self.token.word() {
            if let Some(found) = Type::from_word(word) {
                ty = Some(found);
                self.bump()?;
                continue;
            }
            match word {
                "align" => {
                    self.bump()?;
                    align = Some(self.alignment()?);
                    continue;
                }
                "v2" => vector = 2,
                "v4" => vector = 4,
                "v8" => vector = 8,
                "attribute" if attributes.len() == MAX_ATTRIBUTES => {
                    return Err(ParseErrorKind::Range { what: "the number of attributes" }.at(self.here()));
                }
                "attribute" => {
                    attributes.push(self.attribute()?);
                    continue;
                }
                "ptr" => {
                    pointer = Some(self.pointer()?);
                    continue;
                }
                _ => return self.unexpected("a type or a name"),
            }
            self.bump()?;
        }
        let Some(ty) = ty else { return self.unexpected("a type") };
        attributes.extend(pointer);
        let (name, dims) = (String::new(), Vec::new());
        Ok(Variable {
            linkage,
            space,
            align,
            vector,
            ty,
            name,
            dims,
            count: None,
            init: None,
            attributes,
            span,
        })
    }

    /// `.attribute(.managed)`, `.attribute(.unified(1, 2))`.
    pub(super) fn attribute(&mut self) -> Parse<String> {
        let mut text = self.bump()?.text.to_owned();
        if !self.token.is("(") {
            return self.unexpected("`(`");
        }
        let mut open = 0_u64;
        let mut tight = true;
        loop {
            let token: Token<'_> = self.token;
            if token.kind == Kind::End {
                return self.unexpected("`)`");
            }
            if text.len() + token.text.len() > MAX_ATTRIBUTE_BYTES {
                return Err(ParseErrorKind::Range { what: "the attribute's length" }.at(token.span));
            }
            let punct = ["(", ")", ","].iter().any(|punct| token.is(punct));
            if !punct && !tight {
                text.push(' ');
            }
            tight = punct;
            text.push_str(token.text);
            self.bump()?;
            if token.is("(") {
                open += 1;
            } else if token.is(")") {
                open -= 1;
                if open == 0 {
                    return Ok(text);
                }
            }
        }
    }

    /// `.ptr .global .align 16`, all parts but the first optional.
    fn pointer(&mut self) -> Parse<String> {
        let mut text = self.bump()?.text.to_owned();
        if let Some(word @ ("const" | "global" | "local" | "shared" | "generic")) = self.token.word() {
            text.push_str(" .");
            text.push_str(word);
            self.bump()?;
        }
        if self.eat_word("align")? {
            text.push_str(&format!(" .align {}", self.alignment()?));
        }
        Ok(text)
    }

    fn dimensions(&mut self, variable: &mut Variable) -> Parse<()> {
        while self.eat("[")? {
            if self.eat("]")? {
                variable.dims.push(None);
                continue;
            }
            variable.dims.push(Some(self.integer("the array size")?));
            self.expect("]")?;
        }
        Ok(())
    }

    pub(super) fn optional_parameters(&mut self) -> Parse<Vec<Variable>> {
        if self.eat("(")? { self.list(")", Self::parameter) } else { Ok(Vec::new()) }
    }

    fn parameter(&mut self) -> Parse<Variable> {
        let span = self.here();
        let mut variable = self.variable_head(Linkage::Internal, span)?;
        variable.name = self.ident("a parameter's name")?;
        self.dimensions(&mut variable)?;
        Ok(variable)
    }

    /// What follows `.entry` or `.func`.
    pub(super) fn function(&mut self, linkage: Linkage, entry: bool, span: Span) -> Parse<Function> {
        let mut directives = Vec::new();
        while self.token.word() == Some("attribute") {
            let span = self.here();
            let text = self.attribute()?;
            let args = text.trim_start_matches(".attribute").to_owned();
            directives.push(Directive { name: "attribute".to_owned(), args, span });
        }
        let returns = if entry { Vec::new() } else { self.optional_parameters()? };
        let name = self.ident("a function's name")?;
        let params = self.optional_parameters()?;
        while self.token.kind == Kind::Dotted {
            let directive = self.function_directive()?;
            directives.push(directive);
        }
        let body = if self.eat(";")? {
            None
        } else {
            self.expect("{")?;
            Some(self.nested(Self::block)?)
        };
        Ok(Function { linkage, entry, name, returns, params, directives, body, span })
    }

    /// `.maxntid 256, 1, 1` ends where the next directive or the body begins; `.pragma "…";` has its own end.
    pub(super) fn function_directive(&mut self) -> Parse<Directive> {
        match self.token.word() {
            Some("pragma") => return self.directive(),
            Some("attribute") => return self.unexpected("`.attribute` before the function's name"),
            // The next item begins here: the function lacks its end.
            Some("alias" | "file" | "loc" | "section" | "entry" | "func") => {
                return self.unexpected("`{` or `;`");
            }
            Some(word) if Space::from_word(word).is_some() || Linkage::from_word(word).is_some() => {
                return self.unexpected("`{` or `;`");
            }
            _ => {}
        }
        let span = self.here();
        let name = self.bump()?.text.trim_start_matches('.').to_owned();
        let mut args = Words::default();
        while self.token.kind != Kind::Dotted && !self.token.is("{") && !self.token.is(";") {
            self.take_into(&mut args, "`{` or `;`")?;
        }
        Ok(Directive { name, args: args.0, span })
    }

    fn initializer(&mut self) -> Parse<Initializer> {
        if self.eat("{")? {
            return Ok(Initializer::List(self.nested(|this| this.list("}", Self::initializer))?));
        }
        if self.token.kind == Kind::Ident {
            return self.address(None);
        }
        let span = self.here();
        let value = self.constant()?;
        if !self.token.is("(") {
            return Ok(Initializer::Value(value));
        }
        let Constant::Int { value: mask, .. } = value else {
            return Err(ParseErrorKind::Range { what: "the mask" }.at(span));
        };
        self.bump()?;
        let masked = self.address(Some(mask))?;
        self.expect(")")?;
        Ok(masked)
    }

    /// `symbol+8`, `generic(symbol)+8`, `generic(symbol+8)`.
    fn address(&mut self, mask: Option<u64>) -> Parse<Initializer> {
        let mut symbol = self.ident("a symbol")?;
        let generic = symbol == "generic" && self.eat("(")?;
        let mut offset = 0;
        if generic {
            symbol = self.ident("a symbol")?;
            offset = self.optional_offset()?;
            self.expect(")")?;
        }
        offset = self.optional_offset()?.wrapping_add(offset);
        Ok(Initializer::Address { symbol, offset, generic, mask })
    }

    fn optional_offset(&mut self) -> Parse<i64> {
        if self.token.is("+") || self.token.is("-") { self.offset() } else { Ok(0) }
    }
}
