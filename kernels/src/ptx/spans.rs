//! Trees without positions, so that two texts of one program compare equal.

use super::ast::{Function, Item, Module, Span, Statement, Variable};

impl Module {
    /// Sets every span to its default.
    pub fn erase_spans(&mut self) {
        for item in &mut self.items {
            match item {
                Item::Variable(variable) => erase_variables(std::slice::from_mut(variable)),
                Item::Function(function) => erase_function(function),
                Item::Directive(directive) => directive.span = Span::default(),
            }
        }
    }
}

fn erase_function(function: &mut Function) {
    function.span = Span::default();
    erase_variables(&mut function.returns);
    erase_variables(&mut function.params);
    for directive in &mut function.directives {
        directive.span = Span::default();
    }
    erase_statements(function.body.as_deref_mut().unwrap_or_default());
}

fn erase_variables(variables: &mut [Variable]) {
    for variable in variables {
        variable.span = Span::default();
    }
}

fn erase_statements(statements: &mut [Statement]) {
    for statement in statements {
        match statement {
            Statement::Label(_, span)
            | Statement::BranchTargets { span, .. }
            | Statement::CallTargets { span, .. } => *span = Span::default(),
            Statement::Variable(variable) => variable.span = Span::default(),
            Statement::Instruction(instruction) => instruction.span = Span::default(),
            Statement::Block(inner) => erase_statements(inner),
            Statement::Directive(directive) => directive.span = Span::default(),
            Statement::CallPrototype { returns, params, directives, span, .. } => {
                for directive in directives {
                    directive.span = Span::default();
                }
                *span = Span::default();
                erase_variables(returns);
                erase_variables(params);
            }
        }
    }
}
