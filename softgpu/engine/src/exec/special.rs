//! Special registers.

use std::time::{SystemTime, UNIX_EPOCH};

use super::lanes::{LANES, Longs, Words};
use super::op::{Flow, Handler, Machine, Op};

/// The handler of special register `name`, whether it is 64 bits wide, and the handler's `flags`.
pub fn lookup(name: &str) -> Option<(Handler, bool, u32)> {
    let (base, axis) = match name.rsplit_once('.') {
        Some((base, "x")) => (base, 0),
        Some((base, "y")) => (base, 1),
        Some((base, "z")) => (base, 2),
        Some(_) => return None,
        None => (name, 3),
    };
    let word = |run: Handler, flags| Some((run, false, flags));
    match (base, axis) {
        (_, 3) => scalar(base),
        ("%tid", _) => word(tid, axis),
        ("%ntid", _) => word(ntid, axis),
        ("%ctaid" | "%clusterid", _) => word(ctaid, axis),
        ("%nctaid" | "%nclusterid", _) => word(nctaid, axis),
        ("%cluster_ctaid", _) => word(fixed, 0),
        ("%cluster_nctaid", _) => word(fixed, 1),
        _ => None,
    }
}

fn scalar(name: &str) -> Option<(Handler, bool, u32)> {
    let word = |run: Handler| Some((run, false, 0));
    match name {
        "%laneid" => word(laneid),
        "%warpid" => word(warpid),
        "%nwarpid" => Some((fixed, false, 64)),
        "WARP_SZ" => Some((fixed, false, 32)),
        "%smid" => word(smid),
        "%nsmid" => word(nsmid),
        "%gridid" => Some((gridid, true, 0)),
        "%lanemask_eq" => Some((lanemask, false, 0)),
        "%lanemask_le" => Some((lanemask, false, 1)),
        "%lanemask_lt" => Some((lanemask, false, 2)),
        "%lanemask_ge" => Some((lanemask, false, 3)),
        "%lanemask_gt" => Some((lanemask, false, 4)),
        "%clock" => Some((clock, false, 0)),
        "%clock_hi" => Some((clock, false, 1)),
        "%clock64" => Some((clock64, true, 0)),
        "%globaltimer" => Some((globaltimer, true, 0)),
        "%globaltimer_lo" => Some((globaltimer_half, false, 0)),
        "%globaltimer_hi" => Some((globaltimer_half, false, 1)),
        "%dynamic_smem_size" => Some((shared_size, false, 0)),
        "%total_smem_size" => Some((shared_size, false, 1)),
        "%aggr_smem_size" => Some((shared_size, false, 1)),
        // Nothing of shared memory is reserved for the system.
        _ if name.starts_with("%reserved_smem_offset_") => Some((fixed, false, 0)),
        "%cluster_ctarank" => Some((fixed, false, 0)),
        "%cluster_nctarank" => Some((fixed, false, 1)),
        // Grids are not launched from graphs on the device.
        "%current_graph_exec" => Some((fixed_long, true, 0)),
        "%envreg1" => Some((workspace, false, 32)),
        "%envreg2" => Some((workspace, false, 0)),
        _ if name.starts_with("%pm") && name.ends_with("_64") => Some((fixed_long, true, 0)),
        _ if name.starts_with("%envreg") || name.starts_with("%pm") => Some((fixed, false, 0)),
        _ => None,
    }
}

fn words(m: &mut Machine<'_>, op: &Op, mask: u32, values: &Words) -> Flow {
    m.set_words(op.dst, values, mask);
    Flow::Next
}

fn uniform(m: &mut Machine<'_>, op: &Op, mask: u32, value: u32) -> Flow {
    words(m, op, mask, &[value; LANES])
}

fn long(m: &mut Machine<'_>, op: &Op, mask: u32, value: u64) -> Flow {
    let values: Longs = [value; LANES];
    m.set_longs(op.dst, &values, mask);
    Flow::Next
}

fn fixed(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, op.flags)
}

fn fixed_long(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    long(m, op, mask, u64::from(op.flags))
}

fn tid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let values = m.warp.thread[op.flags as usize];
    words(m, op, mask, &values)
}

fn ntid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, m.grid.block[op.flags as usize])
}

fn ctaid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, m.block.index[op.flags as usize])
}

fn nctaid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, m.grid.grid[op.flags as usize])
}

fn laneid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    words(m, op, mask, &std::array::from_fn(|lane| lane as u32))
}

fn warpid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, m.warp.index)
}

/// Blocks go round the multiprocessors in order of their index.
fn smid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let [x, y, z] = m.block.index.map(u64::from);
    let [width, height, _] = m.grid.grid.map(u64::from);
    let linear = (z * height + y) * width + x;
    uniform(m, op, mask, (linear % u64::from(m.grid.environment.sm_count.max(1))) as u32)
}

fn nsmid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, m.grid.environment.sm_count)
}

fn gridid(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    long(m, op, mask, m.grid.id)
}

fn lanemask(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let values = std::array::from_fn(|lane| {
        let own = 1u32 << lane;
        match op.flags {
            0 => own,
            1 => own | (own - 1),
            2 => own - 1,
            3 => !(own - 1),
            _ => !(own | (own - 1)),
        }
    });
    words(m, op, mask, &values)
}

/// Nanoseconds of the host's clock since the epoch.
fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u64)
}

fn clock(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    let now = now_ns();
    uniform(m, op, mask, if op.flags == 0 { now as u32 } else { (now >> 32) as u32 })
}

/// The clock rate is one cycle per nanosecond.
fn clock64(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    long(m, op, mask, now_ns())
}

fn globaltimer(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    long(m, op, mask, now_ns())
}

fn globaltimer_half(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    clock(m, op, mask)
}

/// The address of the workspace of a cooperative grid, in two halves.
fn workspace(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, (m.grid.workspace >> op.flags) as u32)
}

fn shared_size(m: &mut Machine<'_>, op: &Op, mask: u32) -> Flow {
    uniform(m, op, mask, if op.flags == 0 { m.grid.dynamic_shared_bytes } else { m.grid.shared_bytes })
}
