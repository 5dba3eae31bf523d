//! `cuInit`: the real driver first, then the sidecar.

use crate::{
    dispatch, life,
    outcome::{Outcome, Reason},
    real,
};

/// Initialises the local driver, which stays in use for queries, and connects to the sidecar the first time that succeeds. In the
/// child of a fork the real driver answers, as it does natively.
pub fn init(flags: u32) -> Outcome {
    if life::is_off() {
        return Outcome::PassThrough(Reason::LocalQuery);
    }
    // SAFETY: `cuInit` takes any flags.
    let result = unsafe { real::cuInit(flags) }.ok().and_then(|()| dispatch::start());
    result.into()
}
