//! Divergence: the tree of paths that the lanes of one warp follow.
//!
//! A path is a set of lanes with one program counter. Where its lanes part, the path waits at the immediate
//! post-dominator of the branch and its arms become children; a child that arrives there ends, and the parent goes on
//! when its last child has ended. A call is a child too, one frame deeper, that ends by `ret`. Since the arms are
//! independent paths, one that waits at a barrier or spins does not keep the others from running (sm_70 semantics).
//!
//! Invariants: lanes of waiting parents include those of their children, less the lanes that have exited or returned;
//! runnable paths of a warp have disjoint masks; `Warp::path` is the live copy of `Warp::paths[current]`.

use super::lanes::Bases;
use super::op::{END, Flow, Machine, NONE};
use super::warp::Warp;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Free,
    Ready,
    /// For children.
    Waiting,
    /// At block barrier `id`, until its generation differs from `generation`.
    Barrier {
        id: u32,
        generation: u32,
    },
    /// At a `.sync` instruction, for the other lanes of its member mask. `anywhere`: they may come to another such
    /// instruction (`bar.warp.sync`).
    Gather {
        anywhere: bool,
    },
}

#[derive(Clone, Copy, Debug)]
pub struct Path {
    pub state: State,
    pub pc: u32,
    pub mask: u32,
    /// Where this path ends, in the same function; [`END`] for the function's end.
    pub rpc: u32,
    pub function: u32,
    /// Call depth.
    pub depth: u32,
    pub parent: u32,
    /// Children that have not ended.
    pub pending: u32,
    pub base: Bases,
    /// Start of the frame in each lane's local memory.
    pub local: u32,
    /// Bytes of local memory that the function has taken behind its frame (`alloca`).
    pub taken: u32,
    /// Lanes that take part in the instruction this path is held at.
    pub held: u32,
    /// Set when the path resumes the instruction that held it.
    pub resumed: bool,
}

impl Path {
    pub fn root(function: u32, mask: u32) -> Path {
        Path {
            state: State::Ready,
            pc: 0,
            mask,
            rpc: END,
            function,
            depth: 0,
            parent: NONE,
            pending: 0,
            base: Bases::default(),
            local: 0,
            taken: 0,
            held: 0,
            resumed: false,
        }
    }
}

impl Warp {
    pub fn start(&mut self, root: Path) {
        self.paths.clear();
        self.paths.push(root);
        self.enter(0);
    }

    /// Makes `index` the running path.
    pub fn enter(&mut self, index: u32) {
        self.current = index;
        self.path = self.paths[index as usize];
        self.registers.base = self.path.base;
    }

    /// Writes the live copy back.
    pub fn save(&mut self) {
        self.paths[self.current as usize] = self.path;
    }

    fn add(&mut self, path: Path) -> u32 {
        match self.paths.iter().position(|p| p.state == State::Free) {
            Some(free) => {
                self.paths[free] = path;
                free as u32
            }
            None => {
                self.paths.push(path);
                self.paths.len() as u32 - 1
            }
        }
    }

    /// Splits the running path over `arms` (program counter, lanes), to meet again at `rpc`.
    pub fn diverge(&mut self, rpc: u32, arms: impl Iterator<Item = (u32, u32)>) -> Flow {
        let mut arm = self.path;
        arm.rpc = rpc;
        // A path that would end where its arms meet has nothing left to do: its arms take its place.
        let replaced = self.path.rpc == rpc;
        if replaced {
            self.paths[self.current as usize].state = State::Free;
        } else {
            self.path.pc = rpc;
            self.path.state = State::Waiting;
            self.path.pending = 0;
            self.save();
            arm.parent = self.current;
        }
        let mut count = 0;
        let mut next = NONE;
        for (pc, mask) in arms {
            if mask == 0 || (pc == rpc && rpc != END) {
                continue;
            }
            arm.pc = pc;
            arm.mask = mask;
            let index = self.add(arm);
            next = index;
            count += 1;
        }
        if arm.parent != NONE {
            let parent = &mut self.paths[arm.parent as usize];
            parent.pending += count;
            if replaced {
                parent.pending -= 1;
            }
        }
        debug_assert_ne!(next, NONE, "a divergent branch has an arm that does not wait");
        self.enter(next);
        Flow::Jump
    }

    /// Adds a path one frame deeper for `mask` and gives its index; the caller waits at `self.path.pc`, which must have
    /// been advanced.
    pub fn call(&mut self, function: u32, mask: u32, base: Bases, local: u32) -> u32 {
        let path = Path {
            depth: self.path.depth + 1,
            parent: self.current,
            base,
            local,
            ..Path::root(function, mask)
        };
        self.path.state = State::Waiting;
        self.path.pending += 1;
        self.save();
        self.add(path)
    }

    /// Takes `lanes` out of the running function: they go on in the caller.
    pub fn retire(&mut self, lanes: u32) -> Flow {
        let depth = self.path.depth;
        let mut ancestor = self.path.parent;
        while ancestor != NONE && self.paths[ancestor as usize].depth == depth {
            self.paths[ancestor as usize].mask &= !lanes;
            ancestor = self.paths[ancestor as usize].parent;
        }
        self.drop_lanes(lanes)
    }

    /// Ends `lanes` of the running path for good.
    pub fn exit(&mut self, lanes: u32) -> Flow {
        self.live &= !lanes;
        let mut ancestor = self.path.parent;
        while ancestor != NONE {
            self.paths[ancestor as usize].mask &= !lanes;
            ancestor = self.paths[ancestor as usize].parent;
        }
        self.drop_lanes(lanes)
    }

    fn drop_lanes(&mut self, lanes: u32) -> Flow {
        self.path.mask &= !lanes;
        if self.path.mask == 0 { self.finish() } else { Flow::Next }
    }

    /// Ends the running path and goes on with its parent, if that is free to go, or any other.
    pub fn finish(&mut self) -> Flow {
        self.paths[self.current as usize].state = State::Free;
        let mut parent = self.path.parent;
        let (mut depth, mut taken) = (self.path.depth, self.path.taken);
        while parent != NONE {
            let above = &mut self.paths[parent as usize];
            // What an arm has taken of the stack stays until its function returns.
            if above.depth == depth {
                above.taken = above.taken.max(taken);
            }
            (depth, taken) = (above.depth, above.taken);
            above.pending -= 1;
            if above.pending > 0 {
                break;
            }
            if above.mask != 0 {
                above.state = State::Ready;
                self.enter(parent);
                return Flow::Jump;
            }
            above.state = State::Free;
            parent = above.parent;
        }
        self.switch()
    }

    /// Ends the running path if it stands where a path above it, of the same call, is to meet others: its lanes wait
    /// there. They come here on their own where a branch in between has an arm that returns.
    pub fn rejoin(&mut self) -> Flow {
        let Path { pc, depth, mask, parent, .. } = self.path;
        let same_call = |index: u32| index != NONE && self.paths[index as usize].depth == depth;
        let mut meeting = parent;
        while same_call(meeting) && self.paths[meeting as usize].rpc != pc {
            meeting = self.paths[meeting as usize].parent;
        }
        if !same_call(meeting) {
            return Flow::Next;
        }
        let mut above = parent;
        loop {
            self.paths[above as usize].mask &= !mask;
            if above == meeting {
                break;
            }
            above = self.paths[above as usize].parent;
        }
        self.path.mask = 0;
        self.finish()
    }

    /// Goes on with another ready path. The running one must have been saved or freed.
    pub fn switch(&mut self) -> Flow {
        let count = self.paths.len() as u32;
        for step in 1..=count {
            let index = (self.current + step) % count;
            if self.paths[index as usize].state == State::Ready {
                self.enter(index);
                return Flow::Jump;
            }
        }
        self.path.state = State::Free;
        Flow::Stop
    }

    /// Lets lanes go on that wait for others to meet them, as paths of their own. True if there were any.
    ///
    /// What keeps the others may be these very lanes: a barrier that counts them, a flag they will set.
    pub fn release(&mut self) -> bool {
        let mut released = false;
        for index in 0..self.paths.len() {
            let path = self.paths[index];
            if path.state != State::Waiting {
                continue;
            }
            let children = self.paths.iter().filter(|p| p.state != State::Free && p.parent == index as u32);
            let away = children.fold(0, |lanes, p| lanes | p.mask);
            let idle = path.mask & !away;
            if idle == 0 {
                continue;
            }
            self.paths[index].mask = path.mask & away;
            if path.parent != NONE {
                self.paths[path.parent as usize].pending += 1;
            }
            self.add(Path { state: State::Ready, mask: idle, pending: 0, ..path });
            released = true;
        }
        released
    }

    pub fn done(&self) -> bool {
        self.paths.iter().all(|p| p.state == State::Free)
    }
}

impl Machine<'_> {
    /// Brings the lanes of `members` together at this instruction. `Ok` gives the lanes that execute it now; `Err`
    /// holds the path until the others arrive.
    ///
    /// Lanes that arrived on other paths are executed along: registers are per lane, so one execution under the united
    /// mask serves all paths of the same frame, and those others are set past the instruction.
    pub fn gather(&mut self, mask: u32, members: u32, anywhere: bool) -> Result<u32, Flow> {
        let warp = &mut *self.warp;
        let need = members & warp.live;
        if need & !mask == 0 {
            return Ok(mask);
        }
        let here = warp.path;
        let current = warp.current as usize;
        let meets = |(index, p): (usize, &Path)| {
            index != current
                && p.state == State::Gather { anywhere }
                && (anywhere
                    || (p.pc, p.function, p.base, p.local) == (here.pc, here.function, here.base, here.local))
        };
        let mut union = mask;
        for (_, p) in warp.paths.iter().enumerate().filter(|&(i, p)| meets((i, p))) {
            union |= p.held;
        }
        if need & !union != 0 && !here.resumed {
            warp.path.state = State::Gather { anywhere };
            warp.path.held = mask;
            warp.save();
            return Err(warp.switch());
        }
        for index in 0..warp.paths.len() {
            if meets((index, &warp.paths[index])) {
                warp.paths[index].state = State::Ready;
                warp.paths[index].pc += 1;
            }
        }
        warp.path.resumed = false;
        Ok(union)
    }
}
