//! How many registers a function needs: the most that hold a value at the same time, in 32-bit units.
//!
//! Each virtual register is taken to hold a value from the first place that names it to the last, and through the whole
//! of every loop that it enters from outside. That is what a compiler allocates that neither spills nor reorders.
//! Predicates have a file of their own. Time and memory are near linear in the text, whatever the text.

use lightos_kernels::ptx::ast::{self, Instruction, Operand, Space, Statement, Type, Variable};
use rustc_hash::FxHashMap;

use super::words::type_bytes;

/// Loop ends that one register's range is followed to; beyond, it counts as live to the function's end.
const MOST_STEPS: u32 = 64;

/// The most 32-bit registers in use at once.
pub fn registers(function: &ast::Function) -> u32 {
    let mut walk = Walk { scopes: vec![Scope::default()], ..Walk::default() };
    let registers = |list: &'_ [Variable]| list.iter().any(|v| v.space == Space::Register);
    if registers(&function.params) || registers(&function.returns) {
        function.params.iter().chain(&function.returns).for_each(|v| walk.declare(v));
    }
    walk.body(function.body.as_deref().unwrap_or_default());
    walk.most()
}

/// First and last position, and size in 32-bit units.
#[derive(Clone, Copy)]
struct Range {
    first: u32,
    last: u32,
    units: u32,
}

#[derive(Default)]
struct Scope<'a> {
    /// Declaration number and units, by name, and by the prefix of `%r<10>`.
    names: FxHashMap<&'a str, (u32, u32)>,
    prefixes: FxHashMap<&'a str, (u32, u32)>,
    labels: FxHashMap<&'a str, u32>,
    targets: FxHashMap<&'a str, &'a [String]>,
}

#[derive(Default)]
struct Walk<'a> {
    scopes: Vec<Scope<'a>>,
    declarations: u32,
    at: u32,
    /// By declaration and number within it.
    index: FxHashMap<(u32, u32), usize>,
    ranges: Vec<Range>,
    /// First and last position of each loop.
    loops: Vec<(u32, u32)>,
}

impl<'a> Walk<'a> {
    fn innermost(&mut self) -> &mut Scope<'a> {
        let last = self.scopes.len() - 1;
        &mut self.scopes[last]
    }

    fn declare(&mut self, variable: &'a Variable) {
        let units = if variable.ty == Type::Pred { 0 } else { type_bytes(variable.ty).div_ceil(4) };
        self.declarations += 1;
        let entry = (self.declarations, units);
        let scope = self.innermost();
        match variable.count {
            Some(_) => scope.prefixes.insert(&variable.name, entry),
            None => scope.names.insert(&variable.name, entry),
        };
    }

    fn body(&mut self, body: &'a [Statement]) {
        for statement in body {
            match statement {
                Statement::BranchTargets { label, targets, .. } => {
                    self.innermost().targets.insert(label, targets);
                }
                Statement::Variable(variable) if variable.space == Space::Register => self.declare(variable),
                _ => {}
            }
        }
        for statement in body {
            match statement {
                Statement::Label(name, _) => {
                    let at = self.at;
                    self.innermost().labels.insert(name, at);
                }
                Statement::Instruction(instruction) => self.instruction(instruction),
                Statement::Block(inner) => {
                    self.scopes.push(Scope::default());
                    self.body(inner);
                    self.scopes.pop();
                }
                _ => {}
            }
        }
    }

    fn instruction(&mut self, i: &'a Instruction) {
        self.at += 1;
        for operand in &i.operands {
            self.operand(operand);
        }
        if let "bra" | "brx" = i.opcode.as_str()
            && let Some(Operand::Ident(name)) = i.operands.last()
        {
            let targets =
                self.scopes.iter().rev().find_map(|scope| scope.targets.get(name.as_str()).copied());
            match targets {
                Some(targets) => targets.iter().for_each(|target| self.jump(target)),
                None => self.jump(name),
            }
        }
    }

    /// A jump to a label that has been seen closes a loop.
    fn jump(&mut self, label: &str) {
        let start = self.scopes.iter().rev().find_map(|scope| scope.labels.get(label).copied());
        self.loops.extend(start.map(|start| (start, self.at)));
    }

    fn operand(&mut self, operand: &'a Operand) {
        match operand {
            Operand::Ident(name) | Operand::Not(name) | Operand::Offset { base: name, .. } => self.name(name),
            Operand::Address { base, .. } => self.operand(base),
            Operand::Vector(list) | Operand::List(list) | Operand::Bracket(list) => {
                list.iter().for_each(|inner| self.operand(inner));
            }
            Operand::Pair(first, second) => {
                self.operand(first);
                self.operand(second);
            }
            Operand::Constant(_) | Operand::Sink => {}
        }
    }

    fn name(&mut self, name: &str) {
        let prefix = name.trim_end_matches(|c: char| c.is_ascii_digit());
        let found = self.scopes.iter().rev().find_map(|scope| match scope.names.get(name) {
            Some(&(declaration, units)) => Some((declaration, 0, units)),
            None => {
                let &(declaration, units) = scope.prefixes.get(prefix)?;
                Some((declaration, name[prefix.len()..].parse::<u32>().ok()?, units))
            }
        });
        let Some((declaration, number, units)) = found else { return };
        let fresh = Range { first: self.at, last: self.at, units };
        let index = *self.index.entry((declaration, number)).or_insert_with(|| {
            self.ranges.push(fresh);
            self.ranges.len() - 1
        });
        self.ranges[index].last = self.at;
    }

    fn most(mut self) -> u32 {
        let ends = Furthest::new(&self.loops, self.at + 1);
        let mut change = vec![0i64; self.at as usize + 2];
        for range in &mut self.ranges {
            let mut steps = 0;
            while let Some(end) = ends.between(range.first, range.last).filter(|end| *end > range.last) {
                steps += 1;
                range.last = if steps > MOST_STEPS { self.at } else { end };
            }
            change[range.first as usize] += i64::from(range.units);
            change[range.last as usize] -= i64::from(range.units);
        }
        let mut live = 0;
        let most = change.into_iter().map(|change| {
            live += change;
            live
        });
        most.max().unwrap_or(0).try_into().unwrap_or(u32::MAX)
    }
}

/// The furthest end of the loops that start in a range of positions: a segment tree.
struct Furthest {
    tree: Vec<u32>,
    leaves: usize,
}

impl Furthest {
    fn new(loops: &[(u32, u32)], positions: u32) -> Furthest {
        let leaves = (positions as usize).next_power_of_two();
        let mut tree = vec![0; leaves * 2];
        for &(start, end) in loops {
            let leaf = &mut tree[leaves + start as usize];
            *leaf = end.max(*leaf);
        }
        for node in (1..leaves).rev() {
            tree[node] = tree[node * 2].max(tree[node * 2 + 1]);
        }
        Furthest { tree, leaves }
    }

    /// Of the loops that start at `first` or later, and before `last`.
    fn between(&self, first: u32, last: u32) -> Option<u32> {
        let (mut low, mut high) = (self.leaves + first as usize, self.leaves + last as usize);
        let mut most = 0;
        while low < high {
            if low & 1 == 1 {
                most = self.tree[low].max(most);
                low += 1;
            }
            if high & 1 == 1 {
                high -= 1;
                most = self.tree[high].max(most);
            }
            (low, high) = (low / 2, high / 2);
        }
        (most > 0).then_some(most)
    }
}

#[cfg(test)]
mod tests {
    use super::registers;
    use lightos_kernels::ptx::ast::Item;

    fn of(body: &str) -> u32 {
        let text = format!(
            ".version 8.0\n.target sm_80\n.address_size 64\n.entry k() {{ .reg .pred %p<4>; .reg .b32 %r<99>; .reg .b64 %rd<9>; {body} }}"
        );
        let module = lightos_kernels::ptx::parse(&text).expect("parses");
        let Some(Item::Function(function)) = module.items.first() else { panic!("no function") };
        registers(function)
    }

    #[test]
    fn a_chain_needs_one_and_a_sum_of_four_needs_four() {
        let chain: String = (1..50).map(|n| format!("add.u32 %r{n}, %r{}, 1;", n - 1)).collect();
        assert_eq!(of(&format!("mov.u32 %r0, 1; {chain} ret;")), 1);
        let define: String = (0..4).map(|n| format!("mov.u32 %r{n}, {n};")).collect();
        assert_eq!(
            of(&format!("{define} add.u32 %r0, %r0, %r1; add.u32 %r2, %r2, %r3; add.u32 %r0, %r0, %r2;")),
            4
        );
        assert_eq!(
            of("mov.u64 %rd1, 1; mov.u32 %r1, 2; st.global.u32 [%rd1], %r1; setp.eq.u32 %p1, 1, 2;"),
            3
        );
    }

    #[test]
    fn what_a_loop_uses_lives_through_it() {
        // %r1 is read at the loop's start only, and still there at the next turn, beside %r2 to %r4.
        let body = "mov.u32 %r1, 1; L: add.u32 %r2, %r1, 1; add.u32 %r3, %r2, 1; add.u32 %r4, %r3, %r2;
            setp.ne.u32 %p1, %r4, %r3; @%p1 bra L; ret;";
        assert_eq!(of(body), 3);
        assert_eq!(of(&body.replace("bra L", "bra M; M:")), 2);
    }

    #[test]
    fn a_scope_has_registers_of_its_own() {
        assert_eq!(
            of(
                "{ .reg .b64 t; mov.u64 t, 1; mov.u64 %rd1, t; } { .reg .b64 t; mov.u64 t, 2; mov.u64 %rd1, t; }"
            ),
            4
        );
    }
}
