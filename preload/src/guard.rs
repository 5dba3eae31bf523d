//! The frame around every hook: re-entrancy, panics, counting, and the three outcomes.

use crate::{
    dispatch::{
        self,
        local::{self, Launch},
    },
    hooks::Hook,
    outcome::{Outcome, Reason},
    result::CuResult,
    session::{self, Session},
};
use lightos_protocol::pages::Outcome as Column;
use std::{
    cell::Cell,
    panic::{AssertUnwindSafe, catch_unwind},
};

thread_local! {
    /// True while this thread is inside a hook: what the driver or an op calls from there goes to the real driver.
    static INSIDE: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as inside a hook until dropped.
#[derive(Debug)]
pub struct Guard(());

impl Guard {
    /// `None` when the thread is inside a hook already (or is past the end of its thread-local storage).
    pub fn enter() -> Option<Self> {
        let fresh = INSIDE.try_with(|inside| !inside.replace(true)).unwrap_or(false);
        fresh.then_some(Self(()))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = INSIDE.try_with(|inside| inside.set(false));
    }
}

/// When a hook's logic runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// With a session only; otherwise the call is native.
    Session,
    /// As [`When::Session`]; natively the launch obeys the verdict.
    Launch(Launch),
    /// Always (initialisation, look-ups).
    Always,
}

/// Runs one hooked call. `native` calls the real driver with the program's arguments.
#[inline]
pub fn enter(
    hook: &Hook,
    when: When,
    body: impl FnOnce() -> Outcome,
    native: impl FnOnce() -> CuResult,
) -> CuResult {
    if when != When::Always && (session::session().is_none() || (dispatch::is_open() && dispatch::revise())) {
        if let When::Launch(launch) = when {
            local::admit(hook, launch);
        }
        return native();
    }
    let Some(_guard) = Guard::enter() else { return native() };
    // A panic is a defect of ours: the program must not see it, and the call still has to happen.
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or(Outcome::PassThrough(Reason::Panicked));
    let session = session::session();
    match outcome {
        Outcome::Done => {
            count(session, hook, Column::Forwarded);
            CuResult::SUCCESS
        }
        Outcome::PassThrough(reason) => {
            count_reason(session, hook, Column::Passed, reason);
            native()
        }
        Outcome::Fail(error) => {
            // An answer "not ready" is the call's normal result, not a failure.
            let column = if error == CuResult::NOT_READY { Column::Forwarded } else { Column::Failed };
            count(session, hook, column);
            error
        }
        Outcome::Refuse(reason) if dispatch::meets_refusal(reason, hook.slot.name()) => native(),
        Outcome::Refuse(reason) => {
            count_reason(session, hook, Column::Refused, reason);
            CuResult::NOT_SUPPORTED
        }
    }
}

fn count(session: Option<&Session>, hook: &Hook, column: Column) {
    if let Some(session) = session {
        session.count(hook.row, column);
    }
}

/// Counts a call that was not forwarded, and why.
fn count_reason(session: Option<&Session>, hook: &Hook, column: Column, reason: Reason) {
    if let Some(session) = session {
        session.count(hook.row, column);
        session.pages().counters().count_reason(reason as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hooks;

    const NATIVE: CuResult = CuResult(4242);

    fn run(when: When, body: impl FnOnce() -> Outcome) -> CuResult {
        enter(hooks::all().next().expect("a hook"), when, body, || NATIVE)
    }

    #[test]
    fn without_a_session_a_call_is_native() {
        assert_eq!(run(When::Session, || unreachable!("no session")), NATIVE);
    }

    #[test]
    fn outcomes_become_results() {
        assert_eq!(run(When::Always, || Outcome::Done), CuResult::SUCCESS);
        assert_eq!(run(When::Always, || Outcome::PassThrough(Reason::LocalQuery)), NATIVE);
        assert_eq!(run(When::Always, || Outcome::Fail(CuResult::INVALID_VALUE)), CuResult::INVALID_VALUE);
        assert_eq!(run(When::Always, || Outcome::Refuse(Reason::Arrays)), CuResult::NOT_SUPPORTED);
    }

    #[test]
    fn a_panic_becomes_the_native_call() {
        assert_eq!(run(When::Always, || panic!("a defect")), NATIVE);
        assert_eq!(run(When::Always, || Outcome::Done), CuResult::SUCCESS, "the guard was released");
    }

    #[test]
    fn inside_a_hook_further_hooks_are_native() {
        let nested = run(When::Always, || Outcome::Fail(run(When::Always, || Outcome::Done)));
        assert_eq!(nested, NATIVE);
    }
}
