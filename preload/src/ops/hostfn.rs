//! Logic of the hostfn functions.
