//! liblightos_intercept.so: the part of LightOS that lives inside an unmodified CUDA program.
//!
//! The program finds driver functions by `dlsym`, by `cuGetProcAddress` or by direct linking; [`resolver`], `hooks::procaddr`
//! and the exported `cu*` symbols answer each of these ways with our entry points. An entry point ([`hooks`], the FFI edge)
//! runs safe logic ([`ops`]), which forwards the call to the sidecar through a [`session`], or lets the real driver
//! ([`real`]) run it. Which of the two a process does is decided in [`dispatch`].
//!
//! Rules of this crate: no panic reaches the program, stderr stays clean, nothing allocates, locks or logs while a symbol is
//! being resolved, and where there is no session every call runs natively.

mod alloc;
mod dispatch;
mod edge;
mod elf;
mod guard;
mod handles;
mod hooks;
mod image;
mod life;
mod mapped;
mod ops;
mod outcome;
mod real;
mod resolver;
mod result;
mod session;
mod trampoline;
