//! Function bodies: labels, blocks, declarations, instructions and the labelled call tables.

use super::{Parse, Parser};
use crate::ptx::ast::{Guard, Instruction, Space, Span, Statement};
use crate::ptx::lexer::{Kind, is_ident_start};

impl Parser<'_> {
    /// Statements up to the closing brace, which is taken; the opening one has been.
    pub(super) fn block(&mut self) -> Parse<Vec<Statement>> {
        let mut statements = Vec::new();
        while !self.eat("}")? {
            self.statement(&mut statements)?;
        }
        Ok(statements)
    }

    fn statement(&mut self, into: &mut Vec<Statement>) -> Parse<()> {
        let span = self.here();
        match self.token.kind {
            Kind::Ident => {
                let name = self.bump()?.text;
                if self.eat(":")? {
                    let statement = self.labelled(name.to_owned(), span)?;
                    into.push(statement);
                } else {
                    into.push(Statement::Instruction(self.instruction(None, name, span)?));
                }
            }
            Kind::Dotted => self.declaration(into)?,
            Kind::Punct if self.token.text == "{" => {
                self.bump()?;
                into.push(Statement::Block(self.nested(Self::block)?));
            }
            Kind::Punct if self.token.text == "@" => {
                self.bump()?;
                let negated = self.eat("!")?;
                let guard = Guard { register: self.ident("a predicate")?, negated };
                if self.token.kind != Kind::Ident {
                    return self.unexpected("an instruction");
                }
                let opcode = self.bump()?.text;
                into.push(Statement::Instruction(self.instruction(Some(guard), opcode, span)?));
            }
            // Inline assembly leaves empty statements behind.
            Kind::Punct if self.token.text == ";" => {
                self.bump()?;
            }
            _ => return self.unexpected("a statement or `}`"),
        }
        Ok(())
    }

    fn declaration(&mut self, into: &mut Vec<Statement>) -> Parse<()> {
        let span = self.here();
        if matches!(self.token.word(), Some("loc" | "file" | "pragma" | "section")) {
            let directive = self.directive()?;
            into.push(Statement::Directive(directive));
            return Ok(());
        }
        let linkage = self.linkage()?;
        match self.token.word().and_then(Space::from_word) {
            Some(_) => {
                self.variables(linkage, span, &mut |variable| into.push(Statement::Variable(variable)))
            }
            None => self.unexpected("a declaration or an instruction"),
        }
    }

    fn labelled(&mut self, label: String, span: Span) -> Parse<Statement> {
        match self.token.word() {
            Some("branchtargets") => {
                self.bump()?;
                let targets = self.list(";", |this| this.ident("a label"))?;
                Ok(Statement::BranchTargets { label, targets, span })
            }
            Some("calltargets") => {
                self.bump()?;
                let targets = self.list(";", |this| this.ident("a function"))?;
                Ok(Statement::CallTargets { label, targets, span })
            }
            Some("callprototype") => {
                self.bump()?;
                let returns = self.optional_parameters()?;
                self.ident("`_`")?;
                let params = self.optional_parameters()?;
                let mut directives = Vec::new();
                while self.token.kind == Kind::Dotted {
                    let directive = self.function_directive()?;
                    directives.push(directive);
                }
                let count = directives.len();
                directives.retain(|directive| directive.name != "noreturn");
                let noreturn = directives.len() < count;
                self.expect(";")?;
                Ok(Statement::CallPrototype { label, returns, params, noreturn, directives, span })
            }
            _ => Ok(Statement::Label(label, span)),
        }
    }

    /// What follows the opcode, up to and with the `;`.
    fn instruction(&mut self, guard: Option<Guard>, opcode: &str, span: Span) -> Parse<Instruction> {
        let word =
            opcode.bytes().next().is_some_and(|byte| is_ident_start(byte) && byte.is_ascii_alphabetic());
        if !word {
            return self.unexpected("`:` after a label");
        }
        let mut modifiers = Vec::new();
        while let Some(word) = self.token.word() {
            modifiers.push(word.to_owned());
            self.bump()?;
        }
        let call = opcode == "call";
        let operands = self.list(";", |this| this.operand(call))?;
        Ok(Instruction { guard, opcode: opcode.to_owned(), modifiers, operands, span })
    }
}
