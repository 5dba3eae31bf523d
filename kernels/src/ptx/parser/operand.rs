//! Operands of instructions.

use super::{Parse, Parser};
use crate::ptx::ast::Operand;
use crate::ptx::constant;
use crate::ptx::lexer::Kind;

impl Parser<'_> {
    /// One operand at the top level of an instruction; in a `call`, a parenthesis there is an argument list
    /// unless it is a cast.
    pub(super) fn operand(&mut self, call: bool) -> Parse<Operand> {
        if call && self.eat("(")? {
            if self.token.kind == Kind::Dotted {
                let cast = self.parenthesis()?;
                return Ok(Operand::Constant(self.constant_from(cast)?));
            }
            return Ok(Operand::List(self.nested(|this| this.list(")", Self::inner_operand))?));
        }
        self.inner_operand()
    }

    fn inner_operand(&mut self) -> Parse<Operand> {
        let first = self.nested(Self::primary)?;
        let pairable = matches!(first, Operand::Ident(_) | Operand::Sink | Operand::Vector(_));
        if pairable && self.eat("|")? {
            let second = self.nested(Self::primary)?;
            return Ok(Operand::Pair(Box::new(first), Box::new(second)));
        }
        Ok(first)
    }

    fn primary(&mut self) -> Parse<Operand> {
        if self.token.kind == Kind::Ident {
            let name = self.name()?;
            if name == "_" {
                return Ok(Operand::Sink);
            }
            if self.token.is("+") || self.token.is("-") {
                return Ok(Operand::Offset { base: name, offset: self.offset()? });
            }
            return Ok(Operand::Ident(name));
        }
        if self.eat("{")? {
            return Ok(Operand::Vector(self.list("}", Self::inner_operand)?));
        }
        if self.eat("[")? {
            return self.bracket();
        }
        if self.token.is("!") {
            return self.negation();
        }
        if self.at_constant() {
            return Ok(Operand::Constant(self.constant()?));
        }
        self.unexpected("an operand")
    }

    /// An identifier with its parts: `%tid.x`, `%v.y`, `%r1.b0`.
    fn name(&mut self) -> Parse<String> {
        let mut name = self.bump()?.text.to_owned();
        while self.token.kind == Kind::Dotted {
            name.push_str(self.bump()?.text);
        }
        Ok(name)
    }

    /// `!%p` negates a register, `!0` is a constant.
    fn negation(&mut self) -> Parse<Operand> {
        let span = self.here();
        self.bump()?;
        if self.token.kind == Kind::Ident {
            return Ok(Operand::Not(self.name()?));
        }
        let operand = self.nested(Self::unary)?;
        let negated = constant::unary("!", operand).map_err(|kind| kind.at(span))?;
        Ok(Operand::Constant(self.constant_from(negated)?))
    }

    /// The signed constant behind a base: `+8`, `-4`, `+-4`.
    pub(super) fn offset(&mut self) -> Parse<i64> {
        Ok(self.int_expression()?.value.cast_signed())
    }

    /// What follows a `[`: an address, or a list of operands as textures and bulk copies take.
    fn bracket(&mut self) -> Parse<Operand> {
        let mut items = self.list("]", Self::inner_operand)?;
        if items.len() != 1 {
            return Ok(Operand::Bracket(items));
        }
        Ok(match items.remove(0) {
            Operand::Offset { base, offset } => {
                Operand::Address { base: Box::new(Operand::Ident(base)), offset }
            }
            base @ (Operand::Ident(_) | Operand::Constant(_)) => {
                Operand::Address { base: Box::new(base), offset: 0 }
            }
            other => Operand::Bracket(vec![other]),
        })
    }
}
