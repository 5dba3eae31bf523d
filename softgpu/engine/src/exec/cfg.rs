//! Control flow of a decoded function: branch targets, and where divergent lanes meet again.
//!
//! Lanes reconverge at the immediate post-dominator of the branch that parted them (Cooper, Harvey and Kennedy,
//! "A Simple, Fast Dominance Algorithm", on the reversed graph). A guarded `ret` or `exit`, or a branch to a block that
//! does nothing else, only takes lanes away, so it is no edge: the others still meet where they would have met.
//!
//! While decoding, a branch keeps label numbers in `extra` (or, for `brx`, in the side table); [`link`] turns them into
//! program counters and stores the reconvergence point in `d`.

use super::decode::{Decoded, invalid};
use super::op::{END, Function, Kind, NONE, Op};

const UNKNOWN: u32 = u32::MAX;

/// Resolves labels and computes reconvergence points.
pub fn link(function: &mut Function, labels: &[u32]) -> Decoded {
    let resolve = |label: u64| match labels.get(label as usize) {
        Some(&pc) if pc != NONE => Ok(pc),
        _ => invalid("branch to a label that is not there"),
    };
    let mut leaders = vec![false; function.ops.len() + 1];
    leaders[0] = true;
    for pc in 0..function.ops.len() {
        let op = function.ops[pc];
        if op.kind == Kind::Branch {
            let target = resolve(op.extra)?;
            function.ops[pc].extra = u64::from(target);
            leaders[target as usize] = true;
        } else if op.kind == Kind::BranchIndexed {
            for entry in op.b..op.b + op.c {
                let target = resolve(u64::from(function.lists[entry as usize]))?;
                function.lists[entry as usize] = target;
                leaders[target as usize] = true;
            }
        }
        if matches!(op.kind, Kind::Branch | Kind::BranchIndexed) || ends(&op) {
            leaders[pc + 1] = true;
        }
    }
    let starts: Vec<u32> = (0..function.ops.len()).filter(|&pc| leaders[pc]).map(|pc| pc as u32).collect();
    let block_of = |pc: u32| starts.partition_point(|&start| start <= pc) as u32 - 1;
    let count = starts.len();
    let exit = count as u32;
    let mut successors: Vec<Vec<u32>> = Vec::with_capacity(count);
    for (index, &start) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(function.ops.len() as u32);
        debug_assert!(start < end);
        let last = &function.ops[end as usize - 1];
        let mut next = Vec::new();
        let mut falls_through = true;
        if last.kind == Kind::Branch {
            next.push(block_of(last.extra as u32));
            falls_through = last.guard != NONE;
        } else if last.kind == Kind::BranchIndexed {
            next.extend(function.lists[last.b as usize..][..last.c as usize].iter().map(|&pc| block_of(pc)));
            falls_through = last.guard != NONE;
        } else if ends(last) {
            falls_through = false;
        }
        if falls_through {
            next.push(if end < function.ops.len() as u32 { index as u32 + 1 } else { exit });
        }
        if next.is_empty() {
            next.push(exit);
        }
        successors.push(next);
    }
    // A block that only returns takes lanes away, as a guarded `ret` does.
    let leaves: Vec<bool> = (0..count)
        .map(|index| {
            let end = starts.get(index + 1).copied().unwrap_or(function.ops.len() as u32);
            let (last, before) =
                (&function.ops[end as usize - 1], &function.ops[starts[index] as usize..end as usize - 1]);
            ends(last) && before.iter().all(|op| op.kind == Kind::Label)
        })
        .collect();
    for next in &mut successors {
        if next.iter().any(|&to| to == exit || !leaves[to as usize]) {
            next.retain(|&to| to == exit || !leaves[to as usize]);
        }
    }
    let meets = post_dominators(&successors, exit);
    for (index, _) in starts.iter().enumerate() {
        let end = starts.get(index + 1).copied().unwrap_or(function.ops.len() as u32);
        let pc = end as usize - 1;
        if matches!(function.ops[pc].kind, Kind::Branch | Kind::BranchIndexed) {
            let block = meets[index];
            let start = if block == UNKNOWN || block == exit { END } else { starts[block as usize] };
            // Only a labelled block can gather lanes; a block entered from one place alone gathers nothing.
            let gathers = start != END && function.ops[start as usize].kind == Kind::Label;
            function.ops[pc].d = if gathers { start } else { END };
        }
    }
    Ok(())
}

/// True for an instruction after which no lane goes on.
fn ends(op: &Op) -> bool {
    op.guard == NONE && op.kind == Kind::End
}

/// The immediate post-dominator of each block, `exit` for the function's end, [`UNKNOWN`] where no way leads there.
fn post_dominators(successors: &[Vec<u32>], exit: u32) -> Vec<u32> {
    let count = successors.len();
    let mut predecessors: Vec<Vec<u32>> = vec![Vec::new(); count + 1];
    for (block, next) in successors.iter().enumerate() {
        for &to in next {
            predecessors[to as usize].push(block as u32);
        }
    }
    // Depth-first order of the reversed graph, from the exit.
    let mut order = Vec::with_capacity(count + 1);
    let mut number = vec![UNKNOWN; count + 1];
    let mut seen = vec![false; count + 1];
    let mut stack = vec![(exit, 0usize)];
    seen[exit as usize] = true;
    while let Some((block, at)) = stack.pop() {
        if let Some(&next) = predecessors[block as usize].get(at) {
            stack.push((block, at + 1));
            if !seen[next as usize] {
                seen[next as usize] = true;
                stack.push((next, 0));
            }
        } else {
            number[block as usize] = order.len() as u32;
            order.push(block);
        }
    }
    let mut meets = vec![UNKNOWN; count + 1];
    meets[exit as usize] = exit;
    let intersect = |meets: &[u32], mut a: u32, mut b: u32| {
        while a != b {
            while number[a as usize] < number[b as usize] {
                a = meets[a as usize];
            }
            while number[b as usize] < number[a as usize] {
                b = meets[b as usize];
            }
        }
        a
    };
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev().skip(1) {
            let known = successors[block as usize].iter().copied().filter(|&s| meets[s as usize] != UNKNOWN);
            let Some(new) = known.reduce(|a, b| intersect(&meets, a, b)) else { continue };
            if meets[block as usize] != new {
                meets[block as usize] = new;
                changed = true;
            }
        }
    }
    meets.truncate(count);
    meets
}

#[cfg(test)]
mod tests {
    use super::{UNKNOWN, post_dominators};

    #[test]
    fn a_diamond_meets_at_its_foot() {
        let meets = post_dominators(&[vec![1, 2], vec![3], vec![3], vec![4]], 4);
        assert_eq!(meets, [3, 3, 3, 4]);
    }

    #[test]
    fn a_loop_meets_behind_its_exit() {
        let meets = post_dominators(&[vec![1], vec![2, 3], vec![1], vec![4]], 4);
        assert_eq!(meets, [1, 3, 1, 4]);
    }

    #[test]
    fn an_endless_loop_meets_nowhere() {
        let meets = post_dominators(&[vec![1, 2], vec![1], vec![3]], 3);
        assert_eq!(meets, [2, UNKNOWN, 3]);
    }
}
